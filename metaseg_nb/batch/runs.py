"""The runs of a study: which notebook, on which network and fold; their state, by their files and SLURM's queue."""

import getpass
import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from metaseg_nb.files import read_table
from metaseg_nb.layout import RunLayout, StudyLayout, home
from metaseg_nb.machine import is_held
from metaseg_nb.parameters import resolve

# Of each notebook: the rule of the workflow that runs it, and what it writes last (see `StudyLayout`, `RunLayout`).
STEPS = {
    "01_explore_data": ("explore", "dataset"),
    "02_preprocess_n4": ("preprocess", "preprocessing_table"),
    "03_train": ("train", "metrics"),
    "03b_pretrain": ("pretrain", "metrics"),
    "04_cross_validation": ("cross_validate", "comparison"),
    "05_qualitative_review": ("review", "reviewed_cases"),
    "06_annotation_budget": ("annotation_budget", "budget_record"),
    "07_radiotherapy": ("radiotherapy", "radiotherapy_record"),
    "08_annotate": ("annotate", "by_hand_record"),
    "09_follow_up": ("follow_up", "follow_up_record"),
}
# Columns of a study's status. Selection Dice: the best so far, of the selection set, not of the test set.
STATUS = ["notebook", "network", "fold", "state", "epoch", "selection Dice", "time left", "log"]
NO_LINE = "–"
# Snakemake's plugin names jobs <prefix>_<uuid of the driver>.
UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
# Seconds in which SLURM answers.
ANSWER_S = 120


class QueueError(OSError):
    """The queue of a cluster (SLURM) does not answer, or does not carry out a command."""


@dataclass
class Run:
    """One notebook of a study, with its parameters resolved.

    Parameters
    ----------
    notebook : str
        Such as "03_train".
    study : str
        Name in ``params/studies``, or path to a YAML file.
    model, fold, seed
        For notebooks that train; without a seed, that of the parameter files.
    arm : str
        For 03: one of ``params/arms``, of a study of annotation budgets.

    Attributes
    ----------
    parameters : dict
        As `resolve` gives them.
    executed : path
        Where the executed copy is kept: with the network's results where it trains, else with the study.
    lock : path
        Held while the notebook is executed.
    result : path
        What the notebook writes last: where it is, the run is finished.

    Raises
    ------
    ParameterError
        As `resolve`.
    """

    notebook: str
    study: str
    model: str | None = None
    fold: int | None = None
    arm: str = ""
    seed: int | None = None

    def __post_init__(self) -> None:
        self.parameters = resolve(self.notebook, self.study, self.model, self.fold, self.arm, self.seed)
        self.layout = layout = StudyLayout(self.parameters["study"])
        if "model" in self.parameters:
            which = {name: self.parameters[name] for name in ("model", "fold", "seed")}
            pretrains = self.notebook == "03b_pretrain"
            layout = layout.pretraining(**which) if pretrains else layout.run(**which, arm=self.arm)
        self.executed = layout.notebook(self.notebook)
        self.lock = self.executed.with_name(f".{self.notebook}.lock")
        self.result: Path = getattr(layout, STEPS[self.notebook][1])

    @property
    def name(self) -> str:
        """Network; in a study of annotation budgets with arm and seed; empty where no network is trained."""
        if self.seed is None:
            return self.model or ""
        return f"{self.model}, {self.arm or 'pretraining'}, seed {self.seed}"

    @property
    def job(self) -> str:
        """Its rule and wildcards, as Snakemake's SLURM plugin writes them into the comment of a job."""
        which = [str(part) for part in (self.arm, self.seed, self.model, self.fold) if part not in (None, "")]
        rule = "train_arm" if self.arm else STEPS[self.notebook][0]
        return "_".join(["rule", rule, *(["wildcards", *which] if which else [])])


def planned_runs(study: str) -> list[Run]:
    """All runs of a study, in their order.

    Raises
    ------
    ParameterError
        A run's parameters cannot be used.
    """
    n_folds, budget = resolve("01_explore_data", study)["n_folds"], resolve("06_annotation_budget", study)
    models, folds, arms, seeds = budget["models"], range(n_folds), budget["arms"], budget["seeds"]
    before = [Run(notebook, study) for notebook in ("01_explore_data", "02_preprocess_n4")]
    if not arms:
        trainings = [Run("03_train", study, model, fold) for model, fold in product(models, folds)]
        after = ["04_cross_validation", "05_qualitative_review", "07_radiotherapy"]
        after += ["09_follow_up"] if resolve("09_follow_up", study)["follow_up"] else []
        return [*before, *trainings, *(Run(notebook, study) for notebook in after)]
    trainings = [
        Run("03_train", study, model, fold, arm, seed) for arm, seed, model, fold in product(arms, seeds, models, folds)
    ]
    if any(run.parameters["unannotated"] == "pretraining" for run in trainings):
        before += [
            Run("03b_pretrain", study, model, fold, seed=seed) for seed, model, fold in product(seeds, models, folds)
        ]
    return [*before, *trainings, Run("06_annotation_budget", study)]


def outcome_file(executed: Path) -> Path:
    """Record of an executed notebook: ``03_train.run.json`` beside ``03_train.ipynb``."""
    return executed.with_suffix(".run.json")


def how_it_ended(executed: Path) -> dict[str, Any] | None:
    """Read the record of an executed notebook; None where it never ran.

    A state "running" without a process that runs means that it was killed. So does a record that is damaged.
    """
    killed = {"state": "running", "error": None}
    try:
        return killed | json.loads(outcome_file(executed).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (TypeError, ValueError):
        return killed


class QueuedJob(NamedTuple):
    """One job in the queue: its id, its state as SLURM calls it, and the plugin's comment: what it runs (`Run.job`)."""

    id: str
    state: str
    comment: str


def job_prefix(study: str) -> str:
    """What the names of a study's jobs begin with (the plugin takes 50 characters)."""
    return f"metaseg-{study}"


def queued_jobs(study: str) -> list[QueuedJob]:
    """Waiting and running jobs of one's own that a driver submitted for this study into this home folder.

    Raises
    ------
    QueueError
        SLURM does not answer.
    """
    ours = re.compile(rf"(\d+)\|(\w+)\|(rule_\w+)\|{re.escape(job_prefix(study))}_{UUID}\|{re.escape(str(home()))}")
    answer = ask_slurm("squeue", "--noheader", "--user", getpass.getuser(), "--format", "%i|%T|%k|%j|%Z")
    return [QueuedJob(*line.groups()) for line in map(ours.fullmatch, answer.splitlines()) if line]


def ask_slurm(command: str, *arguments: str) -> str:
    """What a command of SLURM prints."""
    if not shutil.which(command):
        raise QueueError(f"{command} is not installed here; start this on a login node of the cluster")
    try:
        result = subprocess.run([command, *arguments], capture_output=True, timeout=ANSWER_S)
    except subprocess.TimeoutExpired:
        raise QueueError(f"{command} gave no answer in {ANSWER_S} s") from None
    if result.returncode:
        raise QueueError(f"{command} failed: {os.fsdecode(result.stderr).strip()}")
    return os.fsdecode(result.stdout)


def study_status(study: str) -> tuple[pd.DataFrame, str]:
    """Read the state of every run of a study. Whether finished runs are still whole, 04 to 07, 09 and the report tell.

    Parameters
    ----------
    study : str
        Name in ``params/studies``, or path to a YAML file.

    Returns
    -------
    runs : DataFrame
        One row a run: `STATUS`, as text. States are *waiting*; *running*; *stopped* (cut off: it goes on when the
        study is started again); *failed* (the last try, by an error of its own); *done*.
    note : str
        Why the queue is not shown; else empty.
    """
    runs = planned_runs(study)
    jobs, note = _queue(runs[0].layout)
    return pd.DataFrame([_row(run, jobs.get(run.job)) for run in runs], columns=STATUS), note


def _queue(layout: StudyLayout) -> tuple[dict[str, QueuedJob], str]:
    """Jobs in the queue by what they run; and why it is not shown."""
    if not (layout.slurm_logs.is_dir() and shutil.which("squeue")):
        return {}, ""
    try:
        return {job.comment: job for job in queued_jobs(layout.study)}, ""
    except QueueError as error:
        return {}, f"The cluster's queue is not shown: {error}"


def _row(run: Run, job: QueuedJob | None) -> list[str]:
    state = _state(run, job)
    logs = [file for file in (run.executed.with_suffix(".rerun.ipynb"), run.executed) if file.is_file()]
    log = str(logs[0].relative_to(home())) if logs else NO_LINE
    progress = _progress(run, state) if run.model else (NO_LINE, NO_LINE, NO_LINE)
    return [run.notebook, run.name or NO_LINE, NO_LINE if run.fold is None else str(run.fold), state, *progress, log]


def _state(run: Run, job: QueuedJob | None) -> str:
    where = f" (job {job.id})" if job else ""
    if is_held(run.lock) or (job and job.state == "RUNNING"):
        return "running" + where
    if job:
        return "waiting" + where
    record = how_it_ended(run.executed)
    if record and record["state"] == "failed":  # also where an earlier run left a result
        return "failed"
    if not run.result.is_file():
        return "stopped" if record else "waiting"
    return "done"


def _progress(run: Run, state: str) -> tuple[str, str, str]:
    """Epoch of all, best Dice on the selection set, time left while it runs."""
    epochs = run.parameters["epochs" if run.notebook == "03_train" else "pretraining_epochs"]
    file = RunLayout(run.executed.parent).history
    if not file.is_file():
        return f"0/{epochs}", NO_LINE, NO_LINE
    try:
        history = read_table(file).astype(float)
        epoch, seconds = int(history["epoch"].iloc[-1]), float(history["seconds"].iloc[-1])
        left = _duration(seconds / epoch * (epochs - epoch)) if state.startswith("running") else NO_LINE
    except (ArithmeticError, LookupError, ValueError):
        return f"unknown: {file.name} is damaged", NO_LINE, NO_LINE
    dice = f"{history['dice'].max():.3f}" if "dice" in history else NO_LINE  # a pretraining has none
    return f"{epoch}/{epochs}", dice, left


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d}" if minutes >= 60 else f"{minutes} min"
