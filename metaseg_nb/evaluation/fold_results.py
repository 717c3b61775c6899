"""Scores of one run on its test set, and the tables they are kept in."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from metaseg_nb.checksums import checksum, write_record
from metaseg_nb.cohort.cases import Case, Cohort, LesionRule
from metaseg_nb.cohort.folds import Split
from metaseg_nb.cohort.labels import read_lesions, read_mask
from metaseg_nb.cohort.lesions import diameter_class
from metaseg_nb.cohort.volumes import Volume
from metaseg_nb.evaluation.lesion_metrics import COLUMNS
from metaseg_nb.evaluation.scoring import score
from metaseg_nb.layout import RunLayout
from metaseg_nb.settings import Train, settings_hash
from metaseg_nb.training.finished_run import run_facts


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
    """Write ``metrics.json``, the mark of a finished run: its result, with what it was made, and checksums.

    All tables and the predictions are there already: what is read of them later is compared with their checksums.

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
        "cohort_hash": cohort_hash(cohort),
        "labels": label_checksums(cohort.cases),
    }
    masks = [run.predictions / f"{case.name}.nii.gz" for case in parts.test]
    write_record(run.metrics, content, [*run.tables, *masks])
