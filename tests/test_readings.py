"""Minutes of readers, what proposals save of them, and how far two readers agree."""

from types import SimpleNamespace

import matplotlib.pyplot as plt
import nbformat
import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from metaseg_nb.annotation.readings import reader_agreement, saved_by_proposals, with_minutes
from metaseg_nb.layout import NOTEBOOKS


def readings(*rows):
    """Rows of case, reader, begun_with, seconds, lesions; all finished, and begun as chance decided."""
    table = pd.DataFrame(rows, columns=["case", "reader", "begun_with", "seconds", "n_lesions"])
    return table.assign(finished=True, by_chance=True)


def test_minutes_are_of_finished_readings_and_none_is_per_lesion_without_lesions():
    table = readings(("a", "R1", "nothing", 90, 3), ("b", "R1", "nothing", 30, 0), ("c", "R1", "nothing", 60, 1))
    table.loc[2, "finished"] = False
    done = with_minutes(table)
    assert done["minutes"].tolist() == [1.5, 0.5]
    assert done["minutes_per_lesion"].tolist()[0] == 0.5
    assert np.isnan(done["minutes_per_lesion"].iloc[1])


def test_no_reading_at_all_gives_empty_tables_and_an_unknown_saving():
    done = with_minutes(readings())
    assert np.isnan(saved_by_proposals(done, 100, 0)).all()
    assert reader_agreement(done).empty


def test_a_proposal_that_halves_the_time_saves_half():
    rows = [
        (f"{how}{i}", "R1", how, s, 1)
        for how, all_s in (("proposal", 60), ("nothing", 120))
        for i, s in enumerate([all_s] * 4)
    ]
    assert saved_by_proposals(with_minutes(readings(*rows)), 500, 0) == pytest.approx((0.5, 0.5, 0.5))


def test_one_case_of_a_kind_is_too_few():
    rows = [("a", "R1", "proposal", 60, 1), ("b", "R1", "nothing", 90, 1), ("c", "R1", "nothing", 90, 1)]
    assert np.isnan(saved_by_proposals(with_minutes(readings(*rows)), 100, 0)).all()


def test_only_cases_for_which_chance_decided_show_what_a_proposal_saves():
    rows = [(f"{how}{i}", "R1", how, s, 1) for how, s in (("proposal", 60), ("nothing", 120)) for i in range(4)]
    table = readings(*rows, ("easy", "R1", "proposal", 1, 1), ("hard", "R1", "nothing", 9000, 9))
    table.loc[8:, "by_chance"] = False
    assert saved_by_proposals(with_minutes(table), 100, 0)[0] == pytest.approx(0.5)
    table["by_chance"] = False
    assert np.isnan(saved_by_proposals(with_minutes(table), 100, 0)).all()


def test_a_case_that_two_readers_read_counts_once():
    rows = [("a", "R1", "proposal", 60, 1), ("a", "R2", "proposal", 120, 1), ("b", "R1", "proposal", 30, 1)]
    rows += [("c", "R1", "nothing", 120, 1), ("d", "R1", "nothing", 120, 1)]
    assert saved_by_proposals(with_minutes(readings(*rows)), 100, 0)[0] == pytest.approx(1 - 60 / 120)


def test_the_interval_holds_the_true_saving_as_often_as_it_says():
    rng, inside = np.random.default_rng(0), 0
    for trial in range(200):
        minutes = {"proposal": rng.gamma(4, 1.5, 20), "nothing": rng.gamma(4, 2, 20)}  # means 6 and 8: a quarter
        rows = [(f"{how}{i}", "R1", how, 60 * m, 1) for how, of in minutes.items() for i, m in enumerate(of)]
        _, low, high = saved_by_proposals(with_minutes(readings(*rows)), 400, trial)
        inside += low <= 0.25 <= high
    assert 175 <= inside <= 199  # of 200; 190 expected


def shown_in_08(done):
    """What a proposal saves, as notebook 08 says and draws it: its words, and the axes of its figure."""
    cells = {cell.id: cell.source for cell in nbformat.read(NOTEBOOKS / "08_annotate.ipynb", 4).cells}
    figures, names = {}, {"done": done, "n_bootstrap": 200, "seed": 0}
    names["records"] = SimpleNamespace(figure=lambda figure, name: figures.update({name: figure}))
    for cell in ("08-02", "08-12", "08-17"):
        exec(cells[cell], names)
    figures["saved"].canvas.draw()
    plt.close(figures["saved"])
    return names["answer"], figures["saved"].axes[0]


def test_what_a_proposal_saves_is_drawn_in_per_cent_beside_the_published_value_with_its_source():
    rows = [(f"p{i}", "R1", "proposal", s, 1) for i, s in enumerate((50, 60, 70))]
    rows += [(f"n{i}", "R1", "nothing", s, 1) for i, s in enumerate((100, 120, 140))]
    done = with_minutes(readings(*rows))
    words, axes = shown_in_08(done)
    _, low, high = saved_by_proposals(done, 200, 0)
    assert words[0].startswith("Time that a proposal saves, in %: 50 (95 % interval")
    assert f"{100 * low:.0f} to {100 * high:.0f}) (3 cases with a proposal, 3 without)" in words[0]
    (point,) = axes.containers
    assert point.lines[0].get_xydata().tolist() == [[pytest.approx(50), 0]]
    assert point.lines[2][0].get_segments()[0][:, 0] == pytest.approx([100 * low, 100 * high])
    (triangle,) = axes.collections[1:]  # after the bars of the interval
    assert triangle.get_offsets()[0].tolist() == [pytest.approx(30.8), 0.25]
    assert triangle.get_facecolor().tolist() == [[1, 1, 1, 1]]
    legend = [text.get_text().replace("\n", " ") for text in axes.get_legend().get_texts()]
    assert "published, other data: Lu et al. 2021 (median, nine physicians)" in legend
    assert axes.get_xlim()[0] < 100 * low, "the whole interval is seen"


def test_without_an_interval_only_the_published_value_is_drawn_and_words_say_so():
    words, axes = shown_in_08(with_minutes(readings(("a", "R1", "proposal", 60, 1))))
    assert "unknown (1 cases with a proposal, 0 without)" in words[0]
    assert not axes.containers
    assert len(axes.collections) == 1
    assert [text.get_text() for text in axes.texts] == ["this study has no interval yet"]


def test_two_readers_are_compared_by_voxels_surface_and_lesions(tmp_path):
    masks = []
    for reader, boxes in (("R1", [(0, 4), (10, 12)]), ("R2", [(0, 4), (13, 15), (26, 28)])):
        array = np.zeros((30, 8, 8), np.uint8)
        for low, high in boxes:
            array[low:high, 1:5, 1:5] = 1
        masks.append(tmp_path / f"{reader}.nii.gz")
        nib.save(nib.Nifti1Image(array, np.eye(4)), masks[-1])
    table = readings(("a", "R2", "nothing", 60, 3), ("a", "R1", "nothing", 60, 2), ("b", "R1", "nothing", 60, 2))
    row = reader_agreement(with_minutes(table.assign(mask=[masks[1], masks[0], masks[0]])))
    assert len(row) == 1, "a case of one reader has nobody to agree with"
    shared, sizes = 4, (6, 8)  # in slabs of 16 voxels
    assert row.loc[0, "dice"] == pytest.approx(2 * shared / sum(sizes))
    # of voxels at the surface a cube of 4 has 64 - 8, a box of 2 x 4 x 4 all 32; two boxes lie 2 mm apart
    assert row.loc[0, "nsd_1mm"] == pytest.approx((56 + 56) / (56 + 32 + 56 + 2 * 32))
    assert row.loc[0, ["reader_1", "reader_2"]].tolist() == ["R1", "R2"]
    assert row.loc[0, ["lesions_1", "lesions_2", "lesions_in_both"]].tolist() == [2, 3, 1]
