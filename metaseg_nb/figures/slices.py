"""Slices with outlines, as a radiologist reads them: patient's right on the left, front and top up."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D

from metaseg_nb.cohort.head import shown_window
from metaseg_nb.cohort.volumes import Volume
from metaseg_nb.figures.style import BRAIN_COLOUR, PREDICTION, REFERENCE, fitted

# Left, right, bottom and top of a picture, in millimetres.
Extent = tuple[float, float, float, float]

# Name of the plane across each axis, and the letters at the left, right, bottom and top of its picture.
PLANES = {0: ("sagittal", "APIS"), 1: ("coronal", "RLIS"), 2: ("axial", "RLPA")}
AXES = (2, 1, 0)  # in the order in which planes are shown
SIDES = ((0.02, 0.5, "left", "center"), (0.98, 0.5, "right", "center"))
SIDES += ((0.5, 0.02, "center", "bottom"), (0.5, 0.98, "center", "top"))
SCALE_BAR_MM = 20
COLOURS = {"reference": REFERENCE, "prediction": PREDICTION, "brain": BRAIN_COLOUR}
# Of many small pictures: more columns, and so smaller ones, for many.
WIDTH_INCHES, FEW, MANY, TITLE_POINTS = 11.0, 60, 200, 8


def picture(array: np.ndarray, axis: int, index: int) -> np.ndarray:
    """Cut a slice out of an RAS array and turn it so that row 0 is the bottom of the picture.

    Returns
    -------
    ndarray, shape (rows, columns)
        For ``imshow(..., origin="lower")``. Right is on the left (axial,
        coronal), front on the left (sagittal).
    """
    return np.moveaxis(array, axis, 0)[index][::-1].T


def as_volume(array: np.ndarray, spacing_mm: Sequence[float] = (1, 1, 1)) -> Volume:
    """A plain array in RAS order as a volume to draw; a slice of shape (X, Y) becomes one of (X, Y, 1)."""
    array = array if array.ndim == 3 else array[:, :, None]
    return Volume(array, np.diag([*spacing_mm, *[1.0] * (4 - len(spacing_mm))]), np.empty((0, 2)))


def draw_slice(
    axes: Axes,
    image: Volume,
    masks: Mapping[str, np.ndarray],
    axis: int = 2,
    index: int = 0,
    window: Extent | None = None,
    greys: tuple[float, float | None] | None = None,
    colours: Mapping[str, str] = COLOURS,
    letters: bool = True,
    scale_bar: bool = True,
    **style: Any,
) -> AxesImage:
    """Draw a slice with the outlines of masks.

    Parameters
    ----------
    axes : Axes
    image : Volume
    masks : mapping of str to ndarray of bool
        On the image's grid; "reference" or "prediction", or a name in ``colours``.
    axis, index : int
        The slice, in RAS voxels.
    window : tuple of 4 floats, optional
        The part of the slice to show, from `window_around`; all of it by default.
    greys : tuple of 2 floats, optional
        Values drawn black and white; found in the image by default, which takes time.
    colours : mapping of str to str
        Of the masks.
    letters, scale_bar : bool
        Whether the sides of the patient are named, and whether a length in millimetres is shown.
    **style
        Of ``imshow``.
    """
    across, up = (edge for i, edge in enumerate(image.spacing_mm) if i != axis)
    shown = picture(image.array, axis, index)
    extent = (0, shown.shape[1] * across, 0, shown.shape[0] * up)
    low, high = greys or shown_window(image.array)
    style = {"cmap": "gray", "interpolation": "bilinear", **style}
    drawn = axes.imshow(shown, vmin=low, vmax=high, origin="lower", extent=extent, **style)
    for name, mask in masks.items():
        outlined = np.pad(picture(mask, axis, index).astype(float), 1)  # a lesion at the border has a whole outline
        if outlined.any():
            rows, columns = outlined.shape
            x, y = (np.arange(columns) - 0.5) * across, (np.arange(rows) - 0.5) * up
            axes.contour(x, y, outlined, [0.5], colors=colours[name], linewidths=1.2)
    left, right, bottom, top = window or extent
    axes.set(xticks=[], yticks=[], facecolor="black", xlim=(left, right), ylim=(bottom, top))
    if letters:
        for letter, (x, y, ha, va) in zip(PLANES[axis][1], SIDES, strict=True):
            axes.text(x, y, letter, ha=ha, va=va, color="white", fontsize=8, transform=axes.transAxes)
    if scale_bar:
        bar_mm = SCALE_BAR_MM if right - left > 4 * SCALE_BAR_MM else SCALE_BAR_MM // 2
        start, place = left + 0.05 * (right - left), axes.get_xaxis_transform()
        axes.plot([start, start + bar_mm], [0.06, 0.06], color="white", linewidth=2, transform=place)
        axes.text(start, 0.105, f"{bar_mm} mm", va="center", color="white", fontsize=7, transform=place)
    return drawn


def window_around(image: Volume, voxel: Sequence[float], axis: int, edge_mm: float) -> Extent:
    """A square part of the slice across ``axis``, around a voxel of the RAS array, for `draw_slice`."""
    across, up = (i for i in range(3) if i != axis)
    edge = image.spacing_mm
    x = (image.array.shape[across] - voxel[across] - 0.5) * edge[across]
    y = (voxel[up] + 0.5) * edge[up]
    half = edge_mm / 2
    return x - half, x + half, y - half, y + half


def draw_planes(
    image: Volume,
    masks: Mapping[str, np.ndarray],
    centre: Sequence[float],
    title: str = "",
    greys: tuple[float, float] | None = None,
    colours: Mapping[str, str] = COLOURS,
    edge_mm: float = 0,
) -> Figure:
    """Draw the axial, coronal and sagittal slice through a voxel, with a legend; see `draw_slice`.

    Whole, or with ``edge_mm`` a square of that edge around the voxel.
    """
    sizes = np.multiply(image.array.shape, image.spacing_mm)
    widths, greys = [1, 1, 1] if edge_mm else [sizes[0], sizes[0], sizes[1]], greys or shown_window(image.array)
    figure, panels = plt.subplots(1, 3, figsize=(11, 4.3), layout="constrained", width_ratios=widths)
    for panel, axis in zip(panels, AXES, strict=True):
        window = window_around(image, centre, axis, edge_mm) if edge_mm else None
        draw_slice(panel, image, masks, axis, round(centre[axis]), window, greys, colours)
        panel.set_title(PLANES[axis][0], fontweight="normal")
    figure.suptitle(title)
    add_legend(figure, masks, colours)
    return figure


def add_legend(figure: Figure, names: Iterable[str], colours: Mapping[str, str] = COLOURS) -> None:
    """Name the outlines' colours below a figure."""
    lines = [Line2D([], [], color=colours[name], label=name) for name in names]
    if lines:
        figure.legend(handles=lines, loc="outside lower center", ncols=len(lines), frameon=False)


@dataclass(frozen=True)
class Panel:
    """An axial slice of a figure of many: what `draw_slice` takes, below lines of a title; no image: why not."""

    title: Sequence[str]
    image: Volume | None
    masks: Mapping[str, np.ndarray] = field(default_factory=dict)
    index: int = 0
    look: Mapping[str, Any] = field(default_factory=dict)
    missing: str = "not readable"


def draw_panels(shown: Sequence[Panel], columns: int = 0) -> Figure:
    """Draw slices row by row, with a legend; what is left of the last row stays blank.

    Parameters
    ----------
    shown : sequence of Panel
        Lines of their titles are no wider than the picture.
    columns : int
        0: six, and more for many slices.
    """
    n = len(shown)
    columns = columns or min(n, 6 if n <= FEW else 8 if n <= MANY else 10)
    inches, rows = min(WIDTH_INCHES / columns, 4.0), math.ceil(n / columns)
    size = (columns * inches, rows * inches * 1.25)
    figure, axes = plt.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False)
    for blank in axes.flat[n:]:
        blank.set_visible(False)
    for panel, it in zip(axes.flat, shown, strict=False):
        if it.image is None:
            panel.text(0.5, 0.5, it.missing, ha="center", va="center", transform=panel.transAxes)
            panel.set(xticks=[], yticks=[])
        else:
            draw_slice(panel, it.image, it.masks, index=it.index, **it.look)
        title = "\n".join(fitted(line, inches, TITLE_POINTS) for line in it.title)
        panel.set_title(title, fontsize=TITLE_POINTS, fontweight="normal")
    add_legend(figure, dict.fromkeys(name for panel in shown for name in panel.masks))
    return figure
