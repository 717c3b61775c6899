"""What jobs ask a cluster for, whose jobs are in the queue, and how the end of a study is told."""

import json

import pytest

from metaseg_nb.__main__ import main
from metaseg_nb.batch.runs import QueuedJob, QueueError, job_prefix, planned_runs, queued_jobs
from metaseg_nb.batch.study import cancel_leftovers, code_hash, follow_log, refuse_retraining, run_study
from metaseg_nb.checksums import write_record
from metaseg_nb.files import DamagedFile
from metaseg_nb.layout import NOTEBOOKS, StudyLayout
from metaseg_nb.parameters import job_resources
from metaseg_nb.settings import ParameterError

UNET = "model: unet\ntitle: U-Net\nnetwork: unet"
UUID = "1eb7169c-8961-4886-84b1-00b35e8c86c6"


pytestmark = pytest.mark.usefixtures("home")


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Put a shell script on the path."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")

    def put(name, text):
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)

    return put


@pytest.fixture
def params(tmp_path, monkeypatch):
    """Parameter files of a model and a study that say this."""
    monkeypatch.setattr("metaseg_nb.layout.PARAMS", tmp_path)

    def write(model, study):
        for name, text in {"models/unet.yaml": model, "studies/mine.yaml": study}.items():
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(text)

    return write


def test_a_study_overrides_what_the_jobs_of_a_model_ask_for(params):
    params(f"{UNET}\njob_hours: 48.0\njob_memory_gb: 64.0", "study: mine\njob_hours: 2.0\ncpu_job_hours: 3.0")
    job = job_resources("mine", "unet")
    assert (job.job_hours, job.job_memory_gb, job.cpu_job_hours) == (2.0, 64.0, 3.0)
    assert job_resources("mine").cpu_job_hours == 3.0


@pytest.mark.parametrize("line", ["job_hours: 0.0", "job_gpus: -1", "job_cpus: 1.5", "job_memory_gb: 64GB"])
def test_a_job_that_cannot_be_asked_for_is_refused_with_its_file(params, tmp_path, line):
    params(UNET, f"study: mine\n{line}")
    with pytest.raises(ParameterError, match="expected: ") as error:
        job_resources("mine", "unet")
    assert str(error.value).startswith(f"{tmp_path}/studies/mine.yaml: key {line.split(':')[0]!r}: found ")


def test_jobs_in_the_queue_are_ours_by_study_and_folder(program, home):
    ours, longer = f"metaseg-demo_{UUID}", f"metaseg-demo_2_{UUID}"
    lines = [
        f"1|RUNNING|rule_train_wildcards_attention_unet_0|{ours}|{home}",
        f"2|PENDING|rule_explore|{ours}|{home}",
        f"3|RUNNING|rule_train_wildcards_unet_0|{longer}|{home}",  # another study
        f"4|RUNNING|rule_train_wildcards_unet_0|{ours}|/elsewhere",  # another copy
        f"5|RUNNING|(null)|myjob|{home}",
    ]
    program("squeue", "cat <<END\n" + "\n".join(lines) + "\nEND")
    train = QueuedJob("1", "RUNNING", "rule_train_wildcards_attention_unet_0")
    assert queued_jobs("demo") == [train, QueuedJob("2", "PENDING", "rule_explore")]
    assert [job.id for job in queued_jobs("demo_2")] == ["3"]


def test_leftovers_are_cancelled_and_waited_for_and_no_other_job(program, home, tmp_path, capsys):
    queue = tmp_path / "queue"
    mine = f"RUNNING|rule_train_wildcards_unet_0|{job_prefix('demo')}_{UUID}|{home}"
    queue.write_text(f"7|{mine}\n8|RUNNING|(null)|other|{home}\n")
    program("squeue", f"cat {queue}")
    program("scancel", f'echo "$@" >> {tmp_path}/cancelled; (sleep 1.5; sed -i /^7/d {queue}) > /dev/null 2>&1 &')
    cancel_leftovers("demo")
    assert (tmp_path / "cancelled").read_text() == "7\n"
    assert "7|" not in queue.read_text()
    assert "left 1 job(s)" in capsys.readouterr().err
    cancel_leftovers("demo")
    assert (tmp_path / "cancelled").read_text() == "7\n"


def test_a_queue_that_does_not_answer_is_an_error_that_says_why(program, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(QueueError, match="squeue is not installed here; start this on a login node"):
        queued_jobs("demo")
    program("squeue", "echo 'Unable to contact slurm controller' >&2; exit 1")
    with pytest.raises(QueueError, match="Unable to contact slurm controller"):
        queued_jobs("demo")


@pytest.mark.parametrize(
    ("line", "named"),
    [("view_mm: 0.0", "key 'view_mm': found 0.0"), ("models: [unet]\nepochs: 0", "key 'epochs': found 0")],
)
def test_what_cannot_be_trained_is_said_before_anything_starts(tmp_path, home, line, named):
    (tmp_path / "mine.yaml").write_text(f"study: mine\n{line}\n")
    with pytest.raises(ParameterError, match=named):
        run_study(str(tmp_path / "mine.yaml"))
    assert not (home / "runs/mine/snakemake.log").exists()


def finished_runs(home, study):
    """Runs as notebooks 03 and 03b leave them, with the settings of today."""
    for run in planned_runs(study):
        if run.model:
            run.result.parent.mkdir(parents=True)
            (run.result.parent / "best.pt").write_bytes(b"weights")
            write_record(run.result, {"settings": run.parameters})
    return {path: path.read_bytes() for path in (home / "runs").rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("targets", "named"),
    [([], 3), (["report"], 3), (["unet"], 2), (["unet_fold1"], 1), (["unet_fold1", "cross_validate"], 3)],
)
def test_a_study_with_other_settings_never_trains_finished_runs_again(tmp_path, home, capsys, targets, named):
    study = tmp_path / "mine.yaml"
    study.write_text("study: mine\nn_folds: 2\nmodels: [unet, segresnet]\nepochs: 32\n")
    kept = finished_runs(home, str(study))
    (home / "runs/mine/segresnet/fold0/metrics.json").unlink()  # an interrupted run may have other settings
    del kept[home / "runs/mine/segresnet/fold0/metrics.json"]
    study.write_text(study.read_text().replace("epochs: 32", "epochs: 33\nn_bootstrap: 500"))
    assert main(["study", "--study", str(study), *targets]) == 2
    said = capsys.readouterr().err
    assert f"error: {named} finished run(s) with other settings" in said
    assert "- unet, fold 1: epochs: 32 then, 33 now (runs/mine/unet/fold1/metrics.json)" in said
    assert "give the study another name" in said
    assert {path: path.read_bytes() for path in (home / "runs").rglob("*") if path.is_file()} == kept


def test_arms_and_pretrainings_are_not_trained_again_either(tmp_path, home):
    study = tmp_path / "mine.yaml"
    study.write_text("study: mine\nn_folds: 2\nmodels: [unet]\narms: [boxes, pretraining_25]\n")
    finished_runs(home, str(study))
    study.write_text(study.read_text() + "batch_size: 4\n")
    with pytest.raises(
        ParameterError, match=r"6 finished(.*\n)*- unet, pretraining, seed 0, fold 0: batch_size: 2 then, 4"
    ):
        refuse_retraining(planned_runs(str(study)))


def test_what_changes_no_training_is_no_other_setting(tmp_path, home):
    study = tmp_path / "mine.yaml"
    study.write_text("study: mine\nn_folds: 2\nmodels: [unet]\n")
    finished_runs(home, str(study))
    refuse_retraining(planned_runs(str(study)))
    study.write_text(study.read_text() + "operating_point: sensitive\ncompiled: true\nnum_processes: 2\n")
    refuse_retraining(planned_runs(str(study)))
    (home / "runs/mine/unet/fold0/metrics.json").write_text("{")
    with pytest.raises(DamagedFile, match=r"metrics\.json"):
        refuse_retraining(planned_runs(str(study)))


def test_an_unknown_profile_lists_those_there_are():
    with pytest.raises(ParameterError, match=r"no profile 'slurmm'; .*default, slurm"):
        run_study("demo", "slurmm")


@pytest.mark.parametrize("letter", " %#?{},'\"$;&\n")
def test_a_path_that_a_cluster_would_misread_is_refused_before_anything_starts(program, monkeypatch, tmp_path, letter):
    program("squeue", "exit 1")
    monkeypatch.setenv("METASEG_HOME", str(tmp_path / f"a{letter}b"))
    with pytest.raises(QueueError, match="expected only letters, digits"):
        run_study("demo", "slurm")


def test_what_another_program_put_into_the_queue_does_not_matter(program, home):
    program("squeue", f"printf '1|RUNNING\\n|a|b|c|d|e|{home}\\n\\377\\n'")
    assert queued_jobs("demo") == []


def test_no_two_studies_share_their_jobs_names():
    assert job_prefix("x" * 39 + "a") != job_prefix("x" * 39 + "b")
    assert len(job_prefix("x" * 40)) <= 50  # what the plugin takes


def test_saving_a_notebook_changes_nothing_and_changing_its_code_does(monkeypatch, tmp_path):
    monkeypatch.setattr("metaseg_nb.batch.study.NOTEBOOKS", tmp_path)
    notebook = json.loads((NOTEBOOKS / "03_train.ipynb").read_text(encoding="utf-8"))

    def saved():
        (tmp_path / "03_train.ipynb").write_text(json.dumps(notebook))
        return code_hash("03_train")

    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    first = saved()
    for count, cell in enumerate(code, start=1):  # as JupyterLab saves a notebook that was run
        cell["execution_count"] = count
        cell["outputs"] = [{"output_type": "stream", "name": "stdout", "text": "0.73"}]
        cell["metadata"] = cell["metadata"] | {"execution": {"iopub.status.busy": "2026-01-01"}}
        cell["source"] = "".join(cell["source"]) + "\n"
    notebook["metadata"]["kernelspec"]["display_name"] = "mine"
    notebook["cells"].append({"cell_type": "code", "metadata": {}, "outputs": [], "source": ""})
    notebook["cells"][0]["source"] = "# In other words"
    code[0]["source"] = code[0]["source"].replace("epochs: int = 350", "epochs: int = 3")  # resolved as a parameter
    assert saved() == first
    code[-1]["source"] += "print(1)"
    assert saved() != first


def snakemake_says(*events):
    """What the logger plugin writes: a step starts, fails or finishes."""
    for event, job in events:
        folder = StudyLayout("demo").run("unet", job).root
        facts = {"jobid": job, "log": [str(folder / "03_train.ipynb"), str(folder / f"{job}.log")]}
        if event == "job_info":
            facts |= {"rule_name": "train", "wildcards": {"model": "unet", "fold": str(job)}}
        yield json.dumps({"event": event, **facts})
        if event == "job_finished":
            yield json.dumps({"event": "progress", "done": 1, "total": 2})


def test_a_step_that_ended_well_in_the_end_is_no_failure(capsys):
    events = [("job_info", 0), ("job_error", 0), ("job_info", 0), ("job_finished", 0)]
    assert follow_log(snakemake_says(*events)) == ([], [])
    printed = capsys.readouterr().err
    assert "03_train unet fold 0 was interrupted or failed; it starts again" in printed
    assert "03_train unet fold 0 starts" in printed
    assert "1 of 2 steps done" in printed


def test_the_reason_of_a_step_that_failed_is_its_last_line():
    run = StudyLayout("demo").run("unet", 1).root
    run.mkdir(parents=True)
    oom, cell = "slurmstepd: error: Detected 1 oom-kill event(s)", "cell [6] failed with ValueError: x"
    (run / "1.log").write_text(f"noise\n{oom}\n{oom}\n03_train: {cell}\nStoring output in storage.\n")
    (run / "03_train.run.json").write_text(json.dumps({"state": "running", "error": None}))
    events = [("job_info", 0), ("job_info", 1), ("job_error", 1), ("job_info", 1), ("job_error", 1)]
    (step,), _ = follow_log(snakemake_says(*events, ("job_finished", 0)))
    *logs, reason = step.explain().splitlines()
    assert logs[0] == "log: runs/demo/unet/fold1/03_train.ipynb"
    assert reason.startswith("03_train unet fold 1 failed (2 times): it was killed")
    assert reason.count("oom-kill") == 1
    assert "noise" not in reason
    (run / "03_train.run.json").write_text(json.dumps({"state": "failed", "error": f"{cell}\nline 2"}))
    assert step.explain().count(cell) == 1
    assert len(step.explain().splitlines()) == 3


def test_a_study_that_fails_ends_with_the_reason_in_one_line(home, tmp_path, capfd):
    study = tmp_path / "nowhere.yaml"
    study.write_text(f"study: nowhere\ncohort: {tmp_path}/list.json\ncpu_job_cpus: 1")
    assert run_study(str(study)) == 1
    *_, last = capfd.readouterr().err.splitlines()
    assert last.startswith("01_explore_data failed: cell [")
    assert "list.json: found no such file or folder" in last
