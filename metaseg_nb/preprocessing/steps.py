"""The steps of preparing a case: images are read, corrected, scaled, cropped and resampled, labels are cleaned.

Each rule of cleaning counts what it changed. By default the physician's mask stays as it is: values are merged
or thresholded as the study states, and lesions outside the head are reported, not removed. Files are
never changed, and predictions are scored against the mask as it was drawn: a rule that cleans what
networks learn from must not make their scores look better.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import ndimage

from metaseg_nb.cohort.cases import Case, LesionRule
from metaseg_nb.cohort.head import Head, head_mask, reach_of, with_dark_background
from metaseg_nb.cohort.header_checks import require_sound_headers
from metaseg_nb.cohort.lesions import Lesions, find_lesions, outside_lesions
from metaseg_nb.cohort.nifti_files import open_nifti
from metaseg_nb.cohort.problems import CohortError, Problem
from metaseg_nb.cohort.volumes import Volume, lesion_mask, read_voxels
from metaseg_nb.cohort.voxel_checks import image_problems
from metaseg_nb.preprocessing.bias import correct_bias
from metaseg_nb.preprocessing.grid import Grid, resample, share_covered, study_grid
from metaseg_nb.preprocessing.stored_case import CorrectionRecord, record_correction
from metaseg_nb.settings import Preprocess

# Raise it when the same settings give other voxels than before: stored cases are then made again.
VERSION = 4
# What changes no voxel, and what changes those of labels alone.
NOT_VOXELS, OF_LABELS = {"study", "workers"}, {"fill_holes", "min_lesion_mm3", "outside_head"}
# Between which values a scaled image is shown; z-scores have no bounds of their own.
RANGES = {"percentiles": (0.0, 1.0), "min_max": (0.0, 1.0), "z_score": (-2.0, 8.0)}
# The splines of the bias field, and patches in 3D, need a volume and not a slice.
FEWEST_VOXELS = 4
# A voxel of the study grid this full of head is head.
HEAD_SHARE = 0.5


@dataclass(frozen=True)
class PreparedImage:
    """The sequences of a case, ready for a network.

    ``array`` is float32, shape (C, X, Y, Z), on ``grid``, as is ``head`` (bool, of the first
    sequence); ``first`` is the first sequence as it was read; ``corrections`` has one record a sequence.
    """

    array: np.ndarray
    head: np.ndarray
    grid: Grid
    first: Volume
    corrections: list[CorrectionRecord]

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
        problems.append(Problem(case.name, str(case.image), found, expected, "use a series with more slices"))
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
        raise ValueError(f"{len(volumes)} image(s) given; expected {recipe['sequences']}: one per sequence, in order")
    how = (recipe[name] for name in ("bias_correction", "n4_levels", "n4_iterations", "n4_fit_spacing_mm"))
    by, levels, iterations, fit_spacing_mm = how
    scaled, heads, corrections = [], [], []
    for read in volumes:
        volume = replace(read, array=with_dark_background(read.array))
        corrected = correct_bias(volume, by, levels, iterations, fit_spacing_mm)
        heads.append(head_mask(corrected))
        scaling = recipe["intensity_scaling"], recipe["intensity_percentiles"]
        scaled.append(scale_intensity(corrected, heads[-1], *scaling))
        corrections.append(record_correction(volume, corrected, scaled[-1], heads[-1]))
    native = Grid(volumes[0].spacing_mm, volumes[0].array.shape)
    grid = study_grid(heads[0], native, recipe["spacing_mm"])
    # smoothing and splines swing a little beyond the range
    array = [resample(s, native, grid, recipe["interpolation"]).clip(s.min(), s.max()) for s in scaled]
    share = share_covered(heads[0] if heads[0].any() else np.ones_like(heads[0]), native, grid)
    # the fullest voxels of a head that is smaller than a voxel of the study grid: patches need a place
    head = share >= min(HEAD_SHARE, share.max())
    return PreparedImage(np.stack(array), head, grid, volumes[0], corrections)


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
        voxel darkens the rest. "min_max": the lowest and highest value of the volume become 0 and 1.
        "z_score": the head gets mean 0 and standard deviation 1; nothing is clipped.
    percentiles : sequence of 2 floats
        Of "percentiles".

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
        low, high = np.percentile(inside, percentiles) if scaling == "percentiles" else (array.min(), array.max())
        width = high - low
    if not width > 0:
        raise ValueError(f"the lowest and the highest intensity to scale are both {low:g}: the image has no contrast")
    scaled = (array - low) / width
    return (scaled if scaling == "z_score" else scaled.clip(0, 1)).astype(np.float32)


def intensity_range(recipe: Mapping[str, Any]) -> tuple[float, float]:
    """Lowest and highest intensity to look at in images that were prepared by a recipe."""
    return RANGES[recipe["intensity_scaling"]]


def clean_label(
    label: Volume, rule: LesionRule, head: Head | None, settings: Mapping[str, Any]
) -> tuple[np.ndarray, dict[str, int]]:
    """Merge or threshold the values of a label, then fill holes, remove specks and judge what lies outside the head.

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
        threshold), ``filled_voxels``, ``specks`` and ``speck_voxels`` (removed), ``outside_lesions`` and
        ``outside_voxels`` (outside the head, dropped or not).
    """
    array, mask, is_grey = label.array, lesion_mask(label.array, rule), rule.threshold > 0
    filled = fill_holes(mask) if settings["fill_holes"] else mask
    lesions = find_lesions(filled, label.spacing_mm)
    specks = _specks(lesions, settings["min_lesion_mm3"])
    # Whole lesions, never parts: one at the brain's rim must not be cut.
    outside = [lesion for lesion in outside_lesions(lesions, head) if lesion not in specks] if head else []
    speck_voxels, outside_voxels = (np.isin(lesions.labels, numbers) for numbers in (specks, outside))
    counts = {
        "lesion_values": 1 if is_grey else len(np.unique(np.rint(array[mask]))),
        "other_voxels": 0 if is_grey else int((np.rint(array) != 0).sum() - mask.sum()),
        "grey_voxels": int(((array > array.min()) & (array < array.max())).sum()) if is_grey else 0,
        "filled_voxels": int(filled.sum() - mask.sum()),
        "specks": len(specks),
        "speck_voxels": int(speck_voxels.sum()),
        "outside_lesions": len(outside),
        "outside_voxels": int(outside_voxels.sum()),
    }
    removed = speck_voxels | outside_voxels if settings["outside_head"] == "drop" else speck_voxels
    return filled & ~removed, counts


def fill_holes(mask: np.ndarray) -> np.ndarray:
    """Fill the cavities of each lesion that its voxels close off on all sides, in 3D; mask of bool, same shape."""
    filled = mask.copy()
    lesions = find_lesions(mask, (1.0, 1.0, 1.0))
    for lesion, box in lesions.boxes.items():
        filled[box] |= ndimage.binary_fill_holes(lesions.labels[box] == lesion)
    return filled


def remove_specks(mask: np.ndarray, spacing_mm: tuple[float, float, float], min_lesion_mm3: float) -> np.ndarray:
    """Remove lesions smaller than ``min_lesion_mm3`` from a mask of bool."""
    lesions = find_lesions(mask, spacing_mm)
    return mask & ~np.isin(lesions.labels, _specks(lesions, min_lesion_mm3))


def _specks(lesions: Lesions, min_lesion_mm3: float) -> list[int]:
    voxel_mm3 = float(np.prod(lesions.spacing_mm))
    return [lesion for lesion in lesions.boxes if len(lesions.voxels(lesion)) * voxel_mm3 < min_lesion_mm3]
