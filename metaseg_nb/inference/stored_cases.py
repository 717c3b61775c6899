"""Networks on cases of the case store: how well they do on the selection set, and masks of the test set."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from metaseg_nb.cohort.volumes import write_volume
from metaseg_nb.inference.decision import UNDECIDED, Decision, dice, native_mask
from metaseg_nb.inference.sliding_window import case_probability
from metaseg_nb.preprocessing.case_store import UNKNOWN, StoredCase
from metaseg_nb.settings import Train


def selection_dice(
    network: torch.nn.Module, cases: Sequence[StoredCase], settings: Train, device: torch.device
) -> float:
    """Mean Dice over the selection set, without unknown voxels; 1 for a case without lesion where none is predicted."""
    scores = []
    for case in cases:
        truth, probability = case.label == 1, case_probability(network, case, settings, device)
        prediction = (probability >= UNDECIDED.threshold) & (case.label != UNKNOWN)
        scores.append(dice(2.0 * (truth & prediction).sum(), truth.sum() + prediction.sum()))
    return float(np.mean(scores))


def predict_case(
    network: torch.nn.Module, stored: StoredCase, settings: Train, masks: Mapping[Path, Decision], device: torch.device
) -> np.ndarray:
    """Predict a case of the case store, and write masks on the grid of its image, which is not read again.

    Parameters
    ----------
    network : Module
        In evaluation mode, on ``device``.
    stored : StoredCase
    settings : Train
    masks : mapping of path to Decision
        Files to write, and by which decision.
    device : torch.device

    Returns
    -------
    ndarray of float32, shape (X, Y, Z)
        Lesion probability on the study grid.
    """
    probability = case_probability(network, stored, settings, device)
    for mask, decision in masks.items():
        write_volume(mask, stored.on_native(native_mask(probability, stored.grid, stored.native, decision)))
    return probability
