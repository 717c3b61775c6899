"""Figures of notebook 04: for which lesions, what goes wrong, and whether a network knows."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from metaseg_nb.evaluation.agreement import volumes_cm3
from metaseg_nb.evaluation.calibration import reliability
from metaseg_nb.evaluation.detection import froc
from metaseg_nb.evaluation.strata import STRATA
from metaseg_nb.figures.style import model_colour
from metaseg_nb.parameters import model_title

SCORES = {
    "sensitivity": ("share of lesions detected", "low", "high"),
    "dice": ("lesion-wise Dice", "dice_low", "dice_high"),
}


def draw_strata(table: pd.DataFrame, models: Sequence[str], score: str) -> Figure:
    """One panel a stratum: a score of each network in each class, with 95 % intervals and n.

    Parameters
    ----------
    table : DataFrame
        From `all_strata`.
    models : sequence of str
    score : str
        "sensitivity" or "dice".
    """
    strata = list(STRATA)
    figure, panels = plt.subplots(2, 3, figsize=(12, 6.2), layout="constrained", sharey=True)
    for axes, stratum in zip(panels.flat, strata, strict=False):
        _stratum(axes, table[table["stratum"] == stratum], models, score)
        axes.set_title(STRATA[stratum][0])
    for axes in panels[:, 0]:
        axes.set_ylabel(SCORES[score][0])
    panels.flat[-1].axis("off")
    panels.flat[-1].legend(*_model_legend(models), frameon=False, loc="center")
    sns.despine(figure)
    return figure


def _stratum(axes: Axes, rows: pd.DataFrame, models: Sequence[str], score: str) -> None:
    _, low, high = SCORES[score]
    classes = list(dict.fromkeys(rows["class"]))
    for place, model in enumerate(models):
        of_model = rows[rows["model"] == model].set_index("class").loc[classes]
        x = np.arange(len(classes)) + (place - (len(models) - 1) / 2) * 0.8 / len(models)
        axes.vlines(x, of_model[low], of_model[high], color=model_colour(model), linewidth=2)
        axes.plot(x, of_model[score], "o", color=model_colour(model), markersize=5)
    first = rows[rows["model"] == models[0]].set_index("class").loc[classes] if classes else rows
    names = [f"{name}\n{row.n_lesions} in {row.n_patients}" for name, row in first.iterrows()]
    axes.set_xticks(range(len(names)), names, fontsize=8)
    axes.set(ylim=(-0.03, 1.03), xlim=(-0.6, max(len(names), 1) - 0.4))
    for edge in np.arange(len(names) - 1) + 0.5:
        axes.axvline(edge, color="#dddddd", linewidth=0.8, zorder=0)


def draw_froc(detections: pd.DataFrame, points: pd.DataFrame, board: pd.DataFrame) -> Figure:
    """FROC: sensitivity that each number of false lesions per patient buys, and how sure that is.

    Parameters
    ----------
    detections : DataFrame
        With ``model``.
    points : DataFrame
        From `froc_points`.
    board : DataFrame
        The leaderboard, for where each network stands with its own threshold.
    """
    models = list(dict.fromkeys(points["model"]))
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4), layout="constrained", sharey=True)
    for model, place in board.set_index("model").loc[models].iterrows():
        curve, colour = froc(detections[detections["model"] == model]), model_colour(model)
        curve = curve.sort_values("false_per_patient")
        reached = np.maximum.accumulate(curve["sensitivity"])
        left.plot(curve["false_per_patient"], reached, color=colour, drawstyle="steps-post", label=model_title(model))
        found = (place["false_per_patient"], place["lesion_sensitivity"])
        left.plot(*found, "o", color=colour, markersize=8, markeredgecolor="black")
    left.plot([], [], "o", color="white", markeredgecolor="black", label="at the chosen threshold")
    left.set_xscale("symlog", linthresh=0.5)
    left.set_xticks(*_ticks(0, 0.5, 1, 2, 5, 10, 50, 100))
    left.minorticks_off()
    left.set(ylim=(-0.03, 1.03), xlim=(0, None), ylabel="share of lesions detected")
    left.set_xlabel("false lesions per patient")
    rates = list(dict.fromkeys(points["false_per_patient"]))
    for place, model in enumerate(models):
        rows, colour = points[points["model"] == model], model_colour(model)
        x = np.arange(len(rows)) + (place - (len(models) - 1) / 2) * 0.7 / len(models)
        right.vlines(x, rows["low"], rows["high"], color=colour, linewidth=2)
        right.plot(x, rows["sensitivity"], "o", color=colour, markersize=5)
    right.set_xticks(*(range(len(rates)), [f"{rate:g}" for rate in rates]))
    n = points[["lesions", "patients"]].iloc[0]
    right.set_xlabel(
        f"at most so many false lesions per patient; 95 % intervals\n({n['lesions']} lesions, {n['patients']} patients)"
    )
    figure.legend(*left.get_legend_handles_labels(), frameon=False, fontsize=9, loc="outside right upper")
    sns.despine(figure)
    return figure


def draw_agreement(metrics: pd.DataFrame, limits: pd.DataFrame) -> Figure:
    """Bland and Altman's plot, a panel a network: error of the predicted volume against the mean of both."""
    figure, panels = plt.subplots(
        1, len(limits), figsize=(3 * len(limits), 3.4), layout="constrained", sharey=True, squeeze=False
    )
    for axes, row in zip(panels.flat, limits.itertuples(), strict=True):
        volumes = volumes_cm3(metrics, row.model)
        mean = (volumes["truth"] + volumes["prediction"]) / 2
        axes.scatter(mean, volumes["difference"], s=22, color=model_colour(row.model), alpha=0.7, linewidths=0)
        axes.axhline(0, color="#bbbbbb", linewidth=1, zorder=0)
        error = row.limit_error_cm3
        lines = [(row.bias_cm3, "-", (row.low, row.high))]
        lines += [(limit, "--", (limit - error, limit + error)) for limit in (row.lower_cm3, row.upper_cm3)]
        for value, style, sure in lines:
            if np.isfinite(value):
                axes.axhline(value, color="black", linestyle=style, linewidth=1.2)
                side = axes.get_yaxis_transform()
                axes.text(1.01, value, f"{value:+.0f}", transform=side, ha="left", va="center", fontsize=8)
            if np.isfinite(sure).all():
                axes.axhspan(*sure, color="#000000", alpha=0.09, linewidth=0, zorder=0)
        axes.set(title=model_title(row.model), xlabel=f"mean of both volumes (cm³)\n{row.patients} patients")
        axes.set_xscale("symlog", linthresh=1)
        axes.set_xticks(*_ticks(0, 1, 10, 100))
        axes.set_xlim(-0.2, 1.6 * max(mean.max(), 1))
    panels[0, 0].set_ylabel("predicted − reference (cm³)")
    sns.despine(figure)
    return figure


def draw_missed_and_false(table: pd.DataFrame) -> Figure:
    """Missed and false lesions per patient, network by network, and their difference with its interval."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 1.4 + 0.45 * len(table)), layout="constrained", sharey=True)
    rows = np.arange(len(table))
    kinds = (
        ("missed", "#0072B2", "missed (false negatives)", -0.15),
        ("false", "#E69F00", "false (false positives)", 0.15),
    )
    for name, colour, label, shift in kinds:
        left.hlines(rows + shift, table[f"{name}_low"], table[f"{name}_high"], color=colour, linewidth=2)
        left.plot(table[name], rows + shift, "o", color=colour, label=label)
    left.set_yticks(rows, [model_title(model) for model in table["model"]])
    left.invert_yaxis()
    left.set_xscale("symlog", linthresh=5)
    left.set_xticks(*_ticks(0, 1, 2, 5, 10, 20, 50, 100))
    left.minorticks_off()
    left.set(xlabel=f"lesions per patient, 95 % interval (n = {table['patients'].iloc[0]} patients)", xlim=(-0.1, None))
    figure.legend(*left.get_legend_handles_labels(), frameon=False, fontsize=8, loc="outside right upper")
    right.hlines(rows, table["difference_low"], table["difference_high"], color="black", linewidth=2)
    right.plot(table["difference"], rows, "D", color="black")
    right.axvline(0, color="#777777", linewidth=1)
    right.set_xscale("symlog", linthresh=5)
    right.set_xticks(*_ticks(-100, -20, -5, 0, 5, 20, 100))
    right.minorticks_off()
    right.set(xlabel="missed − false per patient, 95 % interval")
    sns.despine(figure)
    return figure


def draw_calibration(calibration: pd.DataFrame, flags: pd.DataFrame, unsure: pd.DataFrame) -> Figure:
    """Reliability diagram, and each patient's uncertainty against Dice.

    Parameters
    ----------
    calibration : DataFrame
        With ``model``.
    flags : DataFrame
        A row per model, from `flagging`.
    unsure : DataFrame
        ``model``, ``patient``, ``uncertainty``, ``dice``.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4), layout="constrained")
    left.plot([0, 1], [0, 1], color="#bbbbbb", linestyle="--", label="as it should be")
    for row in flags.itertuples():
        diagram, colour = reliability(calibration[calibration["model"] == row.model]), model_colour(row.model)
        name = f"{model_title(row.model)}, ECE {row.ece:.2f} ({_bounds(row.ece_low, row.ece_high)})"
        left.plot(diagram["probability"], diagram["observed"], "o-", color=colour, markersize=4, label=name)
        points = unsure[unsure["model"] == row.model]
        name = f"{model_title(row.model)}, AUROC {row.auroc:.2f} ({_bounds(row.auroc_low, row.auroc_high)})"
        right.scatter(points["uncertainty"], points["dice"], s=22, color=colour, alpha=0.75, linewidths=0, label=name)
    left.set(
        xlim=(0, 1), ylim=(0, 1), xlabel="probability that the network gave", ylabel="share of voxels that are lesion"
    )
    right.set(
        ylim=(-0.03, 1.03),
        xlabel="uncertainty: mean entropy of voxels not ruled out (bits)",
        ylabel=f"Dice of the patient (n = {flags['patients'].iloc[0]})",
    )
    left.set_title("Do probabilities mean what they say?", fontsize=10)
    right.set_title("Does uncertainty flag the failures (Dice below 0.5)?", fontsize=10)
    left.legend(frameon=False, fontsize=8)
    right.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    sns.despine(figure)
    return figure


def _bounds(low: float, high: float) -> str:
    return f"{low:.2f} to {high:.2f}" if np.isfinite([low, high]).all() else "no interval"


def _ticks(*values: float) -> tuple[list[float], list[str]]:
    """Ticks of an axis that is logarithmic but for its middle, written as plain numbers."""
    return list(values), [f"{value:g}" for value in values]


def _model_legend(models: Sequence[str]) -> tuple[list, list[str]]:
    handles = [plt.Line2D([], [], color=model_colour(model), marker="o", linewidth=2) for model in models]
    return handles, [model_title(model) for model in models]
