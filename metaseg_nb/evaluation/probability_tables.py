"""What is kept of a test case's lesion probabilities: two small tables instead of a volume."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from metaseg_nb.cohort.cases import Case, LesionRule
from metaseg_nb.cohort.labels import read_lesions
from metaseg_nb.cohort.problems import CohortError
from metaseg_nb.evaluation.fold_results import identity
from metaseg_nb.evaluation.lesion_metrics import detection_counts
from metaseg_nb.evaluation.surfaces import Spacing
from metaseg_nb.inference.native_grid import native_probability
from metaseg_nb.preprocessing.case_store import StoredCase

THRESHOLDS = (*np.arange(5, 100, 5) / 100, 0.99)
N_BINS = 20


def score_probability(
    case: Case, stored: StoredCase, probability: np.ndarray, rule: LesionRule
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Compare the probabilities of one case with its reference.

    Parameters
    ----------
    case : Case
    stored : StoredCase
        The same case, with its label.
    probability : ndarray, shape ``stored.grid.shape``
        Lesion probability, 0 to 1.
    rule : LesionRule

    Returns
    -------
    detections : DataFrame
        From `detections_by_threshold` on the case's own grid.
    calibration : DataFrame
        From `probability_bins` on the study grid, where the network spoke.
        Both tables start with ``case``, ``patient``, ``primary``, ``fold``.

    Raises
    ------
    CohortError
        The probabilities are not finite or not between 0 and 1.
    """
    if not (np.isfinite(probability).all() and probability.min() >= 0 and probability.max() <= 1):
        found = f"probabilities from {np.min(probability)} to {np.max(probability)}"
        fix = "the network diverged: look at its training loss, then train it again"
        raise CohortError.one(case.name, "probability", found, "finite ones from 0 to 1", fix)
    truth = read_lesions(case, rule)
    native = native_probability(probability, stored.grid, stored.native)
    tables = (
        detections_by_threshold(truth.array > 0, native, truth.spacing_mm),
        probability_bins(probability, stored.label > 0),
    )
    return tuple(_with_identity(case, table) for table in tables)


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
    return pd.DataFrame(counts).assign(threshold=thresholds)[["threshold", "n_truth", "n_detected", "n_false"]]


def probability_bins(probability: np.ndarray, truth: np.ndarray) -> pd.DataFrame:
    """Count voxels and lesion voxels by probability, in `N_BINS` bins of equal width.

    Parameters
    ----------
    probability : ndarray, shape (X, Y, Z)
        0 to 1.
    truth : ndarray of bool, shape (X, Y, Z)

    Returns
    -------
    DataFrame
        A row per bin: ``bin`` (0 to N_BINS - 1), ``n_voxels``, ``probability_sum``, ``n_lesion``.
    """
    flat = np.asarray(probability, dtype=np.float64).ravel()
    bins = np.minimum((flat * N_BINS).astype(int), N_BINS - 1)
    return pd.DataFrame(
        {
            "bin": np.arange(N_BINS),
            "n_voxels": np.bincount(bins, minlength=N_BINS),
            "probability_sum": np.bincount(bins, flat, minlength=N_BINS),
            "n_lesion": np.bincount(bins[np.asarray(truth).ravel()], minlength=N_BINS),
        }
    )


def _with_identity(case: Case, table: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([pd.DataFrame([identity(case)] * len(table)), table], axis=1)
