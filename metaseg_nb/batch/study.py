"""Run a whole study through Snakemake, here or on a cluster, and go on where an earlier run stopped."""

import hashlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

import yaml

from metaseg_nb.batch.progress import Followed, follow
from metaseg_nb.batch.slurm import cancel_leftovers, job_prefix, refuse_strange_paths
from metaseg_nb.batch.status import planned_runs
from metaseg_nb.files import write_json
from metaseg_nb.layout import NOTEBOOKS, PROJECT, StudyLayout, home
from metaseg_nb.locks import alone, name_holder
from metaseg_nb.parameters import job_resources, resolve
from metaseg_nb.settings import NOTEBOOK_SETTINGS, ParameterError

PROFILES = PROJECT / "workflow" / "profiles"
SNAKEFILE = PROJECT / "workflow" / "Snakefile"
LOOK_EVERY_S = 0.2
STUDY_NOTEBOOKS = [name for name, settings in NOTEBOOK_SETTINGS.items() if "model" not in settings.model_fields]


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
        A parameter of a run or of a job, or the profile, cannot be used.
    QueueError
        The cluster does not answer.
    """
    folder = _profile(profile)
    for notebook in STUDY_NOTEBOOKS:  # what cannot be run is an error before anything starts
        name = resolve(notebook, study)["study"]
    for planned in planned_runs(study):
        planned.parameters(study), job_resources(study, planned.model)
    layout = StudyLayout(name)
    print(f"study {name}: looking for what is to be done", flush=True)
    log = layout.root / "snakemake.log"
    with alone(layout.root / ".study.lock") as lock:
        if _on_slurm(folder):
            refuse_strange_paths([PROJECT, home(), Path(anywhere(study))])
            layout.slurm_logs.mkdir(exist_ok=True)
            cancel_leftovers(name)
        write_json(layout.workflow_settings, {"study": anywhere(study)})
        shutil.copytree(folder, layout.workflow_profile, dirs_exist_ok=True)
        events = layout.root / "snakemake_events.jsonl"
        events.write_bytes(b"")
        # should this process be killed, Snakemake goes on: it needs no pipe, and the lock lives as long as it does
        with log.open("w", encoding="utf-8") as record:
            process = subprocess.Popen(
                _command(StudyLayout(name, Path()), targets),
                cwd=home(),
                env=os.environ | {"METASEG_EVENTS": str(events), "PYTHONPATH": _with_plugin()},
                stdout=record,
                stderr=subprocess.STDOUT,
                pass_fds=[lock.fileno()],
            )
        name_holder(lock, process.pid)
        asked: list[str] = []

        def stop(number: int, _) -> None:
            asked.append("Ctrl-C" if number == signal.SIGINT else "SIGTERM")
            if number == signal.SIGTERM:  # Ctrl-C reaches Snakemake without us, and its jobs
                print("stopping: steps that run are finished first, no other starts", file=sys.stderr)
                process.terminate()

        signal.signal(signal.SIGTERM, stop)
        signal.signal(signal.SIGINT, stop)
        with events.open(encoding="utf-8") as written:
            followed = follow(_lines(written, process), asked)
        code = process.wait()
    if code:
        print("\n".join(_end(study, log, followed, asked)), file=sys.stderr)
    return code


def _end(study: str, log: Path, followed: Followed, asked: Sequence[str]) -> Iterator[str]:
    """Lines that say how a study ended before its end; the last one says why."""
    again = f"python -m metaseg_nb study --study {shlex.quote(study)}"
    if asked:
        yield f"stopped by {asked[0]}; to go on: {again}"
        return
    yield f"the study is not complete (log: {log.relative_to(home())}); when the cause is removed, go on with: {again}"
    yield from [step.explain() for step in followed.failed] or [_last_error(log, followed.errors)]


def _last_error(log: Path, errors: Sequence[str]) -> str:
    """What Snakemake says where none of its steps failed: its first error, or else its last line."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return f"error: {' '.join([*errors, *lines[-1:], 'no reason is known'][0].split())}"


def _with_plugin() -> str:
    """Where Python finds the logger plugin, before all that it finds now."""
    return os.pathsep.join(filter(None, [str(SNAKEFILE.parent), os.environ.get("PYTHONPATH")]))


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
        names = ", ".join(sorted(path.name for path in PROFILES.iterdir()))
        raise ParameterError(f"no profile {profile!r}; expected a folder with a config.yaml, or one of {names}")
    return folder


def _on_slurm(profile: Path) -> bool:
    try:
        settings = yaml.safe_load((profile / "config.yaml").read_bytes())
    except yaml.YAMLError as error:
        raise ParameterError(f"{profile / 'config.yaml'}: not YAML ({error})") from error
    return isinstance(settings, dict) and settings.get("executor") == "slurm"


def anywhere(study: str) -> str:
    """A study's name, or the path of its file from whatever folder it is read."""
    return str(Path(study).resolve()) if study.endswith((".yaml", ".yml")) else study


def _command(layout: StudyLayout, targets: Sequence[str]) -> list[str]:
    """Snakemake's command; ``layout`` starts in the folder that Snakemake works in.

    Its settings and profile are files in that folder: on its command line 007 would be a number, and ? in the path of
    a profile a pattern. Its own lock (``--nolock``) outlives a killed process and would have to be removed by hand.
    """
    files = ["--configfile", str(layout.workflow_settings), "--workflow-profile", str(layout.workflow_profile)]
    jobs = ["--slurm-jobname-prefix", job_prefix(layout.study), "--slurm-logdir", str(layout.slurm_logs)]
    return [
        sys.executable,
        "-m",
        "snakemake",
        *targets,
        "--snakefile",
        str(SNAKEFILE),
        "--nolock",
        "--logger",
        "events",
        *files,
        *jobs,
    ]


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
