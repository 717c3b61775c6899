"""The leaderboard as a table to read: a column a network, a row a metric."""

import pandas as pd
from pandas.io.formats.style import Styler

from metaseg_nb.evaluation.scoring import METRICS
from metaseg_nb.parameters import model_title

LESIONS = {
    "lesion_sensitivity": ("share of lesions detected", 3),
    "false_per_patient": ("false lesions per patient", 1),
}


def show_leaderboard(board: pd.DataFrame) -> Styler:
    """Mean ± sd (median) over patients with the 95 % interval of the mean, failures, costs; best network first."""
    columns = {model_title(row["model"]): _column(row) for _, row in board.iterrows()}
    style = [
        {"selector": "td, th", "props": "text-align: left; vertical-align: top"},
        {"selector": "td", "props": "white-space: nowrap"},  # names may wrap: five columns fit a page
    ]
    table = pd.DataFrame(columns).style.format_index(escape="html", axis=0).format_index(escape="html", axis=1)
    return table.set_table_styles(style)


def _column(row: pd.Series) -> dict[str, str]:
    shown = {"dice": ("Dice", 3), **{name: (it.title, it.digits) for name, it in METRICS.items()}, **LESIONS}
    return {
        "patients (with Dice 0)": f"{row['patients']} ({row['failures']})",
        **{title: _cell(row, name, digits) for name, (title, digits) in shown.items()},
        "training, minutes a fold": _number(row["train_minutes"], 1),
        "parameters, millions": _number(row["parameters"] / 1e6, 2),
    }


def _cell(row: pd.Series, name: str, digits: int) -> str:
    mean = row["dice_mean" if name == "dice" else name]
    low, high = (_number(row[f"{name}_{end}"], digits) for end in ("low", "high"))
    spread = ""
    if f"{name}_sd" in row:
        spread = f" ± {_number(row[f'{name}_sd'], digits)}<br>({_number(row[f'{name}_median'], digits)})"
    return f"{_number(mean, digits)}{spread}<br>[{low}, {high}]"


def _number(value: float, digits: int) -> str:
    return "–" if pd.isna(value) else f"{value:.{digits}f}"
