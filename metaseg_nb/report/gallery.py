"""The gallery: which cases and lesions are worth a picture, page by page, worst first."""

import re
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path

import pandas as pd

from metaseg_nb.checksums import checksum
from metaseg_nb.cohort.datalist import read_written, require_written
from metaseg_nb.cohort.lesions import DIAMETER_NAMES, THIRDS
from metaseg_nb.cohort.problems import refusal
from metaseg_nb.evaluation.strata import classified
from metaseg_nb.figures.case_figures import pick_cases
from metaseg_nb.layout import StudyLayout

PAGES = {
    "cases": "Best, typical and worst cases",
    "missed": "Missed lesions",
    "false": "Large false positives",
    "small": "Small lesions",
    "lower": "Lower third of the brain",
}
# Entries of a network on a page, worst first; and panels of all pictures together, of up to 10 kB each: with its slice
# views a gallery has at most so many bytes, and a report of 300 patients and eight networks under 25 MB.
MOST_ENTRIES, MOST_PANELS, MOST_BYTES = 20, 680, 10.3e6
# Of an entry. ``group`` is a network, or "" for all; ``of`` is how many entries of this group this page could show.
CENTRE = ["x", "y", "z"]
COLUMNS = ["page", "group", "picture", "case", "primary", "why", "lesion", *CENTRE]
COLUMNS += ["volume_mm3", "diameter_mm", "dice", "of"]
# What no file on Windows can be called: characters, an end, and names of devices whatever ending they have.
UNUSABLE = re.compile(
    r'[<>:"/\\|?*\x00-\x1f]|[. ]+$|^(?=(?:con|prn|aux|nul|conin\$|conout\$|(?:com|lpt)[\d¹²³]) *(?:\.|$))',
    re.IGNORECASE,
)


def page_file(page: str) -> str:
    """File of a page of the report."""
    return f"gallery_{page}.html"


def anchor(entry: Mapping) -> str:
    """Where an entry stands on its page."""
    return f"{entry['group']}-{entry['picture']}" if entry["group"] else entry["picture"]


def gallery_files(layout: StudyLayout, entries: pd.DataFrame) -> list[Path]:
    """Every file of the gallery: its table, its pictures and its slice views."""
    views = entries[entries["page"] == "cases"]
    names = [layout.gallery_table.name, *map(picture_file, entries["picture"].unique())]
    names += map(view_file, views["picture"], views["group"])
    return [layout.gallery / name for name in names]


def read_gallery(layout: StudyLayout) -> pd.DataFrame:
    """Read the table of the gallery.

    Raises
    ------
    CohortError
        It or a picture is lost, or not as it was written; or 04 compared other results since.
    """
    entries = read_written(layout, layout.gallery_table).fillna({"group": ""})
    facts = require_written(layout, *gallery_files(layout, entries))
    if facts.get("metrics") != checksum(layout.cross_validation / "metrics.csv"):
        found = "pictures of other results than those of notebook 04"
        raise refusal("pictures of results", "-", layout.gallery_record, found)
    return entries


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
    lesions = lesions.assign(
        group=lesions["model"], picture=lesions["case"] + "_lesion" + lesions["lesion"].astype(str)
    )
    found = lesions.groupby("picture")["detected"].agg(["sum", "size"]).astype(int).astype(str)
    each = lesions.drop_duplicates("picture").assign(group="", model="").drop(columns="dice")
    each["why"] = each["picture"].map("found by " + found["sum"] + " of " + found["size"] + " networks")
    each = classified(each, positions, metrics).sort_values("diameter_mm", ascending=False, kind="stable")
    false = false[false["model"].isin(models) & (false["diameter_mm"] >= large_mm)]
    pictures = false["case"] + "_false_" + false["model"] + "_" + false["lesion"].astype(str)
    pages = {
        "cases": pd.concat([_picked(metrics, model) for model in models]),
        "missed": _by_network(lesions[~lesions["detected"]].assign(why="missed"), models),
        "false": _by_network(false.assign(group=false["model"], picture=pictures, why="false positive"), models),
        "small": each[each["diameter_class"] == DIAMETER_NAMES[0]][::-1],
        "lower": each[each["third"] == THIRDS[0]],
    }
    tables = [rows.reindex(columns=COLUMNS).assign(page=page) for page, rows in pages.items() if len(rows)]
    entries = pd.concat(tables, ignore_index=True)
    groups = entries.groupby(["page", "group"], sort=False)["case"]
    entries, rank = entries.assign(of=groups.transform("size")), groups.cumcount()
    most_pictures = MOST_PANELS // (len(models) + 1)
    numbers = range(MOST_ENTRIES, 0, -1)
    most = next((n for n in numbers if entries[rank < n]["picture"].nunique() <= most_pictures), 1)
    return entries[rank < most].reset_index(drop=True)


def _picked(metrics: pd.DataFrame, model: str) -> pd.DataFrame:
    """The worst, the typical and the best case of a network."""
    own = metrics[metrics["model"] == model]
    why = pick_cases(own, 1)
    return own.set_index("case").loc[[*why]].reset_index().assign(group=model, picture=[*why], why=[*why.values()])


def _by_network(rows: pd.DataFrame, models: Sequence[str]) -> pd.DataFrame:
    """Lesions of each network, in the networks' order, largest first."""
    order = rows.assign(place=rows["group"].map(list(models).index))
    return order.sort_values(["place", "diameter_mm"], ascending=[True, False], kind="stable")


def _portable(name: str) -> str:
    """A name that Windows can hold too; one that had to change ends with a checksum, so that no two become one."""
    usable = UNUSABLE.sub("_", name)
    return name if usable == name else f"{usable}_{sha256(name.encode()).hexdigest()[:8]}"
