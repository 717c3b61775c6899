"""Plots of `seaborn.objects` as figures of this workbook, and learning curves, also while a network trains."""

from collections.abc import Callable, Iterable

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from IPython import get_ipython
from IPython.display import DisplayHandle
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from seaborn import objects

from metaseg_nb.evaluation.claims import ALL
from metaseg_nb.figures.style import model_colour
from metaseg_nb.parameters import model_title

# Scores on the selection set, by their column of a history.
SCORES = {"dice": "mean Dice", "variance_restored": "hidden variance restored"}
STYLE = ("axes.", "font.", "grid.", "xtick.", "ytick.")


def with_titles(table: pd.DataFrame) -> pd.DataFrame:
    """Add the column ``network``: the title of each ``model``."""
    return table.assign(network=table["model"].map({name: _title(name) for name in table["model"].unique()}))


def palette(models: Iterable[str]) -> dict[str, str]:
    """Colour of each network by its title, the same in every figure."""
    return {_title(model): "black" if model == ALL else model_colour(model) for model in models}


def _title(model: str) -> str:
    return model if model == ALL else model_title(model)


def draw(plot: objects.Plot, size: tuple[float, float]) -> Figure:
    """Draw a plot of `seaborn.objects` in the workbook's style, its legend on the right; size in inches."""
    figure = plt.figure(figsize=size, layout="constrained")
    style = {name: value for name, value in plt.rcParams.items() if name.startswith(STYLE)}
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


def learning_curve(history: pd.DataFrame, kept_epoch: int, title: str) -> Figure:
    """Training loss and score on the selection set over epochs; the epoch whose weights are kept is marked."""
    score = _score_column(history)
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.2), layout="constrained")
    left.plot(history["epoch"], history["loss"], color="#000000", marker=".")
    left.set(xlabel="epoch", ylabel="training loss", title=title)
    right.plot(history["epoch"], history[score], color="#0072B2", marker=".")
    right.axvline(kept_epoch, color="#D55E00", linestyle=":", label=f"kept: epoch {kept_epoch}")
    words = f"{SCORES[score]}, selection set"
    right.set(xlabel="epoch", ylabel=words, ylim=(0, 1), title="patients not used for training")
    for panel in (left, right):
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    right.legend(frameon=False)
    return figure


def live_learning_curve(title: str) -> Callable[[pd.DataFrame], None]:
    """Make what `fit` calls with its history after each validation; without a browser it draws nothing."""
    if not somebody_watches():
        return lambda history: None
    handle = DisplayHandle()
    handle.display(None)

    def redraw(history: pd.DataFrame) -> None:
        score = history[_score_column(history)]
        figure = learning_curve(history, history.loc[score == score.max(), "epoch"].max(), title)
        handle.update(figure)
        plt.close(figure)

    return redraw


def somebody_watches() -> bool:
    """Tell whether this code was started from a browser, and not by papermill or nbconvert."""
    kernel = getattr(get_ipython(), "kernel", None)
    # JupyterLab signs its requests with no name, clients in Python with the user's
    return kernel is not None and kernel.get_parent().get("header", {}).get("username") == ""


def _score_column(history: pd.DataFrame) -> str:
    return next(name for name in SCORES if name in history)
