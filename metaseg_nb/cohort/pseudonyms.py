"""Codes instead of the names of cases and patients, for studies whose figures and pages leave the department."""

import random
import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from metaseg_nb.cohort.cases import Case, Cohort
from metaseg_nb.cohort.problems import Problem, grouped
from metaseg_nb.cohort.sources.spelling import BARE, WRITTEN_OUT, plain, tidy
from metaseg_nb.files import read_text_table, write_table
from metaseg_nb.layout import StudyLayout

KEY_COLUMNS = ["kind", "name", "code"]
CODED_KINDS = ("case", "patient", "examination")
# Where a problem is that belongs to no case: nowhere in particular, an entry of a list, a line of a table.
PLACE = re.compile(r"-|\w+\[\d+\]|line \d+")
# Only the names of persons hold these. A part that is shorter, or that so many patients and half of all share, may be
# a word.
PERSON = re.compile(r"[\^,]")
SHORTEST_PART, MANY = 3, 3
YEAR = re.compile(r"\d{4}")
WORD = re.compile(r"[^\W_]+")


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
        About it; their cases are coded too, and the places of entries and lines stay.
    excluded : iterable of str
        Names of cases that are left out of the cohort, and get a code nevertheless.
    key : path
        CSV with ``kind`` ("case", "patient", "examination"), ``name``, ``code``; belongs to nobody but the
        cohort's owner.
    """
    cases = cohort.all_cases
    patients, named = {case.patient for case in cases}, {case.name for case in cases} | {*excluded}
    others = {p.case for p in problems if not PLACE.fullmatch(p.case)} - patients
    codes = give_codes({"case": named | others, "patient": patients}, key)
    code_of = {**codes["patient"], **codes["case"]}
    problems = [replace(problem, case=code_of.get(problem.case, problem.case)) for problem in problems]
    coded = cohort.changed(lambda case: _coded(case, codes))
    words = coding(with_parts(code_of, coded.all_cases))
    texts = {part: words(getattr(cohort, part)) for part in ("name", "description", "patients_from")}
    return replace(coded, **texts), problems


def begin_with_codes(layout: StudyLayout, annotations: str) -> None:
    """Begin the key of a new study with that of the study whose masks it takes; a study that has a key keeps it.

    Ties in folds and selection sets are broken by the order of codes: with the same codes they are the same. Any other
    study has codes of its own, so that nobody can tell who is in both.

    Parameters
    ----------
    layout : StudyLayout
        Of the new study; its cases are going to be coded.
    annotations : str
        The study whose masks it takes, which may have no key; "": none.

    Raises
    ------
    DamagedFile
        The other study's key is not complete.
    """
    theirs = StudyLayout(annotations, layout.base).key
    if annotations and theirs.is_file() and not layout.key.is_file():
        write_table(layout.key, read_text_table(theirs))


def give_codes(names: Mapping[str, Iterable[str]], key: Path) -> dict[str, dict[str, str]]:
    """Codes by kind and name, kept in a key file: a name that has a code keeps it, new ones get the next numbers.

    Parameters
    ----------
    names : mapping of str to iterable of str
        By kind: "case", "patient" or "examination" (a case that was imported from DICOM).
    key : path
        See `with_codes`.
    """
    codes = _read(key)
    for kind, needed in names.items():
        new = sorted(set(needed) - codes[kind].keys())
        random.SystemRandom().shuffle(new)  # the order of the codes must not follow the names
        numbers = range(len(codes[kind]) + 1, len(codes[kind]) + len(new) + 1)
        codes[kind] |= {name: f"{kind}_{number:04d}" for name, number in zip(new, numbers, strict=True)}
    rows = [(kind, name, code) for kind, of in codes.items() for name, code in of.items()]
    write_table(key, pd.DataFrame(rows, columns=KEY_COLUMNS))
    return codes


def read_key(key: Path) -> dict[str, str]:
    """Codes by name, of cases and patients; none where no study has been coded."""
    codes = _read(key)
    return codes["case"] | codes["examination"] | codes["patient"]


def case_codes(key: Path) -> dict[str, str]:
    """Codes of cases by name: a patient may be called like a case, and has another code."""
    return _read(key)["case"]


def decoded(names: Iterable[str], key: Path, kinds: Sequence[str] = ("case",)) -> list[str]:
    """Names of cases in one spelling (`tidy`); each may be given as its code, if that is of one of these ``kinds``."""
    codes = _read(key)
    name_of = {code: name for kind in kinds for name, code in codes[kind].items()}
    return [name_of.get(name, name) for name in map(tidy, names)]


def called_here(layout: StudyLayout, names: Iterable[str], other: StudyLayout, theirs: Iterable[str]) -> dict[str, str]:
    """What the cases of another study are called in this one: each study may have codes of its own.

    Parameters
    ----------
    layout, other : StudyLayout
        Of this study and of the other one; a study without a key has no codes.
    names, theirs : iterable of str
        Names or codes of cases: all of this study, and those that are looked for.

    Returns
    -------
    dict of str to str
        Without those of ``theirs`` that this study does not have.
    """
    names, theirs = list(names), list(theirs)
    kinds = ("case", "examination")
    here = dict(zip(decoded(names, layout.key, kinds), names, strict=True))
    known = dict(zip(theirs, decoded(theirs, other.key, kinds), strict=True))
    # the cohort of this study may be a list of the other, with the other's codes as names
    found = {code: here.get(name, here.get(code)) for code, name in known.items()}
    return {code: name for code, name in found.items() if name is not None}


def with_parts(codes: Mapping[str, str], cases: Collection[Case]) -> dict[str, str]:
    """Codes by name, and what stands for other ways to write a person's name.

    A name is a person's where it is two or more words of letters alone, or is written as in DICOM
    (``MUELLER^HANS``). Its code stands for its words in another order too, and "…" for each of them alone.

    Parameters
    ----------
    codes : mapping of str to str
    cases : collection of Case
        Coded. A primary, and a word in the names of many patients ("baseline"), is no part of a name.
    """
    patient_of = {case.name: case.patient for case in cases}
    held_by = grouped((word, patient_of.get(code, code)) for name, code in codes.items() for word in _words(name))
    many = max(MANY, len(set().union(*held_by.values())) / 2)
    of_codes = {word for code in codes.values() for word in _words(code)}
    ordinary = {word for word, patients in held_by.items() if len({*patients}) >= many}
    ordinary |= {plain(case.primary) for case in cases} | of_codes
    parts, turned = {}, {}
    for name, code in codes.items():
        words = WORD.findall(_composed(name))
        letters = len(words) > 1 and all(map(str.isalpha, words))
        if letters:
            turned |= {" ".join(words[i:] + words[:i]): code for i in range(1, len(words))}
        if letters or PERSON.search(name):
            long_words = [word for word in words if len(word) >= SHORTEST_PART and not word.isdigit()]
            kept = of_codes if PERSON.search(name) else ordinary
            parts |= {word: "…" for word in long_words if plain(word) not in kept}
    return parts | turned | dict(codes)


def coding(codes: Mapping[str, str], before: str = "") -> Callable[[str], str]:
    """Make a function that replaces names by codes in a text, wherever a name is a whole word.

    Capital letters, accents (``Müller``, ``Mueller``, ``Muller``), and what stands between the parts of a
    name (``MUELLER^HANS``, ``Mueller, Hans``) make no difference.

    Parameters
    ----------
    codes : mapping of str to str
        Code by name.
    before : str
        Regular expression of what must follow a name.
    """
    taken = {(), *map(_words, codes.values())}  # a name that is another's code stays as it is
    spelt = [(_words(name, letters), code) for letters in (BARE, WRITTEN_OUT) for name, code in codes.items()]
    found_as = {words: code for words, code in spelt if words not in taken}
    if not found_as:
        return str
    longest = max(map(len, found_as))
    behind, ahead = re.compile(r"(?<!\d[.,])"), re.compile(rf"(?!\w(?<!_)|[.,]\d){before}")  # no part of a number

    def put_codes(text: str) -> str:
        text = _composed(text)
        words = list(WORD.finditer(text))
        spellings = [[plain(word[0], letters) for word in words] for letters in (WRITTEN_OUT, BARE)]
        pieces, done = [], 0
        for first, word in enumerate(words):
            if word.start() < done or not behind.match(text, word.start()):
                continue
            for last in range(min(first + longest, len(words)) - 1, first - 1, -1):
                found = [found_as.get(tuple(spelling[first : last + 1])) for spelling in spellings]
                if any(found) and ahead.match(text, words[last].end()):
                    pieces += [text[done : word.start()], found[0] or found[1]]
                    done = words[last].end()
                    break
        return "".join([*pieces, text[done:]])

    return put_codes


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _words(name: str, letters: Mapping[int, str] = WRITTEN_OUT) -> tuple[str, ...]:
    return tuple(plain(word, letters) for word in WORD.findall(_composed(name)))


def _read(key: Path) -> dict[str, dict[str, str]]:
    """Codes by name, of each of `CODED_KINDS`."""
    table = read_text_table(key) if key.is_file() else pd.DataFrame(columns=KEY_COLUMNS)
    of_kind = {kind: table[table["kind"] == kind] for kind in CODED_KINDS}
    return {kind: dict(zip(rows["name"], rows["code"], strict=True)) for kind, rows in of_kind.items()}


def _coded(case: Case, codes: Mapping[str, Mapping[str, str]]) -> Case:
    year = YEAR.search(case.date)
    name, patient = codes["case"][case.name], codes["patient"][case.patient]
    return replace(case, name=name, patient=patient, date=year[0] if year else "unknown")
