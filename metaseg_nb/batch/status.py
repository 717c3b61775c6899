"""Where a study stands: read from files, and from a cluster's queue where there is one; nothing is waited for."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from metaseg_nb.batch.run_record import read_record
from metaseg_nb.batch.runner import lock_file
from metaseg_nb.batch.slurm import QueuedJob, QueueError, queued_jobs
from metaseg_nb.files import is_held
from metaseg_nb.layout import RunLayout, StudyLayout, home
from metaseg_nb.settings import resolve

NO_LINE = "–"
COLUMNS = ["network", "fold", "state", "epoch", "best Dice", "time left", "log"]


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
        Why the queue is not shown; empty when it is, or there is none.
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
        *failed* (by an error of its own); *done*.
    """
    layout = StudyLayout(resolve("01_explore_data", study)["study"])
    n_folds, models = resolve("01_explore_data", study)["n_folds"], resolve("04_cross_validation", study)["models"]
    jobs, note = _queue(layout.study)
    of = {(job.rule, job.model, job.fold): job for job in jobs}
    rows = []
    for model in models:
        for fold in range(n_folds):
            run, executed = layout.run(model, fold), layout.notebook("03_train", model, fold)
            state = _state(run.metrics, executed, of.get(("train", model, fold)))
            epochs = resolve("03_train", study, model, fold)["epochs"]
            rows.append([model, str(fold), state, *_progress(run, epochs, state), _log(executed)])
    results = {
        ("explore", "01_explore_data"): layout.dataset,
        ("preprocess", "02_preprocess_n4"): layout.preprocessing_table,
        ("cross_validate", "04_cross_validation"): layout.cross_validation / "leaderboard.csv",
        ("review", "05_qualitative_review"): layout.review / "cases.csv",
    }
    steps = {
        notebook: _state(result, layout.notebook(notebook), of.get((rule, None, None)))
        for (rule, notebook), result in results.items()
    }
    return Status(pd.DataFrame(rows, columns=COLUMNS), steps, note)


def _queue(study: str) -> tuple[list[QueuedJob], str]:
    if not shutil.which("squeue"):
        return [], ""
    try:
        return queued_jobs(study), ""
    except QueueError as error:
        return [], f"The cluster's queue is not shown: {error}"


def _state(result: Path, executed: Path, job: QueuedJob | None) -> str:
    where = f" (job {job.id})" if job else ""
    if is_held(lock_file(executed)) or (job and job.state == "RUNNING"):
        return "running" + where
    if job:
        return "waiting" + where
    if result.is_file():
        return "done"
    record = read_record(executed)
    if record is None:
        return "waiting"
    return "failed" if record["state"] == "failed" else "stopped"


def _progress(run: RunLayout, epochs: int, state: str) -> tuple[str, str, str]:
    """Epoch of all, best Dice on the selection set, time left while it runs."""
    if not run.history.is_file():
        return f"0/{epochs}", NO_LINE, NO_LINE
    history = pd.read_csv(run.history)
    last = history.iloc[-1]
    left = NO_LINE
    if state.startswith("running"):
        left = _duration(last["seconds"] / last["epoch"] * (epochs - last["epoch"]))
    return f"{last['epoch']:.0f}/{epochs}", f"{history['dice'].max():.3f}", left


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d}" if minutes >= 60 else f"{minutes} min"


def _log(executed: Path) -> str:
    return str(executed.relative_to(home())) if executed.is_file() else NO_LINE
