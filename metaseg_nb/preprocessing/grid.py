"""The study grid, one spacing for all cases, and the way back to each case's own.

Both grids share their axes (RAS, closest to the patient's), so a grid is a
spacing, a shape and an origin in millimetres along those axes, measured from
the centre of the volume's first voxel.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from metaseg_nb.cohort.head import ends_of
from metaseg_nb.cohort.lesions import label_lesions
from metaseg_nb.cohort.volumes import Volume

# Smoothing before voxels are made coarser, in new voxel edges: about the width of one new voxel.
SIGMA_PER_VOXEL = 0.4
INTERPOLATORS = {"linear": sitk.sitkLinear, "cubic": sitk.sitkBSpline, "nearest": sitk.sitkNearestNeighbor}
# Kept around the head, so that the crop cuts nothing off.
CROP_MARGIN_MM = 10.0


@dataclass(frozen=True)
class Grid:
    """Voxel grid along the axes of a volume."""

    spacing_mm: tuple[float, float, float]
    shape: tuple[int, int, int]
    origin_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)

    @classmethod
    def of(cls, content: Mapping[str, list[float]]) -> Self:
        """Make a grid of what JSON keeps of one."""
        values: dict[str, Any] = {key: tuple(value) for key, value in content.items()}
        return cls(**values)

    def centres_along(self, axis: int) -> np.ndarray:
        """Centres of the voxels along one axis in millimetres."""
        return self.origin_mm[axis] + np.arange(self.shape[axis]) * self.spacing_mm[axis]

    def centres_mm(self, voxels: np.ndarray) -> np.ndarray:
        """Centres of voxels, given as indices of shape (N, 3), in millimetres."""
        return voxels * np.array(self.spacing_mm) + self.origin_mm


def study_grid(mask: np.ndarray, native: Grid, spacing_mm: float) -> Grid:
    """Lay a grid of cubic voxels over the bounding box of a head mask, with a margin.

    Parameters
    ----------
    mask : ndarray of bool, shape (X, Y, Z)
        Head or brain on the native grid; when empty, all of the volume is kept.
    native : Grid
    spacing_mm : float
        Edge of the new voxels.
    """
    edge = np.array(native.spacing_mm)
    first, last = ends_of(mask if mask.any() else np.ones_like(mask))
    outer_low, outer_high = -edge / 2, (np.array(native.shape) - 0.5) * edge
    low = np.maximum(outer_low, (first - 0.5) * edge - CROP_MARGIN_MM)
    high = np.minimum(outer_high, (last + 0.5) * edge + CROP_MARGIN_MM)
    shape = np.maximum(1, np.ceil((high - low) / spacing_mm - 1e-6).astype(int))
    return Grid((spacing_mm, spacing_mm, spacing_mm), tuple(shape.tolist()), tuple((low + spacing_mm / 2).tolist()))


def resample(
    array: np.ndarray, source: Grid, target: Grid, interpolation: str = "linear", place: np.ndarray | None = None
) -> np.ndarray:
    """Resample an image from one grid to another; coarser axes are smoothed first, unless "nearest" is asked for.

    Outside it is 0; where ``place`` is given, it is as dark there as the image is anywhere.

    Parameters
    ----------
    array : ndarray, shape ``source.shape``
    source, target : Grid
    interpolation : str
        "linear", "cubic" (B-spline of order 3), which is sharper and may swing a little beyond the range, or "nearest".
    place : ndarray, shape (4, 4), optional
        From millimetres along the axes of ``target`` to those of ``source``, where their axes are not the same.

    Returns
    -------
    ndarray of float32, shape ``target.shape``
    """
    image = to_sitk(array.astype(np.float32), source.spacing_mm, source.origin_mm)
    for axis in _coarser_axes(source, target) if interpolation != "nearest" else []:
        if source.shape[axis] >= 4:  # the recursive filter needs four voxels
            image = sitk.RecursiveGaussian(image, SIGMA_PER_VOXEL * target.spacing_mm[axis], direction=axis)
    onto = to_sitk(np.empty(target.shape, np.uint8), target.spacing_mm, target.origin_mm)
    if place is not None:
        moved = sitk.AffineTransform(place[:3, :3].ravel().tolist(), place[:3, 3].tolist())
        dark = float(array.min())
        return from_sitk(sitk.Resample(image, onto, moved, INTERPOLATORS[interpolation], dark, sitk.sitkFloat32))
    # the last argument: the border voxel reaches as far as its own half edge
    filled = sitk.Resample(image, onto, sitk.Transform(), INTERPOLATORS[interpolation], 0.0, sitk.sitkFloat32, True)
    x, y, z = np.ix_(*(inside_along(axis, source, target) for axis in range(3)))
    return from_sitk(filled) * (x * y * z)


def carried(mask: Volume, place: np.ndarray, grid: Grid) -> np.ndarray:
    """A mask of another date that lies at ``place``, on the study grid: float32, 0 to 1, shape (X, Y, Z)."""
    own = Grid(mask.spacing_mm, mask.array.shape)
    return resample((mask.array > 0).astype(np.float32), own, grid, "linear", place).clip(0, 1)


def resample_lesions(values: np.ndarray, source: Grid, target: Grid, threshold: float = 0.5) -> np.ndarray:
    """Resample lesions from one grid to another; none is lost, and each keeps its volume.

    Each lesion, a 26-connected component of ``values >= threshold``, gets as many voxels as its
    volume makes and at least one: those where the resampled values are highest.
    Coarser voxels take the mean over exactly what they cover, finer ones interpolate linearly.
    A threshold after resampling would instead take up to half of the volume from small lesions on
    thick slices, and some would vanish.

    Parameters
    ----------
    values : ndarray, shape ``source.shape``
        A mask, or probabilities.
    source, target : Grid
    threshold : float

    Returns
    -------
    ndarray of bool, shape ``target.shape``
        False where ``source`` does not reach.
    """
    labels, _ = label_lesions(values >= threshold)
    resampled, coarser = np.zeros(target.shape, bool), _coarser_axes(source, target)
    weights = [(_overlap if axis in coarser else _linear)(axis, source, target) for axis in range(3)]
    # how many target voxels a source voxel fills is a product of what it fills along each axis
    filled = [_overlap(axis, source, target).sum(axis=0) for axis in range(3)]
    for lesion, box in enumerate(ndimage.find_objects(labels), 1):
        around = tuple(slice(max(0, axis.start - 1), axis.stop + 1) for axis in box)  # linear weights reach further
        own = labels[around] == lesion
        n = max(1, round(float(np.einsum("xyz,x,y,z", own, *(filled[i][axis] for i, axis in enumerate(around))))))
        own_values = np.where(own | (labels[around] == 0), values[around], 0).astype(np.float32)
        columns = [matrix[:, axis] for matrix, axis in zip(weights, around, strict=True)]
        rows = [np.flatnonzero(matrix.any(axis=1)) for matrix in columns]
        found = _weighted(own_values, [matrix[i] for matrix, i in zip(columns, rows, strict=True)])
        centre_mm = source.centres_mm(np.argwhere(own).mean(axis=0) + [axis.start for axis in around])
        away_mm = [target.centres_along(axis)[row] - centre_mm[axis] for axis, row in enumerate(rows)]
        distance_mm = np.sqrt(sum(np.ix_(*(away**2 for away in away_mm))))
        reached, value = np.flatnonzero(found > 0), found.ravel().round(5)
        if len(reached) > n:  # sorting all takes long
            reached = reached[value[reached] >= np.partition(value[reached], -n)[-n]]
        # the highest values; of equals the nearer ones
        order = np.lexsort((distance_mm.ravel()[reached], -value[reached]))[:n]
        places = np.unravel_index(reached[order], found.shape)
        resampled[tuple(row[place] for row, place in zip(rows, places, strict=True))] = True
    return resampled


def share_covered(mask: np.ndarray, source: Grid, target: Grid) -> np.ndarray:
    """Share of each target voxel that a mask fills, float32: voxels are boxes, so it is exact."""
    return _weighted(mask.astype(np.float32), [_overlap(axis, source, target) for axis in range(3)])


def _coarser_axes(source: Grid, target: Grid) -> list[int]:
    return [axis for axis in range(3) if target.spacing_mm[axis] > 1.01 * source.spacing_mm[axis]]


def _weighted(values: np.ndarray, weights: list[np.ndarray]) -> np.ndarray:
    """Combine voxels axis by axis; ``weights`` are matrices of shape (target, source), one an axis."""
    for axis, matrix in enumerate(weights):
        values = np.moveaxis(np.tensordot(matrix, values, (1, axis)), 0, axis)
    return np.ascontiguousarray(values)


def _overlap(axis: int, source: Grid, target: Grid) -> np.ndarray:
    """Share of each target voxel that each source voxel covers; voxels are boxes, so it is exact."""
    (low, high), (new_low, new_high) = _voxel_edges(axis, source), _voxel_edges(axis, target)
    overlap_mm = np.minimum(new_high[:, None], high) - np.maximum(new_low[:, None], low)
    return np.maximum(overlap_mm, 0).astype(np.float32) / np.float32(target.spacing_mm[axis])


def _linear(axis: int, source: Grid, target: Grid) -> np.ndarray:
    """Weights of linear interpolation between the centres of source voxels; none outside the volume."""
    centres = target.centres_along(axis)
    places = np.clip((centres - source.origin_mm[axis]) / source.spacing_mm[axis], 0, source.shape[axis] - 1)
    weights = np.maximum(0, 1 - np.abs(places[:, None] - np.arange(source.shape[axis])))
    return (weights * inside_along(axis, source, target)[:, None]).astype(np.float32)


def _voxel_edges(axis: int, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper edge of each voxel in millimetres, along one axis."""
    low = grid.origin_mm[axis] + (np.arange(grid.shape[axis]) - 0.5) * grid.spacing_mm[axis]
    return low, low + grid.spacing_mm[axis]


def inside_along(axis: int, source: Grid, target: Grid) -> np.ndarray:
    """Which target voxel centres lie in the source volume, along one axis."""
    low, high = (edges[i] for edges, i in zip(_voxel_edges(axis, source), (0, -1), strict=True))
    centres = target.centres_along(axis)
    return ((centres >= low) & (centres <= high)).astype(np.float32)


def to_sitk(array: np.ndarray, spacing_mm: Sequence[float] = (1, 1, 1), origin_mm=(0, 0, 0)) -> sitk.Image:
    """Make a SimpleITK image of an (X, Y, Z) array; its axes stay the array's, rotation is left out."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.T))
    image.SetSpacing([float(edge) for edge in spacing_mm])
    image.SetOrigin([float(x) for x in origin_mm])
    return image


def from_sitk(image: sitk.Image) -> np.ndarray:
    """Give the (X, Y, Z) array of a SimpleITK image."""
    return np.ascontiguousarray(sitk.GetArrayFromImage(image).T)
