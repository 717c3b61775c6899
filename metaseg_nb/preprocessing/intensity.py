"""Intensities to one scale."""

from collections.abc import Mapping
from typing import Any

import numpy as np

# Between which values a scaled image is shown; z-scores have no bounds of their own.
RANGES = {"percentiles": (0.0, 1.0), "min_max": (0.0, 1.0), "z_score": (-2.0, 8.0)}


def scale_intensity(
    array: np.ndarray, head: np.ndarray, scaling: str, percentiles: tuple[float, float] = (0.5, 99.5)
) -> np.ndarray:
    """Scale an image so that it does not depend on the scanner.

    Parameters
    ----------
    array : ndarray, shape (X, Y, Z)
    head : ndarray of bool, shape (X, Y, Z)
        Voxels whose intensities count; all of them when empty.
    scaling : str
        "percentiles": those of the head become 0 and 1, what lies beyond is clipped, so that no hot
        voxel darkens the rest. "min_max": the lowest and highest value of the volume become 0 and 1.
        "z_score": the head gets mean 0 and standard deviation 1; nothing is clipped.
    percentiles : tuple of 2 floats
        Of "percentiles".

    Returns
    -------
    ndarray of float32, shape (X, Y, Z)

    Raises
    ------
    ValueError
        The image has no contrast on that scale.
    """
    inside = array[head] if head.any() else array
    if scaling == "z_score":
        mean, deviation = inside.mean(dtype=np.float64), inside.std(dtype=np.float64)
        _require_contrast(mean, mean + deviation, "mean and mean + standard deviation")
        return ((array - mean) / deviation).astype(np.float32)
    if scaling == "percentiles":
        low, high = np.percentile(inside, percentiles)
        _require_contrast(low, high, f"percentiles {tuple(percentiles)}")
    else:
        low, high = array.min(), array.max()
        _require_contrast(low, high, "minimum and maximum")
    return np.clip((array - low) / (high - low), 0, 1).astype(np.float32)


def intensity_range(recipe: Mapping[str, Any]) -> tuple[float, float]:
    """Lowest and highest intensity to look at in images that were prepared by a recipe."""
    return RANGES[recipe["intensity_scaling"]]


def _require_contrast(low: float, high: float, what: str) -> None:
    if not high > low:
        raise ValueError(f"intensity {what} are both {low:g}: the image has no contrast")
