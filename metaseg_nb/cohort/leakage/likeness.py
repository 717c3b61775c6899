"""What may be one case or one patient under two names: too uncertain for leakage, too alike to leave out."""

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Hashable, Iterator
from functools import cache, partial
from itertools import pairwise, takewhile
from pathlib import PurePath

from metaseg_nb.cohort.leakage.comparison import Comparison, Finding, cases_of
from metaseg_nb.cohort.leakage.split_lists import SplitEntry, SplitList
from metaseg_nb.cohort.problems import shortened
from metaseg_nb.cohort.sources.naming import (
    CANCER,
    PATIENT_WORDS,
    SET,
    convention_patient,
    home_of,
    is_kind_or_time,
    is_patient,
    name_of,
)
from metaseg_nb.cohort.sources.spelling import as_words
from metaseg_nb.cohort.sources.time_points import time_points

# Formats that one image may be kept in, and the channel that nnU-Net writes behind the name of a case.
ENDING = re.compile(r"((?<=\d)_000\d)?(\.(nii|nrrd|nhdr|mh[ad]|np[yz]|b2nd|hdr|img|mg[hz])(\.gz)?)?$", re.IGNORECASE)
# Such a number in a name, as in BraTS-MET-00110, is not given twice by chance.
UNIQUE = re.compile(r"\d{4}")
# A name in this many folders of other names does not identify a case.
COMMON = 3


Names = tuple[tuple, ...]
# Names, as `as_words` writes them, that identify a case; True where two cases have such a name never by chance.
Distinct = dict[tuple, bool]


def may_be_the_same(lists: list[SplitList], pairs: list[Comparison]) -> Iterator[Finding]:
    """Entries that are scored and may be cases, or of patients, that their model was trained on."""
    everything = [entry for datalist in lists for entry in datalist.entries]
    distinct, groups = _distinct({entry.listed for entry in everything}), _time_points(everything)
    ways = (
        ("paths that end alike", partial(_path_signs, distinct), partial(_paths_alike, distinct)),
        ("one case by name or folder", _case_signs, _cases_alike),
        ("one patient by name and by path", partial(_person_signs, distinct), _named_once),
        ("one mask for two images", lambda entry: {entry.label} - {None}, None),
        ("a sequence in common", lambda entry: sorted(entry.files), None),
        ("patients who may be one by their names", partial(_patient_signs, groups), _patients_alike),
    )
    for pair in pairs:
        seen = cases_of(pair.training) | {entry.patient for entry in pair.training} - {None}
        scored = [entry for entry in pair.evaluation if seen.isdisjoint((entry.case, entry.patient))]
        for way, signs, alike in ways:
            twins = dict(_twins(scored, pair.training, signs, alike))
            scored = [entry for entry in scored if entry not in twins]  # each is reported once
            if twins:
                examples = shortened(f"{one.listed} and {other.listed}" for one, other in twins.items())
                found = f"{len(twins)} of {pair.scored} may be in the training of {pair.model}: {way}, as {examples}"
                yield Finding("doubt", "may be the same", *pair.names, found, list(twins))


def _twins(
    scored: list[SplitEntry],
    trained: list[SplitEntry],
    signs: Callable[[SplitEntry], Collection[Hashable]],
    alike: Callable[[SplitEntry, SplitEntry], bool] | None,
) -> Iterator[tuple[SplitEntry, SplitEntry]]:
    """Each scored entry that shares a sign with one that is trained on, and the first such that is ``alike``."""
    having = defaultdict(list)
    for entry in trained:
        for sign in signs(entry):
            having[sign].append(entry)
    for one in scored:
        others = (other for sign in signs(one) for other in having[sign] if alike is None or alike(one, other))
        first = next(others, None)
        if first is not None:
            yield one, first


def _distinct(paths: Collection[str]) -> Distinct:
    """Look for names that identify a case: not the usual ones, nor those in many folders."""
    within = defaultdict(set)
    for path in paths:
        for folder, name in pairwise(_parts(path)):
            within[as_words(name)].add(as_words(folder))
    names = {name for path in paths for name in _parts(path) if not (is_kind_or_time(name) or SET.fullmatch(name))}
    names = {name for name in names if len(within[as_words(name)]) < COMMON}
    unique = {as_words(name) for name in names if UNIQUE.search(name)}
    return {words: words in unique for words in map(as_words, names)}


def _parts(path: str) -> list[str]:
    """Folders and file of a path but for those of a split's parts: a case may have been copied into two of them."""
    names = ENDING.sub("", path, count=1).split("/")
    return [name for name in names if name and not SET.fullmatch(name)]


@cache
def _names(path: str) -> Names:
    return tuple(map(as_words, _parts(path)))


def _path_signs(distinct: Distinct, entry: SplitEntry) -> list[Hashable]:
    # the ends that begin with a distinct name: one sign a name would compare all cases of a folder with each other
    names = _names(entry.listed)
    return [names, *(names[i:] for i, name in enumerate(names) if name in distinct)]


def _paths_alike(distinct: Distinct, one: SplitEntry, other: SplitEntry) -> bool:
    """Tell whether two paths end alike, so far that chance is no explanation.

    They end with the whole of one path, with two names that identify a case, or with one that is not given twice.
    Where both files exist, and are no copies, only the last counts: cohorts number their cases alike. Patients who
    are named and differ are two.
    """
    if _two_patients(one, other):
        return False
    names = _names(one.listed), _names(other.listed)
    ends = takewhile(lambda two: two[0] == two[1], zip(*map(reversed, names), strict=False))
    end = [name for name, _ in ends]
    shared = [name for name in end if name in distinct]
    if any(distinct[name] for name in shared):
        return True
    # sub-01/sub-01_T1w is one name twice
    n = sum(not any(later != name and later[: len(name)] == name for later in shared) for name in shared)
    whole = len(end) == min(map(len, names)) or _two_roots(one, other)
    enough = min(n, 1) if whole else n - 1
    return (enough > 0 or names[0] == names[1]) and not (one.exists and other.exists)


def _two_patients(one: SplitEntry, other: SplitEntry) -> bool:
    return bool(one.patient and other.patient) and not _patients_alike(one, other)


def _two_roots(one: SplitEntry, other: SplitEntry) -> bool:
    """Tell whether two absolute paths begin differently and name one case, as on two machines."""
    first, second = PurePath(one.listed), PurePath(other.listed)
    apart = first.is_absolute() and second.is_absolute() and home_of(first) != home_of(second)
    return apart and as_words(name_of(first)) == as_words(name_of(second))


def _case_signs(entry: SplitEntry) -> list[Hashable]:
    """The name of the case in the list, and the path without words for what an image is."""
    listed = as_words(entry.listed_name) if entry.listed_name else ()
    return [sign for sign in (("listed", listed), ("kept", _without_kinds(str(entry.image)))) if sign[1]]


@cache
def _without_kinds(path: str) -> Names:
    """The names of a path that are no kind of image; none without an own name or a patient's folder."""
    *folders, name = ENDING.sub("", path, count=1).split("/")
    kept = [folder for folder in folders if not (is_kind_or_time(folder) or SET.fullmatch(folder))]
    if not (is_kind_or_time(name) or SET.fullmatch(name)):
        return tuple(map(as_words, [*kept, name]))
    of_patient = kept and is_patient(kept[-1]) and not CANCER.fullmatch(kept[-1])
    return tuple(map(as_words, kept)) if of_patient else ()


def _cases_alike(one: SplitEntry, other: SplitEntry) -> bool:
    """Tell whether cases with a sign in common may be one: a number may be given anew in each primary."""
    numbered = bool(one.listed_name) and one.listed_name.isdecimal() and one.primary != other.primary
    return not numbered and not _two_patients(one, other)


def _person_signs(distinct: Distinct, entry: SplitEntry) -> list[tuple]:
    """The patient as listed, or the names of the path that may be a patient's."""
    names = [as_words(entry.patient)] if entry.patient else distinct.keys() & {*_names(entry.listed)}
    return [name for name in names if any(isinstance(word, str) for word in name)]


def _named_once(one: SplitEntry, other: SplitEntry) -> bool:
    return bool(one.patient) != bool(other.patient)


def _patients_alike(one: SplitEntry, other: SplitEntry) -> bool:
    """Tell whether patients are one by name: words in any order, or a number with and without a word before it."""
    first, second = (_words(_patient(entry)) for entry in (one, other))
    return first == second or (len(first) != len(second) and _number(first) == _number(second))


def _words(patient: str | None) -> Names:
    return tuple(sorted(as_words(patient), key=str)) if patient else ()


def _number(words: tuple) -> tuple:
    """The words of a patient's name without a word such as "patient"."""
    return tuple(word for word in words if word not in PATIENT_WORDS.split("|")) or words


def _patient(entry: SplitEntry) -> str | None:
    return entry.patient or convention_patient(_case_name(entry))


def _time_points(entries: Collection[SplitEntry]) -> dict[str, int]:
    """The group of each name that may be a time point of a patient."""
    names = {_case_name(entry): entry for entry in entries}
    guessed = time_points(list(names), {name for name, entry in names.items() if entry.patient is None})
    return {name: i for i, group in enumerate(guessed.groups if guessed else ()) for name in group}


def _patient_signs(groups: dict[str, int], entry: SplitEntry) -> set[Hashable]:
    """The patient as listed or in a name of BraTS or BIDS; or the group that the name may belong to."""
    name, patient = _case_name(entry), _patient(entry)
    return {_number(_words(patient))} if patient else {groups[name]} if name in groups else set()


def _case_name(entry: SplitEntry) -> str:
    return name_of(PurePath(entry.listed))
