"""Viewers of a case: NiiVue in the browser, plain slices in any notebook, and the choice between them."""

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import ipywidgets
import matplotlib.pyplot as plt
import numpy as np
import traitlets
from ipyniivue import NiiVue, Volume
from ipyniivue.constants import ShowRender
from ipyniivue.traits import LUT
from IPython.display import Image
from matplotlib.colors import to_rgba

from metaseg_nb.figures.charts import somebody_watches
from metaseg_nb.figures.reviewed import AGREEMENT_COLOURS, CaseImages
from metaseg_nb.figures.slices import AXES, PLANES, draw_planes
from metaseg_nb.figures.style import REFERENCE, model_colour
from metaseg_nb.parameters import model_title

OPACITY = 0.5
# Orientation as in all pictures of the workbook; without the rendering, which costs most.
LOOK = {
    "is_radiological_convention": True,
    "sagittal_nose_left": True,
    "multiplanar_show_render": ShowRender.NEVER,
}
# Values that NiiVue gets for what is drawn from black to white, and how many times as far they reach to both sides.
GREYS, BEYOND = 4000, 8
# Each viewer, and the one that is tried after it.
NEXT = {"itkwidgets": "niivue", "niivue": "slices", "slices": ""}


@dataclass(frozen=True)
class Layer:
    """Values over an image, each with a colour.

    Parameters
    ----------
    array : ndarray of uint8, shape (X, Y, Z)
        0 where nothing is drawn.
    colours : dict of str to str
        Meaning and colour of the values 1, 2, ...
    visible : bool
        Whether it is shown at first.
    """

    array: np.ndarray
    colours: dict[str, str]
    visible: bool = True


def layers_of(images: CaseImages) -> dict[str, Layer]:
    """Layers by name: the reference, each network, and the first network's agreement with the reference."""
    layers = {"reference": Layer(images.reference.astype(np.uint8), {"reference": REFERENCE})}
    for model, mask in images.predictions.items():
        title = model_title(model)
        layers[title] = Layer(mask.astype(np.uint8), {title: model_colour(model)})
    for model in list(images.predictions)[:1]:  # each layer is a volume that the browser has to hold
        layers[f"agreement: {model_title(model)}"] = Layer(images.agreement(model), AGREEMENT_COLOURS, visible=False)
    return layers


class Surface(NiiVue):
    """NiiVue that does not send each image it has loaded back to Python: of a large one that takes seconds."""

    _esm = re.sub(
        r'[\w$]+\([\w$]+,"img",[\w$]+\.img\.buffer,[\w$]+\)',
        "0",
        files("ipyniivue").joinpath("static", "widget.js").read_text(encoding="utf-8"),
    )


class Sent(Volume):
    """A volume that counts as loaded without being sent back."""

    img = traitlets.Any(())


class NiiVueViewer:
    """A NiiVue ``widget`` that shows one case after the other.

    Parameters
    ----------
    surface : type
        `Surface`, or what is derived from it.
    height : int
        Pixels.
    **options
        Of NiiVue, beside `LOOK`.
    """

    def __init__(self, surface: type[Surface] = Surface, height: int = 480, **options: Any):
        self.widget = surface(height=height, **LOOK, **options)
        self._sent: tuple[CaseImages, Volume] | None = None
        self._shown_before: list[Volume] = []

    def send(self, images: CaseImages) -> None:
        """Send an image to the browser already, which can then show it at once; from any thread."""
        past, self._sent = self._sent, (images, _image_volume(images))
        if past:
            past[1].close()

    def show(self, images: CaseImages, layers: Mapping[str, Layer], at: Sequence[float]) -> None:
        """Load a case with its `layers_of` and go to a voxel of its RAS array."""
        self._layers, self._shape = list(layers), images.image.array.shape
        if self._sent and self._sent[0] is images:
            (_, image), self._sent = self._sent, None
        else:
            image = _image_volume(images)
        volumes = [image]
        for name, layer in layers.items():
            rgba = np.array([[0, 0, 0, 0], *map(to_rgba, layer.colours.values())])
            colours = (255 * rgba).round().astype(int).ravel().tolist()
            table = LUT(lut=colours, min=0.0, max=float(len(layer.colours)), labels=["", *layer.colours])
            look = {"colormap_label": table, "opacity": OPACITY * layer.visible, "colorbar_visible": False}
            volumes.append(Volume(data=images.file(layer.array), name=f"{name}.nii.gz", **look))
        for past in self._shown_before:  # the browser may still be loading the last ones
            past.close()
        self._shown_before = list(self.widget.volumes)
        self.widget.load_volumes(volumes)
        self.jump(at)

    def set_visible(self, layer: str, visible: bool) -> None:
        """Switch a layer on or off."""
        self.widget.volumes[1 + self._layers.index(layer)].opacity = OPACITY * visible

    def jump(self, voxel: Sequence[float]) -> None:
        """Go to a voxel of the RAS array."""
        self.widget.scene.crosshair_pos = [(i + 0.5) / n for i, n in zip(voxel, self._shape, strict=True)]


def _image_volume(images: CaseImages) -> Volume:
    """The image as NiiVue loads it soonest: not compressed, with two bytes for each voxel."""
    low, high = images.greys
    greys = np.clip((images.image.array - low) / (high - low), -BEYOND, BEYOND) * GREYS
    data = images.nifti(greys.round().astype(np.int16)).to_bytes()
    return Sent(data=data, name="image.nii", cal_min=0.0, cal_max=float(GREYS))


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
