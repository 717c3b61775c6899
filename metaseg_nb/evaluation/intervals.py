"""Intervals over patients: bootstrap, shares of lesions, and how they are worded."""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from scipy import stats

# With fewer even six equal signs could not reach 5 % in a signed-rank test: 2 / 2⁵ = 0.06.
MIN_PATIENTS = 6
INCONCLUSIVE = "inconclusive"
# Values that lie closer together are equal, but for rounding.
EQUAL = 1e-9

Values = Sequence[float] | np.ndarray | pd.Series
# A value with the ends of its 95 % interval.
Estimate = tuple[float, float, float]


def bootstrap(
    statistic: Callable[[np.ndarray], np.ndarray], of_patients: np.ndarray, n_resamples: int, seed: int
) -> Estimate:
    """Bootstrap over patients: all intervals of cross-validation come from here. See `percentiles`.

    Parameters
    ----------
    statistic : callable
        Takes sums over patients, shape (B, ...), and gives its values, shape (B,); NaN where it does not exist, such as
        a sensitivity without lesions. Such resamples are passed over.
    of_patients : ndarray, shape (n_patients, ...)
        What is summed.
    n_resamples : int
        Resamples of as many patients, drawn with replacement.
    seed : int
        The same seed gives the same interval.

    Returns
    -------
    found, low, high : float
        The statistic of all patients once, with its 95 % interval; NaN for low and high with fewer than two patients:
        one patient cannot show how patients differ.

    References
    ----------
    Efron 1979, Ann. Statist. 7(1):1-26; Efron & Tibshirani 1993, An Introduction to
    the Bootstrap, chapter 13.
    """
    found = float(statistic(of_patients.sum(axis=0)[None])[0])
    if len(of_patients) < 2:
        return found, np.nan, np.nan
    drawn = times_drawn(len(of_patients), n_resamples, seed)
    return found, *percentiles(statistic(np.tensordot(drawn, of_patients, axes=1)), len(of_patients))


def times_drawn(n_patients: int, n_resamples: int, seed: int) -> np.ndarray:
    """How often each resample draws each patient, int of shape (n_resamples, n_patients)."""
    drawn = np.random.default_rng(seed).integers(n_patients, size=(n_resamples, n_patients))
    places = drawn + n_patients * np.arange(n_resamples)[:, None]
    return np.bincount(places.ravel(), minlength=n_resamples * n_patients).reshape(n_resamples, n_patients)


def percentiles(resampled: np.ndarray, n_patients: int) -> tuple[float, float]:
    """95 % interval of a statistic from its resamples: expanded percentiles, which lie farther out for few patients.

    Resamples of n patients vary less than patients do, and the normal distribution has shorter tails than t. So the
    ends are not the quantiles 0.025 and 0.975, but Phi(-z) and Phi(z), with z = √(n / (n - 1)) t(0.975, n - 1): 0.002
    and 0.998 for 6 patients, 0.019 and 0.981 for 50.

    Parameters
    ----------
    resampled : ndarray, shape (B,)
        Resamples in which the statistic does not exist (is not finite) are passed over.
    n_patients : int
        Resampled, of the smaller group where two groups are resampled apart.

    Returns
    -------
    low, high : float
        In the unit of the statistic; NaN with fewer than two patients, or where the statistic exists in no resample.

    References
    ----------
    Hesterberg 2015, Am. Stat. 69(4):371-386, What Teachers Should Know About the Bootstrap: the expanded percentile
    interval.
    """
    exist = resampled[np.isfinite(resampled)]
    if n_patients < 2 or not len(exist):
        return np.nan, np.nan
    beyond = stats.norm.cdf(-np.sqrt(n_patients / (n_patients - 1)) * stats.t.ppf(0.975, n_patients - 1))
    low, high = np.quantile(exist, [beyond, 1 - beyond])
    return float(low), float(high)


def of_each_patient(table: pd.DataFrame, columns: list[str], by: str) -> np.ndarray:
    """Mean over each patient's cases, for `bootstrap`: shape (patients, columns, values of ``by``, in order)."""
    patients = table.pivot_table(columns, "patient", by, aggfunc="mean", fill_value=0)[columns]
    return patients.to_numpy().reshape(len(patients), len(columns), -1)


def bootstrap_interval(values: Values, n_resamples: int = 2000, seed: int = 0) -> tuple[float, float]:
    """95 % interval of a mean; see `bootstrap`. NaN if all values are equal: that says nothing of other patients.

    Parameters
    ----------
    values : sequence of float, shape (N,)
        One value per patient (first average a patient's cases: they are not independent).

    Raises
    ------
    ValueError
        Values are not finite.
    """
    values = np.asarray(values, dtype=np.float64)
    if bad := int((~np.isfinite(values)).sum()):
        raise ValueError(f"values: found {bad} NaN or infinite; expected finite: give such cases their defined score")
    if len(values) and np.ptp(values) < EQUAL:
        return np.nan, np.nan
    return bootstrap(lambda sums: sums / max(1, len(values)), values, n_resamples, seed)[1:]


def share(parts: Values, wholes: Values, n_resamples: int = 2000, seed: int = 0) -> Estimate:
    """``sum(parts) / sum(wholes)``, such as lesions detected of all lesions, with its 95 % interval; see `bootstrap`.

    Patients are resampled, each with all of its lesions, for lesions of one
    patient are not independent. Where no patient has a part, or every one the whole, all resamples are
    equal, but the share is not certain: then the interval is the exact one of a proportion
    of patients, none or all of N.

    Parameters
    ----------
    parts, wholes : sequence of float, shape (N,)
        One value per patient; patients whose whole is 0 do not count. NaN where none is left.

    References
    ----------
    Exact interval: Clopper & Pearson 1934 (Biometrika 26:404).
    """
    sums = np.column_stack([np.asarray(parts, float), np.asarray(wholes, float)])
    sums = sums[sums[:, 1] > 0]

    def ratio(totals: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):
            return totals[:, 0] / totals[:, 1]

    found, low, high = bootstrap(ratio, sums, n_resamples, seed)
    if len(sums) > 1 and (not sums[:, 0].any() or np.array_equal(sums[:, 0], sums[:, 1])):
        exact = stats.binomtest(len(sums) * bool(sums[:, 0].any()), len(sums)).proportion_ci(method="exact")
        low, high = float(exact.low), float(exact.high)
    return found, low, high


def share_difference(first: pd.DataFrame, second: pd.DataFrame, n_resamples: int, seed: int) -> Estimate:
    """One share (``sum`` of ``n``) minus another, with its interval; a patient is resampled with all of both."""
    sums = pd.concat([first, second], axis=1).fillna(0).to_numpy(float)

    def gap(totals: np.ndarray) -> np.ndarray:
        a, n_a, b, n_b = totals.T
        with np.errstate(invalid="ignore"):
            return a / n_a - b / n_b

    return bootstrap(gap, sums, n_resamples, seed)


def once_each(values: pd.Series) -> pd.DataFrame:
    """Values of patients as sums for `share_difference`; a patient without one (NaN) does not count."""
    return pd.DataFrame({"sum": values, "n": values.notna()}).fillna(0)


def named(name: str, found: Estimate) -> dict[str, float]:
    """An estimate as columns of a table: ``name``, ``name_low``, ``name_high``."""
    return dict(zip((name, f"{name}_low", f"{name}_high"), found, strict=True))


def estimate(value: float, low: float, high: float, form: str = ".2f") -> str:
    """A value with its 95 % interval as text, such as ``0.71 (95 % interval 0.65 to 0.78)``."""
    form = form.replace(".", "z.")  # 0.00, not -0.00
    if not np.isfinite(value):
        return "unknown"
    if not np.isfinite([low, high]).all():
        return f"{value:{form}} (no interval: too few, or all equal)"
    return f"{value:{form}} (95 % interval {low:{form}} to {high:{form}})"


def verdict(low: float, high: float, patients: int, above: str, below: str) -> str:
    """Say whether the 95 % interval of a difference lies above 0, below it, or neither: `INCONCLUSIVE`."""
    if patients < MIN_PATIENTS or not np.isfinite([low, high]).all():
        return INCONCLUSIVE
    return above if low > 0 else below if high < 0 else INCONCLUSIVE
