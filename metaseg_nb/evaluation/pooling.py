"""All folds of each network, pooled: every case scored once, or an error that names what is missing."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from metaseg_nb.cohort.cases import Cohort
from metaseg_nb.cohort.problems import CohortError, Problem
from metaseg_nb.evaluation.fold_results import cohort_hash
from metaseg_nb.files import read_table
from metaseg_nb.layout import StudyLayout
from metaseg_nb.settings import deciding


@dataclass(frozen=True)
class PooledResults:
    """Every test case of every network.

    ``metrics`` has one row per (``model``, ``case``), ``lesions`` one per
    (``model``, reference lesion), ``runs`` one per (``model``, ``fold``).
    What earlier versions of notebook 03 did not write has no rows for these networks:
    ``metrics_last``, as ``metrics`` by the last epoch's weights; ``detections``, one per
    (``model``, ``case``, threshold); ``calibration``, one per (``model``, ``case``, bin).
    """

    metrics: pd.DataFrame
    lesions: pd.DataFrame
    runs: pd.DataFrame
    metrics_last: pd.DataFrame
    detections: pd.DataFrame
    calibration: pd.DataFrame


def pool(layout: StudyLayout, cohort: Cohort, models: Sequence[str]) -> PooledResults:
    """Read the results of all folds of all networks.

    Raises
    ------
    CohortError
        A run is missing, a case is not scored exactly once or not with finite numbers, a fold was
        trained or its cases preprocessed with other settings than the rest, or on another cohort than
        this; the cohort has no cases, or all of them in one fold.
    """
    if cohort.n_folds < 2:
        found = f"{len(cohort.cases)} labelled cases in {cohort.n_folds} fold(s)"
        fix = "run 01 on labelled cases with n_folds of 2 or more"
        raise CohortError.one(cohort.name, layout.dataset.name, found, "cases in two folds or more", fix)
    problems = [problem for model in models for problem in _missing(layout, cohort, model)]
    if problems:
        raise CohortError(problems)
    runs = pd.DataFrame([_facts(layout, model, fold) for model in models for fold in range(cohort.n_folds)])
    metrics = _tables(layout, cohort, models, "metrics_table")
    problems = [problem for model in models for problem in _inconsistent(metrics, runs, cohort, model)]
    problems += _not_finite(metrics)
    if problems:
        raise CohortError(problems)
    extras = {
        table: _tables(layout, cohort, _with_table(layout, cohort, models, table), table)
        for table in ("last_metrics_table", "detections_table", "calibration_table")
    }
    lesions = _tables(layout, cohort, models, "lesions_table")
    return PooledResults(metrics, lesions, runs.drop(columns="settings"), *extras.values())


def _missing(layout: StudyLayout, cohort: Cohort, model: str) -> list[Problem]:
    files = {fold: layout.run(model, fold).metrics for fold in range(cohort.n_folds)}
    return [
        Problem(f"{model}, fold {fold}", file.name, "no such file", "a finished run", f"run 03 for fold {fold}")
        for fold, file in files.items()
        if not file.is_file()
    ]


def _facts(layout: StudyLayout, model: str, fold: int) -> dict[str, Any]:
    facts = json.loads(layout.run(model, fold).metrics.read_text())
    settings = {key: value for key, value in (deciding(facts["settings"]) | facts["recipe"]).items() if key != "fold"}
    names = ("parameters", "train_seconds", "best_epoch", "last_epoch", "selection_dice", "cohort_hash")
    return {"model": model, "fold": fold, **{name: facts[name] for name in names}, "settings": settings}


def _tables(layout: StudyLayout, cohort: Cohort, models: Sequence[str], table: str) -> pd.DataFrame:
    parts = []
    for model in models:
        for fold in range(cohort.n_folds):
            part = read_table(getattr(layout.run(model, fold), table))
            part.insert(0, "model", model)
            parts.append(part)
    filled = [part for part in parts if len(part)]  # a fold without reference lesions has an empty lesion table
    return pd.concat(filled or parts or [pd.DataFrame({"model": []})], ignore_index=True)


def _with_table(layout: StudyLayout, cohort: Cohort, models: Sequence[str], table: str) -> list[str]:
    """Networks that have a table in every fold."""
    return [
        model
        for model in models
        if all(getattr(layout.run(model, fold), table).is_file() for fold in range(cohort.n_folds))
    ]


def _not_finite(metrics: pd.DataFrame) -> list[Problem]:
    bad = ~np.isfinite(metrics.select_dtypes("number"))
    return [
        Problem(
            metrics.loc[row, "case"],
            "metrics.csv",
            f"no finite {', '.join(bad.columns[bad.loc[row]])} by {metrics.loc[row, 'model']}",
            "a number for every metric: empty masks have their defined scores",
            f"run 03 for fold {metrics.loc[row, 'fold']} again",
        )
        for row in bad.index[bad.any(axis=1)]
    ]


def _inconsistent(metrics: pd.DataFrame, runs: pd.DataFrame, cohort: Cohort, model: str) -> list[Problem]:
    times = metrics[metrics["model"] == model]["case"].value_counts()
    expected = {case.name for case in cohort.cases}
    problems = [
        Problem(name, "metrics.csv", f"scored {times.get(name, 0)} times by {model}", "once", "run its folds again")
        for name in sorted(expected | set(times.index))
        if times.get(name, 0) != (name in expected)
    ]
    of_model = runs[runs["model"] == model]
    checks = (
        ("settings", of_model["settings"].iloc[0], "other settings than fold 0", "the same for all folds"),
        ("cohort_hash", cohort_hash(cohort), "other cases, patients or folds than now", "those of dataset.json"),
    )
    problems += [
        Problem(f"{model}, fold {fold}", "metrics.json", found, expected, f"run 03 for fold {fold} again")
        for column, right, found, expected in checks
        for fold, value in zip(of_model["fold"], of_model[column], strict=True)
        if value != right
    ]
    return problems
