"""Which case is open, and for whom: one reader works on a case at a time.

A file names the reader, the process, and when it was last active. Between two strokes it keeps the reader's seconds
and ticks, which a kernel that ends would take with it.
"""

import json
import os
import time
from collections.abc import Sequence
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


def hold(
    layout: StudyLayout, case: str, reader: str, seconds: float = 0.0, accepted: Sequence[Sequence[int]] = ()
) -> None:
    """Note that this process has a case open for a reader, unless another has; and what the reader did up to now.

    A case is free again when the process that had it no longer runs on this machine, or `ABANDONED_S` after its last
    word.

    Raises
    ------
    CaseTaken
        Another reader, or another notebook of the same one, has it.
    """
    path = _lock(layout, case)
    with alone(path.with_suffix(".lock")):
        if held := open_elsewhere(layout, case, reader):
            age_min = (time.time() - held["time"]) / 60
            found = f"{held['reader']} has it open in another notebook, last active {age_min:.0f} min ago"
            advice = f"take another case, or wait: it is free {ABANDONED_S / 60:.0f} min after the last action"
            raise CaseTaken(f"case {case}: {found}. What to do: {advice}.")
        who = {"reader": reader, "machine": MACHINE, "process": os.getpid(), "time": time.time()}
        write_json(path, who | {"seconds": seconds, "accepted": accepted})


def release(layout: StudyLayout, case: str, reader: str) -> None:
    """Give a case free, unless another has it by now."""
    path = _lock(layout, case)
    with alone(path.with_suffix(".lock")):
        if not open_elsewhere(layout, case, reader):
            path.unlink(missing_ok=True)


def open_elsewhere(layout: StudyLayout, case: str, reader: str) -> dict[str, Any]:
    """What another reader, or another notebook of this one, noted when it opened a case; empty where it is free."""
    if not (held := _held(layout, case)):
        return {}
    here, process = held["machine"] == MACHINE, held["process"]
    mine = here and (process, held["reader"]) == (os.getpid(), reader)
    ended = here and not psutil.pid_exists(process)
    return {} if mine or ended or time.time() - held["time"] > ABANDONED_S else held


def left_behind(layout: StudyLayout, case: str, reader: str) -> dict[str, Any]:
    """Seconds and ticks of a reader whose notebook ended without closing the case; else empty."""
    held = _held(layout, case)
    return {key: held[key] for key in ("seconds", "accepted") if held.get("reader") == reader and key in held}


def _held(layout: StudyLayout, case: str) -> dict[str, Any]:
    try:
        return json.loads(_lock(layout, case).read_bytes())
    except (FileNotFoundError, ValueError):  # a half-written one holds nothing
        return {}


def _lock(layout: StudyLayout, case: str) -> Path:
    return layout.by_hand / f".{case}.open.json"
