"""Minutes of a physician: counts by hand, 0 for a case that no physician annotated."""

import re
from pathlib import Path

import pandas as pd
import pytest
from budget_fakes import COSTS, settings_with

from metaseg_nb.annotation.results import COUNTS, measured_minutes, run_effort
from metaseg_nb.cohort.cases import Case, Cohort
from metaseg_nb.layout import PROJECT

SETTINGS = settings_with()
KINDS = [
    # annotation, contoured, slices, boxes, points, lines, minutes by hand
    ("full", 4, 36, 0, 0, 0, 2 + 4 + 9),
    ("largest", 1, 10, 0, 0, 0, 2 + 1 + 2.5),
    ("slices", 3, 8, 0, 0, 0, 2 + 3 + 2),
    ("boxes", 0, 0, 4, 0, 0, 2 + 2),
    ("points", 0, 0, 0, 4, 0, 2 + 0.8),
    ("lines", 0, 0, 0, 0, 4, 2 + 1),
    ("none", 0, 0, 0, 0, 0, 0),
    ("self_training", 3, 20, 2, 2, 2, 0),  # networks labelled it
    ("full", 0, 0, 0, 0, 0, 2),  # no lesion: to know that, the case was read
]


def annotation(kinds=KINDS, role="training"):
    columns = ["annotation", *COUNTS, "expected"]
    table = pd.DataFrame(kinds, columns=columns)
    table["case"] = [f"{role}{i}" for i in range(len(table))]
    return table.assign(patient=table["case"], role=role)


@pytest.mark.parametrize("row", range(len(KINDS)))
def test_minutes_of_each_kind_by_hand(row):
    table = annotation()[row : row + 1]
    assert run_effort(table, SETTINGS, {})["minutes"] == pytest.approx(table["expected"].item())


def test_a_run_from_before_there_were_lines_took_as_long_as_before():
    table = annotation().query("annotation != 'lines'")
    now, before = (run_effort(rows, SETTINGS, {}) for rows in (table, table.drop(columns="n_lines")))
    assert now == before
    assert before["n_lines"] == 0


@pytest.mark.parametrize("name", COSTS)
def test_every_cost_counts(name):
    dearer = settings_with(**{name: 2 * COSTS[name]})
    assert run_effort(annotation(), dearer, {})["minutes"] > run_effort(annotation(), SETTINGS, {})["minutes"]


def test_the_selection_set_is_counted_with_its_patients_and_minutes():
    table = pd.concat(
        [annotation(), annotation([("full", 4, 36, 0, 0, 0, 15)] * 2, role="selection")], ignore_index=True
    )
    effort = run_effort(table, SETTINGS, {})
    assert effort["selection_minutes"] == 30
    assert effort["minutes"] == pytest.approx(sum(row[-1] for row in KINDS) + 30)
    assert (effort["patients"], effort["selection_patients"], effort["cases"]) == (9, 2, 9)
    assert [effort[count] for count in COUNTS] == [4 + 1 + 3 + 8, 36 + 10 + 8 + 72, 4, 4, 4]


def test_two_cases_of_a_patient_are_read_twice_and_one_patient():
    table = annotation([("full", 1, 4, 0, 0, 0, 4)] * 2).assign(patient="p")
    effort = run_effort(table, SETTINGS, {})
    assert (effort["patients"], effort["cases"], effort["minutes"]) == (1, 2, 8)


def test_a_case_that_was_contoured_in_full_takes_its_measured_minutes():
    table = annotation()
    measured = dict.fromkeys(table["case"], 7.25) | {"not in this run": 99.0}
    effort = run_effort(table, SETTINGS, measured)
    # by hand: two full contours measured, and largest, slices, boxes, points, lines as assumed
    assert effort["minutes"] == pytest.approx(2 * 7.25 + 5.5 + 7 + 4 + 2.8 + 3)
    assert effort["measured_cases"] == 2


def test_measured_minutes_are_of_whole_drawings_not_of_corrections():
    def case(name, minutes, begun_with):
        return Case(name, (Path(name),), None, name, "lung", minutes=minutes, begun_with=begun_with)

    cases = [case("a", 3.0, "proposal"), case("b", 1.5, "mask"), case("c", None, "")]
    cohort = Cohort("x", "", cases, [case("e", None, "")], training_only=[case("d", 8.0, "nothing")])
    assert measured_minutes(cohort) == {"a": 3.0, "d": 8.0}


def test_every_cost_is_stated_with_its_reason():
    notebook = (PROJECT / "notebooks/06_annotation_budget.ipynb").read_text(encoding="utf-8")
    rows = re.findall(r"\| `(minutes_\w+)` \| [^|]{10,} \| ([\d.]+): [^|]{15,} \|", notebook)
    assert {name: float(minutes) for name, minutes in rows} == COSTS
