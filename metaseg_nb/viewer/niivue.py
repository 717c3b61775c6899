"""NiiVue in the browser: one case after the other, each an image with layers."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import numpy as np
import traitlets
from ipyniivue import NiiVue, Volume
from ipyniivue.constants import ShowRender
from ipyniivue.traits import LUT
from matplotlib.colors import to_rgba

from metaseg_nb.figures.reviewed import CaseImages

OPACITY = 0.5
# Orientation as in all pictures of the workbook; without the rendering, which costs most.
LOOK = {
    "is_radiological_convention": True,
    "sagittal_nose_left": True,
    "multiplanar_show_render": ShowRender.NEVER,
}
# Values that NiiVue gets for what is drawn from black to white, and how many times as far they reach to both sides.
GREYS, BEYOND = 4000, 8


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


class Surface(NiiVue):
    """NiiVue that does not send each image it has loaded back to Python: of a large one that takes seconds."""

    _esm = re.sub(
        # from the first letter of a name: tried from each letter, the long names that hold data would take seconds
        r'(?<![\w$])[\w$]+\([\w$]+,"img",[\w$]+\.img\.buffer,[\w$]+\)',
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
