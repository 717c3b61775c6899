"""Comparison of the arms of an annotation budget: gains, and answers in sentences."""

from itertools import pairwise

import numpy as np
import pandas as pd

from metaseg_nb.annotation.curves import draw, ratio, with_interval
from metaseg_nb.annotation.results import BudgetResults
from metaseg_nb.evaluation.claims import ALL
from metaseg_nb.evaluation.intervals import INCONCLUSIVE, MIN_PATIENTS, verdict
from metaseg_nb.parameters import model_title

# Minutes count as equal up to this ratio.
SAME = 1.01
# Each question: its words, and whether it is answered for each network, or for their mean.
QUESTIONS = {
    "patients": ("How many patients are enough?", False),
    "kind": ("Which kind of annotation is worth its minutes?", False),
    "slices": ("Many slices of few patients, or few slices of many?", False),
    "pretraining": ("Does pretraining on all images help?", True),
    "self_training": ("Does self-training help?", True),
    "teachers": ("Does it help to be taught by all networks together?", True),
    "planted": ("Do planted lesions help?", True),
    "ranking": ("Does it help to choose patients by a ranking?", False),
    "rounds": ("Does it help to train again between rounds of a ranking?", False),
    "foreground": ("Is a ranking better than random patients with as much lesion?", False),
    "roi": ("Are patches around boxes enough?", False),
}
# Questions about one change to an arm: columns with the change, and without it; all other columns of `ALIKE` are equal.
CHANGES = {
    "pretraining": ({"unannotated": "pretraining"}, {"unannotated": "unused"}),
    "self_training": ({"unannotated": "self_training"}, {"unannotated": "unused", "teachers": ""}),
    "planted": ({"unannotated": "planted"}, {"unannotated": "unused"}),
    "teachers": ({"unannotated": "self_training", "teachers": ""}, {"teachers": "self"}),
    "rounds": ({"unannotated": "ranking_in_rounds"}, {"unannotated": "ranking"}),
    "foreground": ({"unannotated": "ranking"}, {"unannotated": "foreground_random"}),
    "roi": ({"recipe": "sampling: roi"}, {"recipe": ""}),
}
ALIKE = ["share", "annotation", "slice_step", "unannotated", "teachers", "recipe"]
COLUMNS = ["question", "arm", "title", "against", "model", "patients", "minutes", "minutes_against"]
COLUMNS += ["difference", "low", "high", "verdict"]


def budget_gains(results: BudgetResults, n_bootstrap: int, seed: int) -> pd.DataFrame:
    """Dice of each arm minus Dice of what it is compared with, by question.

    - ``patients``: the most fully contoured patients with the next smaller number of them.
    - ``kind``: cheaper annotations, or none, with full contours *at equal minutes*.
    - ``slices``: sparser contours of more patients with denser contours of fewer, at equal minutes.
    - ``ranking``: patients chosen by a ranking, or at random with as much lesion, with patients chosen evenly, at equal
      minutes.
    - ``rounds``: patients chosen in rounds, with networks trained in between, with those of one round.
    - ``foreground``: patients chosen by a ranking with random ones that have as much lesion; ``against`` says how much.
    - ``pretraining``, ``self_training``, ``planted``, ``roi``: an arm with the one that differs in nothing else.
    - ``teachers``: self-training by all networks together with self-training by each network alone.

    Results at minutes between two arms of a line (full contours, or one slice in n) are interpolated, patient by
    patient, in proportion to the logarithm of minutes. Outside the line its nearest arm is used (see
    ``minutes_against``). Then an arm that loses against more minutes, or wins with more minutes, is inconclusive.

    Returns
    -------
    DataFrame
        A row per (``question``, ``arm``, ``model``), where "all networks" is their mean, patient by patient:
        ``title`` of the arm, ``against`` (title), ``patients``, ``minutes`` of both, ``difference`` with ``low``,
        ``high`` (95 % interval, not adjusted for the number of comparisons) and ``verdict``: "better" or "worse" where
        the interval does not hold 0 and there are `MIN_PATIENTS` or more, else "inconclusive".
    """
    draws, rows = draw(results, n_bootstrap, seed), []
    for question, arm, others, line in _pairs(results):
        title, minutes = results.arms.loc[arm, ["title", "minutes"]]
        weights, minutes_against = _at_minutes(results, others, minutes)
        against, unfair = results.arms.loc[others[0], "title"], ""
        if question == "patients":
            title, against = (f"{results.arms.loc[name, 'patients']:.0f} patients" for name in (arm, others[0]))
        if question == "foreground" and "added_mm3" in results.arms:
            ranked, drawn = results.arms.loc[[arm, others[0]], "added_mm3"]
            against += f" ({100 * drawn / ranked:.0f} % of its volume)" if ranked * drawn > 0 else ""
        if line:
            more, less = minutes_against > SAME * minutes, minutes > SAME * minutes_against
            unfair = "worse" if more else "better" if less else ""
            against = f"{line}, {f'{minutes_against / 60:.1f} h' if unfair else 'equal minutes'}"
        gains = {}
        for model in results.models:
            compared = sum(weight * results.values(model, other, "dice") for other, weight in weights.items())
            gains[model] = results.values(model, arm, "dice") - compared
        gains[ALL] = np.mean(list(gains.values()), axis=0)
        for model, gain in gains.items():
            difference, low, high = with_interval(draws, ratio(draws, gain, np.ones_like(gain)))
            found = verdict(low, high, gain.shape[1], "better", "worse")
            found = INCONCLUSIVE if found == unfair else found  # unequal minutes alone may explain it
            names = (question, arm, title, against, model, gain.shape[1], minutes, minutes_against)
            rows.append((*names, difference, low, high, found))
    return pd.DataFrame(rows, columns=COLUMNS)


def _pairs(results: BudgetResults) -> list[tuple[str, str, list[str], str]]:
    """Question, arm, and what it is compared with: one arm, or a line of arms at equal minutes, with its name."""
    arms, budgets = results.arms, results.budgets
    plain = (arms["unannotated"] == "unused") & (arms["recipe"] == "")
    pairs = [("patients", budgets[-1], [budgets[-2]], "")] if len(budgets) > 1 else []
    if budgets:
        cheaper = plain & (arms["annotation"] != "full") | (arms["share"] == 0)
        chosen = arms["unannotated"].isin(["ranking", "ranking_in_rounds", "foreground_random"])
        for question, asked in (("kind", cheaper), ("ranking", chosen)):
            pairs += [(question, arm, budgets, "full contours") for arm in arms.index[asked]]
    sliced = arms[plain & (arms["slice_step"] > 0)].sort_values("minutes")
    for (_, dense), (step, sparse) in pairwise(sliced.groupby("slice_step")):
        pairs += [("slices", arm, list(sparse.index), f"one slice in {step}") for arm in dense.index]
    for question, (after, before) in CHANGES.items():
        for arm in arms.index[(arms[list(after)] == after).all(axis=1)]:
            same = arms.index[(arms[ALIKE] == arms.loc[arm, ALIKE].to_dict() | before).all(axis=1)]
            pairs += [(question, arm, [other], "") for other in same[:1]]
    return pairs


def _at_minutes(results: BudgetResults, line: list[str], minutes: float) -> tuple[dict[str, float], float]:
    """Weights of the arms of a line that are mixed for as many minutes, and the minutes that there are."""
    known = results.arms.loc[line, "minutes"].to_numpy(float)
    place = np.interp(np.log(max(minutes, 1)), np.log(known), np.arange(len(known)))
    weights = {arm: 1 - abs(place - i) for i, arm in enumerate(line) if abs(place - i) < 1}
    return weights, float(np.clip(minutes, known.min(), known.max()))


def budget_answers(gains: pd.DataFrame, laws: pd.DataFrame) -> str:
    """A Markdown list of all questions with their answers, from the tables of `budget_gains` and `power_laws`."""
    first, *others = (_answer(gains, question) for question in QUESTIONS)
    return "\n".join(f"- {line}" for line in (first, _doubling(laws), *others))


def _answer(gains: pd.DataFrame, question: str) -> str:
    asked, by_network = QUESTIONS[question]
    rows = gains[(gains["question"] == question) & ((gains["model"] != ALL) == by_network)]
    if rows.empty:
        return f"**{asked}** Not studied: this study has no such arm, or no arm to compare it with."
    pairs = []
    for (title, against), found in rows.groupby(["title", "against"], sort=False):
        names = [f" for {model_title(model)}" if by_network else "" for model in found["model"]]
        bounds = map(_with_bounds, found["difference"], found["low"], found["high"])
        verdicts = [f"**{v}**{name} ({b})" for v, name, b in zip(found["verdict"], names, bounds, strict=True)]
        pairs.append(f"{title} against {against}: {', '.join(verdicts)}")
    n = rows["patients"].iloc[0]
    few = f", fewer than {MIN_PATIENTS}: always {INCONCLUSIVE}" if n < MIN_PATIENTS else ""
    return f"**{asked}** {'; '.join(pairs)}. Difference of Dice [95 % interval]; n = {n} patients{few}."


def _doubling(laws: pd.DataFrame) -> str:
    """What a power law predicts for twice the annotated patients, network by network."""
    rows, each = laws[laws["measure"] == "dice"], []
    for row in rows.itertuples():
        gain = _with_bounds(row.doubling, row.doubling_low, row.doubling_high)
        each.append(f"{model_title(row.model)}: {f'no prediction ({row.refusal})' if row.refusal else gain}")
    most, n = rows["most_patients"].iloc[0], rows["n"].iloc[0]
    counts = f" Dice, {2 * most:.0f} patients instead of {most:.0f}, if a power law holds; n = {n} patients."
    return f"**What would twice the annotations gain?** {'; '.join(each)}.{'' if rows['refusal'].all() else counts}"


def _with_bounds(value: float, low: float, high: float) -> str:
    bounds = f"{low:+.2f}, {high:+.2f}" if np.isfinite([low, high]).all() else "no interval"
    return f"{value:+.2f} [{bounds}]"
