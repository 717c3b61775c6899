"""Cases in plain pictures: three planes with sliders, drawn by matplotlib; works wherever a notebook does."""

import io
from collections.abc import Collection, Sequence

import ipywidgets
import numpy as np
from matplotlib.figure import Figure

from metaseg_nb.figures.case_images import CaseImages
from metaseg_nb.figures.slices import PLANES, draw_slice, legend_of, outline_mask
from metaseg_nb.viewer.layers import Layer, layers_of

ROWS = (2, 1, 0)  # axial, coronal, sagittal


class SlicesViewer:
    """Three planes with a slider each, that show one case after the other.

    Attributes
    ----------
    widget : ipywidgets.Box
    layers : list of str
        Names of what lies over the image.
    """

    def __init__(self):
        self.layers: list[str] = []
        self._images, self._arrays, self._visible = None, {}, set()
        self._picture = ipywidgets.Image(format="png", layout={"max_width": "100%"})
        self._sliders = {axis: ipywidgets.IntSlider(description=PLANES[axis][0]) for axis in ROWS}
        for slider in self._sliders.values():
            slider.observe(lambda change: self._draw(), "value")
        self.widget = ipywidgets.VBox([self._picture, ipywidgets.HBox(list(self._sliders.values()))])

    def show(self, images: CaseImages, visible: Collection[str], at: Sequence[float]) -> None:
        """Show a case with some of its `layers_of` visible, at a voxel of its RAS array."""
        self._images, self._arrays, self._visible = images, layers_of(images), set(visible)
        self.layers = list(self._arrays)
        for axis, slider in self._sliders.items():
            slider.max = images.image.array.shape[axis] - 1
        self.jump(at)

    def set_visible(self, layer: str, visible: bool) -> None:
        """Switch a layer on or off."""
        self._visible = self._visible | {layer} if visible else self._visible - {layer}
        self._draw()

    def jump(self, voxel: Sequence[float]) -> None:
        """Go to a voxel of the RAS array."""
        images, self._images = self._images, None  # one picture, not one for each slider that moves
        for axis, slider in self._sliders.items():
            slider.value = round(voxel[axis])
        self._images = images
        self._draw()

    def _draw(self) -> None:
        if self._images is None:
            return
        shown = {name: self._arrays[name] for name in self.layers if name in self._visible}
        at = [self._sliders[axis].value for axis in range(3)]
        self._picture.value = layers_picture(self._images, shown, at)


def layers_picture(images: CaseImages, layers: dict[str, Layer], at: Sequence[int]) -> bytes:
    """Draw the axial, coronal and sagittal slice through a voxel with the outlines of layers, as PNG."""
    sizes = np.multiply(images.image.array.shape, images.image.spacing_mm)
    figure = Figure(figsize=(11, 4.3), layout="constrained")
    panels = figure.subplots(1, 3, width_ratios=[sizes[0], sizes[0], sizes[1]])
    for panel, axis in zip(panels, ROWS, strict=True):
        draw_slice(panel, images.image, {}, axis, at[axis], greys=images.greys)
        for layer in layers.values():
            for value, colour in enumerate(layer.colours.values(), start=1):
                outline_mask(panel, images.image, layer.array == value, axis, at[axis], colour)
        panel.set_title(PLANES[axis][0], fontweight="normal")
    legend_of(figure, {meaning: colour for layer in layers.values() for meaning, colour in layer.colours.items()})
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=90)
    return buffer.getvalue()
