"""Tables of notebook 06 as they are read."""

import pandas as pd
from pandas.io.formats.style import Styler

from metaseg_nb.annotation.curves import FITTED
from metaseg_nb.figures.style import show_table
from metaseg_nb.parameters import model_title

EFFORTS = {
    "title": "arm",
    "patients": "training patients annotated",
    "cases": "cases read",
    "n_outlined": "lesions outlined",
    "n_slices": "outlines on slices",
    "n_boxes": "boxes",
    "n_points": "points",
    "hours": "hours",
    "selection_hours": "of these, for choosing the epoch",
}
MEASURES = {"dice": ("Dice", 2), "sensitivity": ("lesions detected", 2), "false_per_patient": ("false per patient", 1)}


def show_efforts(arms: pd.DataFrame) -> Styler:
    """What a physician does for each arm, mean over folds and seeds; ``arms`` from `BudgetResults`."""
    hours = {"hours": arms["minutes"] / 60, "selection_hours": arms["selection_minutes"] / 60}
    table = arms.assign(**hours).sort_values("hours")[list(EFFORTS)].rename(columns=EFFORTS)
    return show_table(table, precision=0).format("{:.1f}", subset=[EFFORTS[name] for name in hours])


def show_curves(curves: pd.DataFrame) -> Styler:
    """Every measure with its interval, a row per network and arm, the cheapest arm first."""
    rows = curves.assign(network=curves["model"].map(model_title), hours=curves["minutes"] / 60)
    rows = rows.sort_values("hours", kind="stable").sort_values("network", kind="stable")
    shown = rows[["network", "title", "patients", "hours"]].rename(columns={"title": "arm"})
    for name, (title, digits) in MEASURES.items():
        shown[title] = _with_interval(rows, name, digits)
    return show_table(shown)


def show_laws(laws: pd.DataFrame) -> Styler:
    """Power laws of every network with their intervals, and what twice the annotations would bring."""
    shown = pd.DataFrame({"network": laws["model"].map(model_title), "measure": laws["measure"].map(FITTED)})
    error = {"a": "a, in: error = a · patients⁻ᵇ", "b": "b", "doubling": "gain of twice the annotations"}
    for name, title in error.items():
        shown[title] = _with_interval(laws, name, 3)
    return show_table(shown.assign(note=laws["refusal"]) if laws["refusal"].any() else shown)


def _with_interval(rows: pd.DataFrame, name: str, digits: int) -> list[str]:
    columns = rows[[name, f"{name}_low", f"{name}_high"]].itertuples(index=False)
    return ["{0:.{3}f} [{1:.{3}f}, {2:.{3}f}]".format(*values, digits) for values in columns]
