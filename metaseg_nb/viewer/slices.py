"""Cases in plain pictures: three planes with sliders, drawn by matplotlib; works wherever a notebook does."""

import io
from collections.abc import Mapping, Sequence

import ipywidgets
import matplotlib.pyplot as plt

from metaseg_nb.figures.case_images import CaseImages
from metaseg_nb.figures.slices import AXES, PLANES, draw_planes
from metaseg_nb.viewer.layers import Layer


class SlicesViewer:
    """Three planes with a slider each, that show one case after the other.

    Attributes
    ----------
    widget : ipywidgets.Box
    """

    def __init__(self):
        self._images, self._layers, self._visible = None, {}, set()
        self._picture = ipywidgets.Image(format="png", layout={"max_width": "100%"})
        self._sliders = {axis: ipywidgets.IntSlider(description=PLANES[axis][0]) for axis in AXES}
        for slider in self._sliders.values():
            slider.observe(lambda change: self._draw(), "value")
        self.widget = ipywidgets.VBox([self._picture, ipywidgets.HBox(list(self._sliders.values()))])

    def show(self, images: CaseImages, layers: Mapping[str, Layer], at: Sequence[float]) -> None:
        """Show a case with its `layers_of` at a voxel of its RAS array."""
        self._images, self._layers = None, layers  # nothing is drawn until the sliders stand
        self._visible = {name for name, layer in layers.items() if layer.visible}
        for axis, slider in self._sliders.items():
            slider.max = images.image.array.shape[axis] - 1
        self._images = images
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
        if self._images is not None:
            shown = {name: layer for name, layer in self._layers.items() if name in self._visible}
            self._picture.value = layers_picture(self._images, shown, [self._sliders[axis].value for axis in range(3)])


def layers_picture(images: CaseImages, layers: Mapping[str, Layer], at: Sequence[float]) -> bytes:
    """Draw three planes through a voxel with the outlines of layers, as PNG."""
    colours = {meaning: colour for layer in layers.values() for meaning, colour in layer.colours.items()}
    masks = {
        meaning: layer.array == value
        for layer in layers.values()
        for value, meaning in enumerate(layer.colours, start=1)
    }
    figure = draw_planes(images.image, masks, at, colours=colours, greys=images.greys)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=90)
    plt.close(figure)
    return buffer.getvalue()
