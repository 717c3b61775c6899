"""The gallery: which cases and lesions are worth a picture, page by page, worst first; and these pictures.

A picture has three planes, and networks side by side; of some cases a view turns in a browser.
"""

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from metaseg_nb.checksums import checksum, is_made_from, write_record
from metaseg_nb.cohort.cases import Case
from metaseg_nb.cohort.datalist import read_written, require_written
from metaseg_nb.cohort.lesions import DIAMETER_NAMES, THIRDS
from metaseg_nb.cohort.problems import refusal
from metaseg_nb.evaluation.strata import classified
from metaseg_nb.figures.case_figures import pick_cases
from metaseg_nb.figures.reviewed import CaseImages, StudyTables, false_lesions, read_case_images
from metaseg_nb.figures.slices import AXES, PLANES, add_legend, draw_slice, window_around
from metaseg_nb.figures.style import fitted, use_style
from metaseg_nb.files import finished, write_table
from metaseg_nb.layout import StudyLayout
from metaseg_nb.machine import map_cases
from metaseg_nb.parameters import model_title
from metaseg_nb.report.pages import MOST_PIXELS_WIDE, QUALITY, slice_view

PAGES = {
    "cases": "Best, typical and worst cases",
    "missed": "Missed lesions",
    "false": "Large false lesions",
    "small": "Small lesions",
    "lower": "Lower third of the brain",
}
# Entries of a network on a page, worst first; and panels of all pictures together, of up to 10 kB each: with its slice
# views a gallery has at most so many bytes, and a report of 300 patients and eight networks under 25 MB.
MOST_ENTRIES, MOST_PANELS, MOST_BYTES = 20, 680, 10.3e6
# Of an entry. ``group`` is a network, or "" for all; ``of`` is how many entries of this group this page could show.
CENTRE = ["x", "y", "z"]
GALLERY_COLUMNS = ["page", "group", "picture", "case", "primary", "why", "lesion", *CENTRE]
GALLERY_COLUMNS += ["volume_mm3", "diameter_mm", "dice", "of"]
# What no file on Windows can be called: characters, an end, and names of devices whatever ending they have.
UNUSABLE = re.compile(
    r'[<>:"/\\|?*\x00-\x1f]|[. ]+$|^(?=(?:con|prn|aux|nul|conin\$|conout\$|(?:com|lpt)[\d¹²³]) *(?:\.|$))',
    re.IGNORECASE,
)
PANEL_INCHES, LABEL_INCHES, TITLE_POINTS = 2.1, 0.25, 8.5
# Around a lesion: at least this much is shown, and of a large one this many diameters. And of a whole case.
FIELD_MM, FIELD_DIAMETERS, CASE_FIELD_MM = 50.0, 2.0, 110.0
# Half the size of a JPEG that looks as good.
WEBP = {"format": "webp", "pil_kwargs": {"quality": QUALITY}}
DPI = 100


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
        `GALLERY_COLUMNS`, in the order of the pages: of each network on each page the first `MOST_ENTRIES`, or fewer
        where their pictures would have more than `MOST_PANELS`. Several entries may share a ``picture``.
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
        "false": _by_network(false.assign(group=false["model"], picture=pictures, why="false lesion"), models),
        "small": each[each["diameter_class"] == DIAMETER_NAMES[0]][::-1],
        "lower": each[each["third"] == THIRDS[0]],
    }
    tables = [rows.reindex(columns=GALLERY_COLUMNS).assign(page=page) for page, rows in pages.items() if len(rows)]
    entries = pd.concat(tables, ignore_index=True)
    groups = entries.groupby(["page", "group"], sort=False)["case"]
    entries, rank = entries.assign(of=groups.transform("size")), groups.cumcount()
    most_pictures = MOST_PANELS // (len(models) + 1)
    numbers = range(MOST_ENTRIES, 0, -1)
    most = next((n for n in numbers if entries[rank < n]["picture"].nunique() <= most_pictures), 1)
    return entries[rank < most].reset_index(drop=True)


def find_false_lesions(tables: StudyTables, models: Sequence[str], workers: int) -> pd.DataFrame:
    """List the false lesions of every case and network: `false_lesions` with ``model``, ``case``, ``primary``."""
    found = map_cases(partial(_false_of_case, tables, models), tables.cohort.cases, workers, "finding false lesions")
    return pd.concat(found, ignore_index=True)


def draw_gallery(
    tables: StudyTables, entries: pd.DataFrame, models: Sequence[str], view_mm: float, workers: int
) -> None:
    """Draw every picture that `gallery_entries` names, and a slice view for each entry of its page "cases".

    A gallery that is whole and was made from the same files and settings is kept; another one is replaced. The table
    of the gallery is written after its pictures, their checksums last.

    Parameters
    ----------
    tables : StudyTables
    entries : DataFrame
        From `gallery_entries`.
    models : sequence of str
        Networks side by side.
    view_mm : float
        Edge of the box around the largest lesion that a slice view holds; what lies beyond is not in the file.
    workers : int
    """
    layout, made_from = tables.layout, {"made_from": _checksum_of_inputs(tables, entries, models, view_mm)}
    if is_made_from(layout.gallery_record, made_from):
        print("The gallery is kept: its data and settings have not changed.")
        return
    layout.gallery_record.unlink(missing_ok=True)
    shutil.rmtree(layout.gallery, ignore_errors=True)
    by_case = [rows for _, rows in entries.groupby("case", sort=False)]
    map_cases(partial(_draw_case, tables, models, view_mm), by_case, workers, "pictures")
    write_table(layout.gallery_table, entries)
    facts = {"metrics": checksum(layout.cross_validation / "metrics.csv"), **made_from}
    write_record(layout.gallery_record, facts, gallery_files(layout, entries))


def _checksum_of_inputs(tables: StudyTables, entries: pd.DataFrame, models: Sequence[str], view_mm: float) -> str:
    """One checksum of all that the pictures are made from: settings, tables, images, masks and predictions."""
    layout, shown = tables.layout, set(entries["case"])
    files = [layout.cross_validation / "metrics.csv", layout.cross_validation / "lesions.csv"]
    for case in [case for case in tables.cohort.cases if case.name in shown]:
        files += [*case.files, *layout.prediction_files(case.name, case.fold, models).values()]
    facts = [entries.to_csv(), list(models), view_mm, repr(tables.cohort.rule), [checksum(file) for file in files]]
    return sha256(json.dumps(facts).encode()).hexdigest()


def draw_networks(images: CaseImages, centre: Sequence[float], results: Mapping[str, str], field_mm: float) -> Figure:
    """Three planes through a voxel, a row each; first the whole slice with a box, then the box, network by network.

    Parameters
    ----------
    images : CaseImages
    centre : sequence of 3 floats
        RAS voxel.
    results : mapping of str to str
        What is written above the networks, below their names.
    field_mm : float
        Edge of the box.
    """
    columns = len(images.predictions) + 1
    figure, panels = plt.subplots(3, columns, figsize=(PANEL_INCHES * columns, 3 * PANEL_INCHES + 0.7), squeeze=False)
    figure.subplots_adjust(LABEL_INCHES / figure.get_figwidth(), 0.06, 0.995, 0.92, wspace=0.03, hspace=0.03)
    for row, axis in zip(panels, AXES, strict=True):
        window = left, right, bottom, top = window_around(images.image, centre, axis, field_mm)
        shared = {"image": images.image, "axis": axis, "index": round(centre[axis]), "greys": images.greys}
        draw_slice(row[0], masks={"reference": images.reference}, **shared)
        row[0].add_patch(Rectangle((left, bottom), right - left, top - bottom, fill=False, edgecolor="white"))
        row[0].set_ylabel(PLANES[axis][0], fontsize=8)
        for panel, prediction in zip(row[1:], images.predictions.values(), strict=True):
            masks = {"reference": images.reference, "prediction": prediction}
            draw_slice(panel, masks=masks, window=window, **shared)
    names = {model: fitted(model_title(model), PANEL_INCHES, TITLE_POINTS) for model in images.predictions}
    titles = ["whole slice", *(f"{name}\n{results.get(model, '')}" for model, name in names.items())]
    for panel, title in zip(panels[0], titles, strict=True):
        panel.set_title(title, fontsize=TITLE_POINTS, fontweight="normal")
    add_legend(figure, ("reference", "prediction"))
    return figure


def draw_entry(tables: StudyTables, images: CaseImages, entry: pd.Series) -> Figure:
    """Draw what an entry of the gallery shows: a case around its largest lesion, or a lesion around its centre."""
    metrics, lesions = tables.metrics, tables.lesions
    if entry["page"] == "cases":
        dice = metrics[metrics["case"] == images.name].set_index("model")["dice"]
        return draw_networks(images, images.place, dice.map("Dice {:.2f}".format).to_dict(), CASE_FIELD_MM)
    if entry["page"] == "false":
        results = {entry["group"]: "false lesion"}
    else:
        rows = lesions[(lesions["case"] == images.name) & (lesions["lesion"] == entry["lesion"])].set_index("model")
        results = rows["dice"].map("Dice {:.2f}".format).where(rows["detected"], "missed").to_dict()
    field_mm = max(FIELD_MM, FIELD_DIAMETERS * entry["diameter_mm"])
    return draw_networks(images, entry[CENTRE].to_list(), results, field_mm)


def save_picture(figure: Figure, file: Path | BinaryIO) -> None:
    """Save a picture of the gallery as WebP, no wider than a page shows it."""
    figure.savefig(file, dpi=min(DPI, MOST_PIXELS_WIDE / figure.get_figwidth()), **WEBP)


def _false_of_case(tables: StudyTables, models: Sequence[str], case: Case) -> pd.DataFrame:
    images = read_case_images(tables.layout, tables.cohort, case.name, models)
    found = [
        false_lesions(images.reference, mask, images.image.spacing_mm).assign(model=model)
        for model, mask in images.predictions.items()
    ]
    return pd.concat(found, ignore_index=True).assign(case=case.name, primary=case.primary)


def _draw_case(tables: StudyTables, models: Sequence[str], view_mm: float, entries: pd.DataFrame) -> None:
    plt.switch_backend("Agg")
    use_style()
    images = read_case_images(tables.layout, tables.cohort, entries["case"].iloc[0], models)
    for _, entry in entries.drop_duplicates("picture").iterrows():
        figure = draw_entry(tables, images, entry)
        with finished(tables.layout.gallery / picture_file(entry["picture"])) as unfinished:
            save_picture(figure, unfinished)
        plt.close(figure)
    for entry in entries[entries["page"] == "cases"].itertuples():
        with finished(tables.layout.gallery / view_file(entry.picture, entry.group)) as unfinished:
            unfinished.write_text(slice_view(images, entry.group, images.place, view_mm), encoding="utf-8")


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
