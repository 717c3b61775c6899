"""Cases in NiiVue, a viewer that runs in the browser: slices to scroll through, layers on and off."""

import gzip
from collections.abc import Mapping, Sequence

import numpy as np
from ipyniivue import NiiVue, Volume
from ipyniivue.constants import ShowRender
from ipyniivue.traits import LUT
from matplotlib.colors import to_rgba

from metaseg_nb.figures.case_images import CaseImages
from metaseg_nb.viewer.layers import Layer

OPACITY = 0.5


class NiiVueViewer:
    """A NiiVue widget that shows one case after the other.

    Attributes
    ----------
    widget : NiiVue
    """

    def __init__(self):
        # orientation as in all pictures of the workbook; without the rendering, which costs most
        self.widget = NiiVue(
            height=480,
            is_radiological_convention=True,
            sagittal_nose_left=True,
            multiplanar_show_render=ShowRender.NEVER,
        )
        self._layers, self._shape = [], (1, 1, 1)

    def show(self, images: CaseImages, layers: Mapping[str, Layer], at: Sequence[float]) -> None:
        """Load a case with its `layers_of` and go to a voxel of its RAS array."""
        low, high = images.greys
        image = Volume(data=_file(images, images.image.array), name="image.nii.gz", cal_min=low, cal_max=high)
        self.widget.load_volumes([image, *(_volume(images, name, layer) for name, layer in layers.items())])
        self._layers, self._shape = list(layers), images.image.array.shape
        self.jump(at)

    def set_visible(self, layer: str, visible: bool) -> None:
        """Switch a layer on or off."""
        self.widget.volumes[1 + self._layers.index(layer)].opacity = OPACITY * visible

    def jump(self, voxel: Sequence[float]) -> None:
        """Go to a voxel of the RAS array."""
        self.widget.scene.crosshair_pos = [(i + 0.5) / n for i, n in zip(voxel, self._shape, strict=True)]


def _volume(images: CaseImages, name: str, layer: Layer) -> Volume:
    rgba = np.array([[0, 0, 0, 0], *map(to_rgba, layer.colours.values())])
    table = LUT(
        lut=(255 * rgba).round().astype(int).ravel().tolist(),
        min=0.0,
        max=float(len(layer.colours)),
        labels=["", *layer.colours],
    )
    facts = {"name": f"{name}.nii.gz", "opacity": OPACITY * layer.visible, "colorbar_visible": False}
    return Volume(data=_file(images, layer.array), colormap_label=table, **facts)


def _file(images: CaseImages, array: np.ndarray) -> bytes:
    return gzip.compress(images.nifti(array).to_bytes(), compresslevel=1)
