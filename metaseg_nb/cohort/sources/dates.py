"""When the cases of a patient were taken: days since the first of them, and dates that contradict something."""

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import date
from math import nan
from os.path import commonprefix
from pathlib import Path

import pandas as pd

from metaseg_nb.cohort.cases import Cohort
from metaseg_nb.cohort.problems import Problem, broken

# Year, month and day, as programs and people write them; a time may follow. 04/05/2020 may be April or May: no date.
YEAR = r"(?P<y>(?:19|20)\d\d)"
ISO = rf"(?<!\d){YEAR}(?P<s>[-_/]?)(?P<m>\d\d)(?P=s)(?P<d>\d\d)(\d{{4}}|\d{{6}})?(?!\d)"
# With dots: no part of a longer number with dots, such as a UID.
DOTTED = [rf"{YEAR}\.(?P<m>\d\d)\.(?P<d>\d\d)", rf"(?P<d>\d{{1,2}})\.(?P<m>\d{{1,2}})\.{YEAR}"]
WRITTEN = [re.compile(form) for form in (ISO, *(rf"(?<!\d)(?<!\d\.){form}(?!\.?\d)" for form in DOTTED))]
# A text that is meant to be a date: it holds a digit, and is no year alone, which is all that coded cohorts keep.
MEANT = re.compile(r"(?!(19|20)\d\d([.,]0+)?$).*\d.*")
YEAR_DAYS = 365.25
# Patients with metastases are imaged more often than this. A longer gap may be a mistyped year.
LONGEST_GAP_DAYS = 8 * YEAR_DAYS
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

    If a patient has days that are given, they count; otherwise ``date`` does, otherwise a date in the name of the case.

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
        Of patients with several cases: a case without a date that can be read, where a case has one; two cases of one
        date; a gap of years; a date that contradicts the name, the day that is given, or the order of the names.
    """
    rows = [(of.name, of.patient, of.day, date_in(of.date), [*_dates_in(of.name)]) for of in cohort.all_cases]
    table = pd.DataFrame(rows, columns=["case", "patient", "given", "dated", "named"]).astype({"given": float})
    table = table[table.duplicated("patient", keep=False)]
    of_patient = table.groupby("patient")
    table = table.assign(
        named=of_patient["named"].transform(_apart),
        number=of_patient["case"].transform(_numbers),
        has_days=of_patient["given"].transform("count") > 0,
    )
    when = pd.to_datetime(table["dated"].fillna(table["named"]))
    table["by_date"] = (when - when.groupby(table["patient"]).transform("min")).dt.days
    table["day"] = table["given"].where(table["has_days"], table["by_date"])
    days = table.set_index("case")["day"].dropna().astype(int).to_dict()
    cohort = cohort.changed(lambda case: replace(case, day=days.get(case.name, case.day)))
    if not days:  # nothing is said of cases without a date, where no patient has any
        meant = [of.name for of in cohort.all_cases if MEANT.fullmatch(of.date)]
        table = table[table["case"].isin(meant)]
    return cohort, [*_problems(table, origin)]


def _apart(of_names: pd.Series) -> list[date | None]:
    """The date in the name of each case of a patient; one that all of them hold tells nothing apart."""
    shared = set.intersection(*map(set, of_names))
    return [next((one for one in of if one not in shared), None) for of in of_names]


def _numbers(names: pd.Series) -> list[float]:
    """The number in the name of each case of a patient, behind what all names begin with."""
    start = len(commonprefix([*names]).rstrip("0123456789"))  # noqa: RUF071 (these are no paths)
    return [float(match[1]) if (match := NUMBER.fullmatch(name[start:])) else nan for name in names]


def _problems(table: pd.DataFrame, origin: str | Path) -> Iterator[Problem]:
    # a date itself may not be shown: of it, studies with codes keep the year
    for row in table[table["day"].isna()].itertuples():
        found = "no day, where others of the patient have one" if row.has_days else "no date that can be used"
        yield broken("date of each", row.case, origin, found)
    for row in table.dropna(subset=["dated", "named"]).query("dated != named").itertuples():
        found = f"a date {abs((row.dated - row.named).days)} days from the one in the name"
        yield broken("date in name", row.case, origin, found)
    shift = (table["given"] - table["by_date"])[table["by_date"].sort_values().index]  # the patient's earliest is first
    table["other"] = shift - shift.groupby(table["patient"]).transform("first")
    for row in table[table["other"].abs() > 0].itertuples():
        found = f"day {row.given:.0f}, where its date gives day {row.given - row.other:.0f}"
        yield broken("day of date", row.case, origin, found)
    known = table.dropna(subset="day")
    for (_, day), of in known.groupby(["patient", "day"]):
        for name in of["case"].iloc[1:]:
            found = f"the date of {of['case'].iloc[0]}, day {day:.0f} of this patient"
            yield broken("one case a date", name, origin, found)
    gaps = known.sort_values("day").groupby("patient")[["case", "day"]].shift().add_suffix("_before")
    for row in known.join(gaps).query("day - day_before > @LONGEST_GAP_DAYS").itertuples():
        found = f"day {row.day:.0f}, {(row.day - row.day_before) / YEAR_DAYS:.0f} years after {row.case_before}"
        yield broken("one span of years", row.case, origin, found)
    placed = known.dropna(subset="number").sort_values(["patient", "number", "day"])
    before = placed.groupby("patient")[["case", "number", "day"]].shift().add_suffix("_before")
    later = placed.join(before).query("number > number_before and day < day_before")
    for row in later.itertuples():
        found = f"day {row.day:.0f}, before {row.case_before} with day {row.day_before:.0f}"
        yield broken("order of dates", row.case, origin, found)
