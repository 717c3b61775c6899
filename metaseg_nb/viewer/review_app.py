"""The review in JupyterLab: choose a case, look at it, jump from lesion to lesion, and give a verdict."""

from datetime import UTC, datetime
from html import escape
from pathlib import Path

import ipywidgets
import pandas as pd

from metaseg_nb.figures.reviewed import CaseImages, StudyTables, false_lesions, finished_studies, read_case_images
from metaseg_nb.files import read_text_table, write_table
from metaseg_nb.machine import alone
from metaseg_nb.parameters import model_title
from metaseg_nb.viewer.niivue import Layer, NiiVueViewer
from metaseg_nb.viewer.panel import ControlPanel, head, select, two_columns, wrapped
from metaseg_nb.viewer.viewers import layers_of

VERDICTS = ("acceptable", "small corrections", "large corrections", "unusable")
VERDICT_COLUMNS = ["case", "verdict", "note", "networks", "time"]
# Of the list of lesions; smaller false lesions are many, and nobody looks at them one by one.
LESIONS_HEADER = f"{'':24}{'mm':>6}{'mm³':>9}   Dice of each network, or missed"
FALSE_FROM_MM = 5.0
PLACE = ["volume_mm3", "diameter_mm", "x", "y", "z"]
# How cases are sorted: column of the metrics, and whether small values come first.
ORDERS = {
    "Dice, worst first": ("dice", True),
    "missed lesions": ("n_missed", False),
    "false lesions": ("n_false", False),
    "name": ("case", True),
}
ALL_FOLDS = -1


def read_verdicts(path: Path) -> pd.DataFrame:
    """Read the verdicts of a study, a row a case; empty where there are none yet."""
    return read_text_table(path) if path.is_file() else pd.DataFrame(columns=VERDICT_COLUMNS)


def record_verdict(path: Path, case: str, verdict: str, note: str, networks: str) -> None:
    """Write the verdict on a case (one of `VERDICTS`, or "" for a note alone) in place of an earlier one.

    ``networks`` are those that were looked at.
    """
    with alone(path.with_name(f".{path.name}.lock")):
        others = read_verdicts(path)
        time = datetime.now(UTC).isoformat(timespec="seconds")
        row = pd.DataFrame([[case, verdict, note, networks, time]], columns=VERDICT_COLUMNS)
        write_table(path, pd.concat([others[others["case"] != case], row], ignore_index=True).sort_values("case"))


def ordered_cases(metrics: pd.DataFrame, model: str, fold: int, order: str) -> pd.DataFrame:
    """Rows of one network's metrics in one of `ORDERS`, of one fold or of `ALL_FOLDS`."""
    rows = metrics[(metrics["model"] == model) & ((metrics["fold"] == fold) | (fold == ALL_FOLDS))]
    column, ascending = ORDERS[order]
    return rows.sort_values([column, "case"], ascending=[ascending, True], ignore_index=True)


def lesion_rows(images: CaseImages, lesions: pd.DataFrame) -> pd.DataFrame:
    """List a case's lesions: first those of the reference, then the false ones from `FALSE_FROM_MM` on.

    Parameters
    ----------
    images : CaseImages
    lesions : DataFrame
        Pooled, from notebook 04.

    Returns
    -------
    DataFrame
        ``what`` ("lesion 1", "false, U-Net"), ``found`` (each network's Dice, or missed), ``volume_mm3``,
        ``diameter_mm``, ``x``, ``y``, ``z`` (RAS voxels).
    """
    order = list(images.predictions)
    rows = lesions[(lesions["case"] == images.name) & lesions["model"].isin(order)]
    rows = rows.sort_values("model", key=lambda models: models.map(order.index), kind="stable")
    result = rows["dice"].map("{:.2f}".format).where(rows["detected"], "missed")
    rows = rows.assign(found=rows["model"].map(model_title) + " " + result)
    columns = {"found": ("found", ", ".join)} | {name: (name, "first") for name in PLACE}
    reference = rows.groupby("lesion", as_index=False).agg(**columns)
    tables = [reference.assign(what="lesion " + reference["lesion"].astype(str))]
    for model, mask in images.predictions.items():
        false = false_lesions(images.reference, mask, images.image.spacing_mm)
        large = false[false["diameter_mm"] >= FALSE_FROM_MM]
        tables.append(large.assign(what=f"false, {model_title(model)}", found=""))
    return pd.concat([table for table in tables if len(table)] or tables, ignore_index=True)[["what", "found", *PLACE]]


class ReviewApp(ControlPanel):
    """Widgets to review a study's cases in NiiVue; ``widget`` is what a cell shows.

    Parameters
    ----------
    study : str
        The one to begin with; all that have a leaderboard can be chosen.
    """

    def __init__(self, study: str):
        self.viewer = NiiVueViewer()
        self.study = ipywidgets.Dropdown(description="study", options=finished_studies(), value=study)
        self.networks = ipywidgets.SelectMultiple(description="networks", rows=5)
        self.sorted_by = ipywidgets.Dropdown(description="sorted by")
        self.order = ipywidgets.Dropdown(description="order", options=list(ORDERS))
        self.fold = ipywidgets.Dropdown(description="fold")
        self.case, self.lesions = select(16), select(7)
        self.previous, self.next = (ipywidgets.Button(description=words) for words in ("← previous", "next →"))
        self.title, self.overlays = ipywidgets.HTML(), wrapped()
        self.verdict = ipywidgets.ToggleButtons(options=VERDICTS, value=None)
        self.note = ipywidgets.Textarea(placeholder="note", continuous_update=False, layout={"width": "100%"})
        self.saved = ipywidgets.HTML()
        left = [self.study, self.networks, self.sorted_by, self.order, self.fold, self.case]
        left.append(ipywidgets.HBox([self.previous, self.next]))
        right = [self.title, self.overlays, self.viewer.widget, head(LESIONS_HEADER), self.lesions]
        self.widget = two_columns(left, "24rem", [*right, self.verdict, self.note, self.saved])
        self._on(self._open_study, self.study)
        self._on(self._list_cases, self.sorted_by, self.order, self.fold)
        self._on(self._open_case, self.networks, self.case)
        self._on(self._jump, self.lesions)
        self._on(self._save, self.verdict, self.note)
        self.previous.on_click(lambda button: self._step(-1))
        self.next.on_click(lambda button: self._step(1))
        self._open_study()

    def _open_study(self) -> None:
        self.tables = StudyTables.read(self.study.value)
        models, titles = self.tables.models, [(model_title(model), model) for model in self.tables.models]
        folds = [("all", ALL_FOLDS), *((str(fold), fold) for fold in range(self.tables.cohort.n_folds))]
        self._fill(self.networks, tuple(models), titles)
        self._fill(self.sorted_by, models[0], titles)
        self._fill(self.fold, ALL_FOLDS, folds)
        self._list_cases()

    def _list_cases(self) -> None:
        self._fill_cases()
        self._open_case()

    def _fill_cases(self, chosen: str = "") -> None:
        rows = ordered_cases(self.tables.metrics, self.sorted_by.value, self.fold.value, self.order.value)
        judged = set(read_verdicts(self.tables.layout.verdicts_table).query("verdict != ''")["case"])
        options = [
            (
                f"{'✓' if row.case in judged else ' '} {row.case:<16} {row.dice:.2f} "
                f"{row.n_missed:>3} missed {row.n_false:>4} false",
                row.case,
            )
            for row in rows.itertuples()
        ]
        self._fill(self.case, chosen or rows["case"].iloc[0], options)

    def _open_case(self) -> None:
        tables, name = self.tables, self.case.value
        models = sorted(self.networks.value, key=lambda model: model != self.sorted_by.value)  # the first has agreement
        images = read_case_images(tables.layout, tables.cohort, name, models)
        self.title.value = f"<b>{escape(name)}</b>"
        layers = layers_of(images)
        self.overlays.children = [self._switch(name, layer) for name, layer in layers.items()]
        self.viewer.show(images, layers, images.place)
        self._rows = lesion_rows(images, tables.lesions)
        options = [
            (f"{row.what:<24}{row.diameter_mm:>6.1f}{row.volume_mm3:>9.0f}   {row.found}", row.Index)
            for row in self._rows.itertuples()
        ]
        self._fill(self.lesions, None, options)
        self._show_verdict()

    def _switch(self, name: str, layer: Layer) -> ipywidgets.Checkbox:
        colours = "".join(f'<span style="color:{colour}">■</span>' for colour in layer.colours.values())
        words = {"description": f"{colours} {escape(name)}", "tooltip": ", ".join(layer.colours)}
        look = {"indent": False, "layout": {"width": "auto"}, "description_allow_html": True}
        box = ipywidgets.Checkbox(value=layer.visible, **words, **look)
        box.observe(lambda change: self.viewer.set_visible(name, change["new"]), "value")
        return box

    def _jump(self) -> None:
        if self.lesions.value is not None:
            self.viewer.jump(self._rows.loc[self.lesions.value, ["x", "y", "z"]].to_list())

    def _step(self, by: int) -> None:
        names = [name for _, name in self.case.options]
        self.case.value = names[(names.index(self.case.value) + by) % len(names)]

    def _show_verdict(self) -> None:
        kept = read_verdicts(self.tables.layout.verdicts_table).set_index("case")
        name = self.case.value
        verdict, note = kept.loc[name, ["verdict", "note"]] if name in kept.index else ("", "")
        self._fill(self.verdict, verdict or None)
        self._fill(self.note, note)
        self.saved.value = f"{len(kept)} of {self.tables.metrics['case'].nunique()} cases judged"

    def _save(self) -> None:
        path, name = self.tables.layout.verdicts_table, self.case.value
        try:
            record_verdict(path, name, self.verdict.value or "", self.note.value, " ".join(self.networks.value))
        except OSError as error:  # in a widget nobody would see it
            self.saved.value = f"<b>Not saved:</b> {escape(str(error))}"
            return
        self._fill_cases(name)
        self._show_verdict()
