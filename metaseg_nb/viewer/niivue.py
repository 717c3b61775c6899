"""Cases in NiiVue, a viewer that runs in the browser: slices to scroll through, layers on and off."""

import gzip
from collections.abc import Collection, Sequence

import numpy as np
from ipyniivue import NiiVue, Volume
from ipyniivue.constants import ShowRender
from ipyniivue.traits import LUT
from matplotlib.colors import to_rgba

from metaseg_nb.figures.case_images import CaseImages
from metaseg_nb.viewer.layers import Layer, layers_of

OPACITY = 0.5


class NiiVueViewer:
    """A NiiVue widget that shows one case after the other.

    Attributes
    ----------
    widget : NiiVue
    layers : list of str
        Names of what lies over the image.
    """

    def __init__(self, height: int = 480):
        # as all pictures of the workbook, and without the rendering, which costs most
        self.widget = NiiVue(
            height=height,
            is_radiological_convention=True,
            sagittal_nose_left=True,
            multiplanar_show_render=ShowRender.NEVER,
        )
        self.layers: list[str] = []
        self._shape = (1, 1, 1)

    def show(self, images: CaseImages, visible: Collection[str], at: Sequence[float]) -> None:
        """Load a case with some of its `layers_of` visible, and go to a voxel of its RAS array."""
        layers = layers_of(images)
        low, high = images.greys
        image = Volume(data=_file(images, images.image.array), name="image.nii.gz", cal_min=low, cal_max=high)
        over = [_volume(images, name, layer, name in visible) for name, layer in layers.items()]
        self.widget.load_volumes([image, *over])
        self.layers, self._shape = list(layers), images.image.array.shape
        self.jump(at)

    def set_visible(self, layer: str, visible: bool) -> None:
        """Switch a layer on or off."""
        self.widget.volumes[1 + self.layers.index(layer)].opacity = OPACITY * visible

    def jump(self, voxel: Sequence[float]) -> None:
        """Go to a voxel of the RAS array."""
        self.widget.scene.crosshair_pos = [(i + 0.5) / n for i, n in zip(voxel, self._shape, strict=True)]


def _volume(images: CaseImages, name: str, layer: Layer, visible: bool) -> Volume:
    opaque = [[round(255 * part) for part in to_rgba(colour)] for colour in layer.colours.values()]
    table = LUT(lut=sum(opaque, [0, 0, 0, 0]), min=0.0, max=float(len(opaque)), labels=["", *layer.colours])
    data, opacity = _file(images, layer.array), OPACITY * visible
    return Volume(data=data, name=f"{name}.nii.gz", opacity=opacity, colormap_label=table, colorbar_visible=False)


def _file(images: CaseImages, array: np.ndarray) -> bytes:
    return gzip.compress(images.nifti(array).to_bytes(), compresslevel=1)
