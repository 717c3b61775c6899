"""Which lesions are found at which price in false ones: at every threshold (FROC), and at each operating point."""

from collections.abc import Sequence
from functools import partial
from itertools import product

import numpy as np
import pandas as pd

from metaseg_nb.evaluation.comparison import Estimate, bootstrap, bootstrap_interval, bootstrap_ratio
from metaseg_nb.evaluation.lesion_metrics import detection_counts
from metaseg_nb.evaluation.voxel_metrics import Spacing

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
    """FROC curves of all networks; a patient's cases are averaged first, as in the leaderboard.

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
        sensitivity, false, precision = _rates(counts.sum(axis=0), len(counts))
        table = pd.DataFrame(counts.sum(axis=0), columns=COUNTS).assign(model=model, threshold=thresholds)
        sensitivity = np.nan_to_num(sensitivity, nan=1.0)
        tables.append(table.assign(precision=precision, sensitivity=sensitivity, false_per_patient=false))
    return pd.concat(tables, ignore_index=True)


def _by_patient(detections: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Thresholds from high to low, and `COUNTS`, means over each patient's cases, as (patient, threshold, count)."""
    means = detections.pivot_table(COUNTS, "patient", "threshold", fill_value=0)[COUNTS]
    counts = means.to_numpy().reshape(len(means), len(COUNTS), -1).transpose(0, 2, 1)[:, ::-1]
    return means.columns.levels[1].to_numpy()[::-1], counts


def _rates(sums: np.ndarray, n_patients: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sensitivity (NaN without lesions), false lesions per patient, precision; ``sums`` has `COUNTS` last."""
    truth, detected, false = np.moveaxis(sums.astype(float), -1, 0)
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
        with ``low``, ``high`` (95 % bootstrap interval; NaN below two patients). 0 where every threshold has more
        false lesions.
    """
    rows = []
    for model in models:
        of_model = detections[detections["model"] == model]
        lesions = int(of_model.loc[of_model["threshold"] == of_model["threshold"].max(), "n_truth"].sum())
        _, counts = _by_patient(of_model)
        for rate in FALSE_RATES:
            highest = partial(_highest_sensitivity, n_patients=len(counts), rate=rate)
            rows.append((model, rate, len(counts), lesions, *bootstrap(highest, counts, n_bootstrap, seed)))
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
        leaderboard, by `bootstrap_ratio`.
    """
    rows = []
    for model, point in product(models, found["operating_point"].unique()):
        cases = found[(found["model"] == model) & (found["operating_point"] == point)]
        counts = cases.groupby("patient")[COUNTS].mean()
        known, false = counts[counts["n_truth"] > 0], counts["n_false"]
        sensitivity = float(_rates(known.to_numpy().sum(axis=0), 1)[0])
        interval = bootstrap_ratio(known["n_detected"], known["n_truth"], n_bootstrap, seed)
        of_false = false.mean(), *bootstrap_interval(false, n_bootstrap, seed)
        rows.append((model, point, len(counts), sensitivity, *interval, *of_false))
    estimates = [name + end for name in ("sensitivity", "false_per_patient") for end in ("", "_low", "_high")]
    return pd.DataFrame(rows, columns=["model", "operating_point", "patients", *estimates])


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

    _, counts = _by_patient(detections)
    return bootstrap(area, counts, n_bootstrap, seed)
