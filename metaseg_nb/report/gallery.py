"""The gallery: which cases and lesions are worth a picture, page by page, worst first."""

import re
from collections.abc import Mapping, Sequence
from hashlib import sha256

import pandas as pd

from metaseg_nb.cohort.lesions import DIAMETER_NAMES
from metaseg_nb.cohort.position import THIRDS
from metaseg_nb.evaluation.strata import classified
from metaseg_nb.parameters import model_title

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
    "missed": "Reference lesions that a network did not touch, largest first.",
    "false": "Large predicted lesions that touch no reference lesion, largest first.",
    "small": f"Reference lesions of {DIAMETER_NAMES[0]}, smallest first.",
    "lower": "Reference lesions in the lowest third of the brain, where air and bone disturb the image; largest first.",
}
# Entries of a network on a page, worst first; and panels of all pictures together, of up to 10 kB each: a report of
# many patients and networks must fit into a mail.
MOST_ENTRIES, MOST_PANELS = 20, 750
# Of an entry: where it stands, what is drawn, and what is said of it. ``group`` is a network, or "" for all; ``of`` is
# how many entries there are of this group on this page, shown or not.
CENTRE = ["x", "y", "z"]
SIZE = ["volume_mm3", "diameter_mm"]
# What no file on Windows can be called: characters, an end, and names of devices whatever ending they have.
UNUSABLE = re.compile(
    r'[<>:"/\\|?*\x00-\x1f]|[. ]+$|^(?=(?:con|prn|aux|nul|conin\$|conout\$|(?:com|lpt)[\d¹²³]) *(?:\.|$))',
    re.IGNORECASE,
)
COLUMNS = ["page", "group", "picture", "case", "primary", "why", "lesion", *CENTRE, *SIZE, "dice", "of"]


def page_file(page: str) -> str:
    """File of a page of the report."""
    return f"gallery_{page}.html"


def anchor(entry: Mapping) -> str:
    """Where an entry stands on its page."""
    return f"{entry['group']}-{entry['picture']}" if entry["group"] else entry["picture"]


def picture_file(picture: str) -> str:
    """File of a picture."""
    return f"{_portable(picture)}.webp"


def view_file(picture: str, model: str) -> str:
    """File of the slice view of a case with one network."""
    return f"{_portable(picture)}_{model}.html"


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
        `COLUMNS`, in the order of the pages: of each network on each page the first `MOST_ENTRIES`, or fewer where
        their pictures would have more than `MOST_PANELS`. Several entries may share a ``picture``.
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
    return _shown(pd.concat([page for page in pages if len(page)], ignore_index=True), MOST_PANELS // (len(models) + 1))


def shown_table(entries: pd.DataFrame) -> pd.DataFrame:
    """How many entries are shown of how many: a row per page, a column per network, and "all" for pages of all."""
    named = entries.assign(
        group=[model_title(group) if group else "all" for group in entries["group"]], page=entries["page"].map(PAGES)
    )
    return named.pivot_table(
        index="page",
        columns="group",
        values="of",
        aggfunc=lambda of: f"{len(of)} of {of.iloc[0]}",
        fill_value="0",
        sort=False,
    ).rename_axis(index=None, columns=None)


def _portable(name: str) -> str:
    """A name that Windows can hold too; one that had to change ends with a checksum, so that no two become one."""
    usable = UNUSABLE.sub("_", name)
    return name if usable == name else f"{usable}_{sha256(name.encode()).hexdigest()[:8]}"


def _shown(entries: pd.DataFrame, most_pictures: int) -> pd.DataFrame:
    groups = entries.groupby(["page", "group"], sort=False)["case"]
    entries, rank = entries.assign(of=groups.transform("size")), groups.cumcount()
    for n in range(MOST_ENTRIES, 0, -1):
        shown = entries[rank < n]
        if shown["picture"].nunique() <= most_pictures:
            break
    return shown[COLUMNS].reset_index(drop=True)


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
