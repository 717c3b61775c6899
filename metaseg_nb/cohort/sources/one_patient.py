"""Which cases are of one patient: named in a list or table, read from the names of cases, or each case its own."""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from metaseg_nb.cohort.cases import Case, Cohort
from metaseg_nb.cohort.problems import Problem, broken, refusal, shortened
from metaseg_nb.cohort.sources.naming import CANCER, COUNTED, RUNNING_ID, TIME, convention_patient, is_kind
from metaseg_nb.cohort.sources.spelling import loosely, stem, tidy
from metaseg_nb.cohort.sources.time_points import TimePoints, time_points

EACH_ITS_OWN = "(?P<patient>.+)"
NAMED, BY_PATTERN = "named by the list or the patients table", "read from the names with `patient_pattern`"
BY_CONVENTION = "read from names in the form of BraTS or BIDS"
ITS_OWN = "not named: each case counts as a patient of its own"
# Groups that are shown.
SHOWN_GROUPS = 5


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
        by_convention = convention_patient(case.name)
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


def _spelled_alike(cases: Sequence[Case]) -> Iterator[Problem]:
    """Cases whose patient is another's but for capitals, separators, leading zeros and how numbers are written."""
    first: dict[tuple, str] = {}
    for case in cases:
        other = first.setdefault(loosely(case.patient), case.patient)
        if other != case.patient:
            yield broken("one spelling", case, case.image, f"patients {other} and {case.patient}")


def repeated_files(cases: Sequence[Case]) -> Iterator[Problem]:
    """Files that one case has twice, as a mask taken for a sequence; sequences that are a file of another patient."""
    files = [Counter(map(os.path.realpath, case.files)) for case in cases]
    patients: dict[str, set[str]] = defaultdict(set)
    for case, of in zip(cases, files, strict=True):
        for path in of:
            patients[path].add(case.patient)
    for case, of in zip(cases, files, strict=True):
        for path, times in of.items():
            if times > 1:
                yield broken("each file once", case, path, f"listed {times} times, as sequence or mask")
        for path in case.images:
            if others := patients[os.path.realpath(path)] - {case.patient}:
                yield broken("each file once", case, path, f"listed for patient {' and '.join(sorted(others))} too")


def _in_two_folders(cases: Sequence[Case]) -> Iterator[Problem]:
    """Cases that differ in the folder above only: ``train/P007`` and ``test/P007``."""
    own = [(case, folder) for case in cases if (folder := _own_folder(case))]
    # running numbers with few gaps from 1 on start anew in each primary cancer: lung/P1, lung/P2
    numbers: dict[str, set[int]] = defaultdict(set)
    for case, folder in own:
        if CANCER.search(case.primary) and RUNNING_ID.fullmatch(folder):
            numbers[case.primary].add(int("".join(filter(str.isdigit, folder))))
    anew = {primary for primary, of in numbers.items() if max(of) <= 2 * len(of)}
    seen: dict[tuple, list[Case]] = defaultdict(list)
    for case, folder in own:
        apart = anew - {case.primary} if case.primary in anew and RUNNING_ID.fullmatch(folder) else set()
        other = next((each for each in seen[loosely(folder)] if each.primary not in apart), None)
        if other is not None:
            found = f"{folder} in two folders, as {other.name} and {case.name}"
            yield broken("one folder", case, case.image, found)
        seen[loosely(folder)].append(case)


def _own_folder(case: Case) -> str:
    """The end of a case's name that is its own file or folder; empty for a kind of image, a time or a number."""
    parts = (tidy(part) for part in (stem(case.image.name), case.image.parent.name))
    folder = next((part for part in parts if case.name.endswith(f"_{part}")), "")
    counted = is_kind(folder, COUNTED) or TIME.fullmatch(folder)
    return folder if re.search(r"[^\W\d_]", folder) and not counted else ""
