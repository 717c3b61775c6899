"""Snakemake's log as a progress bar, and what failed for good in the end."""

import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from metaseg_nb.batch.run_record import read_record
from metaseg_nb.layout import home

# Lines of Snakemake's log.
STARTED = re.compile(r"^(?:local)?rule (?P<rule>\w+):")
FAILED = re.compile(r"^Error in rule (?P<rule>\w+):")
JOB = re.compile(r"^\s+jobid: (?P<job>\d+)$")
WILDCARDS = re.compile(r"^\s+wildcards: (?P<wildcards>.+)$")
LOGS = re.compile(r"^\s+log: (?P<logs>.*) \(check log file\(s\) for error details\)$")
AGAIN = re.compile(r"^Trying to restart job (?P<job>\d+)\.")
DONE = re.compile(r"^(?P<done>\d+) of (?P<all>\d+) steps")
# Lines of any log that say what went wrong, in words of notebooks, of the command line and of SLURM.
TELLING = re.compile(
    r"failed with|kernel was killed|^(error:|- case|slurmstepd|srun: error|Killed)|oom|No space left|sbatch failed"
)
LAST = 5


@dataclass
class Step:
    """One step of the study: the logs it was last said to have, and how often it was started again."""

    name: str
    failed: bool = False
    logs: list[Path] = field(default_factory=list)
    restarts: int = 0

    def explain(self) -> str:
        """Say why it failed: what its notebook says, the last lines of its other logs, and where they are."""
        words: list[str] = []
        for word in (word for log in self.logs for word in _last_words(log)):
            if not any(said in word for said in words):
                words.append(word)
        places = [f"log: {log.relative_to(home()) if log.is_relative_to(home()) else log}" for log in self.logs]
        restarts = f", also when started again {self.restarts} time(s)" if self.restarts else ""
        return "\n  ".join([f"failed: {self.name}{restarts}", *words, *places])


def follow(lines: Iterable[str]) -> list[Step]:
    """Turn Snakemake's log into a progress bar, pass on what goes wrong, return the steps that failed in the end."""
    steps: dict[str, Step] = {}
    rule, step, fails = "", Step(""), False
    with tqdm(total=None, unit="step", desc="starting", disable=None) as bar:
        for line in lines:
            if match := STARTED.match(line) or FAILED.match(line):
                rule, fails = match["rule"], match.re is FAILED
            elif match := JOB.match(line):
                step = steps.setdefault(match["job"], Step(rule))
                step.failed = fails  # and no longer, once it is started again
                bar.set_description(step.name)
            elif match := WILDCARDS.match(line):
                step.name = f"{rule} {_named(match['wildcards'])}"
                bar.set_description(step.name)
            elif match := LOGS.match(line):
                step.logs = [home() / log for log in match["logs"].split(", ")]
            elif match := AGAIN.match(line):
                step = steps[match["job"]]
                step.restarts += 1
                tqdm.write(f"{step.name} was cut off or failed; it is started again", file=sys.stderr)
            elif match := DONE.match(line):
                bar.total, bar.n = int(match["all"]), int(match["done"])
                bar.refresh()
                if bar.disable:  # no terminal: lines in a log instead of a bar
                    print(line.rstrip(), flush=True)
            elif TELLING.search(line):
                tqdm.write(line.rstrip(), file=sys.stderr)
    return [step for step in steps.values() if step.failed]


def _named(wildcards: str) -> str:
    """Write "model=unet, fold=0" as "unet fold 0"."""
    pairs = (wildcard.split("=", 1) for wildcard in wildcards.split(", "))
    return " ".join(f"{name} {value}" if value.isdigit() else value for name, value in pairs)


def _last_words(log: Path) -> list[str]:
    if log.suffix == ".ipynb":
        record = read_record(log)
        if record is None:
            return ["it never started"]
        return (record["error"] or "it was killed: by hand, by the cluster, or for lack of memory").splitlines()
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.is_file() else []
    return [line for line in lines if TELLING.search(line)][-LAST:] or lines[-LAST:]
