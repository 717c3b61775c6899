"""Masks for cases: those of a fold's test set, and any new image."""

from pathlib import Path

import numpy as np
import torch

from metaseg_nb.cohort.cases import Case
from metaseg_nb.cohort.volumes import read_volume, write_volume
from metaseg_nb.inference.native_grid import native_mask
from metaseg_nb.inference.sliding_window import predict_probability
from metaseg_nb.preprocessing.case_store import StoredCase
from metaseg_nb.preprocessing.prepare import prepare_image
from metaseg_nb.settings import Train
from metaseg_nb.training.checkpoints import load_checkpoint, network_of


def predict_case(
    network: torch.nn.Module, case: Case, stored: StoredCase, settings: Train, device: torch.device, mask: Path
) -> None:
    """Predict a case of the case store and write its mask on the grid of its image."""
    probability = predict_probability(network, stored.image, settings.patch_size, settings.overlap, device)
    source = read_volume(case.image, case.name)
    write_volume(mask, native_mask(probability, stored.grid, source, settings.threshold))


def predict_image(checkpoint: Path, image: Path, mask: Path, device: torch.device) -> float:
    """Predict any image with a trained network, prepared as its training images were.

    Parameters
    ----------
    checkpoint : path
        ``best.pt`` of a run.
    image : path
        NIfTI, contrast-enhanced T1.
    mask : path
        Written: uint8, 0 or 1, on the image's grid.
    device : torch.device

    Returns
    -------
    float
        Predicted lesion volume in mm3.
    """
    content = load_checkpoint(checkpoint)
    settings = Train.check(content["identity"]["settings"])
    network = network_of(content, device)
    source = read_volume(image, image.name)
    prepared = prepare_image(source, content["identity"]["recipe"])
    probability = predict_probability(network, prepared.array, settings.patch_size, settings.overlap, device)
    predicted = native_mask(probability, prepared.grid, source, settings.threshold)
    write_volume(mask, predicted)
    return float(predicted.array.sum() * np.prod(predicted.spacing_mm))
