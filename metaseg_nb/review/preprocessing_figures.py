"""Figures of notebook 02: bias correction and prepared cases."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from metaseg_nb.cohort.volumes import Volume
from metaseg_nb.preprocessing.case_store import StoredCase
from metaseg_nb.preprocessing.prepare import PreparedImage
from metaseg_nb.review.montage import grid_of_panels
from metaseg_nb.review.slices import add_legend, draw_slice, fullest_slice, picture


def draw_bias_correction(prepared: PreparedImage, case: str) -> Figure:
    """Axial slice before correction, estimated field, and slice after, with one grey scale for both images."""
    before, after = prepared.source.array, prepared.corrected
    middle = before.shape[2] // 2
    inside = before > 0
    field = np.divide(before, after, out=np.full(before.shape, np.nan, np.float32), where=inside & (after > 0))
    white = float(np.percentile(before[inside], 99.5))
    figure, panels = plt.subplots(1, 3, figsize=(11, 4), layout="constrained")
    grey = {"cmap": "gray", "vmin": 0, "vmax": white}
    coloured = {"cmap": "viridis", "vmin": 0.6, "vmax": 1.4}
    views = (("before", before, grey), ("bias field (factor)", field, coloured), ("after", after, grey))
    extent = (0, before.shape[0] * prepared.source.spacing_mm[0], 0, before.shape[1] * prepared.source.spacing_mm[1])
    for panel, (title, array, style) in zip(panels, views, strict=True):
        drawn = panel.imshow(picture(array, 2, middle), origin="lower", extent=extent, **style)
        panel.set(xticks=[], yticks=[], title=title)
        label = "factor" if array is field else "intensity"
        figure.colorbar(drawn, ax=panel, orientation="horizontal", shrink=0.8, label=label)
    figure.suptitle(f"{case}, axial, patient's right on the left")
    return figure


def draw_stored_cases(cases: Sequence[StoredCase]) -> Figure:
    """Every prepared case on the study grid, slice with most lesion."""
    figure, panels = grid_of_panels(len(cases))
    labelled = False
    for panel, case in zip(panels, cases, strict=True):
        image = Volume(np.asarray(case.image), np.diag([*case.grid.spacing_mm, 1.0]), np.empty((0, 2)))
        masks = {"reference": np.asarray(case.label) > 0} if case.has_label else {}
        labelled |= case.has_label
        index = fullest_slice(masks["reference"]) if masks else image.array.shape[2] // 2
        draw_slice(panel, image, masks, axis=2, index=index)
        shape = "x".join(str(n) for n in case.grid.shape)
        panel.set_title(f"{case.name}\n{shape}", fontsize=8, fontweight="normal")
    add_legend(figure, ["reference"] if labelled else [])
    return figure
