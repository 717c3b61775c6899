"""Cases whose names suggest that they are images of one patient: a guess, which a person has to confirm."""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile

from metaseg_nb.cohort.sources.naming import CANCER, DATE, KIND_WORDS, NUMBERED_SET, SET, SHORT_DATE, TIME_WORDS, YEAR

# More images of one patient are not believed: after an id, and after another word.
MANY, SEVERAL = 24, 6
# The number of a site or scanner, then of a patient: 01-001, 3T_01.
NUMBER_OF_A_SITE = re.compile(r"\d+ \d{3,}|\d([.,]\d)? T[-_ ]\d+", re.IGNORECASE)
# The time in the name of each case, by patient.
Times = Mapping[str, Mapping[str, str]]


@dataclass(frozen=True)
class TimePoints:
    """Cases that may be of one patient.

    ``pattern`` is the ``patient_pattern`` that reads the names so, ``groups`` the names of the cases of each
    patient who has more than one.
    """

    pattern: str
    groups: list[list[str]]


def time_points(names: Sequence[str], unnamed: Collection[str], primaries: Collection[str] = ()) -> TimePoints | None:
    """Look for names that differ in a time point only; of several ways to read them the one that joins most cases.

    Running numbers (``case_001`` to ``case_273``), numbers of a site (``01-001``, ``3T_01``) and
    ``<primary>_<case>`` are no time points.

    Parameters
    ----------
    names : sequence of str
        Of all cases.
    unnamed : collection of str
        Those whose patient no list or table names: one of them is in each group.
    primaries : collection of str
        Of the cohort: a name may start with one, as of ``<primary>/<case>/``.
    """
    prefixes = tuple(f"{primary}_{end}".casefold() for primary in primaries for end in ("nii_", ""))
    ending, found = re.escape(_common_ending(names)), []
    for pattern, time, believable in READINGS:
        patients: dict[str, dict[str, str]] = defaultdict(dict)
        for name in names:
            match = re.search(f"{pattern.replace('TIME', f'(?P<time>{time})')}{ending}$", name)
            patients[match["patient"] if match else name][name] = (match and match["time"]) or ""
        alone = {patient: _without(prefixes, patient) for patient in patients}
        several = {
            patient: of
            for patient, of in patients.items()
            if len(of) > 1 and _may_be_a_patient(alone[patient], of) and not of.keys().isdisjoint(unnamed)
        }
        # with one patient alone it is the name of the cohort that stands before the number
        if several and len(set(alone.values())) > 1 and believable(patients, several):
            words = {_general(word) for of in several.values() for word in of.values() if word}
            time = time if time.startswith(("[", r"\d")) else "|".join(sorted(words))
            whole = f"{pattern.replace('TIME', f'(?P<time>{time})')}{ending}$"
            found.append(TimePoints(whole, [sorted(of) for of in several.values()]))
    return max(found, key=lambda each: sum(map(len, each.groups)), default=None)


def _common_ending(names: Sequence[str]) -> str:
    """What all names end with, from a separator on, such as ``_t1c``; never a number alone."""
    alike = takewhile(lambda letters: len(set(letters)) == 1, zip(*(name[::-1] for name in names), strict=False))
    shared = "".join(letters[0] for letters in alike)[::-1]
    start = re.search(r"[-_. ](?!\d+$)", shared) if len(names) > 1 else None
    return shared[start.start() :] if start and all(len(name) > len(shared) for name in names) else ""


def _without(prefixes: Sequence[str], name: str) -> str:
    return next((name[len(prefix) :] for prefix in prefixes if name.casefold().startswith(prefix)), name)


def _general(time: str) -> str:
    """Turn a time that was found into a pattern: other numbers are times too."""
    digits = re.compile(r"\d+")
    return digits.sub(lambda n: rf"\d{{{len(n[0])}}}" if len(n[0]) > 3 else r"\d+", re.escape(time.lower()))


def _may_be_a_patient(name: str, times: Mapping[str, str]) -> bool:
    of_a_set = any(words.fullmatch(name) for words in (NUMBERED_SET, SET, KIND_WORDS))
    of_a_site = all(NUMBER_OF_A_SITE.fullmatch(f"{name} {time}") for time in times.values())
    return not (of_a_set or of_a_site or (CANCER.search(name) and not _is_id(name)))


def _is_id(name: str) -> bool:
    """Whether a name has a number that is no year."""
    return bool(re.search(r"\d", re.sub(rf"{YEAR}(?!\d)", "", name)))


def _time_words(patients: Times, several: Times) -> bool:
    """A word or a date is a time, unless it is the number of a case in a large set."""
    return any(_is_id(patient) or len(of) <= SEVERAL for patient, of in several.items())


def _few(patients: Times, several: Times) -> bool:
    return max(map(len, several.values())) <= MANY


def _numbered(patients: Times, several: Times) -> bool:
    """A few numbers after each id."""
    return _few(patients, several) and any(map(_is_id, several))


def _repeated(patients: Times, several: Times) -> bool:
    """Anything after many ids, or the same few words after each of the ids or of many names."""
    times = Counter(time.lower() for of in several.values() for time in of.values())
    same = sum(patients > 1 for patients in times.values()) >= len(times) / 2
    ids, many = all(map(_is_id, several)), len(patients) >= max(map(len, several.values()))
    return _few(patients, several) and same + ids + many > 1


def _low_digits(digits: int, highest: int, patients_with_several: int) -> Callable[[Times, Times], bool]:
    """All names end with long numbers whose last digits are low."""

    def believable(patients: Times, several: Times) -> bool:
        numbers = [(patient + time, time) for patient, of in patients.items() for time in of.values()]
        long = all(re.search(rf"\d{{{digits}}}$", number) for number, _ in numbers)
        low = all(time and int(time) <= highest for _, time in numbers)
        ids = {patient[len(patient.rstrip("0123456789")) :] for patient in several}
        return long and low and len(numbers) > 3 and len(ids) >= patients_with_several

    return believable


# Ways to read names, what the time looks like, and when to believe it.
# Each reads every name: one without a time is that of a patient with one image.
READINGS = (
    (r"(?i)^(?P<patient>.+?)(?:(?:[-_. ]+|(?<=\d)(?!\d))TIME)?", TIME_WORDS, _time_words),
    (r"(?i)^(?:TIME[-_. ]+)?(?P<patient>.+)", f"{TIME_WORDS}|{DATE}", _time_words),
    (r"^(?P<patient>.+?)(?:(?:[-_. ]+|(?<=\d)x)TIME)?", f"{DATE}|{SHORT_DATE}|{YEAR}", _time_words),
    (r"^(?P<patient>.+?)(?:(?<=\d)TIME)?", "[A-Za-z]", _few),
    (r"^(?P<patient>.+?)(?:[-_. ]+TIME)?", r"\d{1,3}", _numbered),
    (r"^(?P<patient>.+?)TIME?", r"\d\d", _low_digits(4, 9, 1)),
    (r"^(?P<patient>.+?)TIME?", r"\d", _low_digits(3, 2, 3)),
    (r"^(?P<patient>.+?)(?:[-_. ]TIME)?", "[^-_. ]+", _repeated),
)
