"""Intensities brought together by landmarks: tissues get about the same value in all images (``nyul``).

An image that was scaled by percentiles has a landmark at each tenth of its voxels. The standard is the mean of the
landmarks of a fold's training images. Each image is mapped, piece by piece along straight lines, so that its landmarks
become the standard's; 0 and 1 stay. The case store knows no fold, and holds images before this step.

References
----------
Nyúl, Udupa & Zhang 2000 (IEEE TMI 19:143): standardisation by histogram landmarks.
"""

from collections.abc import Iterable

import numpy as np

# Percentiles of the voxels that count.
TENTHS = np.arange(10, 100, 10)
# Every second voxel along each axis tells them as well.
STEP = 2


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
    for channel, here, there in zip(mapped, own, standard, strict=True):
        if np.isfinite([here, there]).all():
            channel[:] = np.interp(channel, [0, *here, 1], [0, *there, 1])
    return mapped
