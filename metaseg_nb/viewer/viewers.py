"""Viewers of a case: NiiVue in the browser, plain slices in any notebook, and the choice between them."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import ipywidgets
import matplotlib.pyplot as plt
import numpy as np
from IPython.display import Image

from metaseg_nb.figures.charts import somebody_watches
from metaseg_nb.figures.reviewed import AGREEMENT_COLOURS, CaseImages
from metaseg_nb.figures.slices import AXES, PLANES, draw_planes
from metaseg_nb.figures.style import REFERENCE, model_colour
from metaseg_nb.parameters import model_title
from metaseg_nb.viewer.niivue import Layer, NiiVueViewer

# Each viewer, and the one that is tried after it.
NEXT = {"itkwidgets": "niivue", "niivue": "slices", "slices": ""}


def layers_of(images: CaseImages) -> dict[str, Layer]:
    """Layers by name: the reference, each network, and the first network's agreement with the reference."""
    layers = {"reference": Layer(images.reference.astype(np.uint8), {"reference": REFERENCE})}
    for model, mask in images.predictions.items():
        title = model_title(model)
        layers[title] = Layer(mask.astype(np.uint8), {title: model_colour(model)})
    for model in list(images.predictions)[:1]:  # each layer is a volume that the browser has to hold
        layers[f"agreement: {model_title(model)}"] = Layer(images.agreement(model), AGREEMENT_COLOURS, visible=False)
    return layers


class SlicesViewer:
    """Three planes with a slider each, as a ``widget`` that shows one case after the other."""

    def __init__(self):
        self._picture = ipywidgets.Image(format="png", layout={"max_width": "100%"})
        self._sliders = [ipywidgets.IntSlider(description=PLANES[axis][0]) for axis in range(3)]
        self._images, self._layers, self._visible = None, {}, {}
        for slider in self._sliders:
            slider.observe(lambda change: self._draw(), "value")
        self.widget = ipywidgets.VBox([self._picture, ipywidgets.HBox([self._sliders[axis] for axis in AXES])])

    def show(self, images: CaseImages, layers: Mapping[str, Layer], at: Sequence[float]) -> None:
        """Show a case with its `layers_of` at a voxel of its RAS array."""
        self._images, self._layers = None, layers  # nothing is drawn until the sliders stand
        self._visible = {name: layer.visible for name, layer in layers.items()}
        for slider, size in zip(self._sliders, images.image.array.shape, strict=True):
            slider.max = size - 1
        self._images = images
        self.jump(at)

    def set_visible(self, layer: str, visible: bool) -> None:
        """Switch a layer on or off."""
        self._visible[layer] = visible
        self._draw()

    def jump(self, voxel: Sequence[float]) -> None:
        """Go to a voxel of the RAS array."""
        images, self._images = self._images, None  # one picture, not one for each slider that moves
        for slider, place in zip(self._sliders, voxel, strict=True):
            slider.value = round(place)
        self._images = images
        self._draw()

    def _draw(self) -> None:
        if self._images is not None:
            shown = {name: layer for name, layer in self._layers.items() if self._visible[name]}
            self._picture.value = layers_picture(self._images, shown, [slider.value for slider in self._sliders])


def layers_picture(images: CaseImages, layers: Mapping[str, Layer], at: Sequence[float]) -> bytes:
    """Draw three planes through a voxel with the outlines of layers, as PNG."""
    masks, colours = {}, {}
    for layer in layers.values():
        for value, (meaning, colour) in enumerate(layer.colours.items(), start=1):
            masks[meaning], colours[meaning] = layer.array == value, colour
    figure, buffer = draw_planes(images.image, masks, at, colours=colours, greys=images.greys), io.BytesIO()
    figure.savefig(buffer, format="png", dpi=90)
    plt.close(figure)
    return buffer.getvalue()


def show_case(images: CaseImages, viewer: str = "auto", at: Sequence[float] | None = None) -> Any:
    """Look at a case.

    A viewer that cannot work here says why, and the next one is taken; without a browser a picture is drawn. Nothing
    waits for a browser or a network.

    Parameters
    ----------
    images : CaseImages
    viewer : str
        "niivue" (the same as "auto") runs in the browser; so does "itkwidgets", with the image and the reference;
        "slices" are pictures with sliders.
    at : sequence of 3 floats, optional
        RAS voxel to go to; the largest lesion of the reference by default.

    Returns
    -------
    widget or Image
        As the last line of a cell.

    Raises
    ------
    ValueError
        There is no such viewer.
    """
    name, layers, at = usable(viewer), layers_of(images), images.place if at is None else at
    if name == "itkwidgets":
        from metaseg_nb.viewer.itk import view_in_itkwidgets  # its imports take seconds

        return view_in_itkwidgets(images)
    if not somebody_watches():
        return Image(layers_picture(images, {name: layer for name, layer in layers.items() if layer.visible}, at))
    shown = open_viewer(name)
    shown.show(images, layers, at)
    return shown.widget


def usable(viewer: str) -> str:
    """Choose the viewer that was asked for, or the next that works here; print why others do not."""
    if viewer not in ("auto", *NEXT):
        raise ValueError(f"viewer {viewer!r}: expected auto, {', '.join(NEXT)}")
    name = "niivue" if viewer == "auto" else viewer
    while reason := _why_not(name):
        print(f"{name} is not used: {reason}. {NEXT[name]} is tried instead.")
        name = NEXT[name]
    return name


def open_viewer(name: str) -> NiiVueViewer | SlicesViewer:
    """Make an empty "niivue" or "slices" viewer."""
    return NiiVueViewer() if name == "niivue" else SlicesViewer()


def _why_not(name: str) -> str:
    if name == "slices":
        return ""
    if not somebody_watches():
        return "no browser shows this notebook"
    if name == "itkwidgets":
        from metaseg_nb.viewer.itk import why_not

        return why_not()
    return ""
