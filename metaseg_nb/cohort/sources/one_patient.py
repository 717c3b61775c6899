"""Which cases are of one patient: named in a list or table, read from the names of cases, or each case its own.

Names that look like time points of one patient are a guess, which a person has to confirm.
"""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from metaseg_nb.cohort.cases import Case, Cohort
from metaseg_nb.cohort.problems import Problem, broken, grouped, refusal, shortened
from metaseg_nb.cohort.sources import naming
from metaseg_nb.cohort.sources.spelling import loosely, stem, tidy

EACH_ITS_OWN = "(?P<patient>.+)"
NAMED, BY_PATTERN = "named by the list or the patients table", "read from the names with `patient_pattern`"
BY_CONVENTION = "read from names in the form of BraTS or BIDS"
ITS_OWN = "not named: each case counts as a patient of its own"
# Groups that are shown.
SHOWN_GROUPS = 5
# More images of one patient are not believed: after an id, and after another word.
MANY, SEVERAL = 24, 6
# The number of a site or scanner, then of a patient: 01-001, 3T_01.
NUMBER_OF_A_SITE = re.compile(r"\d+ \d{3,}|\d([.,]\d)? T[-_ ]\d+", re.IGNORECASE)
# The time in the name of each case, by patient.
Times = Mapping[str, Mapping[str, str]]


def with_patients(cohort: Cohort, pattern: str = "", origin: str | Path = "-") -> tuple[Cohort, list[Problem]]:
    """Give each case its patient; ``patients_from`` of the cohort describes where the patients come from.

    What a list or table names counts (``Case.patient``; empty: not named). Otherwise ``pattern`` reads the patient
    from the case's name, or, without one, the conventions of BraTS and BIDS do. Each other case is a patient of its
    own; where the names of such cases look like time points of one patient, that is an error until ``pattern``,
    a list or a table names the patients.

    Parameters
    ----------
    cohort : Cohort
    pattern : str
        Regular expression with the group ``patient``, searched in each case's name; other groups, such as ``time``,
        mean nothing.
    origin : path
        Named in problems.

    Raises
    ------
    CohortError
        ``pattern`` is no regular expression, or has no group ``patient``.
    """
    patient_of = patient_reader(pattern)
    patients = {case.name: patient_of(case) for case in cohort.all_cases}
    problems = [*_pattern_problems(cohort.all_cases, patients, pattern, origin)] if pattern else []
    counts = Counter(source for _, source in patients.values())
    of = {source: f" of {count} cases" if len(counts) > 1 else "" for source, count in counts.items()}
    basis = ". ".join(f"Patients{which} are {source}" for source, which in of.items()) + "."
    own = {name for name, (_, source) in patients.items() if source == ITS_OWN}
    if guessed := time_points(list(patients), own, {case.primary for case in cohort.all_cases}):
        found, fix = _groups(guessed), _ask(guessed.pattern)
        problems.append(broken("named patient", "-", origin, found, fix))
        basis += f" Not certain, please confirm: {found}. What to do: {fix}."
        own = own.difference(*guessed.groups)
    problems += _in_two_folders([case for case in cohort.all_cases if case.name in own])

    def with_patient(case: Case) -> Case:
        patient, source = patients[case.name]
        # a folder that turns out to be the patient's is no primary
        primary = "unknown" if source == BY_PATTERN and case.primary == patient else case.primary
        return replace(case, patient=patient or case.name, primary=primary)

    cohort = cohort.changed(with_patient, patients_from=basis)
    return cohort, [*problems, *_spelled_alike(cohort.all_cases), *repeated_files(cohort.all_cases)]


def patient_reader(pattern: str = "") -> Callable[[Case], tuple[str, str]]:
    """Make a function that returns the patient of a case (empty: ``pattern`` finds none), and its source."""
    try:
        compiled = re.compile(pattern)
        if pattern and "patient" not in compiled.groupindex:
            raise ValueError("no group patient")
    except (re.error, ValueError, RecursionError, OverflowError) as error:
        raise refusal("pattern of patient", "-", "patient_pattern", f"{pattern!r} ({error})") from error

    def read(case: Case) -> tuple[str, str]:
        if case.patient:
            return case.patient, NAMED
        if pattern:
            match = compiled.search(case.name)
            return tidy((match and match["patient"]) or ""), BY_PATTERN
        by_convention = naming.convention_patient(case.name)
        return (by_convention, BY_CONVENTION) if by_convention else (case.name, ITS_OWN)

    return read


def _pattern_problems(
    cases: Sequence[Case], patients: dict[str, tuple[str, str]], pattern: str, origin: str | Path
) -> Iterator[Problem]:
    if all(source == NAMED for _, source in patients.values()):
        yield broken("pattern needed", "-", origin, f"`patient_pattern` set to {pattern!r}")
        return
    for case in [case for case in cases if not patients[case.name][0]]:
        yield broken("pattern finds", case, case.image, f"a name in which {pattern!r} finds no patient")
    read = sorted({patient for patient, source in patients.values() if patient and source == BY_PATTERN})
    if left := time_points(read, read) if len(read) < len(patients) else None:
        yield broken("pattern joins", "-", origin, _groups(left))


def _spelled_alike(cases: Sequence[Case]) -> Iterator[Problem]:
    """Cases whose patient is another's but for capitals, separators, leading zeros and how numbers are written."""
    first: dict[tuple, str] = {}
    for case in cases:
        other = first.setdefault(loosely(case.patient), case.patient)
        if other != case.patient:
            yield broken("one spelling", case, case.image, f"patients {other} and {case.patient}")


def repeated_files(cases: Sequence[Case]) -> Iterator[Problem]:
    """Files that one case has twice, as a mask taken for a sequence; sequences that are a file of another patient."""
    patients = grouped((os.path.realpath(path), case.patient) for case in cases for path in case.files)
    for case in cases:
        for path, times in Counter(map(os.path.realpath, case.files)).items():
            if times > 1:
                yield broken("each file once", case, path, f"listed {times} times, as sequence or mask")
        for path in case.images:
            if others := {*patients[os.path.realpath(path)]} - {case.patient}:
                yield broken("each file once", case, path, f"listed for patient {' and '.join(sorted(others))} too")


def _in_two_folders(cases: Sequence[Case]) -> Iterator[Problem]:
    """Cases that differ in the folder above only: ``train/P007`` and ``test/P007``."""
    own = [(case, folder) for case in cases if (folder := _own_folder(case))]
    # running numbers with few gaps from 1 on start anew in each primary cancer: lung/P1, lung/P2
    numbers: dict[str, set[int]] = defaultdict(set)
    for case, folder in own:
        if naming.CANCER.search(case.primary) and naming.RUNNING_ID.fullmatch(folder):
            numbers[case.primary].add(int("".join(filter(str.isdigit, folder))))
    anew = {primary for primary, of in numbers.items() if max(of) <= 2 * len(of)}
    seen: dict[tuple, list[Case]] = defaultdict(list)
    for case, folder in own:
        apart = anew - {case.primary} if case.primary in anew and naming.RUNNING_ID.fullmatch(folder) else set()
        other = next((each for each in seen[loosely(folder)] if each.primary not in apart), None)
        if other is not None:
            found = f"{folder} in two folders, as {other.name} and {case.name}"
            yield broken("one folder", case, case.image, found)
        seen[loosely(folder)].append(case)


def _own_folder(case: Case) -> str:
    """The end of a case's name that is its own file or folder; empty for a kind of image, a time or a number."""
    parts = (tidy(part) for part in (stem(case.image.name), case.image.parent.name))
    folder = next((part for part in parts if case.name.endswith(f"_{part}")), "")
    counted = naming.is_kind(folder, naming.NUMBERED) or naming.TIME.fullmatch(folder)
    return folder if re.search(r"[^\W\d_]", folder) and not counted else ""


class TimePoints(NamedTuple):
    """Cases that may be of one patient.

    ``pattern`` is the ``patient_pattern`` that reads the names so, ``groups`` the names of the cases of each
    patient who has more than one.
    """

    pattern: str
    groups: list[list[str]]


def _groups(guessed: TimePoints) -> str:
    n = len(guessed.groups)
    listed = "; ".join(shortened(group) for group in guessed.groups[:SHOWN_GROUPS])
    more = f"; and {n - SHOWN_GROUPS} more" if n > SHOWN_GROUPS else ""
    return f"case names that look like time points of {n} patient{'s' * (n > 1)}: {listed}{more}"


def _ask(pattern: str) -> str:
    quoted = pattern.replace("'", "''")  # as YAML takes it
    return (
        f"if they are time points, set patient_pattern: '{quoted}' in the study file; if each case is a patient of "
        f"its own, set patient_pattern: '{EACH_ITS_OWN}'; or name the patients in the list or in `patients_table`"
    )


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
    shared = os.path.commonprefix([name[::-1] for name in names])[::-1]  # noqa: RUF071 (these are no paths)
    start = re.search(r"[-_. ](?!\d+$)", shared) if len(names) > 1 else None
    return shared[start.start() :] if start and all(len(name) > len(shared) for name in names) else ""


def _without(prefixes: Sequence[str], name: str) -> str:
    return next((name[len(prefix) :] for prefix in prefixes if name.casefold().startswith(prefix)), name)


def _general(time: str) -> str:
    """Turn a time that was found into a pattern: other numbers are times too."""
    digits = re.compile(r"\d+")
    return digits.sub(lambda n: rf"\d{{{len(n[0])}}}" if len(n[0]) > 3 else r"\d+", re.escape(time.lower()))


def _may_be_a_patient(name: str, times: Mapping[str, str]) -> bool:
    of_a_set = any(words.fullmatch(name) for words in (naming.NUMBERED_SET, naming.SET, naming.KIND_WORDS))
    of_a_site = all(NUMBER_OF_A_SITE.fullmatch(f"{name} {time}") for time in times.values())
    return not (of_a_set or of_a_site or (naming.CANCER.search(name) and not _is_id(name)))


def _is_id(name: str) -> bool:
    """Whether a name has a number that is no year."""
    return bool(re.search(r"\d", re.sub(rf"{naming.ANY_YEAR}(?!\d)", "", name)))


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


def _low_digits(digits: int, highest: int, patients_with_several: int, patients: Times, several: Times) -> bool:
    """All names end with long numbers whose last digits are low."""
    numbers = [(patient + time, time) for patient, of in patients.items() for time in of.values()]
    long = all(re.search(rf"\d{{{digits}}}$", number) for number, _ in numbers)
    low = all(time and int(time) <= highest for _, time in numbers)
    ids = {patient[len(patient.rstrip("0123456789")) :] for patient in several}
    return long and low and len(numbers) > 3 and len(ids) >= patients_with_several


# Ways to read names, what the time looks like, and when to believe it.
# Each reads every name: one without a time is that of a patient with one image.
READINGS = (
    (r"(?i)^(?P<patient>.+?)(?:(?:[-_. ]+|(?<=\d)(?!\d))TIME)?", naming.TIME_WORDS, _time_words),
    (r"(?i)^(?:TIME[-_. ]+)?(?P<patient>.+)", f"{naming.TIME_WORDS}|{naming.DATE}", _time_words),
    (r"^(?P<patient>.+?)(?:(?:[-_. ]+|(?<=\d)x)TIME)?", naming.ANY_DATE, _time_words),
    (r"^(?P<patient>.+?)(?:(?<=\d)TIME)?", "[A-Za-z]", _few),
    (r"^(?P<patient>.+?)(?:[-_. ]+TIME)?", r"\d{1,3}", _numbered),
    (r"^(?P<patient>.+?)TIME?", r"\d\d", partial(_low_digits, 4, 9, 1)),
    (r"^(?P<patient>.+?)TIME?", r"\d", partial(_low_digits, 3, 2, 3)),
    (r"^(?P<patient>.+?)(?:[-_. ]TIME)?", "[^-_. ]+", _repeated),
)
