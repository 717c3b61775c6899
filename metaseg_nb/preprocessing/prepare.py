"""From a case's files to the case store: bias correction, intensity, grid."""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from metaseg_nb.cohort.cases import Case, Cohort, LesionRule
from metaseg_nb.cohort.head import head_mask
from metaseg_nb.cohort.labels import read_lesions, require_one_grid
from metaseg_nb.cohort.problems import CohortError
from metaseg_nb.cohort.volumes import Volume, read_volume
from metaseg_nb.parallel import map_cases
from metaseg_nb.preprocessing.bias import correct_bias
from metaseg_nb.preprocessing.case_store import StoredCase, is_stored, open_case, store_case
from metaseg_nb.preprocessing.grid import Grid, resample, resample_mask, study_grid
from metaseg_nb.preprocessing.intensity import to_unit_range
from metaseg_nb.settings import Preprocess

# What does not change a case's voxels.
NOT_VOXELS = {"study", "workers"}


@dataclass(frozen=True)
class PreparedImage:
    """An image ready for a network.

    ``array`` is float32 in [0, 1] on ``grid``; ``native`` is the grid of
    ``source``, the image as it was read; ``corrected`` is the image there
    after bias correction.
    """

    array: np.ndarray
    grid: Grid
    native: Grid
    source: Volume
    corrected: np.ndarray


def recipe(settings: Preprocess) -> dict[str, Any]:
    """The settings that decide a case's voxels; a checkpoint carries them to prepare new images alike."""
    return settings.model_dump(exclude=NOT_VOXELS)


def prepare_image(volume: Volume, settings: Mapping[str, Any]) -> PreparedImage:
    """Correct, scale, crop and resample an image.

    Parameters
    ----------
    volume : Volume
        From `read_volume`.
    settings : mapping
        From `recipe`.
    """
    native = Grid(volume.spacing_mm, volume.array.shape)
    corrected = correct_bias(volume, settings["n4_levels"], settings["n4_iterations"], settings["n4_shrink"])
    head = head_mask(corrected)
    scaled = to_unit_range(corrected, head, tuple(settings["intensity_percentiles"]))
    grid = study_grid(head, native, settings["spacing_mm"])
    array = resample(scaled, native, grid).clip(0, 1)  # the smoothing filter may swing a little beyond
    return PreparedImage(array, grid, native, volume, corrected)


def prepare_case(case: Case, folder: Path, settings: Mapping[str, Any], rule: LesionRule) -> dict[str, Any]:
    """Bring one case into the case store, unless it is there already; says what was done.

    Returns
    -------
    dict
        ``case``, ``seconds`` (0 when it was there), ``lesion_volume_mm3`` on
        the native and ``stored_volume_mm3`` on the study grid (None without a label).
    """
    made_with, start = (
        {**settings, "lesions": {key: np.asarray(value).tolist() for key, value in asdict(rule).items()}},
        time.perf_counter(),
    )
    sources = _stamps(case)
    if is_stored(folder, case.name, made_with, sources):
        return _row(open_case(folder, case.name), 0.0)
    volume = read_volume(case.image, case.name)
    try:
        prepared = prepare_image(volume, settings)
    except ValueError as error:
        raise CohortError.one(case.name, case.image, str(error), "an image of a head", "export it again") from error
    label, volume_mm3 = None, None
    if case.label is not None:
        mask = read_lesions(case, rule).array
        label = resample_mask(mask, prepared.native, prepared.grid)
        volume_mm3 = float(mask.sum() * np.prod(prepared.native.spacing_mm))
    stored = store_case(
        folder, case.name, prepared.array, label, prepared.native, prepared.grid, made_with, sources, volume_mm3
    )
    return _row(stored, time.perf_counter() - start)


def _row(stored: StoredCase, seconds: float) -> dict[str, Any]:
    row = {"case": stored.name, "seconds": seconds, "lesion_volume_mm3": stored.lesion_volume_mm3}
    row["stored_volume_mm3"] = None
    if stored.has_label:
        row["stored_volume_mm3"] = float(len(stored.lesion_voxels) * np.prod(stored.grid.spacing_mm))
    return row


def prepare_cohort(cohort: Cohort, folder: Path, settings: Preprocess) -> list[dict[str, Any]]:
    """Bring all cases of a cohort into the case store, several at a time.

    All headers are checked before the first case is worked on.

    Raises
    ------
    CohortError
        With every case whose files are missing, unreadable or on different grids.
    """
    cases = [*cohort.cases, *cohort.unlabelled]
    problems = [problem for case in cases for problem in _header_problems(case)]
    if problems:
        raise CohortError(problems)
    work = partial(prepare_case, folder=folder, settings=recipe(settings), rule=cohort.rule)
    return map_cases(work, cases, settings.workers, "preprocessing cases")


def _stamps(case: Case) -> list[list[int]]:
    """Size and time of a case's files, so that a corrected mask is noticed."""
    return [[file.stat().st_size, file.stat().st_mtime_ns] for file in case.files]


def _header_problems(case: Case) -> list:
    try:
        require_one_grid(case)
    except CohortError as error:
        return error.problems
    return []
