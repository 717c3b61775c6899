"""The review in JupyterLab: choose a case, look at it, jump from lesion to lesion, and give a verdict."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import escape

import ipywidgets
import pandas as pd

from metaseg_nb.figures.case_images import read_case_images
from metaseg_nb.parameters import model_title
from metaseg_nb.viewer.layers import Layer, layers_of, lesion_rows
from metaseg_nb.viewer.show import open_viewer, usable
from metaseg_nb.viewer.study_tables import StudyTables, finished_studies
from metaseg_nb.viewer.verdicts import VERDICTS, read_verdicts, record_verdict

STYLE = "<style>.review-list select, .review-head { font: 12px/1.4 monospace; white-space: pre; }</style>"
# Of the list of lesions.
HEADER = f"{'':24}{'mm':>6}{'mm³':>9}   Dice of each network, or missed"
# How cases are sorted: column of the metrics, and whether small values come first.
ORDERS = {
    "Dice, worst first": ("dice", True),
    "missed lesions": ("n_missed", False),
    "false positives": ("n_false", False),
    "name": ("case", True),
}
ALL_FOLDS = -1


def ordered_cases(metrics: pd.DataFrame, model: str, fold: int, order: str) -> pd.DataFrame:
    """Rows of one network's metrics in one of `ORDERS`, of one fold or of `ALL_FOLDS`."""
    rows = metrics[(metrics["model"] == model) & ((metrics["fold"] == fold) | (fold == ALL_FOLDS))]
    column, ascending = ORDERS[order]
    return rows.sort_values([column, "case"], ascending=[ascending, True], ignore_index=True)


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
        self.viewer = open_viewer(usable(viewer))
        self._filling = False
        self.study = ipywidgets.Dropdown(description="study", options=finished_studies(), value=study)
        self.networks = ipywidgets.SelectMultiple(description="networks", rows=5)
        self.sorted_by = ipywidgets.Dropdown(description="sorted by")
        self.order = ipywidgets.Dropdown(description="order", options=list(ORDERS))
        self.fold = ipywidgets.Dropdown(description="fold")
        self.case, self.lesions = _list(rows=16), _list(rows=7)
        self.previous, self.next = (ipywidgets.Button(description=words) for words in ("← previous", "next →"))
        self.title, self.overlays = ipywidgets.HTML(), ipywidgets.HBox(layout={"flex_flow": "row wrap"})
        self.verdict = ipywidgets.ToggleButtons(options=VERDICTS, value=None)
        self.note = ipywidgets.Textarea(placeholder="note", continuous_update=False, layout={"width": "100%"})
        self.saved = ipywidgets.HTML()
        self.widget = self._laid_out()
        self._on(self._open_study, self.study)
        self._on(self._list_cases, self.sorted_by, self.order, self.fold)
        self._on(self._open_case, self.networks, self.case)
        self._on(self._jump, self.lesions)
        self._on(self._save, self.verdict, self.note)
        self.previous.on_click(lambda button: self._step(-1))
        self.next.on_click(lambda button: self._step(1))
        self._open_study()

    def _laid_out(self) -> ipywidgets.Box:
        left = [self.study, self.networks, self.sorted_by, self.order, self.fold, self.case]
        left.append(ipywidgets.HBox([self.previous, self.next]))
        head = ipywidgets.HTML(f'<div class="review-head"> {HEADER}</div>')
        right = [self.title, self.overlays, self.viewer.widget, head, self.lesions, self.verdict, self.note, self.saved]
        columns = [
            ipywidgets.VBox(left, layout={"width": "24rem", "flex": "0 0 auto"}),
            ipywidgets.VBox(right, layout={"flex": "1 1 auto", "min_width": "0"}),
        ]
        return ipywidgets.VBox([ipywidgets.HTML(STYLE), ipywidgets.HBox(columns)])

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
        with self._quietly():
            self.networks.options, self.networks.value = titles, tuple(self.tables.models)
            self.sorted_by.options, self.sorted_by.value = titles, self.tables.models[0]
            self.fold.options = [("all", ALL_FOLDS), *((str(fold), fold) for fold in range(self.tables.cohort.n_folds))]
            self.fold.value = ALL_FOLDS
        self._list_cases()

    def _list_cases(self, chosen: str = "") -> None:
        rows = ordered_cases(self.tables.metrics, self.sorted_by.value, self.fold.value, self.order.value)
        judged = read_verdicts(self.tables.layout.verdicts_table).set_index("case")["verdict"]
        with self._quietly():
            self.case.options = [(_case_words(row, judged.get(row.case, "")), row.case) for row in rows.itertuples()]
            self.case.value = chosen or rows["case"].iloc[0]
        if not chosen:
            self._open_case()

    def _open_case(self) -> None:
        tables, name = self.tables, self.case.value
        models = sorted(self.networks.value, key=lambda model: model != self.sorted_by.value)  # the first has agreement
        images = read_case_images(tables.layout, tables.cohort, name, models)
        self.title.value = f"<b>{escape(name)}</b>"
        layers = layers_of(images)
        self.overlays.children = [self._switch(name, layer) for name, layer in layers.items()]
        self.viewer.show(images, layers, images.place)
        self._rows = lesion_rows(images, tables.lesions)
        with self._quietly():
            self.lesions.options = [(_lesion_words(row), i) for i, row in enumerate(self._rows.itertuples())]
            self.lesions.value = None
        self._show_verdict()

    def _show_verdict(self) -> None:
        kept = read_verdicts(self.tables.layout.verdicts_table).set_index("case")
        name = self.case.value
        verdict, note = kept.loc[name, ["verdict", "note"]] if name in kept.index else ("", "")
        with self._quietly():
            self.verdict.value, self.note.value = verdict or None, note
        self.saved.value = f"{len(kept)} of {self.tables.metrics['case'].nunique()} cases judged"

    def _switch(self, name: str, layer: Layer) -> ipywidgets.Checkbox:
        colours = "".join(f'<span style="color:{colour}">■</span>' for colour in layer.colours.values())
        words = {"description": f"{colours} {escape(name)}", "tooltip": ", ".join(layer.colours)}
        box = ipywidgets.Checkbox(
            value=layer.visible, indent=False, layout={"width": "auto"}, description_allow_html=True, **words
        )
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
        try:
            record_verdict(path, name, self.verdict.value or "", self.note.value, " ".join(self.networks.value))
        except OSError as error:  # in a widget nobody would see it
            self.saved.value = f"<b>Not saved:</b> {escape(str(error))}"
            return
        self._list_cases(name)
        self._show_verdict()


def _list(rows: int) -> ipywidgets.Select:
    widget = ipywidgets.Select(layout={"width": "98%"}, rows=rows)
    widget.add_class("review-list")
    return widget


def _case_words(row: tuple, verdict: str) -> str:
    mark = "✓" if verdict else " "
    return f"{mark} {row.case:<16} {row.dice:.2f} {row.n_missed:>3} missed {row.n_false:>4} false"


def _lesion_words(row: tuple) -> str:
    return f"{row.what:<24}{row.diameter_mm:>6.1f}{row.volume_mm3:>9.0f}   {row.found}"
