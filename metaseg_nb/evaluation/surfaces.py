"""Surfaces of two masks and the distances between them, in millimetres.

Two surfaces are in use in the literature and both are here. `surface_distances_mm`
takes the surface to be *voxels* (MONAI, medpy, scipy users); `surface_area_hd95_mm`
takes it to be *pieces of area* on the corners between voxels (DeepMind's
surface-distance, and so BraTS 2023). Their numbers differ by up to a voxel or more.
"""

from functools import cache

import edt
import numpy as np
from scipy.spatial import cKDTree

from metaseg_nb.cohort.lesions import marked_voxels

# What BraTS gives for a distance that does not exist: the diagonal of its 240x240x155 grid at 1 mm.
MISSED_HD95_MM = 374.0
# Points above which a distance transform of the whole box is quicker than a search tree of the points.
CROWD = 250_000

Box = tuple[slice, slice, slice]
Spacing = tuple[float, float, float]


def as_mask(array: np.ndarray, name: str) -> np.ndarray:
    """Give a binary array as bool.

    Parameters
    ----------
    array : ndarray of bool or number, shape (X, Y, Z)
        Holds 0 and 1 only.
    name : str
        Named in errors.

    Raises
    ------
    ValueError
        The array is not 3D or holds anything but 0 and 1.
    """
    array = np.asarray(array)
    if array.ndim != 3:
        raise ValueError(f"{name}: found {array.ndim}D, shape {array.shape}; expected one 3D mask (X, Y, Z)")
    if array.dtype == bool:
        return array
    mask = array == 1
    if not (mask | (array == 0)).all():
        found = describe_values(array)
        raise ValueError(f"{name}: found values {found}; expected 0 and 1 only: say first which values are lesion")
    return mask


def describe_values(array: np.ndarray) -> str:
    """List the values of an array for an error, the first eight of them."""
    values = np.unique(array)
    return ", ".join(f"{value:g}" for value in values[:8]) + (", ..." if len(values) > 8 else "")


def mask_pair(truth: np.ndarray, prediction: np.ndarray, spacing_mm: Spacing) -> tuple[np.ndarray, np.ndarray, Box]:
    """Check two masks and find the smallest box that holds both.

    Returns
    -------
    truth, prediction : ndarray of bool, shape (x, y, z)
        Cropped to the box; one voxel of background when both masks are empty.
    box : tuple of 3 slices
        Where the crop lies in the whole arrays.

    Raises
    ------
    ValueError
        Not binary, not 3D, of different shapes, or spacing not 3 positive lengths.
    """
    truth, prediction = as_mask(truth, "truth"), as_mask(prediction, "prediction")
    if truth.shape != prediction.shape:
        raise ValueError(
            f"prediction: found shape {prediction.shape}; expected {truth.shape}, that of the truth: "
            "bring the prediction to the truth's grid first"
        )
    spacing = np.asarray(spacing_mm, dtype=float)
    if spacing.shape != (3,) or not (np.isfinite(spacing) & (spacing > 0)).all():
        raise ValueError(f"spacing_mm: found {spacing_mm}; expected 3 positive lengths in mm, for X, Y and Z")
    box = _union_box(truth, prediction)
    return truth[box], prediction[box], box


def _union_box(truth: np.ndarray, prediction: np.ndarray) -> Box:
    box = ()
    for axis in range(3):  # each axis within what is left of those before
        others = tuple(other for other in range(3) if other != axis)
        filled = np.flatnonzero(truth[box].any(axis=others) | prediction[box].any(axis=others))
        box += (slice(int(filled[0]), int(filled[-1]) + 1) if filled.size else slice(0, 1),)
    return box


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
    return _distances_mm(*(_surface(mask) for mask in (truth, prediction)), spacing_mm)


def _surface(mask: np.ndarray) -> np.ndarray:
    surface = np.pad(mask, 1)
    inner = surface[2:, 1:-1, 1:-1] & surface[:-2, 1:-1, 1:-1] & surface[1:-1, 2:, 1:-1]
    inner &= surface[1:-1, :-2, 1:-1] & surface[1:-1, 1:-1, 2:] & surface[1:-1, 1:-1, :-2]
    return mask & ~inner


def _distances_mm(first: np.ndarray, second: np.ndarray, spacing_mm: Spacing) -> tuple[np.ndarray, np.ndarray]:
    """Distance of every marked place of each array to the nearest one of the other, in the order of `argwhere`."""
    points = [marked_voxels(marked) * np.asarray(spacing_mm) for marked in (first, second)]
    if not (len(points[0]) and len(points[1])):
        return tuple(np.full(len(own), np.inf) for own in points)
    if len(points[0]) + len(points[1]) > CROWD:
        return _transform_mm(second, spacing_mm)[first], _transform_mm(first, spacing_mm)[second]
    shared = first & second
    return tuple(
        _nearest_mm(own, others, shared[marked]) for own, others, marked in ((*points, first), (*points[::-1], second))
    )


def _nearest_mm(points: np.ndarray, goals: np.ndarray, shared: np.ndarray) -> np.ndarray:
    """Distance of each point to the nearest goal; ``shared`` tells which points are goals themselves."""
    distances = np.zeros(len(points))
    tree = cKDTree(goals, leafsize=20, balanced_tree=False)  # points of a surface lie evenly
    distances[~shared] = tree.query(points[~shared])[0]
    return distances


def _transform_mm(marked: np.ndarray, spacing_mm: Spacing) -> np.ndarray:
    background = np.ascontiguousarray(~marked)
    return edt.edt(background, anisotropy=spacing_mm, black_border=False, parallel=1).astype(np.float64)


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
    areas_mm2, ratios = _area_table(tuple(float(edge) for edge in spacing_mm))
    codes = [_corner_codes(mask, ratios) for mask in (truth, prediction)]
    surfaces = [(code > 0) & (code < 255) for code in codes]
    directed = []
    for code, surface, distances in zip(codes, surfaces, _distances_mm(*surfaces, spacing_mm), strict=True):
        order = np.argsort(distances, kind="stable")
        share = np.cumsum(areas_mm2[code[surface]][order])
        position = np.searchsorted(share / share[-1], 0.95)
        directed.append(distances[order][position])
    return float(max(directed))


def _corner_codes(mask: np.ndarray, ratios: tuple[int, int, int]) -> np.ndarray:
    """Encode (0 to 255), for every corner between voxels, which of its 8 voxels are in the mask."""
    code = np.pad(mask, 1).astype(np.uint8)
    for axis, ratio in enumerate(ratios):
        lower, upper = ((slice(None),) * axis + (part,) for part in (slice(-1), slice(1, None)))
        code = ratio * code[lower] + code[upper]
    return code


@cache
def _area_table(spacing_mm: Spacing) -> tuple[np.ndarray, tuple[int, int, int]]:
    """Area in mm² for each of the 256 codes, and how much more the lower of two neighbours weighs, along each axis."""
    # Here, not above: importing MONAI takes seconds, and only this table needs it.
    from monai.metrics.utils import get_code_to_measure_table

    areas, weights = get_code_to_measure_table(spacing_mm)
    weights = weights.numpy().reshape(2, 2, 2).astype(int)  # powers of 2, from 128 down to 1
    ratios = tuple(np.uint8(weights[0, 0, 0] // weights[upper]) for upper in ((1, 0, 0), (0, 1, 0), (0, 0, 1)))
    return areas.numpy().astype(np.float64), ratios
