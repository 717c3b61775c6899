"""Figures and sentences of notebook 01: they show what the tables hold, also when that is nothing."""

from dataclasses import replace
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text

from metaseg_nb.cohort.cases import LesionRule
from metaseg_nb.cohort.examination_store import cases_table, examine_all, lesions_table
from metaseg_nb.cohort.problems import CohortError, Problem
from metaseg_nb.figures.cohort import (
    draw_acquisition,
    draw_burden,
    draw_lesion_map,
    draw_montage,
    draw_positions,
)
from metaseg_nb.figures.cohort_words import describe_cohort, describe_counts, describe_positions, describe_problems
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


def tables(cases, examinations):
    facts = cases_table(cases, examinations)
    return facts, facts[facts["labelled"] & facts["n_lesions"].notna()], lesions_table(cases, examinations)


def heights(axes):
    return sum(patch.get_height() for patch in axes.patches)


def test_every_patient_and_every_lesion_is_in_the_bars(looked_at):
    _, labelled, lesions = tables(*looked_at)
    per_patient, diameters, volumes = draw_burden(labelled, lesions).axes
    assert per_patient.get_title() == "n = 1 patients: 4.0 ± nan"
    assert [heights(axes) for axes in (per_patient, diameters, volumes)] == [1, 4, 4]


def test_images_of_one_spacing_are_one_point_with_their_number(looked_at):
    facts, *_ = tables(*looked_at)
    spacing, intensity, scanner = draw_acquisition(facts).axes
    assert sorted(text.get_text() for text in spacing.texts) == ["1", "2"]
    assert spacing.collections[0].get_offsets().tolist() == [[1, 1], [1, 2]]
    segments = intensity.collections[0].get_segments()
    assert sorted(segment[0][1] for segment in segments) == sorted(facts["intensity_p1"])
    assert [label.get_text() for label in scanner.get_yticklabels()] == ["MAGNETOM", "unknown"]
    assert [patch.get_width() for patch in scanner.patches] == [1, 2]


def test_lesions_are_counted_by_third_and_side(looked_at):
    *_, lesions = tables(*looked_at)
    thirds, depths = draw_positions(lesions).axes
    assert sum(patch.get_width() for patch in thirds.patches) == len(lesions) == heights(depths) == 4


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


def test_a_name_with_dollar_signs_is_no_formula_and_numbers_need_none(looked_at, tmp_path):
    cases, examinations = looked_at
    name = r"$\frac$ 5$ <b>"
    cases = [replace(case, name=f"{name}{i}", primary=name, scanner=name) for i, case in enumerate(cases)]
    facts, labelled, lesions = tables(cases, examinations)
    with plt.rc_context():
        use_style()
        for figure in (draw_burden(labelled, lesions), draw_acquisition(facts), draw_montage(cases, examinations)):
            figure.savefig(tmp_path / "figure.png")  # a formula that is none is an error
            words = [text.get_text() for text in figure.findobj(Text)]
            assert any(name in word for word in words)
            assert not [word for word in words if "mathdefault" in word]
            plt.close(figure)


@pytest.mark.parametrize("n", [12, 70, 210])
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


def test_where_nothing_could_be_read_there_are_figures_that_say_so(nothing):
    facts, labelled, lesions = tables(*nothing)
    figures = (
        draw_burden(labelled, lesions),
        draw_acquisition(facts),
        draw_positions(lesions),
        draw_lesion_map(*nothing),
    )
    assert ["nothing to draw" in figure.texts[0].get_text() for figure in figures] == [True] * 4
    assert draw_montage(*nothing).axes[0].texts[0].get_text() == "not readable"
    assert describe_cohort(labelled, lesions) == "**No mask could be read.**"
    assert describe_positions(facts, lesions) == "No lesion could be placed."


def test_sentences_count_what_the_tables_hold():
    cases = pd.DataFrame(
        {
            "patient": ["p", "p", "q", "r"],
            "n_lesions": [2, 1, 0, 1],
            "largest_diameter_mm": [12.0, 4.0, 0.0, 8.0],
            "skull": ["stripped", "in the image", "stripped", "stripped"],
        }
    )
    lesions = pd.DataFrame(
        {
            "diameter_mm": [12.0, 4.0, 4.0, 8.0],
            "volume_mm3": [1000.0, 500.0, 100.0, 300.0],
            "third": ["superior", "middle", "middle", "inferior"],
            "hemisphere": ["left", "left", "right", "left"],
            "depth_mm": [5.0, 10.0, 20.0, 12.0],
        }
    )
    assert describe_cohort(cases, lesions) == (
        "**3 patients, 4 lesions**: 1.3 ± 1.5 per patient (mean ± sd, at most 3); largest diameter 7 ± 4 mm, median "
        "volume 0.4 cm³, 2 lesions under 5 mm; patients without lesion: 1, with lesions under 10 mm only: 1."
    )
    assert describe_positions(cases, lesions) == (
        "Of 4 lesions 1 in the inferior third, 2 in the middle third, 1 in the superior third; 3 left, 1 right; median "
        "depth 11 mm. In 1 images the skull is there: positions are in the head."
    )


def test_problems_are_counted_with_the_cases_they_are_in(looked_at):
    cases, _ = looked_at
    problems = [
        Problem(name, "f", found, "y", "z", severity)
        for name, found, severity in (("a", "NaN", "error"), ("a", "no file", "error"), ("c", "an empty label", "note"))
    ]
    said = describe_problems(cases, problems, "LEAKAGE: 3 entries.")
    assert said == "**Wrong: 2 errors in 1 of 3 cases, 1 note in 1 of 3 cases (an empty label).** LEAKAGE: 3 entries."
    said = describe_problems(cases, problems[2:], "")
    assert said == "**To look at: 1 note in 1 of 3 cases (an empty label).**"
    assert describe_problems(cases, [], "") == "Nothing was found to be wrong."


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
    with pytest.raises(CohortError, match=r"lesions.csv: found no columns of what is scored; .* run 01 again"):
        describe_counts(pd.DataFrame(rows, columns=columns)[columns[:3]])
