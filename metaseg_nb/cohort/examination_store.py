"""Examinations of a cohort, kept on disk, so that exploring it again takes seconds; checks between cases."""

import hashlib
import json
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from metaseg_nb.cohort.cases import Case, Cohort, LesionRule
from metaseg_nb.cohort.examination import FACTS, Examination, examine
from metaseg_nb.cohort.fingerprint import look_alikes, same_voxels
from metaseg_nb.cohort.lesions import LESION_FACTS, POSITIONS, SCORED_FACTS
from metaseg_nb.cohort.problems import Problem, broken, shortened
from metaseg_nb.files import finished
from metaseg_nb.machine import map_cases

# Raise it when the same files give another examination.
VERSION = 7
# What NumPy and zlib raise for a damaged file: the case is examined again.
DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, ValueError, KeyError, TypeError, NotImplementedError)

# Columns of the tables, whatever could be read.
WHOSE = ("patient", "primary", "site", "scanner", "date", "day", "reader", "minutes")
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
    known = {case.name: kept for case in cases if (kept := load_examination(folder, case, rule))}
    missing = [case for case in cases if case.name not in known]
    work = partial(_examine_and_keep, rule=rule, folder=folder)
    known |= {case.name: e for case, e in zip(missing, map_cases(work, missing, workers, "reading cases"), strict=True)}
    between = defaultdict(list)
    for problem in problems_between(cases, [known[case.name] for case in cases]):
        between[problem.case].append(problem)
    return [replace(known[case.name], problems=known[case.name].problems + between[case.name]) for case in cases]


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
    return pd.DataFrame(rows, columns=CASE_COLUMNS).astype(
        {"day": "Int64", "n_lesions": "Int64", "sequences": "Int64", "minutes": float}
    )


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


def problems_between(cases: Sequence[Case], examinations: Sequence[Examination]) -> Iterator[Problem]:
    """Find cases that share an image, a mask or a brain, and patients with two primaries.

    ``examinations`` are those of each case. A pair with equal images is not reported again for its masks and brains.
    """
    facts, by_content = [examination.facts for examination in examinations], defaultdict(list)
    for i, fact in enumerate(facts):
        if fact.get("n_lesions"):
            by_content[fact["label_content"]].append(i)
    images = set(same_voxels([e.ranks for e in examinations], [fact.get("shape") for fact in facts]))
    masks = {pair for same in by_content.values() for pair in combinations(same, 2)} - images
    brains = {(i, j) for i, j, _ in look_alikes([e.anatomy for e in examinations])} - images
    own = {(i, j) for i, j in masks | brains if cases[i].patient == cases[j].patient}
    # of a mask under two patients both cases are named by who confirms them
    both_ways = (masks - own) | {(j, i) for i, j in masks - own}
    yield from _told("image once", "the same image as {}, voxel by voxel", cases, images)
    yield from _told("mask once", "the same mask as {}, for another image", cases, masks & own)
    yield from _told("mask of one patient", "the same mask as {}, of another patient", cases, both_ways)
    yield from _told("brain once", "a brain that resembles that of {}: perhaps one patient", cases, brains - own)
    primaries = defaultdict(dict)
    for case in cases:
        primaries[case.patient].setdefault(case.primary, case)
    for patient, of in primaries.items():
        for case in list(of.values())[1:]:
            yield broken("one primary", case, "datalist", f"patient {patient} with {' and '.join(sorted(of))}")


def _told(rule: str, words: str, cases: Sequence[Case], pairs: Iterable[tuple[int, int]]) -> Iterator[Problem]:
    """A problem of each second case of a pair, with the names of the first ones that it is paired with."""
    firsts = defaultdict(list)
    for first, second in sorted(pairs):
        firsts[second].append(cases[first].name)
    for second, names in firsts.items():
        case = cases[second]
        file = case.label if "mask" in rule else case.image
        yield broken(rule, case, file, words.format(f"case {shortened(names)}"))


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
