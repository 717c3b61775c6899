"""Files that are complete or absent: written under a temporary name, flushed to disk, then renamed."""

import csv
import errno
import glob
import io
import json
import os
import re
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pandas as pd
import psutil

# Columns of tables that hold names.
NAMES = ("case", "patient", "primary", "site", "scanner", "model", "arm")
# A spreadsheet runs a cell that begins with one of these; behind an apostrophe it is text.
FORMULA = re.compile(r"'*[=+@\-\t\r\n]")
# What can format something in a line of Markdown, or be a link.
FORMATS = re.compile(r"[^\w\s.,:;()/+%='-]|_|:(?=/)")
# Error numbers of a full disk and of a full quota.
FULL = {errno.ENOSPC, errno.EDQUOT}
PROBE = 1 << 20
# Temporary names: the process, its machine, and the name that a file gets in the end.
MACHINE = re.sub(r"[^A-Za-z0-9.-]", "-", socket.gethostname())
UNFINISHED = re.compile(r"\.([1-9]\d{0,9})@([^_]+)_")
# Seconds after which nobody is writing a file any more.
ABANDONED = 24 * 3600


class DamagedFile(ValueError):
    """A file that the workbook wrote is not as it was written: names the file, what was found, and what to do."""

    def __init__(self, path: Path, found: str):
        super().__init__(path, found)  # what it is made again from where a worker sends it
        self.path, self.found = path, found

    def __str__(self) -> str:
        fix = "restore a copy of it, or delete it and run again what writes it"
        return f"file {self.path}: found {self.found}; expected the file as it was written. What to do: {fix}."


@contextmanager
def finished(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; rename it to ``path`` when the block ends well.

    Raises
    ------
    OSError
        No room is left; names the file. Libraries that write raise all kinds of errors then.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    clear_abandoned(path.parent, path.name)
    unfinished = _temporary(path)
    try:
        yield unfinished
        _flush(unfinished)  # or a power loss may leave the new name with empty pages
        unfinished.replace(path)
        _flush(path.parent)
    except Exception as error:
        if full := _full_disk_error(error, unfinished):
            raise no_room(full, path) from error
        raise
    finally:
        unfinished.unlink(missing_ok=True)


@contextmanager
def finished_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder beside ``path``; put it in the place of ``path`` when the block ends well.

    An earlier folder stays until then, and is put back when it cannot be replaced.
    """
    clear_abandoned(path.parent, path.name)
    unfinished, earlier = _temporary(path), path.with_name(f".earlier_{path.name}")
    _put_back(earlier, path)  # a process may have ended between the two renames
    try:
        unfinished.mkdir(parents=True)
        yield unfinished
        _delete(earlier)
        if path.exists():
            path.rename(earlier)
        unfinished.rename(path)
        _delete(earlier)
    finally:
        _put_back(earlier, path)
        _delete(unfinished)


def _put_back(earlier: Path, path: Path) -> None:
    if earlier.exists() and not path.exists():
        earlier.rename(path)


def _temporary(path: Path) -> Path:
    return path.with_name(f".{os.getpid()}@{MACHINE}_{path.name}")


def clear_abandoned(folder: Path, name: str | None = None) -> None:
    """Remove files and folders that ended processes left half-written; others may be writing there.

    One goes when its process no longer runs on this machine; one of another machine when it has not changed for a day.
    With ``name`` only what should have become that file of the folder; else all, in the folders below too.
    """
    for path in list(folder.glob(f".[1-9]*@*_{glob.escape(name)}" if name else "**/.[1-9]*@*_*")):
        if not (found := UNFINISHED.match(path.name)):
            continue
        process, machine = found.groups()
        with suppress(FileNotFoundError):  # another process has finished it meanwhile
            here = machine == MACHINE
            ended = not psutil.pid_exists(int(process)) if here else time.time() - path.stat().st_mtime > ABANDONED
            if ended:
                _delete(path)


def _delete(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    """Wait until the disk holds a file's content, or a folder's names."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system that cannot flush a folder
            raise
    finally:
        os.close(handle)


def no_room(number: int, path: Path) -> OSError:
    """Error of a full disk or quota: the file, and what to do."""
    advice = "free some (see df, quota) and start again, the work continues; or set METASEG_HOME to another disk"
    return OSError(number, f"no disk space is left to write this file ({advice})", str(path))


def _full_disk_error(error: Exception, unfinished: Path) -> int:
    """Number of a full disk, if that is the error or if a little more cannot be written to a file; else 0."""
    if isinstance(error, OSError) and error.errno in FULL:
        return error.errno
    try:
        with unfinished.open("ab") as file:
            file.write(bytes(PROBE))
            file.flush()
            os.fsync(file.fileno())
    except OSError as other:
        return other.errno if other.errno in FULL else 0
    return 0


def write_json(path: Path, content: Any) -> None:
    """Write JSON, indented; NaN is refused, for no other program reads it."""
    write_text(path, json.dumps(content, indent=1, allow_nan=False))


def write_text(path: Path, text: str) -> None:
    """Write text and a line's end."""
    with finished(path) as unfinished:
        unfinished.write_text(text + "\n", encoding="utf-8")


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a CSV without its index; text that a spreadsheet would run as a formula is written behind an apostrophe."""
    safe = _each_text(table, lambda cell: f"'{cell}" if FORMULA.match(cell) else cell)
    with finished(path) as unfinished:  # all text in quotes: left to itself, csv forgets them around a carriage return
        safe.to_csv(unfinished, index=False, encoding="utf-8", quoting=csv.QUOTE_NONNUMERIC)


def read_table(path: Path) -> pd.DataFrame:
    """Read a CSV as `write_table` wrote it: names stay text, also those that look like a number (007) or none (NA).

    Raises
    ------
    DamagedFile
        It is empty, cut off, not text, saved again with semicolons, or has rows of another length than its header.
    """
    return _read(path, dtype=dict.fromkeys(NAMES, str), keep_default_na=False, na_values=[""])


def read_text_table(path: Path) -> pd.DataFrame:
    """Read a CSV that holds nothing but text; see `read_table`. An empty cell is an empty text."""
    return _read(path, dtype=str, keep_default_na=False)


def _read(path: Path, **how: Any) -> pd.DataFrame:
    try:
        text = path.read_bytes().decode("utf-8-sig")
        if not text.strip() or "\0" in text:
            raise ValueError("an empty file" if not text.strip() else "bytes that are not text")
        rows = [row for row in csv.reader(io.StringIO(text, newline=""), strict=True) if row]
        if uneven := [number for number, row in enumerate(rows, 1) if len(row) != len(rows[0])]:
            raise ValueError(f"row {uneven[0]} has {len(rows[uneven[0] - 1])} cells, the header {len(rows[0])}")
        if len(rows[0]) == 1 and ";" in rows[0][0]:
            raise ValueError("semicolons in place of commas: a spreadsheet saved it")
        table = pd.read_csv(io.StringIO(text, newline=""), engine="python", **how)
    except (ValueError, csv.Error) as error:
        raise DamagedFile(path, f"not a complete table ({error})") from error
    return _each_text(table, lambda cell: cell[1:] if cell[:1] == "'" and FORMULA.match(cell) else cell)


def _each_text(table: pd.DataFrame, change: Callable[[str], str]) -> pd.DataFrame:
    """Change every cell that is text."""
    table = table.copy(deep=False)
    for column in table.select_dtypes(["object", "string", "category"]) if len(table) else []:
        cells = table[column].tolist()
        changed = [change(cell) if isinstance(cell, str) else cell for cell in cells]
        if any(after is not before for after, before in zip(changed, cells, strict=True)):
            table[column] = changed
    return table


def escaped(text: object) -> str:
    """Text of data for a line of Markdown: it is shown as it is, and formats nothing.

    Line breaks become blanks; each character with a meaning in Markdown, HTML or formulas
    becomes an entity, such as ``&#42;``.
    """
    return FORMATS.sub(lambda found: f"&#{ord(found[0])};", " ".join(str(text).split()))
