"""Figures of notebook 06: results against annotated patients, against minutes, and what each arm gains."""

from collections.abc import Mapping, Sequence
from itertools import cycle

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from metaseg_nb.annotation.curves import PowerLaw
from metaseg_nb.annotation.gains import UNTOLD
from metaseg_nb.annotation.resampling import Draws
from metaseg_nb.evaluation.claims import ALL
from metaseg_nb.figures.style import MORE_COLOURS, model_colour
from metaseg_nb.parameters import model_title

LABELS = {
    "dice": "Dice, mean over patients",
    "sensitivity": "share of lesions detected",
    "false_per_patient": "false lesions per patient",
}
# nnU-Net on UCSF-BMSR, contrast-enhanced T1 only, by number of training patients: published, and of other data.
PUBLISHED = pd.DataFrame(
    {
        "patients": [10, 25, 50, 100, 200, 400],
        "dice": [0.72, 0.76, 0.82, 0.82, 0.84, 0.85],
        "sensitivity": [0.60, 0.62, 0.67, 0.74, 0.78, 0.82],
    }
)
# Shapes of arms that are no budget of fully outlined patients; colours come with them.
MARKERS = "sD^vP*XhH"
# What would lie on each other stands side by side: so much further along a logarithmic axis.
ASIDE = 1.025


def draw_patients(
    curves: pd.DataFrame, outlined: Sequence[str], laws: Mapping[tuple[str, str], PowerLaw], draws: Draws
) -> Figure:
    """Each measure against fully outlined patients, a line a network, and what its power law expects of twice as many.

    Parameters
    ----------
    curves : DataFrame
        From `learning_curve.curves`.
    outlined : sequence of str
        Arms on the line.
    laws : mapping
        From `power_laws`; those that are refused are not drawn.
    draws : Draws
        Those of the laws, for intervals.
    """
    figure, panels = plt.subplots(1, len(LABELS), figsize=(12, 4), layout="constrained")
    rows, models = curves[curves["arm"].isin(outlined)], curves["model"].unique()
    for axes, measure in zip(panels, LABELS, strict=True):
        for place, model in enumerate(models):
            aside, law = ASIDE ** (place - (len(models) - 1) / 2), laws.get((model, measure))
            _line(axes, rows[rows["model"] == model], "patients", measure, aside)
            if law and not law.refusal:
                _prediction(axes, law, draws, model_colour(model), aside)
        if measure in PUBLISHED:
            axes.plot(PUBLISHED["patients"], PUBLISHED[measure], "v-", color="#999999", mfc="white", linewidth=0.8)
        _scale(axes, measure, (1, 2, 5))
        axes.set(xlabel="annotated training patients", ylabel=LABELS[measure])
    handles = [_key(model_title(model), "o-", color=model_colour(model)) for model in models]
    if not all(law.refusal for law in laws.values()):
        handles.append(_key("power law, to twice as many", "o:", color="black", mfc="white"))
    published = "published (nnU-Net, UCSF-BMSR), other data"
    handles.append(_key(published, "v-", color="#999999", mfc="white", linewidth=0.8))
    _finish(figure, handles, curves)
    return figure


def draw_minutes(curves: pd.DataFrame, outlined: Sequence[str]) -> Figure:
    """Each measure against a physician's hours, a column a network: full outlines a line, other arms markers.

    Behind each network's line, in grey, are those of the others; arguments as those of `draw_patients`.
    """
    curves, models = curves.assign(hours=curves["minutes"] / 60), curves["model"].unique()
    lines, points = curves[curves["arm"].isin(outlined)], curves[~curves["arm"].isin(outlined)]
    looks = dict(zip(points["arm"].unique(), zip(cycle(MARKERS), cycle(MORE_COLOURS)), strict=False))
    places = _places(pd.concat([lines, points]).drop_duplicates("arm").set_index("arm")["hours"])
    size = max(9, 2.6 * len(models) + 2), 7.5
    figure, panels = plt.subplots(
        len(LABELS), len(models), figsize=size, layout="constrained", sharex=True, sharey="row", squeeze=False
    )
    for row, measure in zip(panels, LABELS, strict=True):
        for axes, model in zip(row, models, strict=True):
            for _, behind in lines.groupby("model"):
                behind = behind.sort_values("hours")
                axes.plot(behind["hours"], behind[measure], color="#dddddd", linewidth=1.2, zorder=0)
            _line(axes, lines[lines["model"] == model], "hours", measure)
            for point in points[points["model"] == model].to_dict("records"):
                (marker, colour), x = looks[point["arm"]], places[point["arm"]]
                axes.vlines(x, point[f"{measure}_low"], point[f"{measure}_high"], color=colour, zorder=3)
                axes.plot(x, point[measure], marker, color=colour, markersize=7, mec="white", zorder=4)
        for axes in row:  # when all is drawn: they share their axes
            _scale(axes, measure, (1, 2, 3, 5, 7))
        row[0].set_ylabel(LABELS[measure])
    for axes, model in zip(panels[0], models, strict=True):
        axes.set_title(model_title(model))
    for axes in panels[-1]:
        axes.set_xlabel("hours of a physician")
    titles = curves.drop_duplicates("arm").set_index("arm")["title"]
    handles = [_key("full outlines, more patients", "o-", color="black")]
    handles += [_key(titles[arm], marker, color=colour, markersize=7) for arm, (marker, colour) in looks.items()]
    _finish(figure, handles, curves)
    return figure


def draw_gains(gains: pd.DataFrame) -> Figure:
    """What each arm gains over what it is compared with, by each network and by their mean.

    Parameters
    ----------
    gains : DataFrame
        From `budget_gains.gains`.
    """
    models = list(dict.fromkeys(gains["model"]))
    names = list(dict.fromkeys(zip(gains["title"], gains["against"], strict=True)))
    figure, axes = plt.subplots(figsize=(11, 1.2 + (0.1 + 0.13 * len(models)) * len(names)), layout="constrained")
    for row in gains.itertuples():
        y = names.index((row.title, row.against)) + (models.index(row.model) / len(models) - 0.5) * 0.8 + 0.08
        marker, colour = ("D", "black") if row.model == ALL else ("o", model_colour(row.model))
        axes.plot([row.low, row.high], [y, y], color=colour, linewidth=2.2 if row.model == ALL else 1.4)
        axes.plot(
            row.difference, y, marker, color=colour, mfc="white" if row.verdict == UNTOLD else colour, markersize=5
        )
    for edge in np.arange(len(names) - 1) + 0.5:
        axes.axhline(edge, color="#dddddd", linewidth=0.8, zorder=0)
    axes.axvline(0, color="#777777", linewidth=1)
    axes.set_yticks(range(len(names)), [f"{title} − {against}" for title, against in names], fontsize=8)
    axes.set_ylim(max(1, len(names)) - 0.5, -0.5)
    n = gains["patients"].iloc[0] if len(gains) else 0
    axes.set_xlabel(f"difference of Dice, mean and 95 % interval (n = {n} patients); right of 0: a gain")
    handles = [_key(model_title(model), "o-", color=model_colour(model)) for model in models if model != ALL]
    handles += [
        _key("mean of the networks", "D-", color="black"),
        _key("cannot be told", "o", color="black", mfc="white"),
    ]
    figure.legend(handles=handles, frameon=False, fontsize=8, loc="outside right upper")
    sns.despine(figure)
    return figure


def _line(axes: Axes, rows: pd.DataFrame, x: str, measure: str, aside: float = 1.0) -> None:
    """One network over budgets, with 95 % intervals."""
    rows = rows.sort_values(x)
    colour = model_colour(rows["model"].iloc[0]) if len(rows) else "black"
    axes.plot(aside * rows[x], rows[measure], "o-", color=colour, markersize=5)
    axes.vlines(aside * rows[x], rows[f"{measure}_low"], rows[f"{measure}_high"], color=colour, linewidth=1.2)


def _places(hours: pd.Series) -> dict[str, float]:
    """Where each arm stands: at its hours, or a little to the right if an earlier one stands there."""
    taken = [sum(np.isclose(hours.iloc[:i], own, rtol=0.01)) for i, own in enumerate(hours)]
    return dict(zip(hours.index, hours * ASIDE ** (2 * np.array(taken)), strict=True))


def _prediction(axes: Axes, law: PowerLaw, draws: Draws, colour: str, aside: float) -> None:
    x, twice = np.geomspace(law.patients.min(), 2 * law.most, 50), aside * 2 * law.most
    low, high = draws.interval(1 - law.resampled_errors(2 * law.most))
    axes.plot(aside * x, 1 - law.errors(x), ":", color=colour, linewidth=1.2)
    axes.plot([twice, twice], [low, high], ":", color=colour)
    axes.plot(twice, 1 - law.errors(2 * law.most), "o", color=colour, mfc="white", markersize=5)


def _scale(axes: Axes, measure: str, digits: Sequence[int]) -> None:
    """A logarithmic x axis with plain numbers at ``digits`` of each power of ten, and limits of the measure."""
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    ticks = [digit * 10.0**power for power in range(-3, 5) for digit in digits]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlim(low, high)
    if measure == "false_per_patient":
        axes.set_ylim(0, None)


def _key(label: str, look: str, **style: str | float) -> Line2D:
    """An entry of a legend; ``look`` as in `Axes.plot`."""
    return plt.plot([], [], look, label=label, **style)[0]


def _finish(figure: Figure, handles: list[Line2D], curves: pd.DataFrame) -> None:
    n, seeds = curves["n"].iloc[0], curves["seeds"].iloc[0]
    handles.append(_key(f"95 % intervals; n = {n} patients, {seeds} seed(s)", "", color="black"))
    figure.legend(handles=handles, frameon=False, fontsize=8, loc="outside lower center", ncols=4)
    sns.despine(figure)
