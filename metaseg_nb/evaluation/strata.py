"""For which lesions, and at which sites: what is found of each class of lesions; sites in training and new ones."""

from collections.abc import Sequence
from itertools import product

import numpy as np
import pandas as pd
from scipy.spatial import KDTree

from metaseg_nb.cohort.cases import Cohort
from metaseg_nb.cohort.folds import split
from metaseg_nb.cohort.lesions import DIAMETER_NAMES, THIRDS
from metaseg_nb.evaluation.intervals import once_each, share, share_difference

DEPTH_EDGES_MM = (-np.inf, 10, 20, np.inf)
DEPTH_NAMES = ("<10 mm", "10-20 mm", ">20 mm")
# The classes of radiosurgery trials (Yamamoto et al. 2014, Lancet Oncol. 15:387), and what lies beyond.
COUNT_EDGES = (0, 1, 4, 10, np.inf)
COUNT_NAMES = ("1", "2-4", "5-10", ">10")

# Columns of `classified` lesions: title, and classes in order (None: all there are, most lesions first).
STRATA = {
    "diameter_class": ("largest diameter", DIAMETER_NAMES),
    "primary": ("primary cancer", None),
    "site": ("site", None),
    "scanner": ("scanner", None),
    "third": ("third of the brain", THIRDS),
    "depth_class": ("distance to the surface", DEPTH_NAMES),
    "count_class": ("lesions per patient", COUNT_NAMES),
}


def classified(lesions: pd.DataFrame, positions: pd.DataFrame, metrics: pd.DataFrame) -> pd.DataFrame:
    """Add to every lesion its classes: third, depth, and number of lesions of the patient.

    Parameters
    ----------
    lesions : DataFrame
        From `pool`: a row per (``model``, reference lesion).
    positions : DataFrame
        Notebook 01's lesions: ``case``, ``x``, ``y``, ``z``, ``third``, ``depth_mm``. Each lesion gets the position
        of the one whose centroid is nearest: dilation may have joined several of 01's lesions to one (`scored_as`).
    metrics : DataFrame
        Every (``model``, ``case``), also those without lesions: a patient's number of lesions is the mean of all cases.

    Returns
    -------
    DataFrame
        With ``third``, ``depth_mm``, ``depth_class`` and ``count_class``; NaN where the case has no positions.
    """
    centre, place = ["x", "y", "z"], ["third", "depth_mm"]
    known, places = dict(list(positions.groupby("case"))), [positions[place].iloc[:0]]
    for case, rows in lesions.groupby("case"):
        if case in known:
            nearest = KDTree(known[case][centre]).query(rows[centre])[1]
            places.append(known[case][place].iloc[nearest].set_axis(rows.index))
    found = pd.concat(places)
    placed = lesions.assign(third=found["third"], depth_mm=found["depth_mm"])
    numbers = placed.groupby(["model", "patient"])["case"].transform("size") / placed["patient"].map(_cases(metrics))
    depth_class = pd.cut(placed["depth_mm"], DEPTH_EDGES_MM, labels=DEPTH_NAMES, right=False)
    count_class = pd.cut(numbers, COUNT_EDGES, labels=COUNT_NAMES)
    return placed.assign(depth_class=depth_class.astype(object), count_class=count_class.astype(object))


def per_patient(lesions: pd.DataFrame, metrics: pd.DataFrame) -> pd.DataFrame:
    """Give every lesion its ``weight``: one over the number of its patient's cases.

    So each patient counts alike, however many cases there are, as in the leaderboard. ``metrics`` has every
    (``model``, ``case``), also those without lesions.
    """
    return lesions.assign(weight=1 / lesions["patient"].map(_cases(metrics)))


def _cases(metrics: pd.DataFrame) -> pd.Series:
    """How many cases each patient has."""
    return metrics.groupby("patient")["case"].nunique().astype(float)


def weighted(lesions: pd.DataFrame, column: str) -> pd.DataFrame:
    """Sums over each patient's lesions: ``sum``, of a column times ``weight``, and ``n``, of the weights."""
    sums = pd.DataFrame({"sum": lesions[column] * lesions["weight"], "n": lesions["weight"]})
    return sums.groupby(lesions["patient"]).sum()


def all_strata(lesions: pd.DataFrame, models: Sequence[str], n_bootstrap: int, seed: int) -> pd.DataFrame:
    """Share of lesions detected and Dice per reference lesion, class by class.

    A missed lesion has Dice 0; false lesions belong to no class and do not count here.
    The intervals resample patients, for lesions of one patient are not independent.

    Parameters
    ----------
    lesions : DataFrame
        ``model``, ``patient``, ``detected``, ``dice`` (0 for a missed lesion), ``weight`` (`per_patient`), and columns
        of `STRATA`; those that are absent, or in which nothing is known, are left out.

    Returns
    -------
    DataFrame
        One row per (``model``, class) of each stratum: ``stratum`` (its column), ``class``, ``n_lesions``,
        ``n_patients``, ``sensitivity``, ``low``, ``high``, ``dice``, ``dice_low``, ``dice_high``; intervals are NaN
        below two patients.
    """
    rows = []
    known = [name for name in STRATA if name in lesions and (lesions.empty or lesions[name].ne("unknown").any())]
    for stratum in known:
        classes = STRATA[stratum][1] or lesions[stratum].value_counts().index
        for model, name in product(models, classes):
            own = lesions[(lesions["model"] == model) & (lesions[stratum] == name)]
            sums = weighted(own, "detected"), weighted(own, "dice")
            found, dice = (share(of["sum"], of["n"], n_bootstrap, seed) for of in sums)
            rows.append((model, stratum, name, len(own), own["patient"].nunique(), *found, *dice))
    columns = ["model", "stratum", "class", "n_lesions", "n_patients", "sensitivity", "low", "high"]
    return pd.DataFrame(rows, columns=[*columns, "dice", "dice_low", "dice_high"])


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
            found = share_difference(once_each(dice[True]), once_each(dice[False]), n_bootstrap, seed)
            sizes = n[True], n[False], paired, trained[True], trained[False]
            rows.append((model, dice[True].mean(), dice[False].mean(), *found, *sizes))
    columns = ["model", "seen", "unseen", "difference", "low", "high", "n_seen", "n_unseen", "paired"]
    return pd.DataFrame(rows, columns=[*columns, "training_seen", "training_unseen"])
