"""Learning curves of an annotation budget: every measure of every arm with its interval, and power laws."""

from itertools import product

import numpy as np
import pandas as pd

from metaseg_nb.annotation.results import BudgetResults
from metaseg_nb.evaluation.intervals import EQUAL, percentiles, share

# Means over patients, or shares of all lesions: the numerator, and the denominator (None: the number of patients).
MEASURES = {"dice": ("dice", None), "sensitivity": ("n_detected", "n_truth"), "false_per_patient": ("n_false", None)}
# Of these, 1 minus the measure is an error that a power law may describe.
FITTED = ("dice", "sensitivity")
# Two budgets always lie on a power law.
LEAST_BUDGETS = 3
# How far the largest budget's error may be from the law, as a share of the gain that the law predicts.
TOLERATED = 0.25


def draw(results: BudgetResults, n_bootstrap: int, seed: int) -> np.ndarray:
    """Resamples of patients and of seeds, the same for everything that is compared.

    Patients and seeds are drawn separately, each with replacement, and crossed (pigeonhole bootstrap). Intervals are
    too wide where trainings hardly differ, and too narrow where they differ much and seeds are few: in simulated
    studies of three or five seeds, 95 % intervals held the truth in 84 to 99 %. With one seed they do not show how
    much another training would differ.

    Returns
    -------
    ndarray of int, shape (1 + B, S, P)
        How often each resample draws each patient of each seed. The first draws each once: these are the results.

    References
    ----------
    Owen 2007, Ann. Appl. Stat. 1(2):386-411.
    """
    rng, sizes = np.random.default_rng(seed), results.patients[["patient", "seed"]].nunique()
    patients, seeds = (rng.multinomial(n, np.full(n, 1 / n), n_bootstrap) for n in sizes)
    drawn = seeds[:, :, None] * patients[:, None, :]
    return np.concatenate([np.ones_like(drawn[:1]), drawn])


def ratio(draws: np.ndarray, parts: np.ndarray, wholes: np.ndarray) -> np.ndarray:
    """``parts.sum() / wholes.sum()``, both of shape (S, P), for each of the draws; NaN without wholes."""
    parts, wholes = (np.tensordot(draws, each, 2) for each in (parts, wholes))
    return np.divide(parts, wholes, out=np.full(len(draws), np.nan), where=wholes > 0)


def with_interval(draws: np.ndarray, values: np.ndarray) -> tuple[float, float, float]:
    """A number, from its values for each of the draws, and its 95 % interval; NaN with fewer than two patients.

    The interval is widened for the number of patients (`percentiles`), and not for that of seeds.
    """
    return float(values[0]), *percentiles(values[1:], draws.shape[2])


def budget_curves(results: BudgetResults, n_bootstrap: int, seed: int) -> pd.DataFrame:
    """Every measure of every network in every arm.

    Returns
    -------
    DataFrame
        A row per (``model``, ``arm``): the columns of `BudgetResults.arms`, ``n`` (patients tested), ``seeds``, and
        each of `MEASURES` with ``_low`` and ``_high``, its 95 % interval; NaN for a mean of equal values.
    """
    draws, rows = draw(results, n_bootstrap, seed), []
    for model, arm in product(results.models, results.arms.index):
        row = {"model": model, "arm": arm, **results.arms.loc[arm].to_dict()}
        row |= {"n": draws.shape[2], "seeds": draws.shape[1]}
        for measure, (_, of_lesions) in MEASURES.items():
            parts, wholes = _parts(results, model, arm, measure)
            found, low, high = with_interval(draws, ratio(draws, parts, wholes))
            if of_lesions and wholes.any() and np.array_equal(parts, wholes * parts.any()):  # no lesion, or all, found
                _, low, high = share(parts.mean(axis=0), wholes.mean(axis=0))
            elif not of_lesions and np.ptp(parts) < EQUAL:  # say no false lesion at all: others may have some
                low, high = np.nan, np.nan
            row |= {measure: found, f"{measure}_low": low, f"{measure}_high": high}
        rows.append(row)
    return pd.DataFrame(rows)


def _parts(results: BudgetResults, model: str, arm: str, measure: str) -> tuple[np.ndarray, np.ndarray]:
    """Numerator and denominator of a measure, both of shape (S, P)."""
    part, whole = MEASURES[measure]
    parts = results.values(model, arm, part)
    return parts, results.values(model, arm, whole) if whole else np.ones_like(parts)


def power_laws(results: BudgetResults, n_bootstrap: int, seed: int) -> pd.DataFrame:
    """Fit the error of each of `FITTED`, network by network, over the budgets of fully contoured patients.

    An error of 0 counts as half a lesion (or half a patient), because 0 has no logarithm.

    Returns
    -------
    DataFrame
        A row per (``model``, ``measure``): ``most_patients`` (of the largest budget), what `fit_power_law` returns
        with 95 % intervals (``_low``, ``_high``), ``n`` (patients tested), and ``refusal``.
    """
    draws, rows = draw(results, n_bootstrap, seed), []
    patients = results.arms.loc[results.budgets, "patients"].to_numpy(float)
    for model, measure in product(results.models, FITTED):
        errors = []
        for parts, wholes in (_parts(results, model, arm, measure) for arm in results.budgets):
            least = 0.5 / wholes.sum() if wholes.any() else np.nan
            errors.append(np.maximum(1 - ratio(draws, parts, wholes), least))
        laws, refusal = fit_power_law(patients, np.reshape(errors, (len(patients), len(draws))).T, draws.shape[2])
        row = {"model": model, "measure": measure, "most_patients": max(patients, default=np.nan)}
        for name, values in laws.items():
            row[name], row[f"{name}_low"], row[f"{name}_high"] = with_interval(draws, values)
        rows.append(row | {"n": draws.shape[2], "refusal": refusal})
    return pd.DataFrame(rows)


def fit_power_law(patients: np.ndarray, errors: np.ndarray, n_tested: int) -> tuple[dict[str, np.ndarray], str]:
    """Fit error = ``a`` · patients^-``b`` by least squares of the logarithms.

    Parameters
    ----------
    patients : ndarray, shape (K,)
        Annotated patients of each budget.
    errors : ndarray, shape (1 + B, K)
        Above 0: those of the results, and of each resample.
    n_tested : int
        Patients that were resampled.

    Returns
    -------
    laws : dict of ndarray, shape (1 + B,)
        ``a``, ``b``, ``doubling`` (by how much twice the largest budget lowers the error).
    refusal : str
        Why the law is not to be used, or empty. It is refused with fewer than `LEAST_BUDGETS` budgets, without
        lesions, where the error does not fall, and where the error of the largest budget is off the law beyond chance
        (95 %) and by more than `TOLERATED` of ``doubling``, as it is where a curve flattens.

    References
    ----------
    Power laws of learning curves: Figueroa et al. 2012, BMC Med. Inform. Decis. Mak. 12:8;
    Viering & Loog 2023, IEEE TPAMI 45(6):7799-7819. They end in a plateau that few budgets do not show.
    """
    names, n_budgets = ("a", "b", "doubling"), len(np.unique(patients))
    if n_budgets < LEAST_BUDGETS or not np.isfinite(errors[0]).all():
        few = f"{n_budgets} budget(s) of fully contoured patients; {LEAST_BUDGETS} are needed"
        unknown = dict.fromkeys(names, np.full(len(errors), np.nan))
        return unknown, few if n_budgets < LEAST_BUDGETS else "there are no lesions"
    most = patients.max()
    slope, log_a = np.polyfit(np.log(patients), np.log(errors).T, 1)
    at_most, at_twice = (np.exp(log_a + slope * np.log(n)) for n in (most, 2 * most))
    laws = dict(zip(names, (np.exp(log_a), -slope, at_most - at_twice), strict=True))
    misfits = errors[:, patients.argmax()] - at_most
    low, high = percentiles(misfits[1:], n_tested)
    refusal = ""
    if round(laws["b"][0], 9) <= 0:
        refusal = "the error does not fall with more annotated patients"
    elif low * high > 0 and abs(misfits[0]) > TOLERATED * laws["doubling"][0]:
        off = f"with {most:.0f} patients the result differs from it by {-misfits[0]:+.2f} [{-high:+.2f}, {-low:+.2f}]"
        refusal = f"a power law does not fit: {off}"
    return laws, refusal
