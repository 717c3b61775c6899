"""Pictures of notebook 02: bias correction and prepared cases."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from metaseg_nb.cohort.lesions import fullest_slice
from metaseg_nb.cohort.volumes import Volume
from metaseg_nb.figures.montage import grid_of_panels, title_panel
from metaseg_nb.figures.slices import PLANES, add_legend, draw_slice, mark_sides, picture
from metaseg_nb.figures.style import fitted
from metaseg_nb.preprocessing.stored_case import CorrectionRecord, StoredCase

# Brightest grey value, as a percentile of the slice: vessels may be clipped.
WHITE_PERCENTILE = 99.7
# The field's colours reach at least this far from 1, or no correction would look like a strong one.
LEAST_FIELD = 0.1


def draw_corrections(cases: Sequence[StoredCase]) -> Figure:
    """Axial slice before, estimated field and slice after; a row a case.

    Before and after share one grey scale in a row, all fields share one colour scale.
    """
    records = [case.correction for case in cases]
    figure, rows = plt.subplots(
        len(cases), 3, figsize=(6.8, 2.8 * len(cases) + 0.6), layout="constrained", squeeze=False
    )
    fields = [record.field[np.isfinite(record.field)].astype(np.float32) for record in records]
    reach = max([LEAST_FIELD, *(float(np.percentile(np.abs(field - 1), 99)) for field in fields if field.size)])
    coloured = {"cmap": "viridis", "vmin": 1 - reach, "vmax": 1 + reach}
    for panels, case, record in zip(rows, cases, records, strict=True):
        low, high = np.percentile(record.before, (100 - WHITE_PERCENTILE, WHITE_PERCENTILE))
        grey = {"cmap": "gray", "vmin": float(min(low, 0)), "vmax": float(high)}
        field_range = f"field, {float(record.field_range):.2f}-fold"
        views = (
            (f"{fitted(case.name, 1.6, 9)}, before", record.before, grey),
            (field_range, record.field, coloured),
            ("after", record.after, grey),
        )
        drawn = [_draw(panel, record, *view) for panel, view in zip(panels, views, strict=True)]
    figure.colorbar(drawn[1], ax=rows[:, 1], orientation="horizontal", label="factor divided out")
    return figure


def draw_stored_cases(cases: Sequence[StoredCase]) -> Figure:
    """Every prepared case on the study grid, slice with most lesion, first sequence."""
    figure, panels = grid_of_panels(len(cases))
    labelled = False
    for panel, case in zip(panels, cases, strict=True):
        first = case.image[0].astype(np.float32)
        image = Volume(first, np.diag([*case.grid.spacing_mm, 1.0]), np.empty((0, 2)))
        masks = {"reference": np.asarray(case.label) > 0} if case.has_label else {}
        labelled |= case.has_label
        index = fullest_slice(masks["reference"]) if masks else first.shape[2] // 2
        draw_slice(panel, image, masks, axis=2, index=index)
        shape = "x".join(str(n) for n in case.grid.shape)
        title_panel(panel, case.name, shape)
    add_legend(figure, ["reference"] if labelled else [])
    return figure


def _draw(panel: Axes, record: CorrectionRecord, title: str, array: np.ndarray, style: dict) -> plt.cm.ScalarMappable:
    shown = picture(array[..., None].astype(np.float32), 2, 0)
    extent = (0, array.shape[0] * record.spacing_mm[0], 0, array.shape[1] * record.spacing_mm[1])
    drawn = panel.imshow(shown, origin="lower", extent=extent, **style)
    mark_sides(panel, PLANES[2][1], extent)
    panel.set(xticks=[], yticks=[], facecolor="black")
    panel.set_title(title, fontsize=9, fontweight="normal")
    return drawn
