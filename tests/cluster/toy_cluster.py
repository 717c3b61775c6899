"""A real one-node SLURM, and a copy of the project whose parameters tests may change."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import yaml

from metaseg_nb.batch.runs import how_it_ended, outcome_file
from metaseg_nb.layout import PROJECT

TOY = Path(__file__).parent / "toy-slurm"
TINY = Path(__file__).parents[1] / "studies" / "tiny.yaml"


@dataclass(frozen=True)
class Cluster:
    """A running SLURM."""

    folder: Path

    def reboot(self) -> None:
        """Let the node go down with all that runs on it, and come back."""
        subprocess.run([TOY, "reboot", self.folder], check=True)

    def jobs(self) -> list[dict[str, str]]:
        """All jobs that have not ended: id, state, comment (what it runs), name (its driver), limits."""
        fields = {"id": "%i", "state": "%T", "comment": "%k", "name": "%j", "time": "%l", "memory": "%m", "cpus": "%C"}
        lines = subprocess.run(
            ["squeue", "-h", "-o", "|".join(fields.values())], capture_output=True, text=True, check=True
        ).stdout.splitlines()
        jobs = [dict(zip(fields, line.split("|"), strict=True)) for line in lines]
        twice = [
            what for what, n in Counter(job["comment"] for job in jobs if job["state"] != "COMPLETING").items() if n > 1
        ]
        assert not twice, f"in the queue twice: {twice}"
        return jobs


@dataclass
class Workbook:
    """A copy of the project, the folder that it writes to, and the driver of its study on the cluster."""

    project: Path
    home: Path
    profile: Path
    study: str = "tiny"
    driver: subprocess.Popen | None = None

    @classmethod
    def in_folder(cls, folder: Path) -> "Workbook":
        """Workbook of a folder that `new_workbook` made."""
        project = folder / "project"
        return cls(project, folder / "home", project / "workflow/profiles/test")

    @property
    def env(self) -> dict[str, str]:
        return {**os.environ, "METASEG_HOME": str(self.home), "PYTHONPATH": str(self.project)}

    def change(self, file: str, **values) -> None:
        """Set values in a parameter file; None takes one out."""
        path = self.project / "params" / file
        changed = yaml.safe_load(path.read_text()) | values
        path.write_text(yaml.safe_dump({key: value for key, value in changed.items() if value is not None}))

    def once_more(self) -> None:
        """Start what failed once more, not twice."""
        config = self.profile / "config.yaml"
        config.write_text(config.read_text().replace("retries: 2", "retries: 1"))

    def start(self, *targets, profile: str | Path = "") -> None:
        """Start the driver of the study on the cluster, or as another profile says; it is not waited for."""
        options = ["--study", self.study, "--profile", str(profile or self.profile)]
        command = [sys.executable, "-m", "metaseg_nb", "study", *options, *targets]
        with (self.home / "said.txt").open("w") as said:
            self.driver = subprocess.Popen(
                command, env=self.env, cwd=self.project, stdout=said, stderr=said, start_new_session=True
            )

    def kill(self) -> None:
        """Kill the driver and Snakemake."""
        if self.driver and self.driver.poll() is None:
            os.killpg(self.driver.pid, signal.SIGKILL)
            self.driver.wait()

    def said(self) -> str:
        """What the driver that was started last printed."""
        return (self.home / "said.txt").read_text()

    def call(self, *arguments) -> subprocess.CompletedProcess:
        """Run a command to its end."""
        command = [sys.executable, "-m", "metaseg_nb", *map(str, arguments)]
        return subprocess.run(command, env=self.env, cwd=self.project, capture_output=True, text=True)

    def run(self, model: str, fold: int) -> Path:
        """Folder of a run."""
        return self.home / "runs" / self.study / model / f"fold{fold}"

    def table(self, name: str) -> pd.DataFrame:
        """Read a table of the study, but for times, which no two runs share."""
        return pd.read_csv(self.home / "runs" / self.study / name).filter(regex="^(?!.*(seconds|minutes))")

    def in_training(self, cluster: "Cluster", *but: tuple[str, int]) -> tuple[str, int] | None:
        """First run, but for those named, whose job trains and has looked at its selection set since it began."""
        for job in cluster.jobs():
            what = re.fullmatch(r"rule_train_wildcards_(\w+)_(\d+)", job["comment"])
            if job["state"] != "RUNNING" or not what or (which := (what[1], int(what[2]))) in but:
                continue
            run = self.run(*which)
            history, executed = run / "history.csv", run / "03_train.ipynb"
            record = how_it_ended(executed)  # of an earlier job until this one has started its notebook
            began = record and (record["state"], record.get("slurm_job")) == ("running", job["id"])
            if began and history.is_file() and history.stat().st_mtime > outcome_file(executed).stat().st_mtime:
                return which
        return None

    def kill_run(self, model: str, fold: int) -> None:
        """Kill the process that runs a notebook, and the kernel with it."""
        os.kill(int((self.run(model, fold) / ".03_train.lock").read_text().split()[0]), signal.SIGKILL)

    def wait_for(self, happened, seconds=900):
        """Wait, while the driver lives, until something has happened; return it."""
        started = time.monotonic()
        while not (found := happened()):
            assert self.driver.poll() is None, self.said()
            assert time.monotonic() - started < seconds, self.said()
            time.sleep(0.5)
        return found

    def wait_for_end(self, seconds=1800) -> int:
        """Wait until the driver ends; returns its exit code."""
        return self.driver.wait(timeout=seconds)


# As long as no job ends, the executor for SLURM looks 10 s later each time: tests would wait more than they test.
EVERY_2_S = """

import asyncio

from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor

RemoteExecutor.sleep = lambda self: asyncio.sleep(2)
"""


def new_workbook(folder: Path) -> Workbook:
    """Copy the project into a folder; the profile is the project's, but looks at jobs more often and signals later."""
    made = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints")
    for part in ("metaseg_nb", "notebooks", "params", "workflow"):
        shutil.copytree(PROJECT / part, folder / "project" / part, ignore=made)
    shutil.copy(TINY, folder / "project/params/studies")
    profile = folder / "project/workflow/profiles/test"
    text = (PROJECT / "workflow/profiles/slurm/config.yaml").read_text()
    assert text.count("TERM@180") == text.count("retries: 5") == 1
    profile.mkdir()
    quick = text.replace("TERM@180", "TERM@10").replace("retries: 5", "retries: 2")
    (profile / "config.yaml").write_text(f"slurm-init-seconds-before-status-checks: 2\n{quick}")
    with (folder / "project/workflow/snakemake_logger_plugin_events/__init__.py").open("a") as plugin:
        plugin.write(EVERY_2_S)  # the one module of the project that Snakemake imports
    (folder / "home").mkdir()
    return Workbook.in_folder(folder)
