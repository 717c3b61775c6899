"""Command line: ``python -m metaseg_nb COMMAND``; ``--help`` lists the commands.

A command is a function of this module: its docstring is its help, and its parameters are its arguments (`POSITIONAL`,
`OPTIONS`). Imports are inside the functions, so that each command starts at once.
"""

import argparse
import errno
import inspect
import json
import math
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, cast


def main(arguments: list[str] | None = None) -> int:
    """Run one command.

    Problems of the user's input end in one message and exit code 2, those of the machine (disk full, no queue) in 1.
    """
    options = vars(_parser().parse_args(_with_joined_values(sys.argv[1:] if arguments is None else arguments)))
    command = options.pop("command")
    try:
        code = command(**options) or 0
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # nobody reads on, as after `| head`; printing the rest would be a second error
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        print("stopped by Ctrl-C; what is finished stays; run the same command again", file=sys.stderr)
        return 128 + signal.SIGINT  # as of shells
    except (ValueError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:  # also of a queue
        print(f"error: {error}{_advice(error)}", file=sys.stderr)
        return 1


def _advice(error: Exception) -> str:
    """What to do where nothing can be written to the folder of all results."""
    from metaseg_nb.layout import home

    path = Path(getattr(error, "filename", None) or os.devnull)
    if getattr(error, "errno", 0) in {errno.EACCES, errno.EPERM, errno.EROFS} and path.is_relative_to(home()):
        return f". The folder {home()} is not writable: set METASEG_HOME to a folder that you can write to"
    return ""


def study(study: str, profile: str, targets: list[str]) -> int:
    """Run all unfinished steps of a study."""
    from metaseg_nb.batch.study import run_study

    code = run_study(study, profile, targets)
    if not code and not targets:
        summary(study)
    return code


def status(study: str) -> None:
    """Print the state of every notebook, and of every network on every fold."""
    from metaseg_nb.batch.runs import study_status

    table, note = study_status(study)
    aligned = table.apply(lambda column: column.str.ljust(column.str.len().max()))
    lines = aligned.to_string(index=False, justify="left").splitlines()
    print(*map(str.rstrip, lines), *(["", note] if note else []), sep="\n")


def run(name: str, study: str, model: str | None, fold: int | None, arm: str, seed: int | None) -> int:
    """Run one notebook of a study."""
    from metaseg_nb.batch.runner import NotebookEnded, run_notebook
    from metaseg_nb.batch.runs import Run

    try:
        print(run_notebook(Run(name, study, model, fold, arm, seed)))
    except NotebookEnded as ended:
        print(f"{name}: {ended}", file=sys.stderr)
        return ended.code
    return 0


def open_(name: str, study: str, model: str | None, fold: int | None, arm: str, seed: int | None) -> None:
    """Write a copy of a notebook with a study's parameters, for JupyterLab."""
    from metaseg_nb.batch.runner import open_notebook
    from metaseg_nb.batch.runs import Run

    print(open_notebook(Run(name, study, model, fold, arm, seed)))


def audit(datalists: list[Path], json: bool) -> int:
    """Check datalists for leakage; exit code 1 if leakage is found or possible."""
    from metaseg_nb.cohort.audit import audit
    from metaseg_nb.cohort.problems import CohortError

    found = audit(datalists)
    if found.unread:
        raise CohortError(found.unread)
    print(found.as_json() if json else found.as_text())
    return int(not found.clean)


def predict(
    checkpoint: Path, images: list[Path], output: Path, probability: Path | None, brain: Path | None, seg: bool
) -> None:
    """Segment the lesions of one image or of several cases."""
    from metaseg_nb.inference.predict import predict
    from metaseg_nb.radiotherapy.dicom_folder import is_dicom

    if is_dicom(images[0]):
        if brain:
            raise ValueError("found --brain with DICOM images; expected NIfTI, on whose grid the mask lies")
        from metaseg_nb.radiotherapy.exporting import predict_dicom

        lines = predict_dicom(checkpoint, images, output, probability, seg)
    elif seg:
        raise ValueError("found --seg with images that are not DICOM; expected a folder with one DICOM series")
    else:
        lines = predict(checkpoint, images, output, probability, brain)
    for line in lines:
        print(line, flush=True)


def dicom(folder: Path) -> None:
    """List patients (coded), series, structure sets and names of regions below a folder."""
    from metaseg_nb.radiotherapy.dicom_folder import describe_dicom, read_dicom

    found = read_dicom(folder)
    if not (folder.is_dir() and (found.patients or found.unread)):
        expected = "expected MR series and structure sets (unpack archives first)"
        raise ValueError(f"folder {folder}: found no such folder, or no DICOM file in it; {expected}")
    print(describe_dicom(found))


def export(study: str, model: str | None, reader: str | None, seg: bool) -> int:
    """Write predictions or masks drawn by hand of a study's DICOM cases as structure sets; exit code 1 if one fails."""
    from metaseg_nb.radiotherapy.exporting import export_study

    code = 0
    for line, done in export_study(study, model, reader, seg):
        print(line, flush=True)
        code |= not done
    return code


def rank(study: str) -> None:
    """List unlabelled patients in the order in which to annotate them."""
    from metaseg_nb.annotation.ranking import next_patients
    from metaseg_nb.machine import device

    print(next_patients(study, device()).round(2).to_string())


def rescore(study: str) -> None:
    """Score finished runs again, for example after adding a metric."""
    from metaseg_nb.evaluation.scoring import rescore
    from metaseg_nb.parameters import resolve

    name = resolve("04_cross_validation", study)["study"]
    print("scored again:", ", ".join(rescore(name)), "\nnow run 04_cross_validation")


def score(
    truth: Path,
    prediction: Path,
    lesion_values: tuple[int, ...],
    prediction_lesion_values: tuple[int, ...],
    other_values: tuple[int, ...],
    label_threshold: float,
) -> None:
    """Print all metrics of one prediction as JSON."""
    from metaseg_nb.cohort.cases import LesionRule
    from metaseg_nb.evaluation.scoring import score_files

    if label_threshold and (lesion_values or prediction_lesion_values or other_values):
        raise ValueError("--label-threshold makes all above it lesion: give it without values of lesions or others")
    values = lesion_values or LesionRule().values
    if both := set(values) & set(other_values):
        raise ValueError(f"label values {sorted(both)} are given as lesion and as other: give each in one option")
    of_both_masks = values, prediction_lesion_values or values
    rules = [LesionRule(lesion, other_values, label_threshold) for lesion in of_both_masks]
    print(json.dumps(score_files(truth, prediction, *rules), indent=1))


def report(study: str, notebook: str | None) -> None:
    """Make the HTML report of a study."""
    from metaseg_nb.report.build import write_page, write_report

    print(write_page(study, notebook) if notebook else write_report(study))


def itkwidgets_offline() -> None:
    """Fetch the files of itkwidgets' viewer (120 MB); without internet, switch it off."""
    from metaseg_nb.viewer.viewers import place_viewer

    print(place_viewer())


def summary(study: str) -> None:
    """Print the leaderboard of a study and where its report is."""
    from metaseg_nb.evaluation.comparison import summary

    print(summary(study))


def _label_values(text: str) -> tuple[int, ...]:
    values = text.strip(",").split(",")
    if not all(value.isdecimal() and int(value) > 0 for value in values):
        raise argparse.ArgumentTypeError(f"found {text!r}; expected whole numbers above 0, such as 1,4")
    return tuple(map(int, values))


def _with_joined_values(arguments: list[str]) -> list[str]:
    """Join the numbers after an option of label values by commas: a path may follow them."""
    joined = []
    for argument in arguments:
        if argument.isdecimal() and len(joined) > 1 and joined[-2].endswith("-values"):
            joined[-1] += f",{argument}"
        else:
            joined.append(argument)
    return joined


def _threshold(text: str) -> float:
    with suppress(ValueError):
        if 0 <= float(text) < math.inf:
            return float(text)
    raise argparse.ArgumentTypeError(f"found {text!r}; expected a number from 0 on, such as 0.5")


COMMANDS = (
    *(study, status, run, open_, audit, predict, dicom, export, rank, rescore, score, report),
    *(itkwidgets_offline, summary),
)
# Arguments of the commands, by the parameter's name.
POSITIONAL: dict[str, dict[str, Any]] = {
    "targets": {"nargs": "*", "help": "networks or folds to run, with what they need, such as unet or unet_fold0"},
    "name": {"metavar": "notebook", "help": "name of the notebook, such as 03_train"},
    "datalists": {"type": Path, "nargs": "+", "help": "all datalists (JSON) that belong together"},
    "checkpoint": {
        "type": Path,
        "help": "best.pt of one run; or, for new patients, a folder runs/<study>/<model> (mean of all folds)",
    },
    "images": {
        "type": Path,
        "nargs": "+",
        "help": "NIfTI files of one case (contrast-enhanced T1 first, - for a missing sequence); or a folder of "
        "NIfTI files, or of one DICOM series; or a datalist (JSON)",
    },
    "folder": {"type": Path, "help": "folder with DICOM files, also in subfolders"},
    "truth": {"type": Path, "help": "reference mask (NIfTI)"},
    "prediction": {"type": Path, "help": "predicted mask (NIfTI)"},
}
VALUES = {"type": _label_values, "metavar": "N", "default": ()}
OPTIONS: dict[str, dict[str, Any]] = {
    "study": {"required": True, "help": "name in params/studies, or path to a YAML file"},
    "profile": {"default": "default", "help": "folder in workflow/profiles: default (this machine) or slurm"},
    "model": {"help": "name in params/models"},
    "reader": {"help": "code of the person who drew masks in notebook 08, such as R1"},
    "fold": {"type": int, "help": "fold to test on, from 0"},
    "arm": {"default": "", "help": "name in params/arms, for a study of annotation budgets"},
    "seed": {"type": int, "help": "seed to use instead of the one in the parameter files"},
    "json": {"action": "store_true", "help": "print JSON instead of text"},
    "output": {"type": Path, "required": True, "help": "file to write the mask to; for several cases, a folder"},
    "probability": {"type": Path, "help": "file to write the probabilities to; for several cases, a folder"},
    "brain": {"type": Path, "help": "mask of the brain of the case (NIfTI), for networks of `brain: file`"},
    "seg": {"action": "store_true", "help": "write a DICOM segmentation (SEG) instead of a structure set"},
    "lesion_values": {**VALUES, "help": "label values that are lesion, such as 1 4 or 1,4; default 1"},
    "prediction_lesion_values": {**VALUES, "help": "label values that are lesion in the prediction, if they differ"},
    "other_values": {**VALUES, "help": "label values of something else, such as oedema; they count as background"},
    "label_threshold": {"type": _threshold, "default": 0.0, "help": "for grey masks: voxels above it are lesion"},
    "notebook": {"help": "make only the page of this notebook, such as 01_explore_data"},
}
SHORT = {"output": "-o"}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m metaseg_nb",
        description="Brain metastasis segmentation: run studies and notebooks, predict, score.",
    )
    commands = parser.add_subparsers(required=True)
    for command in COMMANDS:
        one = commands.add_parser(command.__name__.strip("_").replace("_", "-"), help=command.__doc__)
        one.set_defaults(command=command)
        for name in inspect.signature(command).parameters:
            if name in POSITIONAL:
                one.add_argument(name, **POSITIONAL[name])
            else:
                flags = [SHORT.get(name), f"--{name.replace('_', '-')}"]
                one.add_argument(*filter(None, flags), **OPTIONS[name])
    return parser


if __name__ == "__main__":
    os.environ["PYTHONUTF8"] = "1"  # kernels and jobs read and write UTF-8, whatever the locale
    for stream in (sys.stdout, sys.stderr):
        cast(Any, stream).reconfigure(errors="replace")  # a letter that the terminal cannot show is not an error
    # a notebook that is run hears it in its own way; until then nothing has begun, and nothing else is left half-done
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(os.EX_TEMPFAIL))
    sys.exit(main())
