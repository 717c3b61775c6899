"""Files that are whole or not there: written under a temporary name, then renamed. And locks."""

import errno
import fcntl
import json
import os
import re
import shutil
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pandas as pd

# Columns of tables that hold names.
NAMES = ("case", "patient", "primary", "model", "arm")
# Error numbers of a full disk and of a full quota.
FULL = {errno.ENOSPC, errno.EDQUOT}
PROBE = 1 << 20
# Temporary names: the process, and the name that a file gets in the end.
UNFINISHED = re.compile(r"\.[1-9]\d*_")


@contextmanager
def finished(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; rename it to ``path`` when the block ends well.

    Raises
    ------
    OSError
        No room is left; names the file. Libraries that write raise all kinds of errors then.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{os.getpid()}_{path.name}")
    try:
        yield unfinished
        unfinished.replace(path)
    except Exception as error:
        if full := _full_disk_error(unfinished):
            raise no_room(full, path) from error
        raise
    finally:
        unfinished.unlink(missing_ok=True)


@contextmanager
def finished_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder beside ``path``; put it in the place of ``path`` when the block ends well.

    What was there before stays until then. What killed processes left of such folders is removed.
    """
    unfinished, earlier = (path.with_name(f".{os.getpid()}_{part}_{path.name}") for part in ("new", "earlier"))
    for part in ("new", "earlier"):
        for left in path.parent.glob(f".[1-9]*_{part}_{path.name}"):
            shutil.rmtree(left)
    try:
        unfinished.mkdir(parents=True)
        yield unfinished
        if path.exists():
            path.rename(earlier)
        unfinished.rename(path)
    finally:
        for folder in (unfinished, earlier):
            shutil.rmtree(folder, ignore_errors=True)


def clear_unfinished(folder: Path) -> None:
    """Remove what killed processes left half-written in a folder and below; only for whoever alone writes there."""
    for path in folder.rglob(".[1-9]*_*"):
        if UNFINISHED.match(path.name) and path.is_file():
            path.unlink()


def no_room(number: int, path: Path) -> OSError:
    """Error of a full disk or quota: the file, and what to do."""
    advice = "free some (see df, quota) and start again, it goes on; METASEG_HOME names another disk"
    return OSError(number, f"no room is left to write this file ({advice})", str(path))


def _full_disk_error(unfinished: Path) -> int:
    """Error number with which a little more cannot be written to a file, 0 where it can."""
    try:
        with unfinished.open("ab") as file:
            file.write(bytes(PROBE))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return error.errno if error.errno in FULL else 0
    return 0


def write_json(path: Path, content: Any) -> None:
    """Write JSON, indented; NaN is refused, for no other program reads it."""
    with finished(path) as unfinished:
        unfinished.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a CSV without its index."""
    with finished(path) as unfinished:
        table.to_csv(unfinished, index=False)


def write_text(path: Path, text: str) -> None:
    """Write text and a line's end."""
    with finished(path) as unfinished:
        unfinished.write_text(text + "\n", encoding="utf-8")


def read_table(path: Path) -> pd.DataFrame:
    """Read a CSV as `write_table` wrote it: names stay text, also those that look like a number (007) or none (NA).

    Raises
    ------
    ValueError
        It is empty or damaged; names the file.
    """
    try:
        return pd.read_csv(path, dtype=dict.fromkeys(NAMES, str), keep_default_na=False, na_values=[""])
    except ValueError as error:  # pandas' own kinds are of it, and so is text that is no UTF-8
        advice = "delete it, and run the notebook again that writes it"
        raise ValueError(f"{path}: not a whole table ({error}); {advice}") from error


def is_held(lock: Path) -> bool:
    """Tell whether a process holds a lock file, without waiting for it."""
    if not lock.is_file():
        return False
    with lock.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


@contextmanager
def alone(lock: Path) -> Iterator[IO[str]]:
    """Hold a lock file while the block runs; whoever holds it already is waited for.

    Yields the open file. The operating system drops the lock with the last process
    that has the file open, however that ends.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("a+") as file:
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
    """Say in a lock file whom others wait for."""
    lock.truncate(0)
    lock.write(f"{pid} on {socket.gethostname()}\n")
    lock.flush()
