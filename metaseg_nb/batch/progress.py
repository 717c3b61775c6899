"""Snakemake's events as a progress bar, and why a step failed for good."""

import json
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from metaseg_nb.batch.run_record import read_record
from metaseg_nb.layout import home

# Lines of a job's log that say why it ended, in words of the command line and of SLURM.
REASON = re.compile(r"failed with|kernel was killed|^error:|slurmstepd|srun: error|^Killed|oom|No space left")
LONGEST = 600


@dataclass
class Step:
    """One step of the study: its name, its logs, whether it failed, and how often it was started again."""

    name: str
    logs: list[Path] = field(default_factory=list)
    failed: bool = False
    restarts: int = 0

    def explain(self) -> str:
        """Where its logs are, and in the last line why it failed."""
        logs = [f"log: {log.relative_to(home()) if log.is_relative_to(home()) else log}" for log in self.logs]
        again = f" ({self.restarts + 1} times)" if self.restarts else ""
        return "\n".join([*logs, f"{self.name} failed{again}: {_one_line(self._reason())}"])

    def _reason(self) -> str:
        """What the record of the notebook says; where it was killed, what the cluster's log says besides."""
        records = [read_record(log) for log in self.logs if log.suffix == ".ipynb"]
        if errors := [record["error"] for record in records if record and record["error"]]:
            return errors[0]
        killed = "it was killed: by hand, by the cluster, or for lack of memory"
        notebook = [killed if record else "it never started" for record in records]
        return "; ".join([*notebook, *(line for log in self.logs if log.suffix != ".ipynb" for line in _lines(log))])


@dataclass
class Followed:
    """What came of a study's steps: those that failed in the end, and Snakemake's own errors."""

    failed: list[Step]
    errors: list[str]


def follow(lines: Iterable[str], asked_to_stop: Sequence[str] = ()) -> Followed:
    """Show the events of the logger plugin as a progress bar, or as lines where there is no terminal.

    Once ``asked_to_stop`` holds something, steps that end are no news.
    """
    steps: dict[int, Step] = {}
    running: dict[int, Step] = {}
    errors: list[str] = []
    with tqdm(total=None, unit="step", desc="starting", disable=None) as bar:
        for event in map(json.loads, lines):
            job = event.get("jobid", event.get("job_id"))
            match event.get("event"):
                case "run_info":
                    bar.total = event["stats"]["total"]
                case "job_info":
                    step = running[job] = steps.setdefault(job, Step(_name(event), _logs(event)))
                    if step.failed:
                        step.failed, step.restarts = False, step.restarts + 1
                        tqdm.write(f"{step.name} was cut off or failed; it is started again", file=sys.stderr)
                    if bar.disable:
                        print(f"{step.name} starts", flush=True)
                case "job_finished":
                    running.pop(job, None)
                case "job_error":
                    running.pop(job, None)
                    steps[job].failed, steps[job].logs = True, _logs(event)
                    if not asked_to_stop:
                        tqdm.write(f"{steps[job].name} failed", file=sys.stderr)
                case "progress":
                    bar.total, bar.n = event["total"], event["done"]
                    if bar.disable:
                        print(f"{bar.n} of {bar.total} steps done", flush=True)
                case "error":
                    errors.append(event["error"])
                case None:  # such as that a job could not be sent to the cluster
                    errors.append(event["error"])
                    tqdm.write(_one_line(event["error"]), file=sys.stderr)
            bar.set_description(", ".join(step.name for step in running.values()) or "waiting")
    return Followed([step for step in steps.values() if step.failed], errors)


def _name(event: dict) -> str:
    """Notebook, network and fold of a step: "03_train unet fold 0"; the rule's name where it runs no notebook."""
    notebook = next((log.stem for log in _logs(event) if log.suffix == ".ipynb"), event["rule_name"])
    which = event["wildcards"].items()
    return " ".join([notebook, *(f"{name} {value}" if value.isdigit() else value for name, value in which)])


def _logs(event: dict) -> list[Path]:
    return [home() / log for log in event["log"]]


def _lines(log: Path) -> list[str]:
    """Lines of a job's log that say why it ended; else its last one."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.is_file() else []
    return list(dict.fromkeys([line for line in lines if REASON.search(line)] or lines[-1:]))


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= LONGEST else f"{line[:LONGEST]} …"
