"""The gallery: which cases and lesions are worth a picture, page by page."""

from collections.abc import Mapping, Sequence

import pandas as pd

from metaseg_nb.cohort.lesions import DIAMETER_NAMES
from metaseg_nb.cohort.position import THIRDS
from metaseg_nb.evaluation.strata import classified

PAGES = {
    "cases": "Best, median and worst cases",
    "missed": "Missed lesions",
    "false": "Large false positives",
    "small": "Small lesions",
    "lower": "Lower third of the brain",
}
# What each page holds, in the words of the report.
ABOUT = {
    "cases": "By Dice, network by network; three planes through the largest lesion.",
    "missed": "Every reference lesion that a network did not touch, largest first.",
    "false": "Every large predicted lesion that touches no reference lesion, largest first.",
    "small": f"Every reference lesion of {DIAMETER_NAMES[0]}, smallest first.",
    "lower": "Every reference lesion in the lowest third of the brain, where air and bone disturb the image; "
    "largest first.",
}
# Of an entry: where it stands, what is drawn, and what is said of it. ``group`` is a network, or "" for all.
CENTRE = ["x", "y", "z"]
SIZE = ["volume_mm3", "diameter_mm"]
COLUMNS = ["page", "group", "picture", "case", "primary", "why", "lesion", *CENTRE, *SIZE, "dice"]


def page_file(page: str) -> str:
    """File of a page of the report."""
    return f"gallery_{page}.html"


def anchor(entry: Mapping) -> str:
    """Where an entry stands on its page."""
    return f"{entry['group']}-{entry['picture']}" if entry["group"] else entry["picture"]


def view_file(picture: str, model: str) -> str:
    """File of the slice view of a case with one network."""
    return f"{picture}_{model}.html"


def gallery_entries(
    metrics: pd.DataFrame,
    lesions: pd.DataFrame,
    positions: pd.DataFrame,
    false: pd.DataFrame,
    models: Sequence[str],
    large_mm: float,
) -> pd.DataFrame:
    """Choose what the gallery shows.

    Parameters
    ----------
    metrics, lesions : DataFrame
        Pooled, from notebook 04.
    positions : DataFrame
        Notebook 01's lesions, which say in which third of the brain each lies.
    false : DataFrame
        False lesions, with ``model``, ``case`` and ``primary``.
    models : sequence of str
        Leading network first.
    large_mm : float
        Diameter from which a false lesion is large.

    Returns
    -------
    DataFrame
        `COLUMNS`, in the order of the pages. Several entries may share a ``picture``.
    """
    lesions = lesions[lesions["model"].isin(models)]
    lesions = lesions.assign(picture=lesions["case"] + "_lesion" + lesions["lesion"].astype(str))
    large = false[false["model"].isin(models) & (false["diameter_mm"] >= large_mm)]
    large = large.assign(
        picture=large["case"] + "_false_" + large["model"] + "_" + large["lesion"].astype(str), why="false positive"
    )
    missed = lesions[~lesions["detected"]].assign(why="missed")
    each = lesions.drop_duplicates("picture").drop(columns=["model", "dice"])
    each = classified(each.assign(model="", why=_found_by(lesions, each)), positions)
    small, lower = each["diameter_class"] == DIAMETER_NAMES[0], each["third"] == THIRDS[0]
    pages = [
        _cases_page(metrics, models),
        *(_page("missed", model, missed[missed["model"] == model]) for model in models),
        *(_page("false", model, large[large["model"] == model]) for model in models),
        _page("small", "", each[small].iloc[::-1], ascending=True),
        _page("lower", "", each[lower]),
    ]
    return pd.concat([page for page in pages if len(page)], ignore_index=True)[COLUMNS]


def _cases_page(metrics: pd.DataFrame, models: Sequence[str]) -> pd.DataFrame:
    rows = []
    for model in models:
        order = metrics[metrics["model"] == model].sort_values("dice", ignore_index=True)
        places = {"worst": 0, "median": (len(order) - 1) // 2, "best": len(order) - 1}
        for why, place in places.items():
            case = order.iloc[place]
            rows.append({"group": model, "picture": case["case"], "why": why, **case[["case", "primary", "dice"]]})
    return pd.DataFrame(rows).assign(page="cases").reindex(columns=COLUMNS).drop_duplicates(["group", "picture"])


def _page(page: str, group: str, rows: pd.DataFrame, ascending: bool = False) -> pd.DataFrame:
    ordered = rows.sort_values("diameter_mm", ascending=ascending, ignore_index=True)
    return ordered.assign(page=page, group=group).reindex(columns=COLUMNS)


def _found_by(lesions: pd.DataFrame, each: pd.DataFrame) -> pd.Series:
    found = lesions.groupby("picture")["detected"].agg(["sum", "size"]).loc[each["picture"]]
    words = [f"found by {hits} of {n} networks" for hits, n in found.to_numpy(int)]
    return pd.Series(words, each.index)
