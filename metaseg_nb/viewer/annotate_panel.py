"""The panel of `AnnotateApp`: its tools and keys, its lists, sliders and buttons, and where they stand."""

from html import escape
from typing import Any

import ipywidgets

from metaseg_nb.viewer.drawing import CLICK, LESION, LINE
from metaseg_nb.viewer.drawn_lesions import HEADER

# Each tool: its key, the value it draws with, and whether what it draws around is filled.
TOOLS = {
    "look": ("v", None, False),
    "pen": ("p", LESION, False),
    "filled pen": ("f", LESION, True),
    "eraser": ("e", 0, False),
    "click to segment": ("c", CLICK, False),
    "line": ("l", LINE, False),
}
# Each other key: what it does, and the method that does it.
KEYS = {
    "a": ("accept lesion, next", "accept"),
    "r": ("remove lesion", "remove"),
    "z": ("undo", "undo"),
    "i": ("fill between slices", "interpolate"),
    "n": ("done, next case", "finish"),
    "x": ("nothing to see here", "finish_empty"),
    "[": ("smaller pen", "smaller"),
    "]": ("larger pen", "larger"),
    ",": ("lower level", "lower"),
    ".": ("higher level", "higher"),
    "+": ("larger image", "nearer"),
    "-": ("smaller image", "farther"),
}
NARROW = {"width": "15.5rem"}
STYLE = """<style>
.annotate-list select { font: 12px/1.45 monospace; white-space: pre; }
.annotate-head { font: 12px/1.4 monospace; white-space: pre; }
.annotate-legend { font-size: 12px; line-height: 1.7; } .annotate-legend b { font-family: monospace; }
</style>"""


class AnnotatePanel:
    """Widgets without what they do.

    Parameters
    ----------
    image : Widget
        Where a case is shown.
    """

    def __init__(self, image: ipywidgets.Widget):
        self._filling = False
        self.cases, self.lesions = (ipywidgets.Select(layout={"width": "98%"}, rows=rows) for rows in (9, 10))
        tools = [(f"{name} ({key})", name) for name, (key, *_) in TOOLS.items()]
        self.tool = ipywidgets.ToggleButtons(options=tools, style={"button_width": "auto"})
        self.size = ipywidgets.IntSlider(description="pen size [ ]", layout=NARROW, value=1, min=1, max=15, step=2)
        self.level = ipywidgets.FloatSlider(description="level , .", layout=NARROW, value=0.5, min=0, max=1, step=0.05)
        self.zoom = ipywidgets.FloatSlider(description="zoom + -", layout=NARROW, value=1, min=1, max=6, step=0.5)
        self.title, self.message = ipywidgets.HTML(), ipywidgets.HTML()
        self.buttons = {name: _button(f"{words} ({key})") for key, (words, name) in KEYS.items() if key.isalpha()}
        self.restore_button = _button("restore lesion")
        for widget in (self.cases, self.lesions):
            widget.add_class("annotate-list")
        keys = [f"<b>{key}</b> {words}" for key, (words, _) in KEYS.items()]
        keys += [f"<b>{key}</b> {name}" for name, (key, *_) in TOOLS.items()]
        legend = ipywidgets.HTML(f'<div class="annotate-legend">Keys, with the mouse here: {" · ".join(keys)}</div>')
        head = ipywidgets.HTML(f'<div class="annotate-head"> {HEADER}</div>')
        of_lesion = [self.buttons["accept"], self.buttons["remove"], self.restore_button]
        of_case = [self.buttons["finish"], self.buttons["finish_empty"]]
        rows = [ipywidgets.HBox(row, layout={"flex_flow": "row wrap"}) for row in (of_lesion, of_case)]
        left = [self.cases, head, self.lesions, *rows]
        changing = [self.size, self.level, self.zoom, self.buttons["interpolate"], self.buttons["undo"]]
        bars = [ipywidgets.HBox(row, layout={"flex_flow": "row wrap"}) for row in ([self.tool], changing)]
        right = [self.title, self.message, *bars, image]
        columns = [
            ipywidgets.VBox(left, layout={"width": "27rem", "flex": "0 0 auto"}),
            ipywidgets.VBox(right, layout={"flex": "1 1 auto", "min_width": "0"}),
        ]
        self.widget = ipywidgets.VBox([ipywidgets.HTML(STYLE), ipywidgets.HBox(columns), legend])

    def _fill(self, widget: Any, value: Any, options: list | None = None) -> None:
        self._filling = True
        if options is not None:
            widget.options = options
        widget.value = value
        self._filling = False

    def _say(self, words: str) -> None:
        self.message.value = f"<b>{escape(words)}</b>"


def _button(words: str) -> ipywidgets.Button:
    return ipywidgets.Button(description=words, layout={"width": "auto"})
