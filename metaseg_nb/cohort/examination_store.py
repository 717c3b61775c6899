"""Examinations on disk, one file per case, so that exploring a cohort again takes seconds."""

import hashlib
import json
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from metaseg_nb.cohort.cases import Case, LesionRule
from metaseg_nb.cohort.checks.across_cases import problems_between
from metaseg_nb.cohort.examination import FACTS, Examination, examine
from metaseg_nb.cohort.lesions import LESION_FACTS, SCORED_FACTS
from metaseg_nb.cohort.position import POSITIONS
from metaseg_nb.cohort.problems import Problem
from metaseg_nb.cohort.thumbnail import Thumbnail
from metaseg_nb.files import finished
from metaseg_nb.parallel import map_cases

# Raise it when the same files give another examination.
VERSION = 4
# What NumPy and zlib raise for a damaged file: the case is examined again.
DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, ValueError, KeyError, NotImplementedError)
# Arrays of an examination; any may be missing.
ARRAYS = ("head_map", "lesion_map", "ranks", "anatomy")

# Columns of the tables, whatever could be read.
WHOSE = ("patient", "primary", "scanner", "date")
CASE_COLUMNS = ("case", *WHOSE, "labelled", *FACTS)
LESION_COLUMNS = ("case", "patient", "primary", *LESION_FACTS, *SCORED_FACTS, *POSITIONS)


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
    known = {case.name: load_examination(folder, case, rule) for case in cases}
    missing = [case for case in cases if known[case.name] is None]
    work = partial(_examine_and_keep, rule=rule, folder=folder)
    known |= {case.name: e for case, e in zip(missing, map_cases(work, missing, workers, "reading cases"), strict=True)}
    examinations = [known[case.name] for case in cases]
    between = list(problems_between(cases, examinations))
    return [
        replace(examination, problems=examination.problems + [p for p in between if p.case == case.name])
        for case, examination in zip(cases, examinations, strict=True)
    ]


def cases_table(cases: Sequence[Case], examinations: Sequence[Examination]) -> pd.DataFrame:
    """A row per case: its patient, whether it has a label, and the facts of its examination."""
    rows = [
        {"case": case.name, "labelled": case.label is not None, **{key: getattr(case, key) for key in WHOSE}}
        | examination.facts
        for case, examination in zip(cases, examinations, strict=True)
    ]
    return pd.DataFrame(rows, columns=CASE_COLUMNS).astype({"n_lesions": "Int64", "sequences": "Int64"})


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
    path = _path(folder, case)
    if not path.is_file():
        return None
    try:
        with np.load(path) as kept:
            record = json.loads(str(kept["record"]))
            if record["key"] != _key(case, rule):
                return None
            arrays = {name: kept[name] for name in kept.files if name != "record"}
    except DAMAGE:
        return None
    thumbnail = Thumbnail(arrays["grey"], arrays["lesion"], tuple(record["spacing_mm"])) if "grey" in arrays else None
    return Examination(
        facts=record["facts"],
        lesions=pd.DataFrame(record["lesions"]),
        problems=[Problem(**problem) for problem in record["problems"]],
        thumbnail=thumbnail,
        **{name: arrays.get(name) for name in ARRAYS},
    )


def keep_examination(folder: Path, case: Case, rule: LesionRule, examination: Examination) -> None:
    """Write an examination; the file is complete or not written."""
    record = {
        "key": _key(case, rule),
        "facts": examination.facts,
        "lesions": examination.lesions.to_dict("list"),
        "problems": [asdict(problem) for problem in examination.problems],
    }
    arrays = {name: getattr(examination, name) for name in ARRAYS}
    if examination.thumbnail is not None:
        record["spacing_mm"] = examination.thumbnail.spacing_mm
        arrays |= {"grey": examination.thumbnail.grey, "lesion": examination.thumbnail.lesion}
    present = {name: array for name, array in arrays.items() if array is not None}
    with finished(_path(folder, case)) as unfinished, unfinished.open("wb") as file:
        np.savez_compressed(file, record=np.array(json.dumps(record)), **present)


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


def _path(folder: Path, case: Case) -> Path:
    return folder / f"{case.name}.npz"
