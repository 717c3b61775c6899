"""The study grid, one spacing for all cases, and the way back to each case's own.

Both grids share their axes (RAS, closest to the patient's), so a grid is a
spacing, a shape and an origin in millimetres along those axes, measured from
the centre of the volume's first voxel.
"""

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

from metaseg_nb.cohort.lesions import label_lesions
from metaseg_nb.preprocessing.bias import from_sitk, to_sitk

# Smoothing before voxels are made coarser, in new voxel edges: about the width of one new voxel.
SIGMA_PER_VOXEL = 0.4
# Half a voxel of partial volume counts as lesion.
LESION_SHARE = 0.5
# Kept around the head, so that the crop cuts nothing off.
CROP_MARGIN_MM = 10.0


@dataclass(frozen=True)
class Grid:
    """Voxel grid along the axes of a volume."""

    spacing_mm: tuple[float, float, float]
    shape: tuple[int, int, int]
    origin_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)


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
    voxels = np.argwhere(mask) if mask.any() else np.array([[0, 0, 0], np.array(native.shape) - 1])
    outer_low, outer_high = -edge / 2, (np.array(native.shape) - 0.5) * edge
    low = np.maximum(outer_low, (voxels.min(axis=0) - 0.5) * edge - CROP_MARGIN_MM)
    high = np.minimum(outer_high, (voxels.max(axis=0) + 0.5) * edge + CROP_MARGIN_MM)
    shape = np.maximum(1, np.ceil((high - low) / spacing_mm - 1e-6).astype(int))
    return Grid((spacing_mm,) * 3, tuple(shape.tolist()), tuple((low + spacing_mm / 2).tolist()))


def resample(array: np.ndarray, source: Grid, target: Grid) -> np.ndarray:
    """Bring values from one grid to another, linearly; coarser axes are smoothed first; 0 outside.

    Returns
    -------
    ndarray of float32, shape ``target.shape``
    """
    image = to_sitk(array.astype(np.float32), source.spacing_mm, source.origin_mm)
    for axis, (old, new) in enumerate(zip(source.spacing_mm, target.spacing_mm, strict=True)):
        if new > 1.01 * old and source.shape[axis] >= 4:  # the recursive filter needs four voxels
            smooth = sitk.RecursiveGaussianImageFilter()
            smooth.SetDirection(axis)
            smooth.SetSigma(SIGMA_PER_VOXEL * new)
            image = smooth.Execute(image)
    filled = sitk.Resample(
        image,
        [int(n) for n in target.shape],
        sitk.Transform(),
        sitk.sitkLinear,
        [float(x) for x in target.origin_mm],
        [float(x) for x in target.spacing_mm],
        [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0],
        0.0,
        sitk.sitkFloat32,
        True,  # the border voxel reaches as far as its own half edge
    )
    inside = [_axis_inside(axis, source, target) for axis in range(3)]
    return from_sitk(filled) * np.ix_(*inside)[0] * np.ix_(*inside)[1] * np.ix_(*inside)[2]


def resample_mask(mask: np.ndarray, source: Grid, target: Grid) -> np.ndarray:
    """Bring a lesion mask to another grid without losing a lesion.

    A voxel is lesion when half of it is. A lesion that vanishes so keeps the
    voxel its centre lies in.

    Returns
    -------
    ndarray of bool, shape ``target.shape``
    """
    resampled = _share_covered(mask, source, target) >= LESION_SHARE - 1e-5  # half is half, rounded or not
    labels, n = label_lesions(mask)
    for lesion in range(1, n + 1):
        voxels = np.argwhere(labels == lesion) if n else []
        centres_mm = voxels * source.spacing_mm + np.array(source.origin_mm)
        places = np.round((centres_mm - target.origin_mm) / target.spacing_mm).astype(int)
        places = places[((places >= 0) & (places < target.shape)).all(axis=1)]
        if len(places) and not resampled[tuple(places.T)].any():
            middle = places[np.abs(places - places.mean(axis=0)).sum(axis=1).argmin()]
            resampled[tuple(middle)] = True
    return resampled


def _share_covered(mask: np.ndarray, source: Grid, target: Grid) -> np.ndarray:
    """Share of each target voxel that a mask fills: voxels are boxes, so it is exact, axis by axis.

    Smoothing instead would take off up to a fifth of the volume of lesions of 8 to 16 mm.
    """
    share = mask.astype(np.float32)
    for axis in range(3):
        (low, high), (new_low, new_high) = _voxel_edges(axis, source), _voxel_edges(axis, target)
        overlap_mm = np.minimum(new_high[:, None], high) - np.maximum(new_low[:, None], low)
        weights = np.maximum(overlap_mm, 0).astype(np.float32) / np.float32(target.spacing_mm[axis])
        share = np.moveaxis(np.tensordot(weights, share, (1, axis)), 0, axis)
    return share


def _voxel_edges(axis: int, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper edge of each voxel in millimetres, along one axis."""
    low = grid.origin_mm[axis] + (np.arange(grid.shape[axis]) - 0.5) * grid.spacing_mm[axis]
    return low, low + grid.spacing_mm[axis]


def _axis_inside(axis: int, source: Grid, target: Grid) -> np.ndarray:
    """Which target voxel centres lie in the source volume, along one axis."""
    centres = target.origin_mm[axis] + np.arange(target.shape[axis]) * target.spacing_mm[axis]
    low = source.origin_mm[axis] - source.spacing_mm[axis] / 2
    high = low + source.shape[axis] * source.spacing_mm[axis]
    return ((centres >= low) & (centres <= high)).astype(np.float32)
