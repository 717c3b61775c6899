"""Which lesions are found at which price in false ones: at every threshold (FROC), and at each operating point."""

from collections.abc import Sequence
from functools import partial
from itertools import product

import numpy as np
import pandas as pd

from metaseg_nb.evaluation.intervals import Estimate, bootstrap, bootstrap_interval, named, of_each_patient, share
from metaseg_nb.evaluation.lesion_metrics import detection_counts
from metaseg_nb.evaluation.voxel_metrics import Spacing

FROC_THRESHOLDS = (*np.arange(5, 100, 5) / 100, 0.99)
# False lesions per patient at which curves are usually read: Setio et al. 2017 (Med. Image Anal. 42:1), LUNA16.
FALSE_RATES = (0.125, 0.25, 0.5, 1, 2, 4, 8)
COUNTS = ["n_truth", "n_detected", "n_false"]


def detections_by_threshold(
    truth: np.ndarray, probability: np.ndarray, spacing_mm: Spacing, thresholds: Sequence[float] = FROC_THRESHOLDS
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
    return pd.DataFrame(
        {"threshold": threshold, **detection_counts(truth, probability >= threshold, spacing_mm)}
        for threshold in thresholds
    )


def froc(detections: pd.DataFrame) -> pd.DataFrame:
    """FROC curves of all networks; a patient's cases are averaged first, as in the leaderboard.

    Parameters
    ----------
    detections : DataFrame
        A row per (``model``, case, ``threshold``): ``patient``, ``n_truth``, ``n_detected``, ``n_false``.

    Returns
    -------
    DataFrame
        A row per (``model``, ``threshold``), from high to low: ``sensitivity`` (share of all lesions; 1 without any),
        ``false_per_patient``, and the counts, summed over patients.

    References
    ----------
    Free-response ROC: Bunch et al. 1978; Chakraborty 1989 (Med. Phys. 16:561).
    """
    patients = detections.groupby(["model", "patient", "threshold"], sort=False)[COUNTS].mean()
    curves = patients.groupby(["model", "threshold"], sort=False)
    table = curves.sum().assign(false_per_patient=curves["n_false"].mean()).reset_index()
    table["sensitivity"] = (table["n_detected"] / table["n_truth"]).fillna(1.0)
    return table.sort_values("threshold", ascending=False, kind="stable", ignore_index=True)


def _counts(detections: pd.DataFrame) -> np.ndarray:
    """`COUNTS`, means over each patient's cases: shape (patients, counts, thresholds from high to low)."""
    return of_each_patient(detections, COUNTS, "threshold")[..., ::-1]


def _rates(sums: np.ndarray, n_patients: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sensitivity (NaN without lesions), false lesions per patient, precision, at each threshold; of `_counts`."""
    truth, detected, false = np.moveaxis(sums, -2, 0)
    with np.errstate(invalid="ignore"):
        sensitivity = detected / truth
        precision = np.nan_to_num(detected / (detected + false), nan=1.0)
    return sensitivity, false / n_patients, precision


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
        with ``low``, ``high`` (95 % bootstrap interval). 0 where every threshold has more false lesions. No interval
        (NaN) below two patients, and where all resamples are equal: that says nothing of other patients.
    """
    rows = []
    for model in models:
        of_model = detections[detections["model"] == model]
        lesions = int(of_model.loc[of_model["threshold"] == of_model["threshold"].max(), "n_truth"].sum())
        counts = _counts(of_model)
        for rate in FALSE_RATES:
            highest = partial(_highest_sensitivity, n_patients=len(counts), rate=rate)
            found, low, high = bootstrap(highest, counts, n_bootstrap, seed)
            interval = (np.nan, np.nan) if np.isclose(low, high) else (low, high)
            rows.append((model, rate, len(counts), lesions, found, *interval))
    columns = ["model", "false_per_patient", "patients", "lesions", "sensitivity", "low", "high"]
    return pd.DataFrame(rows, columns=columns)


def _highest_sensitivity(sums: np.ndarray, n_patients: int, rate: float) -> np.ndarray:
    sensitivity, false, _ = _rates(sums, n_patients)
    return np.where(false <= rate, sensitivity, 0 * sensitivity).max(axis=-1)


def operating_points(found: pd.DataFrame, models: Sequence[str], n_bootstrap: int, seed: int) -> pd.DataFrame:
    """What each operating point finds, and what it costs in false lesions.

    Parameters
    ----------
    found : DataFrame
        A row per (``model``, case, ``operating_point``): ``patient`` and `COUNTS`. A patient's cases are averaged.
    models : sequence of str

    Returns
    -------
    DataFrame
        A row per (``model``, ``operating_point``): ``patients``, ``sensitivity`` (share of all lesions) and
        ``false_per_patient``, each with ``_low``, ``_high``: 95 % intervals over patients, of the sensitivity as in the
        leaderboard.
    """
    rows = []
    for model, point in product(models, found["operating_point"].unique()):
        cases = found[(found["model"] == model) & (found["operating_point"] == point)]
        counts = cases.groupby("patient")[COUNTS].mean()
        detected = share(counts["n_detected"], counts["n_truth"], n_bootstrap, seed)
        false = counts["n_false"].mean(), *bootstrap_interval(counts["n_false"], n_bootstrap, seed)
        row = {"model": model, "operating_point": point, "patients": len(counts)}
        rows.append(row | named("sensitivity", detected) | named("false_per_patient", false))
    return pd.DataFrame(rows)


def average_precision(detections: pd.DataFrame, n_bootstrap: int, seed: int) -> Estimate:
    """Average precision of one network with its 95 % bootstrap interval over patients; NaN without lesions.

    The area under precision over sensitivity, in steps: each gain in sensitivity counts with its precision, and
    lesions that no threshold finds with precision 0, as in picai_eval (Saha et al. 2024, Lancet Oncol. 25:879).
    """

    def area(sums: np.ndarray) -> np.ndarray:
        sensitivity, _, precision = _rates(sums, 1)
        # a lower threshold can join two lesions' predictions or lose none: only gains are counted
        best = np.maximum.accumulate(sensitivity, axis=-1)
        return (np.diff(best, prepend=0.0, axis=-1) * precision).sum(axis=-1)

    return bootstrap(area, _counts(detections), n_bootstrap, seed)
