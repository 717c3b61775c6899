"""Score of a network in training on its selection set, on the study grid."""

from collections.abc import Sequence

import numpy as np
import torch

from metaseg_nb.inference.sliding_window import case_probability
from metaseg_nb.preprocessing.case_store import StoredCase
from metaseg_nb.settings import Train

# Of the lesion probability while networks train.
THRESHOLD = 0.5


def selection_dice(
    network: torch.nn.Module, cases: Sequence[StoredCase], settings: Train, device: torch.device
) -> float:
    """Mean Dice over the selection set; 1 for a case without lesion where none is predicted."""
    scores = []
    for case in cases:
        truth, prediction = case.label > 0, case_probability(network, case, settings, device) >= THRESHOLD
        scores.append(dice(2.0 * (truth & prediction).sum(), truth.sum() + prediction.sum()))
    return float(np.mean(scores))


def dice(twice_both: np.ndarray, total: np.ndarray) -> np.ndarray:
    """Dice of twice the voxels that two masks share and the sum of both's voxels; 1 where both are empty."""
    return np.where(total > 0, twice_both / np.maximum(total, 1), 1.0)
