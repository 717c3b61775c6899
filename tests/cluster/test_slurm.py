"""A study on a real SLURM, and what befalls it there: kills, limits, a reboot, a full disk, wrong steps of the user."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace

import pandas as pd
import pytest
from toy_cluster import TOY, Cluster, new_workbook

# The first one waits for a whole study that is stopped in every way: it has more time than other tests.
pytestmark = [pytest.mark.cluster, pytest.mark.timeout(3000)]

MODELS, FOLDS = ["unet", "segresnet"], [0, 1]


@pytest.fixture(scope="session")
def cluster(tmp_path_factory):
    """The cluster; it is stopped in the end."""
    assert shutil.which("slurmctld"), "apt-get install --no-install-recommends slurmctld slurmd slurm-client munge"
    folder = tmp_path_factory.mktemp("slurm")
    subprocess.run([TOY, "start", folder], check=True)
    yield Cluster(folder)
    subprocess.run([TOY, "stop", folder], check=True)


@pytest.fixture
def workbook(tmp_path):
    """A workbook of the tiny study, with nothing done yet."""
    return new_workbook(tmp_path)


@pytest.fixture
def prepared(workbook, tiny_study):
    """A workbook whose cohort is explored and preprocessed, and no network trained."""
    results = ("unet", "segresnet", "04*", "05*", "07*", "cross_validation", "review", "radiotherapy", "slurm_logs")
    made = shutil.ignore_patterns(*results)
    shutil.copytree(tiny_study.home / "runs", workbook.home / "runs", ignore=made)
    return workbook


@pytest.fixture
def no_driver_left(cluster, workbook):
    """End what a test leaves running."""
    yield
    workbook.kill()
    subprocess.run(["scancel", "-u", "root"], check=True)


def rows(run):
    """Rows of the history of a run, 0 before there is one."""
    return len(pd.read_csv(run / "history.csv")) if (run / "history.csv").is_file() else 0


def test_a_study_disturbed_in_all_ways_ends_as_that_of_one_machine(cluster, workbook, request, no_driver_left):
    workbook.change("studies/tiny.yaml", job_gpus=1)
    workbook.start()

    # jobs ask for what the parameter files say
    job = workbook.wait_for(lambda: [j for j in cluster.jobs() if j["comment"] == "rule_explore"])[0]
    assert (job["time"], job["memory"], job["cpus"]) == ("15:00", "3000M", "2")
    assert "gpu" not in subprocess.check_output(["scontrol", "show", "job", job["id"]], text=True)
    first = workbook.wait_for(lambda: workbook.in_training(cluster))
    (job,) = (j for j in cluster.jobs() if j["comment"] == "rule_train_wildcards_{}_{}".format(*first))
    assert (job["time"], job["memory"], job["cpus"]) == ("30:00", "1500M", "1")
    assert "TresPerJob=gres:gpu:1" in subprocess.check_output(["scontrol", "show", "job", job["id"]], text=True)
    status = workbook.call("status", "--study", "tiny").stdout
    (line,) = (line for line in status.splitlines() if line.split()[1:3] == [first[0], str(first[1])])
    assert f"running (job {job['id']})" in line
    assert "/16" in line
    assert "03_train.ipynb" in line
    assert "waiting (job" in status

    # the driver is killed, and started again: its jobs are stopped, and go on under the new one
    workbook.kill()
    left = {job["id"] for job in cluster.jobs()}
    assert left
    workbook.start()
    workbook.wait_for(lambda: cluster.jobs() and not left & {job["id"] for job in cluster.jobs()})
    assert f"left {len(left)} job(s)" in workbook.said()

    # a job is killed
    second = workbook.wait_for(lambda: workbook.in_training(cluster))
    workbook.kill_run(*second)
    # another one is put back into the queue by the cluster
    third = workbook.wait_for(lambda: workbook.in_training(cluster, second))
    (job,) = (j for j in cluster.jobs() if j["comment"] == "rule_train_wildcards_{}_{}".format(*third))
    subprocess.run(["scontrol", "requeue", job["id"]], check=True)
    # and the node goes down in the middle of one
    fourth = workbook.wait_for(lambda: workbook.in_training(cluster, second, third))
    trained = rows(workbook.run(*fourth))
    cluster.reboot()

    assert workbook.wait_for_end() == 0, workbook.said()
    assert "report: reports/tiny/index.html" in workbook.said()
    assert trained
    # which was killed too, but once, as its networks began to train
    expected = replace(workbook, home=request.getfixturevalue("tiny_study").home)
    tables = sorted(path.name for path in (expected.home / "runs/tiny/cross_validation").glob("*.csv"))
    assert "leaderboard.csv" in tables
    tables = [f"cross_validation/{table}" for table in tables]
    for table in [*tables, *(f"{model}/fold{fold}/history.csv" for model in MODELS for fold in FOLDS)]:
        pd.testing.assert_frame_equal(workbook.table(table), expected.table(table))
    record = json.loads((workbook.run(*second) / "03_train.run.json").read_text())
    assert record["state"] == "done"
    assert record["slurm_job"]
    assert {"settings_hash", "commit", "torch", "machine", "started", "ended"} <= set(record)

    # a parameter of one network changes: exactly its runs, and what follows from them
    workbook.change("models/unet.yaml", weight_decay=0.5)
    command = [sys.executable, "-m", "snakemake", "-n", "--snakefile", str(workbook.project / "workflow/Snakefile")]
    command += ["--nolock", "--config", "study=tiny", "--workflow-profile", str(workbook.profile), "--quiet", "rules"]
    result = subprocess.run(command, env=workbook.env, cwd=workbook.home, capture_output=True, text=True, check=True)
    counts = {
        words[0]: int(words[1])
        for words in map(str.split, result.stdout.splitlines())
        if words[1:2] and words[1].isdigit()
    }
    assert counts == {"train": 2, "cross_validate": 1, "review": 1, "radiotherapy": 1, "report": 1, "total": 6}


def test_a_training_that_runs_out_of_time_goes_on_in_the_next_job(cluster, prepared, no_driver_left):
    prepared.change(
        "studies/tiny.yaml", epochs=4000, validate_every=10, job_hours=2 / 60
    )  # a start takes up to a minute
    prepared.start("unet_fold0")
    run = prepared.run("unet", 0)
    prepared.wait_for(lambda: "it starts again" in prepared.said())
    stopped = pd.read_csv(run / "history.csv")
    logs = (prepared.home / "runs/tiny/slurm_logs/rule_train/unet_0").glob("*.log")
    log = min(logs, key=lambda path: int(path.stem))
    assert "TrainingStopped" in log.read_text()
    assert "exit status 75" in log.read_text()
    prepared.wait_for(lambda: rows(run) > len(stopped))
    pd.testing.assert_frame_equal(pd.read_csv(run / "history.csv")[: len(stopped)], stopped)
    assert not (run / "metrics.json").exists()


def test_what_fails_does_not_stop_the_rest_and_is_named_with_its_last_words(cluster, prepared, no_driver_left):
    prepared.once_more()
    prepared.change("studies/tiny.yaml", job_memory_gb=None)
    prepared.change("models/unet.yaml", job_memory_gb=1.5)
    prepared.change("models/segresnet.yaml", job_memory_gb=0.3)
    prepared.run("unet", 0).mkdir(parents=True)
    (prepared.run("unet", 0) / "last.pt").write_bytes(b"no checkpoint")
    prepared.start()
    assert prepared.wait_for_end() == 1
    said = prepared.said()
    assert (prepared.run("unet", 1) / "metrics.json").is_file()
    assert not list(prepared.home.glob("runs/tiny/unet/fold0/metrics.json"))
    assert not list(prepared.home.glob("runs/tiny/segresnet/*/metrics.json"))
    assert not (prepared.home / "runs/tiny/cross_validation").exists()
    end = said[said.index("\nthe study is not complete (log: runs/tiny/snakemake.log)") :].splitlines()
    reasons = [line for line in end if re.match(r"03_train \w+ fold \d failed \(2 times\): ", line)]
    assert [line.split(" failed ")[0] for line in sorted(reasons)] == [
        "03_train segresnet fold 0",
        "03_train segresnet fold 1",
        "03_train unet fold 0",
    ]
    assert end[-1] == reasons[-1]
    *killed, damaged = sorted(reasons)
    assert "not a complete checkpoint" in damaged
    logs = [line.removeprefix("log: ") for line in end if line.startswith("log: ")]
    assert all((prepared.home / log).is_file() for log in logs)
    assert "runs/tiny/unet/fold0/03_train.ipynb" in logs
    assert any(log.startswith("runs/tiny/slurm_logs/rule_train/segresnet_0/") for log in logs)
    for reason in killed:
        assert "it was killed" in reason
        assert "oom" in reason.lower() or "memory" in reason.split("lack of memory")[1]
    status = prepared.call("status", "--study", "tiny").stdout
    trainings = [line.split() for line in status.splitlines() if line.startswith("03_train")]
    states = {(model, fold): state for _, model, fold, state, *_ in trainings}
    assert states == {
        ("unet", "0"): "failed",
        ("unet", "1"): "done",
        ("segresnet", "0"): "stopped",
        ("segresnet", "1"): "stopped",
    }


def test_a_full_disk_is_named_and_with_room_again_the_run_goes_on(prepared, small_disk, tiny_study):
    disk, resize = small_disk
    shutil.copytree(prepared.home / "runs", disk / "runs")
    used = shutil.disk_usage(disk).used
    resize(used + 2_500_000)  # room for the notebook, and not for its last.pt
    full = replace(prepared, home=disk)
    arguments = ["run", "03_train", "--study", "tiny", "--model", "unet", "--fold", "0"]
    result = full.call(*arguments)
    assert result.returncode == 1
    run = disk / "runs/tiny/unet/fold0"
    for words in ("no disk space is left to write this file", "start again", f"'{run}/"):
        assert words in result.stderr
    assert not (run / "metrics.json").exists()
    resize("64m")
    result = full.call(*arguments)
    assert result.returncode == 0, result.stderr
    assert [path.name for path in run.glob(".*")] == [".03_train.lock"]
    here, there = run / "metrics.csv", tiny_study.home / "runs/tiny/unet/fold0/metrics.csv"
    pd.testing.assert_frame_equal(pd.read_csv(here), pd.read_csv(there))
