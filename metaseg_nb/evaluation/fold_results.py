"""Scores of one run on its test set, and the tables they are kept in."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from metaseg_nb.checksums import FILES, checksum, write_record
from metaseg_nb.cohort.cases import Case, Cohort, LesionRule
from metaseg_nb.cohort.datalist import read_study_cohort
from metaseg_nb.cohort.folds import Split
from metaseg_nb.cohort.labels import read_lesions, read_mask
from metaseg_nb.cohort.lesions import diameter_class
from metaseg_nb.cohort.problems import CohortError
from metaseg_nb.cohort.volumes import Volume
from metaseg_nb.evaluation.calibration import probability_bins
from metaseg_nb.evaluation.detection import detections_by_threshold
from metaseg_nb.evaluation.lesion_metrics import COLUMNS
from metaseg_nb.evaluation.scoring import score
from metaseg_nb.files import write_table
from metaseg_nb.inference.decision import native_probability
from metaseg_nb.layout import RunLayout, StudyLayout
from metaseg_nb.preprocessing.case_store import StoredCase
from metaseg_nb.settings import Train, settings_hash
from metaseg_nb.training.finished_run import finish, read_finished, run_facts


def score_cases(cases: Sequence[Case], predictions: Path, rule: LesionRule) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Score the predicted masks of a test set on each case's own grid.

    Parameters
    ----------
    cases : sequence of Case
    predictions : path
        Folder of ``<case>.nii.gz``.
    rule : LesionRule
        Label values that are lesion.

    Returns
    -------
    metrics : DataFrame
        One row per case: ``case``, ``patient``, ``primary``, ``fold`` and the keys of `score`.
    lesions : DataFrame
        One row per reference lesion, with its case and ``diameter_class``.
    """
    rows, lesions = [], []
    for case in cases:
        truth = read_lesions(case, rule)
        row, found = score_against(case, truth, read_mask(predictions / f"{case.name}.nii.gz", case.name))
        rows.append(row)
        lesions.append(found)
    return pd.DataFrame(rows), pd.concat(lesions, ignore_index=True)


def score_against(case: Case, truth: Volume, prediction: Volume) -> tuple[dict, pd.DataFrame]:
    """Score one case; see `score_cases`."""
    scores = score(truth, prediction, case=case.name)
    lesions = pd.DataFrame(scores.pop("lesions"), columns=COLUMNS)
    for place, (column, value) in enumerate(identity(case).items()):
        lesions.insert(place, column, value)
    lesions["diameter_class"] = diameter_class(lesions["diameter_mm"]).astype(str)
    return identity(case) | scores, lesions


def score_probability(
    case: Case, stored: StoredCase, probability: np.ndarray, rule: LesionRule
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Compare the probabilities of one case with its reference.

    Parameters
    ----------
    case : Case
    stored : StoredCase
        The same case, with its label.
    probability : ndarray, shape ``stored.grid.shape``
        Lesion probability, 0 to 1.
    rule : LesionRule

    Returns
    -------
    detections : DataFrame
        From `detections_by_threshold` on the case's own grid.
    calibration : DataFrame
        From `probability_bins` on the study grid.
        Both tables start with ``case``, ``patient``, ``primary``, ``fold``.

    Raises
    ------
    CohortError
        The probabilities are not finite or not between 0 and 1.
    """
    if not (np.isfinite(probability).all() and probability.min() >= 0 and probability.max() <= 1):
        found = f"probabilities from {np.min(probability)} to {np.max(probability)}"
        fix = "the network diverged: look at its training loss, then train it again"
        raise CohortError.one(case.name, "probability", found, "finite ones from 0 to 1", fix)
    truth = read_lesions(case, rule)
    native = native_probability(probability, stored.grid, stored.native)
    detections = detections_by_threshold(truth.array > 0, native, truth.spacing_mm)
    calibration = probability_bins(probability, stored.label > 0)
    named = (pd.DataFrame([identity(case)] * len(table)).join(table) for table in (detections, calibration))
    return tuple(named)


def rescore(study: str) -> list[str]:
    """Score the test cases of all finished runs of a study again, with the metrics of now; no network predicts.

    Writes each run's ``metrics.csv``, ``lesions.csv`` and ``metrics.json``, and ``metrics_last.csv`` where the masks
    of the last weights are kept. Notebook 04 is then to be run again.

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
    cohort, runs = read_study_cohort(layout), _finished_runs(layout)
    if not runs:
        raise CohortError.one("-", str(layout.root), "no finished run", "one or more", "run 03 first")
    all_facts = [read_finished(run) for run in runs]
    for run, facts in zip(tqdm(runs, desc="scoring again, runs"), all_facts, strict=True):
        test = [case for case in cohort.cases if case.name in facts["cases"]["test"]]
        metrics, lesions = score_cases(test, run.predictions, cohort.rule)
        write_table(run.metrics_table, metrics)
        write_table(run.lesions_table, lesions)
        if all((run.last_predictions / f"{case.name}.nii.gz").is_file() for case in test):
            write_table(run.last_metrics_table, score_cases(test, run.last_predictions, cohort.rule)[0])
        files = [run.root / name for name in facts.pop(FILES)]
        write_record(run.metrics, facts | {"dice_mean": float(metrics["dice"].mean())}, files)
    return [run.root.relative_to(layout.root).as_posix() for run in runs]


def _finished_runs(layout: StudyLayout) -> list[RunLayout]:
    """Runs of the study and of its arms, as they stand on the disk."""
    marks = [*layout.root.glob("*/fold*/metrics.json"), *layout.root.glob("arms/*/seed*/*/fold*/metrics.json")]
    return [RunLayout(mark.parent) for mark in sorted(marks)]


def identity(case: Case) -> dict[str, Any]:
    """The columns by which tables name a case."""
    return {"case": case.name, "patient": case.patient, "primary": case.primary, "fold": case.fold}


def cohort_hash(cohort: Cohort) -> str:
    """Twelve hexadecimal digits that change when a case, its patient or its fold does, or what counts as lesion."""
    cases = {case.name: [case.patient, case.fold] for case in cohort.cases}
    return settings_hash({"cases": cases, "lesions": asdict(cohort.rule)})


def label_checksums(cases: Sequence[Case]) -> dict[str, str]:
    """Checksum of each case's label file; empty where there is none."""
    return {case.name: checksum(case.label) if case.label.is_file() else "" for case in cases}


def scored_with(cohort: Cohort) -> dict[str, Any]:
    """What the scores of a run depend on beside its predictions: the cohort's folds, rule and label files."""
    return {"cohort_hash": cohort_hash(cohort), "labels": label_checksums(cohort.cases)}


def finish_run(
    run: RunLayout,
    settings: Train,
    cohort: Cohort,
    parts: Split,
    history: pd.DataFrame,
    best: Mapping[str, Any],
    parameters: int,
    metrics: pd.DataFrame,
) -> None:
    """Write ``metrics.json``, which marks a run as finished: its result, its settings, and checksums of its files.

    All tables and predictions are written before; later notebooks compare them with these checksums.

    Parameters
    ----------
    run, cohort, parts
        Where, and on what the network was trained and tested.
    settings, history, best, parameters
        See `run_facts`.
    metrics : DataFrame
        From `score_cases`.
    """
    content = {
        **run_facts(settings, history, best, parameters),
        "dice_mean": float(metrics["dice"].mean()),
        "n_test": len(metrics),
        "selection_dice": best["dice"],
        "cases": {part: [case.name for case in getattr(parts, part)] for part in ("training", "selection", "test")},
        **scored_with(cohort),
    }
    masks = [run.predictions / f"{case.name}.nii.gz" for case in parts.test]
    finish(run, content, [*run.tables, *masks])
