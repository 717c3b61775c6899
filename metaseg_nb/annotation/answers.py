"""Answers of an annotation budget in sentences (Markdown), made from its tables."""

import numpy as np
import pandas as pd

from metaseg_nb.annotation.gains import INCONCLUSIVE
from metaseg_nb.evaluation.claims import ALL
from metaseg_nb.evaluation.comparison import MIN_PATIENTS
from metaseg_nb.parameters import model_title

# Of each question: its words, and whether it is answered for each network, or for their mean.
QUESTIONS = {
    "patients": ("How many patients are enough?", False),
    "kind": ("Which kind of annotation is worth its minutes?", False),
    "pretraining": ("Does pretraining on all images help?", True),
    "self_training": ("Does self-training help?", True),
    "ranking": ("Does it help to choose patients by a ranking?", False),
    "roi": ("Are patches around boxes enough?", False),
}


def budget_answers(gains: pd.DataFrame, laws: pd.DataFrame) -> str:
    """A list of all questions with their answers; ``gains`` from `budget_gains`, ``laws`` from `power_laws`."""
    answers = {question: _answer(gains, question, *how) for question, how in QUESTIONS.items()}
    return "\n".join(f"- {line}" for line in (answers.pop("patients"), _doubling(laws), *answers.values()))


def _answer(gains: pd.DataFrame, question: str, asked: str, by_network: bool) -> str:
    rows = gains[(gains["question"] == question) & ((gains["model"] != ALL) == by_network)]
    if rows.empty:
        return f"**{asked}** Not asked: this study has no such arm, or none to compare it with."
    found = []
    for (title, against), pair in rows.groupby(["title", "against"], sort=False):
        verdicts = [
            f"**{row.verdict}**{f' for {model_title(row.model)}' if by_network else ''} "
            f"({row.difference:+.2f} {_bounds(row.low, row.high)})"
            for row in pair.itertuples()
        ]
        found.append(f"{title} against {against}: {', '.join(verdicts)}")
    n = rows["patients"].iloc[0]
    few = f", fewer than {MIN_PATIENTS}: always {INCONCLUSIVE}" if n < MIN_PATIENTS else ""
    return f"**{asked}** {'; '.join(found)}. Difference of Dice [95 % interval]; n = {n} patients{few}."


def _doubling(laws: pd.DataFrame) -> str:
    """What a power law predicts for twice the annotated patients, network by network."""
    rows = laws[laws["measure"] == "dice"]
    each = "; ".join(f"{model_title(row.model)}: {_predicted(row)}" for row in rows.itertuples())
    counts = f"{2 * rows['most_patients'].iloc[0]:.0f} patients instead of {rows['most_patients'].iloc[0]:.0f}, "
    known = "" if rows["refusal"].all() else f" Dice, {counts}if a power law holds; n = {rows['n'].iloc[0]} patients."
    return f"**What would twice the annotations gain?** {each}.{known}"


def _predicted(law: tuple) -> str:
    return (
        f"no prediction ({law.refusal})"
        if law.refusal
        else f"{law.doubling:+.2f} {_bounds(law.doubling_low, law.doubling_high)}"
    )


def _bounds(low: float, high: float) -> str:
    return f"[{low:+.2f}, {high:+.2f}]" if np.isfinite([low, high]).all() else "[no interval]"
