"""Pictures and tables of notebook 02 show what was stored."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from metaseg_nb.figures.case_figures import draw_corrections, draw_stored_cases
from metaseg_nb.preprocessing.stored_case import intensity_curves


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


def test_intensities_of_every_case_are_in_one_tidy_table(cases):
    curves = intensity_curves(cases)
    assert curves.groupby(["case", "scale"]).size().tolist() == [100] * 6
    assert curves.groupby(["case", "scale"])["share"].sum().round(2).eq(1).all()
    width = curves.groupby(["case", "scale"])["intensity"].transform(lambda bins: bins.diff().mean())
    np.testing.assert_allclose(curves["density"] * width, curves["share"])


def test_every_prepared_case_is_shown(cases):
    figure = draw_stored_cases(cases)
    titles = [axes.get_title() for axes in figure.axes if axes.get_visible()]
    assert [title.splitlines() for title in titles] == [[f"case{i}", "40x44x36"] for i in range(3)]
