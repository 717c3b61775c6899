"""The jobs of a study in a cluster's queue (SLURM)."""

import getpass
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from metaseg_nb.layout import home

# Snakemake's plugin names jobs <prefix>_<uuid of the driver>.
UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
# Letters of paths that the shells between SLURM and a job hand on as they are.
PLAIN_PATH = re.compile(r"[\w/.+~:=@-]*")
# Seconds in which an answer comes.
ANSWER_S = 120
# Seconds in which cancelled jobs, which may save first, must be gone.
PATIENCE = 600


class QueueError(RuntimeError):
    """The queue does not answer, or does not carry out a command."""


class QueuedJob(NamedTuple):
    """One job in the queue: its id, its state as SLURM calls it, and the plugin's comment: what it runs (`Run.job`)."""

    id: str
    state: str
    comment: str


def job_prefix(study: str) -> str:
    """What the names of a study's jobs begin with (the plugin takes 50 characters)."""
    return f"metaseg-{study}"


def refuse_strange_paths(paths: Iterable[Path]) -> None:
    """Refuse paths that would not reach the jobs as they are.

    Raises
    ------
    QueueError
        Names the first of them, and what to do.
    """
    for path in paths:
        if strange := sorted(set(PLAIN_PATH.sub("", str(path)))):
            found = ", ".join(repr(letter) for letter in strange)
            raise QueueError(
                f"{path}: found {found} in this path; expected only letters, digits and . _ - +, because it passes "
                "several shells to a cluster's jobs; rename the folder or move to another"
            )


def queued_jobs(study: str) -> list[QueuedJob]:
    """Waiting and running jobs of one's own that a driver submitted for this study into this home folder.

    Raises
    ------
    QueueError
        SLURM does not answer.
    """
    ours = re.compile(rf"(\d+)\|(\w+)\|(rule_\w+)\|{re.escape(job_prefix(study))}_{UUID}\|{re.escape(str(home()))}")
    answer = _slurm("squeue", "--noheader", "--user", getpass.getuser(), "--format", "%i|%T|%k|%j|%Z")
    return [QueuedJob(*line.groups()) for line in map(ours.fullmatch, answer.splitlines()) if line]


def cancel_leftovers(study: str) -> None:
    """Cancel what a killed driver left in the queue, and wait until it is gone: no job runs twice.

    Jobs that run are asked to stop first: training saves, and goes on in its next job.

    Raises
    ------
    QueueError
        SLURM does not answer, or a job does not go.
    """
    ids = [job.id for job in queued_jobs(study)]
    if not ids:
        return
    print(f"an earlier start left {len(ids)} job(s) in the queue; they are stopped and started again", file=sys.stderr)
    _slurm("scancel", *ids)
    for _ in range(PATIENCE):
        if not queued_jobs(study):
            return
        time.sleep(1)
    raise QueueError(f"job(s) {', '.join(ids)} could not be stopped; see `squeue --me`, then start again")


def _slurm(command: str, *arguments: str) -> str:
    if not shutil.which(command):
        raise QueueError(f"{command} is not installed here; start this on a login node of the cluster")
    try:
        result = subprocess.run([command, *arguments], capture_output=True, timeout=ANSWER_S)
    except subprocess.TimeoutExpired:
        raise QueueError(f"{command} gave no answer in {ANSWER_S} s") from None
    if result.returncode:
        raise QueueError(f"{command} failed: {os.fsdecode(result.stderr).strip()}")
    return os.fsdecode(result.stdout)
