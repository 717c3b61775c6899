"""Finished runs: mark them, read them, and score them again."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import pandas as pd
from tqdm.auto import tqdm

from metaseg_nb.checksums import FILES, checksum, write_record
from metaseg_nb.cohort.cases import Cohort
from metaseg_nb.cohort.datalist import read_study_cohort
from metaseg_nb.cohort.folds import Split
from metaseg_nb.cohort.problems import CohortError, of_each
from metaseg_nb.evaluation.scoring import score_cases
from metaseg_nb.files import write_table
from metaseg_nb.layout import RunLayout, StudyLayout
from metaseg_nb.settings import Train, settings_hash
from metaseg_nb.training.finished_run import finish, read_finished, run_facts


def scored_with(cohort: Cohort) -> dict[str, Any]:
    """What the scores of a run depend on beside its predictions: the cohort's folds, rule and label files.

    Returns
    -------
    dict
        ``cohort_hash``: twelve hexadecimal digits that change when a case, its patient or its fold does, or what
        counts as lesion. ``labels``: checksum of each case's label file, empty where there is none.
    """
    cases = {case.name: [case.patient, case.fold] for case in cohort.labelled}
    labels = {
        case.name: checksum(case.label) if case.label and case.label.is_file() else "" for case in cohort.labelled
    }
    return {"cohort_hash": settings_hash({"cases": cases, "lesions": asdict(cohort.rule)}), "labels": labels}


def finish_run(
    run: RunLayout,
    settings: Train,
    cohort: Cohort,
    parts: Split,
    history: pd.DataFrame,
    best: Mapping[str, Any],
    parameters: int,
    unlikeness: Mapping[str, float] | None = None,
) -> None:
    """Write ``metrics.json``, which marks a run as finished: its settings, its cases, and checksums of its files.

    All tables and predictions are written before; later notebooks compare them with these checksums.

    Parameters
    ----------
    run, cohort, parts
        Where, and on what the network was trained and tested.
    settings, history, best, parameters
        See `run_facts`.
    unlikeness : mapping of str to float, optional
        How far each test case lies from the training cases (`metaseg_nb.inference.unlikeness`).
    """
    content = {
        **run_facts(settings, history, best, parameters),
        "selection_dice": best["dice"],
        "unlikeness": dict(unlikeness or {}),
        "operating_point": settings.operating_point,
        "cases": {part: [case.name for case in getattr(parts, part)] for part in ("training", "selection", "test")},
        **scored_with(cohort),
    }
    masks = [run.predictions / f"{case.name}.nii.gz" for case in parts.test]
    follow_ups = [run.earlier_table] if run.earlier_table.is_file() else []
    finish(run, content, [*run.tables, *masks, *follow_ups])


def rescore(study: str) -> list[str]:
    """Score the test cases of all finished runs of a study again, with the metrics of now; no network predicts.

    Writes each run's ``metrics.csv``, ``lesions.csv`` and ``metrics.json``, and ``metrics_other.csv`` where the masks
    of the weights that were not kept are there, or where these are the same weights. ``earlier.csv``, whose masks are
    not kept, stays as it was. Notebook 04 is then to be run again.

    Parameters
    ----------
    study : str
        Its name: the folder under ``runs/``.

    Returns
    -------
    list of str
        The runs, such as ``unet/fold0``.

    Raises
    ------
    CohortError
        No run is finished, or what a run wrote is lost or has changed.
    """
    layout = StudyLayout(study)
    cohort = read_study_cohort(layout)
    marks = [*layout.root.glob("*/fold*/metrics.json"), *layout.root.glob("arms/*/seed*/*/fold*/metrics.json")]
    runs = [RunLayout(mark.parent) for mark in sorted(marks)]
    if not runs:
        raise CohortError.one("-", str(layout.root), "no finished run", "one or more", "run 03 first")
    all_facts = read_all({run: run for run in runs})
    for run, facts in tqdm(all_facts.items(), desc="scoring runs again"):
        test = [case for case in cohort.cases if case.name in facts["cases"]["test"]]
        metrics, lesions = score_cases(test, run.predictions, cohort.rule)
        write_table(run.metrics_table, metrics)
        write_table(run.lesions_table, lesions)
        masks = run.other_predictions / facts.get("operating_point", "")
        if facts["best_epoch"] == facts.get("other_epoch"):
            write_table(run.other_metrics_table, metrics)
        elif all((masks / f"{case.name}.nii.gz").is_file() for case in test):
            write_table(run.other_metrics_table, score_cases(test, masks, cohort.rule)[0])
        files = [run.root / name for name in facts.pop(FILES)]
        facts.pop("dice_mean", None)  # earlier versions kept it
        write_record(run.metrics, facts, files)
    return [run.root.relative_to(layout.root).as_posix() for run in runs]


def read_all(runs: Mapping[Any, RunLayout]) -> dict[Any, dict[str, Any]]:
    """Read ``metrics.json`` of runs by their names; a CohortError holds all problems of `read_finished`."""
    return dict(zip(runs, of_each(read_finished, runs.values()), strict=True))
