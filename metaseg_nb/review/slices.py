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
from metaseg_nb.review.style import PREDICTION, REFERENCE

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
    return np.take(array, index, axis=axis)[::-1].T


def draw_slice(axes: Axes, image: Volume, masks: Mapping[str, np.ndarray], axis: int, index: int) -> None:
    """Draw a slice with the outlines of masks.

    Parameters
    ----------
    axes : Axes
    image : Volume
    masks : mapping of "reference" or "prediction" to ndarray of bool
        On the image's grid.
    axis, index : int
        The slice, in RAS voxels.
    """
    across, up = (edge for i, edge in enumerate(image.spacing_mm) if i != axis)
    shown = picture(image.array, axis, index)
    extent = (0, shown.shape[1] * across, 0, shown.shape[0] * up)
    low, high = shown_window(image.array)
    axes.imshow(shown, cmap="gray", vmin=low, vmax=high, origin="lower", extent=extent, interpolation="bilinear")
    for name, mask in masks.items():
        _outline(axes, picture(mask, axis, index), across, up, name)
    _annotate(axes, PLANES[axis][1], extent)


def draw_planes(image: Volume, masks: Mapping[str, np.ndarray], centre: Sequence[int], title: str) -> Figure:
    """Draw the axial, coronal and sagittal slice through a voxel, with a legend of the outlines."""
    sizes = np.multiply(image.array.shape, image.spacing_mm)
    widths = [sizes[0], sizes[0], sizes[1]]
    figure, panels = plt.subplots(1, 3, figsize=(11, 4), layout="constrained", width_ratios=widths)
    for panel, axis in zip(panels, (2, 1, 0), strict=True):
        draw_slice(panel, image, masks, axis, int(centre[axis]))
        panel.set_title(PLANES[axis][0], fontweight="normal")
    figure.suptitle(title)
    add_legend(figure, masks)
    return figure


def add_legend(figure: Figure, names: Sequence[str]) -> None:
    """Name the outlines' colours below a figure."""
    lines = [Line2D([], [], color=COLOURS[name], label=name) for name in names]
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
    _outline(axes, picture(thumbnail.lesion[..., None], 2, 0), across, up, "reference")
    _annotate(axes, PLANES[2][1], extent)


def mark_sides(axes: Axes, letters: str, extent: tuple[float, float, float, float]) -> None:
    """Write the letters of left, right, bottom and top at the sides of a picture."""
    _, width, _, height = extent
    places = [(0.03, 0.5), (0.97, 0.5), (0.5, 0.03), (0.5, 0.97)]
    for letter, (x, y) in zip(letters, places, strict=True):
        axes.text(x * width, y * height, letter, **WRITING)


def _outline(axes: Axes, shown: np.ndarray, across: float, up: float, name: str) -> None:
    outline = np.pad(shown.astype(float), 1)
    if outline.any():
        x, y = (np.arange(outline.shape[1]) - 0.5) * across, (np.arange(outline.shape[0]) - 0.5) * up
        axes.contour(x, y, outline, [0.5], colors=COLOURS[name], linewidths=1.2)


def _annotate(axes: Axes, letters: str, extent: tuple[float, float, float, float]) -> None:
    _, width, _, height = extent
    mark_sides(axes, letters, extent)
    axes.plot([0.05 * width, 0.05 * width + SCALE_BAR_MM], [0.06 * height] * 2, color="white", linewidth=2)
    axes.text(0.05 * width + SCALE_BAR_MM / 2, 0.105 * height, f"{SCALE_BAR_MM} mm", **(WRITING | {"fontsize": 7}))
    axes.set(xticks=[], yticks=[], facecolor="black")
