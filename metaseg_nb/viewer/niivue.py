"""NiiVue in the browser: one case after the other, each an image with layers, or with a mask to draw on.

A drawing goes both ways: what a person draws comes back, and what Python changes goes into the browser. The browser
sends its drawing only when it is asked, some hundred milliseconds after a stroke. Until the answer is there, Python
changes nothing: `DrawingViewer.after` lets an action wait, so that no stroke is lost or written over.
"""

import asyncio
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import numpy as np
import traitlets
from ipyniivue import NiiVue, Volume
from ipyniivue.config_options import ConfigOptions
from ipyniivue.constants import ShowRender, SliceType
from ipyniivue.traits import LUT, ColorMap
from matplotlib.colors import to_rgba
from nibabel.affines import apply_affine

from metaseg_nb.figures.reviewed import CaseImages
from metaseg_nb.figures.style import MARGIN, PREDICTION, REFERENCE

OPACITY = 0.5
# Orientation as in all pictures of the workbook; without the rendering, which costs most.
LOOK = {
    "is_radiological_convention": True,
    "sagittal_nose_left": True,
    "multiplanar_show_render": ShowRender.NEVER,
}
# Values that NiiVue gets for what is drawn from black to white, and how many times as far they reach to both sides.
GREYS, BEYOND = 4000, 8
# Values of the drawing: a lesion, a region that still changes with the level, and what the two pointing tools leave.
LESION, PENDING, CLICK, LINE = 1, 2, 3, 4
VALUE_COLOURS = {LESION: PREDICTION, PENDING: MARGIN, CLICK: REFERENCE, LINE: REFERENCE}
# Of voxels that not all pages show alike.
UNKNOWN_VALUE = 255
# Seconds after which an answer of the browser is no longer waited for.
LOST_S = 5.0
# Keys of NiiVue itself would change the view while a person uses the app's.
OWN_KEYS = {"view_mode_hot_key": "", "clip_plane_hot_key": "", "cycle_clip_plane_hot_key": ""}
# A thin crosshair with a gap, so that a small lesion is seen in it.
THIN = {"crosshair_width": 0.3, "crosshair_gap": 12.0}
DRAWING = (
    OWN_KEYS | THIN | {"drag_and_drop_enabled": False, "hero_image_fraction": 0.6, "hero_slice_type": SliceType.AXIAL}
)


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
    """NiiVue that asks little of the way between browser and Python.

    It does not send each image that it has loaded back to Python: of a large one that takes seconds. Nor does it build
    an image again that it has just loaded. It takes a drawing from the page alone on which somebody has just drawn, for
    several can show one notebook, and does not send it back by itself. ``pages`` are those that show this case.
    """

    _esm = re.sub(
        # from the first letter of a name: tried from each letter, the long names that hold data would take seconds
        r'(?<![\w$])[\w$]+\([\w$]+,"img",[\w$]+\.img\.buffer,[\w$]+\)'
        r"|(?<=\.volumes=\w,)\w\.updateGLVolume\(\)",
        "0",
        files("ipyniivue").joinpath("static", "widget.js").read_text(encoding="utf-8"),
    )
    draw_bitmap = traitlets.Instance(np.ndarray, allow_none=True)

    def __init__(self, **options: Any):
        self.pages, self._drawn_on = set(), ""
        super().__init__(**options)

    def _handle_msg(self, msg: dict) -> None:
        page, data = msg["header"]["session"], msg["content"]["data"]
        event = data.get("content", {}).get("event")
        if event == "image_loaded":
            self.pages.add(page)
        if event == "mouse_up":
            self._drawn_on = page
        drawing = any(key.startswith("chunk_draw_bitmap") for key in data.get("state", {}))
        if page == self._drawn_on or not drawing:  # that of another page may lack the last stroke
            super()._handle_msg(msg)

    def _get_binary_traits(self) -> list[str]:
        return []


class Sent(Volume):
    """A volume that counts as loaded without being sent back."""

    img = traitlets.Any(())


class NiiVueViewer:
    """A NiiVue ``widget`` that shows one case after the other.

    Parameters
    ----------
    height : int
        Pixels.
    **options
        Of NiiVue, beside `LOOK`.
    """

    def __init__(self, height: int = 480, **options: Any):
        self.widget = Surface(height=height, **LOOK, **options)
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
            colours = _rgba(layer.colours.values()).ravel().tolist()
            table = LUT(lut=colours, min=0.0, max=float(len(layer.colours)), labels=["", *layer.colours])
            look = {"colormap_label": table, "opacity": OPACITY * layer.visible, "colorbar_visible": False}
            volumes.append(Volume(data=images.file(layer.array), name=f"{name}.nii.gz", **look))
        for past in self._shown_before:  # the browser may still be loading the last ones
            past.close()
        self._shown_before = list(self.widget.volumes)
        self.jump(at)  # or what is drawn first would be another place
        self.widget.load_volumes(volumes)

    def set_visible(self, layer: str, visible: bool) -> None:
        """Switch a layer on or off."""
        self.widget.volumes[1 + self._layers.index(layer)].opacity = OPACITY * visible

    def jump(self, voxel: Sequence[float]) -> None:
        """Go to a voxel of the RAS array."""
        self.widget.scene.crosshair_pos = [(i + 0.5) / n for i, n in zip(voxel, self._shape, strict=True)]


class DrawingViewer(NiiVueViewer):
    """A NiiVue ``widget`` with a drawing.

    Parameters
    ----------
    drawn : callable
        Called after each stroke with the voxels that it changed (int, shape (N, 3), RAS) and their new values (N).
    acted : callable
        Called when a person does anything with the mouse.
    seen : callable
        Called when the browser shows a case.
    """

    def __init__(
        self, drawn: Callable[[np.ndarray, np.ndarray], None], acted: Callable[[], None], seen: Callable[[], None]
    ):
        super().__init__(height=600, **DRAWING)
        self._drawn, self._seen = drawn, seen
        self._marks, self._shown = np.zeros((0, 0, 0), np.uint8), None
        self._ink: dict[str, Any] = {}
        self._zoom, self._affine = 1.0, np.eye(4)
        self._asked, self._asked_at, self._waiting = 0, 0.0, []
        red, green, blue, alpha = _rgba(VALUE_COLOURS.values()).T.astype(float).tolist()
        values, words = np.arange(5.0).tolist(), ["", "lesion", "growing", "point", "line"]
        self.widget.set_draw_colormap(ColorMap(R=red, G=green, B=blue, A=alpha, I=values, labels=words))
        self.widget.draw_opacity = 0.45
        self.widget.on_image_loaded(lambda volume: self._begin() if volume in self.widget.volumes else None)
        self.widget.on_mouse_up(lambda data: (acted(), self._ask()))
        self.widget.on_location_change(lambda data: acted())
        self.widget.observe(lambda change: self._received(change["new"]), "draw_bitmap")

    @property
    def ready(self) -> bool:
        """Whether the browser shows the case with its drawing."""
        return self._shown is not None

    def show_drawing(self, images: CaseImages, marks: np.ndarray, at: Sequence[float]) -> None:
        """Show a case with a drawing (uint8, shape (X, Y, Z), RAS), and go to a voxel."""
        self.clear()
        if self._marks.size:
            self._close_drawing()
        self._marks, self._affine = marks, images.image.affine
        self.show(images, {}, at)

    def clear(self) -> None:
        """Show nothing."""
        self._set(drawing_enabled=False)
        self.widget.load_volumes([])
        self.widget.pages.clear()
        self._shown, self._asked, self._waiting = None, 0, []  # what was meant for this case is not done to the next

    def jump(self, voxel: Sequence[float]) -> None:
        """Go to a voxel of the RAS array, and enlarge around it."""
        super().jump(voxel)
        self.enlarge(self._zoom)

    def enlarge(self, zoom: float) -> None:
        """Show everything larger around the crosshair, which keeps its place."""
        self._zoom = zoom
        if self._marks.size:
            voxel = np.array(self.widget.scene.crosshair_pos) * self._marks.shape - 0.5
            self.widget.scene.pan2d_xyzmm = [*((1 - zoom) * apply_affine(self._affine, voxel)).tolist(), zoom]

    def put(self, marks: np.ndarray) -> None:
        """Show another drawing of the same case: only what differs is sent."""
        self._marks = marks
        if self._shown is None:  # the browser has no image yet, and gets the drawing after it
            return
        new = marks.T.flatten().astype(np.uint8, copy=False)  # as NiiVue keeps a drawing: X fastest
        changed = np.flatnonzero(new != self._shown).astype(np.uint32)
        if changed.size:
            what = {"attr": "drawBitmap", "type": "uint8", "indices_type": "uint32"}
            buffers = [changed.tobytes(), new[changed].tobytes()]
            self.widget.send({"type": "buffer_update", "data": what}, buffers=buffers)
        self._shown = new

    def use(self, value: int | None, filled: bool = False, size: int = 1) -> None:
        """Draw with a value from now on; None: only look."""
        self._ink = {"drawing_enabled": value is not None, "is_filled_pen": filled, "pen_size": float(size)}
        self._ink["pen_value"] = float(value or 0)
        if self._shown is not None:
            self._set(**self._ink)

    def after(self, call: Callable[[], None]) -> bool:
        """Call when no stroke is under way from the browser; tell whether that was at once."""
        if self._asked and time.monotonic() - self._asked_at < LOST_S:
            self._waiting.append(call)
            with suppress(RuntimeError):  # without a loop no browser is there either
                asyncio.get_running_loop().call_later(LOST_S, self._give_up)
            return False
        self._asked = 0
        self._call_waiting()
        call()
        return True

    def _give_up(self) -> None:
        """Do what waits, where the answer was lost: nobody may press another key."""
        if self._waiting and time.monotonic() - self._asked_at >= LOST_S:
            self._asked = 0
            self._call_waiting()

    def _begin(self) -> None:
        """Show the drawing, where the browser has just got the image: the page may also have been loaded again."""
        if self._shown is not None:  # another page has it already
            self._close_drawing()
        self._unanswered("set_drawing_enabled", True)
        self._shown, self._asked = np.zeros(self._marks.size, np.uint8), 0
        self.put(self._marks)
        self._set(**self._ink)
        self._call_waiting()
        self._seen()

    def _close_drawing(self) -> None:
        self._unanswered("close_drawing")

    def _unanswered(self, what: str, *data: Any) -> None:
        own, self.widget.this_model_id = self.widget.this_model_id, ""  # or it would send its empty drawing back
        self.widget.send({"type": what, "data": list(data)})
        self.widget.this_model_id = own

    def _ask(self) -> None:
        if self._shown is not None and self._ink.get("drawing_enabled"):
            self._asked, self._asked_at = self._asked + 1, time.monotonic()
            self.widget.send({"type": "set_drawing_enabled", "data": [True]})

    def _received(self, bitmap: np.ndarray | None) -> None:
        if bitmap is None or bitmap.size != self._marks.size or not self._asked:
            return  # of an earlier case
        self._asked -= 1
        if self._asked:
            return  # an answer that holds more is under way
        if self._shown is not None and (changed := np.flatnonzero(bitmap != self._shown)).size:
            voxels = np.column_stack(np.unravel_index(changed, self._marks.shape, order="F"))
            if len(self.widget.pages) > 1:  # only one of them shows what was drawn
                self._shown[changed] = UNKNOWN_VALUE
            else:
                self._shown = bitmap
            self._drawn(voxels, bitmap[changed])
        self._call_waiting()

    def _call_waiting(self) -> None:
        while self._waiting and not self._asked:
            self._waiting.pop(0)()

    def _set(self, **options: Any) -> None:
        """Change options all at once: NiiVue draws everything again after each."""
        self.widget.opts = ConfigOptions(parent=self.widget, **LOOK, **DRAWING, **options)


def _rgba(colours: Iterable[str]) -> np.ndarray:
    """Nothing, and then each colour: int in 0..255, shape (1 + N, 4)."""
    return (255 * np.array([[0, 0, 0, 0], *map(to_rgba, colours)])).round().astype(int)


def _image_volume(images: CaseImages) -> Volume:
    """The image as NiiVue loads it soonest: not compressed, with two bytes for each voxel."""
    low, high = images.greys
    greys = np.clip((images.image.array - low) / (high - low), -BEYOND, BEYOND) * GREYS
    data = images.nifti(greys.round().astype(np.int16)).to_bytes()
    return Sent(data=data, name="image.nii", cal_min=0.0, cal_max=float(GREYS))
