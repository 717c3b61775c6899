"""The pictures of the gallery: three planes, networks side by side; and slice views that turn in a browser."""

import gc
import json
import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from nilearn.plotting import view_img

from metaseg_nb.checksums import checksum, write_record
from metaseg_nb.cohort.cases import Case
from metaseg_nb.cohort.datalist import require_written
from metaseg_nb.cohort.problems import CohortError
from metaseg_nb.figures.reviewed import (
    AGREEMENT_COLOURS,
    CaseImages,
    StudyTables,
    false_lesions,
    read_case_images,
)
from metaseg_nb.figures.slices import AXES, PLANES, add_legend, draw_slice, window_around
from metaseg_nb.figures.style import fitted, use_style
from metaseg_nb.files import finished, write_table
from metaseg_nb.machine import map_cases
from metaseg_nb.parameters import model_title
from metaseg_nb.report.gallery import CENTRE, gallery_files, picture_file, view_file
from metaseg_nb.report.pages import MOST_PIXELS_WIDE, QUALITY, with_light_pictures

PANEL_INCHES, LABEL_INCHES, TITLE_POINTS = 2.1, 0.25, 8.5
# Around a lesion: at least this much is shown, and of a large one this many diameters. And of a whole case.
FIELD_MM, FIELD_DIAMETERS, CASE_FIELD_MM = 50.0, 2.0, 110.0
# Half the size of a JPEG that looks as good.
WEBP = {"format": "webp", "pil_kwargs": {"quality": QUALITY}}
DPI = 100


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
    layout, metrics = tables.layout, tables.layout.cross_validation / "metrics.csv"
    made_from = _checksum_of_inputs(tables, entries, models, view_mm)
    files = gallery_files(layout, entries)
    try:
        if require_written(layout, *files).get("made_from") == made_from:
            print("The gallery is kept: its data and settings have not changed.")
            return
    except CohortError:  # none yet, or files are missing or changed
        pass
    layout.gallery_record.unlink(missing_ok=True)
    shutil.rmtree(layout.gallery, ignore_errors=True)
    by_case = [rows for _, rows in entries.groupby("case", sort=False)]
    map_cases(partial(_draw_case, tables, models, view_mm), by_case, workers, "pictures")
    write_table(layout.gallery_table, entries)
    write_record(layout.gallery_record, {"metrics": checksum(metrics), "made_from": made_from}, files)


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


def slice_view(images: CaseImages, model: str, centre: Sequence[int], view_mm: float) -> str:
    """A page with three planes to click through: agreement of a network with the reference around a voxel.

    The page holds the voxels of a box of ``view_mm``, scaled to 256 greys, and nothing else of the file.
    """
    compared = images.agreement(model)
    half = [view_mm / 2 / edge for edge in images.image.spacing_mm]
    kept = tuple(slice(max(0, round(c - h)), round(c + h) + 1) for c, h in zip(centre, half, strict=True))
    gc.freeze()  # nilearn looks for garbage eight times a view: in all that a notebook holds, this takes two seconds
    try:
        view = view_img(
            images.nifti(compared, kept),
            bg_img=images.nifti(images.image.array, kept),
            cut_coords=images.image.affine[:3, :3] @ centre + images.image.affine[:3, 3],
            cmap=ListedColormap(list(AGREEMENT_COLOURS.values())),
            vmin=1,
            vmax=3,
            threshold=0.5 if compared[kept].any() else None,
            symmetric_cmap=False,
            resampling_interpolation="nearest",
            colorbar=False,
            opacity=0.55,
            black_bg=True,
            dim=0,
            radiological=True,
        )
    finally:
        gc.unfreeze()
    return with_light_pictures(view.get_standalone())


def draw_entry(tables: StudyTables, images: CaseImages, entry: pd.Series) -> Figure:
    """Draw what an entry of the gallery shows: a case around its largest lesion, or a lesion around its centre."""
    metrics, lesions = tables.metrics, tables.lesions
    if entry["page"] == "cases":
        dice = metrics[metrics["case"] == images.name].set_index("model")["dice"]
        return draw_networks(images, images.place, dice.map("Dice {:.2f}".format).to_dict(), CASE_FIELD_MM)
    if entry["page"] == "false":
        results = {entry["group"]: "false positive"}
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
