"""Run a whole study through Snakemake, here or on a cluster, and go on where an earlier run stopped."""

import hashlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from textwrap import shorten
from typing import IO

from tqdm import tqdm

from metaseg_nb.batch.runs import QueueError, Run, ask_slurm, how_it_ended, job_prefix, planned_runs, queued_jobs
from metaseg_nb.checksums import read_record
from metaseg_nb.files import DamagedFile, write_json
from metaseg_nb.layout import NOTEBOOKS, PROJECT, StudyLayout, home
from metaseg_nb.machine import alone, name_holder
from metaseg_nb.parameters import job_resources
from metaseg_nb.settings import ParameterError, differences, in_words

PROFILES = PROJECT / "workflow" / "profiles"
SNAKEFILE = PROJECT / "workflow" / "Snakefile"
LOOK_EVERY_S = 0.2
# Letters of paths that the shells between SLURM and a job hand on as they are.
PLAIN_PATH = re.compile(r"[\w/.+~:=@-]*")
# Seconds in which cancelled jobs, which may save first, must be gone.
PATIENCE = 600
# Lines of a job's log that say why it ended, in words of the command line and of SLURM.
REASON = re.compile(r"failed with|kernel was killed|^error:|slurmstepd|srun: error|^Killed|oom|No space left")
KILLED = "it was killed: by hand, by the cluster, or for lack of memory"
_one_line = partial(shorten, width=600, placeholder=" …")


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
        Exit code of Snakemake: 0 when all that was asked for is finished.

    Raises
    ------
    ParameterError
        A parameter of a run or of a job, or the profile, cannot be used; or a run was finished with other settings.
    DamagedFile
        The metrics.json of a finished run is not as it was written.
    QueueError
        The cluster does not answer.
    """
    folder, on_slurm = _profile(profile)
    runs = planned_runs(study)  # what cannot be run is an error before anything starts
    for run in runs:
        job_resources(study, run.model)
    refuse_retraining(runs, targets)
    layout = runs[0].layout
    print(f"study {layout.study}: looking for unfinished steps", flush=True)
    log, events = layout.root / "snakemake.log", layout.root / "snakemake_events.jsonl"
    with alone(layout.root / ".study.lock") as lock:
        if on_slurm:
            refuse_strange_paths([PROJECT, home(), Path(anywhere(study))])
            layout.slurm_logs.mkdir(exist_ok=True)
            cancel_leftovers(layout.study)
        write_json(layout.workflow_settings, {"study": anywhere(study)})
        shutil.copytree(folder, layout.workflow_profile, dirs_exist_ok=True)
        events.write_bytes(b"")
        plugin = os.pathsep.join(filter(None, [str(SNAKEFILE.parent), os.environ.get("PYTHONPATH")]))
        # should this process be killed, Snakemake goes on: it needs no pipe, and the lock lives as long as it does
        with log.open("w", encoding="utf-8") as record:
            process = subprocess.Popen(
                _command(StudyLayout(layout.study, Path()), targets),
                cwd=home(),
                env=os.environ | {"METASEG_EVENTS": str(events), "PYTHONPATH": plugin},
                stdout=record,
                stderr=subprocess.STDOUT,
                pass_fds=[lock.fileno()],
            )
        name_holder(lock, process.pid)
        asked: list[str] = []

        def stop(number: int, _) -> None:
            asked.append("Ctrl-C" if number == signal.SIGINT else "SIGTERM")
            if number == signal.SIGTERM:  # Ctrl-C reaches Snakemake without us, and its jobs
                print("stopping: running steps are finished, no other step starts", file=sys.stderr)
                process.terminate()

        signal.signal(signal.SIGTERM, stop)
        signal.signal(signal.SIGINT, stop)
        with events.open(encoding="utf-8") as written:
            failed, errors = follow_log(_lines(written, process), asked)
        code = process.wait()
    again = f"python -m metaseg_nb study --study {shlex.quote(study)}"
    if code and asked:
        print(f"stopped by {asked[0]}; to continue: {again}", file=sys.stderr)
    elif code:
        for step in failed:
            step.logs = step.logs or [log]  # the report has no log of its own
        where = f"log: {log.relative_to(home())}"
        print(f"the study is not complete ({where}); remove the cause, then continue with: {again}", file=sys.stderr)
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        other = f"error: {_one_line([*errors, *lines[-1:], 'the reason is not known'][0])}"
        print("\n".join([step.explain() for step in failed] or [other]), file=sys.stderr)
    return code


def refuse_retraining(runs: Sequence[Run], targets: Sequence[str] = ()) -> None:
    """Refuse to train again what was finished with other settings.

    Snakemake would take away the metrics.json of such a run, and 03 would set it aside as one that was interrupted.

    Raises
    ------
    ParameterError
        Names each such run that ``targets`` ask for, what differs, and what to do.
    DamagedFile
        A metrics.json is not as it was written.
    """
    # other targets, such as an arm or the report, ask for several networks
    trainings = {run.result: {run.model, f"{run.model}_fold{run.fold}"} for run in runs if run.model}
    some = targets and {*targets} <= set().union(*trainings.values())
    lines = []
    for run in runs:
        if run.result not in trainings or not run.result.is_file() or (some and not trainings[run.result] & {*targets}):
            continue
        then = {"settings": read_record(run.result)["settings"]}
        if differing := differences(then, {"settings": run.parameters}):
            lines.append(f"- {run.name}, fold {run.fold}: {in_words(differing)} ({run.result.relative_to(home())})")
    if lines:
        found = f"{len(lines)} finished run(s) with other settings; expected the settings then:"
        fix = "What to do: give the study another name; or, to train a run again, rename or delete its folder yourself."
        raise ParameterError("\n".join([found, *lines, fix]))


def started_as(layout: StudyLayout) -> str | None:
    """The study as `run_study` was last given it, a name or the path of its file; None where it never was.

    Raises
    ------
    DamagedFile
        What `run_study` wrote about it is not as it was written.
    """
    try:
        return str(json.loads(layout.workflow_settings.read_bytes())["study"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedFile(layout.workflow_settings, "no JSON that names the study") from error


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
    ask_slurm("scancel", *ids)
    for _ in range(PATIENCE):
        if not queued_jobs(study):
            return
        time.sleep(1)
    raise QueueError(f"job(s) {', '.join(ids)} could not be stopped; see `squeue --me`, then start again")


def _lines(written: IO[str], process: subprocess.Popen) -> Iterator[str]:
    """Lines that a process writes into a file, as they come."""
    rest, ended = "", False
    while not ended:
        time.sleep(LOOK_EVERY_S)
        ended = process.poll() is not None
        *lines, rest = (rest + written.read()).split("\n")
        yield from lines


@dataclass
class Step:
    """One step of a study as Snakemake runs it: its name, its logs, how often it started, and whether it failed."""

    name: str
    logs: list[Path] = field(default_factory=list)
    starts: int = 0
    failed: bool = False

    def explain(self) -> str:
        """Where its logs are; and in the last line why it failed, as the notebook's record or the cluster says."""
        reasons = []
        for log in self.logs:
            record = how_it_ended(log) if log.suffix == ".ipynb" else None
            if record and record["error"]:
                reasons = [record["error"]]
                break
            if log.suffix == ".ipynb":
                reasons.append(KILLED if record else "it never started")
            elif log.is_file():
                lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
                reasons += dict.fromkeys([line for line in lines if REASON.search(line)] or lines[-1:])
        logs = [f"log: {log.relative_to(home()) if log.is_relative_to(home()) else log}" for log in self.logs]
        again = f" ({self.starts} times)" if self.starts > 1 else ""
        return "\n".join([*logs, f"{self.name} failed{again}: {_one_line('; '.join(reasons))}"])


def follow_log(lines: Iterable[str], asked_to_stop: Sequence[str] = ()) -> tuple[list[Step], list[str]]:
    """Show the events of the logger plugin: lines, and in a terminal a progress bar.

    Once ``asked_to_stop`` holds something, steps that end are no news.

    Returns
    -------
    failed : list of Step
        Steps that failed in the end.
    errors : list of str
        Snakemake's own errors, such as that a job could not be sent to the cluster.
    """
    steps: dict[int, Step] = {}
    errors: list[str] = []
    with tqdm(unit="step", disable=None) as bar:
        for event in map(json.loads, lines):
            news, job = "", event.get("jobid")
            match event.get("event"):
                case "job_info":
                    step = steps.setdefault(job, Step(_name(event)))
                    news = f"{step.name} {'was interrupted or failed; it starts again' if step.failed else 'starts'}"
                    step.starts, step.failed = step.starts + 1, False
                case "job_error":
                    steps[job].logs, steps[job].failed = [home() / log for log in event["log"]], True
                    news = "" if asked_to_stop else f"{steps[job].name} failed"
                case "progress":
                    bar.total, bar.n = event["total"], event["done"]
                    bar.refresh()
                    news = f"{bar.n} of {bar.total} steps done" if bar.disable else ""
                case "error" | None:
                    errors.append(event["error"])
                    news = _one_line(event["error"])
            if news:
                tqdm.write(news, file=sys.stderr)
    return [step for step in steps.values() if step.failed], errors


def _name(event: dict) -> str:
    """Notebook, network and fold of a step: "03_train unet fold 0"; the rule's name where it runs no notebook."""
    notebook = next((Path(log).stem for log in event["log"] if log.endswith(".ipynb")), event["rule_name"])
    which = event["wildcards"].items()
    return " ".join([notebook, *(f"{name} {value}" if value.isdigit() else value for name, value in which)])


def _profile(profile: str) -> tuple[Path, bool]:
    """Folder of a profile, and whether it sends jobs to SLURM."""
    folder = PROFILES / profile if (PROFILES / profile).is_dir() else Path(profile).resolve()
    file = folder / "config.yaml"
    if not file.is_file():
        names = ", ".join(sorted(path.name for path in PROFILES.iterdir()))
        raise ParameterError(f"no profile {profile!r}; expected a folder with a config.yaml, or one of {names}")
    return folder, bool(re.search(r"^executor: *slurm\b", file.read_text(encoding="utf-8"), re.MULTILINE))


def anywhere(study: str) -> str:
    """A study's name, or the path of its file from whatever folder it is read."""
    return str(Path(study).resolve()) if study.endswith((".yaml", ".yml")) else study


def _command(layout: StudyLayout, targets: Sequence[str]) -> list[str]:
    """Snakemake's command; ``layout`` starts in the folder that Snakemake works in.

    Its settings and profile are files in that folder: on its command line 007 would be a number, and ? in the path of
    a profile a pattern. Its own lock (``--nolock``) outlives a killed process and would have to be removed by hand.
    """
    snakemake = [sys.executable, "-m", "snakemake", *targets, "--snakefile", str(SNAKEFILE)]
    files = ["--configfile", str(layout.workflow_settings), "--workflow-profile", str(layout.workflow_profile)]
    jobs = ["--slurm-jobname-prefix", job_prefix(layout.study), "--slurm-logdir", str(layout.slurm_logs)]
    return [*snakemake, "--nolock", "--logger", "events", *files, *jobs]


def code_hash(notebook: str) -> str:
    """Twelve hexadecimal digits that change with a notebook's code.

    Its words, outputs and parameters cell take no part: what stands in that is resolved with the parameter files.
    """
    cells = json.loads((NOTEBOOKS / f"{notebook}.ipynb").read_bytes())["cells"]
    code = [
        "".join(cell["source"]).strip()
        for cell in cells
        if cell["cell_type"] == "code" and "parameters" not in cell["metadata"].get("tags", [])
    ]
    return hashlib.sha256(json.dumps([cell for cell in code if cell]).encode()).hexdigest()[:12]
