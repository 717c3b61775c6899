"""What may be one case or one patient under two names: not sure enough to call it leakage, too alike to say nothing."""

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Hashable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from itertools import pairwise, takewhile
from pathlib import PurePath

from metaseg_nb.cohort.leakage.comparison import Finding, cases_of, comparisons, counted
from metaseg_nb.cohort.leakage.spelling import as_words, without_format
from metaseg_nb.cohort.leakage.split_lists import Entry, SplitList
from metaseg_nb.cohort.problems import shortened
from metaseg_nb.cohort.sources.naming import (
    CANCER,
    KIND_WORDS,
    NUMBERED_SET,
    PATIENT_ID,
    SEPARATORS,
    SET,
    convention_patient,
    name_of,
)
from metaseg_nb.cohort.sources.time_points import time_points

# Folders of a split's parts: a case that was copied into two of them is what is looked for.
PART = re.compile(
    r"(images?|labels?)?[-_ ]?(tr|ts|train(ing)?|val|valid(ation)?|test(ing)?)[-_ ]?(set|data)?|(fold|split)[-_ ]?\d+",
    re.IGNORECASE,
)
# Names of files and folders that many cases share.
PLAIN = re.compile(
    r"(images?|imgs?|labels?|masks?|seg(mentation)?s?|scans?|data|niftis?|nii|mri?|anat|raw|brain|head"
    r"|t[12][a-z]*([-_ ](ce|gd|post|contrast))?|flair|pre(op)?|post(op)?|baseline|ses-\w+"
    r"|(session|visit|tp|time([-_ ]?point)?|fu|follow[-_ ]?up|scan|study|date|day|month|year)[-_ ]?\d*"
    r"|(19|20)\d\d[-_.]?\d\d[-_.]?\d\d)",
    re.IGNORECASE,
)
# Such a number in a name, as in BraTS-MET-00110, is not given twice by chance.
UNIQUE = re.compile(r"\d{4}")
# The channel that nnU-Net writes behind the name of a case.
CHANNEL = re.compile(r"(?<=\d)_000\d$")
# Words before the number of a patient.
PATIENT_WORDS = {"p", "pat", "patient", "patients", "sub", "subj", "subject", "case", "id", "no", "nr"}
# A name in as many folders of other names tells no case from another.
COMMON = 3


Names = tuple[tuple, ...]


@dataclass(frozen=True)
class _Telling:
    """Names, as `as_words` writes them, that tell a case from others; of these, the ones not given twice by chance."""

    names: frozenset[tuple]
    unique: frozenset[tuple]


def may_be_the_same(lists: list[SplitList]) -> Iterator[Finding]:
    """Entries that are scored and may be cases, or of patients, that their model was trained on."""
    telling = _telling({entry.listed for datalist in lists for entry in datalist.entries})
    groups = _time_points([entry for datalist in lists for entry in datalist.entries])
    for pair in comparisons(lists):
        seen = cases_of(pair.training) | {entry.patient for entry in pair.training} - {None}
        scored = [entry for entry in pair.evaluation if seen.isdisjoint((entry.case, entry.patient))]
        for way, signs, alike in (
            ("paths that end alike", partial(_path_signs, telling), partial(_paths_alike, telling)),
            ("one case by name or folder", _case_signs, _cases_alike),
            ("one patient by name and by path", partial(_person_signs, telling), _named_once),
            ("one mask for two images", lambda entry: {entry.label} - {None}, None),
            ("a sequence in common", lambda entry: sorted(entry.files), None),
            ("patients who may be one by their names", partial(_patient_signs, groups), _patients_alike),
        ):
            twins = dict(_twins(scored, pair.training, signs, alike))
            scored = [entry for entry in scored if entry not in twins]  # each is said once
            if twins:
                examples = shortened(f"{one.listed} and {other.listed}" for one, other in twins.items())
                found = (
                    f"{len(twins)} of {counted(pair.evaluation, 'entry')} of {pair.part} of {pair.evaluated.name} "
                    f"may be in the training of {pair.model}: {way}, as {examples}"
                )
                yield Finding("doubt", "may be the same", pair.evaluated.name, pair.trained.name, found, list(twins))


def _twins(
    scored: list[Entry],
    trained: list[Entry],
    signs: Callable[[Entry], Collection[Hashable]],
    alike: Callable[[Entry, Entry], bool] | None,
) -> Iterator[tuple[Entry, Entry]]:
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


def _telling(paths: Collection[str]) -> _Telling:
    """Look for names that tell a case: not the usual ones, nor those in many folders."""
    within = defaultdict(set)
    for path in paths:
        for folder, name in pairwise(_parts(path)):
            within[as_words(name)].add(as_words(folder))
    names = {name for path in paths for name in _parts(path) if not PLAIN.fullmatch(name)}
    names = {name for name in names if len(within[as_words(name)]) < COMMON}
    return _Telling(frozenset(map(as_words, names)), frozenset(as_words(name) for name in names if UNIQUE.search(name)))


def _parts(path: str) -> list[str]:
    names = CHANNEL.sub("", without_format(path)).split("/")
    return [name for name in names if name not in ("", ".", "..") and not PART.fullmatch(name)]


@cache
def _names(path: str) -> Names:
    return tuple(map(as_words, _parts(path)))


def _path_signs(telling: _Telling, entry: Entry) -> list[Hashable]:
    # the ends that begin with a telling name: one sign a name would compare all cases of a folder with each other
    names = _names(entry.listed)
    return [names, *(names[i:] for i, name in enumerate(names) if name in telling.names)]


def _paths_alike(telling: _Telling, one: Entry, other: Entry) -> bool:
    """Tell whether two paths end alike, so far that chance is no explanation.

    The whole of one path, two names that tell a case, or one that is not given twice, at
    the end of both. Where both files are there, and are no copies, only the last counts:
    cohorts number their cases alike. Patients who are named and differ are two.
    """
    if _two_patients(one, other):
        return False
    names = _names(one.listed), _names(other.listed)
    ends = takewhile(lambda two: two[0] == two[1], zip(*map(reversed, names), strict=False))
    end = [name for name, _ in ends]
    tell = [name for name in end if name in telling.names]
    if not telling.unique.isdisjoint(tell):
        return True
    # sub-01/sub-01_T1w tells one thing twice
    n = sum(not any(later != name and later[: len(name)] == name for later in tell) for name in tell)
    whole = len(end) == min(map(len, names)) or _two_roots(one, other)
    enough = min(n, 1) if whole else n - 1
    return (enough > 0 or names[0] == names[1]) and not (one.there and other.there)


def _two_patients(one: Entry, other: Entry) -> bool:
    return bool(one.patient and other.patient) and not _patients_alike(one, other)


def _two_roots(one: Entry, other: Entry) -> bool:
    """Tell whether two absolute paths begin differently and name one case, as on two machines."""
    first, second = PurePath(one.listed), PurePath(other.listed)
    apart = first.is_absolute() and second.is_absolute() and first.parts[1:2] != second.parts[1:2]
    return apart and as_words(_case_name(one)) == as_words(_case_name(other))


def _case_signs(entry: Entry) -> list[Hashable]:
    """The case as the list calls it, and the path without words for what an image is."""
    called = as_words(entry.called) if entry.called else ()
    kept = _without_kinds(CHANNEL.sub("", without_format(str(entry.image))))
    return [sign for sign in (("called", called), ("kept", kept)) if sign[1]]


@cache
def _without_kinds(path: str) -> Names:
    """The names of a path that tell whose image it is; none where that is no patient's folder and no own name."""
    *folders, name = path.split("/")
    kept = [folder for folder in folders if not (_is_kind(folder) or PART.fullmatch(folder) or SET.fullmatch(folder))]
    if not _is_kind(name):
        return tuple(map(as_words, [*kept, name]))
    of_patient = kept and PATIENT_ID.search(kept[-1]) and not NUMBERED_SET.fullmatch(kept[-1])
    return tuple(map(as_words, kept)) if of_patient and not CANCER.fullmatch(kept[-1]) else ()


def _is_kind(name: str) -> bool:
    return bool(PLAIN.fullmatch(name)) or all(map(KIND_WORDS.fullmatch, SEPARATORS.split(name)))


def _cases_alike(one: Entry, other: Entry) -> bool:
    """Tell whether cases with a sign in common may be one: a number may be given anew in each primary."""
    numbered = bool(one.called) and one.called.isdecimal() and one.primary != other.primary
    return not numbered and not _two_patients(one, other)


def _person_signs(telling: _Telling, entry: Entry) -> list[tuple]:
    """The patient as listed, or the names of the path that may be a patient's."""
    names = [as_words(entry.patient)] if entry.patient else telling.names.intersection(_names(entry.listed))
    return [name for name in names if any(isinstance(word, str) for word in name)]


def _named_once(one: Entry, other: Entry) -> bool:
    return bool(one.patient) != bool(other.patient)


def _patients_alike(one: Entry, other: Entry) -> bool:
    """Tell whether patients are one by name: words in any order, or a number with and without a word before it."""
    first, second = (_words(_patient(entry)) for entry in (one, other))
    return first == second or (len(first) != len(second) and _number(first) == _number(second))


def _words(patient: str | None) -> Names:
    return tuple(sorted(as_words(patient), key=str)) if patient else ()


def _number(words: tuple) -> tuple:
    """The words of a patient's name but for one that says that a patient follows."""
    return tuple(word for word in words if word not in PATIENT_WORDS) or words


def _patient(entry: Entry) -> str | None:
    return entry.patient or convention_patient(_case_name(entry))


def _time_points(entries: Collection[Entry]) -> dict[str, int]:
    """The group of each name that may be a time point of a patient."""
    names = {_case_name(entry): entry for entry in entries}
    guessed = time_points(list(names), {name for name, entry in names.items() if entry.patient is None})
    return {name: i for i, group in enumerate(guessed.groups if guessed else ()) for name in group}


def _patient_signs(groups: dict[str, int], entry: Entry) -> set[Hashable]:
    """The patient as listed or as the name tells by a convention; or the group that the name may belong to."""
    name = _case_name(entry)
    patient = _patient(entry)
    return {_number(_words(patient))} if patient else {groups[name]} if name in groups else set()


def _case_name(entry: Entry) -> str:
    return name_of(PurePath(entry.listed))
