"""The study grid, one spacing for all cases, and the way back to each case's own.

Both grids share their axes (RAS, closest to the patient's), so a grid is a
spacing, a shape and an origin in millimetres along those axes, measured from
the centre of the volume's first voxel.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from metaseg_nb.cohort.head import ends_of
from metaseg_nb.cohort.lesions import label_lesions

# Smoothing before voxels are made coarser, in new voxel edges: about the width of one new voxel.
SIGMA_PER_VOXEL = 0.4
INTERPOLATORS = {"linear": sitk.sitkLinear, "cubic": sitk.sitkBSpline}
# Kept around the head, so that the crop cuts nothing off.
CROP_MARGIN_MM = 10.0


@dataclass(frozen=True)
class Grid:
    """Voxel grid along the axes of a volume."""

    spacing_mm: tuple[float, float, float]
    shape: tuple[int, int, int]
    origin_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)

    @classmethod
    def of(cls, values: Mapping[str, Sequence[float]]) -> Self:
        """Make a grid of what JSON keeps of one."""
        return cls(**{key: tuple(value) for key, value in values.items()})

    def centres_along(self, axis: int) -> np.ndarray:
        """Centres of the voxels along one axis in millimetres."""
        return self.origin_mm[axis] + np.arange(self.shape[axis]) * self.spacing_mm[axis]

    def centres_mm(self, voxels: np.ndarray) -> np.ndarray:
        """Centres of voxels, given as indices of shape (N, 3), in millimetres."""
        return voxels * np.array(self.spacing_mm) + self.origin_mm

    def distance_mm(self, indices: Sequence[np.ndarray], point_mm: np.ndarray) -> np.ndarray:
        """Distance to a point of the voxels that indices along each axis span, shape (I, J, K)."""
        apart = [self.centres_along(axis)[index] - point_mm[axis] for axis, index in enumerate(indices)]
        x, y, z = np.ix_(*apart)
        return np.sqrt(x**2 + y**2 + z**2)

    def voxels_at(self, points_mm: np.ndarray) -> np.ndarray:
        """Voxels that points, shape (N, 3), lie in, int of shape (M, 3); those outside the grid are left out."""
        places = np.round((points_mm - np.array(self.origin_mm)) / self.spacing_mm).astype(int)
        return places[((places >= 0) & (places < self.shape)).all(axis=1)]


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
    return Grid((spacing_mm,) * 3, tuple(shape.tolist()), tuple((low + spacing_mm / 2).tolist()))


def resample(array: np.ndarray, source: Grid, target: Grid, interpolation: str = "linear") -> np.ndarray:
    """Resample an image from one grid to another; coarser axes are smoothed first; 0 outside.

    Parameters
    ----------
    array : ndarray, shape ``source.shape``
    source, target : Grid
    interpolation : str
        "linear", or "cubic" (B-spline of order 3), which is sharper and may swing a little beyond the range.

    Returns
    -------
    ndarray of float32, shape ``target.shape``
    """
    image = to_sitk(array.astype(np.float32), source.spacing_mm, source.origin_mm)
    for axis in _coarser_axes(source, target):
        if source.shape[axis] >= 4:  # the recursive filter needs four voxels
            smooth = sitk.RecursiveGaussianImageFilter()
            smooth.SetDirection(axis)
            smooth.SetSigma(SIGMA_PER_VOXEL * target.spacing_mm[axis])
            image = smooth.Execute(image)
    filled = sitk.Resample(
        image,
        [int(n) for n in target.shape],
        sitk.Transform(),
        INTERPOLATORS[interpolation],
        [float(x) for x in target.origin_mm],
        [float(x) for x in target.spacing_mm],
        [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0],
        0.0,
        sitk.sitkFloat32,
        True,  # the border voxel reaches as far as its own half edge
    )
    return from_sitk(filled) * _inside(source, target)


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
    resampled = np.zeros(target.shape, bool)
    weights = _resampling_weights(source, target)
    # how many target voxels a source voxel fills is a product of what it fills along each axis
    filled = [_overlap(axis, source, target).sum(axis=0) for axis in range(3)]
    for lesion, box in enumerate(ndimage.find_objects(labels), 1):
        around = tuple(slice(max(0, axis.start - 1), axis.stop + 1) for axis in box)  # linear weights reach further
        own = labels[around] == lesion
        n = max(1, round(float(np.einsum("xyz,x,y,z", own, *(filled[i][axis] for i, axis in enumerate(around))))))
        own_values = np.where(own | (labels[around] == 0), values[around], 0).astype(np.float32)
        columns = [matrix[:, axis] for matrix, axis in zip(weights, around, strict=True)]
        rows = [np.flatnonzero(matrix.any(axis=1)) for matrix in columns]
        resampled_values = _weighted(own_values, [matrix[i] for matrix, i in zip(columns, rows, strict=True)])
        centre_mm = source.centres_mm(np.argwhere(own).mean(axis=0) + [axis.start for axis in around])
        fullest = _highest(resampled_values, n, target.distance_mm(rows, centre_mm))
        resampled[tuple(index[place] for index, place in zip(rows, fullest, strict=True))] = True
    return resampled


def share_covered(mask: np.ndarray, source: Grid, target: Grid) -> np.ndarray:
    """Share of each target voxel that a mask fills, float32: voxels are boxes, so it is exact."""
    return _weighted(mask.astype(np.float32), [_overlap(axis, source, target) for axis in range(3)])


def _resampling_weights(source: Grid, target: Grid) -> list[np.ndarray]:
    """Weights that resample values: means where voxels get coarser, linear interpolation where they get finer."""
    coarser = _coarser_axes(source, target)
    return [(_overlap if axis in coarser else _linear)(axis, source, target) for axis in range(3)]


def _highest(values: np.ndarray, n: int, distance: np.ndarray) -> tuple[np.ndarray, ...]:
    """Indices of the n highest values above 0; of equals the nearer ones."""
    order = np.lexsort((distance.ravel(), -values.ravel().round(5)))[:n]
    return np.unravel_index(order[values.ravel()[order] > 0], values.shape)


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
    return (weights * _axis_inside(axis, source, target)[:, None]).astype(np.float32)


def _voxel_edges(axis: int, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper edge of each voxel in millimetres, along one axis."""
    low = grid.origin_mm[axis] + (np.arange(grid.shape[axis]) - 0.5) * grid.spacing_mm[axis]
    return low, low + grid.spacing_mm[axis]


def _inside(source: Grid, target: Grid) -> np.ndarray:
    """1 for target voxels whose centre lies in the source volume, else 0."""
    x, y, z = np.ix_(*(_axis_inside(axis, source, target) for axis in range(3)))
    return x * y * z


def _axis_inside(axis: int, source: Grid, target: Grid) -> np.ndarray:
    """Which target voxel centres lie in the source volume, along one axis."""
    low, high = (edges[i] for edges, i in zip(_voxel_edges(axis, source), (0, -1), strict=True))
    centres = target.centres_along(axis)
    return ((centres >= low) & (centres <= high)).astype(np.float32)


def to_sitk(array: np.ndarray, spacing_mm: tuple[float, float, float], origin_mm=(0.0, 0.0, 0.0)) -> sitk.Image:
    """Make a SimpleITK image of an (X, Y, Z) array; its axes stay the array's, rotation is left out."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.T))
    image.SetSpacing([float(edge) for edge in spacing_mm])
    image.SetOrigin([float(x) for x in origin_mm])
    return image


def from_sitk(image: sitk.Image) -> np.ndarray:
    """Give the (X, Y, Z) array of a SimpleITK image."""
    return np.ascontiguousarray(sitk.GetArrayFromImage(image).T)
