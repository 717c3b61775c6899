"""Masks for cases: those of a fold's test set, and any new image."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from metaseg_nb.cohort.cases import Case
from metaseg_nb.cohort.problems import CohortError, Problem
from metaseg_nb.cohort.volumes import write_volume
from metaseg_nb.inference.decision import Decision
from metaseg_nb.inference.ensemble import Ensemble
from metaseg_nb.inference.native_grid import native_mask, native_probability
from metaseg_nb.inference.sliding_window import case_probability
from metaseg_nb.preprocessing.case_store import StoredCase
from metaseg_nb.preprocessing.images import prepare_image, read_images
from metaseg_nb.settings import Train


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


def predict_image(
    ensemble: Ensemble, images: Sequence[Path], device: torch.device, mask: Path, probability: Path | None = None
) -> float:
    """Predict any case with trained networks, prepared as their training images were.

    Parameters
    ----------
    ensemble : Ensemble
        From `load_ensemble`; its ``decision`` applies.
    images : sequence of path
        NIfTI, one a sequence, in the order of the training: contrast-enhanced T1 first.
    device : torch.device
    mask : path
        Written: uint8, 0 or 1, on the image's grid.
    probability : path, optional
        Written: float32, mean of the networks' lesion probabilities, on the image's grid; see `native_probability`.

    Returns
    -------
    float
        Predicted lesion volume in mm3.

    Raises
    ------
    CohortError, ValueError
        An image that cannot be used, another number of them than the networks were trained with, or a result
        that would not be NIfTI or would take the place of another file given.
    """
    _require_places([mask] if probability is None else [mask, probability], images)
    volumes = read_images(Case(images[0].name, tuple(images), None, patient="", primary=""))
    prepared = prepare_image(volumes, ensemble.recipe)
    predicted = ensemble.probability(prepared.array, np.argwhere(prepared.head), device)
    lesions = native_mask(predicted, prepared.grid, prepared.native, ensemble.decision)
    if probability is not None:
        on_image = native_probability(predicted, prepared.grid, prepared.native)
        write_volume(probability, replace(volumes[0], array=on_image))
    write_volume(mask, replace(volumes[0], array=lesions))
    return float(lesions.sum() * np.prod(volumes[0].spacing_mm))


def _require_places(results: Sequence[Path], images: Sequence[Path]) -> None:
    """Refuse, before minutes of work, results that could not be written or would replace an image or each other."""
    problems, taken = [], {path.resolve() for path in images}
    for path in results:
        if not path.name.endswith((".nii", ".nii.gz")):
            problems.append((path, "another kind of file", "a result ending in .nii or .nii.gz"))
        if path.resolve() in taken:
            problems.append((path, "the name of another file given", "a name of its own for each result"))
        taken.add(path.resolve())
    if problems:
        case, fix = images[0].name, "give another name"
        raise CohortError(Problem(case, str(path), found, expected, fix) for path, found, expected in problems)
