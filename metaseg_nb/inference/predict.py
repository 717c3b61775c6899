"""Masks for cases: those of a fold's test set, and any new image."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from metaseg_nb.cohort.cases import Case
from metaseg_nb.cohort.volumes import write_volume
from metaseg_nb.inference.native_grid import native_mask
from metaseg_nb.inference.sliding_window import predict_probability
from metaseg_nb.preprocessing.case_store import StoredCase
from metaseg_nb.preprocessing.grid import resample_lesions
from metaseg_nb.preprocessing.images import prepare_image, read_images
from metaseg_nb.settings import Train
from metaseg_nb.training.checkpoints import load_checkpoint, network_of


def predict_case(
    network: torch.nn.Module, stored: StoredCase, settings: Train, device: torch.device, mask: Path
) -> None:
    """Predict a case of the case store and write its mask on the grid of its image, which is not read again."""
    probability = predict_probability(network, stored.image, settings.patch_size, settings.overlap, device)
    predicted = resample_lesions(probability, stored.grid, stored.native, settings.threshold)
    write_volume(mask, stored.on_native(predicted.astype(np.uint8)))


def predict_image(checkpoint: Path, images: Sequence[Path], mask: Path, device: torch.device) -> float:
    """Predict any case with a trained network, prepared as its training images were.

    Parameters
    ----------
    checkpoint : path
        ``best.pt`` of a run.
    images : sequence of path
        NIfTI, one a sequence, in the order of the training: contrast-enhanced T1 first.
    mask : path
        Written: uint8, 0 or 1, on the image's grid.
    device : torch.device

    Returns
    -------
    float
        Predicted lesion volume in mm3.

    Raises
    ------
    CohortError, ValueError
        An image that cannot be used, or another number of them than the network was trained with.
    """
    content = load_checkpoint(checkpoint)
    settings = Train.check(content["identity"]["settings"])
    network = network_of(content, device)
    volumes = read_images(Case(images[0].name, tuple(images), None, patient="", primary=""))
    prepared = prepare_image(volumes, content["identity"]["recipe"])
    probability = predict_probability(network, prepared.array, settings.patch_size, settings.overlap, device)
    predicted = native_mask(probability, prepared.grid, volumes[0], settings.threshold)
    write_volume(mask, predicted)
    return float(predicted.array.sum() * np.prod(predicted.spacing_mm))
