"""The panel of `AnnotateApp`: its tools and keys, its lists, sliders and buttons, and where they stand."""

from html import escape

import ipywidgets

from metaseg_nb.viewer.drawing import CLICK, LESION, LINE
from metaseg_nb.viewer.drawn_lesions import HEADER
from metaseg_nb.viewer.panel import Panel, head, select, two_columns, wrapped

# Each tool: its key, the value it draws with, and whether what it draws around is filled.
TOOLS = {
    "look": ("v", None, False),
    "pen": ("p", LESION, False),
    "filled pen": ("f", LESION, True),
    "eraser": ("e", 0, False),
    "click to segment": ("c", CLICK, False),
    "line": ("l", LINE, False),
}
# Each other key: what it does, and the method of the app or of the open case that does it.
KEYS = {
    "a": ("accept lesion, next", "accept"),
    "r": ("remove lesion", "remove"),
    "z": ("undo", "undo"),
    "i": ("fill between slices", "interpolate"),
    "n": ("done, next case", "finish"),
    "x": ("nothing to see here", "finish_empty"),
}
# Keys that move a slider: what that does, the slider, and the steps.
SLIDERS = {
    "[": ("smaller pen", "size", -1),
    "]": ("larger pen", "size", 1),
    ",": ("lower level", "level", -1),
    ".": ("higher level", "level", 1),
    "+": ("larger image", "zoom", 1),
    "-": ("smaller image", "zoom", -1),
}
NARROW = {"width": "15.5rem"}
LEGEND = """<style>.annotate-legend {{ font-size: 12px; line-height: 1.7; }}
.annotate-legend b {{ font-family: monospace; }}</style>
<div class="annotate-legend">Keys, with the mouse here: {}</div>"""


class AnnotatePanel(Panel):
    """Widgets, and what only changes a widget.

    Parameters
    ----------
    image : Widget
        Where a case is shown.
    """

    def __init__(self, image: ipywidgets.Widget):
        self.cases, self.lesions = select(9), select(10)
        tools = [(f"{name} ({key})", name) for name, (key, *_) in TOOLS.items()]
        self.tool = ipywidgets.ToggleButtons(options=tools, style={"button_width": "auto"})
        self.size = ipywidgets.IntSlider(description="pen size [ ]", layout=NARROW, value=1, min=1, max=15, step=2)
        self.level = ipywidgets.FloatSlider(description="level , .", layout=NARROW, value=0.5, min=0, max=1, step=0.05)
        self.zoom = ipywidgets.FloatSlider(description="zoom + -", layout=NARROW, value=1, min=1, max=6, step=0.5)
        self.title, self.message = ipywidgets.HTML(), ipywidgets.HTML()
        named = {name: f"{words} ({key})" for key, (words, name) in KEYS.items()}
        named["restore"] = "restore lesion"
        self.buttons = {
            name: ipywidgets.Button(description=words, layout={"width": "auto"}) for name, words in named.items()
        }
        of_lesion, of_case, of_mask = (
            wrapped([self.buttons[name] for name in names])
            for names in (("accept", "remove", "restore"), ("finish", "finish_empty"), ("interpolate", "undo"))
        )
        left = [self.cases, head(HEADER), self.lesions, of_lesion, of_case]
        bars = [wrapped([self.tool]), wrapped([self.size, self.level, self.zoom, *of_mask.children])]
        keys = [f"<b>{key}</b> {words}" for key, (words, *_) in (KEYS | SLIDERS).items()]
        keys += [f"<b>{key}</b> {name}" for name, (key, *_) in TOOLS.items()]
        columns = two_columns(left, "27rem", [self.title, self.message, *bars, image])
        self.widget = ipywidgets.VBox([columns, ipywidgets.HTML(LEGEND.format(" · ".join(keys)))])

    def _move(self, slider: str, steps: int) -> None:
        """Move one of the sliders."""
        moved = getattr(self, slider)
        moved.value += steps * moved.step

    def _say(self, words: str) -> None:
        self.message.value = f"<b>{escape(words)}</b>"
