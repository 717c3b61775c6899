"""One reader has a case open at a time: a file names the reader, the process, and when it was last active."""

import json
import os
import time
from pathlib import Path
from typing import Any

import psutil

from metaseg_nb.files import MACHINE, write_json
from metaseg_nb.layout import StudyLayout
from metaseg_nb.machine import alone

# Seconds without a word of its reader after which a case is free again.
ABANDONED_S = 1800.0


class CaseTaken(ValueError):
    """Another reader has the case open, or has read it: the message says who, since when, and what to do."""


def hold(layout: StudyLayout, case: str, reader: str) -> None:
    """Note that this process has a case open for a reader, unless another has.

    A case is free again when the process that had it no longer runs on this machine, or `ABANDONED_S` after its last
    word.

    Raises
    ------
    CaseTaken
        Another reader, or another notebook of the same one, has it.
    """
    path, now = _lock(layout, case), time.time()
    with alone(path.with_suffix(".lock")):
        held = _held(layout, case)
        mine = (held.get("machine"), held.get("process"), held.get("reader")) == (MACHINE, os.getpid(), reader)
        if held and not mine and not _is_free(held):
            found = f"{held['reader']} has it open in another notebook, last active {_age_s(held) / 60:.0f} min ago"
            advice = f"take another case, or wait: it is free {ABANDONED_S / 60:.0f} min after the last action"
            raise CaseTaken(f"case {case}: {found}. What to do: {advice}.")
        write_json(path, {"reader": reader, "machine": MACHINE, "process": os.getpid(), "time": now})


def release(layout: StudyLayout, case: str) -> None:
    """Give a case free."""
    _lock(layout, case).unlink(missing_ok=True)


def open_elsewhere(layout: StudyLayout, case: str) -> str:
    """Reader who has a case open in another notebook; empty where it is free."""
    held = _held(layout, case)
    mine = (held.get("machine"), held.get("process")) == (MACHINE, os.getpid())
    return "" if not held or mine or _is_free(held) else held["reader"]


def _held(layout: StudyLayout, case: str) -> dict[str, Any]:
    try:
        return json.loads(_lock(layout, case).read_bytes())
    except (FileNotFoundError, ValueError):  # a half-written one holds nothing
        return {}


def _is_free(held: dict[str, Any]) -> bool:
    ended = held["machine"] == MACHINE and not psutil.pid_exists(held["process"])
    return ended or _age_s(held) > ABANDONED_S


def _age_s(held: dict[str, Any]) -> float:
    return time.time() - held["time"]


def _lock(layout: StudyLayout, case: str) -> Path:
    return layout.by_hand / f".{case}.open.json"
