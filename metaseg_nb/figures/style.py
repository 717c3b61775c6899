"""One look for all figures and tables, and how they are saved.

Colours are those that colour-blind readers tell apart, sizes those that print.
"""

import json
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from IPython import get_ipython
from matplotlib.figure import Figure
from matplotlib.text import Text
from pandas.io.formats.style import Styler

from metaseg_nb.files import finished, write_json, write_table, write_text
from metaseg_nb.layout import StudyLayout, parameter_names
from metaseg_nb.machine import commit
from metaseg_nb.parameters import model_title
from metaseg_nb.privacy import private_free
from metaseg_nb.settings import ALL, THRESHOLD_MODEL, Settings

if TYPE_CHECKING:
    from seaborn import objects

# What is warned of where a table is empty: its plot is then empty too.
EMPTY = ("Ignoring `palette` because no `hue`", "No artists with labels found")
# Okabe & Ito 2008 and IBM: reference, prediction, what both mark, margin, brain; then networks. Each has one meaning.
REFERENCE, PREDICTION, FOUND, MARGIN, BRAIN_COLOUR = "#56B4E9", "#E69F00", "#F0E442", "#DC267F", "#785EF0"
MODEL_COLOURS = {
    "unet": "#0072B2",
    "attention_unet": "#009E73",
    "segresnet": "#CC79A7",
    "unetr": "#D55E00",
    "recommended": "#882255",
    THRESHOLD_MODEL: "#999999",
    ALL: "black",
}
# Tol 2021, for models beside those of the study.
MORE_COLOURS = ("#332288", "#999933", "#44AA99", "#AA4499", "#DDCC77", "#117733", "#CC6677", "#88CCEE")
SAVED_DPI = 150
# Settings of matplotlib that plots of `seaborn.objects` take over.
TAKEN_OVER = ("axes.", "font.", "grid.", "xtick.", "ytick.")
# Of a font's size: a little more than the mean over letters and digits.
CHARACTER_WIDTH = 0.64


def model_colour(model: str) -> str:
    """Colour of a model, the same in every figure."""
    more = [name for name in parameter_names("model") if name not in MODEL_COLOURS]
    return MODEL_COLOURS.get(model) or MORE_COLOURS[more.index(model) % len(MORE_COLOURS)]


def palette(models: Iterable[str]) -> dict[str, str]:
    """Colour of each network by its title, the same in every figure."""
    return {model_title(model): model_colour(model) for model in models}


def with_titles(table: pd.DataFrame) -> pd.DataFrame:
    """Add the column ``network``: the title of each ``model``."""
    return table.assign(network=table["model"].map({name: model_title(name) for name in table["model"].unique()}))


def fitted(name: str, inches: float, points: float) -> str:
    """A name that is no wider than a space at a font size; its middle gives way, as names differ at their ends."""
    most = max(3, int(inches * 72 / (CHARACTER_WIDTH * points)))
    return name if len(name) <= most else f"{name[: most // 2]}…{name[len(name) - (most - 1) // 2 :]}"


def use_style() -> None:
    """Set the workbook's figure style for all that is drawn after."""
    for words in EMPTY:
        warnings.filterwarnings("ignore", words)
    # the font that matplotlib brings along: figures look alike on every machine
    sns.set_theme(context="notebook", style="ticks", font="DejaVu Sans", font_scale=0.9)
    plt.rcParams.update({"figure.dpi": 100, "savefig.dpi": SAVED_DPI, "axes.titleweight": "bold", "axes.titlesize": 11})
    plt.rcParams["text.parse_math"] = False  # a dollar sign in a name is a dollar sign


def draw(plot: "objects.Plot", size: tuple[float, float]) -> Figure:
    """Draw a plot of `seaborn.objects` in the workbook's style, its legend on the right; size in inches."""
    figure = plt.figure(figsize=size, layout="constrained")
    style = {name: value for name, value in plt.rcParams.items() if name.startswith(TAKEN_OVER)}
    if plot._data.frame.empty:  # pyright: ignore[reportAttributeAccessIssue]  # seaborn fails on an empty table
        figure.subplots().text(0.5, 0.5, "nothing to show", ha="center")
    else:
        plot.theme(style).on(figure).plot()
    for legend in figure.legends[:]:  # seaborn's own lies on the axes
        figure.legends.remove(legend)
        names = [text.get_text() for text in legend.get_texts()]
        handles = [handle for handle in legend.legend_handles if handle is not None]
        figure.legend(handles, names, loc="outside right center", frameon=False)
    sns.despine(figure)
    return figure


def save_figure(figure: Figure, layout: StudyLayout, name: str, formats: tuple[str, ...] = ("png",)) -> None:
    """Save a figure under ``figures/<study>/``; its words are made fit to be handed on, here and on the page.

    It is laid out once, for all formats and for the page: what is drawn later finds no more room.
    """
    clean = private_free(layout)
    for axis in [axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)]:
        labels = [label.get_text() for label in axis.get_ticklabels()]
        if labels != (cleaned := [clean(label) for label in labels]):
            axis.set_ticks(axis.get_ticklocs(), cleaned)
    for text in figure.findobj(Text):
        text.set_text(clean(text.get_text()))
    shown, figure.dpi = figure.dpi, SAVED_DPI  # how wide words are depends on it
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    box = figure.get_tightbbox().padded(plt.rcParams["savefig.pad_inches"])
    figure.dpi = shown
    for kind in formats:
        with finished(layout.figures / f"{name}.{kind}") as unfinished:
            figure.savefig(unfinished, format=kind, dpi=SAVED_DPI, bbox_inches=box)


def show_table(table: pd.DataFrame, precision: int = 1) -> Styler:
    """A table to be read: words left and escaped, numbers right with some digits, no index."""
    words = [name for name in table.columns if not pd.api.types.is_numeric_dtype(table[name])]
    left = {name: [{"selector": "th, td", "props": "text-align: left"}] for name in words}
    # the Styler escapes text alone
    table = table.assign(**{name: table[name].map(str, na_action="ignore") for name in words})
    styler = table.style.format(precision=precision, na_rep="–", escape="html").format_index(escape="html", axis=1)
    return styler.hide(axis="index").set_table_styles(left)


def show_leaderboard(board: pd.DataFrame) -> Styler:
    """Mean ± sd (median) over patients with the 95 % interval of the mean, failures, costs; best network first."""
    from metaseg_nb.evaluation.scoring import METRICS  # here: loads packages that processes that draw do not need

    board = board.rename(columns={"dice_mean": "dice"}).assign(millions=board["parameters"] / 1e6)
    shown = {"dice": ("Dice", 3)} | {name: (metric.title, metric.digits) for name, metric in METRICS.items()}
    shown |= {"lesion_sensitivity": ("share of lesions detected", 3)}
    shown |= {"false_per_patient": ("false lesions per patient", 1)}
    for size in ("large", "small"):
        shown[f"f1_{size}_2026"] = f"F1, {size} lesions (METS 2026)", 3
        shown[f"{size}_false_2026"] = f"false {size} lesions per patient (METS 2026)", 1

    def text(name: str, digits: int) -> pd.Series:
        return board[name].map(lambda value: "–" if pd.isna(value) else f"{value:.{digits}f}")

    rows = {"patients (with Dice 0)": board["patients"].map("{} (".format) + board["failures"].map("{})".format)}
    for name, (title, digits) in shown.items():
        rows[title] = text(name, digits)
        if f"{name}_sd" in board:
            rows[title] += " ± " + text(f"{name}_sd", digits) + "<br>(" + text(f"{name}_median", digits) + ")"
        rows[title] += "<br>[" + text(f"{name}_low", digits) + ", " + text(f"{name}_high", digits) + "]"
    rows |= {"training, minutes per fold": text("train_minutes", 1), "parameters, millions": text("millions", 2)}
    styler = pd.DataFrame(rows).set_axis(board["model"].map(model_title), axis=0).rename_axis(None).T.style
    look = [
        {"selector": "td, th", "props": "text-align: left; vertical-align: top"},
        {"selector": "td", "props": "white-space: nowrap"},  # names may wrap: five columns fit a page
    ]
    return styler.format_index(escape="html", axis=0).format_index(escape="html", axis=1).set_table_styles(look)


@dataclass(frozen=True)
class Records:
    """Saves a notebook's figures and tables in the formats that papers need, each figure with its origin.

    Parameters
    ----------
    layout : StudyLayout
    notebook : str
        Such as "04_cross_validation"; its number starts the figures' names.
    settings : Settings
        Its parameters.
    cohort : str
        Stands above each figure.
    """

    layout: StudyLayout
    notebook: str
    settings: Settings
    cohort: str

    def figure(self, figure: Figure, name: str) -> None:
        """Save as ``figures/<study>/<number>_<name>`` PNG, SVG, and JSON that names notebook, parameters and commit."""
        figure.suptitle(f"Cohort: {self.cohort}")
        name = f"{self.notebook.split('_')[0]}_{name}"
        save_figure(figure, self.layout, name, ("png", "svg"))
        made_by = {"notebook": self.notebook, "parameters": self.settings.model_dump(), "commit": commit()}
        facts = json.dumps({"figure": name, **made_by}, ensure_ascii=False)
        write_json(self.layout.figures / f"{name}.json", json.loads(private_free(self.layout)(facts)))

    def table(self, table: pd.DataFrame, file: Path) -> None:
        """Save as CSV, and beside it as LaTeX (booktabs) with three digits."""
        latex = table.to_latex(index=False, escape=True, float_format="%.3g", na_rep="--")
        write_text(file.with_suffix(".tex"), private_free(self.layout)(latex).rstrip("\n"))
        write_table(file, table)


def somebody_watches() -> bool:
    """Tell whether this code was started from a browser, and not by papermill or nbconvert."""
    kernel = getattr(get_ipython(), "kernel", None)
    # JupyterLab signs its requests with no name, clients in Python with the user's
    return kernel is not None and kernel.get_parent().get("header", {}).get("username") == ""
