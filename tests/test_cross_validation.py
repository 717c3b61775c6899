"""Cross-validation: folds are pooled whole or not at all, means are over patients, the baseline is chosen fairly."""

import json
import os
import shutil
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from metaseg_nb.checksums import read_record, write_record
from metaseg_nb.cohort.cases import Case, Cohort, LesionRule
from metaseg_nb.cohort.datalist import write_datalist
from metaseg_nb.cohort.folds import split
from metaseg_nb.cohort.problems import CohortError
from metaseg_nb.cohort.volumes import Volume, read_volume, write_volume
from metaseg_nb.evaluation.baseline import dice_by_threshold, score_threshold, threshold_of
from metaseg_nb.evaluation.comparison import epoch_choice, make_leaderboard, summary
from metaseg_nb.evaluation.conclusions import not_compared_alike
from metaseg_nb.evaluation.intervals import bootstrap_interval, share
from metaseg_nb.evaluation.pooling import PooledResults, finished_part, pool
from metaseg_nb.evaluation.scoring import METRICS, metric, rescore, score, score_cases
from metaseg_nb.evaluation.strata import all_strata
from metaseg_nb.figures.style import show_leaderboard
from metaseg_nb.files import read_table, write_table
from metaseg_nb.layout import StudyLayout
from metaseg_nb.preprocessing.case_store import open_case
from metaseg_nb.settings import NOT_IDENTITY
from metaseg_nb.training.finished_run import finish_run

MODELS = ["unet", "segresnet"]
SHAPE = (24, 22, 20)
BEST = {"epoch": 3, "dice": 0.8, "identity": {"recipe": {"spacing_mm": 1.0}}}
HISTORY = pd.DataFrame({"epoch": [1, 2], "seconds": [5.0, 9.5]})


def cube(edge=4):
    mask = np.zeros(SHAPE, np.uint8)
    mask[6 : 6 + edge, 6:10, 6:10] = 1
    return mask


@pytest.fixture
def layout(tmp_path, monkeypatch):
    monkeypatch.setenv("METASEG_HOME", str(tmp_path / "home"))
    return StudyLayout("tiny")


@pytest.fixture
def cohort(write_nifti):
    """Six patients in two folds, the first of them with two cases; each case has one lesion of 4x4x4 voxels."""
    cases = []
    for i in range(7):
        patient = max(0, i - 1)  # cases 0 and 1 are of patient 0
        image = write_nifti(f"case{i}/image.nii.gz", np.where(cube(), 300, 100).astype(np.float32))
        label = write_nifti(f"case{i}/label.nii.gz", cube())
        cases.append(Case(f"case{i}", (image,), label, f"patient{patient}", "lung", fold=patient % 2))
    return Cohort("tiny", "made by hand", cases)


@pytest.fixture
def finish(layout, cohort, tiny_training):
    """Finish a run as notebook 03 does, with predictions that leave out half of each lesion or, if missed, all."""

    def write(model, fold, missed=(), of=cohort, best=BEST, **changes):
        settings, parts = tiny_training(model=model, fold=fold, **changes), split(of, fold)
        run = layout.run(model, fold)
        for case in parts.test:
            predicted = cube(edge=0 if case.name in missed else 2)
            write_volume(run.predictions / f"{case.name}.nii.gz", replace(read_volume(case.image, ""), array=predicted))
        metrics, lesions = score_cases(parts.test, run.predictions, of.rule)
        made = {"threshold": 0.5}, {"operating_point": "balanced"}, {"bin": 7}
        tables = [metrics, metrics, lesions, *(probabilities(parts.test, **columns) for columns in made)]
        for path, table in zip(run.tables, [pd.DataFrame({"case": ["x"]}), *tables], strict=True):
            write_table(path, table)
        unlike = {case.name: len(model) + fold for case in parts.test}
        finish_run(run, settings, of, parts, HISTORY, best, 1234, unlike)

    return write


@pytest.fixture
def finished(finish):
    for model in MODELS:
        for fold in (0, 1):
            finish(model, fold, missed=["case3"] if model == "segresnet" else [])


def probabilities(cases, **columns):
    return pd.DataFrame({"case": [case.name for case in cases]}).assign(**columns)


def rewrite(run, change):
    """Change the metrics of a run as a mistake of the program would, that is before it finished."""
    write_table(run.metrics_table, change(read_table(run.metrics_table)))
    facts = read_record(run.metrics)
    write_record(run.metrics, facts, [run.root / name for name in facts["files"]])


def test_all_folds_of_all_networks_are_pooled(layout, cohort, finished):
    results = pool(layout, cohort, MODELS)
    metrics = results.metrics.set_index(["model", "case"])
    assert len(metrics) == len(MODELS) * 7
    assert metrics.loc["unet", "dice"].to_numpy() == pytest.approx(2 * 32 / (32 + 64))
    assert metrics.loc[("segresnet", "case3"), "dice"] == 0
    assert metrics.loc[("segresnet", "case3"), "hd95_mm"] == 374
    assert metrics["unlikeness"].tolist() == [len(model) + fold for (model, _), fold in metrics["fold"].items()]
    lesions = results.lesions.set_index(["model", "case"])
    assert lesions["detected"].dtype == bool
    assert not lesions.loc[("segresnet", "case3"), "detected"]
    assert lesions["detected"].sum() == 13
    # corner to corner of 4 x 4 x 4 mm
    assert lesions["diameter_mm"].to_numpy() == pytest.approx(4 * 3**0.5)
    assert set(lesions["diameter_class"]) == {"5-10 mm"}
    named_since = cohort.changed(lambda case: replace(case, site="Bern", scanner="Skyra"))
    lesions = pool(layout, named_since, MODELS).lesions
    assert (set(lesions["site"]), set(lesions["scanner"])) == ({"Bern"}, {"Skyra"})
    runs = results.runs
    assert runs[["model", "fold"]].to_numpy().tolist() == [[m, f] for m in MODELS for f in (0, 1)]
    assert set(runs["train_seconds"]) == {9.5}
    assert (set(runs["parameters"]), set(runs["best_epoch"]), set(runs["last_epoch"])) == ({1234}, {3}, {2})


def test_all_tables_of_all_folds_are_pooled(layout, cohort, finished):
    results = pool(layout, cohort, MODELS)
    assert results.other_metrics["dice"].tolist() == results.metrics["dice"].tolist()
    of_points = results.operating_points, "operating_point", "balanced"
    for table, column, value in (
        (results.detections, "threshold", 0.5),
        of_points,
        (results.calibration, "bin", 7),
    ):
        assert table.groupby("model")["case"].apply(sorted).to_dict() == {
            m: [f"case{i}" for i in range(7)] for m in MODELS
        }
        assert set(table[column]) == {value}


def test_scores_that_are_no_numbers_are_named(layout, cohort, finished):
    rewrite(layout.run("unet", 1), lambda t: t.assign(hd95_mm=np.nan, dice=[np.inf, 0.5, 0.5]))
    with pytest.raises(CohortError) as error:
        pool(layout, cohort, MODELS)
    (problem,) = error.value.problems
    assert (problem.case, problem.found) == ("unet, fold 1", "no finite dice, hd95_mm for case2, case4, case6")


@pytest.mark.parametrize("folds", [0, 1])
def test_an_empty_cohort_or_a_single_fold_cannot_be_pooled(layout, cohort, folds):
    small = replace(cohort, cases=[replace(case, fold=0) for case in cohort.cases][: 7 * folds])
    with pytest.raises(CohortError, match=rf"{7 * folds} labelled cases in {folds} fold.*two folds or more"):
        pool(layout, small, MODELS)


def test_a_finished_run_says_who_was_trained_on_and_who_tested(layout, cohort, finished):
    result = json.loads(layout.run("unet", 1).metrics.read_text())
    parts = result["cases"]
    assert set(parts["test"]) == {case.name for case in cohort.cases if case.fold == 1}
    assert sorted([*parts["training"], *parts["selection"], *parts["test"]]) == sorted(
        case.name for case in cohort.cases
    )
    assert len(parts["test"]) == 3
    assert result["settings"]["fold"] == 1
    assert {"commit", "torch", "machine"} <= set(result["provenance"])


def test_every_missing_fold_is_named(layout, cohort, finished):
    layout.run("unet", 1).metrics.unlink()
    layout.run("segresnet", 0).metrics.unlink()
    with pytest.raises(CohortError) as error:
        pool(layout, cohort, MODELS)
    assert [problem.case for problem in error.value.problems] == ["unet, fold 1", "segresnet, fold 0"]
    assert "run 03 for fold 1" in str(error.value)


def test_what_is_not_finished_is_named_and_the_rest_compared_on_equal_folds(layout, cohort, finished):
    assert finished_part(layout, cohort, MODELS) == (MODELS, [0, 1], [])
    layout.run("unet", 0).metrics.unlink()
    models, folds, missing = finished_part(layout, cohort, [*MODELS, "unetr"])
    assert (models, folds) == (MODELS, [1])
    assert missing == ["unet, fold 0", "unetr, fold 0", "unetr, fold 1"]
    results = pool(layout, cohort, models, folds)
    assert results.metrics.groupby("model")["case"].apply(sorted).to_dict() == {
        model: ["case2", "case4", "case6"] for model in MODELS
    }
    assert finished_part(layout, cohort, ["segresnet"]) == (["segresnet"], [0, 1], [])
    layout.run("segresnet", 1).metrics.unlink()
    with pytest.raises(CohortError, match=r"no finished run of .*unet, fold 0.*a fold that every network has finished"):
        finished_part(layout, cohort, MODELS)
    with pytest.raises(CohortError, match=r"no finished run of unetr, fold 0"):
        finished_part(layout, cohort, ["unetr"])


@pytest.fixture
def own_metric():
    kept = dict(METRICS)

    @metric("relative volume error", digits=2)
    def volume_error(truth, prediction, spacing_mm):
        return abs(int(prediction.sum()) - int(truth.sum())) / max(1, int(truth.sum()))

    yield
    METRICS.clear()
    METRICS.update(kept)


def test_a_metric_of_ones_own_is_asked_for_and_added_to_finished_runs(layout, cohort, finished, own_metric):
    write_datalist(layout.dataset, cohort)
    with pytest.raises(CohortError, match=r"case unet, fold 1, .*no finite volume_error for .*rescore --study tiny"):
        pool(layout, cohort, MODELS)
    before = read_table(layout.run("unet", 0).metrics_table)
    assert rescore("tiny") == ["segresnet/fold0", "segresnet/fold1", "unet/fold0", "unet/fold1"]
    pd.testing.assert_frame_equal(read_table(layout.run("unet", 0).metrics_table)[before.columns], before)
    board = make_leaderboard(pool(layout, cohort, MODELS).metrics, 200, 0).set_index("model")
    assert board.loc["unet", "volume_error"] == pytest.approx(0.5)
    assert board.loc["segresnet", "volume_error"] == pytest.approx((5 * 0.5 + 1) / 6)
    html = show_leaderboard(board.reset_index().assign(parameters=7, train_minutes=1.0)).to_html()
    assert "relative volume error" in html


def test_a_metric_of_ones_own_that_is_not_finite_is_named(own_metric):
    metric("share")(lambda truth, prediction, spacing_mm: np.nan)
    METRICS["share"] = METRICS.pop("<lambda>")
    mask = Volume(cube(), np.eye(4), np.array([[0, 1], [1, 1], [2, 1]]))
    with pytest.raises(ValueError, match=r"case anna: found \{'share': nan\}; expected a finite number for every"):
        score(mask, mask, case="anna")


def test_scores_of_the_other_weights_are_made_again_too(layout, cohort, finish, own_metric):
    """From their masks of this operating point; where the last epoch was chosen, they are those of the kept weights."""
    write_datalist(layout.dataset, cohort)
    for fold, other_epoch in ((0, 1), (1, BEST["epoch"])):
        finish("unet", fold, best=BEST | {"other_epoch": other_epoch})
    run = layout.run("unet", 0)
    for mask in run.predictions.iterdir():
        for point, edge in (("balanced", 4), ("specific", 0)):
            predicted = replace(read_volume(mask, ""), array=cube(edge))
            write_volume(run.other_predictions / point / mask.name, predicted)
    rescore(layout.study)
    others = pool(layout, cohort, ["unet"]).other_metrics.groupby("fold")
    assert others["dice"].mean().tolist() == pytest.approx([1, 2 * 32 / (32 + 64)])
    assert others["volume_error"].count().tolist() == others["dice"].count().tolist()


def test_scoring_again_needs_a_finished_run_and_its_masks_as_they_were(layout, cohort, finish):
    write_datalist(layout.dataset, cohort)
    with pytest.raises(CohortError, match="no finished run"):
        rescore("tiny")
    finish("unet", 0)
    next(layout.run("unet", 0).predictions.iterdir()).unlink()
    with pytest.raises(CohortError, match=r"unet, fold 0.*no such file"):
        rescore("tiny")


def test_cases_scored_twice_or_never_or_unknown_are_named_all_at_once(layout, cohort, finished):
    rewrite(layout.run("unet", 0), lambda t: pd.concat([t, t[t["case"] == "case0"]]))
    rewrite(layout.run("unet", 1), lambda t: t[t["case"] != "case2"])
    rewrite(layout.run("segresnet", 1), lambda t: t.replace({"case": {"case4": "stranger"}}))
    with pytest.raises(CohortError) as error:
        pool(layout, cohort, MODELS)
    assert [(problem.case, problem.found) for problem in error.value.problems] == [
        ("case0", "scored 2 times by unet"),
        ("case2", "scored 0 times by unet"),
        ("case4", "scored 0 times by segresnet"),
        ("stranger", "scored 1 times by segresnet"),
    ]


def test_a_case_scored_in_two_folds_is_named(layout, cohort, finished):
    other = pd.read_csv(layout.run("unet", 0).metrics_table).query("case == 'case1'")
    rewrite(layout.run("unet", 1), lambda t: pd.concat([t, other]))
    with pytest.raises(CohortError, match=r"case case1.*scored 2 times by unet"):
        pool(layout, cohort, MODELS)


def test_folds_of_other_settings_are_named(layout, cohort, finish, finished):
    finish("unet", 1, learning_rate=0.5)
    with pytest.raises(CohortError) as error:
        pool(layout, cohort, MODELS)
    assert [(problem.case, problem.found) for problem in error.value.problems] == [
        ("unet, fold 1", "other settings than fold 0 (learning_rate 0.5 instead of 0.01)")
    ]


def test_folds_of_another_operating_point_are_named(layout, cohort, finish):
    finish("unet", 0)
    finish("unet", 1, operating_point="sensitive")
    with pytest.raises(CohortError, match=r"operating_point sensitive instead of balanced"):
        pool(layout, cohort, ["unet"])


def test_networks_of_different_operating_points_are_named_in_the_answer(layout, cohort, finish):
    """It may be wanted: a sentence, and no error."""
    for fold, (model, point) in product((0, 1), {"unet": "balanced", "segresnet": "sensitive"}.items()):
        finish(model, fold, operating_point=point)
    runs = pool(layout, cohort, MODELS).runs
    assert runs.groupby("model")["operating_point"].unique().str.join(" ").to_dict() == {
        "unet": "balanced",
        "segresnet": "sensitive",
    }
    said = "The networks decide at different operating points (balanced: U-Net; sensitive: SegResNet)."
    assert said in not_compared_alike(runs)
    assert not_compared_alike(pool(layout, cohort, ["segresnet"]).runs) == ""


def test_folds_that_differ_only_in_what_changes_no_result_are_pooled(layout, cohort, finish, finished):
    assert {"title", "arm_title", "num_processes", "compiled", "operating_point", "loader_workers"} == NOT_IDENTITY
    finish("unet", 1, title="Another title", num_processes=2, compiled=True)
    assert len(pool(layout, cohort, MODELS).metrics) == 2 * 7


def test_folds_of_other_preprocessing_are_named(layout, cohort, finish, finished):
    finish("unet", 1, best={**BEST, "identity": {"recipe": {"spacing_mm": 2.0}}})
    with pytest.raises(CohortError, match=r"unet, fold 1"):
        pool(layout, cohort, MODELS)


def test_a_fold_of_another_cohort_is_named(layout, cohort, finish, finished):
    cases = [replace(case, patient="patient9") if case.name == "case5" else case for case in cohort.cases]
    finish("unet", 1, of=replace(cohort, cases=cases))
    with pytest.raises(CohortError, match=r"unet, fold 1.*other cases, patients, folds or lesion values"):
        pool(layout, cohort, MODELS)


def test_runs_that_are_all_of_another_cohort_are_named(layout, cohort, finish, finished):
    # as when folds were dealt again after training: still every case once, but not by these folds
    swapped = replace(cohort, cases=[replace(case, fold=1 - case.fold) for case in cohort.cases])
    with pytest.raises(CohortError) as error:
        pool(layout, swapped, MODELS)
    assert {problem.case for problem in error.value.problems} == {f"{m}, fold {f}" for m in MODELS for f in (0, 1)}


def pool_problems(layout, cohort):
    with pytest.raises(CohortError) as error:
        pool(layout, cohort, MODELS)
    return error.value.problems


def double_a_row(path):
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines, lines[-1]]))


def lose_a_row(path):
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-1]))


def change_a_digit(path):
    content = path.read_text()
    place = max(content.rfind(digit) for digit in "123456789")
    path.write_text(content[:place] + str(10 - int(content[place])).replace("5", "4") + content[place + 1 :])


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def zero(path):
    path.write_bytes(bytes(path.stat().st_size))


def empty(path):
    path.write_bytes(b"")


TABLES = ["metrics.csv", "metrics_other.csv", "lesions.csv", "detections.csv", "calibration.csv", "annotation.csv"]
HARM = [double_a_row, lose_a_row, change_a_digit, cut, zero, empty, Path.unlink]


def problems_after(harm, path, layout, cohort):
    """What pooling says of a study of which one file is harmed; the file is put back."""
    kept = path.read_bytes()
    harm(path)
    assert not path.is_file() or path.read_bytes() != kept
    with pytest.raises(CohortError) as error:
        pool(layout, cohort, MODELS)
    path.write_bytes(kept)
    return error.value.problems


def test_whatever_is_not_as_a_run_left_it_is_named_with_its_run(layout, cohort, finished):
    run, mask = layout.run("segresnet", 1), f"predictions/{next(c.name for c in cohort.cases if c.fold == 1)}.nii.gz"
    harms = [*product(TABLES, HARM), *product([mask], [cut, zero, empty, Path.unlink])]
    for file, harm in harms:
        if (file, harm) == ("annotation.csv", change_a_digit):  # it has none
            continue
        (problem,) = problems_after(harm, run.root / file, layout, cohort)
        assert (problem.case, problem.file) == ("segresnet, fold 1", file)
        assert problem.found == (
            "no such file" if harm is Path.unlink else "content that has changed since it was written"
        )
        assert "run 03 for fold 1 again: it uses its checkpoint, and only predicts and scores again" in problem.fix
        assert str(run.root) in problem.fix, "in a study of annotation budgets the arm and the seed too"
    for harm in (change_a_digit, cut, zero, empty, Path.unlink):
        (problem,) = problems_after(harm, run.metrics, layout, cohort)
        assert (problem.case, problem.file) == ("segresnet, fold 1", "metrics.json")
    assert len(pool(layout, cohort, MODELS).metrics) == 14


def test_a_run_without_checksums_is_named_and_needs_no_training(layout, cohort, finished):
    file = layout.run("unet", 0).metrics
    file.write_text(json.dumps({key: value for key, value in read_record(file).items() if key != "files"}))
    with pytest.raises(CohortError, match=r"content that has changed.*it uses its checkpoint"):
        pool(layout, cohort, MODELS)


def test_a_run_whose_other_weights_are_unknown_must_be_trained_again(layout, cohort, finished):
    run = layout.run("unet", 0)
    facts = read_record(run.metrics)
    files = [run.root / name for name in facts.pop("files")]
    write_record(run.metrics, {key: value for key, value in facts.items() if key != "weights"}, files)
    with pytest.raises(CohortError, match=r"a run of an earlier version; .*another name and train it again"):
        pool(layout, cohort, MODELS)


def test_damage_of_all_runs_is_named_at_once(layout, cohort, finished):
    lose_a_row(layout.run("unet", 0).lesions_table)
    layout.run("unet", 0).detections_table.unlink()
    change_a_digit(layout.run("segresnet", 1).metrics_table)
    layout.run("segresnet", 0).metrics.unlink()
    with pytest.raises(CohortError) as error:
        pool(layout, cohort, MODELS)
    assert {(problem.case, problem.file) for problem in error.value.problems} == {
        ("unet, fold 0", "lesions.csv"),
        ("unet, fold 0", "detections.csv"),
        ("segresnet, fold 1", "metrics.csv"),
        ("segresnet, fold 0", "metrics.json"),
    }


def test_runs_on_cases_that_were_preprocessed_otherwise_than_those_of_the_store_are_all_named(
    layout, cohort, finish, store, tmp_path
):
    def preprocess(of, n4_iterations):
        for case in of:
            store(case.name, cube().astype(np.float32), cube(), n4_iterations=n4_iterations)
            target = layout.case_store / case.name
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(tmp_path / "cases" / case.name, target)
        return open_case(layout.case_store, of[0].name).recipe

    best = {**BEST, "identity": {"recipe": preprocess(cohort.cases, 10)}}
    for model, fold in product(MODELS, (0, 1)):
        finish(model, fold, best=best)
    assert len(pool(layout, cohort, MODELS).metrics) == 14
    preprocess(cohort.cases[3:4], 5)  # 02 was broken off
    broken_off = pool_problems(layout, cohort)
    preprocess(cohort.cases, 5)
    problems = pool_problems(layout, cohort)
    assert problems == broken_off
    assert [problem.case for problem in problems] == [f"{model}, fold {fold}" for model in MODELS for fold in (0, 1)]
    assert {problem.found for problem in problems} == {"cases preprocessed differently (n4_iterations 10 instead of 5)"}
    assert problems[1].fix == "run 03 for fold 1 again, or 02 with the earlier settings"
    preprocess(cohort.cases, 10)
    assert len(pool(layout, cohort, MODELS).metrics) == 14


def test_a_label_that_was_corrected_since_makes_all_runs_out_of_date(layout, cohort, finish, finished):
    case = next(case for case in cohort.cases if case.fold == 1)
    os.utime(case.label, (1, 1))
    assert len(pool(layout, cohort, MODELS).metrics) == 14, "copied, or touched: the same label"
    write_volume(case.label, replace(read_volume(case.label, "", np.uint8), array=cube(edge=5)))
    problems = pool_problems(layout, cohort)  # fold 1 was tested by the former label, fold 0 trained or chosen by it
    assert [problem.case for problem in problems] == [f"{model}, fold {fold}" for model in MODELS for fold in (0, 1)]
    assert {problem.found for problem in problems} == {f"labels that have changed since: {case.name}"}
    assert [problem.fix for problem in problems] == 2 * [f"run 02, then run 03 for fold {k} again" for k in (0, 1)]
    for model in MODELS:
        finish(model, 1)
    assert [problem.case for problem in pool_problems(layout, cohort)] == ["unet, fold 0", "segresnet, fold 0"]
    for model in MODELS:
        finish(model, 0)
    assert pool(layout, cohort, MODELS).metrics.set_index(["model", "case"]).loc[("unet", case.name), "dice"] < 2 / 3


def test_scores_by_another_rule_of_lesion_values_are_not_pooled(layout, cohort, finished):
    for rule in (LesionRule(values=(1, 2)), LesionRule(other_values=(2,)), LesionRule(threshold=0.5)):
        with pytest.raises(CohortError, match="lesion values") as error:
            pool(layout, replace(cohort, rule=rule), MODELS)
        assert {problem.case for problem in error.value.problems} == {f"{m}, fold {f}" for m in MODELS for f in (0, 1)}


def test_a_fold_without_any_lesion_does_not_spoil_the_others(layout, cohort, finish, write_nifti):
    empty = {"label": write_nifti("empty.nii.gz", np.zeros(SHAPE, np.uint8))}
    cases = [replace(case, **empty) if case.fold == 0 else case for case in cohort.cases]
    healthy = replace(cohort, cases=cases)
    for fold in (0, 1):
        finish("unet", fold, of=healthy, missed=["case0"])
    results = pool(layout, healthy, ["unet"])
    assert len(results.lesions) == 3
    assert results.lesions["detected"].dtype == bool
    dice = results.metrics.set_index("case")["dice"]
    assert dice["case0"] == 1  # nothing there, nothing found
    assert dice["case1"] == 0
    table = all_strata(results.lesions.assign(weight=1.0), ["unet"], 200, 0).set_index("class")
    assert table.loc["5-10 mm", ["n_lesions", "sensitivity"]].tolist() == [3, 1]


def test_a_cohort_without_any_lesion_gives_a_table_without_rows(layout, cohort, finish, write_nifti):
    label = write_nifti("empty.nii.gz", np.zeros(SHAPE, np.uint8))
    healthy = replace(cohort, cases=[replace(case, label=label) for case in cohort.cases])
    for fold in (0, 1):
        finish("unet", fold, of=healthy)
    results = pool(layout, healthy, ["unet"])
    assert len(results.lesions) == 0
    board = make_leaderboard(results.metrics, 200, 0)
    assert board.loc[0, "failures"] == 6
    assert np.isnan(board.loc[0, "lesion_sensitivity"])


def by_hand():
    """Two networks on three patients, the first of whom has two cases."""
    rows = [
        # model, case, patient, dice, hd95, false lesions
        ("unet", "a1", "a", 0.2, 10.0, 1),
        ("unet", "a2", "a", 0.6, 20.0, 2),
        ("unet", "b", "b", 0.0, 374.0, 0),
        ("unet", "c", "c", 0.8, 3.0, 3),
        ("segresnet", "a1", "a", 0.0, 374.0, 0),
        ("segresnet", "a2", "a", 1.0, 0.0, 0),
        ("segresnet", "b", "b", 0.7, 4.0, 0),
        ("segresnet", "c", "c", 0.9, 2.0, 6),
    ]
    table = pd.DataFrame(rows, columns=["model", "case", "patient", "dice", "hd95_mm", "n_false"])
    table["n_truth"] = [4, 2, 5, 0] * 2
    table["n_detected"] = [2, 1, 0, 0, 4, 2, 5, 0]
    table["large_found_2026"], table["large_missed_2026"] = [1, 1, 0, 0, 2, 2, 1, 0], [1, 1, 1, 0, 0, 0, 0, 0]
    table["small_found_2026"], table["small_missed_2026"] = [0, 0, 1, 0, 1, 0, 2, 0], [2, 0, 3, 0, 1, 0, 2, 0]
    table["large_false_2026"], table["small_false_2026"] = [0, 2, 1, 0, 0, 0, 0, 0], [1, 1, 0, 3, 0, 0, 0, 6]
    return table.assign(**{name: table["dice"] / 2 for name in METRICS if name != "hd95_mm"})


def test_leaderboard_by_hand():
    board = make_leaderboard(by_hand(), 500, 0)
    assert board["model"].tolist() == ["segresnet", "unet"]
    unet, segresnet = board.iloc[1], board.iloc[0]
    # patients of unet: 0.4, 0.0, 0.8
    assert unet[["patients", "failures"]].tolist() == [3, 1]
    assert unet[["dice_mean", "dice_sd", "dice_median"]].tolist() == pytest.approx([0.4, 0.4, 0.4])
    assert unet["hd95_mm"] == pytest.approx((15 + 374 + 3) / 3)
    assert unet["false_per_patient"] == pytest.approx((1.5 + 0 + 3) / 3)
    assert unet["recall"] == pytest.approx(0.2)
    # patient a has (4 + 2) / 2 lesions, of which (2 + 1) / 2 were detected; c has none and counts for nothing here
    assert unet["lesion_sensitivity"] == pytest.approx(1.5 / (3 + 5))
    assert segresnet["lesion_sensitivity"] == 1
    # large lesions of a, b, c: found 1, 0, 0, missed 1, 1, 0; small: found 0, 1, 0, missed 1, 3, 0; false: 2, 1, 3
    assert unet["f1_large_2026"] == pytest.approx(2 * 1 / (2 * 1 + 2 + 6))
    assert unet["f1_small_2026"] == pytest.approx(2 * 1 / (2 * 1 + 4 + 6))
    assert unet[["large_false_2026", "small_false_2026"]].tolist() == pytest.approx([(1 + 1 + 0) / 3, (1 + 0 + 3) / 3])
    # patients of segresnet: 0.5, 0.7, 0.9; the patient with one case of Dice 0 is no failure
    assert segresnet["failures"] == 0
    assert segresnet[["dice_mean", "dice_sd", "dice_median"]].tolist() == pytest.approx([0.7, 0.2, 0.7])
    assert (unet["dice_low"], unet["dice_high"]) == bootstrap_interval([0.4, 0.0, 0.8], 500, 0)
    assert unet["dice_low"] < unet["dice_mean"] < unet["dice_high"]


def test_every_metric_of_the_leaderboard_has_its_spread_and_interval():
    unet = make_leaderboard(by_hand(), 500, 0).iloc[1]
    patients = {"hd95_mm": [15.0, 374.0, 3.0], "false_per_patient": [1.5, 0.0, 3.0], "precision": [0.2, 0.0, 0.4]}
    for name, values in patients.items():
        spread = [unet[f"{name}_sd"], unet[f"{name}_median"]]
        assert spread == pytest.approx([np.std(values, ddof=1), np.median(values)]), name
        assert (unet[f"{name}_low"], unet[f"{name}_high"]) == bootstrap_interval(values, 500, 0), name
    bounds = share([1.5, 0], [3, 5], 500, 0)[1:]
    assert (unet["lesion_sensitivity_low"], unet["lesion_sensitivity_high"]) == bounds


def test_one_patient_has_a_mean_and_no_interval():
    board = make_leaderboard(by_hand().query("patient == 'c'"), 200, 0)
    assert board["dice_mean"].tolist() == pytest.approx([0.9, 0.8])
    assert board[["dice_sd", "dice_low", "dice_high", "hd95_mm_low"]].isna().all(axis=None)


@pytest.mark.parametrize("kept", ["chosen", "last"])
def test_the_last_epochs_weights_stand_beside_the_chosen_ones(kept):
    chosen = by_hand().query("model == 'unet'").assign(fold=0)
    last = chosen.assign(dice=lambda t: t["dice"] - [0.1, 0.1, 0.0, 0.2])
    both = (chosen, last) if kept == "chosen" else (last, chosen)
    runs, none = pd.DataFrame({"model": ["unet"], "fold": [0], "weights": [kept]}), pd.DataFrame()
    results = PooledResults(both[0], both[1], none, none, none, none, runs)
    choice = epoch_choice(results, ["unet"], "dice", 500, 0)
    assert choice["model"].tolist() == ["unet"]
    row = choice.iloc[0]
    assert row[["patients", "chosen", "last", "difference"]].tolist() == pytest.approx([3, 0.4, 0.3, 0.1])
    assert (row["low"], row["high"]) == pytest.approx(bootstrap_interval([0.1, 0.0, 0.2], 500, 0))


def test_no_patient_counts_more_for_having_more_cases():
    metrics = by_hand()
    again = pd.concat([metrics, metrics[metrics["patient"] == "c"].assign(case="c_again")])
    pd.testing.assert_frame_equal(make_leaderboard(metrics, 200, 0), make_leaderboard(again, 200, 0))


def test_failures_stay_in_every_mean():
    metrics = by_hand()
    without = make_leaderboard(metrics[metrics["patient"] != "b"], 200, 0).set_index("model").loc["unet"]
    assert without["dice_mean"] == pytest.approx(0.6)
    assert without["patients"] == 2


def test_the_share_of_lesions_detected_is_unknown_where_there_are_none():
    board = make_leaderboard(by_hand().assign(n_truth=0, n_detected=0), 200, 0)
    assert board["lesion_sensitivity"].isna().all()


def test_dice_by_threshold_is_the_dice_of_each_threshold(store):
    rng = np.random.default_rng(0)
    label = rng.random(SHAPE) < 0.1
    image = np.clip(rng.normal(0.4 + 0.3 * label, 0.3), 0, 1).astype(np.float32)  # many voxels at 0 and at 1
    assert (image == 1).any() and (image == 0).any()
    case = store("case", image, label)
    image, dice = np.array(case.image[0], np.float32), dice_by_threshold(case)
    assert dice.shape == (99,)
    for i in range(1, 100):
        above = image >= i / 100
        assert dice[i - 1] == pytest.approx(2 * (above & label).sum() / (above.sum() + label.sum()))


def test_the_threshold_of_z_scores_lies_on_their_scale_and_is_that_of_the_first_sequence(store):
    label = cube() > 0
    first, second = np.where(label, 5.0, 2.0), np.where(label, 0.5, 0.9)
    case = store("scored", np.stack([first, second]), label, intensity_scaling="z_score")
    assert 2 < threshold_of([case]) <= 5
    assert dice_by_threshold(case).max() == 1


def test_without_lesion_no_threshold_is_right(store):
    image = np.random.default_rng(0).random(SHAPE).astype(np.float32)
    assert not dice_by_threshold(store("healthy", image, np.zeros(SHAPE))).any()


def test_the_threshold_is_the_best_on_average(store):
    label = cube() > 0
    easy = store("easy", np.where(label, 0.8, 0.3), label)
    brighter = store("brighter", np.where(label, 0.9, 0.6), label)
    assert 0.3 < threshold_of([easy]) <= 0.8
    assert 0.6 < threshold_of([easy, brighter]) <= 0.8, "the only thresholds right for both"


def test_the_threshold_is_the_best_for_patients_and_not_for_cases(store):
    """Above 0.3 it is right for three dates of one patient, above 0.6 for two patients; none is right for all."""
    label = cube() > 0
    dim = store("dim", np.where(label, 0.5, 0.3), label)
    others = [store(name, np.where(label, 0.9, 0.6), label) for name in "qr"]
    assert 0.6 < threshold_of([dim] * 3 + others) <= 0.9


@pytest.fixture
def stored(cohort, store):
    """The cohort's cases in a store, lesions everywhere at 0.8 in a head of 0.3; returns a function to change one."""

    labels = {case.name: case.label for case in cohort.cases}

    def put(name, lesion=0.8, head=0.3, of=None):
        return store(name, np.where(cube(), lesion, head), cube(), labels[of or name])

    for case in cohort.cases:
        put(case.name)
    return put


def thresholds(cohort, folder):
    metrics, lesions = score_threshold(cohort, folder, [0, 1])
    return metrics, lesions, metrics.groupby("fold")["threshold"].unique().apply(lambda values: values.item())


def test_the_floor_is_scored_like_a_network(cohort, stored, tmp_path):
    metrics, lesions, _ = thresholds(cohort, tmp_path / "cases")
    assert sorted(metrics["case"]) == [f"case{i}" for i in range(7)]
    assert set(metrics["model"]) == set(lesions["model"]) == {"intensity_threshold"}
    assert (metrics["dice"] == 1).all()  # study grid and native grid are one here
    assert lesions["detected"].all()
    assert len(lesions) == 7


def test_a_case_only_for_training_has_a_say_in_the_threshold_and_is_not_scored(
    cohort, stored, tmp_path, finish, layout
):
    extra = replace(cohort.cases[0], name="new", patient="new", fold=None, reader="R1", minutes=1.0)
    more = replace(cohort, training_only=[extra])
    with pytest.raises(CohortError, match="new"):
        thresholds(more, tmp_path / "cases")  # 02 has not stored it
    stored("new", of="case0")
    metrics, _, _ = thresholds(more, tmp_path / "cases")
    assert sorted(metrics["case"]) == [f"case{i}" for i in range(7)]
    for fold in (0, 1):
        finish("unet", fold, of=more)
    assert sorted(pool(layout, more, ["unet"]).metrics["case"]) == [f"case{i}" for i in range(7)]
    with pytest.raises(CohortError, match="other cases, patients, folds or lesion values than now"):
        pool(layout, cohort, ["unet"])


def test_a_test_case_has_no_say_in_the_threshold_it_is_scored_with(cohort, stored, tmp_path):
    _, _, before = thresholds(cohort, tmp_path / "cases")
    for case in cohort.cases:
        if case.fold == 0:
            stored(case.name, lesion=0.1, head=0.05)
    metrics, _, after = thresholds(cohort, tmp_path / "cases")
    assert after[0] == before[0]
    assert after[1] != before[1], "fold 1 does learn from them"
    dice = metrics.groupby("fold")["dice"].mean()
    assert dice[0] == 0, "a threshold chosen on others cannot fit them"


def test_the_summary_of_a_study_is_its_leaderboard(tmp_path, monkeypatch):
    monkeypatch.setenv("METASEG_HOME", str(tmp_path))
    layout, run_it = StudyLayout("demo"), "run notebook 04 .`python -m metaseg_nb run 04_cross_validation --study demo`"
    with pytest.raises(CohortError, match=rf"leaderboard\.csv: found no such file; .*{run_it}"):
        summary("demo")
    write_table(layout.leaderboard, make_leaderboard(by_hand(), 500, 0))
    write_record(layout.comparison, {}, [layout.leaderboard])
    lines = summary("demo").splitlines()
    assert lines[1].split()[:5] == ["segresnet", "3", "0", "0.700", "0.200"]
    assert lines[2].split()[:5] == ["unet", "3", "1", "0.400", "0.400"]
    assert lines[-1] == "report: reports/demo/index.html"
    write_table(layout.leaderboard, make_leaderboard(by_hand().assign(dice=0.0), 500, 0))
    write_record(layout.comparison, {}, [layout.leaderboard])
    assert summary("demo").splitlines()[1].split()[:7] == ["unet", "3", "3", "0.000", "0.000", "–", "–"]
    write_table(layout.leaderboard, make_leaderboard(by_hand(), 500, 0))
    write_record(layout.comparison, {}, [layout.leaderboard])
    for content in (layout.leaderboard.read_bytes().replace(b"0.7", b"0.8"), b"[]"):
        layout.leaderboard.write_bytes(content)
        with pytest.raises(CohortError, match=rf"leaderboard\.csv: found content that has changed .*{run_it}"):
            summary("demo")
