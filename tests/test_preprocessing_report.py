"""Notebook 02's words and figures: sentences say what the tables hold, figures show what was kept."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from metaseg_nb.figures import preprocessing_words as words
from metaseg_nb.figures.preprocessing import draw_corrections, draw_intensities, draw_stored_cases
from metaseg_nb.preprocessing.correction_record import CorrectionRecord

NOTHING_MET = dict.fromkeys(words.CLEANING, 0) | {"lesion_values": 1}


@pytest.fixture
def rows():
    """Two labelled cases and one without a label, made by hand."""
    a = {"case": "a", "seconds": 0.0, "made_in_s": 4.0, "disk_mb": 2.0, "field_range": 1.2, "uncorrected": 0}
    a |= NOTHING_MET
    volumes = {"lesion_volume_mm3": 100.0, "cleaned_volume_mm3": 90.0, "stored_volume_mm3": 99.0}
    a |= volumes | {"lesions": 2, "stored_lesions": 2, "lost_lesions": 0, "specks": 1}
    b = a | {"case": "b", "seconds": 9.0, "made_in_s": 9.0, "field_range": 2.0, "lost_lesions": 1, "lesions": 3}
    b |= {"lesion_volume_mm3": 300.0, "cleaned_volume_mm3": 270.0, "stored_volume_mm3": 270.0, "specks": 4}
    b |= {"lesion_values": 3, "outside_lesions": 1}
    c = {"case": "c", "seconds": 5.0, "made_in_s": 5.0, "disk_mb": 1.0, "field_range": 1.5, "uncorrected": 0}
    return pd.DataFrame([a, b, c])


def test_the_strongest_field_is_named(rows):
    text = words.describe_fields(rows)
    assert "varies 1.50-fold within a head (median over 3 cases" in text
    assert text.endswith("at most 2.00-fold, in b.")


def test_cases_without_bias_correction_are_counted_and_named(rows):
    text = words.describe_fields(rows.assign(uncorrected=[1, 0, 2]))
    assert text.endswith("No field was divided out in 2 cases: a, c.")


def test_cost_is_that_of_making_a_case_whenever_it_was_made(rows):
    text = words.describe_cost(rows)
    assert "5.0 s (median; longest 9.0 s) and 2.0 MB" in text
    assert "2 were made now, 1 were there already" in text


def test_lesions_and_volumes_are_summed_over_labelled_cases(rows):
    text = words.describe_lesions(rows)
    assert text.startswith("1 of 5 lesions were lost")
    assert "by -10.0 %, the study grid by +2.5 %" in text  # 400 to 360 to 369


def test_no_label_and_no_lesion_are_said_as_they_are(rows):
    unlabelled = rows[rows["case"] == "c"]
    assert words.describe_lesions(unlabelled) == "No case has a label."
    assert words.volume_table(unlabelled).empty
    empty = rows.assign(lesion_volume_mm3=0.0, cleaned_volume_mm3=0.0, stored_volume_mm3=0.0)
    assert words.describe_lesions(empty) == "The masks of 3 cases are empty."


def test_the_cleaning_table_counts_cases_totals_and_names_the_case_with_most(rows):
    table = words.cleaning_table(rows, "drop").set_index("rule")
    specks = table.loc["lesions under the least volume removed"]
    assert (specks["cases"], specks["total"], specks["most in"]) == (2, 5, "b")
    merged = table.loc["different lesion values merged to one"]
    assert (merged["cases"], merged["total"]) == (1, 2)
    assert table.loc["lesions outside the head (drop)", "total"] == 1
    assert table.loc["voxels of closed cavities filled", "most in"] == ""


def test_the_volume_table_starts_with_the_largest_change(rows):
    table = words.volume_table(rows)
    assert table["case"].tolist() == ["a", "b"]
    assert table["change, %"].tolist() == [10, 0]


def histogram_record(raw_shift, prepared_shift):
    """A record whose histograms are a box of width 1 that starts at the given intensities."""
    shares, edges = np.full(100, 0.01), np.linspace(0, 1, 101)
    slice_ = np.ones((4, 4), np.float32)
    field = slice_.astype(np.float16)
    raw, prepared = (shares, edges + raw_shift), (shares, edges + prepared_shift)
    return CorrectionRecord(slice_, field, np.ones(2), *raw, *prepared, np.array(1.0))


def test_scatter_between_cases_is_told_in_interquartile_ranges():
    text = words.describe_intensities([histogram_record(0, 0), histogram_record(2, 0.1)])
    # medians 2 and 0.1 apart: standard deviations 1 and 0.05; interquartile range 0.5
    assert "scatters by 2.00 of a head's own interquartile range as read, and by 0.10 as networks see it" in text


@pytest.fixture
def cases(store_blobs):
    return [store_blobs(f"case{i}", seed=i) for i in range(3)]


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def test_before_and_after_share_one_grey_scale_and_all_fields_one_colour_scale(cases):
    figure = draw_corrections(cases[:2])
    drawn = [axes.images[0] for axes in figure.axes if axes.images]
    rows = [drawn[start : start + 3] for start in (0, 3)]
    assert all(before.get_clim() == after.get_clim() for before, _, after in rows)
    assert rows[0][1].get_clim() == rows[1][1].get_clim()
    assert [axes.get_title() for axes in figure.axes[:6:3]] == ["case0, before", "case1, before"]


def test_every_case_has_its_line_and_the_named_ones_a_colour(cases):
    left, right = draw_intensities(cases, ["case1"]).axes
    assert len(left.lines) == len(right.lines) == 3
    assert [text.get_text() for text in right.get_legend().get_texts()] == ["case1"]


def test_every_prepared_case_is_shown(cases):
    figure = draw_stored_cases(cases)
    titles = [axes.get_title() for axes in figure.axes if axes.get_visible()]
    assert [title.splitlines() for title in titles] == [[f"case{i}", "40x44x36"] for i in range(3)]
