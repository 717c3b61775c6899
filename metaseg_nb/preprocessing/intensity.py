"""Intensities to [0, 1]."""

import numpy as np


def to_unit_range(array: np.ndarray, mask: np.ndarray, percentiles: tuple[float, float]) -> np.ndarray:
    """Map the given percentiles of the head's intensities to 0 and 1 and clip what lies beyond.

    Parameters
    ----------
    array : ndarray, shape (X, Y, Z)
    mask : ndarray of bool, shape (X, Y, Z)
        Voxels whose intensities count; all of them when empty.
    percentiles : tuple of 2 floats
        (0, 100) is plain min-max; (0.5, 99.5) lets no hot voxel darken the rest.

    Returns
    -------
    ndarray of float32, shape (X, Y, Z)
        Values in [0, 1].
    """
    low, high = np.percentile(array[mask] if mask.any() else array, percentiles)
    if low == high:
        raise ValueError(f"intensity percentiles {percentiles} are both {low:g}: the image has no contrast")
    return np.clip((array - low) / (high - low), 0, 1).astype(np.float32)
