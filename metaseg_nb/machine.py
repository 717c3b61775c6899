"""This machine: its processes and locks between them, a GPU of one's own, and what results are made with.

torch takes seconds to import: only what needs a GPU does so.
"""

import fcntl
import multiprocessing
import multiprocessing.connection
import os
import platform
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import psutil
from tqdm.auto import tqdm

from metaseg_nb.layout import PROJECT

if TYPE_CHECKING:
    import torch

LIBRARIES = ("torch", "monai", "SimpleITK", "numpy")
# Libraries read these once, when a worker starts: one thread each, or the workers compete for the cores.
LIMITS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS")
ONE_THREAD: dict[str, str] = dict.fromkeys(LIMITS, "1")
# How many processes work at a time: set in each worker of `map_cases`. They share the free memory.
at_work = 1
# GPUs of this process, each with its lock file.
_claimed: dict[str, IO[str]] = {}


def is_held(lock: Path) -> bool:
    """Tell whether a process of this machine holds a lock file, without waiting for it."""
    if not lock.is_file():
        return False
    with lock.open(encoding="utf-8") as file:
        return not _locked(file, fcntl.LOCK_SH)


def claim(lock: Path) -> IO[str] | None:
    """Take a lock file without waiting, until the returned file is closed; None where another process holds it."""
    file = lock.open("a+", encoding="utf-8")
    if _locked(file, fcntl.LOCK_EX):
        return file
    file.close()
    return None


@contextmanager
def alone(lock: Path) -> Iterator[IO[str]]:
    """Hold a lock file while the block runs; whoever holds it already is waited for.

    Yields the open file. The operating system drops the lock with the last process
    that has the file open, however that ends.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("a+", encoding="utf-8") as file:
        if not _locked(file, fcntl.LOCK_EX):
            file.seek(0)
            holder = file.read().strip() or "unknown"
            print(f"waiting: process {holder} is working in {lock.parent.name}", file=sys.stderr, flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        name_holder(file, os.getpid())
        yield file


def name_holder(lock: IO[str], pid: int) -> None:
    """Write into a lock file which process others wait for."""
    lock.truncate(0)
    lock.write(f"{pid} on {socket.gethostname()}\n")
    lock.flush()


def _locked(file: IO[str], how: int) -> bool:
    """Lock a file if no other process holds it."""
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def device() -> "torch.device":
    """A GPU that no other process of this user has claimed, where there is one; else the CPU."""
    import torch

    if gpus := claim_gpus(1):
        torch.cuda.set_device(_gpus().index(gpus[0]))
    return torch.device("cuda" if gpus else "cpu")


@contextmanager
def gpu_in_turn() -> Iterator[None]:
    """Where there is a GPU, let one process of this user at a time run the block, and leave no memory of it taken."""
    import torch

    if not torch.cuda.is_available():
        yield
        return
    lock = Path(tempfile.gettempdir()) / f"metaseg_nb_{os.getuid()}_in_turn.lock"
    with lock.open("a", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            torch.cuda.empty_cache()


def claim_gpus(n: int) -> list[str]:
    """Claim GPUs for as long as this process lives, and give their names; none where the machine has no GPU.

    Two trainings side by side so take different GPUs. Where too few are free, the first ones are shared.

    Raises
    ------
    ValueError
        The machine has fewer.
    """
    gpus = _gpus()
    if gpus and n > len(gpus):
        raise ValueError(f"num_processes: found {n}; expected: at most {len(gpus)}, the GPUs that can be used here")
    for gpu in gpus:
        if len(_claimed) < n and gpu not in _claimed:
            lock = claim(Path(tempfile.gettempdir()) / f"metaseg_nb_{os.getuid()}_{gpu}.lock")
            _claimed.update({gpu: lock} if lock else {})
    return [*_claimed, *(gpu for gpu in gpus if gpu not in _claimed)][:n]


def _gpus() -> list[str]:
    """Names of the GPUs that this process can use, as CUDA_VISIBLE_DEVICES takes them."""
    import torch

    n = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return [f"GPU-{torch.cuda.get_device_properties(i).uuid}" for i in range(n)]


def device_name() -> str:
    """Name of the GPU, or "CPU" with the number of threads torch uses."""
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} thread(s)"


def commit() -> str:
    """Short commit of the workbook, with "+" where its files were changed since; "no commit" outside git."""
    git = ["git", "-C", str(PROJECT), "describe", "--always", "--exclude=*", "--dirty=+"]
    try:
        return subprocess.run(git, capture_output=True, encoding="utf-8", check=True).stdout.strip()
    except (FileNotFoundError, subprocess.CalledProcessError):
        return "no commit"


def versions() -> dict[str, str]:
    """Commit, and versions of Python and of the libraries that results depend on."""
    libraries = {name.lower(): version(name) for name in LIBRARIES}
    return {"commit": commit(), "python": platform.python_version(), **libraries}


def machine() -> str:
    """Class of this machine: processor, cores and memory; not its name."""
    memory_gb = psutil.virtual_memory().total / 1e9
    return f"{platform.machine()}, {psutil.cpu_count()} cores, {memory_gb:.0f} GB"


def provenance() -> dict[str, str]:
    """Commit, versions, machine and time (UTC), as they are kept beside each result; the device, if PyTorch is used."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    used = {"device": device_name()} if "torch" in sys.modules else {}
    return {**versions(), **used, "machine": machine(), "time": now}


def describe() -> str:
    """One line for the top of a notebook."""
    return " · ".join(f"{name} {value}" for name, value in provenance().items())


def map_cases(function: Callable, items: Iterable[Any], workers: int, description: str) -> list[Any]:
    """Call ``function`` on each item and return the results in the items' order.

    Parameters
    ----------
    function : callable
        Importable by name: it runs in other processes when ``workers`` > 1.
    items : iterable
    workers : int
        Processes, each with one thread.
    description : str
        Title of the progress bar.

    Raises
    ------
    RuntimeError
        A process was killed; names the items that were being worked on.
    """
    items = list(items)
    if workers == 1 or len(items) < 2:
        return [function(item) for item in tqdm(items, desc=description)]
    before = {name: os.environ.get(name) for name in ONE_THREAD}
    os.environ.update(ONE_THREAD)
    try:
        # spawn: a forked copy of a process that has used torch or ITK threads can hang
        context = multiprocessing.get_context("spawn")
        processes = min(workers, len(items))
        with ProcessPoolExecutor(processes, mp_context=context, initializer=_begin, initargs=(processes,)) as pool:
            futures = [pool.submit(function, item) for item in items]
            try:
                return [future.result() for future in tqdm(futures, desc=description)]
            except BrokenProcessPool as error:
                raise _killed(futures, items, processes, description) from error
            finally:
                pool.shutdown(wait=False, cancel_futures=True)
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def _killed(futures: Sequence[Future], items: Sequence[Any], processes: int, description: str) -> RuntimeError:
    """Error of a killed process: the first items without a result were being worked on, for they are taken in order."""
    ended = [isinstance(future.exception(), BrokenProcessPool) for future in futures]
    names = [getattr(item, "name", str(item)) for item, lost in zip(items, ended, strict=True) if lost][:processes]
    return RuntimeError(
        f"{description}: a process was killed, probably for lack of memory, while it worked on one of "
        f"{', '.join(names)}. Set `workers` to 1; if it happens again, name that case in `exclude`"
    )


def _begin(processes: int) -> None:
    """Prepare a worker: it knows how many there are, and ends when its parent is gone, so that none goes on writing."""
    global at_work
    at_work, parent = processes, multiprocessing.parent_process()
    assert parent is not None  # it runs in a worker

    def watch() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
