"""Predict new images with trained networks, of one case or of many."""

import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import nibabel as nib
import numpy as np
import torch

from metaseg_nb.cohort.cases import Case
from metaseg_nb.cohort.checks import require_sound_headers
from metaseg_nb.cohort.problems import CohortError, Problem, numbered, of_each, shortened
from metaseg_nb.cohort.sources.lists import read_lists
from metaseg_nb.cohort.sources.one_patient import repeated_files
from metaseg_nb.cohort.sources.spelling import SUFFIXES, stem
from metaseg_nb.cohort.volumes import write_volume
from metaseg_nb.inference.decision import native_mask, native_probability
from metaseg_nb.inference.ensemble import Ensemble, load_ensemble
from metaseg_nb.layout import home
from metaseg_nb.machine import device
from metaseg_nb.preprocessing.brain import FILE, bright_rim_mm3
from metaseg_nb.preprocessing.steps import (
    find_brain,
    in_full,
    missing_scans,
    naming,
    prepare_image,
    read_images,
    require_sequences,
)

# Given in place of a missing sequence.
NOT_THERE = Path("-")
# In the header of each result, before the checksum of its voxels: by it a mask that a person has corrected is known.
RESULT_NOTE = "metaseg_nb: predicted lesions, research use only"


def predict(
    checkpoint: Path, images: Sequence[Path], output: Path, probability: Path | None, brain: Path | None = None
) -> Iterator[str]:
    """Predict case by case; yields a line about each.

    Parameters
    ----------
    checkpoint : path
        As `load_ensemble` takes it.
    images : sequence of path
        All sequences of one case; or a folder, in which each NIfTI file is a case; or a datalist (JSON), whose cases
        without a mask are predicted.
    output, probability : path
        File to write; of a folder or a datalist, folder for ``<case>.nii.gz``.
    brain : path, optional
        Mask of the brain of one case, for networks of ``brain: file``; a datalist names those of its cases.

    Paths that begin with ``runs/`` are in METASEG_HOME, as all that a study makes.

    Raises
    ------
    CohortError, ValueError, FileNotFoundError
        Before any case is predicted: networks that cannot be used, another number of sequences than theirs, or the name
        of a file for several cases.
    CohortError
        After all other cases are predicted: with all that is wrong with the images or results of each case left out.
    """
    checkpoint, output, *images = (_placed(path) for path in (checkpoint, output, *images))
    wanted = [output] if probability is None else [output, _placed(probability)]
    for problem in _below(images[0], wanted) if len(images) == 1 else []:
        print(f"{problem.severity}: {problem}", file=sys.stderr)
    cases = _cases(images, brain and _placed(brain))
    for folder in wanted if "" not in cases else []:
        if folder.resolve() == images[0].resolve():
            raise ValueError(f"{folder}: found the folder of the images; expected another one for the results")
        if folder.name.lower().endswith((*SUFFIXES, ".dcm")):
            found = f"{folder}: found the name of a file; expected a folder for several cases"
            raise ValueError(f"{found}. What to do: give a folder, such as {folder.with_name('masks')}.")
    work: list[tuple[Case, list[Path]]] = []
    problems: list[Problem] = []
    for name, case in cases.items():
        results = [folder / f"{name}.nii.gz" for folder in wanted] if name else wanted
        with _gathered(problems):
            for problem in require_predictable(case, results):
                print(f"{problem.severity}: {problem}", file=sys.stderr)
            work.append((case, results))
    if not work:
        raise _unpredicted(images[0], problems, 0, len(cases))
    networks = load_ensemble(checkpoint, device())
    try:
        work = of_each(lambda one: (_as_learned(one[0], networks.recipe), one[1]), work)
    except CohortError as error:
        raise _unpredicted(images[0], [*problems, *error.problems], 0, len(cases)) from None
    if brain and (by := in_full(networks.recipe)["brain"]) != FILE:
        raise ValueError(f"found --brain, but these networks were trained with `brain: {by}`; leave it out")
    n = 0
    for case, results in work:
        with _gathered(problems):
            yield _predicted(networks, case, results)
            n += 1
    if problems:
        raise _unpredicted(images[0], problems, n, len(cases))


def _predicted(networks: Ensemble, case: Case, results: Sequence[Path]) -> str:
    volume_mm3, unlike, rim_mm3 = predict_image(networks, case, device(), *results)
    scans = missing_scans(case.lacking, networks.recipe)
    lacked = f", without {numbered(scans)}," if scans else ""
    found = f"{volume_mm3:.0f} mm³ predicted as lesion{lacked} by {networks}"
    rim = f"; {rim_mm3:.0f} mm³ of bright tissue cross the brain's rim: a lesion may be cut" if rim_mm3 > 0 else ""
    return f"{results[0]}: {found}{likeness_in_words(unlike)}{rim}"


@contextmanager
def _gathered(problems: list[Problem]) -> Iterator[None]:
    """Keep the problems of a case that cannot be predicted, and go on with the next."""
    try:
        yield
    except CohortError as error:
        problems += error.problems


def _unpredicted(source: Path, problems: Sequence[Problem], n: int, of: int) -> CohortError:
    """The error of all cases that were left out; of several cases it begins with how many were predicted."""
    fix = "correct what is said of the others; then predict again"
    count = [Problem("-", str(source), f"{n} of {of} cases predicted", "all of them", fix)] if of > 1 else []
    return CohortError([*count, *problems])


def _placed(path: Path) -> Path:
    return home() / path if path.parts[:1] == ("runs",) else path


def _volumes(paths: Iterable[Path]) -> list[Path]:
    """NIfTI files by their names, sorted; hidden files belong to other programs."""
    return sorted(path for path in paths if path.name.lower().endswith(SUFFIXES) and not path.name.startswith("."))


def _below(folder: Path, results: Sequence[Path]) -> Iterator[Problem]:
    """A warning of images in subfolders of a folder that is predicted; results of an earlier call are none."""
    top, own = folder.resolve(), {path.resolve() for path in results}
    if files := [path for path in _volumes(top.glob("*/**/*")) if not own & {*path.parents}]:
        found = f"not looked at: {shortened(str(path.relative_to(top)) for path in files)}"
        fix = "predict each subfolder by a call of its own, or give a datalist of all cases"
        yield Problem("-", str(folder), found, "all images in the folder itself", fix, "warning")


def _cases(images: Sequence[Path], brain: Path | None) -> Mapping[str, Case]:
    """Cases by the name of their results, which is empty where all images are of one case."""
    first = images[0]
    files = _volumes(first.glob("*")) if first.is_dir() else []
    if len(images) > 1 or not (files or first.suffix == ".json"):
        return {"": new_case(images, brain)}
    if brain:
        raise ValueError("found --brain with several cases; expected a datalist whose entries name their `brain`")
    if files:
        paths = {stem(path.name): path for path in files}
        if len(paths) < len(files):
            names = ", ".join(path.name for path in files if path not in paths.values())
            raise ValueError(f"folder {first}: found {names} with two endings; expected one file per case")
        return {name: new_case([path]) for name, path in paths.items()}
    cohort, problems = read_lists([first])
    if errors := [problem for problem in problems if problem.severity == "error"]:
        raise CohortError(errors)
    if not cohort.unlabelled:
        raise ValueError(f'{first}: found no case without a mask; list the cases to predict as "testing"')
    return {case.name: case for case in cohort.unlabelled}


def predict_image(
    ensemble: Ensemble, case: Case, device: torch.device, mask: Path, probability: Path | None = None
) -> tuple[float, float, float]:
    """Predict any case with trained networks, prepared as their training images were.

    Parameters
    ----------
    ensemble : Ensemble
        From `load_ensemble`; its ``decision`` applies.
    case : Case
        Its sequences in the order of the training; see `new_case`.
    device : torch.device
    mask : path
        Written: uint8, 0 or 1, on the image's grid.
    probability : path, optional
        Written: float32, mean of the networks' lesion probabilities, on the image's grid; see `native_probability`.

    Returns
    -------
    volume_mm3 : float
        Of what is predicted as lesion.
    unlikeness : float
        `Ensemble.unlikeness`.
    rim_mm3 : float
        `bright_rim_mm3` of the brain that was extracted or given; 0 where the whole head is kept.

    Raises
    ------
    CohortError, ValueError
        An image that cannot be used, another number of them than the networks were trained with, or a result
        that would not be NIfTI or would take the place of another file given.
    """
    require_predictable(case, [mask] if probability is None else [mask, probability])
    case = _as_learned(case, ensemble.recipe)
    volumes = read_images(case)
    first = volumes[0]
    with naming(case):
        brain = find_brain(case, first, ensemble.recipe)
        prepared = prepare_image(volumes, ensemble.recipe, brain, lacking=case.lacking)
    predicted = ensemble.probability(prepared.array, prepared.reach, device)
    lesions = native_mask(predicted, prepared.grid, prepared.native, ensemble.decision)
    if probability is not None:
        on_image = native_probability(predicted, prepared.grid, prepared.native)
        write_volume(probability, replace(first, array=on_image), _note_of(on_image))
    write_volume(mask, replace(first, array=lesions), _note_of(lesions))
    volume_mm3 = float(lesions.sum() * np.prod(first.spacing_mm))
    rim_mm3 = 0.0 if brain is None else bright_rim_mm3(first.array, brain, first.spacing_mm)
    return volume_mm3, ensemble.unlikeness(prepared.array, prepared.reach), rim_mm3


def _as_learned(case: Case, recipe: Mapping[str, Any]) -> Case:
    """The case if it has the sequences of the training; for networks that know earlier masks, without one."""
    last = recipe["sequences"]
    if in_full(recipe)["earlier_mask"] and last not in case.lacking:
        if case.sequences != last - 1:
            fix = "give the sequences of one patient, in the order of the training; an earlier mask cannot be given"
            found, expected = f"{case.sequences} image(s)", f"{last - 1}, as in training"
            raise CohortError.one(case.name, case.image, found, expected, fix)
        case = replace(case, lacking=(*case.lacking, last))
    require_sequences([case], recipe)
    return case


def likeness_in_words(unlike: float) -> str:
    """How far an image lies from the training cases, as the end of a line; empty where it is not known."""
    if np.isnan(unlike):
        return ""
    look = ". The image is unlike those that the network learned from: look at this mask with care"
    known = f"distance from the training cases {unlike:.2f} (1: the farthest of the selection set)"
    return f"; {known}{look if unlike > 1 else ''}"


def require_predictable(case: Case, results: Sequence[Path]) -> list[Problem]:
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
    problems, taken = [*repeated_files([case])], {path.resolve() for path in case.files}
    for path in results:
        if found := _useless_place(path, taken):
            problems.append(Problem(case.name, str(path), *found))
        taken.add(path.resolve())
    if _are_several_patients(case.images):
        found = f"{len(case.images)} images whose names differ only in a number, as images of several patients do"
        fix = "predict each patient separately, or a folder of all; name sequences of one patient as t1c, flair ..."
        files = ", ".join(map(str, case.images))
        problems.append(Problem(case.name, files, found, "all sequences of one patient", fix))
    try:
        notes = require_sound_headers(case)
    except CohortError as error:
        problems += error.problems
    if problems:
        raise CohortError(problems)
    return notes


def _is_prediction(path: Path) -> bool:
    with suppress(Exception):  # of many kinds: any file may be there
        image: Any = nib.as_closest_canonical(nib.load(path))
        return image.header["descrip"] == _note_of(np.asarray(image.dataobj)).encode()
    return False


def _note_of(array: np.ndarray) -> str:
    return f"{RESULT_NOTE} {sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:16]}"


def _are_several_patients(images: Sequence[Path]) -> bool:
    """Tell by their names whether images look like one sequence of several patients."""
    paths = [str(path).lower() for path in images]
    # nnU-Net ends the names of a patient's sequences in _0000, _0001
    names = {re.sub(rf"_{i:04}(?=\.nii)", "", path) for i, path in enumerate(paths)}
    without_numbers = {re.sub(r"(?<![a-z])(t[12])(?!\d)|\d+", lambda m: m[1] or "0", path) for path in paths}
    return len(names) > 1 and len(without_numbers) == 1


def new_case(images: Sequence[Path], brain: Path | None = None) -> Case:
    """A case to predict, called as its first image; one image a sequence, contrast-enhanced T1 first, `-` for none."""
    given = [path for path in images if path != NOT_THERE]
    lacking = tuple(number for number, path in enumerate(images, 1) if path == NOT_THERE)
    if images[0] == NOT_THERE:
        raise ValueError("found `-` in place of the first image; expected the contrast-enhanced T1")
    return Case(images[0].name, tuple(given), None, patient="", primary="", brain=brain, lacking=lacking)


def _useless_place(path: Path, taken: set[Path]) -> tuple[str, str, str] | None:
    """What a result's path is, what was expected and what to do; None where the result can be written."""
    if path.resolve() in taken:
        return "the name of another given file", "a name of its own for each result", "give another name"
    if os.path.isdir(path):  # not of pathlib, which raises for names that are too long
        return "a folder", "a file to write", f"give a file in it, such as {path / 'mask.nii.gz'}"
    if not path.name.endswith(SUFFIXES) or not stem(path.name):
        expected = "a result ending in .nii or .nii.gz; for a folder with a DICOM series also .dcm"
        return "another kind of file", expected, f"give a name such as {path.with_name('mask.nii.gz')}"
    if os.path.exists(path) and not _is_prediction(path):
        fix = "give another name, or remove it if it is a result of an earlier version: it is not replaced"
        return "a file that `predict` did not write, or that was changed since", "a new file", fix
    try:
        # missing folders are made when the result is written
        with NamedTemporaryFile(dir=next(folder for folder in path.parents if folder.exists()), prefix=path.name):
            pass
    except OSError as error:
        return f"a place that is not writable ({error.strerror})", "a file to write", "give another folder"
    return None
