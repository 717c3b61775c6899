"""Finished runs, pooled over folds and networks.

Each case is scored once, by runs that belong together, or an error is raised.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from metaseg_nb.cohort.cases import Cohort
from metaseg_nb.cohort.datalist import read_study_cohort
from metaseg_nb.cohort.problems import CohortError, Problem, of_each, shortened
from metaseg_nb.cohort.pseudonyms import called_here
from metaseg_nb.evaluation.scoring import METRICS
from metaseg_nb.evaluation.strata import with_site_seen
from metaseg_nb.files import read_table
from metaseg_nb.layout import StudyLayout
from metaseg_nb.preprocessing.case_store import open_case
from metaseg_nb.settings import deciding
from metaseg_nb.training.finished_run import read_finished, scored_with

# What the table of runs has of each run's `metrics.json`.
FACTS = ["parameters", "train_seconds", "weights", "best_epoch", "last_epoch", "selection_dice", "cohort_hash"]
FACTS += ["operating_point"]
# The tables of each run that are pooled.
TABLES = ("metrics", "other_metrics", "lesions", "detections", "operating_points", "calibration")


@dataclass(frozen=True)
class PooledResults:
    """Every test case of every network.

    ``metrics`` has one row per (``model``, ``case``), with ``unlikeness`` (NaN in runs of before it was measured), and
    ``other_metrics`` too, by the weights that were not kept (the chosen epoch's or the last one's). ``lesions`` has one
    per (``model``, reference lesion), ``detections`` one per (``model``, ``case``, threshold), ``operating_points`` one
    per (``model``, ``case``, decision), ``calibration`` one per (``model``, ``case``, bin), and ``runs`` one per
    (``model``, ``fold``), with the ``network`` that its parameter file names.
    """

    metrics: pd.DataFrame
    other_metrics: pd.DataFrame
    lesions: pd.DataFrame
    detections: pd.DataFrame
    operating_points: pd.DataFrame
    calibration: pd.DataFrame
    runs: pd.DataFrame


def finished_part(layout: StudyLayout, cohort: Cohort, models: Sequence[str]) -> tuple[list[str], list[int], list[str]]:
    """What of a study can be compared: its networks with a finished fold, and the folds that all of these finished.

    And third, the runs that are not finished, such as "unet, fold 1"; none of a whole study.

    Raises
    ------
    CohortError
        No fold is finished by all networks that have finished any; names what is missing.
    """
    runs = list(product(models, range(cohort.n_folds)))
    done = {run for run in runs if layout.run(*run).metrics.is_file()}
    missing = [f"{model}, fold {fold}" for model, fold in runs if (model, fold) not in done]
    some = [model for model in models if any(of == model for of, _ in done)]
    folds = [fold for fold in range(cohort.n_folds) if some and all((model, fold) in done for model in some)]
    if missing and not folds:
        expected, fix = "a fold that every network has finished", "run 03 for these, or name fewer `models`"
        raise CohortError.one("-", str(layout.root), f"no finished run of {shortened(missing)}", expected, fix)
    return some, folds, missing


def pool(
    layout: StudyLayout,
    cohort: Cohort,
    models: Sequence[str],
    folds: Sequence[int] | None = None,
    arm: str = "",
    seed: int = 0,
) -> PooledResults:
    """Read the results of networks on folds, all folds where none are named; of an annotation budget, of one arm.

    Raises
    ------
    CohortError
        A run is missing or of an earlier version, or a file of it is lost or not as it was when the run
        finished; a case is not scored exactly once, not with finite numbers, or not with a metric that was added
        since; a fold was trained with other settings than the rest, on cases that were preprocessed otherwise than
        the rest or than those of the case store, with another label of a case than now, or on another cohort than
        this, or what counts as lesion has changed; the cohort has no cases, or all of them in one fold.
    """
    if cohort.n_folds < 2:
        found = f"{len(cohort.cases)} labelled cases in {cohort.n_folds} fold(s)"
        fix = "run 01 on labelled cases with n_folds of 2 or more"
        raise CohortError.one(cohort.name, layout.dataset.name, found, "cases in two folds or more", fix)
    folds = range(cohort.n_folds) if folds is None else folds
    runs = {(model, fold): layout.run(model, fold, arm, seed) for model, fold in product(models, folds)}
    facts = dict(zip(runs, of_each(read_finished, runs.values()), strict=True))
    if earlier := [f"{model}, fold {fold}" for (model, fold), of in facts.items() if "weights" not in of]:
        found, fix = "a run of an earlier version", "give the study another name and train it again"
        raise CohortError(Problem(run, "metrics.json", found, "a run of this version", fix) for run in earlier)

    places = {key: {case.name: getattr(case, key) for case in cohort.cases} for key in ("site", "scanner")}

    def table(name: str) -> pd.DataFrame:
        parts = {of: read_table(getattr(run, name)) for of, run in runs.items()}
        filled = {of: part for of, part in parts.items() if len(part)}  # a fold may have no reference lesions
        whole = pd.concat(filled or parts, names=["model", "run"]).reset_index("model").reset_index(drop=True)
        # they may have been named after the run
        return whole.assign(**{key: whole["case"].map(of) for key, of in places.items()})

    tables = {name: table(f"{name}_table") for name in TABLES}
    metrics = tables["metrics"]
    tested = {case.name for case in cohort.cases if case.fold in folds}
    problems = [
        Problem(name, "metrics.csv", f"scored {times} times by {model}", "once", "run its folds again")
        for model in models
        for name, times in not_once(metrics.loc[metrics["model"] == model, "case"], tested).items()
    ]
    problems += [*_not_finite(metrics, layout.study), *_outdated(layout, cohort, facts)]
    if problems:
        raise CohortError(problems)
    rows = [
        {"model": model, "fold": fold, "network": of["settings"]["network"], **{name: of[name] for name in FACTS}}
        for (model, fold), of in facts.items()
    ]
    unlike = {(run[0], case): value for run, of in facts.items() for case, value in of.get("unlikeness", {}).items()}
    cases = zip(metrics["model"], metrics["case"], strict=True)
    tables["metrics"] = metrics.assign(unlikeness=[unlike.get(of, np.nan) for of in cases])
    return PooledResults(**tables, runs=pd.DataFrame(rows))


def not_once(cases: pd.Series, wanted: set[str]) -> dict[str, int]:
    """How often a column names a case, where that is wrong: each wanted case should stand there once, and no other."""
    times = cases.value_counts()
    times = times.reindex(sorted(wanted.union(times.index)), fill_value=0)
    return {name: n for name, n in times.to_dict().items() if n != (name in wanted)}


def _not_finite(metrics: pd.DataFrame, study: str) -> Iterator[Problem]:
    """Scores that are missing or not finite, such as those of a metric that was added after a run was scored."""
    added = [name for name in METRICS if name not in metrics]
    for (model, fold), cases in metrics.assign(**dict.fromkeys(added, np.nan)).groupby(["model", "fold"], sort=False):
        bad = ~np.isfinite(cases.select_dtypes("number"))
        if bad.any(axis=None):
            names = shortened(cases.loc[bad.any(axis=1), "case"])
            found = f"no finite {', '.join(bad.columns[bad.any()])} for {names}"
            expected = "a finite number for every metric and case, also for empty masks"
            fix = f"`python -m metaseg_nb rescore --study {study}` scores finished runs again"
            yield Problem(f"{model}, fold {fold}", "metrics.csv", found, expected, fix)


def _outdated(
    layout: StudyLayout, cohort: Cohort, facts: Mapping[tuple[str, int], Mapping[str, Any]]
) -> Iterator[Problem]:
    """Runs that differ in settings from the first fold of their network, or from the study as it is now."""
    stored = [case.name for case in cohort.labelled if (layout.case_store / case.name / "label.json").is_file()]
    recipes = [open_case(layout.case_store, name).recipe for name in stored]
    recipes = [recipe for i, recipe in enumerate(recipes) if recipe not in recipes[:i]]  # several: 02 was interrupted
    now = scored_with(cohort)
    for (model, fold), of in facts.items():
        first_fold = next(other for name, other in facts if name == model)
        first, again = facts[model, first_fold], f"03 for fold {fold} again"
        problem = partial(Problem, f"{model}, fold {fold}", "metrics.json")
        both = (decided_by(it) | {"fold": 0} for it in (first, of))
        if differing := differing_settings(*both):
            found = f"other settings than fold {first_fold} ({differing})"
            yield problem(found, "the same settings in all folds", f"run {again}")
        for recipe in recipes or [first["recipe"]]:
            if differing := differing_settings(recipe, of["recipe"]):
                found = f"cases preprocessed differently ({differing})"
                fix = f"run {again}, or 02 with the earlier settings"
                yield problem(found, "the same preprocessing as in the case store", fix)
        if of["cohort_hash"] != now["cohort_hash"]:
            found = "other cases, patients, folds or lesion values than now"
            yield problem(found, "those in dataset.json", f"run {again}")
        elif changed := shortened(name for name, label in now["labels"].items() if label != of["labels"].get(name)):
            found = f"labels that have changed since: {changed}"
            yield problem(found, "training and scores with the present labels", f"run 02, then run {again}")


def decided_by(facts: Mapping[str, Any]) -> dict[str, Any]:
    """What decides the masks of a run, from its ``metrics.json``: settings of the training, and the operating point."""
    return deciding(facts["settings"]) | {"operating_point": facts["operating_point"]}


def differing_settings(first: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """Name the keys in which two mappings differ, with both values; empty if they are alike."""
    keys = sorted(key for key in first.keys() | other.keys() if first.get(key) != other.get(key))
    return ", ".join(f"{key} {other.get(key)} instead of {first.get(key)}" for key in keys)


def compared(study: str, layout: StudyLayout, cohort: Cohort, models: Sequence[str]) -> pd.DataFrame:
    """Results of another study of the same cohort, with other folds, as `with_site_seen` gives them.

    Names or codes of cases and patients, and sites, are those of the present cohort.

    Raises
    ------
    CohortError
        The other study is unfinished (`pool`), has other cases or masks, or its networks were trained otherwise.
    """
    other = StudyLayout(study)
    its = read_study_cohort(other)
    present = {case.name: case for case in cohort.all_cases}
    here = called_here(layout, present, other, [case.name for case in its.all_cases])
    if {here.get(name): label for name, label in scored_with(its)["labels"].items()} != scored_with(cohort)["labels"]:
        found, fix = "other cases or masks than this study", "name a study of the same cohort, or none"
        raise CohortError.one("-", "compared_study", f"{study}: {found}", "the same cases and masks", fix)
    site_of = {theirs: present[name].site for theirs, name in here.items()}
    its = its.changed(lambda case: replace(case, site=site_of.get(case.name, case.site)))
    results = pool(other, its, models)
    for model in models:
        own, others = _trained_with(layout, model, cohort.n_folds), _trained_with(other, model, its.n_folds)
        if differ := differing_settings(own, others):
            found, fix = f"{study}: {model} with {differ}", "train it with the settings of this study"
            raise CohortError.one("-", "compared_study", found, "studies that differ in their folds only", fix)
    tested = with_site_seen(results.metrics, its)
    tested = tested.assign(case=tested["case"].map(here))
    return tested.assign(patient=[present[name].patient for name in tested["case"]])


def _trained_with(layout: StudyLayout, model: str, n_folds: int) -> dict:
    """Settings, operating point and recipe of a network's first finished fold, without what names the run."""
    facts = read_finished(next(run for fold in range(n_folds) if (run := layout.run(model, fold)).metrics.is_file()))
    return {key: of for key, of in (decided_by(facts) | facts["recipe"]).items() if key not in ("study", "fold")}
