"""How detection changes with the threshold: FROC, average precision, area under the ROC curve."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

from metaseg_nb.evaluation.intervals import percentiles, times_drawn

# False lesions per patient at which curves are usually read: Setio et al. 2017 (Med. Image Anal. 42:1), LUNA16.
FALSE_RATES = (0.125, 0.25, 0.5, 1, 2, 4, 8)
COUNTS = ["n_truth", "n_detected", "n_false"]


def froc(detections: pd.DataFrame) -> pd.DataFrame:
    """Pool the cases of one network into its FROC curve; a patient's cases are averaged first, as in `leaderboard`.

    Parameters
    ----------
    detections : DataFrame
        A row per (case, ``threshold``): ``patient``, ``n_truth``, ``n_detected``, ``n_false``.

    Returns
    -------
    DataFrame
        A row per threshold, from high to low: ``sensitivity`` (share of all lesions),
        ``false_per_patient``, ``precision`` (1 where nothing is predicted), and the counts, summed over patients.

    References
    ----------
    Free-response ROC: Bunch et al. 1978; Chakraborty 1989 (Med. Phys. 16:561).
    """
    thresholds, counts = _by_patient(detections)
    sums = counts.sum(axis=0)
    table = pd.DataFrame(sums, columns=COUNTS).assign(threshold=thresholds)
    sensitivity, false, precision = _rates(sums, len(counts))
    return table.assign(sensitivity=np.nan_to_num(sensitivity, nan=1.0), false_per_patient=false, precision=precision)


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
    """Sensitivity that is reached with no more than so many false lesions per patient, and how sure that is.

    Of each resample of patients the whole curve is read, so thresholds are free in each.

    Parameters
    ----------
    detections : DataFrame
        As of `froc`, with ``model``.
    models : sequence of str

    Returns
    -------
    DataFrame
        A row per (``model``, ``false_per_patient`` of `FALSE_RATES`): ``patients``, ``lesions`` (all), ``sensitivity``
        with ``low``, ``high`` (95 % bootstrap interval; NaN below two patients). 0 where no threshold has so few
        false lesions: then nothing may be marked.
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


def average_precision(curve: pd.DataFrame) -> float:
    """Area under precision over sensitivity, in steps: each gain in sensitivity counts with its precision.

    What no threshold finds counts with precision 0, as in picai_eval (Saha et al. 2024,
    Lancet Oncol. 25:879) and scikit-learn.
    """
    return float(_area(curve["sensitivity"].to_numpy(), curve["precision"].to_numpy()))


def _area(sensitivity: np.ndarray, precision: np.ndarray) -> np.ndarray:
    # a lower threshold can join two lesions' predictions or lose none: only gains are counted
    best = np.maximum.accumulate(sensitivity, axis=-1)
    return (np.diff(best, prepend=0.0, axis=-1) * precision).sum(axis=-1)


def average_precision_interval(detections: pd.DataFrame, n_bootstrap: int, seed: int) -> tuple[float, float]:
    """95 % bootstrap interval of `average_precision`, over patients; NaN below two of them."""
    _, counts = _by_patient(detections)
    if len(counts) < 2:
        return float("nan"), float("nan")
    sensitivity, _, precision = _resampled_rates(counts, n_bootstrap, seed)
    return percentiles(_area(sensitivity, precision))


def area_under_roc(score: np.ndarray, positive: np.ndarray) -> float:
    """Chance that a positive scores higher than a negative, ties counting half; NaN without one of each.

    References
    ----------
    Mann & Whitney 1947; Hanley & McNeil 1982 (Radiology 143:29).
    """
    positive = np.asarray(positive, bool)
    n_positive, n_negative = int(positive.sum()), int((~positive).sum())
    if not (n_positive and n_negative):
        return float("nan")
    ranks = stats.rankdata(score)
    return float((ranks[positive].sum() - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative))
