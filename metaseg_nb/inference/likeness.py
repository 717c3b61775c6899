"""Is this patient like those that a network learned from? A distance from the training cases, by image statistics."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from metaseg_nb.preprocessing.case_store import StoredCase
from metaseg_nb.preprocessing.landmarks import landmarks_of

# A spread below this, a hundredth of the range of intensities, says more of how few cases there are than of scanners.
LEAST_SD = 0.01


def image_statistics(image: np.ndarray, reach: np.ndarray) -> np.ndarray:
    """Contrast, and noise and sharpness, of each sequence of a prepared image.

    Parameters
    ----------
    image : ndarray, shape (C, X, Y, Z)
    reach : ndarray of bool, shape (X, Y, Z)
        The head and what is near it.

    Returns
    -------
    ndarray of float, shape (12 C,)
        For each sequence the tenths of its voxels (`landmarks_of`), and along X, Y and Z the logarithm of the mean
        difference between neighbours. A sequence that the patient lacks has 0 everywhere.
    """
    found = []
    for channel, tenths in zip(image, landmarks_of(image, reach), strict=True):
        steps = []
        for axis in range(3):
            values, within = channel.astype(np.float32).swapaxes(0, axis), reach.swapaxes(0, axis)
            steps.append(np.abs(np.diff(values, axis=0))[within[1:] & within[:-1]].mean())
        found += [*tenths, *np.log(np.maximum(steps, 1e-6))] if np.isfinite(tenths).all() else [0.0] * 12
    return np.array(found)


def learn_likeness(training: Sequence[StoredCase], selection: Sequence[StoredCase]) -> dict[str, Any]:
    """What a network's checkpoint keeps of its training images, to say how far another image lies from them.

    The distance is that of Mahalanobis (1936), by the mean and covariance of the training cases' statistics. With few
    cases correlations are mostly chance: the correlation matrix is mixed with that of independent statistics, as much
    as if each statistic were one more case.

    Parameters
    ----------
    training, selection : sequence of StoredCase
        The training set and the selection set; no label is read.

    Returns
    -------
    dict
        ``mean``, ``sd``, ``inverse`` (of the correlation matrix), and ``limit``: the distance of the farthest case of
        the selection set, at least 1. Plain numbers and lists.
    """
    known = np.array([image_statistics(case.image, case.reach) for case in training])
    n, p = known.shape
    mean, sd = known.mean(axis=0), np.maximum(known.std(axis=0), LEAST_SD)
    z = (known - mean) / sd
    inverse = np.linalg.inv((z.T @ z + p * np.eye(p)) / (n + p))
    learned = {"mean": mean.tolist(), "sd": sd.tolist(), "inverse": inverse.tolist(), "limit": 1.0}
    farthest = max(unlikeness(learned, case.image, case.reach) for case in selection)
    return learned | {"limit": max(1.0, farthest)}


def unlikeness(learned: Mapping[str, Any], image: np.ndarray, reach: np.ndarray) -> float:
    """How far an image lies from the training cases, as a multiple of the farthest case of the selection set.

    Parameters
    ----------
    learned : mapping
        From `learn_likeness`.
    image, reach
        See `image_statistics`.

    Returns
    -------
    float
        Above 1 the image is farther than any of the selection set: its mask deserves a careful look.
    """
    z = (image_statistics(image, reach) - learned["mean"]) / np.array(learned["sd"])
    return float(np.sqrt(z @ np.array(learned["inverse"]) @ z)) / learned["limit"]
