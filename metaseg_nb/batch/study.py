"""Run a whole study through Snakemake, here or on a cluster, and go on where an earlier run stopped."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

import yaml

from metaseg_nb.batch.progress import follow
from metaseg_nb.batch.slurm import cancel_leftovers, job_prefix
from metaseg_nb.files import alone, name_holder
from metaseg_nb.layout import PROJECT, StudyLayout, home
from metaseg_nb.parameters import job_resources, resolve
from metaseg_nb.settings import ParameterError

PROFILES = PROJECT / "workflow" / "profiles"
SNAKEFILE = PROJECT / "workflow" / "Snakefile"
LOOK_EVERY_S = 0.2


def run_study(study: str, profile: str = "default", targets: Sequence[str] = ()) -> int:
    """Run what is missing of a study.

    Parameters
    ----------
    study : str
        Name in ``params/studies``, or path to a YAML file.
    profile : str
        Where: a folder of ``workflow/profiles`` ("default": this machine, "slurm"), or the path of another.
    targets : sequence of str
        What: such as "unet" (all its folds) or "unet_fold0"; nothing: all, up to the report.

    Returns
    -------
    int
        Exit code of Snakemake: 0 when all that was asked for is there.

    Raises
    ------
    ParameterError
        A parameter of a job, or the profile, cannot be used.
    QueueError
        The cluster does not answer.
    """
    name, folder = resolve("01_explore_data", study)["study"], _profile(profile)
    for model in resolve("04_cross_validation", study)["models"]:
        job_resources(study, model)
    layout = StudyLayout(name)
    log = layout.root / "snakemake.log"
    with alone(layout.root / ".study.lock") as lock:
        if yaml.safe_load((folder / "config.yaml").read_text()).get("executor") == "slurm":
            cancel_leftovers(name)
        # should this process be killed, Snakemake goes on: it needs no pipe, and the lock lives as long as it does
        with log.open("w") as record:
            command = _command(study, layout, folder, targets)
            process = subprocess.Popen(
                command, cwd=home(), stdout=record, stderr=subprocess.STDOUT, pass_fds=[lock.fileno()]
            )
        name_holder(lock, process.pid)
        signal.signal(signal.SIGTERM, lambda *_: process.terminate())
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Snakemake hears Ctrl-C too, cancels its jobs, and then ends
        with log.open() as written:
            failed = follow(_lines(written, process))
        code = process.wait()
    for step in failed:
        print(step.explain(), file=sys.stderr)
    if code:
        print(f"the study is not complete; see {log.relative_to(home())}, then start it again", file=sys.stderr)
    return code


def _lines(written: IO[str], process: subprocess.Popen) -> Iterator[str]:
    """Lines that a process writes into a file, as they come."""
    line = ""
    while True:
        ended = process.poll() is not None
        line += written.readline()
        if line.endswith("\n"):
            yield line
            line = ""
        elif ended:
            return
        else:
            time.sleep(LOOK_EVERY_S)


def _profile(profile: str) -> Path:
    folder = PROFILES / profile if (PROFILES / profile).is_dir() else Path(profile).resolve()
    if not (folder / "config.yaml").is_file():
        there = ", ".join(sorted(path.name for path in PROFILES.iterdir()))
        raise ParameterError(f"no profile {profile!r}; expected a folder with a config.yaml, or one of {there}")
    return folder


def _command(study: str, layout: StudyLayout, profile: Path, targets: Sequence[str]) -> list[str]:
    resolved = str(Path(study).resolve()) if study.endswith((".yaml", ".yml")) else study
    # --nolock: Snakemake's own lock outlives a killed process and would have to be removed by hand
    options = ["--nolock", "--config", f"study={resolved}", "--workflow-profile", str(profile)]
    jobs = ["--slurm-jobname-prefix", job_prefix(layout.study), "--slurm-logdir", str(layout.root / "slurm_logs")]
    return [sys.executable, "-m", "snakemake", *targets, "--snakefile", str(SNAKEFILE), *options, *jobs]
