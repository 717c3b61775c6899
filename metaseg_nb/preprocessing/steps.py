"""The steps of preparing an image: it is read, corrected, scaled, cropped and resampled; sequences are registered."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from metaseg_nb.cohort.cases import Case
from metaseg_nb.cohort.checks import image_problems, require_sound_headers
from metaseg_nb.cohort.head import head_mask, reach_of, with_dark_background
from metaseg_nb.cohort.nifti_files import open_nifti
from metaseg_nb.cohort.problems import CohortError, Problem
from metaseg_nb.cohort.volumes import Volume, read_voxels, same_grid
from metaseg_nb.preprocessing.bias import correct_bias
from metaseg_nb.preprocessing.brain import KEEP, brain_of, with_margin
from metaseg_nb.preprocessing.grid import Grid, resample, share_covered, study_grid
from metaseg_nb.preprocessing.recipe import in_full
from metaseg_nb.preprocessing.registration import Registration, along_axes, register
from metaseg_nb.preprocessing.stored_case import CorrectionRecord, record_correction

# How the message of a sequence that cannot be registered begins.
NOT_REGISTERED = "not registered to the first sequence"
# Between which values a scaled image is shown; z-scores have no bounds of their own.
RANGES = {"percentiles": (0.0, 1.0), "nyul": (0.0, 1.0), "min_max": (0.0, 1.0), "z_score": (-2.0, 8.0)}
BY_PERCENTILES = ("percentiles", "nyul")
# The splines of the bias field, and patches in 3D, need a volume and not a slice.
FEWEST_VOXELS = 4
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
        if min(shape := volumes[-1].array.shape) < FEWEST_VOXELS:
            found, expected = f"shape {shape}", f"a volume of at least {FEWEST_VOXELS} voxels along each axis"
            problems.append(Problem(case.name, str(path), found, expected, "use a series with more slices"))
    if problems:
        raise CohortError(problems)
    return volumes


@contextmanager
def named(case: Case) -> Iterator[None]:
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


def find_brain(case: Case, volume: Volume, recipe: Mapping[str, Any]) -> np.ndarray | None:
    """Find the brain of a new case in its first image as a recipe says, with its margin; None: all of it is kept.

    Raises
    ------
    CohortError, ValueError
        See `brain_of`.
    """
    if in_full(recipe)["brain"] == KEEP:
        return None
    return with_margin(brain_of(case, volume, recipe["brain"]), volume.spacing_mm, recipe["brain_margin_mm"])


def prepare_image(
    volumes: Sequence[Volume],
    recipe: Mapping[str, Any],
    brain: np.ndarray | None = None,
    beyond: np.ndarray | None = None,
    lacking: Sequence[int] = (),
) -> PreparedImage:
    """Correct, scale, crop and resample the sequences of a case.

    Each is corrected and scaled by itself; the head of the first decides what is cropped. A sequence on another grid is
    registered to the first. The channel of a missing sequence is 0.

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
    first, grids = sequences[0], [Grid(volume.spacing_mm, volume.array.shape) for volume in volumes]
    every = in_full(recipe)["register_sequences"] == "all"
    registrations = [
        _registered(first, other, i) if i > 1 and (every or not same_grid(first, other)) else None
        for i, other in zip(numbers, sequences, strict=True)
    ]
    # from where a point lies along the axes of the first sequence to where it lies along those of the other
    places = [
        registration and along_axes(registration.matrix, first, other)
        for registration, other in zip(registrations, sequences, strict=True)
    ]
    scaled, heads, corrections = [], [], []
    for i, volume, own_grid, place in zip(numbers, sequences, grids, places, strict=True):
        own_brain, own_beyond = (_onto(mask, grids[0], own_grid, place) for mask in (brain, beyond))
        if own_brain is not None and not own_brain.any():
            raise ValueError(f"sequence {i} shows nothing of the brain")
        image, head, correction = _corrected_and_scaled(volume, recipe, own_brain, own_beyond)
        scaled.append(image)
        heads.append(head)
        corrections.append(correction)
    grid = study_grid(heads[0], grids[0], recipe["spacing_mm"])
    array = np.zeros((recipe["sequences"], *grid.shape), np.float32)
    for i, image, own_grid, place in zip(numbers, scaled, grids, places, strict=True):
        resampled = resample(image, own_grid, grid, recipe["interpolation"], place)
        # smoothing and splines swing a little beyond the range
        array[i - 1] = resampled.clip(image.min(), image.max())
    share = share_covered(heads[0] if heads[0].any() else np.ones_like(heads[0]), grids[0], grid)
    # the fullest voxels of a head that is smaller than a voxel of the study grid: patches need a place
    head = share >= min(HEAD_SHARE, share.max())
    return PreparedImage(array, head, grid, volumes[0], corrections, registrations)


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
        registration = register(first, other)
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"{NOT_REGISTERED} (sequence {number}): {error}") from error
    if registration.failure:
        raise ValueError(f"{NOT_REGISTERED} (sequence {number}): {registration.failure}")
    return registration


def scale_intensity(
    array: np.ndarray, head: np.ndarray, scaling: str, percentiles: Sequence[float] = (0.5, 99.5)
) -> np.ndarray:
    """Scale an image so that it does not depend on the scanner.

    Parameters
    ----------
    array : ndarray, shape (X, Y, Z)
    head : ndarray of bool, shape (X, Y, Z)
        Voxels whose intensities count; all of them when empty.
    scaling : str
        "percentiles": those of the head become 0 and 1, what lies beyond is clipped, so that no hot
        voxel darkens the rest. "nyul": the same, and each fold maps the result by its own landmarks (`landmarks`).
        "min_max": the lowest and highest value of the volume become 0 and 1.
        "z_score": the head gets mean 0 and standard deviation 1; nothing is clipped.
    percentiles : sequence of 2 floats
        Of "percentiles" and "nyul".

    Returns
    -------
    ndarray of float32, shape (X, Y, Z)

    Raises
    ------
    ValueError
        The image has no contrast on that scale.
    """
    inside = array[head] if head.any() else array
    if scaling == "z_score":
        low, width = inside.mean(dtype=np.float64), inside.std(dtype=np.float64)
    else:
        low, high = np.percentile(inside, percentiles) if scaling in BY_PERCENTILES else (array.min(), array.max())
        width = high - low
    if not width > 0:
        raise ValueError(f"the lowest and the highest intensity to scale are both {low:g}: the image has no contrast")
    scaled = (array - low) / width
    return (scaled if scaling == "z_score" else scaled.clip(0, 1)).astype(np.float32)


def intensity_range(recipe: Mapping[str, Any]) -> tuple[float, float]:
    """Lowest and highest intensity to look at in images that were prepared by a recipe."""
    return RANGES[recipe["intensity_scaling"]]
