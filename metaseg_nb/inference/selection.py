"""Score of a network in training on its selection set, on the study grid."""

from collections.abc import Sequence

import numpy as np
import torch

from metaseg_nb.inference.sliding_window import predict_probability
from metaseg_nb.preprocessing.case_store import StoredCase
from metaseg_nb.settings import Train


def selection_dice(
    network: torch.nn.Module, cases: Sequence[StoredCase], settings: Train, device: torch.device
) -> float:
    """Mean Dice over the selection set; 1 for a case without lesion where none is predicted."""
    scores = []
    for case in cases:
        probability = predict_probability(network, case.image, settings.patch_size, settings.overlap, device)
        truth, prediction = case.label > 0, probability >= settings.threshold
        total = truth.sum() + prediction.sum()
        scores.append(1.0 if total == 0 else 2.0 * (truth & prediction).sum() / total)
    return float(np.mean(scores))
