"""Codes instead of the names of cases and patients, for studies whose figures and pages leave the department."""

import random
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from metaseg_nb.cohort.cases import Case, Cohort
from metaseg_nb.cohort.problems import Problem
from metaseg_nb.cohort.sources.strict import tidy
from metaseg_nb.files import read_text_table, write_table

COLUMNS = ["kind", "name", "code"]
# Stands between the parts of a person's name; shorter parts may be words.
PERSON = re.compile(r"[\^,]")
SHORTEST_PART = 3
YEAR = re.compile(r"\d{4}")


def with_codes(
    cohort: Cohort, problems: Sequence[Problem], excluded: Iterable[str], key: Path
) -> tuple[Cohort, list[Problem]]:
    """Replace the names of cases and patients by codes, and keep which is which in a key file.

    A name that has a code keeps it; new ones get the next numbers, in random order. Of dates only the
    year is left. The cohort's name and description name nobody either. The files keep their names and places.

    Parameters
    ----------
    cohort : Cohort
    problems : sequence of Problem
        About it; their cases are coded too.
    excluded : iterable of str
        Names of cases that are left out of the cohort, and get a code nevertheless.
    key : path
        CSV with ``kind`` ("case" or "patient"), ``name``, ``code``; belongs to nobody but the
        cohort's owner.
    """
    cases = cohort.all_cases
    names = {
        "case": [*(case.name for case in cases), *excluded, *(p.case for p in problems if p.case != "-")],
        "patient": [case.patient for case in cases],
    }
    table = _read(key)
    for kind, needed in names.items():
        table = pd.concat([table, _new_codes(kind, needed, table)], ignore_index=True)
    write_table(key, table)
    codes = {kind: dict(zip(rows["name"], rows["code"], strict=True)) for kind, rows in table.groupby("kind")}
    problems = [replace(problem, case=codes["case"].get(problem.case, problem.case)) for problem in problems]
    words = coding(with_parts({**codes["patient"], **codes["case"]}))
    told = {part: words(getattr(cohort, part)) for part in ("name", "description", "patients_from")}
    return cohort.changed(lambda case: _coded(case, codes), **told), problems


def read_key(key: Path) -> dict[str, str]:
    """Codes by name, of cases and patients; none where no study has been coded."""
    table = _read(key)
    return dict(zip(table["name"], table["code"], strict=True))


def case_codes(key: Path) -> dict[str, str]:
    """Codes of cases by name: a patient may be called like a case, and has another code."""
    table = _read(key)
    return table[table["kind"] == "case"].set_index("name")["code"].to_dict()


def decoded(names: Iterable[str], key: Path) -> list[str]:
    """Names of cases in one spelling (`tidy`); each may be given as its code."""
    name_of = {code: name for name, code in case_codes(key).items()}
    return [name_of.get(name, name) for name in map(tidy, names)]


def with_parts(codes: Mapping[str, str]) -> dict[str, str]:
    """Codes by name, and "…" by each part of a person's name, where it is written as in DICOM (``MUELLER^HANS``)."""
    persons = [name for name in codes if PERSON.search(name)]
    parts = [part.strip() for name in persons for part in PERSON.split(name)]
    return {part: "…" for part in parts if len(part) >= SHORTEST_PART and not part.isdigit()} | dict(codes)


def coding(codes: Mapping[str, str], before: str = "") -> Callable[[str], str]:
    """Make what puts codes in the place of names, wherever a name is a word of a text and not a part of one.

    Capital letters, composed or decomposed letters, and what stands between the parts of a
    name (``MUELLER^HANS``, ``Mueller, Hans``) make no difference.

    Parameters
    ----------
    codes : mapping of str to str
        Code by name.
    before : str
        Regular expression of what must follow a name.
    """
    taken = {"", *map(_plain, codes.values())}  # a name that is another's code would make one of the other
    found_as = {_plain(name): code for name, code in codes.items() if _plain(name) not in taken}
    if not found_as:
        return str
    longest_first = sorted(found_as, key=len, reverse=True)
    any_name = "|".join(r"[\W_]+".join(map(re.escape, name.split())) for name in longest_first)
    pattern = re.compile(rf"(?<![^\W_])(?<!\d[.,])(?:{any_name})(?![^\W_]|[.,]\d){before}", re.IGNORECASE)

    def put_codes(text: str) -> str:
        composed = unicodedata.normalize("NFC", text)
        return pattern.sub(lambda found: found_as.get(_plain(found[0]), "…"), composed)

    return put_codes


def _plain(name: str) -> str:
    """A name in small, composed letters, with one blank between its parts."""
    return " ".join(re.split(r"[\W_]+", unicodedata.normalize("NFC", name).lower())).strip()


def _read(key: Path) -> pd.DataFrame:
    return read_text_table(key) if key.is_file() else pd.DataFrame(columns=COLUMNS)


def _new_codes(kind: str, names: Iterable[str], table: pd.DataFrame) -> pd.DataFrame:
    known = table.loc[table["kind"] == kind, "name"]
    new = sorted(set(names) - set(known))
    random.SystemRandom().shuffle(new)  # the order of codes tells nothing of the names
    codes = [f"{kind}_{number:04d}" for number in range(len(known) + 1, len(known) + len(new) + 1)]
    return pd.DataFrame({"kind": kind, "name": new, "code": codes}, columns=COLUMNS)


def _coded(case: Case, codes: Mapping[str, Mapping[str, str]]) -> Case:
    year = YEAR.search(case.date)
    name, patient = codes["case"][case.name], codes["patient"][case.patient]
    return replace(case, name=name, patient=patient, date=year[0] if year else "unknown")
