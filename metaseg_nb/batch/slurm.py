"""The jobs of a study in a cluster's queue (SLURM)."""

import getpass
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from metaseg_nb.layout import home

# Snakemake's plugin names jobs <prefix>_<uuid of the driver> and says in the comment what they do.
UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
COMMENT = re.compile(r"rule_(?P<rule>\w+?)(?:_wildcards_(?P<wildcards>\w+))?")
FORMAT = "%i|%T|%k|%j|%Z"
# Letters of paths that the shells between SLURM and a job hand on as they are.
PLAIN_PATH = re.compile(r"[\w/.+~:=@-]*")
# Seconds in which an answer comes.
ANSWER_S = 120
# Seconds in which cancelled jobs, which may save first, must be gone.
PATIENCE = 600


class QueueError(RuntimeError):
    """The queue cannot be asked, or does not do what it was told."""


@dataclass(frozen=True)
class QueuedJob:
    """One job in the queue: its id, its state as SLURM calls it, and what it runs: a rule, and of what.

    ``wildcards`` are those of the rule's output, in their order, with _ between: "unet_0"; empty for one without.
    """

    id: str
    state: str
    rule: str
    wildcards: str


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
                f"{path}: found {found} in this path; expected letters, digits and . _ - + only, for it goes through "
                "several shells to a cluster's jobs; rename the folder or move to another"
            )


def queued_jobs(study: str) -> list[QueuedJob]:
    """Waiting and running jobs of one's own that a driver submitted for this study into this home folder.

    Raises
    ------
    QueueError
        SLURM does not answer.
    """
    name = re.compile(f"{re.escape(job_prefix(study))}_{UUID}")
    jobs = []
    answer = _slurm("squeue", "--noheader", "--user", getpass.getuser(), "--format", FORMAT)
    for line in answer.splitlines():
        job, state, comment, job_name, folder = [*line.split("|", 4), "", "", "", ""][:5]
        what = COMMENT.fullmatch(comment)
        if what and name.fullmatch(job_name) and folder == str(home()):
            jobs.append(QueuedJob(job, state, what["rule"], what["wildcards"] or ""))
    return jobs


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
    print(f"an earlier start left {len(ids)} job(s) in the queue; they are stopped and go on anew", file=sys.stderr)
    _slurm("scancel", *ids)
    for _ in range(PATIENCE):
        if not queued_jobs(study):
            return
        time.sleep(1)
    raise QueueError(f"job(s) {', '.join(ids)} do not end; see `squeue --me`, then start again")


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
