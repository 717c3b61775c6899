"""Run a whole study through Snakemake, with one progress bar, and go on where an earlier run stopped."""

import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO

from tqdm import tqdm

from metaseg_nb.files import alone
from metaseg_nb.layout import PROJECT, StudyLayout, home
from metaseg_nb.settings import resolve

PROFILE = PROJECT / "workflow" / "profiles" / "default"
SNAKEFILE = PROJECT / "workflow" / "Snakefile"
# Lines of Snakemake's log.
DONE = re.compile(r"^(\d+) of (\d+) steps")
STARTED = re.compile(r"^(?:local)?rule (\w+):")
WILDCARDS = re.compile(r"^\s+wildcards: (.*)$")
FAILED = re.compile(r"^Error in rule (\w+)")


def run_study(study: str) -> int:
    """Run what is missing of a study.

    Parameters
    ----------
    study : str
        Name in ``params/studies``, or path to a YAML file.

    Returns
    -------
    int
        Exit code of Snakemake: 0 when the study is complete.
    """
    layout = StudyLayout(resolve("01_explore_data", study)["study"])
    log = layout.root / "snakemake.log"
    with alone(layout.root / ".study.lock") as lock, log.open("w") as record:
        process = subprocess.Popen(
            _command(study),
            cwd=home(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            pass_fds=[lock.fileno()],  # the lock lives as long as Snakemake does, should this process be killed
        )
        signal.signal(signal.SIGTERM, lambda *_: process.terminate())
        failed = _follow(process, record)
        code = process.wait()
    for job in failed:
        print(f"failed: {job}", file=sys.stderr)
    if code:
        print(f"the study is not complete; see {log.relative_to(home())}, then start it again", file=sys.stderr)
    return code


def _command(study: str) -> list[str]:
    resolved = str(Path(study).resolve()) if study.endswith((".yaml", ".yml")) else study
    # --nolock: Snakemake's own lock outlives a killed process and would have to be removed by hand
    options = ["--nolock", "--config", f"study={resolved}", "--workflow-profile", str(PROFILE)]
    return [sys.executable, "-m", "snakemake", "--snakefile", str(SNAKEFILE), *options]


def _follow(process: subprocess.Popen, record: IO[str]) -> list[str]:
    """Turn Snakemake's log into a progress bar, pass on what notebooks say went wrong, return the failed rules."""
    failed, job = [], ""
    with tqdm(total=None, unit="step", desc="starting", disable=None) as bar:
        for line in process.stdout:
            record.write(line)
            record.flush()
            if match := STARTED.match(line):
                job = match[1]
                bar.set_description(job)
            elif match := WILDCARDS.match(line):
                bar.set_description(f"{job} {match[1]}")
            elif match := DONE.match(line):
                bar.total, bar.n = int(match[2]), int(match[1])
                bar.refresh()
                if bar.disable:  # no terminal: lines in a log instead of a bar
                    print(line.rstrip(), flush=True)
            elif match := FAILED.match(line):
                failed.append(match[1])
            elif "failed with" in line or line.startswith(("error:", "- case")):
                tqdm.write(line.rstrip(), file=sys.stderr)
    return failed
