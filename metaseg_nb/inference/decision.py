"""From probabilities to lesions: what of a probability becomes lesion, and masks on a case's grid."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from metaseg_nb.cohort.lesions import label_lesions
from metaseg_nb.preprocessing.grid import Grid, resample, resample_lesions
from metaseg_nb.preprocessing.labels import remove_specks


@dataclass(frozen=True)
class Decision:
    """What of a probability becomes lesion: a low threshold contours, a higher one finds.

    Lesions are 26-connected components of the voxels that reach ``threshold``, if their highest probability reaches
    ``peak`` and their volume ``min_lesion_mm3``.
    """

    threshold: float
    peak: float
    min_lesion_mm3: float

    def __str__(self) -> str:
        found = f", with a peak ≥ {self.peak:.2f}" if self.peak > self.threshold else ""
        return f"probability ≥ {self.threshold:.2f}{found}, lesions ≥ {self.min_lesion_mm3:g} mm³"


# While networks train, and where nothing was chosen.
UNDECIDED = Decision(0.5, 0.5, 0.0)


def decision_of(checkpoint: Mapping[str, Any]) -> Decision | None:
    """The decision a checkpoint holds; None before the end of training."""
    if "decision" not in checkpoint:
        return None
    decision = checkpoint["decision"]
    return Decision(**{"peak": decision["threshold"], **decision})  # those of earlier versions have no peak


def dice(twice_both: np.ndarray, total: np.ndarray) -> np.ndarray:
    """Dice of twice the voxels that two masks share and the sum of both's voxels; 1 where both are empty."""
    return np.where(total > 0, twice_both / np.maximum(total, 1), 1.0)


def standing(probability: np.ndarray, decision: Decision) -> np.ndarray:
    """Set to 0 the components of ``probability >= decision.threshold`` that do not reach ``decision.peak``."""
    parts, n = label_lesions(probability >= decision.threshold)
    inside = parts > 0
    peaks = peaks_of(probability[inside], parts[inside], n)
    return np.where(inside & (peaks < decision.peak)[parts], 0, probability)


def peaks_of(probability: np.ndarray, parts: np.ndarray, n: int) -> np.ndarray:
    """Highest probability of each part 0 to n, from the probability and the part of each voxel; 0 without voxels."""
    peaks = np.zeros(n + 1)
    np.maximum.at(peaks, parts, probability)
    return peaks


def native_mask(probability: np.ndarray, grid: Grid, native: Grid, decision: Decision) -> np.ndarray:
    """Lesions on a case's own grid, by `resample_lesions`; components that are too small there are removed.

    Parameters
    ----------
    probability : ndarray, shape ``grid.shape``
    grid : Grid
        The study grid.
    native : Grid
        The case's own.
    decision : Decision

    Returns
    -------
    ndarray of uint8, shape ``native.shape``
    """
    mask = resample_lesions(standing(probability, decision), grid, native, decision.threshold)
    return remove_specks(mask, native.spacing_mm, decision.min_lesion_mm3).astype(np.uint8)


def native_probability(probability: np.ndarray, grid: Grid, native: Grid) -> np.ndarray:
    """Probabilities on a case's own grid, float32, by linear interpolation; 0 where the study grid does not reach.

    Cut at the threshold they give about the mask of `native_mask`, which unlike them keeps each lesion's volume.
    """
    return resample(probability, grid, native).clip(0, 1)
