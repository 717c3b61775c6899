"""The steps of preparing an image and its mask.

An image is read, corrected, scaled, cropped and resampled; sequences are registered. A mask is cleaned: values are
merged, holes filled, specks removed. A recipe is the settings that decide the voxels of an image, and of its mask;
cases of one recipe are alike.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import cc3d
import numpy as np
from scipy import ndimage

from metaseg_nb.cohort.cases import Case, LesionRule
from metaseg_nb.cohort.checks import image_problems, require_sound_headers
from metaseg_nb.cohort.head import Head, head_mask, reach_of, with_dark_background
from metaseg_nb.cohort.lesions import box_around, find_lesions, label_lesions, outside_lesions
from metaseg_nb.cohort.nifti_files import open_nifti
from metaseg_nb.cohort.problems import CohortError, Problem, numbered
from metaseg_nb.cohort.volumes import Volume, lesion_mask, read_voxels, same_grid
from metaseg_nb.preprocessing.bias import correct_bias
from metaseg_nb.preprocessing.brain import KEEP, brain_of, read_brain, with_margin
from metaseg_nb.preprocessing.grid import Grid, resample, share_covered, study_grid
from metaseg_nb.preprocessing.intensity import scale_intensity
from metaseg_nb.preprocessing.registration import Registration, along_axes, register_volume
from metaseg_nb.preprocessing.stored_case import CorrectionRecord, record_correction
from metaseg_nb.settings import Preprocess

# Raise it when the same settings give other voxels than before: stored cases are then made again. The second is that
# of cases whose brain is extracted.
VERSION, BRAIN_VERSION = 4, 5
# What changes no voxel, and what changes those of labels alone.
NOT_VOXELS, OF_LABELS = {"study", "workers"}, {"fill_holes", "min_lesion_mm3", "outside_head"}
# What a recipe that does not say so means: cases and networks of before these settings existed stay what they are.
LEFT_OUT = {"brain": KEEP, "register_sequences": "other_grids", "missing": "refuse", "earlier_mask": False}
# How the message of a sequence that cannot be registered begins.
NOT_REGISTERED = "not registered to the first sequence"
# A voxel of the study grid this full of head is head.
HEAD_SHARE = 0.5


@dataclass(frozen=True)
class PreparedImage:
    """The sequences of a case, ready for a network.

    ``array`` is float32, shape (C, X, Y, Z), on ``grid``, as is ``head`` (bool, of the first sequence; the brain where
    it was extracted); ``first`` is the first sequence as it was read. ``corrections`` has one record a sequence, and
    ``registrations`` one each, None for a sequence on the grid of the first.
    """

    array: np.ndarray
    head: np.ndarray
    grid: Grid
    first: Volume
    corrections: list[CorrectionRecord]
    registrations: list[Registration | None] = field(default_factory=list)

    @property
    def native(self) -> Grid:
        """The grid of the files."""
        return Grid(self.first.spacing_mm, self.first.array.shape)

    @property
    def reach(self) -> np.ndarray:
        """Where lesions are looked for, `reach_of` the head: bool, shape (X, Y, Z), on ``grid``."""
        return reach_of(self.head, self.grid.spacing_mm)


def image_recipe(settings: Preprocess, sequences: int) -> dict[str, Any]:
    """The settings that decide an image's voxels; a checkpoint carries them to prepare new images alike."""
    unused = {"brain_margin_mm"} if settings.brain == KEEP else set()
    unused |= {"register_sequences", "missing"} if sequences == 1 else set()
    recipe = settings.model_dump(exclude=NOT_VOXELS | OF_LABELS | unused)
    recipe = {key: value for key, value in recipe.items() if LEFT_OUT.get(key) != value}
    return {**recipe, "sequences": sequences, "version": VERSION if settings.brain == KEEP else BRAIN_VERSION}


def label_recipe(settings: Preprocess, rule: LesionRule) -> dict[str, Any]:
    """The settings that decide a label's voxels."""
    return {**settings.model_dump(include=OF_LABELS), "lesions": rule.as_json()}


def in_full(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe with what it leaves out."""
    return {**LEFT_OUT, **recipe}


def require_sequences(cases: Iterable[Case], recipe: Mapping[str, Any]) -> None:
    """Raise `CohortError` with all cases that have another number of sequences than a recipe, or miss one it needs."""
    n, problems = recipe["sequences"], []
    for case in cases:
        problem = partial(Problem, case.name, str(case.image))
        if case.sequences != n:
            fix = "give the sequences of one patient, in the order of the training, `-` for a missing one; "
            fix += "predict each patient separately"
            problems.append(problem(f"{case.sequences} sequence(s)", f"{n}, as in training", fix))
        elif (scans := missing_scans(case.lacking, recipe)) and in_full(recipe)["missing"] == "refuse":
            found, expected = f"no {numbered(scans)}", f"all {n}, because of `missing: refuse`"
            problems.append(problem(found, expected, "give it, or use networks trained with `missing: zero`"))
    if problems:
        raise CohortError(problems)


def missing_scans(lacking: Iterable[int], recipe: Mapping[str, Any]) -> list[int]:
    """Missing sequences but for the earlier mask, which is the last one and may always be missing."""
    last = recipe["sequences"] if in_full(recipe)["earlier_mask"] else 0
    return [number for number in lacking if number != last]


def read_images(case: Case) -> list[Volume]:
    """Read the sequences of a case.

    Raises
    ------
    CohortError
        With all that makes them useless: unreadable, another grid, impossible header, too few
        slices, NaN, no contrast, int16 overflow.
    """
    require_sound_headers(case)
    volumes, problems = [], []
    for path in case.images:
        volumes.append(read_voxels(open_nifti(path, case.name)))
        found = image_problems(case, str(path), volumes[-1].array)
        problems += [problem for problem in found if problem.severity == "error"]
    if problems:
        raise CohortError(problems)
    return volumes


@contextmanager
def naming(case: Case) -> Iterator[None]:
    """Say in an error of what is done to a case's images which case it is."""
    try:
        yield
    except CohortError:
        raise
    except ValueError as error:
        fix = "look at its images: are all of this head? Export them again, or leave the case out"
        if NOT_REGISTERED in str(error):
            fix += "; or leave out this sequence (`null` in a list, `-` for `predict`), with `missing: zero`"
        raise CohortError.one(case.name, case.image, str(error), "images of a head", fix) from error


def find_brain(case: Case, volume: Volume, recipe: Mapping[str, Any], kept: Path | None = None) -> np.ndarray | None:
    """Find the brain of a case in its first image as a recipe says, with its margin; None: all of it is kept.

    ``kept`` is the mask that `brain_file` kept of a case that is stored.

    Raises
    ------
    CohortError, ValueError
        See `brain_of` and `read_brain`.
    """
    if in_full(recipe)["brain"] == KEEP:
        return None
    brain = read_brain(kept, case.name, volume) if kept else brain_of(case, volume, recipe["brain"])
    return with_margin(brain, volume.spacing_mm, recipe["brain_margin_mm"])


def prepare_image(
    volumes: Sequence[Volume],
    recipe: Mapping[str, Any],
    brain: np.ndarray | None = None,
    beyond: np.ndarray | None = None,
    lacking: Sequence[int] = (),
) -> PreparedImage:
    """Correct, scale, crop and resample the sequences of a case.

    Each is corrected and scaled by itself; the head of the first decides what is cropped, also where the brain is
    extracted. A sequence on another grid is registered to the first. The channel of a missing sequence is 0.

    Parameters
    ----------
    volumes : sequence of Volume
        From `read_images`, of a case that has what `require_sequences` asks for.
    recipe : mapping
        From `image_recipe`.
    brain : ndarray of bool, optional
        On the grid of the first sequence, from `find_brain`: all else becomes background.
    beyond : ndarray of bool, optional
        Of the brain's shape: stays too, but decides neither intensities nor grid.
    lacking : sequence of int
        Numbers of sequences, from 1, that the case does not have.

    Raises
    ------
    ValueError
        A sequence without contrast, or one that cannot be registered.
    """
    numbers = [number for number in range(1, len(volumes) + len(lacking) + 1) if number not in lacking]
    sequences = [replace(volume, array=with_dark_background(volume.array)) for volume in volumes]
    first, every = sequences[0], in_full(recipe)["register_sequences"] == "all"
    native = Grid(first.spacing_mm, first.array.shape)
    scaled, heads, corrections, registrations = [], [], [], []
    for number, volume in zip(numbers, sequences, strict=True):
        apart = number > 1 and (every or not same_grid(first, volume))
        registration = _registered(first, volume, number) if apart else None
        # from where a point lies along the axes of the first sequence to where it lies along those of this one
        place = registration and along_axes(registration.matrix, first, volume)
        own = Grid(volume.spacing_mm, volume.array.shape)
        own_brain, own_beyond = (_onto(mask, native, own, place) for mask in (brain, beyond))
        if own_brain is not None and not own_brain.any():
            raise ValueError(f"sequence {number} shows nothing of the brain")
        image, head, correction = _corrected_and_scaled(volume, recipe, own_brain, own_beyond)
        scaled.append((image, own, place))
        heads.append(head)
        corrections.append(correction)
        registrations.append(registration)
    head = heads[0]
    # what a brain mask leaves out of a lesion has its place too; a grid made by the reference would show where it is
    whole = head if brain is None else brain | head_mask(first.array)
    grid = study_grid(whole, native, recipe["spacing_mm"])
    array = np.zeros((recipe["sequences"], *grid.shape), np.float32)
    for number, (image, own, place) in zip(numbers, scaled, strict=True):
        resampled = resample(image, own, grid, recipe["interpolation"], place)
        # smoothing and splines swing a little beyond the range
        array[number - 1] = resampled.clip(image.min(), image.max())
    share = share_covered(head if head.any() else np.ones_like(head), native, grid)
    # the fullest voxels of a head that is smaller than a voxel of the study grid: patches need a place
    full = share >= min(HEAD_SHARE, share.max())
    return PreparedImage(array, full, grid, volumes[0], corrections, registrations)


def _onto(mask: np.ndarray | None, first: Grid, own: Grid, place: np.ndarray | None) -> np.ndarray | None:
    """A mask of the first sequence, on the grid of another that lies at ``place``."""
    if mask is None or place is None:
        return mask
    return resample(mask, first, own, "nearest", np.linalg.inv(place)) > 0


def _corrected_and_scaled(
    volume: Volume, recipe: Mapping[str, Any], brain: np.ndarray | None, beyond: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, CorrectionRecord]:
    """One sequence on its own grid, its head (the brain where one is given), and what is kept of the correction."""
    by, levels, iterations = recipe["bias_correction"], recipe["n4_levels"], recipe["n4_iterations"]
    corrected = correct_bias(volume, by, levels, iterations, recipe["n4_fit_spacing_mm"], brain)
    head = head_mask(corrected) if brain is None else brain
    scaled = scale_intensity(corrected, head, recipe["intensity_scaling"], recipe["intensity_percentiles"])
    correction = record_correction(volume, corrected, scaled, head)
    if brain is None:
        return scaled, head, correction
    kept = brain if beyond is None else brain | beyond
    return np.where(kept, scaled, scaled[brain].min()), head, correction


def _registered(first: Volume, other: Volume, number: int) -> Registration:
    try:
        registration = register_volume(first, other)
        if registration.failure:
            raise ValueError(registration.failure)
        return registration
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"{NOT_REGISTERED} (sequence {number}): {error}") from error


def clean_label(
    label: Volume, rule: LesionRule, head: Head | None, settings: Mapping[str, Any]
) -> tuple[np.ndarray, dict[str, int]]:
    """Merge or threshold the values of a label, then fill holes, remove specks and judge what lies outside the head.

    Each rule counts what it changed. By default the physician's mask stays as it is: values are merged or thresholded
    as the study states, and lesions outside the head are reported, not removed. Files are never changed, and
    predictions are scored against the mask as it was drawn: a rule that cleans what networks learn from must not make
    their scores look better.

    Parameters
    ----------
    label : Volume
        The values of a label file, from `read_values`.
    rule : LesionRule
    head : Head or None
        Of the image on the same grid; None where it shows none, and then nothing lies outside.
    settings : mapping
        ``fill_holes`` (bool), ``min_lesion_mm3`` (0: all are kept), ``outside_head`` ("flag" or "drop").

    Returns
    -------
    mask : ndarray of bool, shape (X, Y, Z)
    counts : dict
        ``lesion_values`` (different ones merged to one), ``other_voxels`` (declared as something
        else, now background), ``grey_voxels`` (between the darkest and the brightest value, decided by the
        threshold), ``filled_voxels``, ``specks`` (removed) and ``outside_lesions`` (outside the head, dropped or not).
    """
    array, mask, is_grey = label.array, lesion_mask(label.array, rule), rule.threshold > 0
    filled = ndimage.binary_fill_holes(mask) if settings["fill_holes"] else mask
    kept = remove_specks(filled, label.spacing_mm, settings["min_lesion_mm3"])
    lesions = find_lesions(kept, label.spacing_mm)
    outside = outside_lesions(lesions, head) if head else []
    counts = {
        "lesion_values": 1 if is_grey else len(np.unique(np.rint(array[mask]))),
        "other_voxels": 0 if is_grey else int((np.rint(array) != 0).sum() - mask.sum()),
        "grey_voxels": int(((array > array.min()) & (array < array.max())).sum()) if is_grey else 0,
        "filled_voxels": int(filled.sum() - mask.sum()),
        "specks": label_lesions(filled)[1] - lesions.n,
        "outside_lesions": len(outside),
    }
    if settings["outside_head"] == "drop":  # whole lesions, never parts: one at the brain's rim must not be cut
        kept &= ~np.isin(lesions.labels, outside)
    return kept, counts


def remove_specks(mask: np.ndarray, spacing_mm: tuple[float, float, float], min_lesion_mm3: float) -> np.ndarray:
    """Remove lesions smaller than ``min_lesion_mm3`` from a mask of bool."""
    smallest, kept = min_lesion_mm3 / float(np.prod(spacing_mm)), mask.copy()
    box = box_around(mask, 0, spacing_mm)  # most of the grid is empty
    kept[box] = cc3d.dust(mask[box].astype(np.uint8), smallest, connectivity=26)
    return kept
