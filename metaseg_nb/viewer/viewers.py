"""Viewers of a case: NiiVue in the browser, plain slices in any notebook, and the choice between them."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import ipywidgets
import matplotlib.pyplot as plt
import numpy as np
from IPython.display import Image

from metaseg_nb.figures.reviewed import AGREEMENT_COLOURS, CaseImages
from metaseg_nb.figures.slices import AXES, PLANES, draw_planes
from metaseg_nb.figures.style import REFERENCE, model_colour, somebody_watches
from metaseg_nb.parameters import model_title
from metaseg_nb.viewer.niivue import Layer, NiiVueViewer

VIEWERS = ("auto", "niivue", "itkwidgets", "slices")


def layers_of(images: CaseImages) -> dict[str, Layer]:
    """Layers by name: the reference, each network, and the first network's agreement with the reference."""
    layers = {"reference": Layer(images.reference.astype(np.uint8), {"reference": REFERENCE})}
    for model, mask in images.predictions.items():
        title = model_title(model)
        layers[title] = Layer(mask.astype(np.uint8), {title: model_colour(model)})
    for model in list(images.predictions)[:1]:  # each layer is a volume that the browser has to hold
        layers[f"agreement: {model_title(model)}"] = Layer(images.agreement(model), AGREEMENT_COLOURS, visible=False)
    return layers


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


def with_sliders(images: CaseImages, layers: Mapping[str, Layer], at: Sequence[float]) -> ipywidgets.VBox:
    """Three planes with a slider each, first at a voxel of the RAS array."""
    picture = ipywidgets.Image(format="png", layout={"max_width": "100%"})
    sliders = [
        ipywidgets.IntSlider(round(place), 0, size - 1, description=PLANES[axis][0])
        for axis, (place, size) in enumerate(zip(at, images.image.array.shape, strict=True))
    ]

    def draw(*_) -> None:
        picture.value = layers_picture(images, layers, [slider.value for slider in sliders])

    for slider in sliders:
        slider.observe(draw, "value")
    draw()
    return ipywidgets.VBox([picture, ipywidgets.HBox([sliders[axis] for axis in AXES])])


def show_case(images: CaseImages, viewer: str = "auto", at: Sequence[float] | None = None) -> Any:
    """Look at a case.

    Where itkwidgets cannot work it says why, and NiiVue is taken; without a browser a picture is drawn. Nothing waits
    for a browser or a network.

    Parameters
    ----------
    images : CaseImages
    viewer : str
        "niivue" (the same as "auto") runs in the browser and needs its WebGL; so does "itkwidgets", with the image and
        the reference; "slices" are pictures with sliders.
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
    if viewer not in VIEWERS:
        raise ValueError(f"viewer {viewer!r}: expected {', '.join(VIEWERS)}")
    layers, at = layers_of(images), images.place if at is None else at
    visible = {name: layer for name, layer in layers.items() if layer.visible}
    if not somebody_watches():
        print("No browser shows this notebook: a picture is drawn instead of a viewer.")
        return Image(layers_picture(images, visible, at))
    if viewer == "slices":
        return with_sliders(images, visible, at)
    if viewer == "itkwidgets":
        from metaseg_nb.viewer import itk  # its imports take seconds

        if not (reason := itk.why_not()):
            return itk.view_in_itkwidgets(images)
        print(f"itkwidgets is not used: {reason}. NiiVue is used instead.")
    shown = NiiVueViewer()
    shown.show(images, layers, at)
    return shown.widget
