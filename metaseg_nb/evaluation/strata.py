"""Reference lesions by class (size, primary, position), and what share of each class is detected."""

from collections.abc import Sequence
from itertools import product

import numpy as np
import pandas as pd
from scipy.spatial import KDTree

from metaseg_nb.cohort.lesions import DIAMETER_NAMES, THIRDS
from metaseg_nb.evaluation.intervals import bootstrap_ratio

DEPTH_EDGES_MM = (-np.inf, 10, 20, np.inf)
DEPTH_NAMES = ("<10 mm", "10-20 mm", ">20 mm")
# The classes of radiosurgery trials (Yamamoto et al. 2014, Lancet Oncol. 15:387), and what lies beyond.
COUNT_EDGES = (0, 1, 4, 10, np.inf)
COUNT_NAMES = ("1", "2-4", "5-10", ">10")

# Columns of `classified` lesions: title, and classes in order (None: all there are, most lesions first).
STRATA = {
    "diameter_class": ("largest diameter", DIAMETER_NAMES),
    "primary": ("primary cancer", None),
    "third": ("third of the brain", THIRDS),
    "depth_class": ("distance to the surface", DEPTH_NAMES),
    "count_class": ("lesions per patient", COUNT_NAMES),
}


def classified(lesions: pd.DataFrame, positions: pd.DataFrame) -> pd.DataFrame:
    """Put every lesion into its classes.

    Parameters
    ----------
    lesions : DataFrame
        From `pool`: a row per (``model``, reference lesion).
    positions : DataFrame
        Notebook 01's lesions: ``case``, ``x``, ``y``, ``z``, ``third``, ``depth_mm``. Each lesion gets the position
        of the one whose centroid is nearest: dilation may have joined several of 01's lesions to one (`scored_as`).

    Returns
    -------
    DataFrame
        With ``third``, ``depth_mm``, ``depth_class`` and ``count_class``; NaN where the case has no positions.
    """
    placed = _placed(lesions, positions)
    of_patient = placed.groupby(["model", "patient"])["case"]
    numbers = of_patient.transform("size") / of_patient.transform("nunique")  # a mean over a patient's cases
    return placed.assign(
        depth_class=pd.cut(placed["depth_mm"], DEPTH_EDGES_MM, labels=DEPTH_NAMES, right=False).astype(object),
        count_class=pd.cut(numbers, COUNT_EDGES, labels=COUNT_NAMES).astype(object),
    )


def _placed(lesions: pd.DataFrame, positions: pd.DataFrame) -> pd.DataFrame:
    placed = lesions.assign(third=pd.Series(np.nan, lesions.index, dtype=object), depth_mm=np.nan)
    known = {case: rows for case, rows in positions.groupby("case")}
    for case, rows in lesions.groupby("case"):
        if case in known:
            nearest = KDTree(known[case][["x", "y", "z"]]).query(rows[["x", "y", "z"]])[1]
            placed.loc[rows.index, ["third", "depth_mm"]] = known[case][["third", "depth_mm"]].to_numpy()[nearest]
    return placed.astype({"depth_mm": float})


def per_patient(lesions: pd.DataFrame, metrics: pd.DataFrame) -> pd.DataFrame:
    """Give every lesion its ``weight``: one over the number of its patient's cases.

    So each patient counts alike, however many cases there are, as in `leaderboard`. ``metrics`` has every
    (``model``, ``case``), also those without lesions.
    """
    cases = metrics.groupby("patient")["case"].nunique()
    return lesions.assign(weight=1 / lesions["patient"].map(cases).astype(float))


def weighted(lesions: pd.DataFrame, column: str) -> pd.DataFrame:
    """Sum of a column and of the weights (1 each where there are none), patient by patient: ``sum``, ``n``."""
    weight = lesions.get("weight", pd.Series(1.0, lesions.index))
    return pd.DataFrame({"sum": lesions[column] * weight, "n": weight}).groupby(lesions["patient"]).sum()


def stratified(lesions: pd.DataFrame, stratum: str, models: Sequence[str], n_bootstrap: int, seed: int) -> pd.DataFrame:
    """Share of lesions detected and Dice per reference lesion, class by class.

    A missed lesion has Dice 0; false lesions belong to no class and do not count here.

    The intervals resample patients, for lesions of one patient are not independent.

    Parameters
    ----------
    lesions : DataFrame
        ``model``, ``patient``, ``detected``, ``dice`` (0 for a missed lesion), the stratum's column, and where
        patients have several cases ``weight`` (`per_patient`).
    stratum : str
        A key of `STRATA`.

    Returns
    -------
    DataFrame
        One row per (``model``, class): ``stratum`` (its column), ``class``, ``n_lesions``, ``n_patients``,
        ``sensitivity``, ``low``, ``high``, ``dice``, ``dice_low``, ``dice_high``; intervals are NaN below two
        patients.
    """
    names = STRATA[stratum][1] or lesions[stratum].value_counts().index
    rows = []
    for model, name in product(models, names):
        found = lesions[(lesions["model"] == model) & (lesions[stratum] == name)]
        rows.append({"model": model, "stratum": stratum, "class": name, **_found(found, n_bootstrap, seed)})
    columns = ["model", "stratum", "class", *_found(lesions.iloc[:0], n_bootstrap, seed)]
    return pd.DataFrame(rows, columns=columns)


def all_strata(lesions: pd.DataFrame, models: Sequence[str], n_bootstrap: int, seed: int) -> pd.DataFrame:
    """`stratified` for every stratum."""
    return pd.concat([stratified(lesions, stratum, models, n_bootstrap, seed) for stratum in STRATA], ignore_index=True)


def _found(lesions: pd.DataFrame, n_bootstrap: int, seed: int) -> dict:
    facts = {"n_lesions": len(lesions), "n_patients": lesions["patient"].nunique()}
    for column, mean, prefix in (("detected", "sensitivity", ""), ("dice", "dice", "dice_")):
        patients = weighted(lesions, column)
        low, high = bootstrap_ratio(patients["sum"], patients["n"], n_bootstrap, seed)
        share = patients["sum"].sum() / patients["n"].sum() if len(patients) else np.nan
        facts |= {mean: share, f"{prefix}low": low, f"{prefix}high": high}
    return facts
