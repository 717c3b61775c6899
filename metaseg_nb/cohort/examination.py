"""The examination of a case: facts of its files, its lesions, and the problems that were found.

Examinations are kept on disk, so that exploring a cohort again takes seconds.
"""

import hashlib
import json
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from metaseg_nb.cohort import checks
from metaseg_nb.cohort.cases import Case, Cohort, LesionRule
from metaseg_nb.cohort.fingerprint import anatomy_of, problems_between, sampled_ranks
from metaseg_nb.cohort.head import Head, find_head, map_of_head, map_of_lesions, shown_window, with_dark_background
from metaseg_nb.cohort.lesions import (
    LESION_FACTS,
    SCORED_FACTS,
    find_lesions,
    fullest_slice,
    lesion_positions,
    scored_as,
)
from metaseg_nb.cohort.nifti_files import NiftiFile
from metaseg_nb.cohort.problems import CohortError, Problem, grouped
from metaseg_nb.cohort.volumes import Volume, lesion_mask, not_finite, read_voxels, same_grid, undeclared_values
from metaseg_nb.files import finished
from metaseg_nb.machine import map_cases

# Facts of a case; a fact is missing where its file could not be read.
FACTS = (
    *("shape", "spacing_mm", "finest_mm", "coarsest_mm", "axes", "sequences", "skull", "head_cm3"),
    *("intensity_min", "intensity_p1", "intensity_median", "intensity_p99", "intensity_max"),
    *("n_lesions", "lesion_volume_mm3", "largest_diameter_mm", "label_content"),
)
# Raise it when the same files give another examination.
VERSION = 8
# What NumPy and zlib raise for a damaged file: the case is examined again.
DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, ValueError, KeyError, TypeError, NotImplementedError)

# Columns of the tables, whatever could be read.
WHOSE = ("patient", "primary", "site", "scanner", "date", "day", "reader", "minutes")
CASE_COLUMNS = ("case", *WHOSE, "labelled", *FACTS)
LESION_COLUMNS = ("case", "patient", "primary", *LESION_FACTS, *SCORED_FACTS, "third", "hemisphere", "depth_mm")


@dataclass(frozen=True)
class Examination:
    """The result for one case; what could not be read is missing.

    Parameters
    ----------
    facts : dict
        A row of the table of cases; and ``slice_spacing_mm``, voxel edges of ``grey_slice`` along X and Y.
    lesions : DataFrame
        From `lesion_table` and `scored_as`, with the positions where there is a head to measure them by.
    problems : list of Problem
    grey_slice : ndarray of uint8, shape (X, Y), or None
        The axial slice with most lesion, or the middle one, in RAS order.
    lesion_slice : ndarray of bool, shape (X, Y), or None
        Its lesions; empty where no label lies on the image.
    head_map, lesion_map : ndarray of bool, shape `MAP_SHAPE`, or None
    ranks, anatomy : ndarray or None
        Fingerprints of the image: `sampled_ranks`, `anatomy_of`.
    """

    facts: dict[str, Any] = field(default_factory=dict)
    lesions: pd.DataFrame = field(default_factory=pd.DataFrame)
    problems: list[Problem] = field(default_factory=list)
    grey_slice: np.ndarray | None = None
    lesion_slice: np.ndarray | None = None
    head_map: np.ndarray | None = None
    lesion_map: np.ndarray | None = None
    ranks: np.ndarray | None = None
    anatomy: np.ndarray | None = None


def examine(case: Case, rule: LesionRule) -> Examination:
    """Read each file of a case once and collect all facts and problems; a bad case raises no error."""
    files, problems = checks.examine_headers(case)
    image, head, mask_on_image, facts, arrays, table = None, None, None, {}, {}, pd.DataFrame()
    for path in reversed(case.images):  # only the first sequence is kept
        image = _read(path, files, problems)
        head = find_head(image.array, image.spacing_mm) if image else None
        problems += checks.image_problems(case, str(path), image.array) if image else []
        problems += checks.coverage_problems(case, path, head) if head else []
    if image is not None:
        facts |= _image_facts(image, head) | {"sequences": len(case.images)}
    brain = _read(case.brain, files, problems)
    if brain and image and head is not None and same_grid(image, brain):
        problems += checks.brain_problems(case, lesion_mask(brain.array, checks.BRAIN_RULE), head)
    label = _read(case.label, files, problems)
    not_numbers = not_finite(label.array, str(case.label), case.name) if label else []
    problems += not_numbers
    if case.label is not None and label is not None and not not_numbers:
        mask = lesion_mask(label.array, rule)
        lesions = find_lesions(mask, label.spacing_mm)
        table = lesions.table.join(scored_as(lesions))
        facts |= _label_facts(mask, table)
        mask_on_image = mask if image is not None and same_grid(image, label) else None
        undeclared = undeclared_values(case.label, case.name, label.array, rule)
        problems += undeclared
        if lesions.n or not undeclared:  # else not empty, but of values that mean nothing yet
            problems += checks.lesion_problems(case, lesions, head, mask_on_image is not None)
        if lesions.n and image is not None and head is not None:
            if mask_on_image is None:  # with numbers it stands for what the headers alone said
                problem = checks.grid_problem(case, mask, label, image, head)
                same = problem.file, problem.expected
                problems = [*(other for other in problems if (other.file, other.expected) != same), problem]
            else:
                table = table.join(lesion_positions(lesions, head))
    if image is not None:
        arrays = _pictures(image, mask_on_image, head) | {"ranks": sampled_ranks(image.array)}
        facts["slice_spacing_mm"] = list(image.spacing_mm[:2])
    return Examination(facts, table, problems, **arrays)


def _read(path: Path | None, files: Mapping[Path, NiftiFile], problems: list[Problem]) -> Volume | None:
    """Read the voxels of a file that could be opened; add why a file cannot be read to ``problems``."""
    try:
        return read_voxels(files[path]) if path is not None and path in files else None
    except CohortError as error:
        problems += error.problems
        return None


def _image_facts(image: Volume, head: Head | None) -> dict[str, Any]:
    facts = {
        "shape": "x".join(str(n) for n in image.array.shape),
        "spacing_mm": "x".join(f"{edge:.3g}" for edge in image.spacing_mm),
        "finest_mm": min(image.spacing_mm),
        "coarsest_mm": max(image.spacing_mm),
        "axes": image.native_axes,
        "intensity_min": float(np.nanmin(image.array)),
        "intensity_max": float(np.nanmax(image.array)),
    }
    if head is not None:
        inside = image.array[head.coarse][head.mask]
        percentiles = zip((1, 50, 99), ("intensity_p1", "intensity_median", "intensity_p99"), strict=True)
        facts |= {name: float(np.nanpercentile(inside, percentile)) for percentile, name in percentiles}
        facts |= {"head_cm3": head.volume_cm3, "skull": head.skull}
    return facts


def _label_facts(mask: np.ndarray, lesions: pd.DataFrame) -> dict[str, Any]:
    return {
        "n_lesions": len(lesions),
        "lesion_volume_mm3": float(lesions["volume_mm3"].sum()),
        "largest_diameter_mm": float(lesions["diameter_mm"].max()) if len(lesions) else 0.0,
        "label_content": hashlib.sha256(np.ascontiguousarray(mask).tobytes()).hexdigest()[:16],
    }


def _pictures(image: Volume, mask: np.ndarray | None, head: Head | None) -> dict[str, np.ndarray | None]:
    """Small pictures of an image and of the mask on its grid, so that the volume is not read again."""
    lesions = np.zeros(image.array.shape, bool) if mask is None else mask
    index = fullest_slice(lesions)
    array = with_dark_background(np.nan_to_num(image.array, posinf=0, neginf=0))
    low, high = shown_window(array[:, :, index : index + 1])
    grey = np.clip((array[:, :, index] - low) / max(high - low, np.finfo(np.float32).tiny), 0, 1)
    pictures = {"grey_slice": (255 * grey).astype(np.uint8), "lesion_slice": lesions[:, :, index]}
    if head is not None:
        pictures |= {"head_map": map_of_head(head), "anatomy": anatomy_of(image.array, head)}
        pictures |= {} if mask is None else {"lesion_map": map_of_lesions(mask, head)}
    return pictures


def examine_all(cases: Sequence[Case], rule: LesionRule, folder: Path, workers: int) -> list[Examination]:
    """Examine many cases, several at a time, and compare them with each other.

    Parameters
    ----------
    cases : sequence of Case
    rule : LesionRule
    folder : path
        Examinations are kept here; a case whose files and rule did not change is not read again.
    workers : int
        Cases at a time, one thread each; each reads one file after the other.

    Returns
    -------
    list of Examination
        In the order of ``cases``.
    """
    known = {case.name: kept for case in cases if (kept := load_examination(folder, case, rule))}
    missing = [case for case in cases if case.name not in known]
    work = partial(_examine_and_keep, rule=rule, folder=folder)
    known |= {case.name: e for case, e in zip(missing, map_cases(work, missing, workers, "reading cases"), strict=True)}
    every = [known[case.name] for case in cases]
    found = problems_between(cases, [e.facts for e in every], [e.ranks for e in every], [e.anatomy for e in every])
    between = grouped((problem.case, problem) for problem in found)
    return [replace(e, problems=e.problems + between[case.name]) for case, e in zip(cases, every, strict=True)]


def changed_since(cases: Sequence[Case], rule: LesionRule, folder: Path) -> list[str]:
    """Names of cases whose files are not those that notebook 01 examined; ``folder`` as of `examine_all`."""
    return [case.name for case in cases if load_examination(folder, case, rule) is None]


def cases_table(cases: Sequence[Case], examinations: Sequence[Examination]) -> pd.DataFrame:
    """A row per case: its patient, whether it has a label, and the facts of its examination."""
    rows = [
        {"case": case.name, "labelled": case.label is not None, **{key: getattr(case, key) for key in WHOSE}}
        | examination.facts
        for case, examination in zip(cases, examinations, strict=True)
    ]
    numbers = dict.fromkeys(("day", "n_lesions", "sequences"), "Int64") | {"minutes": float}
    return pd.DataFrame(rows, columns=CASE_COLUMNS).astype(numbers)


def as_it_came(came: Cohort, cohort: Cohort, facts: pd.DataFrame, folder: Path, workers: int) -> pd.DataFrame:
    """Facts of the cases with the masks that a cohort came with, for its folds.

    Parameters
    ----------
    came, cohort : Cohort
        Before and after masks were corrected by hand.
    facts : DataFrame
        From `cases_table`, of ``cohort``.
    folder : path
        Examinations of the former masks are kept here.
    workers : int

    Returns
    -------
    DataFrame
        ``facts``, with the case as index; of a corrected case those of its former mask, if it can be read.
    """
    now = {case.name: case.label for case in cohort.cases}
    before = [case for case in came.cases if case.label != now[case.name]]
    former = cases_table(before, examine_all(before, came.rule, folder, workers)).dropna(subset="n_lesions")
    rows = facts.set_index("case")
    return pd.concat([rows.drop(former["case"]), former.set_index("case")]) if len(former) else rows


def lesions_table(cases: Sequence[Case], examinations: Sequence[Examination]) -> pd.DataFrame:
    """A row per lesion, with its case, patient and primary."""
    rows = [
        {"case": case.name, "patient": case.patient, "primary": case.primary, **row}
        for case, examination in zip(cases, examinations, strict=True)
        for row in examination.lesions.to_dict("records")
    ]
    numbers = dict.fromkeys(("volume_mm3", "diameter_mm", "scored_diameter_mm", "depth_mm"), float)
    return pd.DataFrame(rows, columns=LESION_COLUMNS).astype(numbers)


def load_examination(folder: Path, case: Case, rule: LesionRule) -> Examination | None:
    """The stored examination of a case; None if it is missing, damaged, or of other files, rule or `VERSION`."""
    path = folder / f"{case.name}.npz"
    if not path.is_file():
        return None
    try:
        with np.load(path) as kept:
            record = json.loads(str(kept["record"]))
            if record["key"] != _key(case, rule):
                return None
            arrays = {name: kept[name] for name in kept.files if name != "record"}
        problems = [Problem(**problem) for problem in record["problems"]]
        return Examination(record["facts"], pd.DataFrame(record["lesions"]), problems, **arrays)
    except DAMAGE:
        return None


def keep_examination(folder: Path, case: Case, rule: LesionRule, examination: Examination) -> None:
    """Write an examination; the file is complete or not written."""
    record = {
        "key": _key(case, rule),
        "facts": examination.facts,
        "lesions": examination.lesions.to_dict("list"),
        "problems": [asdict(problem) for problem in examination.problems],
    }
    arrays: dict[str, Any] = {name: value for name, value in vars(examination).items() if isinstance(value, np.ndarray)}
    with finished(folder / f"{case.name}.npz") as unfinished, unfinished.open("wb") as file:
        np.savez_compressed(file, record=np.array(json.dumps(record)), **arrays)


def _examine_and_keep(case: Case, rule: LesionRule, folder: Path) -> Examination:
    examination = examine(case, rule)
    keep_examination(folder, case, rule, examination)
    return examination


def _key(case: Case, rule: LesionRule) -> str:
    """Changes with a file (path, size, time), the rule and `VERSION`."""
    files = [
        [str(path), path.stat().st_size, path.stat().st_mtime_ns] if path.is_file() else [str(path)]
        for path in case.files
    ]
    content = json.dumps([VERSION, case.name, files, asdict(rule)], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()
