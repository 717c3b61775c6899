"""Run a notebook headless, strictly: parameters first, then the kernel; the executed copy is always kept."""

import os
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import papermill
import psutil
from papermill.exceptions import PapermillExecutionError

from metaseg_nb.batch.run_record import RunRecord
from metaseg_nb.files import FULL, alone, clear_unfinished, no_room
from metaseg_nb.layout import NOTEBOOKS, PROJECT, StudyLayout
from metaseg_nb.parameters import as_it_is, resolve

# Seconds between two lines of a progress bar in the executed notebook.
SPARSE = "30"
# Exit code of a run that was stopped and saved: started again, it goes on (EX_TEMPFAIL of sysexits.h).
STOPPED = 75


def run_notebook(
    notebook: str, study: str, model: str | None = None, fold: int | None = None, arm: str = "", seed: int | None = None
) -> Path:
    """Execute one notebook of a study with its resolved parameters.

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

    Returns
    -------
    path
        The executed notebook.

    Raises
    ------
    ParameterError
        Before any kernel starts.
    PapermillExecutionError
        A cell failed; the partial notebook is kept.
    """
    parameters = resolve(notebook, study, model, fold, arm, seed)
    executed = executed_copy(notebook, parameters)
    # a job that outlived its killed driver finishes before its successor starts
    with _environment(), alone(lock_file(executed)), _kernel_hears_sigterm(), _recorded(executed, parameters):
        if model is not None:  # this run's own folder; the others share theirs
            clear_unfinished(executed.parent)
        papermill.execute_notebook(
            as_it_is(NOTEBOOKS / f"{notebook}.ipynb"),
            as_it_is(executed),
            parameters=parameters,
            kernel_name="python3",
            progress_bar=False,
            cwd=PROJECT,
        )
    return executed


def executed_copy(notebook: str, parameters: Mapping[str, Any]) -> Path:
    """Where the executed copy of a notebook is kept: with its run where it trains, else with the study."""
    layout = StudyLayout(parameters["study"])
    if "model" not in parameters:
        return layout.notebook(notebook)
    which = {name: parameters[name] for name in ("model", "fold", "seed")}
    if "arm" not in parameters:
        return layout.pretraining(**which).notebook(notebook)
    return layout.run(**which, arm=parameters["arm"]).notebook(notebook)


def lock_file(executed: Path) -> Path:
    """Lock that is held while a notebook is executed."""
    return executed.with_name(f".{executed.stem}.lock")


def exit_code(error: PapermillExecutionError) -> int:
    """`STOPPED` for a training that was stopped and saved, else 1."""
    return STOPPED if error.ename == "TrainingStopped" else 1


def failure_message(error: PapermillExecutionError) -> str:
    """Say in a few lines what failed: the cell and the error, without the kernel's traceback."""
    return f"cell [{error.exec_count}] failed with {error.ename}: {error.evalue}"


@contextmanager
def _recorded(executed: Path, parameters: Mapping[str, Any]) -> Iterator[None]:
    """Keep a record of the run beside the executed notebook, however it ends."""
    record = RunRecord(executed, parameters)
    try:
        yield
    except PapermillExecutionError as error:
        record.end("stopped" if exit_code(error) == STOPPED else "failed", failure_message(error))
        raise
    except KeyboardInterrupt:
        record.end("stopped", "interrupted")
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in FULL:  # no room for the notebook, and none for a record
            raise no_room(error.errno, executed) from error
        record.end("failed", f"{type(error).__name__}: {error}")
        raise
    record.end("done")


@contextmanager
def _kernel_hears_sigterm() -> Iterator[None]:
    """Pass SIGTERM, a cluster's "time is over", on to the kernel: training saves, and its error ends the notebook."""

    def pass_on(*_) -> None:
        for child in psutil.Process().children():
            child.send_signal(signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, pass_on)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _environment() -> Iterator[None]:
    """This environment's own kernel whatever kernels the user has, and sparse progress bars."""
    wanted = {
        "JUPYTER_PREFER_ENV_PATH": "1",
        "TQDM_MININTERVAL": SPARSE,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
    }
    before = dict(os.environ)
    os.environ.pop("JUPYTER_PATH", None)
    os.environ.update(wanted)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
