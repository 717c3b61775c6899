"""What arms gain, patient by patient; answers with the tables' numbers, inconclusive ones included."""

import re
from types import SimpleNamespace

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pandas as pd
import pytest
import yaml
from budget_fakes import COSTS, FakeBudget, fake_cohort

from metaseg_nb.annotation.comparison import (
    GAIN_COLUMNS,
    QUESTIONS,
    budget_answers,
    budget_curves,
    budget_gains,
    power_laws,
)
from metaseg_nb.annotation.results import BudgetResults
from metaseg_nb.batch.runner import run_notebook
from metaseg_nb.batch.runs import Run
from metaseg_nb.checksums import damage
from metaseg_nb.cohort.cases import Case, Cohort
from metaseg_nb.evaluation.intervals import bootstrap_interval
from metaseg_nb.layout import NOTEBOOKS, StudyLayout
from metaseg_nb.parameters import model_title, resolve
from metaseg_nb.report.build import write_page
from metaseg_nb.settings import Budget

N = 12
FULL = {"share": 1.0, "annotation": "full", "slice_step": 0, "unannotated": "unused", "teachers": "", "recipe": ""}
ARMS = {
    # title, annotated patients, minutes, and what is not as in FULL
    "patients_25": ("25 %", 10, 100.0, {"share": 0.25}),
    "patients_50": ("50 %", 20, 200.0, {"share": 0.5}),
    "patients_100": ("all", 40, 400.0, {}),
    "boxes": ("boxes", 40, 200.0, {"annotation": "boxes"}),
    "points": ("points", 40, 60.0, {"annotation": "points"}),
    "slices": ("slices", 40, 200 * 2**0.5, {"annotation": "slices", "slice_step": 5}),
    "slices_50": ("slices of half", 20, 100 * 2**0.5, {"share": 0.5, "annotation": "slices", "slice_step": 5}),
    "dense_75": ("dense", 30, 200.0, {"share": 0.75, "annotation": "slices", "slice_step": 2}),
    "boxes_roi": ("patches", 40, 200.0, {"annotation": "boxes", "recipe": "sampling: roi"}),
    "pretraining_25": ("pretrained", 10, 100.0, {"share": 0.25, "unannotated": "pretraining"}),
    "self_training_25": ("self-trained", 10, 100.0, {"share": 0.25, "unannotated": "self_training"}),
    "alone_25": ("alone", 10, 100.0, {"share": 0.25, "unannotated": "self_training", "teachers": "self"}),
    "planted": ("planted", 0, 0.0, {"share": 0.0, "unannotated": "planted"}),
    "planted_25": ("25 % and planted", 10, 100.0, {"share": 0.25, "unannotated": "planted"}),
    "ranking_50": ("ranked", 18, 200.0, {"share": 0.5, "unannotated": "ranking"}),
    "rounds_50": ("in rounds", 18, 200.0, {"share": 0.5, "unannotated": "ranking_in_rounds"}),
    "random_50": ("random", 18, 200.0, {"share": 0.5, "unannotated": "foreground_random"}),
}
# patient by patient, around 0: so that intervals have a width
SPREAD = np.linspace(-0.03, 0.03, N)


def budget(dice, models=("unet", "unetr"), n=N, seeds=2):
    """Results whose mean Dice is that of an arm or of (model, arm); seeds lie 0.01 above and below."""
    rows = []
    for model in models:
        for arm in {key[1] if isinstance(key, tuple) else key: None for key in dice}:
            level = dice.get((model, arm), dice.get(arm))
            for seed in range(seeds):
                values = level + np.resize(SPREAD, n) * (1 + len(arm) % 3) + 0.01 * (2 * seed - seeds + 1)
                rows += [(model, arm, seed, f"p{i:02}", value, 4, 2, 2, 1) for i, value in enumerate(values)]
    columns = ["model", "arm", "seed", "patient", "dice", "n_truth", "n_detected", "n_missed", "n_false"]
    arms = [
        {"arm": arm, "title": ARMS[arm][0], "patients": ARMS[arm][1], "minutes": ARMS[arm][2]} | FULL | ARMS[arm][3]
        for arm in dict.fromkeys(row[1] for row in rows)
    ]
    return BudgetResults(pd.DataFrame(rows, columns=columns), pd.DataFrame(), pd.DataFrame(arms).set_index("arm"))


BUDGETS = {"patients_25": 0.5, "patients_50": 0.6, "patients_100": 0.66}


def gained(dice, **how):
    table = budget_gains(budget(dice, **how), 500, 0)
    return table.set_index(["question", "arm", "model"])


def answered(dice, **how):
    results = budget(dice, **how)
    return budget_answers(budget_gains(results, 500, 0), power_laws(results, 500, 0))


def test_more_patients_by_hand():
    row = gained(BUDGETS | {("unetr", "patients_100"): 0.7}).xs("patients", level="question")
    assert row.loc[("patients_100", "unet"), "difference"] == pytest.approx(0.06)
    assert row.loc[("patients_100", "unetr"), "difference"] == pytest.approx(0.10)
    assert row.loc[("patients_100", "all networks"), "difference"] == pytest.approx(0.08)
    assert row.loc[("patients_100", "all networks"), ["title", "against"]].tolist() == ["40 patients", "20 patients"]


@pytest.mark.parametrize(("arm", "contoured"), [("boxes", 0.6), ("slices", 0.63)])
def test_cheaper_kinds_are_compared_with_contours_of_as_many_minutes(arm, contoured):
    # 200 minutes are half of the patients; the square root of 2 times as many is half way to all, in logarithms
    row = gained(BUDGETS | {arm: 0.7}).loc["kind", arm, "unet"]
    assert row["difference"] == pytest.approx(0.7 - contoured)
    assert row["minutes_against"] == pytest.approx(row["minutes"])
    assert row["against"] == "full contours, equal minutes"


@pytest.mark.parametrize(("dice", "verdict"), [(0.6, "better"), (0.4, "inconclusive")])
def test_losing_against_more_minutes_is_inconclusive(dice, verdict):
    row = gained(BUDGETS | {"points": dice}).loc["kind", "points", "all networks"]
    assert (row["minutes"], row["minutes_against"], row["against"]) == (60, 100, "full contours, 1.7 h")
    assert row["difference"] == pytest.approx(dice - 0.5)
    assert row["verdict"] == verdict


@pytest.mark.parametrize(("dice", "verdict"), [(0.6, "better"), (0.4, "inconclusive")])
def test_no_annotation_at_all_is_compared_with_the_smallest_budget(dice, verdict):
    row = gained(BUDGETS | {"planted": dice}).loc["kind", "planted", "all networks"]
    assert (row["minutes"], row["minutes_against"], row["against"]) == (0, 100, "full contours, 1.7 h")
    assert (row["difference"], row["verdict"]) == (pytest.approx(dice - 0.5), verdict)


def test_winning_with_more_minutes_is_inconclusive():
    only_a_quarter = {"patients_25": 0.5, "boxes": 0.7}
    assert gained(only_a_quarter).loc["kind", "boxes", "all networks"]["verdict"] == "inconclusive"
    assert gained(only_a_quarter | {"boxes": 0.3}).loc["kind", "boxes", "all networks"]["verdict"] == "worse"


@pytest.mark.parametrize(
    ("question", "arm", "against"),
    [
        ("pretraining", "pretraining_25", "patients_25"),
        ("self_training", "self_training_25", "patients_25"),
        ("planted", "planted_25", "patients_25"),
        ("roi", "boxes_roi", "boxes"),
        ("ranking", "ranking_50", "patients_50"),
        ("ranking", "random_50", "patients_50"),
        ("ranking", "rounds_50", "patients_50"),
    ],
)
def test_an_arm_is_compared_with_the_one_that_differs_in_nothing_else(question, arm, against):
    dice = BUDGETS | {"boxes": 0.55, arm: 0.62}
    row = gained(dice).loc[question, arm, "all networks"]
    assert row["difference"] == pytest.approx(0.62 - dice[against])
    assert row["minutes"] == row["minutes_against"]


def test_what_self_training_and_what_an_ensemble_of_teachers_gains_are_apart():
    table = gained(BUDGETS | {"self_training_25": 0.58, "alone_25": 0.53})["difference"]
    assert table["self_training", "alone_25", "unet"] == pytest.approx(0.03)
    assert table["self_training", "self_training_25", "unet"] == pytest.approx(0.08)
    assert table["teachers", "self_training_25", "unet"] == pytest.approx(0.05)
    assert ("teachers", "alone_25", "unet") not in table


def test_a_ranking_is_compared_with_random_patients_who_have_as_much_lesion():
    table = gained(BUDGETS | {"ranking_50": 0.62, "random_50": 0.6})["difference"]
    assert table["foreground", "ranking_50", "all networks"] == pytest.approx(0.02)
    assert ("foreground", "random_50", "all networks") not in table


def test_ranking_in_rounds_is_compared_with_one_round_and_no_other():
    table = gained(BUDGETS | {"ranking_50": 0.62, "rounds_50": 0.65, "random_50": 0.6})["difference"]
    assert table["rounds", "rounds_50", "all networks"] == pytest.approx(0.03)
    assert ("rounds", "ranking_50", "all networks") not in table
    assert ("foreground", "rounds_50", "all networks") not in table


def test_dense_slices_of_few_patients_are_compared_with_sparse_slices_of_many_at_equal_minutes():
    # 200 minutes are half way between 100 and 200 times the square root of 2, in logarithms
    table = gained(BUDGETS | {"slices_50": 0.5, "slices": 0.6, "dense_75": 0.53})
    row = table.loc["slices", "dense_75", "unet"]
    assert row["difference"] == pytest.approx(0.53 - 0.55)
    assert row["against"] == "one slice in 5, equal minutes"
    assert set(table.loc["slices"].index.get_level_values("arm")) == {"dense_75"}
    assert set(table.loc["kind"].index.get_level_values("arm")) == {"dense_75", "slices", "slices_50"}
    assert gained({"slices": 0.6, "dense_75": 0.7}).loc["slices", "dense_75", "unet"]["against"].endswith("5, 4.7 h")


def test_arms_that_differ_in_their_slices_are_no_partners():
    roi = ARMS["slices"][3] | {"recipe": "sampling: roi"}
    results = budget({"dense_75": 0.5, "slices": 0.5, "boxes_roi": 0.6})
    for key, value in roi.items():
        results.arms.loc["boxes_roi", key] = value
    table = budget_gains(results, 100, 0)
    assert table.loc[table["question"] == "roi", "against"].unique().tolist() == ["slices"]


def test_an_arm_without_its_partner_is_compared_with_none():
    table = gained({"patients_50": 0.5, "patients_100": 0.6, "pretraining_25": 0.4, "boxes_roi": 0.4})
    assert set(table.index.get_level_values("question")) == {"patients"}


def test_differences_are_paired_by_patient_and_seeds_averaged():
    results = budget({"patients_25": 0.5, "self_training_25": 0.52}, models=["unet"])
    table = budget_gains(results, 20000, 0).set_index("model")
    scores = results.patients.groupby(["arm", "patient"])["dice"].mean()
    pairs = scores["self_training_25"] - scores["patients_25"]
    assert np.ptp(pairs) > 0.05, "patients gain differently"
    row = table.loc["unet"]
    assert row["difference"] == pytest.approx(pairs.mean())
    # both seeds are as good in both arms: what is left are the patients
    assert (row["low"], row["high"]) == pytest.approx(bootstrap_interval(pairs, 20000), abs=0.002)
    assert row["verdict"] == ("better" if row["low"] > 0 else "inconclusive")


@pytest.mark.parametrize(
    ("gain", "n", "verdict"),
    [(0.1, N, "better"), (-0.1, N, "worse"), (0.0, N, "inconclusive"), (0.1, 5, "inconclusive")],
)
def test_the_verdict_is_that_of_the_interval_where_patients_are_enough(gain, n, verdict):
    dice = {"patients_25": 0.5, "pretraining_25": 0.5 + gain}
    assert gained(dice, n=n).loc["pretraining", "pretraining_25", "unet"]["verdict"] == verdict


ALL = BUDGETS | {"boxes": 0.7, "points": 0.3, "slices": 0.4, "boxes_roi": 0.6, "ranking_50": 0.75, "random_50": 0.8}
ALL |= {"slices_50": 0.4, "dense_75": 0.5, "rounds_50": 0.75}
ALL |= {("unet", "pretraining_25"): 0.5, ("unetr", "pretraining_25"): 0.6}
ALL |= {("unet", "self_training_25"): 0.4, ("unetr", "self_training_25"): 0.6, "alone_25": 0.5}


def test_every_question_is_answered_with_its_verdict():
    verdicts = [re.findall(r"\*\*(.*?)\*\*( for [\w-]+)?", line) for line in answered(ALL).splitlines()]
    assert [["".join(found) for found in line] for line in verdicts] == [
        ["How many patients are enough?", "better"],
        ["What would twice the annotations gain?"],
        ["Which kind of annotation is worth its minutes?", "better", "inconclusive", "worse", "worse", "worse"],
        ["Many slices of few patients, or few slices of many?", "better"],
        ["Does pretraining on all images help?", "inconclusive for U-Net", "better for UNETR"],
        [
            "Does self-training help?",
            "worse for U-Net",
            "better for UNETR",
            "inconclusive for U-Net",
            "inconclusive for UNETR",
        ],
        ["Does it help to be taught by all networks together?", "worse for U-Net", "better for UNETR"],
        ["Do planted lesions help?"],
        ["Does it help to choose patients by a ranking?", "better", "better", "better"],
        ["Does it help to train again between rounds of a ranking?", "inconclusive"],
        ["Is a ranking better than random patients with as much lesion?", "worse"],
        ["Are patches around boxes enough?", "worse"],
    ]


def test_answers_hold_the_tables_numbers():
    text, table = answered(ALL), gained(ALL)
    row = table.loc["pretraining", "pretraining_25", "unetr"]
    assert f"**better** for UNETR (+0.10 [{row['low']:+.2f}, {row['high']:+.2f}])" in text
    row = table.loc["kind", "points", "all networks"]
    expected = f"points against full contours, 1.7 h: **inconclusive** (-0.20 [{row['low']:+.2f}, {row['high']:+.2f}])"
    assert expected in text
    assert re.search(r"U-Net: \+0\.0.*Dice, 80 patients instead of 40, if a power law holds; n = 12 patients", text)
    assert "nan" not in text


@pytest.mark.parametrize(
    ("dice", "words"),
    [
        (BUDGETS | {("unetr", "patients_100"): 0.3}, r"U-Net: \+0\..*UNETR: no prediction \(the error does not fall"),
        ({"patients_25": 0.5, "patients_50": 0.6}, r"gain\?\*\* U-Net: no prediction \(2 budget\(s\)"),
    ],
)
def test_a_curve_that_no_power_law_describes_is_not_predicted(dice, words):
    assert re.search(words, answered(dice))


@pytest.mark.parametrize("arm", ["patients_25", "boxes"])
def test_questions_without_arms_are_named_as_not_asked(arm):
    assert answered({arm: 0.5}).count("Not studied") == len(QUESTIONS)


@pytest.mark.parametrize(
    ("n", "words"), [(5, "n = 5 patients, fewer than 6: always inconclusive"), (1, "[no interval]")]
)
def test_with_few_patients_every_answer_is_inconclusive(n, words):
    text = answered(ALL, n=n)
    assert "40 patients against 20 patients: **inconclusive**" in text and words in text
    assert not any(word in text for word in ("**better**", "**worse**", "nan"))


def test_without_anything_to_compare_the_table_is_empty_and_has_its_columns():
    assert list(budget_gains(budget({"boxes": 0.5}), 100, 0).columns) == GAIN_COLUMNS


@pytest.mark.parametrize("dice", [ALL, {"boxes": 0.5}, {"patients_25": 0.5}])
def test_figures_are_drawn_of_whatever_arms_there_are(dice):
    """Run the cells of notebook 06 between its tables and its result."""
    results = budget(dice)
    tables = {"power_laws": power_laws(results, 100, 0), "gains": budget_gains(results, 100, 0)}
    cells = {cell.id: cell.source for cell in nbformat.read(NOTEBOOKS / "06_annotation_budget.ipynb", 4).cells}
    figures = {}
    names = {
        "results": results,
        "models": results.models,
        "tables": tables | {"curves": budget_curves(results, 100, 0)},
    }
    names["records"] = SimpleNamespace(figure=lambda figure, name: figures.update({name: figure}))
    for cell in ("cell-02", "cell-07", "cell-09", "cell-10", "cell-12", "cell-17", "cell-19", "cell-21"):
        exec(cells[cell], names)
    for figure in figures.values():
        figure.canvas.draw()
        plt.close(figure)
    assert list(figures) == ["patients", "minutes", "gains"]
    assert [axes.get_title() for axes in figures["minutes"].axes[:2]] == [model_title(name) for name in results.models]


def test_measured_minutes_stand_beside_those_that_are_assumed_for_the_same_cases(store_blobs, tmp_path):
    """Run the cell of notebook 06: a case of two lesions was drawn, one of a lesion with a proposal, one corrected."""
    cells = {cell.id: cell.source for cell in nbformat.read(NOTEBOOKS / "06_annotation_budget.ipynb", 4).cells}
    drawn = {"a": (2, 9.5, "nothing"), "b": (1, 3.0, "proposal"), "c": (1, 1.0, "mask"), "d": (1, None, "")}
    cases = []
    for name, (n, minutes, how) in drawn.items():
        store_blobs(name, [(9, 12, 8), (25, 20, 20)][:n])  # on six slices each
        mask = tmp_path / f"{name}.nii.gz"
        cases.append(Case(name, (mask,), mask, name, "lung", minutes=minutes, begun_with=how))
    names, shown = {**COSTS, "cohort": Cohort("x", "", cases)}, []
    names["layout"] = SimpleNamespace(case_store=tmp_path / "cases")
    exec(cells["cell-02"], names)
    names["display"] = shown.append
    exec(cells["cell-24"], names)
    # by hand: 2 + 2 * 1 + 12 * 0.25 minutes without a proposal, 2 + 1 + 6 * 0.25 with one
    assert shown[0].data.to_numpy().tolist() == [["nothing", 1, 9.5, 7.0], ["proposal", 1, 3.0, 4.5]]
    assert "**measured for 2 of 4 cases**" in names["words"]
    names["cohort"] = Cohort("x", "", cases[2:])
    exec(cells["cell-24"], names)
    assert len(shown) == 1, "nothing was measured: no table"
    assert "**measured for 0 of 2 cases**" in names["words"]


def test_the_notebook_holds_the_parameters_of_the_demo():
    names, cells = {}, nbformat.read(NOTEBOOKS / "06_annotation_budget.ipynb", 4).cells
    exec(cells[1].source, names)
    assert Budget.read(names).model_dump() == resolve("06_annotation_budget", "demo_budget")


@pytest.fixture
def fake_study(tmp_path, monkeypatch):
    """A budget study of two networks, written, and its file."""
    monkeypatch.setenv("METASEG_HOME", str(tmp_path))
    arms = [*BUDGETS, "points", "boxes", "boxes_roi", "pretraining_25", "ranking_50"]
    fake = FakeBudget(StudyLayout("fake"), fake_cohort(tmp_path), ("unet", "unetr"), tuple(arms), (0, 1))
    fake.write({("unetr", "pretraining_25"): 0.3, "points": -0.2})
    study = tmp_path / "fake.yaml"
    asked = {"study": "fake", "models": list(fake.models), "arms": arms, "seeds": [0, 1], "n_bootstrap": 200}
    study.write_text(yaml.safe_dump(asked))
    return fake, study


@pytest.mark.slow
@pytest.mark.landing
def test_the_notebook_answers_and_run_again_gives_the_same_tables(fake_study):
    fake, study = fake_study

    def run():
        notebook = nbformat.read(run_notebook(Run("06_annotation_budget", str(study))), as_version=4)
        assert damage(fake.layout.budget_record) == {}
        return notebook.cells[-1].outputs[0].data["text/markdown"], {
            path.name: path.read_bytes() for path in fake.layout.annotation_budget.glob("*.csv")
        }

    text, tables = run()
    assert re.search(r"Does pretraining on all images help\?\*\*.*\*\*better\*\* for UNETR", text)
    names = ("patients", "efforts", "power_laws", "gains", "curves")
    assert tables.keys() == {f"{name}.csv" for name in names}
    curve = pd.read_csv(fake.layout.annotation_budget / "curves.csv")
    assert len(curve) == 2 * 8
    assert (curve["dice_low"] < curve["dice"]).all() and (curve["dice"] < curve["dice_high"]).all()
    figures = {path.name for path in fake.layout.figures.glob("*.png")}
    assert figures == {"06_patients.png", "06_minutes.png", "06_gains.png"}
    page = write_page(str(study), "06_annotation_budget").read_text()
    box = re.search(r"<blockquote>(.*?)</blockquote>", page, re.DOTALL)[1]
    assert box.count("<li>") == len(QUESTIONS) + 1, "every answer is in the box, and what twice the annotations gain"
    assert run() == (text, tables)
    fake.layout.run("unet", 0, "boxes", 0).metrics.unlink()
    with pytest.raises(Exception, match="no such file"):
        run_notebook(Run("06_annotation_budget", str(study)))
    assert damage(fake.layout.budget_record) == {}, "the finished tables stay as long as the input is not whole"
