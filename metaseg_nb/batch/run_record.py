"""What is known of a notebook's run, kept beside its executed copy: its state, with what, where and when it ran."""

import json
import os
import resource
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from metaseg_nb.files import write_json
from metaseg_nb.provenance import machine, versions
from metaseg_nb.settings import settings_hash

State = Literal["running", "done", "stopped", "failed"]
KILLED = {"state": "running", "error": None}


def record_file(executed: Path) -> Path:
    """Record of an executed notebook: ``03_train.run.json`` beside ``03_train.ipynb``."""
    return executed.with_suffix(".run.json")


def read_record(executed: Path) -> dict[str, Any] | None:
    """Read the record of an executed notebook; None where it never ran.

    A state "running" without a process that runs means that it was killed. So does a record that is damaged.
    """
    file = record_file(executed)
    if not file.is_file():
        return None
    try:
        return KILLED | json.loads(file.read_text(encoding="utf-8"))
    except (TypeError, ValueError):
        return dict(KILLED)


class RunRecord:
    """Record of a run that starts now."""

    def __init__(self, executed: Path, parameters: Mapping[str, Any]):
        self._file = record_file(executed)
        self._facts = {
            "notebook": executed.stem,
            "parameters": dict(parameters),
            "settings_hash": settings_hash(parameters),
            **versions(),
            "machine": machine(),
            "slurm_job": os.environ.get("SLURM_JOB_ID"),
            "started": _now(),
            "ended": None,
            "peak_memory_gb": None,
        }

    def begin(self) -> None:
        """Note that it runs."""
        self._write("running", None)

    def end(self, state: State, error: str | None = None) -> None:
        """Note how it ended."""
        self._facts |= {"ended": _now(), "peak_memory_gb": peak_memory_gb()}
        self._write(state, error)

    def _write(self, state: State, error: str | None) -> None:
        write_json(self._file, {"state": state, "error": error, **self._facts})


def peak_memory_gb() -> float:
    """The most memory that the kernel took, or the largest process that it waited for; once it has ended."""
    return round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e9, 3)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
