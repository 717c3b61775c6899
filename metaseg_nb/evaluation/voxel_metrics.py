"""How well two masks of a case agree, voxel by voxel and surface by surface, in millimetres.

Two surfaces are in use in the literature and both are here. `surface_distances_mm`
takes the surface to be *voxels* (MONAI, medpy, scipy users); `surface_area_hd95_mm`
takes it to be *pieces of area* on the corners between voxels (DeepMind's
surface-distance, and so BraTS 2023). Their numbers differ by up to a voxel or more.
"""

from functools import cache

import edt
import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree
from surface_distance.lookup_tables import ENCODE_NEIGHBOURHOOD_3D_KERNEL, create_table_neighbour_code_to_surface_area

from metaseg_nb.cohort.lesions import marked_voxels

# What BraTS gives for a distance that does not exist: the diagonal of its 240x240x155 grid at 1 mm.
MISSED_HD95_MM = 374.0
# A distance equal to the tolerance counts as within it, whatever float32 made of it.
ROUNDING_MM = 1e-4
# Points above which a distance transform of the whole box is quicker than a search tree of the points.
CROWD = 250_000

# Area of the surface at a corner between voxels, for each of the 256 ways in which these are marked.
_areas_mm2 = cache(create_table_neighbour_code_to_surface_area)

Box = tuple[slice, ...]
Spacing = tuple[float, float, float]


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
        ``dice``, ``nsd_1mm``, ``nsd_2mm``, ``precision``, ``recall`` (0 to 1), ``hd95_mm`` (the larger of the two
        directed 95th percentiles), ``pooled_hd95_mm`` (one percentile of the distances of both directions, as in
        medpy and in BraTS since 2024 (panoptica): far smaller where one mask alone has outliers),
        ``volume_truth_mm3``, ``volume_prediction_mm3``.
        Both masks empty: the ratios are 1 and the distances 0. One empty: the ratios are 0, also the one of precision
        and recall that is 0/0, and the distances are 374 mm, as in BraTS.

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
    Seidlitz et al. 2022 (arXiv:2111.05408).
    """
    truth, prediction, _ = mask_pair(truth, prediction, spacing_mm)
    n_truth, n_prediction, n_both = map(np.count_nonzero, (truth, prediction, truth & prediction))
    both_empty = float(n_truth + n_prediction == 0)
    directed = surface_distances_mm(truth, prediction, spacing_mm)
    pooled, voxel_mm3 = np.concatenate(directed), float(np.prod(spacing_mm))
    return {
        "dice": 2 * n_both / (n_truth + n_prediction) if n_truth + n_prediction else both_empty,
        "hd95_mm": _hd95_mm(*directed),
        "pooled_hd95_mm": _hd95_mm(pooled),
        "nsd_1mm": _share_within(pooled, 1.0),
        "nsd_2mm": _share_within(pooled, 2.0),
        "precision": n_both / n_prediction if n_prediction else both_empty,
        "recall": n_both / n_truth if n_truth else both_empty,
        "volume_truth_mm3": n_truth * voxel_mm3,
        "volume_prediction_mm3": n_prediction * voxel_mm3,
    }


def _hd95_mm(*distances: np.ndarray) -> float:
    if not any(one.size for one in distances):
        return 0.0
    if not all(one.size and np.isfinite(one).all() for one in distances):
        return MISSED_HD95_MM
    return float(max(np.percentile(one, 95) for one in distances))


def _share_within(distances: np.ndarray, tolerance_mm: float) -> float:
    return float(np.mean(distances <= tolerance_mm + ROUNDING_MM)) if distances.size else 1.0


def binary_masks(truth: np.ndarray, prediction: np.ndarray, spacing_mm: Spacing) -> tuple[np.ndarray, np.ndarray]:
    """Two arrays as masks of bool.

    Raises
    ------
    ValueError
        Not binary, not 3D, of different shapes, or spacing not 3 positive lengths.
    """
    truth, prediction, spacing = np.asarray(truth), np.asarray(prediction), np.asarray(spacing_mm, float)
    if truth.ndim != 3 or truth.shape != prediction.shape:
        found = f"shapes {truth.shape} of the truth and {prediction.shape} of the prediction"
        raise ValueError(f"masks: found {found}; expected one 3D shape (X, Y, Z): bring both to the truth's grid first")
    for name, mask in (("truth", truth), ("prediction", prediction)):
        if mask.dtype != bool and not np.isin(mask, (0, 1)).all():
            found = ", ".join(f"{value:g}" for value in np.unique(mask)[:8])
            raise ValueError(f"{name}: found values {found}; expected 0 and 1 only: say first which values are lesion")
    if spacing.shape != (3,) or not (np.isfinite(spacing) & (spacing > 0)).all():
        raise ValueError(f"spacing_mm: found {spacing_mm}; expected 3 positive lengths in mm, for X, Y and Z")
    return truth.astype(bool, copy=False), prediction.astype(bool, copy=False)


def mask_pair(truth: np.ndarray, prediction: np.ndarray, spacing_mm: Spacing) -> tuple[np.ndarray, np.ndarray, Box]:
    """Check two masks as `binary_masks` does, and crop them to the smallest box that holds both.

    Returns
    -------
    truth, prediction : ndarray of bool, shape (x, y, z)
        One voxel of background when both masks are empty.
    box : tuple of 3 slices
        Where the crop lies in the whole arrays.
    """
    truth, prediction = binary_masks(truth, prediction, spacing_mm)
    box: Box = ()
    for axis in range(3):  # each axis within what is left of those before: ten times faster than a search of the whole
        others = tuple({0, 1, 2} - {axis})
        filled = np.flatnonzero(truth[box].any(axis=others) | prediction[box].any(axis=others))
        box += (slice(int(filled[0]), int(filled[-1]) + 1) if filled.size else slice(0, 1),)
    return truth[box], prediction[box], box


def surface_distances_mm(
    truth: np.ndarray, prediction: np.ndarray, spacing_mm: Spacing
) -> tuple[np.ndarray, np.ndarray]:
    """Distance of every surface voxel of each mask to the nearest one of the other.

    A surface voxel is a voxel of the mask with a face neighbour outside it;
    beyond the array all is background, so masks may be cropped tightly.

    Parameters
    ----------
    truth, prediction : ndarray of bool, shape (X, Y, Z)
    spacing_mm : tuple of 3 floats

    Returns
    -------
    from_truth, from_prediction : ndarray of float64, shapes (N,) and (M,)
        Millimetres between voxel centres; infinite when the other mask is
        empty, no entries when the mask itself is.

    References
    ----------
    Distances: exact, from a k-d tree (``scipy.spatial.cKDTree``) or, between crowded
    surfaces, the Euclidean transform of Meijster et al. 2000 (seung-lab's ``edt``).
    """
    first, second = (mask & ~ndimage.binary_erosion(mask) for mask in (truth, prediction))
    return _nearest_mm(first, second, spacing_mm), _nearest_mm(second, first, spacing_mm)


def _nearest_mm(own: np.ndarray, other: np.ndarray, spacing_mm: Spacing) -> np.ndarray:
    """Distance of every marked place of an array to the nearest one of another, in the order of `argwhere`."""
    points, goals = (marked_voxels(marked) * np.asarray(spacing_mm) for marked in (own, other))
    if not len(goals):
        return np.full(len(points), np.inf)
    if len(points) + len(goals) > CROWD:
        away = edt.edt(np.ascontiguousarray(~other), anisotropy=spacing_mm, black_border=False, parallel=1)
        return away[own].astype(np.float64)
    distances, apart = np.zeros(len(points)), ~other[own]
    tree = cKDTree(goals, leafsize=20, balanced_tree=False)  # points of a surface lie evenly
    distances[apart] = tree.query(points[apart])[0]
    return distances


def surface_area_hd95_mm(truth: np.ndarray, prediction: np.ndarray, spacing_mm: Spacing) -> float:
    """95 % Hausdorff distance between surfaces measured by area, as BraTS 2023 computes it.

    Surface points are the corners between voxels that have both mask and
    background among their 8 voxels; each carries the area of its piece of
    marching-cubes surface. Per direction: the smallest distance within which
    95 % of the area lies. The larger of the two is returned.

    Parameters
    ----------
    truth, prediction : ndarray of bool, shape (X, Y, Z)
    spacing_mm : tuple of 3 floats

    Returns
    -------
    float
        Millimetres; 0 for two empty masks, `MISSED_HD95_MM` for one.

    References
    ----------
    Nikolov et al. 2021, J Med Internet Res 23(7):e26151, and its code, DeepMind's
    surface-distance; used by BraTS 2023 (Moawad et al. 2023, arXiv:2306.00838).
    """
    if not truth.any() or not prediction.any():
        return MISSED_HD95_MM if truth.any() or prediction.any() else 0.0
    # which of the 8 voxels at a corner are marked: a number from 0, none, to 255, all
    padded = [np.pad(mask, 1).astype(np.uint8) for mask in (truth, prediction)]
    corners = [ndimage.correlate(mask, ENCODE_NEIGHBOURHOOD_3D_KERNEL, mode="constant") for mask in padded]
    surfaces = [(corner > 0) & (corner < 255) for corner in corners]
    areas_mm2, directed = _areas_mm2(tuple(spacing_mm)), []
    for own, other, corner in zip(surfaces, surfaces[::-1], corners, strict=True):
        distances = _nearest_mm(own, other, spacing_mm)
        order = np.argsort(distances, kind="stable")
        share = np.cumsum(areas_mm2[corner[own]][order])
        directed.append(distances[order][np.searchsorted(share / share[-1], 0.95)])
    return float(max(directed))
