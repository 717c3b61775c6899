"""Find what may be one case or one patient under two names; a person has to decide."""

import re
import zlib
from collections import defaultdict
from collections.abc import Collection, Hashable, Iterator
from itertools import pairwise, takewhile
from pathlib import PurePath
from typing import Any

import pandas as pd

from metaseg_nb.cohort.file_kinds import opened
from metaseg_nb.cohort.sources import naming
from metaseg_nb.cohort.sources.one_patient import time_points
from metaseg_nb.cohort.sources.spelling import as_words

# Formats that one image may be kept in, and the channel that nnU-Net writes behind the name of a case.
ENDING = re.compile(r"((?<=\d)_000\d)?(\.(nii|nrrd|nhdr|mh[ad]|np[yz]|b2nd|hdr|img|mg[hz])(\.gz)?)?$", re.IGNORECASE)
# Such a number in a name, as in BraTS-MET-00110, is not given twice by chance.
UNIQUE = re.compile(r"\d{4}")
# A name in this many folders of other names does not identify a case.
COMMON = 3
# Of NIfTI-2, the longer one.
HEADER_BYTES = 544

# Words and numbers of a name, as `as_words` gives them.
Words = tuple[str | int, ...]
# A row of the table of entries, with the columns of `with_signs`.
Entry = Any


def with_signs(entries: pd.DataFrame) -> pd.DataFrame:
    """Add to each entry what it is recognised by: ``names`` of its path, and of these the ``distinct`` ones.

    ``distinct`` names identify a case; they are True where two cases have such a name never by chance. ``words`` are
    those of the patient, by the list or by the name of the case (BraTS, BIDS); ``time_point`` is a number for all
    names that may be time points of one patient.
    """
    names = entries["listed"].map(lambda path: tuple(map(as_words, _parts(path))))
    cases = entries["listed"].map(lambda path: naming.name_of(PurePath(path)))
    distinct = _distinct(entries["listed"].unique())
    guess = time_points(cases.unique().tolist(), set(cases[entries["patient"].isna()]))
    groups = {name: i for i, group in enumerate(guess.groups if guess else ()) for name in group}
    patients = entries["patient"].fillna(cases.map(naming.convention_patient)).fillna("")
    return entries.assign(
        names=names,
        distinct=names.map(lambda own: {name: distinct[name] for name in own if name in distinct}),
        words=patients.map(lambda patient: tuple(sorted(as_words(patient), key=str)) if patient else ()),
        time_point=cases.map(groups),
    )


def look_alikes(scored: pd.DataFrame, trained: pd.DataFrame) -> Iterator[tuple[str, dict[int, str]]]:
    """Yield each way of being alike, and the index of the scored entries that are alike in this way.

    Each index comes with the two paths as listed. ``scored`` and ``trained`` are from `with_signs`.
    """
    ways = (
        ("paths that end alike", _path_signs, _paths_alike),
        ("one case by name or folder", _case_signs, _cases_alike),
        ("one patient by name and by path", _person_signs, lambda a, b: bool(a.patient) != bool(b.patient)),
        ("one mask for two images", lambda entry: {entry.label, entry.label_content} - {None}, _masks_alike),
        ("a sequence in common", lambda entry: sorted(entry.files), lambda a, b: True),
        ("patients whose names may mean one person", _patient_signs, _patients_alike),
    )
    remaining, known = list(scored.itertuples()), list(trained.itertuples())
    for way, signs, alike in ways:
        having = defaultdict(list)
        for entry in known:
            for sign in signs(entry):
                having[sign].append(entry)
        pairs = {}
        for one in remaining:
            others = (other for sign in signs(one) for other in having[sign] if alike(one, other))
            if other := next(others, None):
                pairs[one.Index] = f"{one.listed} and {other.listed}"
        remaining = [entry for entry in remaining if entry.Index not in pairs]  # each is reported once
        if pairs:
            yield way, pairs


def _distinct(paths: Collection[str]) -> dict[Words, bool]:
    """Look for names that identify a case: not the usual ones, nor those in many folders."""
    within = defaultdict(set)
    for path in paths:
        for folder, name in pairwise(_parts(path)):
            within[as_words(name)].add(as_words(folder))
    names = {name for path in paths for name in _parts(path) if not _is_usual(name)}
    names = {name for name in names if len(within[as_words(name)]) < COMMON}
    unique = {as_words(name) for name in names if UNIQUE.search(name)}
    return {words: words in unique for words in map(as_words, names)}


def _is_usual(name: str) -> bool:
    return bool(naming.is_kind_or_time(name) or naming.SET.fullmatch(name))


def _parts(path: str) -> list[str]:
    """Folders and file of a path but for those of a split's parts: a case may have been copied into two of them."""
    return [name for name in ENDING.sub("", path, count=1).split("/") if name and not naming.SET.fullmatch(name)]


def _path_signs(entry: Entry) -> list[Hashable]:
    # the ends that begin with a distinct name: one sign a name would compare all cases of a folder with each other
    return [entry.names, *(entry.names[i:] for i, name in enumerate(entry.names) if name in entry.distinct)]


def _paths_alike(one: Entry, other: Entry) -> bool:
    """Tell whether two paths end alike, so far that chance is no explanation.

    They end with the whole of one path, with two names that identify a case, or with one that is not given twice.
    Where both files exist, and are no copies, only the last counts: cohorts number their cases alike. Patients who
    are named and differ are two.
    """
    if _two_patients(one, other):
        return False
    ends = takewhile(lambda two: two[0] == two[1], zip(reversed(one.names), reversed(other.names), strict=False))
    end = [name for name, _ in ends]
    shared = [name for name in end if name in one.distinct]
    if any(one.distinct[name] for name in shared):
        return True
    if one.exists and other.exists:
        return False
    # sub-01/sub-01_T1w is one name twice
    n = sum(not any(later != name and later[: len(name)] == name for later in shared) for name in shared)
    is_whole = len(end) == min(len(one.names), len(other.names)) or _two_roots(one, other)
    return one.names == other.names or n >= (1 if is_whole else 2)


def _two_roots(one: Entry, other: Entry) -> bool:
    """Tell whether two absolute paths begin differently and name one case, as on two machines."""
    first, second = PurePath(one.listed), PurePath(other.listed)
    apart = first.is_absolute() and second.is_absolute() and naming.home_of(first) != naming.home_of(second)
    return apart and as_words(naming.name_of(first)) == as_words(naming.name_of(second))


def _case_signs(entry: Entry) -> list[Hashable]:
    """The name of the case in the list; and the path without words for what an image is, if an own name remains."""
    *folders, name = ENDING.sub("", str(entry.image), count=1).split("/")
    kept = [folder for folder in folders if not _is_usual(folder)]
    if not _is_usual(name):
        kept.append(name)
    elif not (kept and naming.is_patient(kept[-1]) and not naming.CANCER.fullmatch(kept[-1])):
        kept = []
    signs = ("listed", entry.listed_name and as_words(entry.listed_name)), ("kept", tuple(map(as_words, kept)))
    return [sign for sign in signs if sign[1]]


def _cases_alike(one: Entry, other: Entry) -> bool:
    """Tell whether cases with a sign in common may be one: a number may be given anew in each primary."""
    is_numbered = bool(one.listed_name) and one.listed_name.isdecimal() and one.primary != other.primary
    return not is_numbered and not _two_patients(one, other)


def _masks_alike(one: Entry, other: Entry) -> bool:
    """Tell whether masks are one file or copies; those without lesions are alike by chance."""
    if one.label == other.label:
        return True
    try:
        with opened(one.label_file) as file:
            return bool(file.read()[HEADER_BYTES:].strip(b"\0"))
    except (OSError, EOFError, zlib.error):
        return False


def _person_signs(entry: Entry) -> list[Words]:
    """The patient as listed, or the names of the path that may be a patient's."""
    names = [as_words(entry.patient)] if entry.patient else entry.distinct
    return [name for name in names if any(isinstance(word, str) for word in name)]


def _patient_signs(entry: Entry) -> list[Hashable]:
    """The patient as listed or in a name of BraTS or BIDS; or the time points that the name may belong to."""
    if entry.words:
        return [_number(entry.words)]
    return [] if pd.isna(entry.time_point) else [entry.time_point]


def _patients_alike(one: Entry, other: Entry) -> bool:
    """Tell whether patients are one by name: words in any order, or a number with and without a word before it."""
    first, second = one.words, other.words
    return first == second or (len(first) != len(second) and _number(first) == _number(second))


def _two_patients(one: Entry, other: Entry) -> bool:
    return bool(one.patient and other.patient) and not _patients_alike(one, other)


def _number(words: Words) -> Words:
    """The words of a patient's name without a word such as "patient"."""
    return tuple(word for word in words if word not in naming.PATIENT_WORDS.split("|")) or words
