"""Several dates of one patient: where they come from, and each thing that can be wrong with them."""

from datetime import date
from pathlib import Path

import numpy as np
import pytest

from metaseg_nb.cohort.cases import Case, Cohort
from metaseg_nb.cohort.datalist import read_datalist, write_datalist
from metaseg_nb.cohort.problems import RULES
from metaseg_nb.cohort.sources import read_cohort
from metaseg_nb.cohort.sources.dates import date_in, with_days


def dated(*cases):
    """Days of cases (name, patient, date, day), and the problems that were found."""
    made = [
        Case(name, (Path(f"{name}.nii.gz"),), Path("l.nii.gz"), patient, "lung", date=when, day=day)
        for name, patient, when, day in cases
    ]
    cohort, problems = with_days(Cohort("c", "", made))
    return [case.day for case in cohort.cases], problems


def broken_rules(problems):
    return {
        (problem.case, rule)
        for problem in problems
        for rule, row in RULES.items()
        if row["expected"] == problem.expected
    }


@pytest.mark.parametrize(
    "text",
    ["2024-03-31", "20240331", "2024.03.31", "31.03.2024", "31.3.2024", "2024-03-31T08:00", "P1_20240331_t1"],
)
def test_a_date_is_read_as_programs_and_people_write_it(text):
    assert date_in(text) == date(2024, 3, 31)


@pytest.mark.parametrize("text", ["2024/03/31", "20240331083000", "20240331083000.000", "202403310830"])
def test_a_date_with_slashes_or_with_its_time_is_read(text):
    assert date_in(text) == date(2024, 3, 31)


@pytest.mark.parametrize("text", ["2024", "04/05/2020", "unknown", "20241331", "920240331", ""])
def test_what_is_no_whole_date_is_none(text):
    assert date_in(text) is None


@pytest.mark.parametrize("text", ["1.2.840.2001.10.11.5", "1.2.31.03.2024", "202403310"])
def test_a_part_of_a_longer_number_is_no_date(text):
    assert date_in(text) is None


def test_days_count_from_the_first_date_of_the_patient_and_the_only_case_of_a_patient_needs_none():
    rows = [("p-001", "p", "2024-03-01", None), ("p-000", "p", "01.02.2024", None), ("q", "q", "unknown", None)]
    assert dated(*rows) == ([29, 0, None], [])


def test_a_date_in_the_name_counts_where_none_is_given_and_a_number_that_all_names_share_is_none():
    days, problems = dated(("P20200101_20240301", "p", "unknown", None), ("P20200101_20240311", "p", "unknown", None))
    assert (days, problems) == ([0, 10], [])


def test_days_that_are_given_count_before_dates():
    assert dated(("a1", "a", "unknown", 5), ("a2", "a", "unknown", 90)) == ([5, 90], [])


@pytest.mark.parametrize("first", ["unknown", "2024-01-01"])
def test_days_and_dates_of_other_cases_are_not_joined_and_that_is_said(first):
    days, problems = dated(("p-0", "p", first, 0), ("p-1", "p", "2024-03-01", None), ("p-2", "p", "unknown", 90))
    assert days == [0, None, 90]
    assert [(problem.case, problem.found) for problem in problems] == [
        ("p-1", "no day, where others of the patient have one")
    ]


def test_a_first_day_without_a_date_contradicts_nothing():
    rows = [("p-0", "p", "unknown", 0), ("p-1", "p", "2024-03-01", 60), ("p-2", "p", "2024-04-30", 120)]
    assert dated(*rows) == ([0, 60, 120], [])


def test_nothing_is_said_where_no_patient_has_dates():
    assert dated(("p-000", "p", "unknown", None), ("p-001", "p", "2020", None)) == ([None, None], [])
    assert dated(("p-000", "p", "unknown", None), ("p-001", "p", "2020.0", None)) == ([None, None], [])


@pytest.mark.parametrize("dates", [("10/03/2024", "11/03/2024"), ("45382", "45400"), ("unknown", "03.24")])
def test_dates_of_which_none_can_be_read_are_named(dates):
    days, problems = dated(*((f"p-{n}", "p", text, None) for n, text in enumerate(dates)))
    assert days == [None, None]
    named = [f"p-{n}" for n, text in enumerate(dates) if text != "unknown"]
    assert [(one.case, one.found) for one in problems] == [(name, "no date that can be used") for name in named]


GOOD = ("q-0", "q", "2024-01-01", None), ("q-1", "q", "2024-02-01", None)


@pytest.mark.parametrize(
    ("rows", "case", "rule"),
    [
        ([("p-0", "p", "unknown", None), ("p-1", "p", "04/05/2020", None)], "p-1", "date of each"),
        ([("p-0", "p", "2024-01-01", None), ("p-1", "p", "20240101", None)], "p-1", "one case a date"),
        ([("p-0", "p", "2024-03-01", None), ("p-1", "p", "2024-01-01", None)], "p-1", "order of dates"),
        ([("p-0", "p", "2024-01-01", None), ("p-1", "p", "2034-03-01", None)], "p-1", "one span of years"),
        ([("p-0", "p", "1924-01-01", None), ("p-1", "p", "2024-03-01", None)], "p-1", "one span of years"),
        ([("p-0", "p", "", 0), ("p-1", "p", "", 3000)], "p-1", "one span of years"),
        (
            [("p_20240101", "p", "2024-01-01", None), ("p_20240301", "p", "2024-03-02", None)],
            "p_20240301",
            "date in name",
        ),
        ([("p-0", "p", "2024-01-01", 0), ("p-1", "p", "2024-03-01", 61)], "p-1", "day of date"),
        ([("p-1", "p", "2024-03-01", 61), ("p-0", "p", "2024-01-01", 0)], "p-1", "day of date"),
    ],
)
def test_each_contradiction_has_its_message(rows, case, rule):
    days, problems = dated(*rows, *GOOD)
    assert (case, rule) in broken_rules(problems)
    assert all("q-" not in problem.case for problem in problems)
    assert days[-2:] == [0, 31]
    assert not any("2024" in problem.found or "2020" in problem.found for problem in problems), "a date is not shown"


def test_numbers_are_compared_as_numbers():
    rows = [("p-2", "p", "2024-01-01", None), ("p-10", "p", "2024-03-01", None), ("p-1", "p", "2023-03-01", None)]
    assert dated(*rows)[1] == []


@pytest.fixture
def two_dates(write_nifti):
    """Two cases of P1, in BIDS without sidecars."""
    for session, seed in (("ses-a", 0), ("ses-b", 1)):
        name = f"bids/sub-P1/{session}/anat/sub-P1_{session}_ce-gad_T1w"
        image = np.random.default_rng(seed).random((6, 6, 6)).astype(np.float32)
        path = write_nifti(f"{name}.nii.gz", image)
        write_nifti(f"{name.removesuffix('_ce-gad_T1w')}_label-lesion_mask.nii.gz", (image > 0.5).astype(np.uint8))
    return path.parents[3]


def test_bids_sessions_have_the_times_of_their_table(two_dates):
    table = two_dates / "sub-P1/sub-P1_sessions.tsv"
    table.write_text("session_id\tacq_time\nses-a\t2021-05-03T10:00:00\nses-b\t2021-07-02\n", encoding="utf-8")
    cohort, _ = read_cohort(str(two_dates), base=two_dates)
    assert {case.name: case.day for case in cohort.cases} == {"sub-P1_ses-a": 0, "sub-P1_ses-b": 60}


def test_the_patients_table_gives_days_and_the_datalist_keeps_them(two_dates, tmp_path):
    table = tmp_path / "patients.csv"
    table.write_text("case,day\nsub-P1_ses-a,0\nsub-P1_ses-b,92.0\n", encoding="utf-8")
    cohort, problems = read_cohort(str(two_dates), base=two_dates, patients_table=str(table))
    assert [case.day for case in cohort.cases] == [0, 92], problems
    write_datalist(tmp_path / "dataset.json", cohort)
    assert [case.day for case in read_datalist(tmp_path / "dataset.json").cases] == [0, 92]
    table.write_text("case,day\nsub-P1_ses-a,0\nsub-P1_ses-b,in May\n", encoding="utf-8")
    _, problems = read_cohort(str(two_dates), base=two_dates, patients_table=str(table))
    assert "day 'in May'" in str(problems[0]) and "whole days" in str(problems[0])
