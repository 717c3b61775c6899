"""Pictures of notebook 01: where lesions lie, and every case."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from metaseg_nb.cohort.cases import Case
from metaseg_nb.cohort.examination import Examination
from metaseg_nb.figures.montage import grid_of_panels, title_panel
from metaseg_nb.figures.slices import PLANES, add_legend, draw_axial_slice, mark_sides, picture


def draw_lesion_map(cases: Sequence[Case], examinations: Sequence[Examination]) -> Figure:
    """In how many patients a lesion lies along each line of sight; every brain fitted into one box."""
    heads = [e.head_map for e in examinations if e.lesion_map is not None]
    by_patient: dict[str, np.ndarray] = {}
    for case, examination in zip(cases, examinations, strict=True):
        if examination.lesion_map is not None:
            before = by_patient.get(case.patient, np.zeros_like(examination.lesion_map))
            by_patient[case.patient] = before | examination.lesion_map
    if not by_patient:
        figure = plt.figure(figsize=(12, 0.6))
        figure.text(0.01, 0.5, "no lesion could be placed: nothing to draw", va="center")
        return figure
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
        if examination.grey_slice is None or examination.lesion_slice is None:
            panel.text(0.5, 0.5, "not readable", ha="center", va="center", transform=panel.transAxes)
            panel.set(xticks=[], yticks=[])
        else:
            spacing_mm = examination.facts["slice_spacing_mm"]
            draw_axial_slice(panel, examination.grey_slice, examination.lesion_slice, spacing_mm)
        count = "no label" if case.label is None else f"lesions: {examination.facts.get('n_lesions', 'unknown')}"
        title_panel(panel, case.name, f"{case.primary}, {count}")
    add_legend(figure, ["reference"])
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
