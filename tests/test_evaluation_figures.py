"""Figures and tables of notebook 04: what they show is in the tables, and each file says where it came from."""

import json
from types import SimpleNamespace

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pandas as pd
import pytest
from mets_2026_pairs import COUNTS
from seaborn import objects

import metaseg_nb as ms
from metaseg_nb.evaluation.comparison import make_leaderboard, rank_distribution, rank_test
from metaseg_nb.evaluation.scoring import METRICS
from metaseg_nb.figures import slices, style
from metaseg_nb.figures.reviewed import AGREEMENT_COLOURS
from metaseg_nb.figures.style import Records, draw, palette, show_leaderboard, use_style, with_titles
from metaseg_nb.layout import NOTEBOOKS, StudyLayout
from metaseg_nb.settings import CrossValidate

MODELS, RESAMPLING = ["unet", "segresnet", "unetr"], (200, 0)


@pytest.fixture(autouse=True)
def no_windows():
    plt.switch_backend("Agg")
    yield
    plt.close("all")


def test_no_colour_has_two_meanings():
    meanings = [style.REFERENCE, style.PREDICTION, style.FOUND, style.MARGIN, style.BRAIN_COLOUR]
    assert {*slices.COLOURS.values(), *AGREEMENT_COLOURS.values()} <= {*meanings}
    used = [colour.lower() for colour in (*meanings, *style.MODEL_COLOURS.values(), *style.MORE_COLOURS)]
    assert len({*used}) == len(used)


def scores(n=12, models=tuple(MODELS)):
    rng = np.random.default_rng(0)
    means = dict(zip(MODELS, (0.8, 0.5, 0.49), strict=True))
    return pd.DataFrame({model: rng.normal(means[model], 0.05, n) for model in models})


def metrics(n=12):
    table = scores(n).melt(var_name="model", value_name="dice")
    table["patient"] = [f"p{i}" for i in range(n)] * len(MODELS)
    counts = {"n_truth": 3, "n_detected": 2, "n_missed": 1, "n_false": 4}
    return table.assign(case=table["patient"], **dict.fromkeys([*METRICS, *COUNTS], 0.5), **counts)


def test_a_plot_is_drawn_in_the_style_with_its_legend_beside_it():
    use_style()
    table = pd.DataFrame({"model": MODELS, "dice": [0.8, 0.5, 0.4], "patients": [1, 2, 3]})
    plot = objects.Plot(with_titles(table), x="patients", y="dice", color="network").add(objects.Dot())
    figure = draw(plot.scale(color=palette(MODELS)), (6, 3))
    figure.canvas.draw()
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["U-Net", "SegResNet", "UNETR"]
    assert legend.get_window_extent().x0 > figure.axes[0].get_window_extent().x1
    assert legend.get_window_extent().x1 <= figure.bbox.x1
    assert figure.axes[0].title.get_fontfamily() == ["DejaVu Sans"]
    assert palette(["all networks", "unet"]) == {"all networks": "black", "U-Net": "#0072B2"}


def test_a_plot_of_an_empty_table_says_so():
    plot = objects.Plot(pd.DataFrame({"x": [], "y": []}), x="x", y="y").add(objects.Dot())
    assert draw(plot, (6, 3)).axes[0].texts[0].get_text() == "nothing to show"


def test_the_leaderboard_table_holds_spread_interval_failures_and_costs():
    costs = pd.DataFrame({"parameters": [1_234_000, 2], "train_minutes": [1.5, 1.0]}, MODELS[:2])
    board = make_leaderboard(metrics(), *RESAMPLING).join(costs, on="model")
    html = show_leaderboard(board).to_html()
    best = board.iloc[0]
    assert f"{best['dice_mean']:.3f} ± {best['dice_sd']:.3f}<br>({best['dice_median']:.3f})<br>" in html
    assert f"[{best['dice_low']:.3f}, {best['dice_high']:.3f}]" in html
    assert "12 (0)" in html
    for head in (
        "surface voxels, the larger of both directions",
        "by surface area, METS 2023",
        "F1, small lesions (METS",
    ):
        assert head in html
    assert "1.23" in html and "1.5" in html and "–" in html, "a network without costs has a dash"


def test_a_mean_of_equal_values_is_shown_without_an_interval():
    """Nobody has a false lesion, and all have Dice 0: what 04 shows has no "0.0 to 0.0", and no "nan"."""
    none = metrics().assign(n_false=0, dice=0.0)
    board = make_leaderboard(none, *RESAMPLING)
    assert board[["dice_low", "false_per_patient_high"]].isna().all(axis=None)
    html = show_leaderboard(board.assign(parameters=1, train_minutes=1.0)).to_html()
    assert "0.000 ± 0.000<br>(0.000)<br>[–, –]" in html and "nan" not in html.lower()
    names = {"board": board, "metrics": none, "palette": palette(board["model"])}
    drawn('records.figure(figure, "dice")', **names).canvas.draw()
    given = {"ms": ms, "ranked": MODELS, "resampling": RESAMPLING} | names
    found = after("mistakes = ", **given)[1]
    figures, _ = after('records.figure(figure, "missed_and_false")', **found)
    figures["missed_and_false"].canvas.draw()
    assert found["mistakes"]["false_low"].isna().all()
    lines = after('Markdown("Lesions per patient:', mistakes=found["mistakes"], **given)[1]["lines"]
    assert lines[0].endswith("1.0 missed, 0.0 false, difference +1.0 (no interval: too few, or all equal)")


@pytest.fixture
def records(tmp_path, monkeypatch):
    monkeypatch.setenv("METASEG_HOME", str(tmp_path))
    settings = CrossValidate.check(
        {"study": "tiny", "models": ["unet"], "n_bootstrap": 500, "seed": 3, "compared_study": ""}
    )
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


def after(cell_with, **names):
    """The figures that a cell of notebook 04 draws, found by a line of it, and its other names."""
    figures, cells = {}, [cell.source for cell in nbformat.read(NOTEBOOKS / "04_cross_validation.ipynb", 4).cells]
    imports, (cell,) = cells[2], [cell for cell in cells if cell_with in cell]
    names["records"] = SimpleNamespace(figure=lambda figure, name: figures.update({name: figure}))
    exec(f"{imports}\n{cell}", names)
    return figures, names


def drawn(cell_with, **names):
    """The only figure of a cell."""
    (figure,) = after(cell_with, **names)[0].values()
    return figure


def test_lesions_are_counted_in_the_folds_that_are_shown():
    columns = ["case", "lesion", "diameter_mm", "scored_lesion", "scored_diameter_mm"]
    positions = pd.DataFrame([("a", 1, 9.0, 1, 9.0), ("b", 1, 9.0, 1, 9.0), ("b", 2, 9.0, 2, 9.0)], columns=columns)
    names = {"palette": ["U-Net"], "board": pd.DataFrame({"patients": [1]}), "positions": positions}
    names["board"][["false_per_patient", "false_per_patient_low", "false_per_patient_high"]] = 0.0
    for cases, folds, missing, found in ((["b"], [0], ["unet, fold 1"], 2), (["a", "b"], [0, 1], [], 3)):
        names |= {"metrics": pd.DataFrame({"case": cases}), "folds": folds, "missing": missing}
        said = after("describe_counts", **names)[1]
        assert f"as in BraTS-METS: {found} (0 under 5 mm); notebook 04" in said["counts"]
        assert said["part"] == ("Test patients of folds [0] only. " if missing else "")


def test_flagged_patients_and_flagged_failures_are_counted():
    found = {"patient": list("abcd"), "dice": [0.2, 0.4, 0.8, 0.9], "unlikeness": [1.5, 0.7, 0.6, 1.2]}
    metrics = pd.DataFrame(found).assign(model="unet")
    measured_later = metrics.assign(model="unetr", unlikeness=np.nan)
    results = SimpleNamespace(metrics=pd.concat([metrics, measured_later]))
    names = {"results": results, "networks": ["unet", "unetr"], "palette": palette(["unet", "unetr"])}
    _, names = after("patients are flagged", ms=ms, resampling=RESAMPLING, **names)
    assert list(after('records.figure(figure, "likeness")', **names)[0]) == ["likeness"]
    (row,) = names["likeness"].itertuples()
    assert (row.model, row.patients, row.failures, row.flagged, row.flagged_failures) == ("unet", 4, 2, 2, 1)
    assert "2 of 4 patients are flagged, among them 1 of 2 failures (Dice below 0.5)" in names["lines"][0]


def test_one_patient_has_no_limits_of_agreement():
    limits = pd.DataFrame({"patients": [12, 1], "bias_cm3": [1.0, 2.0], "low": [0.5, np.nan], "high": [1.5, np.nan]})
    limits = limits.assign(lower_cm3=[-1.0, np.nan], upper_cm3=[3.0, np.nan], limit_error_cm3=[0.4, np.nan])
    lines = after("Predicted minus reference", ms=ms, limits=limits, palette=palette(MODELS[:2]))[1]["lines"]
    assert lines[0].endswith("cm³, limits -1.0 and +3.0 cm³ (each ± 0.4)")
    assert lines[1].endswith("cm³, no limits of one patient") and "nan" not in lines[1]


def said_by_03(cases):
    """What notebook 03 ends with, of a finished run; ``cases`` are rows of patient and Dice."""
    metrics = pd.DataFrame(cases, columns=["patient", "dice"]).assign(n_missed=1, n_truth=2, n_false=0)
    (cell,) = [of.source for of in nbformat.read(NOTEBOOKS / "03_train.ipynb", 4).cells if "finish_run" in of.source]
    best = {"weights": "last", "epoch": 4, "other_epoch": 3, "dice": 0.5}
    names = {"ms": ms, "finished": True, "best": best, "name": "U-Net", "metrics": metrics, "said": []}
    names |= {"metrics_other": metrics.assign(dice=metrics["dice"] / 2), "Markdown": names["said"].append}
    exec(cell, names | {"history": pd.DataFrame({"epoch": [4], "seconds": [60.0]})})
    return names["said"][0]


def test_03_counts_each_patient_once():
    """Patients of 0.4 (two cases) and 0.8: mean 0.6, sd √(2 · 0.2²); the mean of the three cases is 0.53."""
    text = said_by_03([("p", 0.2), ("p", 0.6), ("q", 0.8)])
    assert "**U-Net: mean Dice of the test set 0.60 ± 0.28 (SD, n = 2 patients)**, 3 of 6 lesions missed" in text
    assert "with the weights of the chosen epoch, the test patients have Dice 0.30" in text
    alone = said_by_03([("p", 0.2), ("p", 0.6)])
    assert "mean Dice of the test set 0.40 (1 patient)**" in alone and "±" not in alone and "nan" not in alone


@pytest.mark.parametrize(("models", "n", "tested"), [(3, 12, True), (2, 12, False), (3, 5, False), (1, 12, False)])
def test_ranks_are_drawn_only_where_nemenyis_test_was_made(models, n, tested):
    table = scores(n, MODELS[:models])
    ranks, nemenyi = rank_test(table)
    colours = palette(MODELS[:models])
    names = {"networks": MODELS[:models], "ranked": MODELS[:models], "palette": colours, "scores": table}
    names |= {"ranks": ranks, "nemenyi": nemenyi, "places": rank_distribution(table, *RESAMPLING)}
    left = drawn('records.figure(figure, "ranking")', **names).axes[0]
    texts = [text.get_text() for text in left.texts]
    assert ("too few networks or patients for Nemenyi's test" in texts) != tested
    assert ("critical difference" in left.get_title()) == tested
    assert any("U-Net" in text for text in texts) == tested


def test_published_points_name_their_source_in_the_figure():
    board = make_leaderboard(metrics(), *RESAMPLING)
    figure = drawn('records.figure(figure, "dice")', board=board, metrics=metrics(), palette=palette(board["model"]))
    (legend,) = [axes.get_legend() for axes in figure.axes]
    texts = [text.get_text().replace("\n", " ") for text in legend.get_texts()]
    assert "published, other data: best validation Dice of the Zürich study (273 patients, 2022)" in texts


def test_operating_points_that_are_equal_are_all_seen_in_the_froc_figure():
    counts = {"model": "unet", "patient": ["p0", "p1"], "n_truth": 2, "n_detected": [1, 2], "n_false": [0, 3]}
    points = [pd.DataFrame(counts).assign(operating_point=name) for name in ("balanced", "sensitive", "specific")]
    results = SimpleNamespace(detections=pd.DataFrame(counts).assign(threshold=0.5), operating_points=pd.concat(points))
    names = {"results": results, "networks": ["unet"], "palette": palette(["unet"]), "resampling": RESAMPLING}
    axes = drawn('records.figure(figure, "froc")', ms=ms, **names).axes[0]
    symbols = {line.get_marker(): line for line in axes.lines if line.get_marker() != "None"}
    assert [symbols[mark].get_xydata().tolist() for mark in ">o<"] == 3 * [[[1.5, 0.75]]]
    assert {line.get_markerfacecolor() for line in symbols.values()} == {"none"}
    large, middle, small = (symbols[mark].get_markersize() for mark in ">o<")
    assert large > 1.4 * middle > 1.9 * small
    assert "sensitive" in axes.get_legend().get_title().get_text()


def test_the_figure_of_the_claims_says_that_intervals_are_not_adjusted():
    claims = pd.DataFrame({"model": ["unet"] * 2, "claim": ["A", "B"], "measured": ["a", "b"]})
    claims = claims.assign(difference=[0.1, np.nan], low=[0.0, np.nan], high=[0.2, np.nan])
    figure = drawn('records.figure(figure, "claims")', claims=claims, networks=["unet"])
    assert [axes.get_title() for axes in figure.axes] == ["A:\na"], "a claim that was not tested has no panel"
    assert "not adjusted for the number of claims" in figure.axes[-1].get_xlabel()
