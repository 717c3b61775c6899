"""Run a notebook headless, and keep its executed copy however it ends; or write a copy to be opened."""

import os
import resource
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import nbformat
import papermill
import psutil
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError
from papermill.iorw import load_notebook_node
from papermill.log import logger
from papermill.parameterize import parameterize_notebook
from traitlets.config import Config

from metaseg_nb.batch.runs import Run, outcome_file
from metaseg_nb.files import FULL, no_room, write_json, write_text
from metaseg_nb.layout import NOTEBOOKS, PROJECT
from metaseg_nb.machine import alone, machine, versions
from metaseg_nb.settings import ParameterError, settings_hash

# Seconds between two lines of a progress bar in the executed notebook.
SPARSE = "30"
# Exit code of a run that was stopped and saved: started again, it goes on (EX_TEMPFAIL of sysexits.h).
STOPPED = 75
# Exit code after Ctrl-C, as of shells: 128 and the signal's number.
INTERRUPTED = 128 + signal.SIGINT
# Seconds that a kernel has to end by itself: a cluster kills all 180 s after SIGTERM (workflow/profiles/slurm).
GRACE_S = 150


class NotebookEnded(Exception):
    """A notebook that did not run to its end.

    ``state`` is "stopped" when the same run, started again, goes on; else "failed". ``code`` is the exit code.
    """

    def __init__(self, state: str, why: str, code: int):
        super().__init__(why)
        self.state, self.code = state, code


def run_notebook(run: Run) -> Path:
    """Execute one notebook of a study with its parameters.

    Returns
    -------
    path
        The executed notebook.

    Raises
    ------
    NotebookEnded
        A cell failed, the kernel died, or the run was stopped; the partial notebook is kept.
    """
    _use_own_kernel()
    # a job that outlived its killed driver finishes before its successor starts
    with (
        Stop() as stop,
        alone(run.lock),
        _recorded(run, stop),
        _copy_of(run) as copy,
        TemporaryDirectory(prefix="metaseg-", dir="/tmp") as sockets,  # a socket's path has at most 107 letters
    ):
        stop.check()
        papermill.execute_notebook(
            _as_it_is(NOTEBOOKS / f"{run.notebook}.ipynb"),
            _as_it_is(copy),
            parameters=run.parameters,
            kernel_name="python3",
            progress_bar=False,
            cwd=PROJECT,
            shutdown_kernel="immediate",  # all is written: PyTorch takes seconds to tidy up
            # files of this user's alone, where TCP would let others of the machine listen
            config=Config(KernelManager={"transport": "ipc", "connection_file": f"{sockets}/kernel.json"}),
        )
    return run.executed


def _as_it_is(path: Path) -> Path:
    """Write a path for papermill, which puts parameters in the place of braces."""
    return Path(str(path).replace("{", "{{").replace("}", "}}"))


@contextmanager
def _copy_of(run: Run) -> Iterator[Path]:
    """Where to execute a notebook.

    The copy of a finished run, which the report shows, is replaced only when the notebook ends well again, or when
    the run is finished no more. Else the new copy stays beside it: ``03_train.rerun.ipynb``.
    """
    again = run.executed.with_suffix(".rerun.ipynb")
    again.unlink(missing_ok=True)
    copy = again if run.executed.is_file() and run.result.is_file() else run.executed
    ended_well = False
    try:
        yield copy
        ended_well = True
    finally:
        if copy.is_file() and (ended_well or not run.result.is_file()):
            copy.replace(run.executed)


@contextmanager
def _recorded(run: Run, stop: "Stop") -> Iterator[None]:
    """Keep a record beside the executed notebook, however it ends: with what, where and when it ran."""
    facts = {
        "notebook": run.notebook,
        "parameters": run.parameters,
        "settings_hash": settings_hash(run.parameters),
        **versions(),
        "machine": machine(),
        "slurm_job": os.environ.get("SLURM_JOB_ID"),
        "started": _now(),
        "ended": None,
        "peak_memory_gb": None,
    }

    def note(state: str, error: str | None = None) -> None:
        end = {"ended": _now(), "peak_memory_gb": _peak_memory_gb()} if state != "running" else {}
        write_json(outcome_file(run.executed), {"state": state, "error": error, **facts, **end})

    try:
        note("running")  # inside: a signal may come while this is written
        yield
    except (Exception, SystemExit, KeyboardInterrupt) as error:
        if isinstance(error, OSError) and error.errno in FULL:  # no room for the notebook, and none for a record
            raise no_room(error.errno, run.executed) from error
        if ended := _ending(error, stop):
            note(ended.state, str(ended))
            raise ended from error
        note("failed", f"{type(error).__name__}: {error}")
        raise
    note("done")


def _ending(error: Any, stop: "Stop") -> NotebookEnded | None:
    """Say in a line how a notebook ended, without the kernel's traceback; None for what is no end of a notebook."""
    in_cell = isinstance(error, PapermillExecutionError)
    saved = in_cell and error.ename == "TrainingStopped"
    if stop.asked == signal.SIGINT:
        return NotebookEnded("stopped", "stopped by Ctrl-C; start the same notebook again to continue", INTERRUPTED)
    if stop.asked and not saved:
        why = "stopped on request (SIGTERM); start the same notebook again to continue"
        return NotebookEnded("stopped", why, STOPPED)
    if in_cell:
        why = f"cell [{error.exec_count}] failed with {error.ename}: {error.evalue}"
        return NotebookEnded("stopped", why, STOPPED) if saved else NotebookEnded("failed", why, 1)
    if isinstance(error, DeadKernelError):
        total_gb = psutil.virtual_memory().total / 1e9
        peak = f"its largest process took {_peak_memory_gb():.1f} GB of this machine's {total_gb:.0f} GB"
        return NotebookEnded("failed", f"the kernel was killed, probably for lack of memory, or crashed ({peak})", 1)
    return None


def _peak_memory_gb() -> float:
    """The most memory that the kernel took, or the largest process that it waited for; once it has ended."""
    return round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e9, 3)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def open_notebook(run: Run) -> Path:
    """Write a copy of a run's notebook with its parameters, as papermill puts them, to be opened in JupyterLab.

    Returns
    -------
    path
        The copy, beside the executed notebook: ``03_train.open.ipynb``. An earlier copy with the same parameters stays.

    Raises
    ------
    ParameterError
        An earlier copy holds other parameters.
    """
    copy = run.executed.with_suffix(".open.ipynb")
    notebook = parameterize_notebook(load_notebook_node(str(NOTEBOOKS / f"{run.notebook}.ipynb")), run.parameters)
    if not copy.exists():
        write_text(copy, nbformat.writes(notebook))
    elif _parameters_in(nbformat.read(copy, as_version=4)) != _parameters_in(notebook):
        raise ParameterError(f"{copy} has other parameters than the study; open it as it is, or delete it")
    return copy


def _parameters_in(notebook: nbformat.NotebookNode) -> str:
    """Source of the cell that papermill adds; empty where a person took it out."""
    return "".join(cell.source for cell in notebook.cells if "injected-parameters" in cell.metadata.get("tags", []))


class Stop:
    """Whether SIGTERM, a cluster's "time is over", or Ctrl-C came while the block ran; ``asked`` is the first.

    The kernel gets SIGTERM: training saves and ends, other work just ends. A kernel that goes on is killed after
    `GRACE_S` seconds, or by Ctrl-C once more. Without a kernel the run ends at once.
    """

    asked = 0

    def __enter__(self) -> "Stop":
        self._others = set(psutil.Process().children())  # such as a browser: no kernels of the run
        signals = (signal.SIGTERM, signal.SIGINT)
        heard = [one for one in signals if signal.getsignal(one) != signal.SIG_IGN]  # a shell's `&` ignores Ctrl-C
        self._before = [(one, signal.signal(one, self._hear)) for one in heard]
        return self

    def __exit__(self, *_) -> None:
        for one, before in self._before:
            signal.signal(one, before)
        logger.disabled = False

    def check(self) -> None:
        """End the run if one came: what it interrupted may have been no kernel."""
        if self.asked:
            raise KeyboardInterrupt if self.asked == signal.SIGINT else SystemExit(STOPPED)

    def _hear(self, number: int, _) -> None:
        again, self.asked = self.asked, self.asked or number
        logger.disabled = True  # that the kernel dies is no news
        kernels = set(psutil.Process().children()) - self._others
        if not kernels:
            self.check()
        if number == signal.SIGINT and again:
            _kill(kernels)
        elif number == signal.SIGINT and kernels:
            print("stopping: a training saves its state first; Ctrl-C once more ends it at once", file=sys.stderr)
        if not again:
            killer = threading.Timer(GRACE_S, _kill, [kernels])
            killer.daemon = True
            killer.start()
        _send(signal.SIGTERM, kernels)


def _kill(kernels: Iterable[psutil.Process]) -> None:
    for kernel in kernels:
        with suppress(psutil.NoSuchProcess):
            _send(signal.SIGKILL, [*kernel.children(recursive=True), kernel])


def _send(number: int, processes: Iterable[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def _use_own_kernel() -> None:
    """From now on this process starts its environment's kernel, whatever kernels the user has, with sparse bars."""
    os.environ.pop("JUPYTER_PATH", None)
    os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"
    os.environ["TQDM_MININTERVAL"] = SPARSE
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
