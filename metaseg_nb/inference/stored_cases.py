"""Networks on cases of the case store: how well they do on the selection set, and masks of the test set."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from metaseg_nb.cohort.volumes import read_mask, write_volume
from metaseg_nb.inference.decision import UNDECIDED, Decision, dice, native_mask
from metaseg_nb.inference.sliding_window import case_probability, predict_probability
from metaseg_nb.preprocessing.case_store import UNKNOWN, StoredCase
from metaseg_nb.preprocessing.two_dates import seen_after
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
    network: torch.nn.Module,
    stored: StoredCase,
    settings: Train,
    masks: Mapping[Path, Decision],
    device: torch.device,
    earlier: Path | None = None,
) -> np.ndarray:
    """Predict a case of the case store, and write masks on the grid of its image, which is not read again.

    Where networks learned with earlier masks, it follows ``earlier``, the mask that was predicted for the patient's
    earlier date; without one it is predicted as a first visit. The reference of that date is not looked at.

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
    image = stored.image
    if stored.earlier:
        image = seen_after(stored, read_mask(earlier, stored.name) if earlier else None)
    probability = predict_probability(network, image, stored.reach, settings, device)
    for mask, decision in masks.items():
        write_volume(mask, stored.on_native(native_mask(probability, stored.grid, stored.native, decision)))
    return probability


def after_other_masks(
    network: torch.nn.Module, stored: StoredCase, settings: Train, device: torch.device
) -> dict[str, np.ndarray]:
    """Probabilities of a follow-up after no earlier mask ("none") and after that of the "reference".

    To compare with what `predict_case` gives after the mask that the network predicted.
    """
    images = {"none": seen_after(stored, None), "reference": stored.image}
    return {mask: predict_probability(network, image, stored.reach, settings, device) for mask, image in images.items()}
