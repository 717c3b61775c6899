"""Networks on whole volumes, patch by patch: probabilities, what the selection set chooses, masks of stored cases."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import cast

import numpy as np
import torch

from metaseg_nb.cohort.volumes import read_mask, write_volume
from metaseg_nb.inference.decision import UNDECIDED, Decision, decisions_by_patients, dice, native_mask, outcome_of
from metaseg_nb.preprocessing.case_store import UNKNOWN, StoredCase
from metaseg_nb.preprocessing.intensity import landmarks_of, with_landmarks
from metaseg_nb.settings import Train

# Patches that go through the network at once.
WINDOWS_AT_ONCE = 4
# Axes of (B, C, X, Y, Z) that each of a window's mirror images is flipped along; the first is the window itself.
MIRRORS = [axes for n in range(4) for axes in combinations((2, 3, 4), n)]


def case_probability(network: torch.nn.Module, case: StoredCase, settings: Train, device: torch.device) -> np.ndarray:
    """Lesion probability of every voxel of a stored case; see `predict_probability`."""
    return predict_probability(network, case.image, case.reach, settings, device)


@torch.inference_mode()
def predict_probability(
    network: torch.nn.Module, image: np.ndarray, reach: np.ndarray, settings: Train, device: torch.device
) -> np.ndarray:
    """Lesion probability of every voxel of a prepared image.

    The probabilities of overlapping windows are blended with Gaussian weights. Beyond ``reach`` there is no
    lesion: the probability is 0 there, and a window without any of it is not shown to the network.

    Parameters
    ----------
    network : Module
        In evaluation mode, on ``device``. If it carries ``landmarks``, those of the image become these first.
    image : ndarray, shape (C, X, Y, Z)
        On the study grid.
    reach : ndarray of bool, shape (X, Y, Z)
        The head and what is near it, from `reach_of`.
    settings : Train
        ``patch_size``, the edge of the cubic windows (smaller volumes are padded with 0); ``overlap``, the share
        of a window that neighbours share; ``mirrored``, to take the mean probability over the eight mirror
        images of each window; ``precision``, see `predicts_in`.
    device : torch.device

    Returns
    -------
    ndarray of float32, shape (X, Y, Z)
        In [0, 1].

    Raises
    ------
    FloatingPointError
        The network gives numbers that are not finite.
    """
    mirrors = MIRRORS if settings.mirrored else MIRRORS[:1]

    # here: MONAI takes seconds, and those who read scores predict nothing
    from monai.inferers import sliding_window_inference

    from metaseg_nb.training.networks import predicts_in

    def predict(windows: torch.Tensor) -> torch.Tensor:
        """Probabilities of windows whose last channel marks the reach; 0 in those without any of it."""
        probability = torch.zeros_like(windows[:, :1])
        marked = windows[:, -1].flatten(1).any(dim=1)
        if marked.any():
            images = windows[marked, :-1]
            mirrored = (network(images.flip(axes)).float().sigmoid().flip(axes) for axes in mirrors)
            probability[marked] = sum(mirrored) / len(mirrors)
        return probability

    if (standard := getattr(network, "landmarks", None)) is not None:
        image = with_landmarks(image, landmarks_of(image, reach), standard.cpu().numpy())
    # a GPU takes the image as it is stored, and makes single precision of it
    sequences = torch.from_numpy(np.array(image)).to(device).float()
    within = torch.from_numpy(np.array(reach)).to(device)[None]
    channels, window = torch.cat([sequences, within])[None], (settings.patch_size,) * 3
    half = predicts_in(settings.precision, device)
    with torch.autocast(device.type, half, enabled=half is not None):
        blended = sliding_window_inference(
            channels, window, WINDOWS_AT_ONCE, predict, overlap=settings.overlap, mode="gaussian"
        )
    probability = cast(torch.Tensor, blended)[0, 0]
    if not probability.isfinite().all():
        found = "the network gives probabilities that are not finite"
        raise FloatingPointError(f"{found}: train it with a lower learning_rate, or with precision: bf16")
    return (probability * within[0]).cpu().numpy()


def selection_dice(
    network: torch.nn.Module, cases: Sequence[StoredCase], settings: Train, device: torch.device
) -> float:
    """Mean Dice over the patients of the selection set, each the mean of its cases.

    Unknown voxels are left out. A case without lesion has Dice 1 where none is predicted.
    """
    scores = defaultdict(list)
    for case in cases:
        truth, probability = case.label == 1, case_probability(network, case, settings, device)
        prediction = (probability >= UNDECIDED.threshold) & (case.label != UNKNOWN)
        scores[case.patient].append(float(dice(2.0 * (truth & prediction).sum(), truth.sum() + prediction.sum())))
    return float(np.mean([np.mean(of_patient) for of_patient in scores.values()]))


def choose_decisions(
    network: torch.nn.Module, cases: Sequence[StoredCase], settings: Train, device: torch.device
) -> dict[str, Decision]:
    """Predict the selection set, and choose a decision for each operating point; see `decisions_by_patients`.

    Parameters
    ----------
    network : Module
        In evaluation mode, on ``device``.
    cases : sequence of StoredCase
        With labels; those that stand in for a physician's choose nothing.
    settings : Train
    device : torch.device
    """
    outcomes = defaultdict(list)
    for case in cases:
        if case.annotation is None:  # where lesions were planted, those of the patient would count as false
            probability = case_probability(network, case, settings, device)
            outcomes[case.patient].append(outcome_of(probability, case.label > 0, case.grid.spacing_mm))
    return decisions_by_patients(outcomes.values())


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
        image = stored.seen_after(read_mask(earlier, stored.name) if earlier else None)
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
    images = {"none": stored.seen_after(None), "reference": stored.image}
    return {mask: predict_probability(network, image, stored.reach, settings, device) for mask, image in images.items()}
