"""Figures and tables of notebook 04: what they show is in the tables, and each file says where it came from."""

import json

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from metaseg_nb.evaluation.agreement import limits_of_agreement, missed_and_false
from metaseg_nb.evaluation.calibration import know_failures
from metaseg_nb.evaluation.claims import claim_table, claims_by_network
from metaseg_nb.evaluation.comparison import pairwise, rank_distribution, rank_test
from metaseg_nb.evaluation.detection import froc_points
from metaseg_nb.evaluation.leaderboard import MEANS, make_leaderboard, selection_luck, with_costs
from metaseg_nb.evaluation.probability_tables import probability_bins
from metaseg_nb.evaluation.strata import all_strata
from metaseg_nb.figures import comparison as comparison_figures
from metaseg_nb.figures import lesions as lesion_figures
from metaseg_nb.figures.leaderboard_table import show_leaderboard
from metaseg_nb.figures.records import Records
from metaseg_nb.layout import StudyLayout
from metaseg_nb.settings import CrossValidate

MODELS, RESAMPLING = ["unet", "segresnet", "unetr"], (200, 0)


@pytest.fixture(autouse=True)
def no_windows():
    plt.switch_backend("Agg")
    yield
    plt.close("all")


def scores(n=12, models=tuple(MODELS)):
    rng = np.random.default_rng(0)
    means = dict(zip(MODELS, (0.8, 0.5, 0.49), strict=True))
    return pd.DataFrame({model: rng.normal(means[model], 0.05, n) for model in models})


def metrics(n=12):
    table = scores(n).melt(var_name="model", value_name="dice")
    table["patient"] = [f"p{i}" for i in range(n)] * len(MODELS)
    volumes = {"volume_truth_mm3": 5000.0, "volume_prediction_mm3": 5000 + 1000 * table["dice"]}
    counts = {"n_truth": 3, "n_detected": 2, "n_missed": 1, "n_false": 4}
    return table.assign(case=table["patient"], **dict.fromkeys(MEANS, 0.5), **volumes, **counts)


def texts(axes):
    return " ".join(text.get_text() for text in axes.texts)


def drawn(figure):
    figure.canvas.draw()  # what cannot be laid out or rendered shows here
    return figure


def test_the_ranking_shows_mean_ranks_groups_and_shares():
    table = scores()
    ranks, places = rank_test(table), rank_distribution(table, *RESAMPLING)
    left, right = drawn(comparison_figures.draw_ranking(ranks, places)).axes
    assert f"U-Net  {ranks.mean_ranks['unet']:.2f}" in texts(left)
    assert f"critical difference {ranks.critical_difference:.2f}" in texts(left)
    (bar,) = [line for line in left.lines if line.get_linewidth() == 4]
    assert np.mean(bar.get_xdata()) == pytest.approx(ranks.mean_ranks[["segresnet", "unetr"]].mean())
    widths = np.array([patch.get_width() for patch in right.patches]).reshape(3, 3)
    np.testing.assert_allclose(widths.T, places.to_numpy())
    assert right.yaxis_inverted(), "the best on top"


@pytest.mark.parametrize(("n", "models"), [(12, ["unet"]), (1, MODELS), (5, MODELS), (12, MODELS[:2])])
def test_what_cannot_be_tested_is_drawn_and_said(n, models):
    table = scores(n, tuple(models))
    figure = comparison_figures.draw_ranking(rank_test(table), rank_distribution(table, *RESAMPLING))
    assert "too few patients or networks to test" in drawn(figure).axes[0].get_title()
    pairs = pairwise(table, *RESAMPLING)
    axes = drawn(comparison_figures.draw_pairs(pairs)).axes[0]
    assert texts(axes).count("too few patients for p") == (len(pairs) if n < 6 else 0)
    assert len(axes.texts) == len(pairs)


def test_a_pair_is_drawn_with_its_interval_and_p():
    pairs = pairwise(scores(), *RESAMPLING)
    axes = drawn(comparison_figures.draw_pairs(pairs)).axes[0]
    interval, mean = axes.lines[0], axes.lines[1]
    assert interval.get_xdata() == pytest.approx(pairs.loc[0, ["low", "high"]].tolist())
    assert mean.get_xdata() == pytest.approx([pairs.loc[0, "difference"]])
    assert axes.get_yticklabels()[0].get_text() == "U-Net − SegResNet"
    assert "n = 12 patients" in axes.get_xlabel()


def test_every_claim_is_drawn_with_each_network_and_what_cannot_be_said_without():
    third, small = ["inferior", "superior"] * 12, ["<5 mm", ">20 mm"] * 12
    own = {"patient": np.repeat([f"p{i}" for i in range(12)], 2), "third": third, "diameter_class": small}
    lesions = pd.concat([pd.DataFrame(own).assign(model=model, dice=0.5, detected=True) for model in MODELS])
    lesions.loc[lesions["third"] == "inferior", "third"] = np.nan
    table = claim_table(claims_by_network(metrics(), lesions, MODELS, *RESAMPLING))
    panels = drawn(comparison_figures.draw_claims(table)).axes
    names = [label.get_text() for label in panels[0].get_yticklabels()]
    assert names == ["all networks", "U-Net", "SegResNet", "UNETR"]
    assert texts(panels[0]).split("too few")[0].strip() == "" and len(panels[0].texts) == 4
    diamonds = [line for line in panels[3].lines if line.get_marker() == "D"]
    assert [line.get_ydata()[0] for line in diamonds] == [0, 1, 2], "a transformer is not compared with itself"
    dice = scores()
    assert diamonds[1].get_xdata()[0] == pytest.approx((dice["unet"] - dice["unetr"]).mean())
    for panel in panels[1:]:
        assert panel.get_xlim()[0] == -panel.get_xlim()[1], "0 in the middle"


def test_chosen_and_last_weights_are_drawn():
    table = metrics()
    luck = selection_luck(table, table.assign(dice=table["dice"] - 0.1), MODELS, *RESAMPLING)
    axes = drawn(comparison_figures.draw_selection_luck(luck)).axes[0]
    diamonds = [line.get_xdata()[0] for line in axes.lines if line.get_marker() == "D"]
    assert diamonds == pytest.approx([0.1] * 3)


@pytest.mark.parametrize("score", ["sensitivity", "dice"])
def test_every_stratum_has_a_panel_with_its_numbers(score):
    rows = [
        (model, f"p{i}", "<5 mm", f"cancer {i % 2}", "inferior", "<10 mm", "1", i % 2 == 0, 0.3)
        for model in MODELS
        for i in range(4)
    ]
    columns = [
        "model",
        "patient",
        "diameter_class",
        "primary",
        "third",
        "depth_class",
        "count_class",
        "detected",
        "dice",
    ]
    table = all_strata(pd.DataFrame(rows, columns=columns), MODELS, *RESAMPLING)
    axes = drawn(lesion_figures.draw_strata(table, MODELS, score)).axes
    assert [panel.get_title() for panel in axes[:2]] == ["largest diameter", "primary cancer"]
    assert [label.get_text() for label in axes[0].get_xticklabels()][:2] == ["<5 mm\n4 in 4", "5-10 mm\n0 in 0"]
    expected = {"sensitivity": [1, 0], "dice": [0.3, 0.3]}[score]
    assert axes[1].lines[0].get_ydata() == pytest.approx(expected)


def test_strata_without_a_lesion_are_drawn_empty():
    empty = pd.DataFrame(
        columns=["model", "patient", "diameter_class", "primary", "third", "depth_class", "count_class", "detected"]
    ).assign(dice=pd.Series(dtype=float))
    table = all_strata(empty, MODELS, *RESAMPLING)
    drawn(lesion_figures.draw_strata(table, MODELS, "dice"))


@pytest.mark.parametrize("n", [1, 12])
def test_volumes_and_mistakes_are_drawn(n):
    table = metrics(n)
    figure = drawn(lesion_figures.draw_agreement(table, limits_of_agreement(table, MODELS, *RESAMPLING)))
    assert [axes.get_title() for axes in figure.axes] == ["U-Net", "SegResNet", "UNETR"]
    points = figure.axes[0].collections[0].get_offsets()
    assert sorted(points[:, 1].tolist()) == pytest.approx(sorted(scores(n)["unet"]))
    left, right = drawn(lesion_figures.draw_missed_and_false(missed_and_false(table, MODELS, *RESAMPLING))).axes
    assert [line.get_xdata().tolist() for line in left.lines] == [[1] * 3, [4] * 3]
    assert right.lines[0].get_xdata().tolist() == [-3] * 3


def test_probabilities_are_drawn():
    tables = [
        probability_bins(np.full((4, 1, 1), 0.3 + 0.05 * i), np.ones((4, 1, 1), bool)).assign(patient=f"p{i}")
        for i in range(12)
    ]
    calibration = pd.concat(tables).assign(model="unet")
    rows = [("unet", f"p{i}", t, 3, 2, f) for i in range(12) for t, f in ((0.5, 1), (0.9, 0))]
    detections = pd.DataFrame(rows, columns=["model", "patient", "threshold", "n_truth", "n_detected", "n_false"])
    dice = scores().set_axis([f"p{i}" for i in range(12)])
    flags, unsure = know_failures((detections, calibration), dice[["unet"]], *RESAMPLING)
    board = make_leaderboard(metrics(), *RESAMPLING)
    points = froc_points(detections, ["unet"], *RESAMPLING)
    left, right = drawn(lesion_figures.draw_froc(detections, points, board)).axes
    assert left.lines[0].get_xdata().tolist() == [0, 1]
    assert left.lines[0].get_ydata() == pytest.approx([2 / 3, 2 / 3])
    assert right.lines[0].get_ydata() == pytest.approx(points["sensitivity"])
    assert "36 lesions, 12 patients" in right.get_xlabel()
    left, right = drawn(lesion_figures.draw_calibration(calibration, flags, unsure)).axes
    ece, low, high = flags.loc[0, ["ece", "ece_low", "ece_high"]]
    assert left.get_legend().get_texts()[1].get_text() == f"U-Net, ECE {ece:.2f} ({low:.2f} to {high:.2f})"
    assert len(right.collections[0].get_offsets()) == 12


def test_the_leaderboard_table_holds_spread_interval_failures_and_costs():
    runs = pd.DataFrame({"model": MODELS[:2], "parameters": [1_234_000, 2], "train_seconds": [90.0, 60.0]})
    board = with_costs(make_leaderboard(metrics(), *RESAMPLING), runs)
    html = show_leaderboard(board).to_html()
    best = board.iloc[0]
    assert f"{best['dice_mean']:.3f} ± {best['dice_sd']:.3f}<br>({best['dice_median']:.3f})<br>" in html
    assert f"[{best['dice_low']:.3f}, {best['dice_high']:.3f}]" in html
    assert "12 (0)" in html
    assert "1.23" in html and "1.5" in html and "–" in html, "a network without costs has a dash"


@pytest.fixture
def records(tmp_path, monkeypatch):
    monkeypatch.setenv("METASEG_HOME", str(tmp_path))
    settings = CrossValidate.check({"study": "tiny", "models": ["unet"], "n_bootstrap": 500, "seed": 3})
    return Records(StudyLayout("tiny"), "04_cross_validation", settings, "Zürich")


def test_a_figure_is_kept_as_png_and_svg_with_its_origin(records):
    figure, _ = plt.subplots()
    records.figure(figure, "pairs")
    folder = records.layout.figures
    assert sorted(path.name for path in folder.iterdir()) == ["04_pairs.json", "04_pairs.png", "04_pairs.svg"]
    assert (folder / "04_pairs.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (folder / "04_pairs.svg").read_text()
    origin = json.loads((folder / "04_pairs.json").read_text())
    assert (origin["notebook"], origin["parameters"]["seed"]) == ("04_cross_validation", 3)
    assert origin["commit"]
    assert figure.get_suptitle() == "Cohort: Zürich"


def test_a_table_is_kept_as_csv_and_latex(records, tmp_path):
    table = pd.DataFrame({"model_name": ["a_b & 5 %"], "dice": [0.123456], "low": [np.nan], "n": [7]})
    records.table(table, tmp_path / "board.csv")
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "board.csv"), table)
    text = (tmp_path / "board.tex").read_text()
    assert r"a\_b \& 5 \% & 0.123 & -- & 7 \\" in text
    assert r"\toprule" in text
