"""For which lesions? Every reference lesion put into classes, and what is found of each class."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.spatial import KDTree

from metaseg_nb.cohort.lesions import DIAMETER_NAMES
from metaseg_nb.cohort.position import THIRDS
from metaseg_nb.evaluation.intervals import bootstrap_ratio

DEPTH_EDGES_MM = (-np.inf, 10, 20, np.inf)
DEPTH_NAMES = ("<10 mm", "10-20 mm", ">20 mm")
# The classes of radiosurgery trials (Yamamoto et al. 2014, Lancet Oncol. 15:387), and what lies beyond.
COUNT_EDGES = (0, 1, 4, 10, np.inf)
COUNT_NAMES = ("1", "2-4", "5-10", ">10")

# Columns of `classified` lesions: what they say, and their classes in order (None: as they come, most lesions first).
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
        Notebook 01's lesions: ``case``, ``x``, ``y``, ``z``, ``third``, ``depth_mm``. A lesion
        here has the position of the one there whose centroid is nearest, for two
        that dilation joined are one here.

    Returns
    -------
    DataFrame
        With ``third``, ``depth_mm``, ``depth_class`` and ``count_class``; NaN where the case has no positions.
    """
    placed = _placed(lesions, positions)
    numbers = placed.groupby(["model", "patient"])["patient"].transform("size")
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


def stratified(lesions: pd.DataFrame, stratum: str, models: Sequence[str], n_bootstrap: int, seed: int) -> pd.DataFrame:
    """Share of lesions detected and lesion-wise Dice, class by class.

    The intervals resample patients, for lesions of one patient are not independent.

    Parameters
    ----------
    lesions : DataFrame
        ``model``, ``patient``, ``detected``, ``dice`` (0 for a missed lesion) and the stratum's column.
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
    for model in models:
        of_model = lesions[lesions["model"] == model]
        for name in names:
            found = _found(of_model[of_model[stratum] == name], n_bootstrap, seed)
            rows.append({"model": model, "stratum": stratum, "class": name, **found})
    columns = ["model", "stratum", "class", *_found(lesions.iloc[:0], n_bootstrap, seed)]
    return pd.DataFrame(rows, columns=columns)


def all_strata(lesions: pd.DataFrame, models: Sequence[str], n_bootstrap: int, seed: int) -> pd.DataFrame:
    """`stratified` for every stratum."""
    return pd.concat([stratified(lesions, stratum, models, n_bootstrap, seed) for stratum in STRATA], ignore_index=True)


def _found(lesions: pd.DataFrame, n_bootstrap: int, seed: int) -> dict:
    patients = lesions.groupby("patient").agg(n=("dice", "size"), detected=("detected", "sum"), dice=("dice", "sum"))
    n, facts = int(patients["n"].sum()), {}
    for column, mean, prefix in (("detected", "sensitivity", ""), ("dice", "dice", "dice_")):
        low, high = bootstrap_ratio(patients[column], patients["n"], n_bootstrap, seed)
        facts |= {mean: patients[column].sum() / n if n else np.nan, f"{prefix}low": low, f"{prefix}high": high}
    return {"n_lesions": n, "n_patients": len(patients), **facts}
