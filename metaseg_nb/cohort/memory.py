"""How much memory is free: looked at before a large file is read."""

from pathlib import Path

import psutil

CONTROL_GROUPS = Path("/sys/fs/cgroup")


def free_memory(groups: Path = CONTROL_GROUPS, process: Path = Path("/proc/self/cgroup")) -> int:
    """Bytes that may still be taken: of the machine's memory and of the limit of a SLURM job or container.

    Parameters
    ----------
    groups, process : path
        Linux's control groups (version 2) and the file that names this process's; another system has none.
    """
    free = [psutil.virtual_memory().available]
    own = groups / process.read_text(encoding="utf-8").strip().rpartition("::/")[2] if process.is_file() else groups
    for group in (own, *own.parents):
        try:
            limit = int((group / "memory.max").read_text(encoding="utf-8"))
            counts = dict(line.split() for line in (group / "memory.stat").read_text(encoding="utf-8").splitlines())
        except (OSError, ValueError):  # no group, or no limit
            continue
        free.append(limit - int(counts["anon"]))  # the rest are pages of files, which are given back
    return min(free)
