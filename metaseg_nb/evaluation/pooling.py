"""The folds of each network, pooled: every case scored once, or an error that names what is missing."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from metaseg_nb.cohort.cases import Cohort
from metaseg_nb.cohort.problems import CohortError, Problem, shortened
from metaseg_nb.evaluation.fold_results import cohort_hash, label_checksums
from metaseg_nb.evaluation.metrics import METRICS
from metaseg_nb.files import read_table
from metaseg_nb.layout import StudyLayout
from metaseg_nb.preprocessing.case_store import open_case
from metaseg_nb.settings import deciding
from metaseg_nb.training.finished_run import read_finished

# Tables in the order of `PooledResults`; and what is kept of each run's `metrics.json`.
TABLES = ("metrics_table", "lesions_table", "last_metrics_table", "detections_table", "calibration_table")
FACTS = ("parameters", "train_seconds", "best_epoch", "last_epoch", "selection_dice", "cohort_hash")


@dataclass(frozen=True)
class PooledResults:
    """Every test case of every network.

    ``metrics`` has one row per (``model``, ``case``), as has ``metrics_last``, by the last epoch's
    weights; ``lesions`` one per (``model``, reference lesion), ``detections`` one per (``model``,
    ``case``, threshold), ``calibration`` one per (``model``, ``case``, bin), ``runs`` one per
    (``model``, ``fold``), with the ``network`` that its parameter file names.
    """

    metrics: pd.DataFrame
    lesions: pd.DataFrame
    metrics_last: pd.DataFrame
    detections: pd.DataFrame
    calibration: pd.DataFrame
    runs: pd.DataFrame


def finished_part(layout: StudyLayout, cohort: Cohort, models: Sequence[str]) -> tuple[list[str], list[int], list[str]]:
    """What of a study can be compared: its networks with a finished fold, and the folds that all of these finished.

    Returns
    -------
    models : list of str
    folds : list of int
    missing : list of str
        Runs that are not finished, such as "unet, fold 1"; empty for a whole study.

    Raises
    ------
    CohortError
        No fold is finished by all networks that have finished any; names what is missing.
    """
    runs = list(product(models, range(cohort.n_folds)))
    done = [run for run in runs if layout.run(*run).metrics.is_file()]
    missing = [f"{model}, fold {fold}" for model, fold in runs if (model, fold) not in done]
    some = [model for model in models if any(of == model for of, _ in done)]
    folds = [fold for fold in range(cohort.n_folds) if some and all((model, fold) in done for model in some)]
    if missing and not folds:
        expected, fix = "a fold that every network has finished", "run 03 for these, or name fewer `models`"
        raise CohortError.one("-", str(layout.root), f"no finished run of {shortened(missing)}", expected, fix)
    return some, folds, missing


def pool(
    layout: StudyLayout, cohort: Cohort, models: Sequence[str], folds: Sequence[int] | None = None
) -> PooledResults:
    """Read the results of networks on folds; all folds where none are named.

    Raises
    ------
    CohortError
        A run is missing, or a file of it is lost or not as it was when the run finished; a case is not
        scored exactly once, not with finite numbers, or not with a metric that was added since; a fold was trained
        with other settings than the rest, on cases that were preprocessed otherwise than the rest or than those of
        the case store, with another label of a case than now, or on another cohort than this, or what counts as
        lesion has changed; the cohort has no cases, or all of them in one fold.
    """
    if cohort.n_folds < 2:
        found = f"{len(cohort.cases)} labelled cases in {cohort.n_folds} fold(s)"
        fix = "run 01 on labelled cases with n_folds of 2 or more"
        raise CohortError.one(cohort.name, layout.dataset.name, found, "cases in two folds or more", fix)
    folds = range(cohort.n_folds) if folds is None else folds
    facts, problems = {}, []
    for run in product(models, folds):
        try:
            facts[run] = read_finished(layout.run(*run))
        except CohortError as error:
            problems += error.problems
    if problems:
        raise CohortError(problems)
    tables = [_table(layout, facts, table) for table in TABLES]
    recipes, labels = _recipes(layout, cohort), label_checksums(cohort.cases)
    tested = {case.name for case in cohort.cases if case.fold in folds}
    for model in models:
        of_model = {fold: facts[model, fold] for fold in folds}
        problems += [*_not_once(tables[0], tested, model), *_inconsistent(of_model, cohort, model, recipes, labels)]
    problems += _not_scored(tables[0], layout.study) or _not_finite(tables[0])
    if problems:
        raise CohortError(problems)
    runs = [
        {"model": model, "fold": fold, "network": of["settings"]["network"], **{name: of[name] for name in FACTS}}
        for (model, fold), of in facts.items()
    ]
    return PooledResults(*tables, pd.DataFrame(runs))


def _table(layout: StudyLayout, runs: Iterable[tuple[str, int]], name: str) -> pd.DataFrame:
    """One table of all runs, with their network in front."""
    parts = []
    for model, fold in runs:
        parts.append(read_table(getattr(layout.run(model, fold), name)))
        parts[-1].insert(0, "model", model)
    filled = [part for part in parts if len(part)]  # a fold without reference lesions has an empty lesion table
    return pd.concat(filled or parts, ignore_index=True)


def _not_scored(metrics: pd.DataFrame, study: str) -> list[Problem]:
    """Metrics that were added after runs were scored: their columns are missing, or have no number in some runs."""
    fix = f"`python -m metaseg_nb rescore --study {study}` computes them for finished runs"
    missing = {
        name: metrics.loc[metrics[name].isna(), "model"] if name in metrics else metrics["model"] for name in METRICS
    }
    return [
        Problem("-", "metrics.csv", f"no {name} of {', '.join(models.unique())}", "every metric for every case", fix)
        for name, models in missing.items()
        if METRICS[name].compute and len(models)
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


def _recipes(layout: StudyLayout, cohort: Cohort) -> list[dict[str, Any]]:
    """Settings that the labelled cases of the case store were made with: one, unless 02 was broken off."""
    recipes = []
    for case in cohort.cases:
        if (layout.case_store / case.name / "label.json").is_file():
            recipe = open_case(layout.case_store, case.name).recipe
            recipes += [] if recipe in recipes else [recipe]
    return recipes


def _not_once(metrics: pd.DataFrame, expected: set[str], model: str) -> list[Problem]:
    times = metrics[metrics["model"] == model]["case"].value_counts()
    return [
        Problem(name, "metrics.csv", f"scored {times.get(name, 0)} times by {model}", "once", "run its folds again")
        for name in sorted(expected | set(times.index))
        if times.get(name, 0) != (name in expected)
    ]


def _inconsistent(
    facts: Mapping[int, Mapping[str, Any]],
    cohort: Cohort,
    model: str,
    recipes: Sequence[Mapping[str, Any]],
    labels: Mapping[str, str],
) -> list[Problem]:
    """Folds that differ from the first in settings, or from the study as it is now."""
    (first_fold, first), problems = next(iter(facts.items())), []
    for fold, of in facts.items():
        wrong, again = [], f"03 for fold {fold} again"
        if differing := _differing(_settings(first), _settings(of)):
            found = f"other settings than fold {first_fold} ({differing})"
            wrong.append((found, "the same for all folds", f"run {again}"))
        for recipe in recipes or [first["recipe"]]:
            if differing := _differing(recipe, of["recipe"]):
                found, expected = (
                    f"cases preprocessed otherwise ({differing})",
                    "one preprocessing, that of the case store",
                )
                wrong.append((found, expected, f"run {again}, or 02 with the former settings"))
        if of["cohort_hash"] != cohort_hash(cohort):
            found = "other cases, patients, folds or lesion values than now"
            wrong.append((found, "those of dataset.json", f"run {again}"))
        elif changed := shortened(name for name, label in labels.items() if label != of["labels"].get(name)):
            found = f"another label than now of {changed}"
            wrong.append((found, "training and scores by today's labels", f"run 02, then run {again}"))
        problems += [Problem(f"{model}, fold {fold}", "metrics.json", *problem) for problem in wrong]
    return problems


def _settings(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of training that the folds of a network share."""
    return {key: value for key, value in deciding(facts["settings"]).items() if key != "fold"}


def _differing(first: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    keys = sorted(key for key in first.keys() | other.keys() if first.get(key) != other.get(key))
    return ", ".join(f"{key} {other.get(key)}, there {first.get(key)}" for key in keys)
