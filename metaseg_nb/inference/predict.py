"""Masks for cases: those of a fold's test set, and any new image."""

import os
import re
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import NamedTemporaryFile

import numpy as np
import torch

from metaseg_nb.cohort.cases import Case
from metaseg_nb.cohort.header_checks import require_sound_headers
from metaseg_nb.cohort.problems import CohortError, Problem
from metaseg_nb.cohort.volumes import write_volume
from metaseg_nb.inference.decision import Decision
from metaseg_nb.inference.ensemble import Ensemble
from metaseg_nb.inference.native_grid import native_mask, native_probability
from metaseg_nb.inference.sliding_window import case_probability
from metaseg_nb.preprocessing.case_store import StoredCase
from metaseg_nb.preprocessing.steps import prepare_image, read_images
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
    require_predictable(images, [mask] if probability is None else [mask, probability])
    if len(images) != (wanted := ensemble.recipe["sequences"]):
        raise ValueError(
            f"{len(images)} image(s) given; expected {wanted}: the sequences of one patient, in the order of the "
            "training. Predict each patient by a call of its own"
        )
    volumes = read_images(_new_case(images))
    prepared = prepare_image(volumes, ensemble.recipe)
    predicted = ensemble.probability(prepared.array, prepared.reach, device)
    lesions = native_mask(predicted, prepared.grid, prepared.native, ensemble.decision)
    if probability is not None:
        on_image = native_probability(predicted, prepared.grid, prepared.native)
        write_volume(probability, replace(volumes[0], array=on_image))
    write_volume(mask, replace(volumes[0], array=lesions))
    return float(lesions.sum() * np.prod(volumes[0].spacing_mm))


def require_predictable(images: Sequence[Path], results: Sequence[Path]) -> list[Problem]:
    """Refuse, before minutes of work, images that their headers make useless and results that could not be written.

    Returns
    -------
    list of Problem
        What is to be said of the images before they are predicted.

    Raises
    ------
    CohortError
        With all that is wrong.
    """
    case, problems, taken = _new_case(images), [], {path.resolve() for path in images}
    for path in results:
        if found := _useless_place(path, taken):
            problems.append(Problem(case.name, str(path), *found))
        taken.add(path.resolve())
    if _are_several_patients(images):
        found = f"{len(images)} images whose names differ in a number alone: images of several patients?"
        fix = "predict each patient by a call of its own; name sequences of one patient by what they show (t1c, flair)"
        problems.append(Problem(case.name, ", ".join(map(str, images)), found, "all sequences of one patient", fix))
    try:
        notes = require_sound_headers(case)
    except CohortError as error:
        problems += error.problems
    if problems:
        raise CohortError(problems)
    return notes


def _are_several_patients(images: Sequence[Path]) -> bool:
    """Tell by their names whether images look like one sequence of several patients."""
    paths = [str(path).lower() for path in images]
    # nnU-Net ends the names of a patient's sequences in _0000, _0001
    names = {re.sub(rf"_{i:04}(?=\.nii)", "", path) for i, path in enumerate(paths)}
    without_numbers = {re.sub(r"(?<![a-z])(t[12])(?!\d)|\d+", lambda m: m[1] or "0", path) for path in paths}
    return len(names) > 1 and len(without_numbers) == 1


def _new_case(images: Sequence[Path]) -> Case:
    return Case(images[0].name, tuple(images), None, patient="", primary="")


def _useless_place(path: Path, taken: Collection[Path]) -> tuple[str, str, str] | None:
    """What a result's path is, what was expected and what to do; None where the result can be written."""
    if path.resolve() in taken:
        return "the name of another file given", "a name of its own for each result", "give another name"
    if os.path.isdir(path):  # not of pathlib, which raises for names that are too long
        return "a folder", "a file to write", f"give a file in it, such as {path / 'mask.nii.gz'}"
    if not path.name.endswith((".nii", ".nii.gz")):
        return "another kind of file", "a result ending in .nii or .nii.gz", "give another name"
    try:
        # missing folders are made when the result is written
        with NamedTemporaryFile(dir=next(folder for folder in path.parents if folder.exists()), prefix=path.name):
            pass
    except OSError as error:
        return f"a place where nothing can be written ({error.strerror})", "a file to write", "give another place"
    return None
