"""The head and the background of an image; the background need not be 0, nor the darkest value."""

import numpy as np
import SimpleITK as sitk

OTSU_BINS = 200
# A value that fills this share of the volume's twelve edges, which no head reaches, is the background's.
EDGES_SHARE = 0.2
# Where this share of all else is faint, below this part of the contrast, it is noise of air and not yet the head.
FAINT, FAINT_SHARE = 0.05, 0.08
# Of the values beside the background: what lies below is darker than it, and what more than this share holds counts.
DARK_PERCENTILE, BRIGHT_PERCENTILE = 0.5, 90
FEW = 0.01
# The background of a magnitude image is about 0. Below the first multiple of the head's median it is not; below the
# second, a number far from all others, it is padding.
LEAST_BACKGROUND, PADDING = -0.05, -3.0


def ends_of(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First and last voxel of a mask of bool that is not empty, along each axis: int, shape (3,)."""
    places = [np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    return np.array([place[0] for place in places]), np.array([place[-1] for place in places])


def head_mask(array: np.ndarray) -> np.ndarray:
    """Find the voxels of the head.

    Where one value fills the background and nothing faint surrounds the head, as in skull-stripped images, the head
    is all that differs from it, be it brighter or darker. Elsewhere it is what is brighter than Otsu's threshold
    (IEEE SMC 9(1), 1979), the background being taken as dark wherever its value lies.

    Parameters
    ----------
    array : ndarray, shape (X, Y, Z)
        Finite values.

    Returns
    -------
    ndarray of bool, shape (X, Y, Z)
        Empty where nothing stands out.
    """
    background = background_mask(array)
    values = array[~background]
    if values.size == 0:
        return ~background
    if background.any():
        dark, bright = np.percentile(values, (DARK_PERCENTILE, BRIGHT_PERCENTILE))
        if (values < dark + FAINT * (bright - dark)).mean() < FAINT_SHARE:
            return ~background
        array = np.where(background, dark, array)
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.T))
    return sitk.GetArrayFromImage(sitk.OtsuThreshold(image, 0, 1, OTSU_BINS)).T.astype(bool)


def background_mask(array: np.ndarray) -> np.ndarray:
    """Mask of bool, shape (X, Y, Z), of the voxels that hold the background's one value; empty where air is noise."""
    edges = [np.take(np.take(array, [0, -1], first), [0, -1], second) for first, second in ((0, 1), (0, 2), (1, 2))]
    values, counts = np.unique(np.concatenate([edge.ravel() for edge in edges]), return_counts=True)
    background = values[counts.argmax()] if counts.max() >= EDGES_SHARE * counts.sum() else np.nan
    return array == background


def with_dark_background(array: np.ndarray) -> np.ndarray:
    """Give a background that lies amid the other values their lowest one; an image without such a one as it is."""
    background = background_mask(array)
    if not background.any() or background.all():
        return array
    beside, value = array[~background], array[background][0]
    return np.where(background, beside.min(), array) if (beside < value).mean() > FEW else array


def is_magnitude(array: np.ndarray) -> bool:
    """Tell whether 0 is about no signal, so that values may be divided by a field; False after z-scoring.

    Parameters
    ----------
    array : ndarray, shape (X, Y, Z)
        Finite values.
    """
    head = head_mask(array)
    if not head.any() or head.all():
        return True
    inside, outside = array[head], np.median(array[~head])
    middle = np.median(inside)
    return bool((inside < 0).mean() <= FEW and not PADDING * middle < outside < LEAST_BACKGROUND * middle)
