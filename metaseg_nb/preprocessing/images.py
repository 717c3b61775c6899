"""The sequences of a case, ready for a network: read, corrected, scaled, cropped and resampled."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from metaseg_nb.cohort.cases import Case
from metaseg_nb.cohort.head import head_mask, reach_of, with_dark_background
from metaseg_nb.cohort.header_checks import require_sound_headers
from metaseg_nb.cohort.nifti_files import open_nifti
from metaseg_nb.cohort.problems import CohortError, Problem
from metaseg_nb.cohort.volumes import Volume, read_voxels
from metaseg_nb.cohort.voxel_checks import image_problems
from metaseg_nb.preprocessing.bias import correct_bias
from metaseg_nb.preprocessing.correction_record import CorrectionRecord, record_correction
from metaseg_nb.preprocessing.grid import Grid, resample, share_covered, study_grid
from metaseg_nb.preprocessing.intensity import scale_intensity
from metaseg_nb.settings import Preprocess

# Raise it when the same settings give other voxels than before: stored cases are then made again.
VERSION = 4
# What changes no voxel, and what changes those of labels alone.
NOT_VOXELS, OF_LABELS = {"study", "workers"}, {"fill_holes", "min_lesion_mm3", "outside_head"}
# The splines of the bias field, and patches in 3D, need a volume and not a slice.
FEWEST_VOXELS = 4
# A voxel of the study grid this full of head is head.
HEAD_SHARE = 0.5


@dataclass(frozen=True)
class PreparedImage:
    """The sequences of a case, ready for a network.

    ``array`` is float32, shape (C, X, Y, Z), on ``grid``, as is ``head`` (bool, of the first
    sequence); ``native`` is the grid of the files; ``corrections`` has one record a sequence.
    """

    array: np.ndarray
    head: np.ndarray
    grid: Grid
    native: Grid
    corrections: list[CorrectionRecord]

    @property
    def reach(self) -> np.ndarray:
        """Where lesions are looked for, `reach_of` the head: bool, shape (X, Y, Z), on ``grid``."""
        return reach_of(self.head, self.grid.spacing_mm)


def image_recipe(settings: Preprocess, sequences: int) -> dict[str, Any]:
    """The settings that decide an image's voxels; a checkpoint carries them to prepare new images alike."""
    return {**settings.model_dump(exclude=NOT_VOXELS | OF_LABELS), "sequences": sequences, "version": VERSION}


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
    shape = volumes[0].array.shape
    if min(shape) < FEWEST_VOXELS:
        found, expected = f"shape {shape}", f"a volume of at least {FEWEST_VOXELS} voxels along each axis"
        problems.append(Problem(case.name, str(case.image), found, expected, "take a series with more slices"))
    if problems:
        raise CohortError(problems)
    return volumes


def prepare_image(volumes: Sequence[Volume], recipe: Mapping[str, Any]) -> PreparedImage:
    """Correct, scale, crop and resample the sequences of a case.

    Each is corrected and scaled by itself; the head of the first decides what is cropped.

    Parameters
    ----------
    volumes : sequence of Volume
        From `read_images`.
    recipe : mapping
        From `image_recipe`.

    Raises
    ------
    ValueError
        Another number of sequences than the recipe's, or one without contrast.
    """
    if len(volumes) != recipe["sequences"]:
        raise ValueError(f"{len(volumes)} image(s) given; expected {recipe['sequences']}: one a sequence, in order")
    native = Grid(volumes[0].spacing_mm, volumes[0].array.shape)
    scaled, corrections, first_head = [], [], None
    for read in volumes:
        volume = replace(read, array=with_dark_background(read.array))
        corrected = correct_bias(
            volume, recipe["bias_correction"], recipe["n4_levels"], recipe["n4_iterations"], recipe["n4_fit_spacing_mm"]
        )
        head = head_mask(corrected)
        scaled.append(scale_intensity(corrected, head, recipe["intensity_scaling"], recipe["intensity_percentiles"]))
        corrections.append(record_correction(volume, corrected, scaled[-1], head))
        first_head = head if first_head is None else first_head
    grid = study_grid(first_head, native, recipe["spacing_mm"])
    # smoothing and splines swing a little beyond the range
    array = [resample(s, native, grid, recipe["interpolation"]).clip(s.min(), s.max()) for s in scaled]
    share = share_covered(first_head if first_head.any() else np.ones_like(first_head), native, grid)
    # the fullest voxels of a head that is smaller than a voxel of the study grid: patches need a place
    return PreparedImage(np.stack(array), share >= min(HEAD_SHARE, share.max()), grid, native, corrections)
