"""This machine: locks between its processes, a GPU of one's own, and what results are made with.

torch takes seconds to import: only what needs a GPU does so.
"""

import fcntl
import os
import platform
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import IO, TYPE_CHECKING

import psutil

from metaseg_nb.layout import PROJECT

if TYPE_CHECKING:
    import torch

LIBRARIES = ("torch", "monai", "SimpleITK", "numpy")
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
    facts = provenance()
    return " · ".join(f"{name} {value}" for name, value in facts.items())
