"""Run a notebook headless, strictly: parameters first, then the kernel; the executed copy is always kept."""

import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import papermill
import psutil
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError
from traitlets.config import Config

from metaseg_nb.batch.run_record import RunRecord, State, peak_memory_gb
from metaseg_nb.files import FULL, clear_abandoned, no_room
from metaseg_nb.layout import NOTEBOOKS, PROJECT, StudyLayout
from metaseg_nb.locks import alone
from metaseg_nb.parameters import resolve

# Seconds between two lines of a progress bar in the executed notebook.
SPARSE = "30"
# Exit code of a run that was stopped and saved: started again, it goes on (EX_TEMPFAIL of sysexits.h).
STOPPED = 75
# Seconds that a kernel has to end by itself: a cluster kills all 180 s after SIGTERM (workflow/profiles/slurm).
GRACE_S = 150


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
    NotebookEnded
        A cell failed, the kernel died, or the run was stopped; the partial notebook is kept.
    """
    parameters = resolve(notebook, study, model, fold, arm, seed)
    executed = executed_copy(notebook, parameters)
    # a job that outlived its killed driver finishes before its successor starts
    with (
        Stop() as stop,
        _environment(),
        alone(lock_file(executed)),
        _recorded(executed, parameters, stop),
        TemporaryDirectory(prefix="metaseg-", dir="/tmp") as sockets,  # a socket's path has at most 107 letters
    ):
        _clear_unfinished(notebook, parameters, executed)
        stop.check()
        papermill.execute_notebook(
            _as_it_is(NOTEBOOKS / f"{notebook}.ipynb"),
            _as_it_is(executed),
            parameters=parameters,
            kernel_name="python3",
            progress_bar=False,
            cwd=PROJECT,
            # files of this user's alone, where TCP would let others of the machine listen
            config=Config(KernelManager={"transport": "ipc", "connection_file": f"{sockets}/kernel.json"}),
        )
    return executed


def _as_it_is(path: Path) -> Path:
    """Write a path for papermill, which puts parameters in the place of braces."""
    return Path(str(path).replace("{", "{{").replace("}", "}}"))


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


def _clear_unfinished(notebook: str, parameters: Mapping[str, Any], executed: Path) -> None:
    """Remove what a killed process left half-written where no other notebook of the study writes."""
    layout = StudyLayout(parameters["study"])
    own = {"01_explore_data": [layout.examinations], "02_preprocess_n4": [layout.case_store]}
    for folder in [executed.parent] if "model" in parameters else own.get(notebook, []):
        clear_abandoned(folder)


class NotebookEnded(Exception):
    """A notebook that did not run to its end.

    ``state`` is "stopped" when the same run, started again, goes on; else "failed". ``code`` is the exit code.
    """

    def __init__(self, state: State, why: str):
        super().__init__(why)
        self.state, self.code = state, STOPPED if state == "stopped" else 1


@contextmanager
def _recorded(executed: Path, parameters: Mapping[str, Any], stop: "Stop") -> Iterator[None]:
    """Keep a record of the run beside the executed notebook, however it ends."""
    record = RunRecord(executed, parameters)
    try:
        record.begin()  # inside: a signal may come while this is written
        yield
    except KeyboardInterrupt:
        record.end("stopped", "interrupted")
        raise
    except (Exception, SystemExit) as error:
        if isinstance(error, OSError) and error.errno in FULL:  # no room for the notebook, and none for a record
            raise no_room(error.errno, executed) from error
        if ended := _ending(error, stop):
            record.end(ended.state, str(ended))
            raise ended from error
        record.end("failed", f"{type(error).__name__}: {error}")
        raise
    record.end("done")


def _ending(error: BaseException, stop: "Stop") -> NotebookEnded | None:
    """Say in a line how a notebook ended, without the kernel's traceback; None for what is no end of a notebook."""
    in_cell = isinstance(error, PapermillExecutionError)
    why = f"cell [{error.exec_count}] failed with {error.ename}: {error.evalue}" if in_cell else ""
    if in_cell and error.ename == "TrainingStopped":
        return NotebookEnded("stopped", why)
    if stop.asked:
        return NotebookEnded("stopped", "stopped on request (SIGTERM); start the same notebook again to go on")
    if in_cell:
        return NotebookEnded("failed", why)
    if isinstance(error, DeadKernelError):
        total_gb = psutil.virtual_memory().total / 1e9
        peak = f"its largest process took {peak_memory_gb():.1f} GB of this machine's {total_gb:.0f} GB"
        return NotebookEnded("failed", f"the kernel was killed, probably for lack of memory, or crashed ({peak})")
    return None


class Stop:
    """Whether SIGTERM, a cluster's "time is over", came while the block ran.

    It is passed on to the kernel: training saves and ends, other work just ends. A kernel that goes on is killed
    after `GRACE_S` seconds. Without a kernel the run ends at once.
    """

    def __init__(self) -> None:
        self.asked = False
        self._kill = threading.Timer(GRACE_S, self._kill_kernels)
        self._kill.daemon = True

    def __enter__(self) -> "Stop":
        self._others = set(psutil.Process().children())
        self._before = signal.signal(signal.SIGTERM, self._hear)
        return self

    def __exit__(self, *_) -> None:
        signal.signal(signal.SIGTERM, self._before)
        self._kill.cancel()

    def check(self) -> None:
        """End the run if it came: what it interrupted may have been no kernel."""
        if self.asked:
            sys.exit(STOPPED)

    def _hear(self, *_) -> None:
        again, self.asked, kernels = self.asked, True, self._kernels()
        if not kernels:
            self.check()
        if not again:
            self._kill.start()
        _send(signal.SIGTERM, kernels)

    def _kernels(self) -> set[psutil.Process]:
        """Child processes that began in the block; others, such as a browser, are not the run's."""
        return set(psutil.Process().children()) - self._others

    def _kill_kernels(self) -> None:
        for kernel in self._kernels():
            with suppress(psutil.NoSuchProcess):
                _send(signal.SIGKILL, [*kernel.children(recursive=True), kernel])


def _send(number: int, processes: Iterable[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)


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
