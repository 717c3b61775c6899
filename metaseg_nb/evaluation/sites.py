"""Sites that were in training and sites that were not: how good a network is at a hospital that is new to it."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from metaseg_nb.cohort.cases import Cohort
from metaseg_nb.cohort.datalist import read_study_cohort
from metaseg_nb.cohort.folds import split
from metaseg_nb.cohort.problems import CohortError
from metaseg_nb.cohort.pseudonyms import called_here
from metaseg_nb.evaluation.intervals import once_each, share_difference
from metaseg_nb.evaluation.pooling import decided_by, differing_settings, pool, scored_with
from metaseg_nb.layout import StudyLayout
from metaseg_nb.training.finished_run import read_finished


def with_site_seen(metrics: pd.DataFrame, cohort: Cohort) -> pd.DataFrame:
    """Say of each tested case with a site whether its fold's training set or selection set had cases of that site.

    Parameters
    ----------
    metrics : DataFrame
        From `pool`, with ``case``, ``site`` and ``fold``.
    cohort : Cohort
        With folds.

    Returns
    -------
    DataFrame
        Cases with a known site, with ``site_seen`` (bool) and ``training_patients`` (of the fold).
    """
    known = metrics[metrics["site"] != "unknown"]
    parts = {fold: split(cohort, fold) for fold in known["fold"].unique()}
    # the decision was chosen on the selection set
    sites = {fold: {case.site for case in [*of.training, *of.selection]} for fold, of in parts.items()}
    patients = {fold: len({case.patient for case in of.training}) for fold, of in parts.items()}
    seen = [site in sites[fold] for site, fold in zip(known["site"], known["fold"], strict=True)]
    return known.assign(site_seen=np.array(seen, bool), training_patients=known["fold"].map(patients))


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


def site_differences(tested: pd.DataFrame, models: Sequence[str], n_bootstrap: int, seed: int) -> pd.DataFrame:
    """How much better patients of sites that were in training are segmented than those of sites that were not.

    Where cases were tested in both ways, by two studies of one cohort, only these count, and each is compared with
    itself. Otherwise two groups of different cases are compared.

    Parameters
    ----------
    tested : DataFrame
        From `with_site_seen`, of one study or of two.
    models : sequence of str
    n_bootstrap, seed
        Of the interval, over patients.

    Returns
    -------
    DataFrame
        A row per network; none where all sites were in training, or none was: ``seen`` and ``unseen`` (mean Dice),
        ``difference`` (seen minus unseen), ``low``, ``high``, ``n_seen``, ``n_unseen`` (patients), ``paired``,
        ``training_seen``, ``training_unseen`` (mean number of training patients).
    """
    ways = tested.groupby("case")["site_seen"].nunique()
    paired = bool((ways == 2).any())
    rows = []
    if tested["site_seen"].nunique() == 2:
        counted = tested[tested["case"].map(ways) == 2] if paired else tested
        n = counted.groupby("site_seen")["patient"].nunique()
        trained = counted.groupby("site_seen")["training_patients"].mean()
        for model in models:
            dice = counted[counted["model"] == model].pivot_table("dice", "patient", "site_seen", "mean")
            groups = [once_each(dice[seen]) for seen in (True, False)]
            found = share_difference(*groups, n_bootstrap, seed)
            sizes = n[True], n[False], paired, trained[True], trained[False]
            rows.append((model, dice[True].mean(), dice[False].mean(), *found, *sizes))
    columns = ["model", "seen", "unseen", "difference", "low", "high", "n_seen", "n_unseen", "paired"]
    return pd.DataFrame(rows, columns=[*columns, "training_seen", "training_unseen"])
