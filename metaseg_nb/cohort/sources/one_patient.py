"""Who is one patient: named in a list or table, read from the names of cases, or each case a patient of its own."""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from metaseg_nb.cohort.cases import Case, Cohort
from metaseg_nb.cohort.problems import CohortError, Problem, shortened
from metaseg_nb.cohort.sources.naming import CANCER, KIND_WORDS, SEPARATORS, TIME, convention_patient, stem
from metaseg_nb.cohort.sources.strict import loosely, tidy
from metaseg_nb.cohort.sources.time_points import TimePoints, time_points

EACH_ITS_OWN = "(?P<patient>.+)"
NAMED, BY_PATTERN = "named by the list or the patients table", "read from the names with `patient_pattern`"
BY_CONVENTION = "read from names as BraTS and BIDS give them"
ITS_OWN = "named nowhere: each case counts as a patient of its own"
RUNNING_ID = re.compile(r"(p|pat|patient|s|sub|subj|subject|id)[-_ ]?\d{1,3}", re.IGNORECASE)
COUNTED = re.compile(r"(case|site|cent(er|re))?\d*", re.IGNORECASE)
# Groups that are shown.
SHOWN_GROUPS = 5


def with_patients(cohort: Cohort, pattern: str = "", origin: str | Path = "-") -> tuple[Cohort, list[Problem]]:
    """Give each case its patient; ``patients_from`` of the cohort says on what that rests.

    What a list or table names counts (``Case.patient``; empty: not named). Otherwise ``pattern`` reads the patient
    from the case's name, or, without one, the conventions of BraTS and BIDS do. Each other case is a patient of its
    own; where the names of such cases look like time points of one patient, that is an error until ``pattern``,
    a list or a table says who is one patient.

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
    whose = patient_reader(pattern)
    said = {case.name: whose(case) for case in cohort.all_cases}
    problems = _pattern_problems(cohort.all_cases, said, pattern, origin) if pattern else []
    own = {name for name, (_, source) in said.items() if source == ITS_OWN}
    guessed = time_points(list(said), own, {case.primary for case in cohort.all_cases})
    guess = _guess(guessed, origin) if guessed else None
    problems += [guess] if guess else []
    alone = own.difference(*(guessed.groups if guessed else ()))
    problems += _in_two_folders([case for case in cohort.all_cases if case.name in alone])
    basis = _basis(Counter(source for _, source in said.values()), guess)
    cohort = cohort.changed(lambda case: _placed(case, *said[case.name]), patients_from=basis)
    return cohort, problems + _spelled_alike(cohort.all_cases)


def patient_reader(pattern: str = "") -> Callable[[Case], tuple[str, str]]:
    """Make a function that tells the patient of a case (empty: ``pattern`` finds none), and where that comes from."""
    reads = _compiled(pattern)

    def read(case: Case) -> tuple[str, str]:
        if case.patient:
            return case.patient, NAMED
        if pattern:
            match = reads.search(case.name)
            return tidy((match and match["patient"]) or ""), BY_PATTERN
        by_convention = convention_patient(case.name)
        return (by_convention, BY_CONVENTION) if by_convention else (case.name, ITS_OWN)

    return read


def _compiled(pattern: str) -> re.Pattern:
    expected = "a regular expression with the group (?P<patient>...)"
    fix = f"correct `patient_pattern`; {EACH_ITS_OWN} takes each case for a patient of its own"
    try:
        reads = re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise CohortError.one("-", "patient_pattern", f"{pattern!r} ({error})", expected, fix) from error
    if pattern and "patient" not in reads.groupindex:
        raise CohortError.one("-", "patient_pattern", f"{pattern!r}", expected, fix)
    return reads


def _placed(case: Case, patient: str, source: str) -> Case:
    # a folder that turns out to be the patient's is no primary
    primary = "unknown" if source == BY_PATTERN and case.primary == patient else case.primary
    return replace(case, patient=patient or case.name, primary=primary)


def _pattern_problems(
    cases: Sequence[Case], said: dict[str, tuple[str, str]], pattern: str, origin: str | Path
) -> list[Problem]:
    if all(source == NAMED for _, source in said.values()):
        expected = "no pattern where a list or table names every patient"
        return [Problem("-", str(origin), f"`patient_pattern` set to {pattern!r}", expected, "leave it empty")]
    expected, fix = "a pattern that finds a patient in the name of each case", "correct `patient_pattern`"
    problems = [
        Problem(case.name, str(case.image), f"no patient in this name by {pattern!r}", expected, fix)
        for case in cases
        if not said[case.name][0]
    ]
    read = sorted({patient for patient, source in said.values() if patient and source == BY_PATTERN})
    left = time_points(read, read) if len(read) < len(said) else None
    if left:
        expected = "a pattern that joins all time points of a patient"
        problems.append(Problem("-", str(origin), _groups(left), expected, fix, "warning"))
    return problems


def _guess(guessed: TimePoints, origin: str | Path) -> Problem:
    fix = (
        f"set patient_pattern: {_quoted(guessed.pattern)} in the study file if each group is one patient, or "
        f"patient_pattern: {_quoted(EACH_ITS_OWN)} if each case is a patient of its own; or name the patients in the "
        "list or in `patients_table`"
    )
    expected = "patients that are named, where names look like time points"
    return Problem("-", str(origin), _groups(guessed), expected, fix)


def _groups(guessed: TimePoints) -> str:
    groups = [shortened(group) for group in guessed.groups[:SHOWN_GROUPS]]
    more = len(guessed.groups) - len(groups)
    listed = "; ".join(groups) + (f"; and {more} more groups" if more else "")
    count = "1 group" if len(guessed.groups) == 1 else f"{len(guessed.groups)} groups"
    return f"{count} of cases that may be time points of one patient: {listed}"


def _quoted(pattern: str) -> str:
    """As YAML takes it."""
    return "'" + pattern.replace("'", "''") + "'"


def _basis(sources: Counter, guess: Problem | None) -> str:
    if len(sources) == 1:
        words = f"Patients are {next(iter(sources))}."
    else:
        words = f"Patients: {'; '.join(f'of {count} cases {source}' for source, count in sources.items())}."
    return f"{words} A guess, which you have to confirm: {guess.found}. What to do: {guess.fix}." if guess else words


def _spelled_alike(cases: Sequence[Case]) -> list[Problem]:
    """Cases whose patient is another's but for capitals, separators, leading zeros and how numbers are written."""
    patients: dict[tuple, dict[str, None]] = defaultdict(dict)
    for case in cases:
        patients[loosely(case.patient)][case.patient] = None
    first = {patient: next(iter(alike)) for alike in patients.values() for patient in alike}
    fix = (
        "write the patient alike (a spreadsheet may have changed the id), or name the case in `confirmed` if these are "
        "two patients"
    )
    expected = "patients that differ in more than spelling"
    return [
        Problem(
            case.name, str(case.image), f"patient {case.patient} beside {first[case.patient]}", expected, fix, "doubt"
        )
        for case in cases
        if first[case.patient] != case.patient
    ]


def _in_two_folders(cases: Sequence[Case]) -> list[Problem]:
    """Cases that only the folder above tells from another: ``train/P007`` and ``test/P007``."""
    first: dict[tuple, Case] = {}
    expected = "a patient's folder in one folder only, where nobody names the patients"
    fix = (
        "name the patients in the list or in `patients_table`, name the case in `confirmed` if these are two patients, "
        f"or set patient_pattern: {_quoted(EACH_ITS_OWN)} if each case is a patient of its own"
    )
    problems = []
    for case in cases:
        parts = (tidy(part) for part in (stem(case.image.name), case.image.parent.name))
        folder = next((part for part in parts if case.name.endswith(f"_{part}")), "")
        if re.search(r"[^\W\d_]", folder) and not _counts_images(folder):
            # patients may be numbered anew for each primary cancer
            anew = RUNNING_ID.fullmatch(folder) and CANCER.search(case.primary)
            other = first.setdefault((*loosely(folder), case.primary if anew else ""), case)
            if other is not case:
                found = f"{folder} as {case.name} beside {other.name}"
                problems.append(Problem(case.name, str(case.image), found, expected, fix, "doubt"))
    return problems


def _counts_images(folder: str) -> bool:
    """Whether a name says what or when an image is, or numbers cases: it starts anew in each folder."""
    words = [(word, word.rstrip("0123456789")) for word in SEPARATORS.split(folder)]
    of_images = all(any(KIND_WORDS.fullmatch(part) or COUNTED.fullmatch(part) for part in parts) for parts in words)
    return of_images or bool(TIME.fullmatch(folder))
