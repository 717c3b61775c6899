"""Find what may be one case or one patient under two names; a person has to decide."""

import re
import zlib
from collections import defaultdict
from collections.abc import Hashable, Iterator
from pathlib import PurePath
from typing import Any

import pandas as pd

from metaseg_nb.cohort.file_kinds import opened
from metaseg_nb.cohort.sources import naming
from metaseg_nb.cohort.sources.spelling import as_words
from metaseg_nb.cohort.sources.time_points import time_points

# Formats that one image may be kept in, and the channel that nnU-Net writes behind the name of a case.
ENDING = re.compile(r"((?<=\d)_000\d)?(\.(nii|nrrd|nhdr|mh[ad]|np[yz]|b2nd|hdr|img|mg[hz])(\.gz)?)?$", re.IGNORECASE)
# Such a number in a name, as in BraTS-MET-00110, is not given twice by chance.
UNIQUE = re.compile(r"\d{5}")
# Of NIfTI-2, the longer one.
HEADER_BYTES = 544
# Ways of being alike, in the order in which they are reported.
WAYS = (
    *("paths that end alike", "one case by name", "one patient by name and by path", "one mask for two images"),
    *("a sequence in common", "patients whose names may mean one person", "time points of one patient by their names"),
)
PATH, CASE, PATIENT_IN_PATH, MASK, SEQUENCE, PERSON, TIME_POINT = range(len(WAYS))

# Words and numbers of a name, as `as_words` gives them.
Words = tuple[str | int, ...]
# A row of the table of entries, with the columns of `with_signs`.
Entry = Any


def with_signs(entries: pd.DataFrame) -> pd.DataFrame:
    """Add to each entry what it is recognised by.

    ``path`` are the names of its path that may tell a case, ``unique`` whether the last one is not given twice by
    chance, and ``root`` is where an absolute path begins. ``person`` is the patient, by the list or by the name of the
    case (BraTS, BIDS); ``time_point`` is a number for all names that may be time points of one patient.
    """
    names = entries["listed"].map(_names)
    cases = entries["listed"].map(lambda path: naming.name_of(PurePath(path)))
    guess = time_points(cases.unique().tolist(), set(cases[entries["patient"].isna()]))
    groups = {name: i for i, group in enumerate(guess.groups if guess else ()) for name in group}
    patients = entries["patient"].fillna(cases.map(naming.convention_patient)).fillna("")
    return entries.assign(
        path=names.map(lambda own: tuple(map(as_words, own))),
        unique=names.map(lambda own: bool(UNIQUE.search(own[-1]))),
        root=entries["listed"].map(lambda path: path.startswith("/") and naming.home_of(PurePath(path))),
        person=patients.map(_person),
        time_point=cases.map(groups),
    )


def look_alikes(scored: pd.DataFrame, trained: pd.DataFrame) -> Iterator[tuple[str, dict[int, str]]]:
    """Yield each way of being alike, and the index of the scored entries that are alike in this way.

    Each index comes with the two paths as listed. ``scored`` and ``trained`` are from `with_signs`.
    """
    known, pairs = defaultdict(list), defaultdict(dict)
    for other in trained.itertuples():
        for sign in _signs(other, by_patient=bool(other.patient)):
            known[sign].append(other)
    for one in scored.itertuples():
        signs = _signs(one, by_patient=not one.patient)
        alike = ((sign[0], other) for sign in signs for other in known[sign] if _alike(sign[0], one, other))
        if found := next(alike, None):  # each is reported once
            pairs[found[0]][one.Index] = f"{one.listed} and {found[1].listed}"
    for way in sorted(pairs):
        yield WAYS[way], pairs[way]


def _signs(entry: Entry, by_patient: bool) -> list[tuple[int, Hashable]]:
    """What an entry may have in common with another, by the way that it is alike then.

    A patient that only one of them names may be in the path of the other: ``by_patient`` is whether the entry that is
    known names it.
    """
    number_of = entry.primary if (entry.listed_name or "").isdecimal() else None  # given anew in each primary
    names = [name for name in entry.path if any(isinstance(word, str) for word in name)]
    signs = {
        PATH: [entry.path[-1]],
        CASE: [(as_words(entry.listed_name), number_of)] if entry.listed_name else [],
        PATIENT_IN_PATH: [(name, by_patient) for name in ([as_words(entry.patient)] if entry.patient else names)],
        MASK: {entry.label, entry.label_content} - {None},
        SEQUENCE: sorted(entry.files),
        PERSON: [entry.person] if entry.person else [],
        TIME_POINT: [] if entry.person or pd.isna(entry.time_point) else [entry.time_point],
    }
    return [(way, sign) for way, of in signs.items() for sign in of]


def _alike(way: int, one: Entry, other: Entry) -> bool:
    """Tell whether two entries with a sign in common are alike, so far that chance is no explanation.

    Patients who are named and differ are two. Paths are alike if all of their names are, or the last one is not given
    twice. Cohorts number their cases alike, though: where both files exist, and are no copies, nothing else counts;
    otherwise two names do, or one where the paths begin differently, as on two machines.
    """
    if way in (PATH, CASE) and one.patient and other.patient and one.person != other.person:
        return False
    if way == MASK and one.label != other.label:
        return _has_lesions(one)
    if way != PATH or one.path == other.path or one.unique:
        return True
    if one.exists and other.exists:
        return False
    n = min(len(one.path), len(other.path), 2)
    return one.path[-n:] == other.path[-n:] or bool(one.root and other.root and one.root != other.root)


def _names(path: str) -> list[str]:
    """Names of a path that may tell a case: no sets, and no kind of image and no time, if another name remains.

    A case may have been copied into two parts of a split. Without a patient's folder the kind of image is its name.
    """
    names = [name for name in ENDING.sub("", path, count=1).split("/") if name and not naming.SET.fullmatch(name)]
    kept = [name for name in names if not naming.is_kind_or_time(name)]
    if kept and (kept[-1] == names[-1] or (naming.is_patient(kept[-1]) and not naming.CANCER.fullmatch(kept[-1]))):
        return kept
    return names or [path]


def _has_lesions(entry: Entry) -> bool:
    """Tell whether a mask holds something: those without lesions are alike by chance."""
    try:
        with opened(entry.label_file) as file:
            return bool(file.read()[HEADER_BYTES:].strip(b"\0"))
    except (OSError, EOFError, zlib.error):
        return False


def _person(patient: str) -> Words:
    """Words of a patient's name in any order, without a word such as "patient" if others remain."""
    words = tuple(sorted(as_words(patient), key=str)) if patient else ()
    return tuple(word for word in words if word not in naming.PATIENT_WORDS.split("|")) or words
