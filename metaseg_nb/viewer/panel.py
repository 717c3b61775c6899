"""Widgets of the apps: what those of notebooks 05 and 08 share, and the panel of 08 with its tools and keys."""

from collections.abc import Callable, Sequence
from html import escape
from typing import Any

import ipywidgets

from metaseg_nb.viewer.niivue import CLICK, LESION, LINE
from metaseg_nb.viewer.open_case import HEADER

STYLE = "<style>.app-list select, .app-head { font: 12px/1.45 monospace; white-space: pre; }</style>"
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
    "j": ("next lesion", "following"),
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


class ControlPanel:
    """Widgets that tell what a person does to them."""

    _filling = False

    def _on(self, call: Callable[[], object], *widgets: ipywidgets.Widget) -> None:
        """Call when a person changes one of some widgets, and not when `_fill` does."""
        for widget in widgets:
            widget.observe(lambda change: None if self._filling else self._act(call), "value")

    def _act(self, call: Callable[[], object]) -> None:
        """Do what a person wants."""
        call()

    def _fill(self, widget: Any, value: Any, options: list | None = None) -> None:
        self._filling = True
        if options is not None:
            widget.options = options
        widget.value = value
        self._filling = False


def select(rows: int) -> ipywidgets.Select:
    """A list whose lines are tables."""
    made = ipywidgets.Select(layout={"width": "98%"}, rows=rows)
    made.add_class("app-list")
    return made


def head(words: str) -> ipywidgets.HTML:
    """The head of such a list."""
    return ipywidgets.HTML(f'<div class="app-head"> {words}</div>')


def wrapped(widgets: Sequence[ipywidgets.Widget] = ()) -> ipywidgets.HBox:
    """Widgets beside each other, in as many lines as they need."""
    return ipywidgets.HBox(widgets, layout={"flex_flow": "row wrap"})


def two_columns(left: Sequence[ipywidgets.Widget], width: str, right: Sequence[ipywidgets.Widget]) -> ipywidgets.VBox:
    """A narrow column of this width, and one that takes the rest."""
    columns = [
        ipywidgets.VBox(left, layout={"width": width, "flex": "0 0 auto"}),
        ipywidgets.VBox(right, layout={"flex": "1 1 auto", "min_width": "0"}),
    ]
    return ipywidgets.VBox([ipywidgets.HTML(STYLE), ipywidgets.HBox(columns)])


class AnnotatePanel(ControlPanel):
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
            for names in (
                ("accept", "following", "remove", "restore"),
                ("finish", "finish_empty"),
                ("interpolate", "undo"),
            )
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
