"""How results grow with annotations, and what twice as many would bring, as a power law has it."""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from metaseg_nb.annotation.resampling import Draws, ratio
from metaseg_nb.annotation.results import BudgetResults
from metaseg_nb.evaluation.intervals import bootstrap_ratio, percentiles

# Means over patients, or shares of all lesions: what is added up, and of what (nothing: of patients).
MEASURES = {
    "dice": ("dice", None),
    "sensitivity": ("n_detected", "n_truth"),
    "false_per_patient": ("n_false", None),
}
# Of these, 1 minus the measure is an error that a power law may describe.
FITTED = {"dice": "Dice", "sensitivity": "share of lesions detected"}
# Two budgets always lie on a power law.
LEAST_BUDGETS = 3
# How far a law may be from the largest budget's error, as a share of what it promises.
TOLERATED = 0.25


def budget_curves(results: BudgetResults, draws: Draws) -> pd.DataFrame:
    """Every measure of every network in every arm.

    Returns
    -------
    DataFrame
        A row per (``model``, ``arm``): what `BudgetResults.arms` says of the arm, ``n`` (patients tested), ``seeds``,
        and each of `MEASURES` with ``_low`` and ``_high``, its 95 % interval.
    """
    rows = []
    for model in results.models:
        for arm, facts in results.arms.iterrows():
            row = {"model": model, "arm": arm, **facts, "n": draws.patients.shape[1], "seeds": draws.seeds.shape[1]}
            for measure in MEASURES:
                parts, wholes = _parts(results, model, arm, measure)
                of_lesions = MEASURES[measure][1] is not None
                low, high = (_share_interval if of_lesions else _mean_interval)(draws, parts, wholes)
                value = float(ratio(parts.sum(), wholes.sum()))
                row |= {measure: value, f"{measure}_low": low, f"{measure}_high": high}
            rows.append(row)
    return pd.DataFrame(rows)


def _parts(results: BudgetResults, model: str, arm: str, measure: str) -> tuple[np.ndarray, np.ndarray]:
    """What is added up for a measure, and of what; both of shape (S, P)."""
    part, whole = MEASURES[measure]
    parts = results.values(model, arm, part)
    return parts, np.ones_like(parts) if whole is None else results.values(model, arm, whole)


def _mean_interval(draws: Draws, parts: np.ndarray, wholes: np.ndarray) -> tuple[float, float]:
    return draws.interval(draws.ratios(parts, wholes))


def _share_interval(draws: Draws, parts: np.ndarray, wholes: np.ndarray) -> tuple[float, float]:
    """95 % interval of a share of the lesions; where none or all are found, the exact one of `bootstrap_ratio`."""
    if wholes.any() and np.array_equal(parts, wholes * parts.any()):
        some = wholes.any(axis=0)
        return bootstrap_ratio(parts.mean(axis=0)[some], wholes.mean(axis=0)[some])
    return _mean_interval(draws, parts, wholes)


@dataclass(frozen=True)
class PowerLaw:
    """Error = ``a`` times patients to the power of -``b``.

    Attributes
    ----------
    patients : ndarray, shape (K,)
        Annotated patients of the budgets.
    a, b : float
    resampled : ndarray, shape (B, 2)
        ``log(a)`` and ``b`` of each resample.
    refusal : str
        Why it is not to be believed; empty if nothing speaks against it.
    """

    patients: np.ndarray
    a: float
    b: float
    resampled: np.ndarray
    refusal: str

    def errors(self, patients: np.ndarray) -> np.ndarray:
        """Error with so many annotated patients."""
        return self.a * np.asarray(patients, float) ** -self.b

    @property
    def most(self) -> float:
        """Patients of the largest budget."""
        return float(self.patients.max()) if len(self.patients) else float("nan")

    @property
    def doubling(self) -> float:
        """What twice the patients of the largest budget would take from the error."""
        return float(self.errors(self.most) - self.errors(2 * self.most))

    def resampled_errors(self, patients: float) -> np.ndarray:
        """Error with so many annotated patients in each resample, shape (B,)."""
        log_a, b = self.resampled.T
        return np.exp(log_a - b * np.log(patients))


def fit_power_law(patients: np.ndarray, errors: np.ndarray, resampled: np.ndarray) -> PowerLaw:
    """Fit a power law by least squares of the logarithms.

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
    PowerLaw
        Whose ``refusal`` says so if there are fewer than `LEAST_BUDGETS` budgets, if there is no error to speak of,
        if it does not fall, or if the error of the largest budget is not where the law has it: beyond chance (95 %),
        and by more than `TOLERATED` of what the law promises of twice as many patients. So it is where curves flatten.

    References
    ----------
    Power laws of learning curves: Figueroa et al. 2012, BMC Med. Inform. Decis. Mak. 12:8;
    Viering & Loog 2023, IEEE TPAMI 45(6):7799-7819. They end in a plateau that few budgets do not show.
    """
    n_budgets = len(np.unique(patients))
    if n_budgets < LEAST_BUDGETS or not np.isfinite(errors).all():
        few = f"{n_budgets} budget(s) of fully outlined patients; it takes {LEAST_BUDGETS}"
        why = few if n_budgets < LEAST_BUDGETS else "there are no lesions"
        return PowerLaw(patients, np.nan, np.nan, np.full((len(resampled), 2), np.nan), why)
    log_a, b = _line(patients, errors[None])[0]
    law = PowerLaw(patients, float(np.exp(log_a)), float(b), _line(patients, resampled), "")
    if round(b, 9) <= 0:
        return replace(law, refusal="the error does not fall with more annotated patients")
    last = int(np.argmax(patients))
    misfit = errors[last] - law.errors(law.most)
    low, high = percentiles(resampled[:, last] - law.resampled_errors(law.most))
    if low * high > 0 and abs(misfit) > TOLERATED * law.doubling:
        off = f"{law.most:.0f} patients are off it by {-misfit:+.2f} [{-high:+.2f}, {-low:+.2f}]"
        return replace(law, refusal=f"a power law does not fit: {off}")
    return law


def _line(patients: np.ndarray, errors: np.ndarray) -> np.ndarray:
    """``log(a)`` and ``b`` of each row of errors; shape (B, 2)."""
    x, y = np.log(patients), np.log(errors)
    b = -(y @ (x - x.mean())) / ((x - x.mean()) ** 2).sum()
    return np.column_stack([y.mean(axis=1) + b * x.mean(), b])


def power_laws(results: BudgetResults, draws: Draws) -> dict[tuple[str, str], PowerLaw]:
    """Fit the error of each of `FITTED`, network by network, over the budgets of fully outlined patients.

    An error of 0 counts as half a lesion (or patient), for it has no logarithm.
    """
    arms, laws = results.outlined, {}
    patients = results.arms.loc[arms, "patients"].to_numpy(float)
    for model in results.models:
        for measure in FITTED:
            errors, resampled = [], []
            for parts, wholes in (_parts(results, model, arm, measure) for arm in arms):
                least = ratio(0.5, wholes.sum())
                errors.append(np.maximum(1 - ratio(parts.sum(), wholes.sum()), least))
                resampled.append(np.maximum(1 - draws.ratios(parts, wholes), least))
            stacked = np.reshape(resampled, (len(arms), len(draws.patients))).T
            laws[model, measure] = fit_power_law(patients, np.array(errors), stacked)
    return laws


def law_table(laws: dict[tuple[str, str], PowerLaw], draws: Draws) -> pd.DataFrame:
    """A row per fit: ``a``, ``b``, ``doubling`` (gain of twice the annotations), with 95 % intervals; ``refusal``."""
    rows = []
    for (model, measure), law in laws.items():
        row = {"model": model, "measure": measure, "most_patients": law.most}
        for name, resampled in (
            ("a", np.exp(law.resampled[:, 0])),
            ("b", law.resampled[:, 1]),
            ("doubling", law.resampled_errors(law.most) - law.resampled_errors(2 * law.most)),
        ):
            low, high = draws.interval(resampled)
            row |= {name: getattr(law, name), f"{name}_low": low, f"{name}_high": high}
        rows.append(row | {"n": draws.patients.shape[1], "refusal": law.refusal})
    return pd.DataFrame(rows)
