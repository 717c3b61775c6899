"""What an arm of an annotation budget gains over another, patient by patient."""

import numpy as np
import pandas as pd

from metaseg_nb.annotation.results import BudgetResults, Draws
from metaseg_nb.evaluation.claims import ALL
from metaseg_nb.evaluation.comparison import MIN_PATIENTS

BETTER, WORSE, INCONCLUSIVE = "better", "worse", "inconclusive"
# Minutes count as equal up to this ratio.
SAME = 1.01
COLUMNS = ["question", "arm", "title", "against", "model", "patients", "minutes", "minutes_against"]
COLUMNS += ["difference", "low", "high", "verdict"]
# Questions about one change to an arm: its column, the value with the change, and the value without it.
CHANGES = {
    "pretraining": ("unannotated", "pretraining", "unused"),
    "self_training": ("unannotated", "self_training", "unused"),
    "roi": ("recipe", "sampling: roi", ""),
}


def budget_gains(results: BudgetResults, draws: Draws) -> pd.DataFrame:
    """Dice of each arm minus Dice of what it is compared with, by question.

    - ``patients``: the most fully contoured patients with the next smaller number of them.
    - ``kind``: cheaper annotations with full contours *at equal minutes*.
    - ``ranking``: patients chosen by a ranking with patients chosen evenly, at equal minutes.
    - ``pretraining``, ``self_training``, ``roi``: an arm with the one that differs in nothing else.

    Full contours at minutes between two budgets are interpolated, patient by patient, in proportion to the logarithm
    of minutes. Outside the budgets the nearest budget is used (see ``minutes_against``). Then an arm that loses
    against more minutes, or wins with more minutes, is inconclusive.

    Returns
    -------
    DataFrame
        A row per (``question``, ``arm``, ``model``), where "all networks" is their mean, patient by patient:
        ``title`` of the arm, ``against`` (title), ``patients``, ``minutes`` of both, ``difference`` with ``low``,
        ``high`` (95 % interval, not adjusted for the number of comparisons) and ``verdict``: "better" or "worse" where
        the interval does not hold 0 and there are `MIN_PATIENTS` or more, else "inconclusive".
    """
    rows = []
    for question, arm, against in _pairs(results):
        own, minutes = results.arms.loc[arm, ["title", "minutes"]]
        weights, other, minutes_against = _compared_with(results, against, minutes)
        if question == "patients":
            own, other = (f"{results.arms.loc[name, 'patients']:.0f} patients" for name in (arm, against))
        facts = {"question": question, "arm": arm, "title": own, "against": other}
        facts |= {"minutes": minutes, "minutes_against": minutes_against}
        each = {model: _difference(results, model, arm, weights) for model in results.models}
        each[ALL] = np.mean(list(each.values()), axis=0)
        more, less = minutes_against > SAME * minutes, minutes > SAME * minutes_against
        unfair = "" if against else WORSE if more else BETTER if less else ""
        rows += [facts | {"model": model} | _gain(difference, draws, unfair) for model, difference in each.items()]
    return pd.DataFrame(rows, columns=COLUMNS)


def _pairs(results: BudgetResults) -> list[tuple[str, str, str | None]]:
    """Question, arm, and what it is compared with: another arm, or None for full contours at equal minutes."""
    arms, budgets = results.arms, results.budgets
    pairs = [("patients", budgets[-1], budgets[-2])] if len(budgets) > 1 else []
    if budgets:
        cheaper = arms[(arms["annotation"] != "full") & (arms["unannotated"] == "unused") & (arms["recipe"] == "")]
        pairs += [("kind", arm, None) for arm in cheaper.index]
        pairs += [("ranking", arm, None) for arm in arms.index[arms["unannotated"] == "ranking"]]
    for question, (column, value, before) in CHANGES.items():
        for arm in arms.index[arms[column] == value]:
            wanted = arms.loc[arm, ["share", "annotation", "unannotated", "recipe"]].copy()
            wanted[column] = before
            same = arms.index[(arms[wanted.index] == wanted).all(axis=1)]
            pairs += [(question, arm, other) for other in same[:1]]
    return pairs


def _compared_with(results: BudgetResults, against: str | None, minutes: float) -> tuple[dict[str, float], str, float]:
    """Another arm, or full contours at equal minutes: weights of the arms that are mixed, a title, and minutes."""
    if against:
        return {against: 1.0}, *results.arms.loc[against, ["title", "minutes"]]
    known = results.arms.loc[results.budgets, "minutes"].to_numpy(float)
    place = np.interp(np.log(minutes), np.log(known), np.arange(len(known)))
    weights = {arm: 1 - abs(place - i) for i, arm in enumerate(results.budgets) if abs(place - i) < 1}
    found = float(np.clip(minutes, known.min(), known.max()))
    equal = 1 / SAME <= found / minutes <= SAME
    return weights, f"full contours, {'equal minutes' if equal else f'{found / 60:.1f} h'}", found


def _difference(results: BudgetResults, model: str, arm: str, weights: dict[str, float]) -> np.ndarray:
    """Dice of an arm minus that of a mix of others, shape (S, P)."""
    others = sum(weight * results.values(model, other, "dice") for other, weight in weights.items())
    return results.values(model, arm, "dice") - others


def _gain(difference: np.ndarray, draws: Draws, unfair: str) -> dict[str, float | str]:
    """Mean, interval and verdict; a verdict that unequal minutes alone would explain is inconclusive."""
    low, high = draws.interval(draws.ratios(difference, np.ones_like(difference)))
    patients, verdict = difference.shape[1], BETTER if low > 0 else WORSE if high < 0 else INCONCLUSIVE
    if patients < MIN_PATIENTS or verdict == unfair:
        verdict = INCONCLUSIVE
    return {"patients": patients, "difference": difference.mean(), "low": low, "high": high, "verdict": verdict}
