"""How detection changes with the threshold: FROC, average precision, area under the ROC curve."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

from metaseg_nb.evaluation.intervals import percentiles, times_drawn
from metaseg_nb.evaluation.lesion_metrics import detection_counts
from metaseg_nb.evaluation.surfaces import Spacing

THRESHOLDS = (*np.arange(5, 100, 5) / 100, 0.99)
# False lesions per patient at which curves are usually read: Setio et al. 2017 (Med. Image Anal. 42:1), LUNA16.
FALSE_RATES = (0.125, 0.25, 0.5, 1, 2, 4, 8)
COUNTS = ["n_truth", "n_detected", "n_false"]


def detections_by_threshold(
    truth: np.ndarray, probability: np.ndarray, spacing_mm: Spacing, thresholds: Sequence[float] = THRESHOLDS
) -> pd.DataFrame:
    """Count detected and false lesions of a case at each threshold, matched as in `lesion_metrics`.

    Parameters
    ----------
    truth : ndarray of bool, shape (X, Y, Z)
    probability : ndarray, shape (X, Y, Z)
        Or any map that grows with confidence.
    spacing_mm : tuple of 3 floats
    thresholds : sequence of float
        A voxel that reaches one is lesion.

    Returns
    -------
    DataFrame
        A row per threshold: ``threshold``, ``n_truth``, ``n_detected``, ``n_false``.
    """
    counts = [detection_counts(truth, probability >= threshold, spacing_mm) for threshold in thresholds]
    return pd.DataFrame(counts).assign(threshold=thresholds)[["threshold", *COUNTS]]


def froc(detections: pd.DataFrame) -> pd.DataFrame:
    """FROC curves of all networks; a patient's cases are averaged first, as in `leaderboard`.

    Parameters
    ----------
    detections : DataFrame
        A row per (``model``, case, ``threshold``): ``patient``, ``n_truth``, ``n_detected``, ``n_false``.

    Returns
    -------
    DataFrame
        A row per (``model``, ``threshold``), from high to low: ``sensitivity`` (share of all lesions),
        ``false_per_patient``, ``precision`` (1 where nothing is predicted), and the counts, summed over patients.

    References
    ----------
    Free-response ROC: Bunch et al. 1978; Chakraborty 1989 (Med. Phys. 16:561).
    """
    tables = []
    for model, rows in detections.groupby("model", sort=False):
        thresholds, counts = _by_patient(rows)
        sums = counts.sum(axis=0)
        sensitivity, false, precision = _rates(sums, len(counts))
        table = pd.DataFrame(sums, columns=COUNTS).assign(model=model, threshold=thresholds, precision=precision)
        tables.append(table.assign(sensitivity=np.nan_to_num(sensitivity, nan=1.0), false_per_patient=false))
    return pd.concat(tables, ignore_index=True)


def _by_patient(detections: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Thresholds from high to low, and `COUNTS`, means over each patient's cases, as (patient, threshold, count)."""
    means = detections.groupby(["patient", "threshold"])[COUNTS].mean()
    patients, thresholds = (means.index.unique(level) for level in means.index.names)
    thresholds = thresholds.sort_values(ascending=False)
    whole = means.reindex(pd.MultiIndex.from_product([patients, thresholds]), fill_value=0)
    return thresholds.to_numpy(), whole.to_numpy().reshape(len(patients), len(thresholds), len(COUNTS))


def _rates(sums: np.ndarray, n_patients: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sensitivity (NaN without lesions), false lesions per patient, precision; ``sums`` has `COUNTS` last."""
    truth, detected, false = np.moveaxis(sums.astype(float), -1, 0)
    with np.errstate(invalid="ignore"):
        sensitivity = detected / truth
        precision = np.nan_to_num(detected / (detected + false), nan=1.0)
    return sensitivity, false / n_patients, precision


def _resampled_rates(counts: np.ndarray, n_bootstrap: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`_rates` of resamples of patients, each (n_bootstrap, threshold)."""
    drawn = times_drawn(len(counts), n_bootstrap, seed)
    return _rates(np.tensordot(drawn, counts, axes=1), len(counts))


def froc_points(detections: pd.DataFrame, models: Sequence[str], n_bootstrap: int, seed: int) -> pd.DataFrame:
    """Highest sensitivity with no more than a given number of false lesions per patient, with its interval.

    The threshold is chosen again in each resample of patients.

    Parameters
    ----------
    detections : DataFrame
        As of `froc`.
    models : sequence of str

    Returns
    -------
    DataFrame
        A row per (``model``, ``false_per_patient`` of `FALSE_RATES`): ``patients``, ``lesions`` (all), ``sensitivity``
        with ``low``, ``high`` (95 % bootstrap interval; NaN below two patients). 0 where every threshold has more
        false lesions.
    """
    columns = ["model", "false_per_patient", "patients", "lesions", "sensitivity", "low", "high"]
    rows = []
    for model in models:
        of_model = detections[detections["model"] == model]
        _, counts = _by_patient(of_model)
        lesions = int(of_model.loc[of_model["threshold"] == of_model["threshold"].max(), "n_truth"].sum())
        curve, curves = _rates(counts.sum(axis=0), len(counts)), _resampled_rates(counts, n_bootstrap, seed)
        for rate in FALSE_RATES:
            bounds = percentiles(_reached(*curves[:2], rate)) if len(counts) > 1 else (np.nan, np.nan)
            rows.append((model, rate, len(counts), lesions, float(_reached(*curve[:2], rate)), *bounds))
    return pd.DataFrame(rows, columns=columns)


def _reached(sensitivity: np.ndarray, false_per_patient: np.ndarray, rate: float) -> np.ndarray:
    """Highest sensitivity of the thresholds with at most ``rate`` false lesions per patient, along the last axis."""
    return np.where(false_per_patient <= rate, sensitivity, 0 * sensitivity).max(axis=-1)


def average_precision(detections: pd.DataFrame, n_bootstrap: int, seed: int) -> tuple[float, float, float]:
    """Average precision of one network with its 95 % bootstrap interval over patients (NaN below two).

    The area under precision over sensitivity, in steps: each gain in sensitivity counts with its precision, and
    lesions that no threshold finds with precision 0, as in picai_eval (Saha et al. 2024, Lancet Oncol. 25:879).
    """
    _, counts = _by_patient(detections)
    sensitivity, _, precision = _rates(counts.sum(axis=0), len(counts))
    found = float(_area(np.nan_to_num(sensitivity, nan=1.0), precision))
    if len(counts) < 2:
        return found, np.nan, np.nan
    sensitivity, _, precision = _resampled_rates(counts, n_bootstrap, seed)
    return found, *percentiles(_area(sensitivity, precision))


def _area(sensitivity: np.ndarray, precision: np.ndarray) -> np.ndarray:
    # a lower threshold can join two lesions' predictions or lose none: only gains are counted
    best = np.maximum.accumulate(sensitivity, axis=-1)
    return (np.diff(best, prepend=0.0, axis=-1) * precision).sum(axis=-1)


def area_under_roc(score: np.ndarray, positive: np.ndarray) -> float:
    """Chance that a positive scores higher than a negative, ties counting half; NaN without one of each.

    References
    ----------
    Mann & Whitney 1947; Hanley & McNeil 1982 (Radiology 143:29).
    """
    score, positive = np.asarray(score), np.asarray(positive, bool)
    if positive.all() or not positive.any():
        return float("nan")
    u = stats.mannwhitneyu(score[positive], score[~positive], method="asymptotic").statistic
    return float(u / (positive.sum() * (~positive).sum()))
