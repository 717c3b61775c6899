"""Slices with outlines, as a radiologist reads them: patient's right on the left, front and top up."""

from collections.abc import Iterable, Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from metaseg_nb.cohort.head import shown_window
from metaseg_nb.cohort.lesions import label_lesions
from metaseg_nb.cohort.volumes import Volume
from metaseg_nb.figures.style import PREDICTION, REFERENCE

# Left, right, bottom and top of a picture, in millimetres.
Extent = tuple[float, float, float, float]

# Name of the plane across each axis, and the letters at the left, right, bottom and top of its picture.
PLANES = {0: ("sagittal", "APIS"), 1: ("coronal", "RLIS"), 2: ("axial", "RLPA")}
AXES = (2, 1, 0)  # in the order in which planes are shown
SCALE_BAR_MM = 20
WRITING = {"color": "white", "fontsize": 8, "ha": "center", "va": "center"}
COLOURS = {"reference": REFERENCE, "prediction": PREDICTION}


def picture(array: np.ndarray, axis: int, index: int) -> np.ndarray:
    """Cut a slice out of an RAS array and turn it so that row 0 is the bottom of the picture.

    Returns
    -------
    ndarray, shape (rows, columns)
        For ``imshow(..., origin="lower")``. Right is on the left (axial,
        coronal), front on the left (sagittal).
    """
    return np.moveaxis(array, axis, 0)[index][::-1].T


def draw_slice(
    axes: Axes,
    image: Volume,
    masks: Mapping[str, np.ndarray],
    axis: int,
    index: int,
    window: Extent | None = None,
    greys: tuple[float, float] | None = None,
    colours: Mapping[str, str] = COLOURS,
) -> None:
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
    """
    outlines = [(picture(mask, axis, index), colours[name]) for name, mask in masks.items()]
    edges = [edge for i, edge in enumerate(image.spacing_mm) if i != axis]
    limits = greys or shown_window(image.array)
    _draw(axes, picture(image.array, axis, index), edges, limits, outlines, PLANES[axis][1], window)


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
) -> Figure:
    """Draw the axial, coronal and sagittal slice through a voxel, with a legend; see `draw_slice`."""
    sizes = np.multiply(image.array.shape, image.spacing_mm)
    widths, greys = [sizes[0], sizes[0], sizes[1]], greys or shown_window(image.array)
    figure, panels = plt.subplots(1, 3, figsize=(11, 4.3), layout="constrained", width_ratios=widths)
    for panel, axis in zip(panels, AXES, strict=True):
        draw_slice(panel, image, masks, axis, round(centre[axis]), greys=greys, colours=colours)
        panel.set_title(PLANES[axis][0], fontweight="normal")
    figure.suptitle(title)
    add_legend(figure, masks, colours)
    return figure


def add_legend(figure: Figure, names: Iterable[str], colours: Mapping[str, str] = COLOURS) -> None:
    """Name the outlines' colours below a figure."""
    lines = [Line2D([], [], color=colours[name], label=name) for name in names]
    if lines:
        figure.legend(handles=lines, loc="outside lower center", ncols=len(lines), frameon=False)


def centre_of_largest(mask: np.ndarray) -> tuple[int, int, int]:
    """A voxel of the largest component of a mask, nearest to its centre of mass; the volume's middle when empty."""
    labels, n = label_lesions(mask)
    if n == 0:
        return tuple(size // 2 for size in mask.shape)
    voxels = np.argwhere(labels == np.bincount(labels.ravel())[1:].argmax() + 1)
    nearest = voxels[((voxels - voxels.mean(axis=0)) ** 2).sum(axis=1).argmin()]
    return tuple(int(i) for i in nearest)


def draw_axial_slice(axes: Axes, grey: np.ndarray, lesion: np.ndarray, spacing_mm: Sequence[float]) -> None:
    """Draw an axial slice of grey values 0 to 255, shape (X, Y), with the outline of its lesions."""
    shown, outlined = (picture(array[..., None], 2, 0) for array in (grey, lesion))
    _draw(axes, shown, spacing_mm, (0, 255), [(outlined, REFERENCE)], PLANES[2][1])


def mark_sides(axes: Axes, letters: str, extent: Extent) -> None:
    """Write the letters of left, right, bottom and top at the sides of a picture."""
    places = [(0.02, 0.5, {"ha": "left"}), (0.98, 0.5, {"ha": "right"})]
    places += [(0.5, 0.02, {"va": "bottom"}), (0.5, 0.98, {"va": "top"})]
    for letter, (x, y, inwards) in zip(letters, places, strict=True):
        axes.text(*_place(extent, x, y), letter, **(WRITING | inwards))


def _draw(
    axes: Axes,
    shown: np.ndarray,
    edges_mm: Sequence[float],
    greys: tuple[float, float],
    outlines: Iterable[tuple[np.ndarray, str]],
    letters: str,
    window: Extent | None = None,
) -> None:
    """Draw a picture, outlines in their colours, the letters of its sides and a scale bar."""
    across, up = edges_mm
    extent = (0, shown.shape[1] * across, 0, shown.shape[0] * up)
    low, high = greys
    axes.imshow(shown, cmap="gray", vmin=low, vmax=high, origin="lower", extent=extent, interpolation="bilinear")
    for mask, colour in outlines:
        if mask.any():
            padded = np.pad(mask.astype(float), 1)  # a lesion at the border has a whole outline
            x, y = ((np.arange(n) - 0.5) * edge for n, edge in zip(padded.shape[::-1], edges_mm, strict=True))
            axes.contour(x, y, padded, [0.5], colors=colour, linewidths=1.2)
    left, right, bottom, top = window or extent
    mark_sides(axes, letters, (left, right, bottom, top))
    bar_mm = SCALE_BAR_MM if right - left > 4 * SCALE_BAR_MM else SCALE_BAR_MM // 2
    (x, y), (_, above) = (_place((left, right, bottom, top), 0.05, height) for height in (0.06, 0.105))
    axes.plot([x, x + bar_mm], [y, y], color="white", linewidth=2)
    axes.text(x, above, f"{bar_mm} mm", **(WRITING | {"fontsize": 7, "ha": "left"}))
    axes.set(xticks=[], yticks=[], facecolor="black", xlim=(left, right), ylim=(bottom, top))


def _place(extent: Extent, x: float, y: float) -> tuple[float, float]:
    """The point at shares of a picture's width and height."""
    left, right, bottom, top = extent
    return left + x * (right - left), bottom + y * (top - bottom)
