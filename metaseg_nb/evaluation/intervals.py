"""How sure a mean over patients is: bootstrap confidence intervals."""

from collections.abc import Sequence

import numpy as np


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
        values, because one patient says nothing of how patients differ.

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
    low, high = np.quantile(values[drawn].mean(axis=1), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def bootstrap_ratio(
    parts: Sequence[float] | np.ndarray,
    wholes: Sequence[float] | np.ndarray,
    n_resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[float, float]:
    """Percentile bootstrap interval of ``sum(parts) / sum(wholes)``, such as lesions detected of all lesions.

    Patients are resampled, each with all of its lesions, for lesions of one
    patient are not independent.

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
    """
    parts, wholes = np.asarray(parts, dtype=np.float64), np.asarray(wholes, dtype=np.float64)
    if len(parts) < 2:
        return float("nan"), float("nan")
    drawn = np.random.default_rng(seed).integers(len(parts), size=(n_resamples, len(parts)))
    ratios = parts[drawn].sum(axis=1) / wholes[drawn].sum(axis=1)
    low, high = np.quantile(ratios, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
