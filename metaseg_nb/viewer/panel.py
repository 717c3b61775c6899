"""What the apps of notebooks 05 and 08 share: lists, two columns, and widgets that people and Python change."""

from collections.abc import Callable, Sequence
from typing import Any

import ipywidgets

STYLE = "<style>.app-list select, .app-head { font: 12px/1.45 monospace; white-space: pre; }</style>"


class Panel:
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
