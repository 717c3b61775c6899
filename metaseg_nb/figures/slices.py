"""Slices with outlines, as a radiologist reads them: patient's right on the left, front and top up."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from metaseg_nb.cohort.lesions import label_lesions
from metaseg_nb.cohort.thumbnail import Thumbnail, shown_window
from metaseg_nb.cohort.volumes import Volume
from metaseg_nb.figures.style import PREDICTION, REFERENCE

# Left, right, bottom and top of a picture, in millimetres.
Extent = tuple[float, float, float, float]

# Name of the plane across each axis, and the letters at the left, right, bottom and top of its picture.
PLANES = {0: ("sagittal", "APIS"), 1: ("coronal", "RLIS"), 2: ("axial", "RLPA")}
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
) -> None:
    """Draw a slice with the outlines of masks.

    Parameters
    ----------
    axes : Axes
    image : Volume
    masks : mapping of "reference" or "prediction" to ndarray of bool
        On the image's grid.
    axis, index : int
        The slice, in RAS voxels.
    window : tuple of 4 floats, optional
        The part of the slice to show, from `window_around`; all of it by default.
    greys : tuple of 2 floats, optional
        Values drawn black and white; found in the image by default, which takes time.
    """
    across, up = (edge for i, edge in enumerate(image.spacing_mm) if i != axis)
    shown = picture(image.array, axis, index)
    extent = (0, shown.shape[1] * across, 0, shown.shape[0] * up)
    low, high = greys or shown_window(image.array)
    axes.imshow(shown, cmap="gray", vmin=low, vmax=high, origin="lower", extent=extent, interpolation="bilinear")
    for name, mask in masks.items():
        outline_mask(axes, image, mask, axis, index, COLOURS[name])
    _annotate(axes, PLANES[axis][1], window or extent)


def outline_mask(axes: Axes, image: Volume, mask: np.ndarray, axis: int, index: int, colour: str) -> None:
    """Draw the outline of a mask of bool into a picture that `draw_slice` made of the same slice."""
    across, up = (edge for i, edge in enumerate(image.spacing_mm) if i != axis)
    _outline(axes, picture(mask, axis, index), across, up, colour)


def window_around(image: Volume, voxel: Sequence[float], axis: int, edge_mm: float) -> Extent:
    """A square part of the slice across ``axis``, around a voxel of the RAS array, for `draw_slice`."""
    across, up = (i for i in range(3) if i != axis)
    edge = image.spacing_mm
    x = (image.array.shape[across] - voxel[across] - 0.5) * edge[across]
    y = (voxel[up] + 0.5) * edge[up]
    half = edge_mm / 2
    return x - half, x + half, y - half, y + half


def draw_planes(image: Volume, masks: Mapping[str, np.ndarray], centre: Sequence[int], title: str) -> Figure:
    """Draw the axial, coronal and sagittal slice through a voxel, with a legend of the outlines."""
    sizes = np.multiply(image.array.shape, image.spacing_mm)
    widths, greys = [sizes[0], sizes[0], sizes[1]], shown_window(image.array)
    figure, panels = plt.subplots(1, 3, figsize=(11, 4), layout="constrained", width_ratios=widths)
    for panel, axis in zip(panels, (2, 1, 0), strict=True):
        draw_slice(panel, image, masks, axis, int(centre[axis]), greys=greys)
        panel.set_title(PLANES[axis][0], fontweight="normal")
    figure.suptitle(title)
    add_legend(figure, masks)
    return figure


def add_legend(figure: Figure, names: Sequence[str]) -> None:
    """Name the outlines' colours below a figure."""
    legend_of(figure, {name: COLOURS[name] for name in names})


def legend_of(figure: Figure, colours: Mapping[str, str]) -> None:
    """Name colours below a figure."""
    lines = [Line2D([], [], color=colour, label=name) for name, colour in colours.items()]
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


def draw_thumbnail(axes: Axes, thumbnail: Thumbnail) -> None:
    """Draw a kept axial slice with the outline of its lesions."""
    across, up = thumbnail.spacing_mm
    shown = picture(thumbnail.grey[..., None], 2, 0)
    extent = (0, shown.shape[1] * across, 0, shown.shape[0] * up)
    axes.imshow(shown, cmap="gray", vmin=0, vmax=255, origin="lower", extent=extent, interpolation="bilinear")
    _outline(axes, picture(thumbnail.lesion[..., None], 2, 0), across, up, REFERENCE)
    _annotate(axes, PLANES[2][1], extent)


def mark_sides(axes: Axes, letters: str, extent: Extent) -> None:
    """Write the letters of left, right, bottom and top at the sides of a picture."""
    places = [(0.02, 0.5, {"ha": "left"}), (0.98, 0.5, {"ha": "right"})]
    places += [(0.5, 0.02, {"va": "bottom"}), (0.5, 0.98, {"va": "top"})]
    for letter, (x, y, inwards) in zip(letters, places, strict=True):
        axes.text(*_place(extent, x, y), letter, **(WRITING | inwards))


def _place(extent: Extent, x: float, y: float) -> tuple[float, float]:
    """The point that lies at shares of a picture's width and height."""
    left, right, bottom, top = extent
    return left + x * (right - left), bottom + y * (top - bottom)


def _outline(axes: Axes, shown: np.ndarray, across: float, up: float, colour: str) -> None:
    outline = np.pad(shown.astype(float), 1)
    if outline.any():
        x, y = (np.arange(outline.shape[1]) - 0.5) * across, (np.arange(outline.shape[0]) - 0.5) * up
        axes.contour(x, y, outline, [0.5], colors=colour, linewidths=1.2)


def _annotate(axes: Axes, letters: str, extent: Extent) -> None:
    left, right, bottom, top = extent
    mark_sides(axes, letters, extent)
    bar_mm = SCALE_BAR_MM if right - left > 4 * SCALE_BAR_MM else SCALE_BAR_MM // 2
    (x, y), (_, above) = _place(extent, 0.05, 0.06), _place(extent, 0.05, 0.105)
    axes.plot([x, x + bar_mm], [y, y], color="white", linewidth=2)
    axes.text(x, above, f"{bar_mm} mm", **(WRITING | {"fontsize": 7, "ha": "left"}))
    axes.set(xticks=[], yticks=[], facecolor="black", xlim=(left, right), ylim=(bottom, top))
