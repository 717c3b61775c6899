"""Command line: ``python -m metaseg_nb COMMAND``; ``--help`` names the commands."""

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
    except BrokenPipeError:  # nobody reads on, as after `| head`; what is left to print must not end in an error too
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        print("stopped by Ctrl-C; the same command goes on from what is finished", file=sys.stderr)
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
    parser = argparse.ArgumentParser(prog="python -m metaseg_nb", description=__doc__)
    commands = parser.add_subparsers(required=True)

    study = commands.add_parser("study", help="run what is missing of a whole study")
    study.add_argument("--study", required=True, help="name in params/studies, or path to a YAML file")
    study.add_argument("--profile", default="default", help="folder of workflow/profiles: default (here) or slurm")
    study.add_argument("targets", nargs="*", help="only these and what they need, such as unet or unet_fold0")
    study.set_defaults(command=_study)

    status = commands.add_parser("status", help="print where every network on every fold stands")
    status.add_argument("--study", required=True, help="name in params/studies, or path to a YAML file")
    status.set_defaults(command=_status)

    for name, command, does in (
        ("run", _run, "execute one notebook of a study"),
        ("open", _open, "write a copy of a notebook with a study's parameters, for JupyterLab"),
    ):
        one = commands.add_parser(name, help=does)
        one.add_argument("notebook", help="such as 03_train")
        one.add_argument("--study", required=True, help="name in params/studies, or path to a YAML file")
        one.add_argument("--model", help="name in params/models")
        one.add_argument("--fold", type=int)
        one.add_argument("--arm", default="", help="name in params/arms, for a study of annotation budgets")
        one.add_argument("--seed", type=int, help="instead of the parameter files'")
        one.set_defaults(command=command)

    audit = commands.add_parser(
        "audit", help="look for leakage between datalists; exit code 1 when there is or may be any"
    )
    audit.add_argument("datalists", type=Path, nargs="+", help="all lists that belong together, JSON")
    audit.add_argument("--json", action="store_true", help="print JSON instead of text")
    audit.set_defaults(command=_audit)

    predict = commands.add_parser("predict", help="segment the lesions of an image, or of several cases")
    predict.add_argument(
        "checkpoint",
        type=Path,
        help="best.pt of a run; or, for a new patient, a folder runs/<study>/<model>: the mean of all its folds",
    )
    predict.add_argument(
        "images",
        type=Path,
        nargs="+",
        help="NIfTI, contrast-enhanced T1, all sequences of a case; or a folder of cases, or a datalist (JSON)",
    )
    predict.add_argument("-o", "--output", type=Path, required=True, help="mask to write; of several cases, a folder")
    predict.add_argument("--probability", type=Path, help="probabilities to write; of several cases, a folder")
    predict.set_defaults(command=_predict)

    rank = commands.add_parser("rank", help="put a study's unlabelled patients in the order to annotate them in")
    rank.add_argument("--study", required=True, help="name in params/studies, or path to a YAML file")
    rank.set_defaults(command=_rank)

    rescore = commands.add_parser("rescore", help="score a study's finished runs again, as after adding a metric")
    rescore.add_argument("--study", required=True)
    rescore.set_defaults(command=_rescore)

    score = commands.add_parser("score", help="print all metrics of a prediction as JSON")
    score.add_argument("truth", type=Path)
    score.add_argument("prediction", type=Path)
    values = {"type": _label_values, "metavar": "N", "default": ()}
    score.add_argument("--lesion-values", **values, help="label values that are lesion, such as 1 4 or 1,4; usually 1")
    score.add_argument("--prediction-lesion-values", **values, help="those of the prediction, where they are others")
    score.add_argument("--other-values", **values, help="values of something else, such as oedema: background")
    score.add_argument(
        "--label-threshold", type=_threshold, default=0.0, help="of grey masks: what is brighter is lesion"
    )
    score.set_defaults(command=_score)

    report = commands.add_parser("report", help="make the HTML report of a study")
    report.add_argument("--study", required=True)
    report.add_argument("--notebook", help="only the page of this one, such as 01_explore_data")
    report.set_defaults(command=_report)

    offline = commands.add_parser("itkwidgets-offline", help="fetch itkwidgets' viewer once (120 MB), or switch it off")
    offline.set_defaults(command=_itkwidgets_offline)

    summary = commands.add_parser("summary", help="print a study's leaderboard and where its report is")
    summary.add_argument("--study", required=True)
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


# The imports are inside: each command loads only what it needs, and the first message comes at once.


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
    from metaseg_nb.inference.predict import predict

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
        stream.reconfigure(errors="replace")  # a letter that a terminal cannot show is no error of the input
    # a notebook that is run hears it in its own way; until then nothing has begun, and nothing else is left half-done
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(os.EX_TEMPFAIL))
    sys.exit(main())
