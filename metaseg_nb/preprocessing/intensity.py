"""Intensities that do not depend on the scanner: images are scaled, and brought together by landmarks (``nyul``).

An image that was scaled by percentiles has a landmark at each tenth of its voxels. The standard is the mean of the
landmarks of a fold's training images. Each image is mapped, piece by piece along straight lines, so that its landmarks
become the standard's; 0 and 1 stay. The case store knows no fold, and holds images before this step.

References
----------
Nyúl, Udupa & Zhang 2000 (IEEE TMI 19:143): standardisation by histogram landmarks.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

# Between which values a scaled image is shown; z-scores have no bounds of their own.
RANGES = {"percentiles": (0.0, 1.0), "nyul": (0.0, 1.0), "min_max": (0.0, 1.0), "z_score": (-2.0, 8.0)}
BY_PERCENTILES = ("percentiles", "nyul")
# Landmarks: percentiles of the voxels that count.
TENTHS = np.arange(10, 100, 10)
# Every second voxel along each axis tells them as well.
STEP = 2


def scale_intensity(
    array: np.ndarray, head: np.ndarray, scaling: str, percentiles: Sequence[float] = (0.5, 99.5)
) -> np.ndarray:
    """Scale an image so that it does not depend on the scanner.

    Parameters
    ----------
    array : ndarray, shape (X, Y, Z)
    head : ndarray of bool, shape (X, Y, Z)
        Voxels whose intensities count; all of them when empty.
    scaling : str
        "percentiles": those of the head become 0 and 1, what lies beyond is clipped, so that no hot
        voxel darkens the rest. "nyul": the same, and each fold maps the result by its own landmarks.
        "min_max": the lowest and highest value of the volume become 0 and 1.
        "z_score": the head gets mean 0 and standard deviation 1; nothing is clipped.
    percentiles : sequence of 2 floats
        Of "percentiles" and "nyul".

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
        low, width = inside.mean(dtype=np.float64), inside.std(dtype=np.float64)
    else:
        low, high = np.percentile(inside, percentiles) if scaling in BY_PERCENTILES else (array.min(), array.max())
        width = high - low
    if not width > 0:
        raise ValueError(f"the lowest and the highest intensity to scale are both {low:g}: the image has no contrast")
    scaled = (array - low) / width
    return (scaled if scaling == "z_score" else scaled.clip(0, 1)).astype(np.float32)


def intensity_range(recipe: Mapping[str, Any]) -> tuple[float, float]:
    """Lowest and highest intensity to look at in images that were prepared by a recipe."""
    return RANGES[recipe["intensity_scaling"]]


def landmarks_of(image: np.ndarray, reach: np.ndarray) -> np.ndarray:
    """Landmarks of each sequence of a prepared image.

    Parameters
    ----------
    image : ndarray, shape (C, X, Y, Z)
        As it was scaled.
    reach : ndarray of bool, shape (X, Y, Z)
        The head and what is near it. Its voxels above the background, the lowest value of the image, count.

    Returns
    -------
    ndarray of float, shape (C, 9)
        NaN for a missing sequence, which is 0 everywhere.
    """
    sparse = (slice(None, None, STEP),) * 3
    found = []
    for channel in image:
        own = channel[sparse][reach[sparse]].astype(float)
        own = own[own > channel.min()]
        found.append(np.percentile(own, TENTHS) if own.size else np.full(len(TENTHS), np.nan))
    return np.array(found)


def standard_of(landmarks: Iterable[np.ndarray]) -> np.ndarray:
    """Mean landmarks of many images, shape (C, 9); a sequence that an image lacks does not count.

    Those of a sequence that all images lack are the tenths of 1.
    """
    every = np.ma.masked_invalid(np.stack(list(landmarks)))
    return np.where(every.mask.all(axis=0), TENTHS / 100, every.mean(axis=0).filled(0))


def with_landmarks(image: np.ndarray, own: np.ndarray, standard: np.ndarray) -> np.ndarray:
    """Map an image, or a part of it, so that its landmarks become the standard's.

    Parameters
    ----------
    image : ndarray, shape (C, X, Y, Z)
    own, standard : ndarray of float, shape (C, 9)
        A sequence with NaN in one of them stays as it is.

    Returns
    -------
    ndarray
        Of the image's shape and type; a brighter voxel is never made darker than another.
    """
    mapped = np.array(image)
    for channel, values, targets in zip(mapped, own, standard, strict=True):
        if np.isfinite([values, targets]).all():
            channel[:] = np.interp(channel, [0, *values, 1], [0, *targets, 1])
    return mapped
