"""Tables and sentences to read, made from the tables of the notebooks."""

from collections.abc import Sequence

import pandas as pd
from pandas.io.formats.style import Styler

from metaseg_nb.cohort.cases import Case
from metaseg_nb.cohort.lesions import UNSCORED_MM3
from metaseg_nb.cohort.problems import STOPPING, Problem, problem_table
from metaseg_nb.evaluation.scoring import METRICS
from metaseg_nb.files import escaped
from metaseg_nb.parameters import model_title

TINY_MM = 5  # lesions under this diameter are hard to see


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


def describe_counts(lesions: pd.DataFrame) -> str:
    """How many lesions the masks hold and how many are scored; ``lesions`` is the table of notebook 01."""
    scored = lesions[lesions["scored_lesion"] > 0].drop_duplicates(["case", "scored_lesion"])
    left_out = int((lesions["scored_lesion"] == 0).sum())
    tiny, tiny_scored = ((of < TINY_MM).sum() for of in (lesions["diameter_mm"], scored["scored_diameter_mm"]))
    joined = len(lesions) - left_out - len(scored)
    return (
        f"**Two counts of lesions.** Separate lesions in the masks: {len(lesions)} ({tiny} under {TINY_MM} mm); "
        f"notebook 01 and the folds count these. Scored lesions, as in BraTS-METS: {len(scored)} "
        f"({tiny_scored} under {TINY_MM} mm); notebook 04 and all its classes count these. Lesions with at most two "
        f"voxels between them are scored as one (joined to another: {joined}), and lesions of {UNSCORED_MM3:g} mm³ "
        f"or less are not scored (left out: {left_out})."
    )


def describe_problems(cases: Sequence[Case], problems: Sequence[Problem], leakage: str) -> str:
    """How many errors, warnings and notes in how many cases; ``leakage`` is what an audit of the lists answers."""
    names, parts = {case.name for case in cases}, []
    for severity, of in problem_table(problems).groupby("severity", sort=False):
        plural = "s" if len(of) > 1 else ""
        what = f" ({escaped(of['found'].iloc[0])})" if len({*of["found"]}) == 1 else ""
        parts.append(f"{len(of)} {severity}{plural} in {len({*of['case']} & names)} of {len(names)} cases{what}")
    begins = "To correct" if any(problem.severity in STOPPING for problem in problems) else "To check"
    wrong = f"**{begins}: {', '.join(parts)}.**" if parts else "No problem was found."
    return f"{wrong} {escaped(leakage)}".strip()
