"""When the cases of a patient were taken: days since the first of them, and dates that contradict something."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import date
from itertools import pairwise
from os.path import commonprefix
from pathlib import Path

from metaseg_nb.cohort.cases import Case, Cohort
from metaseg_nb.cohort.problems import Problem, broken

# Year, month and day, as programs and people write them; a time may follow. 04/05/2020 may be April or May: no date.
YEAR = r"(?P<y>(?:19|20)\d\d)"
ISO = rf"(?<!\d){YEAR}(?P<s>[-_/]?)(?P<m>\d\d)(?P=s)(?P<d>\d\d)(\d{{4}}|\d{{6}})?(?!\d)"
# With dots: no part of a longer number with dots, such as a UID.
DOTTED = [rf"{YEAR}\.(?P<m>\d\d)\.(?P<d>\d\d)", rf"(?P<d>\d{{1,2}})\.(?P<m>\d{{1,2}})\.{YEAR}"]
WRITTEN = [re.compile(form) for form in (ISO, *(rf"(?<!\d)(?<!\d\.){form}(?!\.?\d)" for form in DOTTED))]
# The number of a time point in what tells a patient's names apart: -001, _ses-2, tp3.
NUMBER = re.compile(r"\D*(\d{1,3})\D*")


def date_in(text: str) -> date | None:
    """The date that a text holds, such as 2024-03-31, 20240331 or 31.03.2024; None without one, or with several."""
    found = {*_dates_in(text)}
    return found.pop() if len(found) == 1 else None


def _dates_in(text: str) -> Iterator[date]:
    for match in (match for form in WRITTEN for match in form.finditer(text)):
        with suppress(ValueError):  # a 13th month
            yield date(int(match["y"]), int(match["m"]), int(match["d"]))


def days_since_first(dates: Mapping[str, date | None]) -> dict[str, int | None]:
    """Days from the first date of a patient's cases to each; None where a case has no date."""
    first = min(filter(None, dates.values()), default=None)
    return {name: (of - first).days if of and first else None for name, of in dates.items()}


def with_days(cohort: Cohort, origin: str | Path = "-") -> tuple[Cohort, list[Problem]]:
    """Give each case of a patient with several its ``day``: days since the patient's first date.

    Days that are given count; otherwise ``date`` does, otherwise a date in the name of the case. A case with a date
    among others with days has its day by a case that has both.

    Parameters
    ----------
    cohort : Cohort
        Its cases have their patients.
    origin : path
        Named in problems.

    Returns
    -------
    cohort : Cohort
        A case without a date has no day, nor has the only case of a patient, unless it is given.
    problems : list of Problem
        Of patients with several cases: a case without a date, where others of the cohort have one; two cases of one
        date; a date that contradicts the name, the day that is given, or the order of the names.
    """
    of_patient = defaultdict(list)
    for case in cohort.all_cases:
        of_patient[case.patient].append(case)
    days: dict[str, int | None] = {}
    problems, dated = [], set()
    for cases in (cases for cases in of_patient.values() if len(cases) > 1):
        named = _dates_in_names(cases)
        dates = {case.name: date_in(case.date) or named[case.name] for case in cases}
        found = days_since_first(dates)
        given = {case.name: case.day for case in cases if case.day is not None}
        if given:
            both = sorted((of, given[name]) for name, of in found.items() if name in given and of is not None)
            problems += _other_days(cases, found, both, origin)
            shift = both[0][1] - both[0][0] if both else None
            found = {name: None if of is None or shift is None else of + shift for name, of in found.items()} | given
        days |= found
        dated |= {name for name, of in dates.items() if of}
        problems += [*_other_names(cases, named, origin), *_same_date(cases, found, origin)]
        problems += _out_of_order(cases, found, origin)
    if any(day is not None for day in days.values()):
        without = [case for case in cohort.all_cases if days.get(case.name, 0) is None]
        for case in without:  # a date itself may not be shown: of it, studies with codes keep the year
            words = "no date" if case.date == "unknown" else "a date that is not written as year, month and day"
            words = "a date, where others of the patient have days, and none has both" if case.name in dated else words
            problems.append(broken("date of each", case, origin, words))
    return cohort.changed(lambda case: replace(case, day=days.get(case.name, case.day))), problems


def _dates_in_names(cases: Sequence[Case]) -> dict[str, date | None]:
    """The date in the name of each case; one that all of the patient's names hold tells nothing apart."""
    of_names = [list(_dates_in(case.name)) for case in cases]
    shared = set.intersection(*map(set, of_names))
    return {
        case.name: next((one for one in of if one not in shared), None)
        for case, of in zip(cases, of_names, strict=True)
    }


def _other_names(cases: Sequence[Case], named: Mapping[str, date | None], origin: str | Path) -> Iterator[Problem]:
    for case in cases:
        given, in_name = date_in(case.date), named[case.name]
        if given and in_name and given != in_name:
            words = f"a date {abs((given - in_name).days)} days from the one in the name"
            yield broken("date in name", case, origin, words)


def _other_days(
    cases: Sequence[Case], found: Mapping[str, int | None], both: Sequence[tuple[int, int]], origin: str | Path
) -> Iterator[Problem]:
    """Cases whose day and date contradict the first of ``both``, days by date and days given of the same cases."""
    for case in cases:
        by_date = found[case.name]
        if case.day is not None and by_date is not None and case.day - both[0][1] != by_date - both[0][0]:
            words = f"day {case.day}, and a date {by_date - both[0][0]} days after that of day {both[0][1]}"
            yield broken("day of date", case, origin, words)


def _same_date(cases: Sequence[Case], found: Mapping[str, int | None], origin: str | Path) -> Iterator[Problem]:
    times = Counter(day for day in found.values() if day is not None)
    for day in [day for day, n in times.items() if n > 1]:
        first, *others = [case for case in cases if found[case.name] == day]
        for case in others:
            yield broken("one case a date", case, origin, f"the date of {first.name}, day {day} of this patient")


def _out_of_order(cases: Sequence[Case], found: Mapping[str, int | None], origin: str | Path) -> Iterator[Problem]:
    """Cases whose name has a higher number than another one, and whose date lies before it."""
    names = [case.name for case in cases]
    start = len(commonprefix(names).rstrip("0123456789"))  # noqa: RUF071 (these are no paths)
    numbers = {name: match and int(match[1]) for name in names for match in [NUMBER.fullmatch(name[start:])]}
    known = [(number, found[name], name) for name, number in numbers.items() if number is not None]
    placed = sorted((number, day, name) for number, day, name in known if day is not None)
    for (low, day, earlier), (high, sooner, later) in pairwise(placed):
        if low < high and day > sooner:
            yield broken("order of dates", later, origin, f"day {sooner}, before {earlier} with day {day}")
