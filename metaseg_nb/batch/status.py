"""The state of a study, read from its files and, on a cluster, from the queue."""

import shlex
import shutil
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from metaseg_nb.batch.run_record import read_record
from metaseg_nb.batch.runner import executed_copy, lock_file
from metaseg_nb.batch.slurm import QueuedJob, QueueError, queued_jobs
from metaseg_nb.checksums import damage
from metaseg_nb.files import read_table
from metaseg_nb.layout import RunLayout, StudyLayout, home
from metaseg_nb.locks import is_held
from metaseg_nb.parameters import resolve

Jobs = dict[tuple[str, str], QueuedJob]

NO_LINE, DAMAGED = "–", "damaged: "
# selection Dice: the best so far, of the selection set, not of the test set
COLUMNS = ["network", "fold", "state", "epoch", "selection Dice", "time left", "log"]


class Planned(NamedTuple):
    """One run that a study is made of."""

    model: str
    fold: int
    arm: str = ""
    seed: int | None = None
    notebook: str = "03_train"

    @property
    def name(self) -> str:
        """Network; in a study of annotation budgets with arm and seed."""
        if self.seed is None:
            return self.model
        return f"{self.model}, {self.arm or 'pretraining'}, seed {self.seed}"

    def parameters(self, study: str) -> dict[str, Any]:
        """As `resolve` gives them."""
        return resolve(self.notebook, study, self.model, self.fold, self.arm, self.seed)

    def command(self, study: str) -> str:
        """Command that makes this run alone."""
        command = ["python", "-m", "metaseg_nb", "run", self.notebook, "--study", study]
        command += ["--model", self.model, "--fold", str(self.fold)]
        command += ["--arm", self.arm] if self.arm else []
        return shlex.join(command + ([] if self.seed is None else ["--seed", str(self.seed)]))

    @property
    def job(self) -> tuple[str, str]:
        """Rule and wildcards of its job."""
        if self.seed is None:
            return "train", f"{self.model}_{self.fold}"
        if not self.arm:
            return "pretrain", f"{self.seed}_{self.model}_{self.fold}"
        return "train_arm", f"{self.arm}_{self.seed}_{self.model}_{self.fold}"


@dataclass(frozen=True)
class Status:
    """State of a study, or of a part of it.

    Attributes
    ----------
    runs : DataFrame
        One row a run: `COLUMNS`, as text.
    steps : dict
        State of the other notebooks.
    note : str
        Why the queue is not shown, and the commands that mend damaged runs; else empty.
    """

    runs: pd.DataFrame
    steps: dict[str, str]
    note: str

    def __str__(self) -> str:
        steps = ", ".join(f"{notebook} {state}" for notebook, state in self.steps.items())
        lines = [self.runs.columns, *self.runs.itertuples(index=False)]
        widths = [max(len(line[column]) for line in lines) for column in range(len(COLUMNS))]
        table = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in lines]
        parts = ["\n".join(table), steps, self.note]
        return "\n\n".join(part for part in parts if part)


def study_status(study: str) -> Status:
    """Read where a study stands.

    Parameters
    ----------
    study : str
        Name in ``params/studies``, or path to a YAML file.

    Returns
    -------
    Status
        States are *waiting*; *running*; *stopped* (cut off: it goes on when the study is started again);
        *failed* (by an error of its own); *done*; *damaged*, with the file of a finished run that is lost or
        not as it was when the run finished.
    """
    layout = StudyLayout(resolve("01_explore_data", study)["study"])
    jobs, note = _queue(layout)
    of = {(job.rule, job.wildcards): job for job in jobs}
    runs = planned_runs(study)
    rows = [_row(study, planned, of) for planned in runs]
    mending = [planned.command(study) for planned, row in zip(runs, rows, strict=True) if row[2].startswith(DAMAGED)]
    if mending:
        note = "\n".join([*filter(None, [note]), "These commands mend what is damaged:", *mending])
    steps = {
        notebook: _state(result, layout.notebook(notebook), of.get((rule, "")))
        for rule, notebook, result in _steps(study, layout)
    }
    return Status(pd.DataFrame(rows, columns=COLUMNS), steps, note)


def planned_runs(study: str) -> list[Planned]:
    """Networks that a study trains, and those that it pretrains before."""
    n_folds, budget = resolve("01_explore_data", study)["n_folds"], resolve("06_annotation_budget", study)
    models, folds, arms, seeds = budget["models"], range(n_folds), budget["arms"], budget["seeds"]
    if not arms:
        return [Planned(model, fold) for model, fold in product(models, folds)]
    uses = {resolve("03_train", study, models[0], 0, arm)["unannotated"] for arm in arms}
    before = product(seeds, models, folds) if "pretraining" in uses else []
    pretrainings = [Planned(model, fold, seed=seed, notebook="03b_pretrain") for seed, model, fold in before]
    return pretrainings + [
        Planned(model, fold, arm, seed) for arm, seed, model, fold in product(arms, seeds, models, folds)
    ]


def _row(study: str, planned: Planned, of: Jobs) -> list[str]:
    parameters = planned.parameters(study)
    executed = executed_copy(planned.notebook, parameters)
    run = RunLayout(executed.parent)
    state = _state(run.metrics, executed, of.get(planned.job))
    if state == "done" and (damaged := damage(run.metrics)):
        first, *others = damaged
        state = f"{DAMAGED}{first}" + (f" and {len(others)} more" if others else "")
    epochs = parameters["epochs" if planned.notebook == "03_train" else "pretraining_epochs"]
    return [planned.name, str(planned.fold), state, *_progress(run, epochs, state), _log(executed)]


def _steps(study: str, layout: StudyLayout) -> list[tuple[str, str, Path]]:
    """Rule, notebook and last file of each other step of a study."""
    first = [
        ("explore", "01_explore_data", layout.dataset),
        ("preprocess", "02_preprocess_n4", layout.preprocessing_table),
    ]
    if resolve("06_annotation_budget", study)["arms"]:
        return [*first, ("annotation_budget", "06_annotation_budget", layout.budget_record)]
    return [
        *first,
        ("cross_validate", "04_cross_validation", layout.comparison),
        ("review", "05_qualitative_review", layout.review / "cases.csv"),
    ]


def _queue(layout: StudyLayout) -> tuple[list[QueuedJob], str]:
    if not (layout.slurm_logs.is_dir() and shutil.which("squeue")):
        return [], ""
    try:
        return queued_jobs(layout.study), ""
    except QueueError as error:
        return [], f"The cluster's queue is not shown: {error}"


def _state(result: Path, executed: Path, job: QueuedJob | None) -> str:
    where = f" (job {job.id})" if job else ""
    if is_held(lock_file(executed)) or (job and job.state == "RUNNING"):
        return "running" + where
    if job:
        return "waiting" + where
    record = read_record(executed)
    if record and record["state"] == "failed":  # also where an earlier run left a result
        return "failed"
    if result.is_file():
        return "done"
    return "stopped" if record else "waiting"


def _progress(run: RunLayout, epochs: int, state: str) -> tuple[str, str, str]:
    """Epoch of all, best Dice on the selection set, time left while it runs."""
    if not run.history.is_file():
        return f"0/{epochs}", NO_LINE, NO_LINE
    try:
        history = read_table(run.history).astype(float)
        epoch, seconds = int(history["epoch"].iloc[-1]), float(history["seconds"].iloc[-1])
        left = _duration(seconds / epoch * (epochs - epoch)) if state.startswith("running") else NO_LINE
    except (ArithmeticError, LookupError, ValueError):
        return f"unknown: {run.history.name} is damaged", NO_LINE, NO_LINE
    dice = f"{history['dice'].max():.3f}" if "dice" in history else NO_LINE  # a pretraining has none
    return f"{epoch}/{epochs}", dice, left


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d}" if minutes >= 60 else f"{minutes} min"


def _log(executed: Path) -> str:
    return str(executed.relative_to(home())) if executed.is_file() else NO_LINE
