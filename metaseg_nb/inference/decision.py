"""From probabilities to lesions: threshold and smallest lesion, chosen on the selection set; masks on a case's grid."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from metaseg_nb.cohort.head import ends_of
from metaseg_nb.cohort.lesions import label_lesions
from metaseg_nb.cohort.volumes import write_volume
from metaseg_nb.inference.sliding_window import case_probability
from metaseg_nb.preprocessing.case_store import StoredCase
from metaseg_nb.preprocessing.grid import Grid, resample, resample_lesions
from metaseg_nb.preprocessing.steps import remove_specks
from metaseg_nb.settings import Train

THRESHOLDS = np.arange(5, 100, 5) / 100
# No more than a ball of 3.4 mm: Dice hardly feels small lesions, so it must not choose to lose one that is treated.
MIN_LESIONS_MM3 = np.array([0.0, 5.0, 10.0, 20.0])


@dataclass(frozen=True)
class Decision:
    """What of a probability becomes lesion.

    ``threshold``: voxels that reach it; ``min_lesion_mm3``: of these, 26-connected components of at least this volume.
    """

    threshold: float
    min_lesion_mm3: float


# While networks train, and where nothing was chosen.
UNDECIDED = Decision(0.5, 0.0)


def decision_of(checkpoint: Mapping[str, Any]) -> Decision | None:
    """The decision a checkpoint holds; None before the end of training."""
    return Decision(**checkpoint["decision"]) if "decision" in checkpoint else None


def selection_dice(
    network: torch.nn.Module, cases: Sequence[StoredCase], settings: Train, device: torch.device
) -> float:
    """Mean Dice over the selection set; 1 for a case without lesion where none is predicted."""
    scores = []
    for case in cases:
        truth, prediction = case.label > 0, case_probability(network, case, settings, device) >= UNDECIDED.threshold
        scores.append(dice(2.0 * (truth & prediction).sum(), truth.sum() + prediction.sum()))
    return float(np.mean(scores))


def dice(twice_both: np.ndarray, total: np.ndarray) -> np.ndarray:
    """Dice of twice the voxels that two masks share and the sum of both's voxels; 1 where both are empty."""
    return np.where(total > 0, twice_both / np.maximum(total, 1), 1.0)


def choose_decision(
    network: torch.nn.Module, cases: Sequence[StoredCase], settings: Train, device: torch.device
) -> Decision:
    """Choose threshold and smallest lesion with the best mean Dice over the selection set.

    Dice is that of the study grid, where the labels are: lesions keep their volume on the way to the native
    grid, so what is best here is best there. Of equals the threshold nearest to 0.5 is taken (of two the lower
    one), then the smaller volume; hence 0.5 and 0 where nothing is predicted at any threshold. A selection set
    without lesions cannot choose, for it would always forbid everything: 0.5 and 0 too.

    Parameters
    ----------
    network : Module
        In evaluation mode, on ``device``.
    cases : sequence of StoredCase
        With labels.
    settings : Train
    device : torch.device
    """
    if not any(len(case.lesion_voxels) for case in cases):
        return UNDECIDED
    scores = [
        dice_by_decision(case_probability(network, case, settings, device), case.label > 0, case.grid.spacing_mm)
        for case in cases
    ]
    mean = np.mean(scores, axis=0).round(9)
    best = np.argwhere(mean == mean.max())
    i, j = min(best.tolist(), key=lambda place: (abs(THRESHOLDS[place[0]] - 0.5).round(9), *place))
    return Decision(float(THRESHOLDS[i]), float(MIN_LESIONS_MM3[j]))


def dice_by_decision(probability: np.ndarray, truth: np.ndarray, spacing_mm: tuple[float, float, float]) -> np.ndarray:
    """Dice of one case for all decisions; each threshold's components are found once.

    Parameters
    ----------
    probability : ndarray, shape (X, Y, Z)
    truth : ndarray of bool, shape (X, Y, Z)
    spacing_mm : tuple of 3 floats

    Returns
    -------
    ndarray, shape (len(THRESHOLDS), len(MIN_LESIONS_MM3))
        1 where both masks are empty.
    """
    n_truth, voxel_mm3 = int(truth.sum()), float(np.prod(spacing_mm))
    possible = probability >= THRESHOLDS[0]
    if possible.any():
        box = tuple(slice(low, high + 1) for low, high in zip(*ends_of(possible), strict=True))
        probability, truth = probability[box], truth[box]
    return np.stack([_dice_by_volume(probability >= t, truth, n_truth, voxel_mm3) for t in THRESHOLDS])


def _dice_by_volume(prediction: np.ndarray, truth: np.ndarray, n_truth: int, voxel_mm3: float) -> np.ndarray:
    labels, n = label_lesions(prediction)
    voxels, hits = (np.bincount(labels[mask], minlength=n + 1)[1:] for mask in (prediction, prediction & truth))
    kept = voxels * voxel_mm3 >= MIN_LESIONS_MM3[:, None]
    return dice(2.0 * (kept * hits).sum(axis=1), n_truth + (kept * voxels).sum(axis=1))


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
    mask = resample_lesions(probability, grid, native, decision.threshold)
    return remove_specks(mask, native.spacing_mm, decision.min_lesion_mm3).astype(np.uint8)


def native_probability(probability: np.ndarray, grid: Grid, native: Grid) -> np.ndarray:
    """Probabilities on a case's own grid, float32, by linear interpolation; 0 where the study grid does not reach.

    Cut at the threshold they give about the mask of `native_mask`, which unlike them keeps each lesion's volume.
    """
    return resample(probability, grid, native).clip(0, 1)


def predict_case(
    network: torch.nn.Module,
    stored: StoredCase,
    settings: Train,
    decision: Decision,
    device: torch.device,
    mask: Path,
) -> np.ndarray:
    """Predict a case of the case store and write its mask on the grid of its image, which is not read again.

    Returns
    -------
    ndarray of float32, shape (X, Y, Z)
        Lesion probability on the study grid.
    """
    probability = case_probability(network, stored, settings, device)
    write_volume(mask, stored.on_native(native_mask(probability, stored.grid, stored.native, decision)))
    return probability
