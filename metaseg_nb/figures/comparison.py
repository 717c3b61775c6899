"""Figures of notebook 04: which network, and how sure is that."""

from textwrap import fill

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from metaseg_nb.evaluation.answers import p_value
from metaseg_nb.evaluation.claims import ALL
from metaseg_nb.evaluation.comparison import Ranks
from metaseg_nb.figures.style import model_colour
from metaseg_nb.parameters import model_title

# Ranks from the best on; light enough for black figures, and still apart in grey print.
RANK_COLOURS = plt.get_cmap("cividis")


def draw_ranking(ranks: Ranks, places: pd.DataFrame) -> Figure:
    """Critical-difference diagram beside how often each network takes each rank.

    Parameters
    ----------
    ranks : Ranks
        From `rank_test`.
    places : DataFrame
        From `rank_distribution`.
    """
    height = 1.9 + 0.4 * len(places)
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, height), layout="constrained", width_ratios=(1.15, 1))
    _critical_difference(left, ranks)
    _rank_shares(right, places)
    right.set_xlabel(f"share of the resamples of patients (n = {ranks.patients})")
    return figure


def _critical_difference(axes: Axes, ranks: Ranks) -> None:
    """Mean ranks on a line, best left; bars join networks that the test cannot tell apart (Demšar 2006)."""
    mean, k = ranks.mean_ranks, len(ranks.mean_ranks)
    for i, (model, rank) in enumerate(mean.items()):
        left_half = i < (k + 1) // 2
        level = 1 + (i if left_half else k - 1 - i)
        edge, align = (0.9, "right") if left_half else (k + 0.1, "left")
        axes.plot([rank, rank, edge], [0, level, level], color=model_colour(model), linewidth=1.5, clip_on=False)
        name = f"{model_title(model)}  {rank:.2f}" if left_half else f"{rank:.2f}  {model_title(model)}"
        axes.text(edge, level, f" {name} ", ha=align, va="center", fontsize=9)
    for i, group in enumerate(ranks.alike):
        y = 0.28 + 0.22 * i
        axes.plot([mean[group[0]] - 0.03, mean[group[-1]] + 0.03], [y, y], color="black", linewidth=4)
    if np.isfinite(ranks.critical_difference):
        end = min(k, 1 + ranks.critical_difference)
        axes.plot([1, end], [-0.75, -0.75], color="black", marker="|", markersize=8)
        axes.text((1 + end) / 2, -0.95, f"critical difference {ranks.critical_difference:.2f}", ha="center", fontsize=8)
        words = "joined: not told apart (Nemenyi, 5 %)"
    else:
        words = "too few patients or networks to test"
    axes.set(
        xlim=(1, max(k, 2)), ylim=((k + 1) // 2 + 0.6, -1.4), yticks=[], title=f"Mean rank of Dice, 1 is best; {words}"
    )
    axes.set_xticks(range(1, k + 1))
    axes.spines[["left", "right", "bottom"]].set_visible(False)
    axes.spines["top"].set_position(("data", 0))
    axes.xaxis.set_ticks_position("top")
    axes.title.set_fontsize(9)
    axes.margins(x=0.4)


def _rank_shares(axes: Axes, places: pd.DataFrame) -> None:
    """One bar a network: share of the resamples in which it takes each rank."""
    colours = RANK_COLOURS(np.linspace(1, 0.25, places.shape[1]))
    start = np.zeros(len(places))
    for colour, (rank, shares) in zip(colours, places.items(), strict=True):
        axes.barh(range(len(places)), shares, left=start, color=colour, edgecolor="white", label=f"rank {rank}")
        for row, share in enumerate(shares):
            if share >= 0.08:
                tone = "white" if colour[:3].mean() < 0.5 else "black"
                axes.text(
                    start[row] + share / 2, row, f"{100 * share:.0f}", ha="center", va="center", color=tone, fontsize=8
                )
        start += shares.to_numpy()
    axes.set_yticks(range(len(places)), [model_title(model) for model in places.index])
    axes.invert_yaxis()
    axes.set(xlim=(0, 1))
    axes.set_title("Does the ranking stay? (% of resamples)", fontsize=9)
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    sns.despine(ax=axes, left=True)


def draw_pairs(pairs: pd.DataFrame) -> Figure:
    """Mean difference of every pair, patient by patient, with its interval, adjusted p and effect size."""
    figure, axes = plt.subplots(figsize=(11, 1.2 + 0.38 * len(pairs)), layout="constrained")
    for row, pair in enumerate(pairs.itertuples()):
        axes.plot([pair.low, pair.high], [row, row], color="black", linewidth=2)
        axes.plot(pair.difference, row, "D", color="black", markersize=6)
        p = "too few patients for p" if np.isnan(pair.p_holm) else f"p (Holm) {p_value(pair.p_holm)}"
        words = f"{pair.difference:+.2f}   {p}   rank-biserial {pair.rank_biserial:+.2f}"
        axes.annotate(words, (1.01, row), xycoords=("axes fraction", "data"), va="center", fontsize=8)
    names = [f"{model_title(pair.first)} − {model_title(pair.second)}" for pair in pairs.itertuples()]
    axes.axvline(0, color="#777777", linewidth=1)
    axes.set_yticks(range(len(pairs)), names)
    axes.invert_yaxis()
    n = pairs["patients"].iloc[0] if len(pairs) else 0
    axes.set(xlabel=f"difference of Dice, mean and 95 % interval (n = {n} patients); right of 0: the first is better")
    sns.despine(figure)
    return figure


def draw_selection_luck(luck: pd.DataFrame) -> Figure:
    """Dice that choosing the epoch gained over the last epoch's weights, with its interval, network by network."""
    figure, axes = plt.subplots(figsize=(9, 1.3 + 0.42 * len(luck)), layout="constrained")
    for row, network in enumerate(luck.itertuples()):
        colour = model_colour(network.model)
        axes.plot([network.low, network.high], [row, row], color=colour, linewidth=2)
        axes.plot(network.difference, row, "D", color=colour, markersize=7)
        words = f"chosen {network.best:.3f}, last {network.last:.3f}"
        axes.annotate(words, (1.01, row), xycoords=("axes fraction", "data"), va="center", fontsize=8)
    axes.axvline(0, color="#777777", linewidth=1)
    axes.set_yticks(range(len(luck)), [model_title(model) for model in luck["model"]])
    axes.invert_yaxis()
    n = luck["patients"].iloc[0]
    axes.set_xlabel(f"Dice of the chosen minus the last epoch's weights, mean and 95 % interval (n = {n} patients)")
    sns.despine(figure)
    return figure


def draw_claims(table: pd.DataFrame) -> Figure:
    """One panel a claim: the difference that it speaks of, with all networks together and with each.

    Parameters
    ----------
    table : DataFrame
        From `claim_table`.
    """
    claims, models = list(dict.fromkeys(table["words"])), list(dict.fromkeys(table["model"]))
    size = (3.1 * len(claims), 2.6 + 0.34 * len(models))
    figure, panels = plt.subplots(1, len(claims), figsize=size, layout="constrained", sharey=True, squeeze=False)
    for axes, words in zip(panels.flat, claims, strict=True):
        rows = table[table["words"] == words]
        axes.axvline(0, color="#777777", linewidth=1)
        for row in rows.itertuples():
            _claimed(axes, models.index(row.model), row)
        axes.set_title(fill(words, 28), fontsize=9)
        together = rows.iloc[0]
        axes.set_xlabel(f"{fill(together['measured'], 36)}\n({fill(together['counted'], 36)})", fontsize=8)
        edge = 1.1 * max(axes.get_xlim(), key=abs)
        axes.set_xlim(-abs(edge), abs(edge))
    panels[0, 0].set_yticks(range(len(models)), [name if name == ALL else model_title(name) for name in models])
    panels[0, 0].set_ylim(len(models) - 0.5, -0.5)
    sns.despine(figure)
    return figure


def _claimed(axes: Axes, place: int, claim: tuple) -> None:
    if claim.verdict == "cannot be said":
        axes.text(0, place, " too few", va="center", ha="left", fontsize=8, color="#555555")
        return
    colour = "black" if claim.model == ALL else model_colour(claim.model)
    axes.plot([claim.low, claim.high], [place, place], color=colour, linewidth=2)
    axes.plot(claim.difference, place, "D", color=colour, markersize=6)
