"""Charts of tables: training, cross-validation."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from metaseg_nb.cohort.lesions import DIAMETER_NAMES
from metaseg_nb.figures.style import model_colour
from metaseg_nb.parameters import model_title

# Best validation Dice that the Zürich study (273 patients, 2022) published; not comparable, see notebook 04.
PUBLISHED_DICE = {"attention_unet": 0.738, "unet": 0.713, "segresnet": 0.685, "unetr": 0.576}

# Scores on the selection set, by their column of a history.
SCORES = {"dice": "mean Dice", "variance_restored": "hidden variance restored"}

# Of the dots around their row, so that equal values are seen.
JITTER = 0.22


def learning_curve(history: pd.DataFrame, best_epoch: int, title: str) -> Figure:
    """Training loss and score on the selection set over epochs; the chosen epoch marked."""
    score = score_column(history)
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.2), layout="constrained")
    left.plot(history["epoch"], history["loss"], color="#000000", marker=".")
    left.set(xlabel="epoch", ylabel="training loss", title=title)
    right.plot(history["epoch"], history[score], color="#0072B2", marker=".")
    right.axvline(best_epoch, color="#D55E00", linestyle=":", label=f"kept: epoch {best_epoch}")
    words = f"{SCORES[score]}, selection set"
    right.set(xlabel="epoch", ylabel=words, ylim=(0, 1), title="chosen on the selection set")
    for panel in (left, right):
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    right.legend(frameon=False)
    return figure


def score_column(history: pd.DataFrame) -> str:
    """Name of the column that holds the score on the selection set."""
    return next(name for name in SCORES if name in history)


def dice_chart(metrics: pd.DataFrame, board: pd.DataFrame) -> Figure:
    """Dice of every patient, network by network, best mean first, with the 95 % interval of the mean."""
    order = board["model"].tolist()
    figure, axes = plt.subplots(figsize=(11, 0.75 * len(order) + 1.6), layout="constrained")
    patients = metrics.groupby(["model", "patient"], as_index=False)["dice"].mean()
    jitter = np.random.default_rng(0)  # the same picture each time
    for row, model in enumerate(order):
        dice = patients.loc[patients["model"] == model, "dice"]
        heights = row + jitter.uniform(-JITTER, JITTER, len(dice))
        axes.scatter(dice, heights, s=16, alpha=0.55, color=model_colour(model), linewidths=0)
    for row, (mean, low, high) in enumerate(board[["dice_mean", "dice_low", "dice_high"]].to_numpy()):
        axes.plot([low, high], [row, row], color="black", linewidth=2.5, zorder=4)
        axes.plot(mean, row, "D", color="black", markersize=6, zorder=5)
        axes.annotate(f"{mean:.2f}", (mean, row), (0, 8), textcoords="offset points", ha="center", weight="bold")
    for model, dice in PUBLISHED_DICE.items():
        if model in order:
            row = order.index(model)
            axes.plot(dice, row + 0.33, "v", color="black", markerfacecolor="white", markersize=7)
    axes.plot([], [], "v", color="black", markerfacecolor="white", label="published (Zürich, 2022), other data")
    axes.plot([], [], "D-", color="black", label="mean, 95 % interval")
    axes.plot([], [], "o", color="#777777", alpha=0.6, label=f"one patient (n = {patients['patient'].nunique()})")
    failures = dict(zip(board["model"], board["failures"], strict=True))
    labels = [f"{model_title(model)}\n{failures[model]} with Dice 0" for model in order]
    axes.invert_yaxis()
    axes.set(xlim=(-0.02, 1.02), xlabel="Dice, native grid, each patient by a model that never saw them", ylabel="")
    axes.set_yticks(range(len(order)), labels)
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1), fontsize=8)
    sns.despine(figure)
    return figure


def sensitivity_chart(table: pd.DataFrame, models: Sequence[str]) -> Figure:
    """Share of lesions detected by diameter, with 95 % intervals over patients and the number of lesions.

    ``table`` is that of `stratified` for diameters.
    """
    figure, axes = plt.subplots(figsize=(11, 3.6), layout="constrained")
    width = 0.8 / len(models)
    for place, model in enumerate(models):
        rows = table[table["model"] == model].set_index("class").loc[list(DIAMETER_NAMES)]
        x = np.arange(len(rows)) + (place - (len(models) - 1) / 2) * width
        axes.vlines(x, rows["low"], rows["high"], color=model_colour(model), linewidth=2.5)
        axes.plot(x, rows["sensitivity"], "o", color=model_colour(model), markersize=8, label=model_title(model))
    first = table[table["model"] == models[0]].set_index("class").loc[list(DIAMETER_NAMES)]
    names = [f"{name}\nlesions: {row.n_lesions}, patients: {row.n_patients}" for name, row in first.iterrows()]
    axes.set_xticks(range(len(names)), names)
    for edge in np.arange(len(names) - 1) + 0.5:
        axes.axvline(edge, color="#dddddd", linewidth=0.8, zorder=0)
    axes.set(ylim=(-0.03, 1.03), ylabel="share of lesions detected", xlabel="largest diameter of the reference lesion")
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    sns.despine(figure)
    return figure
