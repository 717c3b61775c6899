"""From a case's files to the case store: bias correction, intensity, grid, label cleaning."""

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import mode
from typing import Any

import numpy as np
import pandas as pd

from metaseg_nb.checksums import checksum
from metaseg_nb.cohort.cases import Case, Cohort, LesionRule
from metaseg_nb.cohort.head import find_head
from metaseg_nb.cohort.header_checks import require_sound_headers
from metaseg_nb.cohort.lesions import find_lesions, label_lesions
from metaseg_nb.cohort.problems import CohortError, Problem
from metaseg_nb.cohort.volumes import lesion_mask, read_values, read_volume
from metaseg_nb.files import clear_abandoned, write_json
from metaseg_nb.layout import StudyLayout
from metaseg_nb.parallel import map_cases
from metaseg_nb.preprocessing.case_store import (
    StoredCase,
    drop_label,
    is_stored,
    open_case,
    part_identity,
    store_image,
    store_label,
)
from metaseg_nb.preprocessing.grid import Grid, resample_lesions
from metaseg_nb.preprocessing.images import NOT_VOXELS, OF_LABELS, VERSION, image_recipe, prepare_image, read_images
from metaseg_nb.preprocessing.label_cleaning import clean_label
from metaseg_nb.settings import Preprocess

# Errors that one case may cause; any other is a mistake of the program.
CASE_FAILURES = (ValueError, RuntimeError, OSError, MemoryError)


@dataclass(frozen=True)
class Preparation:
    """Table of the prepared cases (`prepare_case`), names of those that were made now, and problems of the others."""

    table: pd.DataFrame
    made: list[str]
    problems: list[Problem]


def label_recipe(settings: Preprocess, rule: LesionRule) -> dict[str, Any]:
    """The settings that decide a label's voxels."""
    return {**settings.model_dump(include=OF_LABELS), "lesions": rule.as_json()}


def refuse_other_settings(layout: StudyLayout, cohort: Cohort, settings: Preprocess) -> None:
    """Keep the cases that networks were trained on: other settings would make all of them again.

    Cases that are damaged, or whose files changed, are not refused. Nothing is, before a first network is trained.

    Raises
    ------
    CohortError
        Names the settings that differ.
    """
    trained = (path for end in ("*.pt", "metrics.json") for path in layout.root.glob(f"**/fold*/{end}"))
    if next(trained, None) is None:
        return
    wanted, differing = settings.model_dump(exclude=NOT_VOXELS) | {"version": VERSION}, {}
    for case in cohort.all_cases:
        with suppress(CohortError):  # missing or damaged: it is made again
            recipe = open_case(layout.case_store, case.name).recipe
            differing |= {key: recipe[key] for key in wanted if recipe.get(key, wanted[key]) != wanted[key]}
    if differing:
        found = "cases made with " + ", ".join(f"{key} {value}" for key, value in differing.items())
        expected = ", ".join(f"{key} {wanted[key]}" for key in differing) + ", as the parameters of 02 say"
        fix = (
            "networks were trained on these cases, so they are kept: use another `study` for other settings; or delete"
        )
        fix += " the folder yourself, run 02, and train the networks again"
        raise CohortError.one("-", layout.case_store, found, expected, fix)


def prepare_case(case: Case, folder: Path, settings: Preprocess, rule: LesionRule) -> dict[str, Any]:
    """Prepare one case and store it; a part that is stored already, made the same way, is kept.

    Returns
    -------
    dict
        ``case``, ``made`` (whether a part of it was made now), ``seconds`` (that making the stored case took),
        ``disk_mb``, ``field_range`` (the largest of its sequences), ``uncorrected`` (sequences without a bias
        field), and of its label, None without one, the volumes as drawn (``lesion_volume_mm3``), ``cleaned_volume_mm3``
        and ``stored_volume_mm3``, the number of ``lesions`` (cleaned), ``stored_lesions`` (near ones may touch on the
        study grid) and ``lost_lesions`` (cut off with what is far from the head), and the counts of `clean_label`.

    Raises
    ------
    CohortError
    """
    require_sound_headers(case)
    image_way, label_way = image_recipe(settings, len(case.images)), label_recipe(settings, rule)
    identity = part_identity(image_way, _stamps(case.images))
    made = not is_stored(folder, case.name, "image", identity)
    if made:
        _make_image(case, folder, image_way)
    if case.label is None:
        drop_label(folder, case.name)
    elif not is_stored(folder, case.name, "label", part_identity(label_way, [checksum(case.label)], identity)):
        _make_label(case, folder, label_way, rule)
        made = True
    return {"case": case.name, "made": made} | _row(open_case(folder, case.name))


def prepare_cohort(cohort: Cohort, folder: Path, settings: Preprocess) -> Preparation:
    """Prepare all cases of a cohort and store them, several at a time; a bad one does not stop the others.

    Raises
    ------
    CohortError
        No case could be prepared.
    """
    clear_abandoned(folder)
    usual = mode(len(case.images) for case in cohort.all_cases)
    work = partial(_attempt, folder=folder, settings=settings, rule=cohort.rule, sequences=usual)
    outcomes = map_cases(work, cohort.all_cases, settings.workers, "preprocessing cases")
    table = pd.DataFrame([outcome for outcome in outcomes if isinstance(outcome, dict)])
    problems = [problem for outcome in outcomes if isinstance(outcome, list) for problem in outcome]
    if table.empty:
        raise CohortError(problems)
    return Preparation(table.drop(columns="made"), table.loc[table["made"], "case"].tolist(), problems)


def _attempt(
    case: Case, folder: Path, settings: Preprocess, rule: LesionRule, sequences: int
) -> dict[str, Any] | list[Problem]:
    """What `prepare_case` gives, or the problems of the case."""
    if len(case.images) != sequences:
        found, expected = f"{len(case.images)} sequence(s)", "as many sequences as the other cases"
        return [Problem(case.name, str(case.image), found, expected, "complete the datalist, or leave the case out")]
    try:
        return prepare_case(case, folder, settings, rule)
    except CohortError as error:
        return error.problems
    except CASE_FAILURES as error:
        if isinstance(error, OSError) and error.filename not in map(str, case.files):
            raise  # of the disk that all cases are written to, not of this case
        found = f"{type(error).__name__}: {error}"
        fix = "look at the image; export it again, or leave the case out"
        return [Problem(case.name, str(case.image), found, "an image of a head that can be prepared", fix)]


def _make_image(case: Case, folder: Path, recipe: Mapping[str, Any]) -> None:
    start = time.perf_counter()
    volumes = read_images(case)
    try:
        prepared = prepare_image(volumes, recipe)
    except ValueError as error:
        raise CohortError.one(case.name, case.image, str(error), "an image of a head", "export it again") from error
    facts = {
        "native": asdict(prepared.native),
        "grid": asdict(prepared.grid),
        "native_affine": volumes[0].affine.tolist(),
        "native_orientation": volumes[0].native_orientation.tolist(),
        "native_place": volumes[0].place,
        "recipe": dict(recipe),
        "sources": _stamps(case.images),
        "field_ranges": [float(correction.field_range) for correction in prepared.corrections],
    }
    write_json(_time_file(folder / case.name, "image"), time.perf_counter() - start)
    store_image(folder, case.name, prepared.array, prepared.head, prepared.corrections[0], facts)


def _make_label(case: Case, folder: Path, recipe: Mapping[str, Any], rule: LesionRule) -> None:
    start = time.perf_counter()
    drop_label(folder, case.name)  # the former one, which may be damaged
    stored, label = open_case(folder, case.name), read_values(case.label, case.name, rule)
    image = read_volume(case.image, case.name)
    cleaned = clean_label(label, rule, find_head(image.array, image.spacing_mm), recipe)
    resampled = resample_lesions(cleaned.mask, stored.native, stored.grid)
    found = find_lesions(cleaned.mask, stored.native.spacing_mm)
    facts = {
        "recipe": dict(recipe),
        "sources": [checksum(case.label)],
        "lesion_volume_mm3": _volume_mm3(lesion_mask(label.array, rule), stored.native),
        "cleaned_volume_mm3": _volume_mm3(cleaned.mask, stored.native),
        "stored_volume_mm3": _volume_mm3(resampled, stored.grid),
        "lesions": found.n,
        "stored_lesions": label_lesions(resampled)[1],
        "lost_lesions": sum(_is_lost(found.voxels(lesion), stored) for lesion in found.boxes),
        "cleaning": cleaned.counts,
    }
    write_json(_time_file(folder / case.name, "label"), time.perf_counter() - start)
    store_label(folder, case.name, resampled, facts)


def _is_lost(voxels: np.ndarray, stored: StoredCase) -> bool:
    """True for a lesion that lies outside the study grid, with the crop around the head."""
    return len(stored.grid.voxels_at(stored.native.centres_mm(voxels))) == 0


def _row(stored: StoredCase) -> dict[str, Any]:
    image, label = stored.image_facts, stored.label_facts
    seconds = sum(_seconds(stored.folder, part) for part in (("image", "label") if label else ("image",)))
    ranges = image["field_ranges"]
    row = {"seconds": seconds, "disk_mb": stored.disk_mb, "field_range": max(ranges), "uncorrected": ranges.count(1)}
    keys = ("lesion_volume_mm3", "cleaned_volume_mm3", "stored_volume_mm3", "lesions", "stored_lesions", "lost_lesions")
    return row | {key: label[key] if label else None for key in keys} | (label["cleaning"] if label else {})


def _time_file(folder: Path, part: str) -> Path:
    """Seconds that it took to make the "image" or "label" part of a case."""
    return folder / f"{part}.time"


def _seconds(folder: Path, part: str) -> float:
    """What `_time_file` holds; NaN where it is lost or damaged: nothing else depends on it."""
    try:
        return float(_time_file(folder, part).read_bytes())
    except (FileNotFoundError, ValueError):
        return float("nan")


def _volume_mm3(mask: np.ndarray, grid: Grid) -> float:
    return float(mask.sum() * np.prod(grid.spacing_mm))


def _stamps(files: Sequence[Path]) -> list[list[int]]:
    """Size and time of image files: to read them all takes minutes."""
    return [[file.stat().st_size, file.stat().st_mtime_ns] for file in files]
