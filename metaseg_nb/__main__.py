"""Command line: ``python -m metaseg_nb COMMAND``; ``--help`` lists the commands."""

import argparse
import errno
import json
import math
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

# Exit code after Ctrl-C, as of shells: 128 and the signal's number.
INTERRUPTED = 128 + signal.SIGINT


def main(arguments: list[str] | None = None) -> int:
    """Run one command.

    Problems of the user's input end in one message and exit code 2, those of the machine (no room, no queue) in 1.
    """
    from metaseg_nb.batch.slurm import QueueError

    options = _parser().parse_args(_with_joined_values(sys.argv[1:] if arguments is None else arguments))
    try:
        code = options.command(options) or 0
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # nobody reads on, as after `| head`; printing the rest would be a second error
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        print("stopped by Ctrl-C; run the same command again to continue", file=sys.stderr)
        return INTERRUPTED
    except (ValueError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (QueueError, OSError) as error:
        print(f"error: {error}{_advice(error)}", file=sys.stderr)
        return 1


def _advice(error: Exception) -> str:
    """What to do where nothing can be written to the folder of all results."""
    from metaseg_nb.layout import home

    path = Path(getattr(error, "filename", None) or os.devnull)
    if getattr(error, "errno", 0) in {errno.EACCES, errno.EPERM, errno.EROFS} and path.is_relative_to(home()):
        return f". {home()} cannot be written to: set METASEG_HOME to a folder of your own"
    return ""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m metaseg_nb",
        description="Brain metastasis segmentation: run studies and notebooks, predict, score.",
    )
    commands = parser.add_subparsers(required=True)

    study = commands.add_parser("study", help="run all unfinished steps of a study")
    study.add_argument("--study", required=True, help="name in params/studies, or path to a YAML file")
    study.add_argument(
        "--profile", default="default", help="folder in workflow/profiles: default (this machine) or slurm"
    )
    study.add_argument("targets", nargs="*", help="run only these and what they need, such as unet or unet_fold0")
    study.set_defaults(command=_study)

    status = commands.add_parser("status", help="print the state of every network on every fold")
    status.add_argument("--study", required=True, help="name in params/studies, or path to a YAML file")
    status.set_defaults(command=_status)

    for name, command, does in (
        ("run", _run, "run one notebook of a study"),
        ("open", _open, "write a copy of a notebook with a study's parameters, for JupyterLab"),
    ):
        one = commands.add_parser(name, help=does)
        one.add_argument("notebook", help="name of the notebook, such as 03_train")
        one.add_argument("--study", required=True, help="name in params/studies, or path to a YAML file")
        one.add_argument("--model", help="name in params/models")
        one.add_argument("--fold", type=int, help="fold to test on, from 0")
        one.add_argument("--arm", default="", help="name in params/arms, for a study of annotation budgets")
        one.add_argument("--seed", type=int, help="seed to use instead of that in the parameter files")
        one.set_defaults(command=command)

    audit = commands.add_parser(
        "audit", help="check datalists for leakage; exit code 1 if leakage is found or possible"
    )
    audit.add_argument("datalists", type=Path, nargs="+", help="all datalists (JSON) that belong together")
    audit.add_argument("--json", action="store_true", help="print JSON instead of text")
    audit.set_defaults(command=_audit)

    predict = commands.add_parser("predict", help="segment the lesions of one image or of several cases")
    predict.add_argument(
        "checkpoint",
        type=Path,
        help="best.pt of a run; or, for new patients, a folder runs/<study>/<model> (mean of all its folds)",
    )
    predict.add_argument(
        "images",
        type=Path,
        nargs="+",
        help="all sequences of one case (NIfTI, contrast-enhanced T1 first); or a folder; or a datalist (JSON)",
    )
    predict.add_argument("-o", "--output", type=Path, required=True, help="mask to write; for several cases, a folder")
    predict.add_argument("--probability", type=Path, help="probabilities to write; for several cases, a folder")
    predict.set_defaults(command=_predict)

    rank = commands.add_parser("rank", help="list unlabelled patients in the order in which to annotate them")
    rank.add_argument("--study", required=True, help="name in params/studies, or path to a YAML file")
    rank.set_defaults(command=_rank)

    rescore = commands.add_parser("rescore", help="score finished runs again, for example after adding a metric")
    rescore.add_argument("--study", required=True, help="name in params/studies, or path to a YAML file")
    rescore.set_defaults(command=_rescore)

    score = commands.add_parser("score", help="print all metrics of one prediction as JSON")
    score.add_argument("truth", type=Path, help="reference mask (NIfTI)")
    score.add_argument("prediction", type=Path, help="predicted mask (NIfTI)")
    values = {"type": _label_values, "metavar": "N", "default": ()}
    score.add_argument("--lesion-values", **values, help="label values that are lesion, such as 1 4 or 1,4; default 1")
    score.add_argument(
        "--prediction-lesion-values", **values, help="the same for the prediction, if it has other values"
    )
    score.add_argument(
        "--other-values", **values, help="label values of something else, such as oedema; they count as background"
    )
    score.add_argument(
        "--label-threshold", type=_threshold, default=0.0, help="for grey masks: brighter voxels are lesion"
    )
    score.set_defaults(command=_score)

    report = commands.add_parser("report", help="make the HTML report of a study")
    report.add_argument("--study", required=True, help="name in params/studies, or path to a YAML file")
    report.add_argument("--notebook", help="make only the page of this notebook, such as 01_explore_data")
    report.set_defaults(command=_report)

    offline = commands.add_parser(
        "itkwidgets-offline", help="fetch the files of itkwidgets' viewer (120 MB); without internet, switch it off"
    )
    offline.set_defaults(command=_itkwidgets_offline)

    summary = commands.add_parser("summary", help="print the leaderboard of a study and the place of its report")
    summary.add_argument("--study", required=True, help="name in params/studies, or path to a YAML file")
    summary.set_defaults(command=_summary)
    return parser


def _with_joined_values(arguments: list[str]) -> list[str]:
    """Join the numbers after an option of label values by commas: a path may follow them."""
    joined = []
    for argument in arguments:
        if argument.isdecimal() and len(joined) > 1 and joined[-2].endswith("-values"):
            joined[-1] += f",{argument}"
        else:
            joined.append(argument)
    return joined


def _label_values(text: str) -> tuple[int, ...]:
    values = text.strip(",").split(",")
    if not all(value.isdecimal() and int(value) > 0 for value in values):
        raise argparse.ArgumentTypeError(f"found {text!r}; expected whole numbers above 0, such as 1,4")
    return tuple(map(int, values))


def _threshold(text: str) -> float:
    with suppress(ValueError):
        if 0 <= float(text) < math.inf:
            return float(text)
    raise argparse.ArgumentTypeError(f"found {text!r}; expected a number from 0 on, such as 0.5")


# Imports are inside the functions, so that each command starts at once.


def _study(options: argparse.Namespace) -> int:
    from metaseg_nb.batch.study import run_study

    return run_study(options.study, options.profile, options.targets) or (0 if options.targets else _summary(options))


def _status(options: argparse.Namespace) -> None:
    from metaseg_nb.batch.status import study_status

    print(study_status(options.study))


def _run(options: argparse.Namespace) -> int:
    from metaseg_nb.batch.runner import NotebookEnded, run_notebook

    try:
        print(run_notebook(*_which(options)))
    except NotebookEnded as ended:
        print(f"{options.notebook}: {ended}", file=sys.stderr)
        return ended.code
    return 0


def _open(options: argparse.Namespace) -> None:
    from metaseg_nb.batch.opening import open_notebook

    print(open_notebook(*_which(options)))


def _which(options: argparse.Namespace) -> tuple:
    return options.notebook, options.study, options.model, options.fold, options.arm, options.seed


def _audit(options: argparse.Namespace) -> int:
    from metaseg_nb.cohort.leakage.audit import audit
    from metaseg_nb.cohort.leakage.split_lists import split_lists
    from metaseg_nb.cohort.problems import CohortError

    lists, problems = split_lists(options.datalists)
    if problems:
        raise CohortError(problems)
    found = audit(lists)
    print(found.as_json() if options.json else found.as_text())
    return int(not found.clean)


def _predict(options: argparse.Namespace) -> None:
    from metaseg_nb.inference.many_cases import predict

    for line in predict(options.checkpoint, options.images, options.output, options.probability):
        print(line, flush=True)


def _rank(options: argparse.Namespace) -> None:
    from metaseg_nb.annotation.ranking import next_patients
    from metaseg_nb.devices import device

    print(next_patients(options.study, device()).round(2).to_string())


def _rescore(options: argparse.Namespace) -> None:
    from metaseg_nb.evaluation.fold_results import rescore
    from metaseg_nb.parameters import resolve

    study = resolve("04_cross_validation", options.study)["study"]
    print("scored again:", ", ".join(rescore(study)), "\nnow run 04_cross_validation")


def _score(options: argparse.Namespace) -> None:
    from metaseg_nb.cohort.cases import LesionRule
    from metaseg_nb.evaluation.scoring import score_files

    def rule(*values: tuple[int, ...]) -> LesionRule:
        named = next((some for some in values if some), LesionRule().values)
        return LesionRule(named, options.other_values, options.label_threshold)

    rules = rule(options.lesion_values), rule(options.prediction_lesion_values, options.lesion_values)
    if both := set(rules[0].values) & set(options.other_values):
        raise ValueError(f"label values {sorted(both)} are lesion and something else: name each in one option")
    print(json.dumps(score_files(options.truth, options.prediction, *rules), indent=1))


def _report(options: argparse.Namespace) -> None:
    from metaseg_nb.report.build import write_page, write_report

    print(write_page(options.study, options.notebook) if options.notebook else write_report(options.study))


def _itkwidgets_offline(options: argparse.Namespace) -> None:
    from metaseg_nb.viewer.itk import place_viewer

    print(place_viewer())


def _summary(options: argparse.Namespace) -> int:
    from metaseg_nb.evaluation.leaderboard import summary

    print(summary(options.study))
    return 0


if __name__ == "__main__":
    os.environ["PYTHONUTF8"] = "1"  # kernels and jobs read and write UTF-8, whatever the locale
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # a letter that the terminal cannot show is not an error
    # a notebook that is run hears it in its own way; until then nothing has begun, and nothing else is left half-done
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(os.EX_TEMPFAIL))
    sys.exit(main())
