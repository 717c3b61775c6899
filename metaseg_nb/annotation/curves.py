"""How results grow with annotations, and what twice as many patients would gain if a power law holds."""

from itertools import product

import numpy as np
import pandas as pd

from metaseg_nb.annotation.results import BudgetResults, Draws, ratio
from metaseg_nb.evaluation.intervals import bootstrap_ratio, percentiles

# Means over patients, or shares of all lesions: the numerator, and the denominator (None: the number of patients).
MEASURES = {"dice": ("dice", None), "sensitivity": ("n_detected", "n_truth"), "false_per_patient": ("n_false", None)}
# Of these, 1 minus the measure is an error that a power law may describe.
FITTED = ("dice", "sensitivity")
# Two budgets always lie on a power law.
LEAST_BUDGETS = 3
# How far the largest budget's error may be from the law, as a share of the gain that the law predicts.
TOLERATED = 0.25


def budget_curves(results: BudgetResults, draws: Draws) -> pd.DataFrame:
    """Every measure of every network in every arm.

    Returns
    -------
    DataFrame
        A row per (``model``, ``arm``): the columns of `BudgetResults.arms`, ``n`` (patients tested), ``seeds``, and
        each of `MEASURES` with ``_low`` and ``_high``, its 95 % interval.
    """
    rows = []
    for model, (arm, facts) in product(results.models, results.arms.iterrows()):
        row = {"model": model, "arm": arm, **facts, "n": draws.patients.shape[1], "seeds": draws.seeds.shape[1]}
        for measure in MEASURES:
            parts, wholes = _parts(results, model, arm, measure)
            low, high = _interval(draws, parts, wholes, is_share=MEASURES[measure][1] is not None)
            row |= {measure: float(ratio(parts.sum(), wholes.sum())), f"{measure}_low": low, f"{measure}_high": high}
        rows.append(row)
    return pd.DataFrame(rows)


def _parts(results: BudgetResults, model: str, arm: str, measure: str) -> tuple[np.ndarray, np.ndarray]:
    """Numerator and denominator of a measure, both of shape (S, P)."""
    part, whole = MEASURES[measure]
    parts = results.values(model, arm, part)
    return parts, np.ones_like(parts) if whole is None else results.values(model, arm, whole)


def _interval(draws: Draws, parts: np.ndarray, wholes: np.ndarray, is_share: bool) -> tuple[float, float]:
    """95 % interval; of a share where no lesion or every lesion is found, the exact one of `bootstrap_ratio`."""
    if is_share and wholes.any() and np.array_equal(parts, wholes * parts.any()):
        some = wholes.any(axis=0)
        return bootstrap_ratio(parts.mean(axis=0)[some], wholes.mean(axis=0)[some])
    return draws.interval(draws.ratios(parts, wholes))


def power_laws(results: BudgetResults, draws: Draws) -> pd.DataFrame:
    """Fit the error of each of `FITTED`, network by network, over the budgets of fully contoured patients.

    An error of 0 counts as half a lesion (or half a patient), because 0 has no logarithm.

    Returns
    -------
    DataFrame
        A row per (``model``, ``measure``): ``most_patients`` (of the largest budget), what `fit_power_law` returns
        with 95 % intervals (``_low``, ``_high``), and ``n`` (patients tested).
    """
    patients, rows = results.arms.loc[results.budgets, "patients"].to_numpy(float), []
    for model, measure in product(results.models, FITTED):
        errors, resampled = [], []
        for parts, wholes in (_parts(results, model, arm, measure) for arm in results.budgets):
            least = ratio(0.5, wholes.sum())
            errors.append(np.maximum(1 - ratio(parts.sum(), wholes.sum()), least))
            resampled.append(np.maximum(1 - draws.ratios(parts, wholes), least))
        stacked = np.reshape(resampled, (len(patients), len(draws.patients))).T
        law, of_resamples = fit_power_law(patients, np.array(errors), stacked)
        row = {"model": model, "measure": measure, "most_patients": max(patients, default=np.nan)}
        for name, values in of_resamples.items():
            low, high = draws.interval(values)
            row |= {name: law[name], f"{name}_low": low, f"{name}_high": high}
        rows.append(row | {"n": draws.patients.shape[1], "refusal": law["refusal"]})
    return pd.DataFrame(rows)


def fit_power_law(
    patients: np.ndarray, errors: np.ndarray, resampled: np.ndarray
) -> tuple[dict[str, float | str], dict[str, np.ndarray]]:
    """Fit error = ``a`` · patients^-``b`` by least squares of the logarithms.

    Parameters
    ----------
    patients : ndarray, shape (K,)
        Annotated patients of each budget.
    errors : ndarray, shape (K,)
        Above 0.
    resampled : ndarray, shape (B, K)
        Errors in resamples.

    Returns
    -------
    law : dict
        ``a``, ``b``, ``doubling`` (by how much twice the largest budget lowers the error), and ``refusal``: why the
        law is not to be used, or empty. It is refused with fewer than `LEAST_BUDGETS` budgets, without lesions, where
        the error does not fall, and where the error of the largest budget is off the law beyond chance (95 %) and by
        more than `TOLERATED` of ``doubling``, as it is where a curve flattens.
    of_resamples : dict of ndarray, shape (B,)
        ``a``, ``b`` and ``doubling`` in each resample.

    References
    ----------
    Power laws of learning curves: Figueroa et al. 2012, BMC Med. Inform. Decis. Mak. 12:8;
    Viering & Loog 2023, IEEE TPAMI 45(6):7799-7819. They end in a plateau that few budgets do not show.
    """
    names, n_budgets = ("a", "b", "doubling"), len(np.unique(patients))
    if n_budgets < LEAST_BUDGETS or not np.isfinite(errors).all():
        few = f"{n_budgets} budget(s) of fully contoured patients; {LEAST_BUDGETS} are needed"
        why = few if n_budgets < LEAST_BUDGETS else "there are no lesions"
        return dict.fromkeys(names, np.nan) | {"refusal": why}, dict.fromkeys(names, np.full(len(resampled), np.nan))
    last, most = int(np.argmax(patients)), patients.max()
    laws, misfits = [], []
    for rows in (errors[None], resampled):
        slope, log_a = np.polyfit(np.log(patients), np.log(rows).T, 1)
        at_most, at_twice = (np.exp(log_a + slope * np.log(n)) for n in (most, 2 * most))
        laws.append(dict(zip(names, (np.exp(log_a), -slope, at_most - at_twice), strict=True)))
        misfits.append(rows[:, last] - at_most)
    law, misfit = {name: float(values[0]) for name, values in laws[0].items()}, misfits[0][0]
    low, high = percentiles(misfits[1])
    refusal = ""
    if round(law["b"], 9) <= 0:
        refusal = "the error does not fall with more annotated patients"
    elif low * high > 0 and abs(misfit) > TOLERATED * law["doubling"]:
        off = f"{most:.0f} patients are off it by {-misfit:+.2f} [{-high:+.2f}, {-low:+.2f}]"
        refusal = f"a power law does not fit: {off}"
    return law | {"refusal": refusal}, laws[1]
