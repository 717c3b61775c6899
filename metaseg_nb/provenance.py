"""With what a result was made: commit, versions, device, time."""

import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version

import torch

from metaseg_nb.layout import PROJECT

LIBRARIES = ("torch", "monai", "SimpleITK", "numpy")


def device() -> torch.device:
    """The GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def device_name() -> str:
    """Name of the GPU, or "CPU" with the number of threads torch uses."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} thread(s)"


def commit() -> str:
    """Short commit of the workbook, with "+" where files were changed since; "no commit" outside git."""
    git = ["git", "-C", str(PROJECT)]
    try:
        head = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
        changed = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=True)
    except (FileNotFoundError, subprocess.CalledProcessError):
        return "no commit"
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "")


def provenance() -> dict[str, str]:
    """Commit, versions, device and time (UTC), as they are kept beside each result."""
    versions = {name.lower(): version(name) for name in LIBRARIES}
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return {"commit": commit(), "python": platform.python_version(), **versions, "device": device_name(), "time": now}


def describe() -> str:
    """One line for the top of a notebook."""
    facts = provenance()
    return " · ".join(f"{name} {value}" for name, value in facts.items())
