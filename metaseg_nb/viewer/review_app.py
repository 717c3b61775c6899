"""The review in JupyterLab: choose a case, look at it, jump from lesion to lesion, and say what one thinks of it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import escape

import ipywidgets
import pandas as pd

from metaseg_nb.figures.case_images import CaseImages, place_of, read_case_images
from metaseg_nb.parameters import model_title
from metaseg_nb.viewer.case_order import ALL_FOLDS, ORDERS, ordered_cases
from metaseg_nb.viewer.layers import Layer, layers_of
from metaseg_nb.viewer.lesion_rows import lesion_rows
from metaseg_nb.viewer.show import OPEN, usable
from metaseg_nb.viewer.study_tables import StudyTables, finished_studies
from metaseg_nb.viewer.verdicts import VERDICTS, read_verdicts, record_verdict

STYLE = "<style>.review-list select, .review-head { font: 12px/1.4 monospace; white-space: pre; }</style>"
# Of the list of lesions.
HEADER = f"{'':24}{'mm':>6}{'mm³':>9}   Dice of each network, or missed"


class ReviewApp:
    """Widgets to review a study's cases.

    Parameters
    ----------
    study : str
        The one to begin with; all that have a leaderboard can be chosen.
    viewer : str
        "auto", "niivue" or "slices".

    Attributes
    ----------
    widget : ipywidgets.Box
        What a cell shows.
    """

    def __init__(self, study: str, viewer: str = "auto"):
        self.viewer = OPEN[usable(viewer)]()
        self._filling = False
        self._make_choices(study)
        self._make_judgement()
        left = [self.study, self.networks, self.sorted_by, self.order, self.fold, self.case]
        steps = ipywidgets.HBox([self.previous, self.next])
        head = ipywidgets.HTML(f'<div class="review-head"> {HEADER}</div>')
        right = [self.title, self.overlays, self.viewer.widget, head, self.lesions, self.verdict, self.note, self.saved]
        self.widget = ipywidgets.VBox(
            [
                ipywidgets.HTML(STYLE),
                ipywidgets.HBox(
                    [
                        ipywidgets.VBox([*left, steps], layout={"width": "24rem", "flex": "0 0 auto"}),
                        ipywidgets.VBox(right, layout={"flex": "1 1 auto", "min_width": "0"}),
                    ]
                ),
            ]
        )
        self._open_study()

    def _make_choices(self, study: str) -> None:
        self.study = ipywidgets.Dropdown(description="study", options=finished_studies(), value=study)
        self.networks = ipywidgets.SelectMultiple(description="networks", rows=5)
        self.sorted_by = ipywidgets.Dropdown(description="sorted by")
        self.order = ipywidgets.Dropdown(description="order", options=list(ORDERS))
        self.fold = ipywidgets.Dropdown(description="fold")
        self.case, self.lesions = _list(rows=16), _list(rows=7)
        self.previous, self.next = (ipywidgets.Button(description=words) for words in ("← previous", "next →"))
        self.title, self.overlays = ipywidgets.HTML(), ipywidgets.HBox(layout={"flex_flow": "row wrap"})
        self._on(self._open_study, self.study)
        self._on(self._list_cases, self.sorted_by, self.order, self.fold)
        self._on(self._open_case, self.networks, self.case)
        self._on(self._jump, self.lesions)
        self.previous.on_click(lambda button: self._step(-1))
        self.next.on_click(lambda button: self._step(1))

    def _make_judgement(self) -> None:
        self.verdict = ipywidgets.ToggleButtons(options=VERDICTS, value=None)
        self.note = ipywidgets.Textarea(placeholder="note", continuous_update=False, layout={"width": "100%"})
        self.saved = ipywidgets.HTML()
        self._on(self._save, self.verdict, self.note)

    def _on(self, call: Callable[[], None], *widgets: ipywidgets.Widget) -> None:
        """Call when a person changes one of some widgets, and not when this program does."""
        for widget in widgets:
            widget.observe(lambda change: None if self._filling else call(), "value")

    @contextmanager
    def _quietly(self) -> Iterator[None]:
        before, self._filling = self._filling, True
        try:
            yield
        finally:
            self._filling = before

    def _open_study(self) -> None:
        self.tables = StudyTables.read(self.study.value)
        titles = [(model_title(model), model) for model in self.tables.models]
        folds = sorted(self.tables.metrics["fold"].unique().tolist())
        with self._quietly():
            self.networks.options, self.networks.value = titles, tuple(self.tables.models)
            self.sorted_by.options, self.sorted_by.value = titles, self.tables.models[0]
            self.fold.options = [("all", ALL_FOLDS), *((str(fold), fold) for fold in folds)]
            self.fold.value = ALL_FOLDS
        self._list_cases()

    def _list_cases(self) -> None:
        rows = ordered_cases(self.tables.metrics, self.sorted_by.value, self.fold.value, self.order.value)
        judged = read_verdicts(self.tables.layout.verdicts_table).set_index("case")["verdict"]
        with self._quietly():
            self.case.options = [(_case_words(row, judged.get(row.case, "")), row.case) for row in rows.itertuples()]
            self.case.value = rows["case"].iloc[0]
        self._open_case()

    def _open_case(self) -> None:
        tables, name = self.tables, self.case.value
        models = sorted(self.networks.value, key=lambda model: model != self.sorted_by.value)  # it agrees or not
        images = read_case_images(tables.layout, tables.cohort, name, models)
        self.title.value = f"<b>{escape(name)}</b>"
        layers = layers_of(images)
        visible = [layer for layer in layers if not layer.startswith("agreement")]
        self.overlays.children = [self._switch(name, layer, name in visible) for name, layer in layers.items()]
        self.viewer.show(images, visible, place_of(images))
        self._list_lesions(images)
        self._show_verdict(name)

    def _list_lesions(self, images: CaseImages) -> None:
        self._rows = lesion_rows(images, self.tables.lesions)
        with self._quietly():
            self.lesions.options = [(_lesion_words(row), i) for i, row in enumerate(self._rows.itertuples())]
            self.lesions.value = None

    def _show_verdict(self, name: str) -> None:
        kept = read_verdicts(self.tables.layout.verdicts_table).set_index("case")
        verdict, note = kept.loc[name, ["verdict", "note"]] if name in kept.index else ("", "")
        with self._quietly():
            self.verdict.value, self.note.value = verdict or None, note
        self.saved.value = f"{len(kept)} of {self.tables.metrics['case'].nunique()} cases judged"

    def _switch(self, name: str, layer: Layer, visible: bool) -> ipywidgets.Checkbox:
        colours = "".join(f'<span style="color:{colour}">■</span>' for colour in layer.colours.values())
        words = {
            "description": f"{colours} {escape(name)}",
            "description_allow_html": True,
            "tooltip": ", ".join(layer.colours),
        }
        box = ipywidgets.Checkbox(value=visible, indent=False, layout={"width": "auto"}, **words)
        box.observe(lambda change: self.viewer.set_visible(name, change["new"]), "value")
        return box

    def _jump(self) -> None:
        if self.lesions.value is not None:
            self.viewer.jump(self._rows.loc[self.lesions.value, ["x", "y", "z"]].to_list())

    def _step(self, by: int) -> None:
        names = [name for _, name in self.case.options]
        self.case.value = names[(names.index(self.case.value) + by) % len(names)]

    def _save(self) -> None:
        path, name = self.tables.layout.verdicts_table, self.case.value
        record_verdict(path, name, self.verdict.value or "", self.note.value, " ".join(self.networks.value))
        self._show_verdict(name)
        self._mark(name)

    def _mark(self, name: str) -> None:
        """Show the new verdict in the list, where the case keeps its place."""
        rows = self.tables.metrics[self.tables.metrics["model"] == self.sorted_by.value].set_index("case", drop=False)
        words = _case_words(rows.loc[name], self.verdict.value or "")
        with self._quietly():
            self.case.options = [(words if case == name else old, case) for old, case in self.case.options]
            self.case.value = name


def _list(**how) -> ipywidgets.Select:
    widget = ipywidgets.Select(layout={"width": "98%"}, **how)
    widget.add_class("review-list")
    return widget


def _case_words(row: pd.Series | tuple, verdict: str) -> str:
    mark = "✓" if verdict else " "
    return f"{mark} {row.case:<16} {row.dice:.2f} {row.n_missed:>3} missed {row.n_false:>4} false"


def _lesion_words(row: tuple) -> str:
    return f"{row.what:<24}{row.diameter_mm:>6.1f}{row.volume_mm3:>9.0f}   {row.found}"
