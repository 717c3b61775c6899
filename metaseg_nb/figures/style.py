"""One look for all figures and tables: colours that colour-blind readers tell apart, sizes that print."""

import warnings
from collections.abc import Callable

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.text import Text
from pandas.io.formats.style import Styler

from metaseg_nb.files import finished
from metaseg_nb.layout import StudyLayout
from metaseg_nb.privacy import private_free
from metaseg_nb.settings import THRESHOLD_MODEL, model_names

# What is warned of where a table is empty: its plot is then empty too.
EMPTY = ("Ignoring `palette` because no `hue`", "No artists with labels found")
# Okabe & Ito 2008: reference, prediction and what both mark, then the networks. No colour has two meanings.
REFERENCE, PREDICTION, FOUND = "#56B4E9", "#E69F00", "#F0E442"
MODEL_COLOURS = {
    "unet": "#0072B2",
    "attention_unet": "#009E73",
    "segresnet": "#CC79A7",
    "unetr": "#D55E00",
    THRESHOLD_MODEL: "#999999",
}
# Of a font's size: a little more than the mean over letters and digits.
CHARACTER_WIDTH = 0.64
# Tol 2021, for models beside those of the study.
MORE_COLOURS = ("#332288", "#882255", "#999933", "#44AA99", "#AA4499", "#DDCC77", "#117733", "#CC6677", "#88CCEE")


def model_colour(model: str) -> str:
    """Colour of a model, the same in every figure."""
    more = [name for name in model_names() if name not in MODEL_COLOURS]
    return MODEL_COLOURS.get(model) or MORE_COLOURS[more.index(model) % len(MORE_COLOURS)]


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
    plt.rcParams.update({"figure.dpi": 100, "savefig.dpi": 150, "axes.titleweight": "bold", "axes.titlesize": 11})
    plt.rcParams["text.parse_math"] = False  # a dollar sign in a name is a dollar sign


def show_table(table: pd.DataFrame, precision: int = 1) -> Styler:
    """A table to be read: words left and escaped, numbers right with some digits, no index."""
    words = [name for name in table.columns if not pd.api.types.is_numeric_dtype(table[name])]
    left = {name: [{"selector": "th, td", "props": "text-align: left"}] for name in words}
    # the Styler escapes text alone
    table = table.assign(**{name: table[name].map(str, na_action="ignore") for name in words})
    styler = table.style.format(precision=precision, na_rep="–", escape="html").format_index(escape="html", axis=1)
    return styler.hide(axis="index").set_table_styles(left)


def save_figure(figure: Figure, layout: StudyLayout, name: str) -> None:
    """Save a figure as PNG under ``figures/<study>/``; its words are made fit to be handed on, here and on the page."""
    _clean_words(figure, private_free(layout))
    with finished(layout.figures / f"{name}.png") as unfinished:
        figure.savefig(unfinished, format="png", bbox_inches="tight")


def _clean_words(figure: Figure, clean: Callable[[str], str]) -> None:
    for axis in [axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)]:
        labels = [label.get_text() for label in axis.get_ticklabels()]
        if labels != (cleaned := [clean(label) for label in labels]):
            axis.set_ticks(axis.get_ticklocs(), cleaned)
    for text in figure.findobj(Text):
        text.set_text(clean(text.get_text()))
