"""From a case's files to the case store: bias correction, intensity, grid, label cleaning."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import mode
from typing import Any

import numpy as np
import pandas as pd

from metaseg_nb.checksums import checksum, read_record
from metaseg_nb.cohort.cases import Case, Cohort, LesionRule
from metaseg_nb.cohort.checks import require_sound_headers
from metaseg_nb.cohort.head import find_head
from metaseg_nb.cohort.lesions import find_lesions, label_lesions
from metaseg_nb.cohort.problems import CohortError, Problem, broken
from metaseg_nb.cohort.volumes import Volume, lesion_mask, read_lesions, read_values, read_volume
from metaseg_nb.files import clear_abandoned, write_json
from metaseg_nb.layout import StudyLayout
from metaseg_nb.machine import map_cases
from metaseg_nb.preprocessing import case_store, steps
from metaseg_nb.preprocessing.brain import (
    KEEP,
    brain_file,
    bright_rim_mm3,
    cut_lesions,
    inverse_sphericity,
    require_installed,
    with_margin,
)
from metaseg_nb.preprocessing.case_store import StoredCase
from metaseg_nb.preprocessing.grid import carried, inside_along, resample_lesions
from metaseg_nb.preprocessing.registration import earlier_dates, place_of
from metaseg_nb.settings import Preprocess, settings_hash

# Errors that one case may cause; any other is a mistake of the program.
CASE_FAILURES = (ValueError, RuntimeError, OSError, MemoryError)
# What is known of a stored label.
VOLUMES = ("lesion_volume_mm3", "cleaned_volume_mm3", "stored_volume_mm3")
LESIONS = ("lesions", "stored_lesions", "lost_lesions")
# What is known of a brain that was extracted.
BRAIN = ("brain_cm3", "bright_rim_mm3", "inverse_sphericity")


@dataclass(frozen=True)
class Preparation:
    """Table of the prepared cases (`prepare_case`), names of those that were made now, and problems.

    Errors are of cases that could not be prepared, warnings of those in the table.
    """

    table: pd.DataFrame
    made: list[str]
    problems: list[Problem]


def refuse_other_settings(layout: StudyLayout, cohort: Cohort, settings: Preprocess) -> None:
    """Refuse settings that would replace the cases that networks were trained on.

    Cases that are damaged, or whose files changed, are not refused. Nothing is, before a first network is trained.

    Raises
    ------
    CohortError
        Names the settings that differ.
    """
    trained = (path for end in ("*.pt", "metrics.json") for path in layout.root.glob(f"**/fold*/{end}"))
    if next(trained, None) is None:
        return
    wanted, differing = {}, {}
    for case in cohort.all_cases:
        with suppress(CohortError):  # missing or damaged: it is made again
            recipe = steps.in_full(case_store.open_case(layout.case_store, case.name).recipe)
            of_label = settings.model_dump(include=steps.OF_LABELS)
            wanted = steps.in_full(steps.image_recipe(settings, recipe["sequences"])) | of_label
            differing |= {key: recipe[key] for key in wanted if recipe.get(key, wanted[key]) != wanted[key]}
    if differing:
        found = "cases made with " + ", ".join(f"{key} {value}" for key, value in differing.items())
        expected = ", ".join(f"{key} {wanted[key]}" for key in differing) + ", as in the parameters of notebook 02"
        fix = "networks were trained on these cases, so they are kept: use another `study` for other settings; "
        fix += "or delete the folder yourself, run 02, and train the networks again"
        raise CohortError.one("-", layout.case_store, found, expected, fix)


def prepare_case(
    case: Case, folder: Path, settings: Preprocess, rule: LesionRule, earlier: Case | None = None
) -> dict[str, Any]:
    """Prepare one case and store it; a part that is stored already, made the same way, is kept.

    With ``earlier_mask`` the mask of ``earlier``, the patient's earlier date, becomes the last sequence.

    Returns
    -------
    dict
        ``case``, ``made`` (whether a part of it was made now), ``seconds`` (that making the stored case took),
        ``disk_mb``, ``field_range`` (the largest of its sequences), ``uncorrected`` (sequences without a bias
        field), and of its label, None without one, the volumes as drawn (``lesion_volume_mm3``), ``cleaned_volume_mm3``
        and ``stored_volume_mm3``, the number of ``lesions`` (cleaned), ``stored_lesions`` (near ones may touch on the
        study grid) and ``lost_lesions`` (cut off with what is far from the head), and the counts of `clean_label`.
        Where the brain was extracted: ``brain_cm3``, `bright_rim_mm3`, `inverse_sphericity`, ``cut_lesions``, which a
        brain mask without knowledge of them would have cut, and ``brain_before``, the file of a corrected mask that
        was replaced. Where sequences were registered: ``moved_mm`` and ``agreeing`` of the worst.
        Where sequences are missing: ``lacking``, their number. ``earlier``: the case whose mask is the last
        sequence; ``alike``: how alike the two heads are; ``not_registered``: to which case, and why not.

    Raises
    ------
    CohortError
    """
    require_sound_headers(case)
    if settings.earlier_mask:  # a sequence that is missing until there is an earlier date
        case = replace(case, lacking=(*case.lacking, case.sequences + 1))
    image_way, label_way = steps.image_recipe(settings, case.sequences), steps.label_recipe(settings, rule)
    steps.require_sequences([case], image_way)
    # size and time of image files: to read them all takes minutes
    sources: list[list[int] | str] = [[file.stat().st_size, file.stat().st_mtime_ns] for file in case.images]
    sources += [f"no sequence {number}" for number in case.lacking]
    if earlier and earlier.label:
        require_sound_headers(earlier)
        files = checksum(earlier.image), checksum(earlier.label)
        sources += [earlier.name, *files, settings_hash(rule.as_json())]
    brain = None
    if settings.brain != KEEP:
        with steps.naming(case):
            brain = brain_file(folder / case.name, case, settings.brain)
        sources.append(checksum(brain))
    of_image, of_label = case_store.part_identity(image_way, sources), ""
    made = not case_store.is_stored(folder, case.name, "image", of_image)
    if made:
        with _timed(folder / case.name / "image.time"):
            prepared, facts = _make_image(case, image_way, brain, earlier, rule)
            case_store.store_image(folder, case.name, prepared, image_way, sources, facts)
            del prepared  # the label's part has need of the memory
    if case.label:
        of_label = case_store.part_identity(label_way, [checksum(case.label)], of_image)
    if not case_store.is_stored(folder, case.name, "label", of_label):
        case_store.drop_label(folder, case.name)  # the former one, which may be damaged
        if case.label:
            made = True
            with _timed(folder / case.name / "label.time"):
                _make_label(case, folder, label_way, rule, brain)
    return {"case": case.name, "made": made} | _row(case_store.open_case(folder, case.name))


def prepare_cohort(cohort: Cohort, folder: Path, settings: Preprocess) -> Preparation:
    """Prepare all cases of a cohort and store them, several at a time; a bad one does not stop the others.

    Raises
    ------
    CohortError
        No case could be prepared, or the program that extracts brains is not installed.
    """
    require_installed(settings.brain)
    clear_abandoned(folder)
    usual = mode(case.sequences for case in cohort.all_cases)
    earlier = earlier_dates(cohort) if settings.earlier_mask else {}
    work = partial(_attempt, folder=folder, settings=settings, rule=cohort.rule, sequences=usual, earlier_of=earlier)
    outcomes = map_cases(work, cohort.all_cases, settings.workers, "preprocessing cases")
    table = pd.DataFrame([outcome for outcome in outcomes if isinstance(outcome, dict)])
    problems = [problem for outcome in outcomes if isinstance(outcome, list) for problem in outcome]
    if table.empty:
        raise CohortError(problems)
    for row in table[table["cut_lesions"] > 0].itertuples() if "cut_lesions" in table else ():
        found = f"{row.cut_lesions:.0f} of {row.lesions:.0f} lesions cut"
        problems.append(broken("whole lesions", row.case, folder / row.case / "brain.nii.gz", found))
    return Preparation(table.drop(columns="made"), table.loc[table["made"], "case"].tolist(), problems)


def _attempt(
    case: Case, folder: Path, settings: Preprocess, rule: LesionRule, sequences: int, earlier_of: Mapping[str, Case]
) -> dict[str, Any] | list[Problem]:
    """What `prepare_case` gives, or the problems of the case."""
    try:
        if case.sequences != sequences:
            found = f"{case.sequences} sequence(s)"
            fix = "complete the datalist (null for a missing sequence), or leave the case out"
            raise CohortError.one(case.name, case.image, found, "as many sequences as the other cases", fix)
        return prepare_case(case, folder, settings, rule, earlier_of.get(case.name))
    except CohortError as error:
        return error.problems
    except CASE_FAILURES as error:
        if isinstance(error, OSError) and error.filename not in map(str, case.files):
            raise  # of the disk that all cases are written to, not of this case
        found, expected = f"{type(error).__name__}: {error}", "an image of a head that can be preprocessed"
        fix = "check the image; export it again, or leave the case out"
        return [Problem(case.name, str(case.image), found, expected, fix)]


def _make_image(
    case: Case, recipe: Mapping[str, Any], mask: Path | None, earlier: Case | None, rule: LesionRule
) -> tuple[steps.PreparedImage, dict[str, Any]]:
    """The image part of a case, and what is to be kept of it besides; ``mask`` is the brain that `brain_file` kept."""
    volumes = steps.read_images(case)
    facts: dict[str, Any] = {"lacking": case.lacking} if case.lacking else {}
    first = volumes[0]
    brain = steps.find_brain(case, first, recipe, mask)
    with steps.naming(case):
        prepared = steps.prepare_image(volumes, recipe, brain, lacking=case.lacking)
    if earlier:
        place, alike, problem = place_of(earlier, first)
        if place is None:
            facts["not_registered"] = f"{earlier.name}: {problem}"
        else:
            prepared.array[-1] = carried(read_lesions(earlier, rule), place, prepared.grid)
            facts["lacking"] = case.lacking[:-1]
            facts["earlier"] = {"case": earlier.name, "place": place.tolist(), "alike": alike}
    if brain is not None:
        facts["brain_cm3"] = float(brain.sum() * np.prod(first.spacing_mm) / 1000)
        facts["bright_rim_mm3"] = bright_rim_mm3(first.array, brain, first.spacing_mm)
        facts["inverse_sphericity"] = inverse_sphericity(brain, first.spacing_mm)
    return prepared, facts


def _whole_lesions(
    case: Case, stored: StoredCase, mask: np.ndarray, image: Volume, brain_mask: Path | None
) -> tuple[int, np.ndarray | None]:
    """How many lesions the brain mask cuts; and the image, to train with, that holds them whole, or None."""
    recipe = stored.image_facts["recipe"]
    brain = steps.find_brain(case, image, recipe, brain_mask)
    if brain is None or not (mask & ~brain).any():
        return 0, None
    cut = cut_lesions(mask, brain, image.spacing_mm)
    around = with_margin(cut, image.spacing_mm, recipe["brain_margin_mm"])
    whole = steps.prepare_image(steps.read_images(case), recipe, brain, around, case.lacking)
    if stored.earlier:
        whole.array[-1] = stored.image[-1]
    return label_lesions(cut)[1], whole.array


def _make_label(case: Case, folder: Path, recipe: Mapping[str, Any], rule: LesionRule, brain_mask: Path | None) -> None:
    assert case.label  # a case without one is not asked for it
    stored, label = case_store.open_case(folder, case.name), read_values(case.label, case.name, rule)
    image = read_volume(case.image, case.name)
    mask, counts = steps.clean_label(label, rule, find_head(image.array, image.spacing_mm), recipe)
    resampled, found = resample_lesions(mask, stored.native, stored.grid), find_lesions(mask, stored.native.spacing_mm)
    native_mm3, stored_mm3 = (float(np.prod(grid.spacing_mm)) for grid in (stored.native, stored.grid))
    # a lesion is lost where it lies outside the study grid, with the crop around the head
    inside = np.ix_(*(inside_along(axis, stored.grid, stored.native) > 0 for axis in range(3)))
    heights = np.array([box[2].stop - box[2].start for box in found.boxes.values()], int)
    sizes = np.bincount(found.labels.ravel(), minlength=found.n + 1)[1:]
    n_cut, whole = _whole_lesions(case, stored, mask, image, brain_mask)
    facts = {
        "recipe": dict(recipe),
        "sources": [checksum(case.label)],
        "slices": heights[np.argsort(-sizes, kind="stable")].tolist(),
        "lesion_volume_mm3": float(lesion_mask(label.array, rule).sum() * native_mm3),
        "cleaned_volume_mm3": float(mask.sum() * native_mm3),
        "stored_volume_mm3": float(resampled.sum() * stored_mm3),
        "lesions": found.n,
        "stored_lesions": label_lesions(resampled)[1],
        "lost_lesions": found.n - int(np.count_nonzero(np.unique(found.labels[inside]))),
        "cut_lesions": n_cut,
        "cleaning": counts,
    }
    case_store.store_label(folder, case.name, resampled, facts, whole)


def _row(stored: StoredCase) -> dict[str, Any]:
    label, image = stored.label_facts, stored.image_facts
    ranges, moved = image["field_ranges"], [of for of in image.get("registrations", []) if of]
    seconds = sum(_seconds(stored.folder / f"{part}.time") for part in (("image", "label") if label else ("image",)))
    disk_mb = sum(path.stat().st_size for path in stored.folder.iterdir()) / 1e6
    row = {"seconds": seconds, "disk_mb": disk_mb, "field_range": max(ranges), "uncorrected": ranges.count(1)}
    row |= {key: label[key] if label else None for key in VOLUMES + LESIONS} | (label["cleaning"] if label else {})
    if "brain_cm3" in image:
        found = read_record(stored.folder / "brain.json")
        row["seconds"] += found.get("seconds", np.nan)
        row |= {key: image[key] for key in BRAIN} | {"cut_lesions": label["cut_lesions"] if label else None}
        row["brain_before"] = found.get("before")
    if scans := steps.missing_scans(stored.lacking, stored.recipe):
        row["lacking"] = len(scans)
    if stored.earlier:
        row |= {"earlier": stored.earlier["case"], "alike": stored.earlier["alike"]}
    if "not_registered" in image:
        row["not_registered"] = image["not_registered"]
    if moved:
        row |= {"moved_mm": max(of["moved_mm"] for of in moved), "agreeing": min(of["agreeing"] for of in moved)}
    return row


@contextmanager
def _timed(file: Path) -> Iterator[None]:
    """Write the seconds that a block took."""
    start = time.perf_counter()
    yield
    write_json(file, time.perf_counter() - start)


def _seconds(file: Path) -> float:
    """What `_timed` wrote; NaN where it is lost or damaged: nothing else depends on it."""
    try:
        return float(file.read_bytes())
    except (FileNotFoundError, ValueError):
        return float("nan")
