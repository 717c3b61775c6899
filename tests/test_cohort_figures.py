"""Pictures and sentences of notebook 01, also of a cohort in which nothing could be read."""

from dataclasses import replace
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text

from metaseg_nb.cohort.cases import LesionRule
from metaseg_nb.cohort.examination import examine_all
from metaseg_nb.cohort.problems import Problem
from metaseg_nb.figures.case_figures import describe_counts, describe_problems, draw_lesion_map, draw_montage
from metaseg_nb.figures.style import use_style


@pytest.fixture
def looked_at(write_case, tmp_path):
    """Three cases of two patients, one of them without label, and what one look at them gave."""
    cases = [
        write_case("a", seed=0, primary="lung"),
        replace(write_case("b", seed=1, primary="lung", spacing_mm=(1, 1, 2)), patient="patient_a", scanner="MAGNETOM"),
        write_case("c", seed=2, primary="renal", labelled=False),
    ]
    return cases, examine_all(cases, LesionRule(), tmp_path / "kept", workers=1)


@pytest.fixture
def nothing(write_case, tmp_path):
    """A cohort none of whose files is there."""
    case = write_case("gone")
    case.image.unlink()
    case.label.unlink()
    return [case], examine_all([case], LesionRule(), tmp_path / "kept", workers=1)


def test_the_map_counts_patients_not_lesions(looked_at):
    figure = draw_lesion_map(*looked_at)
    assert figure.get_suptitle() == "n = 1 patients"
    views = [axes for axes in figure.axes if axes.images]
    assert [view.get_title() for view in views] == ["axial view", "coronal view", "sagittal view"]
    for view in views:
        assert view.images[0].get_array().max() == 1, "two cases of one patient count once"
        assert [text.get_text() for text in view.texts][:1] == [{"s": "A"}.get(view.get_title()[0], "R")]


def test_the_map_is_upright(looked_at):
    cases, examinations = looked_at
    lesion_map = np.zeros_like(examinations[0].lesion_map)
    lesion_map[-1, -1, -1] = True  # right, front, top
    figure = draw_lesion_map(cases[:1], [replace(examinations[0], lesion_map=lesion_map)])
    axial, coronal, sagittal = (np.argwhere(axes.images[0].get_array()) for axes in figure.axes if axes.images)
    _, depth, height = lesion_map.shape
    # rows from the bottom; right is drawn on the left, front on the left in the sagittal view
    assert axial.tolist() == [[depth - 1, 0]]
    assert coronal.tolist() == [[height - 1, 0]]
    assert sagittal.tolist() == [[height - 1, 0]]


def test_the_montage_shows_each_case_with_its_lesions(looked_at):
    figure = draw_montage(*looked_at)
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["a\nlung, lesions: 2", "b\nlung, lesions: 2", "c\nrenal, no label"]
    assert [bool(axes.collections) for axes in figure.axes] == [True, True, False]


def test_a_name_with_dollar_signs_is_no_formula(looked_at, tmp_path):
    cases, examinations = looked_at
    name = r"$\frac$ 5$ <b>"
    cases = [replace(case, name=f"{name}{i}", primary=name, scanner=name) for i, case in enumerate(cases)]
    with plt.rc_context():
        use_style()
        figure = draw_montage(cases, examinations)
        figure.savefig(tmp_path / "figure.png")  # a formula that is none is an error
        assert any(name in text.get_text() for text in figure.findobj(Text))
        plt.close(figure)


@pytest.mark.parametrize("n", [12, 70, 120])
def test_long_names_are_shortened_in_the_middle_and_do_not_overlap(looked_at, n):
    cases, examinations = looked_at
    names = [f"sub-{i:03}_ses-20190312_acq-MPRAGEpostGd_space-native_run-02_T1w-{i:03}" for i in range(n)]
    primary = "non-small cell lung cancer, adenocarcinoma"
    figure = draw_montage([replace(cases[0], name=name, primary=primary) for name in names], examinations[:1] * n)
    figure.draw_without_rendering()
    first_row = [axes for axes in figure.axes if axes.get_subplotspec().rowspan.start == 0]
    boxes = [axes.title.get_window_extent() for axes in first_row]
    assert all(left.x1 < right.x0 for left, right in pairwise(boxes))
    shown, kind = first_row[7 % len(first_row)].get_title().split("\n")
    assert shown.startswith("sub-0")
    assert "…" in shown
    assert shown.endswith(names[7 % len(first_row)][-5:])
    assert kind.endswith("ns: 2")
    plt.close(figure)


def test_where_nothing_could_be_read_the_pictures_say_so(nothing):
    assert "nothing to draw" in draw_lesion_map(*nothing).texts[0].get_text()
    assert draw_montage(*nothing).axes[0].texts[0].get_text() == "not readable"


def test_problems_are_counted_with_the_cases_they_are_in(looked_at):
    cases, _ = looked_at
    problems = [
        Problem(name, "f", found, "y", "z", severity)
        for name, found, severity in (("a", "NaN", "error"), ("a", "no file", "error"), ("c", "an empty label", "note"))
    ]
    said = describe_problems(cases, problems, "LEAKAGE: 3 entries.")
    assert (
        said == "**To correct: 2 errors in 1 of 3 cases, 1 note in 1 of 3 cases (an empty label).** LEAKAGE: 3 entries."
    )
    said = describe_problems(cases, problems[2:], "")
    assert said == "**To check: 1 note in 1 of 3 cases (an empty label).**"
    assert describe_problems(cases, [], "") == "No problem was found."


def test_both_counts_of_lesions_are_said_with_what_was_joined_and_left_out():
    rows = [
        ("a", 1, 4.0, 1, 6.6),
        ("a", 2, 4.0, 1, 6.6),
        ("a", 3, 12.0, 3, 12.0),
        ("b", 1, 1.7, 0, 1.7),
        ("b", 2, 3.0, 2, 3.0),
    ]
    columns = ["case", "lesion", "diameter_mm", "scored_lesion", "scored_diameter_mm"]
    said = describe_counts(pd.DataFrame(rows, columns=columns))
    assert "in the masks: 5 (4 under 5 mm); notebook 01 and the folds count these." in said
    assert "as in BraTS-METS: 3 (1 under 5 mm); notebook 04 and all its classes count these." in said
    assert "scored as one (joined to another: 1), and lesions of 2 mm³ or less are not scored (left out: 1)." in said
