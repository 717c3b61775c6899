"""Where a study stands, read from files alone."""

import json

import pandas as pd
import pytest

from metaseg_nb.__main__ import main
from metaseg_nb.batch.runs import Run, planned_runs, study_status
from metaseg_nb.checksums import write_record
from metaseg_nb.layout import StudyLayout
from metaseg_nb.machine import alone

EPOCHS = 32  # of the demo


@pytest.fixture
def layout(tmp_path, monkeypatch):
    monkeypatch.setenv("METASEG_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", "")  # no cluster
    return StudyLayout("demo")


@pytest.fixture
def on_cluster(layout, tmp_path, monkeypatch):
    """Leave what a study has that was sent to a cluster; returns a function that says what `squeue` does."""
    layout.slurm_logs.mkdir(parents=True)
    squeue = tmp_path / "bin/squeue"
    squeue.parent.mkdir()
    monkeypatch.setenv("PATH", str(squeue.parent))

    def does(text):
        squeue.write_text(f"#!/bin/sh\n{text}\n")
        squeue.chmod(0o755)

    return does


@pytest.fixture
def trained(layout):
    """Leave what a run has after some epochs; returns it."""

    def leave(model, fold, epoch, state, seconds=240.0):
        run, left = layout.run(model, fold), Run("03_train", "demo", model, fold)
        run.root.mkdir(parents=True)
        rows = {"epoch": [epoch // 2, epoch], "dice": [0.61, 0.42], "seconds": [seconds / 2, seconds]}
        pd.DataFrame(rows).to_csv(run.history, index=False)
        left.executed.write_text("{}")
        left.executed.with_suffix(".run.json").write_text(json.dumps({"state": state, "error": None}))
        return left

    return leave


def row(study, model, fold):
    runs, _ = study_status(study)
    return runs[(runs["network"] == model) & (runs["fold"] == str(fold))].iloc[0]


def steps(study):
    """States of the notebooks that train no network."""
    runs, _ = study_status(study)
    others = runs[runs["network"] == "–"]
    return dict(zip(others["notebook"], others["state"], strict=True))


def test_nothing_begun_waits(layout):
    runs, note = study_status("demo")
    assert len(runs) == 5 + 5 * 3
    assert set(runs["state"]) == {"waiting"}
    assert set(runs["epoch"]) == {f"0/{EPOCHS}", "–"}
    assert note == ""


def test_a_run_whose_lock_is_held_runs_and_its_time_left_follows_from_its_epochs(layout, trained):
    run = trained("unet", 0, 8, "running")
    with alone(run.lock):
        found = row("demo", "unet", 0)
    assert (found["state"], found["epoch"], found["selection Dice"]) == ("running", f"8/{EPOCHS}", "0.610")
    assert found["time left"] == "12 min"  # 240 s for 8 epochs: 30 s each, 24 to go
    assert found["log"] == "runs/demo/unet/fold0/03_train.ipynb"


@pytest.mark.parametrize(
    "damage", ["", "epoch,dice,seconds\n", "epoch,dice\n1,0.5\n", "\0\0\0", "epoch,seconds\n0,1\n"]
)
def test_a_damaged_history_is_named_and_stops_nothing(layout, trained, damage):
    run = trained("unet", 0, 8, "running")
    layout.run("unet", 0).history.write_text(damage)
    with alone(run.lock):
        found = row("demo", "unet", 0)
    assert (found["state"], found["epoch"]) == ("running", "unknown: history.csv is damaged")
    assert len(study_status("demo")[0]) == 20


@pytest.mark.parametrize("damage", ["", "[]", '{"state": "fai'])
def test_a_damaged_record_is_that_of_a_run_that_was_cut_off(layout, trained, damage):
    trained("unet", 0, 8, "failed").executed.with_suffix(".run.json").write_text(damage)
    assert row("demo", "unet", 0)["state"] == "stopped"


def test_hours_are_told_as_hours(layout, trained):
    run = trained("unet", 0, 8, "running", seconds=8 * 600.0)
    with alone(run.lock):
        assert row("demo", "unet", 0)["time left"] == "4 h 00"


@pytest.mark.parametrize(("record", "state"), [("running", "stopped"), ("stopped", "stopped"), ("failed", "failed")])
def test_a_run_that_ended_without_a_result_is_stopped_or_failed(layout, trained, record, state):
    trained("segresnet", 2, 8, record)
    found = row("demo", "segresnet", 2)
    assert (found["state"], found["time left"]) == (state, "–")


def test_a_run_with_its_last_file_is_done(layout, trained):
    trained("unetr", 2, EPOCHS, "done")
    write_record(layout.run("unetr", 2).metrics, {})
    layout.dataset.write_text("{}")
    assert row("demo", "unetr", 2)["state"] == "done"
    assert steps("demo") == {
        "01_explore_data": "done",
        "02_preprocess_n4": "waiting",
        "04_cross_validation": "waiting",
        "05_qualitative_review": "waiting",
        "07_radiotherapy": "waiting",
    }


def test_a_finished_run_is_done_whatever_became_of_its_files_and_not_without_its_last_one(layout, trained):
    """A study has thousands of large files: those who use them compare them, and status does not."""
    trained("unetr", 2, EPOCHS, "done")
    run = layout.run("unetr", 2)
    run.lesions_table.write_text("as it was written")
    write_record(run.metrics, {}, [run.lesions_table])
    run.lesions_table.unlink()
    assert row("demo", "unetr", 2)["state"] == "done"
    run.metrics.unlink()
    assert row("demo", "unetr", 2)["state"] == "stopped"


def test_a_queue_that_does_not_answer_is_said_and_the_files_are_shown(on_cluster, capsys):
    on_cluster("echo no controller >&2; exit 1")
    main(["status", "--study", "demo"])
    printed = capsys.readouterr().out
    assert "queue is not shown: squeue failed: no controller" in printed
    assert printed.count("waiting") >= 20


def test_a_study_of_this_machine_asks_no_queue(layout, on_cluster):
    on_cluster("echo no controller >&2; exit 1")
    layout.slurm_logs.rmdir()  # never sent to a cluster, though squeue is installed here
    assert study_status("demo")[1] == ""


def test_jobs_in_the_queue_are_shown_with_their_number(on_cluster, tmp_path, trained):
    trained("unet", 0, 8, "running")
    name = "metaseg-demo_1eb7169c-8961-4886-84b1-00b35e8c86c6"
    lines = [f"41|PENDING|rule_train_wildcards_unet_0|{name}|{tmp_path}", f"42|RUNNING|rule_review|{name}|{tmp_path}"]
    on_cluster("".join(f"echo '{line}'\n" for line in lines))
    assert row("demo", "unet", 0)["state"] == "waiting (job 41)"
    assert steps("demo")["05_qualitative_review"] == "running (job 42)"


def test_a_study_of_annotation_budgets_has_a_row_for_each_arm_seed_network_and_fold(tmp_path, monkeypatch):
    monkeypatch.setenv("METASEG_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", "")
    layout = StudyLayout("demo_budget")
    run = layout.pretraining("unetr", 1, 0)
    run.root.mkdir(parents=True)
    pd.DataFrame({"epoch": [25], "variance_restored": [0.3], "seconds": [10.0]}).to_csv(run.history, index=False)
    run.notebook("03b_pretrain").write_text("{}")
    write_record(run.metrics, {})
    layout.run("unet", 0, "boxes", 0).root.mkdir(parents=True)
    write_record(layout.run("unet", 0, "boxes", 0).metrics, {})
    study = "demo_budget"
    assert len(study_status(study)[0]) == 3 + 4 + 9 * 4  # pretrainings, and 9 arms; 2 networks and 2 folds each
    assert row(study, "unetr, pretraining, seed 0", 1)["state"] == "done"
    assert row(study, "unetr, pretraining, seed 0", 1)["epoch"] == "25/50"
    assert row(study, "unet, boxes, seed 0", 0)["state"] == "done"
    assert row(study, "unet, boxes, seed 0", 1)["state"] == "waiting"
    assert list(steps(study)) == ["01_explore_data", "02_preprocess_n4", "06_annotation_budget"]


def test_lesions_are_followed_only_in_a_study_that_asks_for_it():
    asked, others = ([run.notebook for run in planned_runs(study)] for study in ("demo_follow_up", "demo"))
    assert asked[-1] == "09_follow_up"
    assert asked[:-1] == ["01_explore_data", "02_preprocess_n4", *["03_train"] * 3, *others[-3:]]
