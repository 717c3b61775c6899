"""How well two masks of one case agree, voxel by voxel and surface by surface."""

import numpy as np

from metaseg_nb.evaluation.surfaces import MISSED_HD95_MM, Spacing, mask_pair, surface_distances_mm

# A distance equal to the tolerance counts as within it, whatever float32 made of it.
ROUNDING_MM = 1e-4


def voxel_metrics(truth: np.ndarray, prediction: np.ndarray, spacing_mm: Spacing) -> dict[str, float]:
    """Compute all voxel metrics of one case.

    Parameters
    ----------
    truth, prediction : ndarray of bool (or 0 and 1), shape (X, Y, Z)
    spacing_mm : tuple of 3 floats
        Voxel edges along X, Y, Z.

    Returns
    -------
    dict
        ``dice``, ``nsd_1mm``, ``nsd_2mm``, ``precision``, ``recall`` (0 to 1),
        ``hd95_mm``, ``pooled_hd95_mm`` (see `pooled_hd95_mm`), ``volume_truth_mm3``,
        ``volume_prediction_mm3``.
        Both masks empty: the ratios are 1 and the distance 0. One empty: the
        ratios are 0, also the one of precision and recall that is 0/0, and
        the distance is 374 mm.

    Raises
    ------
    ValueError
        Not binary, not 3D, of different shapes, or spacing not 3 positive lengths.

    References
    ----------
    Dice 1945; Taha & Hanbury 2015 (precision, recall); Nikolov et al. 2021
    (normalised surface Dice). HD95 and NSD count surface voxels and equal MONAI's
    ``compute_hausdorff_distance(percentile=95)`` and
    ``compute_surface_dice(use_subvoxels=False)``, which is the definition of
    Seidlitz et al. 2022 (arXiv:2111.05408). The empty-mask distance is that of BraTS.
    """
    truth, prediction, _ = mask_pair(truth, prediction, spacing_mm)
    n_truth, n_prediction = int(np.count_nonzero(truth)), int(np.count_nonzero(prediction))
    n_both = int(np.count_nonzero(truth & prediction))
    both_empty = float(n_truth + n_prediction == 0)
    distances = surface_distances_mm(truth, prediction, spacing_mm)
    voxel_mm3 = float(np.prod(spacing_mm))
    return {
        "dice": 2 * n_both / (n_truth + n_prediction) if n_truth + n_prediction else both_empty,
        "hd95_mm": _directed_hd95_mm(*distances),
        "pooled_hd95_mm": _pooled_hd95_mm(*distances),
        "nsd_1mm": _surface_dice(*distances, tolerance_mm=1.0),
        "nsd_2mm": _surface_dice(*distances, tolerance_mm=2.0),
        "precision": n_both / n_prediction if n_prediction else both_empty,
        "recall": n_both / n_truth if n_truth else both_empty,
        "volume_truth_mm3": n_truth * voxel_mm3,
        "volume_prediction_mm3": n_prediction * voxel_mm3,
    }


def pooled_hd95_mm(truth: np.ndarray, prediction: np.ndarray, spacing_mm: Spacing) -> float:
    """95 % Hausdorff distance as one percentile of the distances of both directions together.

    This is the definition of medpy (``medpy.metric.binary.hd95``) and of the BraTS
    evaluation since 2024 (panoptica), not the one of `voxel_metrics`: it is far smaller
    where only one mask has outliers. Here to compare with numbers published so.

    Parameters
    ----------
    truth, prediction : ndarray of bool (or 0 and 1), shape (X, Y, Z)
    spacing_mm : tuple of 3 floats

    Returns
    -------
    float
        Millimetres; 0 for two empty masks, 374 for one.

    Raises
    ------
    ValueError
        As `voxel_metrics`.
    """
    truth, prediction, _ = mask_pair(truth, prediction, spacing_mm)
    return _pooled_hd95_mm(*surface_distances_mm(truth, prediction, spacing_mm))


def _pooled_hd95_mm(from_truth: np.ndarray, from_prediction: np.ndarray) -> float:
    if from_truth.size and from_prediction.size:
        return float(np.percentile(np.concatenate([from_truth, from_prediction]), 95))
    return _missing_hd95_mm(from_truth, from_prediction)


def _directed_hd95_mm(from_truth: np.ndarray, from_prediction: np.ndarray) -> float:
    if from_truth.size and from_prediction.size:
        return float(max(np.percentile(from_truth, 95), np.percentile(from_prediction, 95)))
    return _missing_hd95_mm(from_truth, from_prediction)


def _missing_hd95_mm(from_truth: np.ndarray, from_prediction: np.ndarray) -> float:
    return MISSED_HD95_MM if from_truth.size or from_prediction.size else 0.0


def _surface_dice(from_truth: np.ndarray, from_prediction: np.ndarray, tolerance_mm: float) -> float:
    total = from_truth.size + from_prediction.size
    if not total:
        return 1.0
    limit = tolerance_mm + ROUNDING_MM
    return float(np.count_nonzero(from_truth <= limit) + np.count_nonzero(from_prediction <= limit)) / total
