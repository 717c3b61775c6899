"""What an arm of an annotation budget gains over another, patient by patient."""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from metaseg_nb.annotation.resampling import Draws
from metaseg_nb.annotation.results import BudgetResults
from metaseg_nb.evaluation.claims import ALL
from metaseg_nb.evaluation.comparison import MIN_PATIENTS

BETTER, WORSE, UNTOLD = "better", "worse", "cannot be told"
# So many times as many minutes count as equal.
SAME = 1.01
COLUMNS = ["question", "arm", "title", "against", "model", "patients", "minutes", "minutes_against"]
COLUMNS += ["difference", "low", "high", "verdict"]


def budget_gains(results: BudgetResults, draws: Draws) -> pd.DataFrame:
    """Dice of each arm minus Dice of what it is compared with, by question.

    - ``patients``: the most fully outlined patients with the next smaller number of them.
    - ``kind``: cheaper annotations with full outlines *at equal minutes*.
    - ``ranking``: patients chosen by a ranking with patients chosen evenly, at equal minutes.
    - ``pretraining``, ``self_training``, ``roi``: an arm with the one that differs in nothing else.

    Full outlines at minutes that no budget took are put between its two neighbours, patient by patient, in proportion
    to the logarithm of minutes. Beyond the budgets the nearest one stands (see ``minutes_against``), and nothing is
    told from losing against one that took more minutes, or winning against one that took fewer.

    Returns
    -------
    DataFrame
        A row per (``question``, ``arm``, ``model``), where "all networks" is their mean, patient by patient:
        ``title`` of the arm, ``against`` (title), ``patients``, ``minutes`` of both, ``difference`` with ``low``,
        ``high`` (95 % interval, not adjusted for how many there are) and ``verdict``: "better" or "worse" where the
        interval says so and there are `MIN_PATIENTS` or more, else "cannot be told".
    """
    rows = []
    for question, arm, against in _pairs(results):
        at = results.arms.loc[arm, "minutes"]
        title, minutes, values = _outlined_at(results, at) if against is None else _of_arm(results, against)
        own = results.arms.loc[arm, "title"]
        if question == "patients":
            own, title = (f"{results.arms.loc[name, 'patients']:.0f} patients" for name in (arm, against))
        facts = {"question": question, "arm": arm, "title": own, "against": title}
        facts |= {"minutes": at, "minutes_against": minutes}
        each = {model: results.values(model, arm, "dice") - values(model) for model in results.models}
        each[ALL] = np.mean(list(each.values()), axis=0)
        unfair = "" if against else WORSE if minutes > SAME * at else BETTER if at > SAME * minutes else ""
        rows += [facts | {"model": model} | _gain(difference, draws, unfair) for model, difference in each.items()]
    return pd.DataFrame(rows, columns=COLUMNS)


def _pairs(results: BudgetResults) -> list[tuple[str, str, str | None]]:
    """Question, arm, and what it is compared with: another arm, or None for full outlines at equal minutes."""
    arms, outlined = results.arms, results.outlined
    pairs = [("patients", outlined[-1], outlined[-2])] if len(outlined) > 1 else []
    if outlined:
        cheaper = arms[(arms["annotation"] != "full") & (arms["unannotated"] == "unused") & (arms["recipe"] == "")]
        pairs += [("kind", arm, None) for arm in cheaper.index]
        pairs += [("ranking", arm, None) for arm in arms.index[arms["unannotated"] == "ranking"]]
    changes = (
        ("pretraining", "unannotated", "pretraining", "unused"),
        ("self_training", "unannotated", "self_training", "unused"),
        ("roi", "recipe", "sampling: roi", ""),
    )
    for question, column, value, before in changes:
        for arm in arms.index[arms[column] == value]:
            partner = _partner(arms, arm, column, before)
            pairs += [(question, arm, other) for other in partner[:1]]
    return pairs


def _partner(arms: pd.DataFrame, arm: str, column: str, before: str) -> Sequence[str]:
    """Arms that differ from one in a column only."""
    wanted = arms.loc[arm, ["share", "annotation", "unannotated", "recipe"]].copy()
    wanted[column] = before
    return list(arms.index[(arms[wanted.index] == wanted).all(axis=1)])


def _of_arm(results: BudgetResults, arm: str) -> tuple[str, float, Callable[[str], np.ndarray]]:
    facts = results.arms.loc[arm]
    return facts["title"], facts["minutes"], lambda model: results.values(model, arm, "dice")


def _outlined_at(results: BudgetResults, minutes: float) -> tuple[str, float, Callable[[str], np.ndarray]]:
    """Full outlines that take as many minutes: title, minutes, and Dice of a network's patients, shape (S, P)."""
    arms = results.outlined
    known = results.arms.loc[arms, "minutes"].to_numpy(float)
    place = float(np.interp(np.log(minutes), np.log(known), np.arange(len(arms))))
    lower, upper = arms[int(place)], arms[min(int(place) + 1, len(arms) - 1)]

    def values(model: str) -> np.ndarray:
        below, above = (results.values(model, arm, "dice") for arm in (lower, upper))
        return below + (place - int(place)) * (above - below)

    found = float(np.clip(minutes, known.min(), known.max()))
    equal = 1 / SAME <= found / minutes <= SAME
    return f"full outlines, {'equal minutes' if equal else f'{found / 60:.1f} h'}", found, values


def _gain(difference: np.ndarray, draws: Draws, unfair: str) -> dict[str, float | str]:
    """Mean, interval and verdict; a verdict that minutes alone would explain is not told."""
    low, high = draws.interval(draws.ratios(difference, np.ones_like(difference)))
    patients = difference.shape[1]
    enough = patients >= MIN_PATIENTS
    verdict = BETTER if enough and low > 0 else WORSE if enough and high < 0 else UNTOLD
    found = {"patients": patients, "difference": difference.mean(), "low": low, "high": high}
    return found | {"verdict": UNTOLD if verdict == unfair else verdict}
