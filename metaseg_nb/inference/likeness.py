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
        difference between neighbours. NaN for a missing sequence.
    """
    found = []
    for channel, tenths in zip(image, landmarks_of(image, reach), strict=True):
        steps = []
        for axis in range(3):
            values, within = channel.astype(np.float32).swapaxes(0, axis), reach.swapaxes(0, axis)
            steps.append(np.abs(np.diff(values, axis=0))[within[1:] & within[:-1]].mean())
        found += [*tenths, *np.log(np.maximum(steps, 1e-6))] if np.isfinite(tenths).all() else [np.nan] * 12
    return np.array(found)


def learn_likeness(training: Sequence[StoredCase], selection: Sequence[StoredCase]) -> dict[str, Any]:
    """What a network's checkpoint keeps of its training images, to say how far another image lies from them.

    Parameters
    ----------
    training, selection : sequence of StoredCase
        The training set and the selection set; no label is read.

    Returns
    -------
    dict
        That of `spread_of` the training cases, and ``limit``: the distance of the farthest case of the selection set,
        at least 1.
    """
    known, held_out = ([image_statistics(case.scans, case.reach) for case in cases] for cases in (training, selection))
    spread = spread_of(np.array(known))
    return spread | {"limit": max([1.0, *(distance(spread, statistics) for statistics in held_out)])}


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
    return distance(learned, image_statistics(image, reach)) / learned["limit"]


def spread_of(known: np.ndarray) -> dict[str, Any]:
    """Mean and covariance of cases, for `distance`: plain lists ``mean``, ``sd`` and ``correlation``.

    With few cases correlations are mostly chance: the correlation matrix is mixed with that of independent statistics,
    as much as if each statistic were one more case. Scikit-learn's ``ShrunkCovariance`` does so too, but takes no
    missing values.

    Parameters
    ----------
    known : ndarray, shape (cases, statistics)
        NaN where a case has no such sequence. A statistic that no case has is NaN in ``mean`` and ``sd``.
    """
    known = np.ma.masked_invalid(known)
    n, p = known.shape
    mean, sd = (of.filled(np.nan) for of in (known.mean(axis=0), np.ma.maximum(known.std(axis=0), LEAST_SD)))
    z = ((known - mean) / sd).filled(0)
    return {"mean": mean.tolist(), "sd": sd.tolist(), "correlation": ((z.T @ z + p * np.eye(p)) / (n + p)).tolist()}


def distance(spread: Mapping[str, Any], statistics: np.ndarray) -> float:
    """Mahalanobis' distance (1936) of a case from the cases of `spread_of`, over the root of the number of statistics.

    So it is about 1 or less for a case like those. Statistics that the case does not have, or none of those had, do
    not count.
    """
    z = (statistics - spread["mean"]) / np.array(spread["sd"])
    there = np.isfinite(z)
    own = np.array(spread["correlation"])[np.ix_(there, there)]
    return float(np.sqrt(z[there] @ np.linalg.solve(own, z[there]) / there.sum()))
