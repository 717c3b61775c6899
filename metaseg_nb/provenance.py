"""With what a result was made: commit, versions, device, time."""

import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version

import psutil

from metaseg_nb.layout import PROJECT

LIBRARIES = ("torch", "monai", "SimpleITK", "numpy")


def device_name() -> str:
    """Name of the GPU, or "CPU" with the number of threads torch uses."""
    import torch  # takes seconds, and whoever notes versions needs no more than those

    return torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} thread(s)"


def commit() -> str:
    """Short commit of the workbook, with "+" where files were changed since; "no commit" outside git."""
    git = ["git", "-C", str(PROJECT)]
    try:
        head = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, encoding="utf-8", check=True)
        changed = subprocess.run([*git, "status", "--porcelain"], capture_output=True, encoding="utf-8", check=True)
    except (FileNotFoundError, subprocess.CalledProcessError):
        return "no commit"
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "")


def versions() -> dict[str, str]:
    """Commit, and versions of Python and of the libraries that results depend on."""
    libraries = {name.lower(): version(name) for name in LIBRARIES}
    return {"commit": commit(), "python": platform.python_version(), **libraries}


def machine() -> str:
    """Class of this machine: processor, cores and memory; not its name."""
    memory_gb = psutil.virtual_memory().total / 1e9
    return f"{platform.machine()}, {psutil.cpu_count()} cores, {memory_gb:.0f} GB"


def provenance() -> dict[str, str]:
    """Commit, versions, device, machine and time (UTC), as they are kept beside each result."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return {**versions(), "device": device_name(), "machine": machine(), "time": now}


def describe() -> str:
    """One line for the top of a notebook."""
    facts = provenance()
    return " · ".join(f"{name} {value}" for name, value in facts.items())
