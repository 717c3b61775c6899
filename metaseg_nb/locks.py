"""Locks: files that one process holds at a time, across the processes of a machine."""

import fcntl
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


def is_held(lock: Path) -> bool:
    """Tell whether a process holds a lock file, without waiting for it."""
    if not lock.is_file():
        return False
    with lock.open(encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def claim(lock: Path) -> IO[str] | None:
    """Take a lock file without waiting, until the returned file is closed; None where another process holds it."""
    file = lock.open("a+", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


@contextmanager
def alone(lock: Path) -> Iterator[IO[str]]:
    """Hold a lock file while the block runs; whoever holds it already is waited for.

    Yields the open file. The operating system drops the lock with the last process
    that has the file open, however that ends.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            print(f"waiting: process {holder} is at work in {lock.parent.name}", file=sys.stderr, flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        name_holder(file, os.getpid())
        yield file


def name_holder(lock: IO[str], pid: int) -> None:
    """Write into a lock file which process others wait for."""
    lock.truncate(0)
    lock.write(f"{pid} on {socket.gethostname()}\n")
    lock.flush()
