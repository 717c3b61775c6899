"""A small picture of a case: the axial slice with most lesion, stored so that the volume is not read again."""

from dataclasses import dataclass

import numpy as np

from metaseg_nb.cohort.head import background_mask, with_dark_background
from metaseg_nb.cohort.volumes import Volume

# Grey values shown: the rest is clipped, or one bright vessel darkens the brain.
SHOWN_PERCENTILES = (1, 99.7)


@dataclass(frozen=True)
class Thumbnail:
    """An axial slice in RAS order.

    Parameters
    ----------
    grey : ndarray of uint8, shape (X, Y)
    lesion : ndarray of bool, shape (X, Y)
        Empty where no label lies on the image.
    spacing_mm : tuple of 2 floats
        Voxel edges along X and Y.
    """

    grey: np.ndarray
    lesion: np.ndarray
    spacing_mm: tuple[float, float]


def make_thumbnail(image: Volume, mask: np.ndarray | None) -> Thumbnail:
    """Cut the axial slice with most lesion, or the middle one, in 256 grey values."""
    index = fullest_slice(np.zeros(image.array.shape, bool) if mask is None else mask)
    array = with_dark_background(np.nan_to_num(image.array, posinf=0, neginf=0))
    shown = array[:, :, index]
    low, high = shown_window(array[:, :, index : index + 1])
    grey = np.clip((shown - low) / max(high - low, np.finfo(np.float32).tiny), 0, 1)
    lesion = np.zeros(shown.shape, bool) if mask is None else mask[:, :, index]
    return Thumbnail((255 * grey).astype(np.uint8), lesion, image.spacing_mm[:2])


def shown_window(array: np.ndarray) -> tuple[float, float]:
    """Values of a volume drawn black and white: percentiles of what is not background, black at most 0."""
    inside = array[~background_mask(array) & (array > array.min())]
    low, high = np.percentile(inside if inside.size else array, SHOWN_PERCENTILES)
    return float(min(low, 0)), float(high)


def fullest_slice(mask: np.ndarray) -> int:
    """Axial slice with the most voxels of a mask; the middle one when it is empty."""
    return int(mask.sum(axis=(0, 1)).argmax()) if mask.any() else mask.shape[2] // 2
