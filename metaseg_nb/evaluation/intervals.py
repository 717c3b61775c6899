"""Bootstrap confidence intervals of statistics over patients."""

from collections.abc import Sequence

import numpy as np
from scipy import stats


def bootstrap_interval(
    values: Sequence[float] | np.ndarray, n_resamples: int = 2000, seed: int = 0, level: float = 0.95
) -> tuple[float, float]:
    """Percentile bootstrap confidence interval of a mean.

    Parameters
    ----------
    values : sequence of float, shape (N,)
        One value per patient (first average a patient's cases: they are not independent).
    n_resamples : int
        Resamples of N patients, drawn with replacement.
    seed : int
        The same seed gives the same interval.
    level : float
        Confidence, between 0 and 1.

    Returns
    -------
    low, high : float
        In the unit of ``values``; NaN for both when there are fewer than two
        values: one patient cannot show how patients differ.

    Raises
    ------
    ValueError
        Values are not one-dimensional or not finite, or ``level`` is impossible.

    References
    ----------
    Efron 1979, Ann. Statist. 7(1):1-26; Efron & Tibshirani 1993, An Introduction to
    the Bootstrap, chapter 13.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1:
        raise ValueError(f"values: found shape {values.shape}; expected one value per patient, shape (N,)")
    if not np.isfinite(values).all():
        bad = int((~np.isfinite(values)).sum())
        raise ValueError(f"values: found {bad} NaN or infinite; expected finite: give such cases their defined score")
    if not 0 < level < 1:
        raise ValueError(f"level: found {level}; expected a confidence between 0 and 1, such as 0.95")
    if len(values) < 2:
        return float("nan"), float("nan")
    drawn = np.random.default_rng(seed).integers(len(values), size=(n_resamples, len(values)))
    return percentiles(values[drawn].mean(axis=1), level)


def percentiles(resampled: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Percentile interval of a statistic over the resamples in which it exists; NaN where it does in none.

    Parameters
    ----------
    resampled : ndarray, shape (n_resamples,)
        NaN where the statistic does not exist, such as a sensitivity without lesions.
    """
    exist = resampled[np.isfinite(resampled)]
    low, high = np.quantile(exist, [(1 - level) / 2, (1 + level) / 2]) if len(exist) else (np.nan, np.nan)
    return float(low), float(high)


def times_drawn(n_patients: int, n_resamples: int, seed: int) -> np.ndarray:
    """How often each resample draws each patient; multiplied by patients' counts, it gives the resamples' counts.

    Returns
    -------
    ndarray of int, shape (n_resamples, n_patients)
        Each row sums to ``n_patients``.
    """
    drawn = np.random.default_rng(seed).integers(n_patients, size=(n_resamples, n_patients))
    places = drawn + n_patients * np.arange(n_resamples)[:, None]
    return np.bincount(places.ravel(), minlength=n_resamples * n_patients).reshape(n_resamples, n_patients)


def bootstrap_ratio(
    parts: Sequence[float] | np.ndarray,
    wholes: Sequence[float] | np.ndarray,
    n_resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[float, float]:
    """Percentile bootstrap interval of ``sum(parts) / sum(wholes)``, such as lesions detected of all lesions.

    Patients are resampled, each with all of its lesions, for lesions of one
    patient are not independent. Where no patient has a part, or every one the whole, all resamples are
    equal, but the share is not certain: then the interval is the exact one of a proportion
    of patients, none or all of N.

    Parameters
    ----------
    parts, wholes : sequence of float, shape (N,)
        One value per patient; every whole above 0.
    n_resamples, seed, level
        As in `bootstrap_interval`.

    Returns
    -------
    low, high : float
        NaN for both with fewer than two patients.

    References
    ----------
    Exact interval: Clopper & Pearson 1934 (Biometrika 26:404).
    """
    parts, wholes = np.asarray(parts, dtype=np.float64), np.asarray(wholes, dtype=np.float64)
    if len(parts) < 2:
        return float("nan"), float("nan")
    if not parts.any() or np.array_equal(parts, wholes):
        exact = stats.binomtest(len(parts) * bool(parts.any()), len(parts)).proportion_ci(level, method="exact")
        return float(exact.low), float(exact.high)
    drawn = np.random.default_rng(seed).integers(len(parts), size=(n_resamples, len(parts)))
    return percentiles(parts[drawn].sum(axis=1) / wholes[drawn].sum(axis=1), level)


def mean_with_interval(
    name: str, values: Sequence[float] | np.ndarray, n_resamples: int, seed: int
) -> dict[str, float]:
    """Mean of one value per patient as columns of a table: ``name``, ``name_low``, ``name_high``."""
    low, high = bootstrap_interval(values, n_resamples, seed)
    return {name: float(np.mean(values)), f"{name}_low": low, f"{name}_high": high}


def estimate(value: float, low: float, high: float, form: str = ".2f") -> str:
    """A value with its 95 % interval as text, such as ``0.71 (95 % interval 0.65 to 0.78)``."""
    if np.isfinite([low, high]).all():
        return f"{value:{form}} (95 % interval {low:{form}} to {high:{form}})"
    return f"{value:{form}} (too few patients for an interval)" if np.isfinite(value) else "unknown"
