"""Figures of notebook 01: who is in a cohort, how it was acquired, where its lesions lie."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter

from metaseg_nb.cohort.cases import Case
from metaseg_nb.cohort.examination import Examination
from metaseg_nb.cohort.position import HEMISPHERES, THIRDS
from metaseg_nb.figures.montage import grid_of_panels, title_panel
from metaseg_nb.figures.slices import PLANES, add_legend, draw_thumbnail, mark_sides, picture
from metaseg_nb.figures.style import fitted

# Bars of a histogram over the range of a quantity.
BINS = 16
# Widths of names: of scanners beside bars, of six primaries side by side.
SCANNER_INCHES = 2.0
LEGEND_INCHES = 1.5


def draw_burden(cases: pd.DataFrame, lesions: pd.DataFrame) -> Figure:
    """Lesions per patient, largest diameters and volumes, by primary cancer, with n and mean ± sd.

    Parameters
    ----------
    cases : DataFrame
        ``patient``, ``primary``, ``n_lesions`` of each labelled case that could be read.
    lesions : DataFrame
        ``primary``, ``diameter_mm``, ``volume_mm3`` of each lesion.
    """
    if cases.empty:
        return _say("no mask could be read: nothing to draw")
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(12, 3.8), layout="constrained")
    per_patient = cases.groupby(["patient", "primary"], as_index=False)["n_lesions"].sum()
    colours = _colours(cases["primary"])
    most = int(per_patient["n_lesions"].max()) if len(per_patient) else 1
    _stack(left, per_patient, "n_lesions", np.arange(-0.5, most + 1.5), colours)
    _stack(middle, lesions, "diameter_mm", _bins(lesions, "diameter_mm"), colours)
    _stack(right, lesions.assign(volume=lesions["volume_mm3"] / 1000), "volume", _decades(lesions), colours)
    right.set_xscale("log")
    right.xaxis.set_major_formatter("{x:g}")
    right.xaxis.set_minor_formatter(NullFormatter())
    left.xaxis.set_major_locator(MaxNLocator(integer=True))
    left.set(xlabel="lesions per patient", ylabel="patients", title=_n(per_patient["n_lesions"], "patients", ""))
    middle.set(xlabel="largest diameter (mm)", ylabel="lesions", title=_n(lesions["diameter_mm"], "lesions", " mm"))
    title = (
        f"n = {len(lesions)} lesions: median {lesions['volume_mm3'].median() / 1000:.2g} cm³" if len(lesions) else ""
    )
    right.set(xlabel="volume (cm³)", ylabel="lesions", title=title)
    patches = [plt.Rectangle((0, 0), 1, 1, color=colour) for colour in colours.values()]
    names = [fitted(primary, LEGEND_INCHES, 9) for primary in colours]
    figure.legend(patches, names, loc="outside lower center", ncols=min(6, len(colours)), frameon=False)
    sns.despine(figure)
    return figure


def draw_acquisition(cases: pd.DataFrame) -> Figure:
    """Voxel edges and intensity ranges of the images, a line a case, and their scanners."""
    read = cases.dropna(subset="finest_mm")
    if read.empty:
        return _say("no image could be read: nothing to draw")
    figure, panels = plt.subplots(1, 3, figsize=(12, 3.8), layout="constrained", width_ratios=(3, 5, 3))
    ranges = cases.dropna(subset="intensity_median").sort_values("intensity_median", ignore_index=True)
    sizes = read.groupby(["finest_mm", "coarsest_mm"]).size().reset_index(name="n")
    panels[0].scatter(sizes["finest_mm"], sizes["coarsest_mm"], s=30 + 20 * sizes["n"], color="#0072B2", alpha=0.6)
    top = 1.15 * float(read["coarsest_mm"].max())
    panels[0].plot([0, top], [0, top], color="#999999", linewidth=1)
    for row in sizes.itertuples():
        panels[0].annotate(f"{row.n}", (row.finest_mm, row.coarsest_mm), ha="center", va="center", fontsize=7)
    panels[0].set(xlabel="shortest voxel edge (mm)", ylabel="longest voxel edge (mm)", xlim=(0, top), ylim=(0, top))
    panels[0].set_title(f"n = {len(read)} images (line: cubic voxels)")
    if len(ranges):
        panels[1].vlines(ranges.index, ranges["intensity_p1"], ranges["intensity_p99"], color="#0072B2", linewidth=2)
        panels[1].plot(ranges.index, ranges["intensity_median"], "k_", markersize=6)
    panels[1].set(xlabel="images, by median", ylabel="intensity in the head", title="1st to 99th percentile, median")
    panels[1].xaxis.set_major_locator(MaxNLocator(integer=True))
    scanners = cases["scanner"].value_counts()[::-1]
    panels[2].barh([fitted(name, SCANNER_INCHES, 9) for name in scanners.index], scanners, height=0.5, color="#0072B2")
    panels[2].set(xlabel="cases", title="scanner", ylim=(-0.7, max(3, len(scanners)) - 0.3))
    panels[2].xaxis.set_major_locator(MaxNLocator(integer=True))
    sns.despine(figure)
    return figure


def draw_positions(lesions: pd.DataFrame) -> Figure:
    """Lesions by third of the brain's height and hemisphere, and their depth below its surface."""
    placed = lesions.dropna(subset="depth_mm")
    if placed.empty:
        return _say("no lesion could be placed: nothing to draw")
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 3.2), layout="constrained")
    counts = pd.crosstab(placed["third"], placed["hemisphere"]).reindex(index=THIRDS, columns=HEMISPHERES, fill_value=0)
    from_left = np.zeros(len(THIRDS))
    for hemisphere, colour in zip(HEMISPHERES, ("#56B4E9", "#E69F00"), strict=True):
        left.barh(THIRDS, counts[hemisphere], left=from_left, color=colour, label=f"{hemisphere} hemisphere")
        from_left += counts[hemisphere].to_numpy(float)
    left.set(xlabel="lesions", title=f"third of the brain, n = {len(placed)} lesions")
    left.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    left.xaxis.set_major_locator(MaxNLocator(integer=True))
    right.hist(placed["depth_mm"], bins=_bins(placed, "depth_mm"), color="#0072B2", edgecolor="white")
    right.yaxis.set_major_locator(MaxNLocator(integer=True))
    right.set(xlabel="depth of the centre below the surface (mm)", ylabel="lesions")
    right.set_title(_n(placed["depth_mm"], "lesions", " mm"))
    sns.despine(figure)
    return figure


def draw_lesion_map(cases: Sequence[Case], examinations: Sequence[Examination]) -> Figure:
    """In how many patients a lesion lies along each line of sight; every brain fitted into one box."""
    heads = [e.head_map for e in examinations if e.lesion_map is not None]
    by_patient: dict[str, np.ndarray] = {}
    for case, examination in zip(cases, examinations, strict=True):
        if examination.lesion_map is not None:
            before = by_patient.get(case.patient, np.zeros_like(examination.lesion_map))
            by_patient[case.patient] = before | examination.lesion_map
    if not by_patient:
        return _say("no lesion could be placed: nothing to draw")
    figure, panels = plt.subplots(1, 3, figsize=(12, 4.2), layout="constrained")
    for panel, axis in zip(panels, (2, 1, 0), strict=True):
        panel.set(xticks=[], yticks=[], facecolor="black")
        panel.set_title(f"{PLANES[axis][0]} view", fontweight="normal")
        seen = sum(lesions.any(axis=axis).astype(int) for lesions in by_patient.values())
        drawn = _draw_view(panel, seen, np.mean([head.any(axis=axis) for head in heads], axis=0), axis)
        figure.colorbar(drawn, ax=panel, orientation="horizontal", shrink=0.7, label="patients with a lesion there",
                            ticks=MaxNLocator(4, integer=True))  # fmt: skip
    figure.suptitle(f"n = {len(by_patient)} patients")
    return figure


def draw_montage(cases: Sequence[Case], examinations: Sequence[Examination]) -> Figure:
    """Every case's axial slice with most lesion, with its outline."""
    figure, panels = grid_of_panels(len(cases))
    for panel, case, examination in zip(panels, cases, examinations, strict=True):
        if examination.thumbnail is None:
            panel.text(0.5, 0.5, "not readable", ha="center", va="center", transform=panel.transAxes)
            panel.set(xticks=[], yticks=[])
        else:
            draw_thumbnail(panel, examination.thumbnail)
        count = "no label" if case.label is None else f"lesions: {examination.facts.get('n_lesions', 'unknown')}"
        title_panel(panel, case.name, f"{case.primary}, {count}")
    add_legend(figure, ["reference"])
    return figure


def _say(text: str) -> Figure:
    figure = plt.figure(figsize=(12, 0.6))
    figure.text(0.01, 0.5, text, va="center")
    return figure


def _draw_view(panel: Axes, seen: np.ndarray, head: np.ndarray, axis: int):
    extent = (0, seen.shape[0], 0, seen.shape[1])
    shown = picture(seen[..., None], 2, 0)
    drawn = panel.imshow(shown, origin="lower", extent=extent, cmap="magma", vmin=0, interpolation="nearest")
    outline = np.pad(picture(head[..., None], 2, 0), 1)
    x, y = (np.arange(n) - 0.5 for n in outline.shape[::-1])
    panel.contour(x, y, outline, [0.5], colors="white", linewidths=1)
    mark_sides(panel, PLANES[axis][1], extent)
    return drawn


def _stack(axes: Axes, table: pd.DataFrame, column: str, bins: np.ndarray, colours: Mapping[str, tuple]) -> None:
    values = [table.loc[table["primary"] == primary, column].to_numpy(float) for primary in colours]
    axes.hist(values, bins=bins, stacked=True, color=list(colours.values()), edgecolor="white", linewidth=0.5)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))


def _colours(primaries: pd.Series) -> dict[str, tuple]:
    names = sorted(primaries.unique())
    return dict(zip(names, sns.color_palette("colorblind", len(names)), strict=True))


def _bins(table: pd.DataFrame, column: str) -> np.ndarray:
    most = float(table[column].max()) if len(table) else 1.0
    return np.linspace(0, max(most, 1.0), BINS + 1)


def _decades(lesions: pd.DataFrame) -> np.ndarray:
    volumes = lesions["volume_mm3"].to_numpy(float) / 1000
    low, high = (volumes.min(), volumes.max()) if len(volumes) else (0.1, 1.0)
    return np.geomspace(0.9 * low, 1.1 * high, BINS + 1)


def _n(values: pd.Series, what: str, unit: str) -> str:
    values = values.astype(float)
    return f"n = {len(values)} {what}: {values.mean():.1f} ± {values.std():.1f}{unit}" if len(values) else f"no {what}"
