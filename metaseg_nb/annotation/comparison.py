"""Comparison of the arms of an annotation budget: learning curves, gains, and answers in sentences."""

from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from metaseg_nb.annotation.results import BudgetResults
from metaseg_nb.evaluation.claims import ALL
from metaseg_nb.evaluation.intervals import INCONCLUSIVE, MIN_PATIENTS, bootstrap_ratio, percentiles, verdict
from metaseg_nb.parameters import model_title

# Means over patients, or shares of all lesions: the numerator, and the denominator (None: the number of patients).
MEASURES = {"dice": ("dice", None), "sensitivity": ("n_detected", "n_truth"), "false_per_patient": ("n_false", None)}
# Of these, 1 minus the measure is an error that a power law may describe.
FITTED = ("dice", "sensitivity")
# Two budgets always lie on a power law.
LEAST_BUDGETS = 3
# How far the largest budget's error may be from the law, as a share of the gain that the law predicts.
TOLERATED = 0.25
# Minutes count as equal up to this ratio.
SAME = 1.01
# Each question: its words, and whether it is answered for each network, or for their mean.
QUESTIONS = {
    "patients": ("How many patients are enough?", False),
    "kind": ("Which kind of annotation is worth its minutes?", False),
    "pretraining": ("Does pretraining on all images help?", True),
    "self_training": ("Does self-training help?", True),
    "teachers": ("Does it help to be taught by all networks together?", True),
    "ranking": ("Does it help to choose patients by a ranking?", False),
    "foreground": ("Is a ranking better than random patients with as much lesion?", False),
    "roi": ("Are patches around boxes enough?", False),
}
# Questions about one change to an arm: columns with the change, and without it; all other columns of `ALIKE` are equal.
CHANGES = {
    "pretraining": ({"unannotated": "pretraining"}, {"unannotated": "unused"}),
    "self_training": ({"unannotated": "self_training"}, {"unannotated": "unused", "teachers": ""}),
    "teachers": ({"unannotated": "self_training", "teachers": ""}, {"teachers": "self"}),
    "foreground": ({"unannotated": "ranking"}, {"unannotated": "foreground_random"}),
    "roi": ({"recipe": "sampling: roi"}, {"recipe": ""}),
}
ALIKE = ["share", "annotation", "unannotated", "teachers", "recipe"]
COLUMNS = ["question", "arm", "title", "against", "model", "patients", "minutes", "minutes_against"]
COLUMNS += ["difference", "low", "high", "verdict"]


def draw(results: BudgetResults, n_bootstrap: int, seed: int) -> np.ndarray:
    """Resamples of patients and of seeds, the same for everything that is compared.

    Patients and seeds are drawn separately, each with replacement, and crossed (pigeonhole bootstrap). Intervals are
    too wide where trainings hardly differ, and too narrow where they differ much and seeds are few: in simulated
    studies of three or five seeds, 95 % intervals held the truth in 84 to 99 %. With one seed they do not show how
    much another training would differ.

    Returns
    -------
    ndarray of int, shape (B, S, P)
        How often each resample draws each patient of each seed.

    References
    ----------
    Owen 2007, Ann. Appl. Stat. 1(2):386-411.
    """
    rng, sizes = np.random.default_rng(seed), results.patients[["patient", "seed"]].nunique()
    patients, seeds = (rng.multinomial(n, np.full(n, 1 / n), n_bootstrap) for n in sizes)
    return seeds[:, :, None] * patients[:, None, :]


def resampled_ratio(draws: np.ndarray, parts: np.ndarray, wholes: np.ndarray) -> np.ndarray:
    """``parts.sum() / wholes.sum()``, both of shape (S, P), in each resample; shape (B,), NaN without wholes."""
    return _ratio(np.tensordot(draws, parts, 2), np.tensordot(draws, wholes, 2))


def interval(draws: np.ndarray, resampled: np.ndarray) -> tuple[float, float]:
    """Percentile interval of a number from its values in the resamples; NaN with fewer than two patients."""
    return percentiles(resampled) if draws.shape[2] > 1 else (np.nan, np.nan)


def _ratio(parts: Any, wholes: Any) -> Any:
    """Quotient; NaN where there are no wholes."""
    parts, wholes = np.asarray(parts, float), np.asarray(wholes, float)
    return np.divide(parts, wholes, out=np.full(parts.shape, np.nan), where=wholes > 0)


def budget_curves(results: BudgetResults, n_bootstrap: int, seed: int) -> pd.DataFrame:
    """Every measure of every network in every arm.

    Returns
    -------
    DataFrame
        A row per (``model``, ``arm``): the columns of `BudgetResults.arms`, ``n`` (patients tested), ``seeds``, and
        each of `MEASURES` with ``_low`` and ``_high``, its 95 % interval.
    """
    draws, rows = draw(results, n_bootstrap, seed), []
    for model, arm in product(results.models, results.arms.index):
        row = {
            "model": model,
            "arm": arm,
            **results.arms.loc[arm].to_dict(),
            "n": draws.shape[2],
            "seeds": draws.shape[1],
        }
        for measure, (_, whole) in MEASURES.items():
            parts, wholes = _parts(results, model, arm, measure)
            low, high = interval(draws, resampled_ratio(draws, parts, wholes))
            if whole and wholes.any() and np.array_equal(parts, wholes * parts.any()):  # no lesion, or all, found
                some = wholes.any(axis=0)
                low, high = bootstrap_ratio(parts.mean(axis=0)[some], wholes.mean(axis=0)[some])
            row |= {measure: float(_ratio(parts.sum(), wholes.sum())), f"{measure}_low": low, f"{measure}_high": high}
        rows.append(row)
    return pd.DataFrame(rows)


def _parts(results: BudgetResults, model: str, arm: str, measure: str) -> tuple[np.ndarray, np.ndarray]:
    """Numerator and denominator of a measure, both of shape (S, P)."""
    part, whole = MEASURES[measure]
    parts = results.values(model, arm, part)
    return parts, results.values(model, arm, whole) if whole else np.ones_like(parts)


def power_laws(results: BudgetResults, n_bootstrap: int, seed: int) -> pd.DataFrame:
    """Fit the error of each of `FITTED`, network by network, over the budgets of fully contoured patients.

    An error of 0 counts as half a lesion (or half a patient), because 0 has no logarithm.

    Returns
    -------
    DataFrame
        A row per (``model``, ``measure``): ``most_patients`` (of the largest budget), what `fit_power_law` returns
        with 95 % intervals (``_low``, ``_high``), and ``n`` (patients tested).
    """
    draws, rows = draw(results, n_bootstrap, seed), []
    patients = results.arms.loc[results.budgets, "patients"].to_numpy(float)
    for model, measure in product(results.models, FITTED):
        errors, resampled = [], []
        for parts, wholes in (_parts(results, model, arm, measure) for arm in results.budgets):
            least = _ratio(0.5, wholes.sum())
            errors.append(np.maximum(1 - _ratio(parts.sum(), wholes.sum()), least))
            resampled.append(np.maximum(1 - resampled_ratio(draws, parts, wholes), least))
        stacked = np.reshape(resampled, (len(patients), len(draws))).T
        law, of_resamples = fit_power_law(patients, np.array(errors), stacked)
        row = {"model": model, "measure": measure, "most_patients": max(patients, default=np.nan)}
        for name, values in of_resamples.items():
            low, high = interval(draws, values)
            row |= {name: law[name], f"{name}_low": low, f"{name}_high": high}
        rows.append(row | {"n": draws.shape[2], "refusal": law["refusal"]})
    return pd.DataFrame(rows)


def fit_power_law(
    patients: np.ndarray, errors: np.ndarray, resampled: np.ndarray
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Fit error = ``a`` · patients^-``b`` by least squares of the logarithms.

    Parameters
    ----------
    patients : ndarray, shape (K,)
        Annotated patients of each budget.
    errors : ndarray, shape (K,)
        Above 0.
    resampled : ndarray, shape (B, K)
        Errors in resamples.

    Returns
    -------
    law : dict
        ``a``, ``b``, ``doubling`` (by how much twice the largest budget lowers the error), and ``refusal``: why the
        law is not to be used, or empty. It is refused with fewer than `LEAST_BUDGETS` budgets, without lesions, where
        the error does not fall, and where the error of the largest budget is off the law beyond chance (95 %) and by
        more than `TOLERATED` of ``doubling``, as it is where a curve flattens.
    of_resamples : dict of ndarray, shape (B,)
        ``a``, ``b`` and ``doubling`` in each resample.

    References
    ----------
    Power laws of learning curves: Figueroa et al. 2012, BMC Med. Inform. Decis. Mak. 12:8;
    Viering & Loog 2023, IEEE TPAMI 45(6):7799-7819. They end in a plateau that few budgets do not show.
    """
    names, n_budgets = ("a", "b", "doubling"), len(np.unique(patients))
    if n_budgets < LEAST_BUDGETS or not np.isfinite(errors).all():
        few = f"{n_budgets} budget(s) of fully contoured patients; {LEAST_BUDGETS} are needed"
        why = few if n_budgets < LEAST_BUDGETS else "there are no lesions"
        return dict.fromkeys(names, np.nan) | {"refusal": why}, dict.fromkeys(names, np.full(len(resampled), np.nan))
    rows, most = np.vstack([errors, resampled]), patients.max()  # the first row is the budgets' own
    slope, log_a = np.polyfit(np.log(patients), np.log(rows).T, 1)
    at_most, at_twice = (np.exp(log_a + slope * np.log(n)) for n in (most, 2 * most))
    laws = dict(zip(names, (np.exp(log_a), -slope, at_most - at_twice), strict=True))
    law = {name: float(values[0]) for name, values in laws.items()}
    misfits = rows[:, int(np.argmax(patients))] - at_most
    low, high = percentiles(misfits[1:])
    refusal = ""
    if round(law["b"], 9) <= 0:
        refusal = "the error does not fall with more annotated patients"
    elif low * high > 0 and abs(misfits[0]) > TOLERATED * law["doubling"]:
        off = f"with {most:.0f} patients the result differs from it by {-misfits[0]:+.2f} [{-high:+.2f}, {-low:+.2f}]"
        refusal = f"a power law does not fit: {off}"
    return {**law, "refusal": refusal}, {name: values[1:] for name, values in laws.items()}


def budget_gains(results: BudgetResults, n_bootstrap: int, seed: int) -> pd.DataFrame:
    """Dice of each arm minus Dice of what it is compared with, by question.

    - ``patients``: the most fully contoured patients with the next smaller number of them.
    - ``kind``: cheaper annotations with full contours *at equal minutes*.
    - ``ranking``: patients chosen by a ranking, or at random with as much lesion, with patients chosen evenly, at equal
      minutes.
    - ``foreground``: patients chosen by a ranking with random ones that have as much lesion.
    - ``pretraining``, ``self_training``, ``roi``: an arm with the one that differs in nothing else.
    - ``teachers``: self-training by all networks together with self-training by each network alone.

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
    draws, rows = draw(results, n_bootstrap, seed), []
    for question, arm, against in _pairs(results):
        title, minutes = results.arms.loc[arm, ["title", "minutes"]]
        if against:
            weights, unfair = {against: 1.0}, ""
            other, minutes_against = results.arms.loc[against, ["title", "minutes"]]
        else:
            weights, other, minutes_against = _full_contours(results, minutes)
            more, less = minutes_against > SAME * minutes, minutes > SAME * minutes_against
            unfair = "worse" if more else "better" if less else ""
        if question == "patients":
            title, other = (f"{results.arms.loc[name, 'patients']:.0f} patients" for name in (arm, against))
        each = {}
        for model in results.models:
            compared = [weight * results.values(model, name, "dice") for name, weight in weights.items()]
            each[model] = results.values(model, arm, "dice") - sum(compared)
        each[ALL] = np.mean(list(each.values()), axis=0)
        for model, gain in each.items():
            low, high = interval(draws, resampled_ratio(draws, gain, np.ones_like(gain)))
            found = verdict(low, high, gain.shape[1], "better", "worse")
            found = INCONCLUSIVE if found == unfair else found  # unequal minutes alone may explain it
            names = (question, arm, title, other, model, gain.shape[1], minutes, minutes_against)
            rows.append((*names, gain.mean(), low, high, found))
    return pd.DataFrame(rows, columns=COLUMNS)


def _pairs(results: BudgetResults) -> list[tuple[str, str, str]]:
    """Question, arm, and what it is compared with: another arm, or "" for full contours at equal minutes."""
    arms, budgets = results.arms, results.budgets
    pairs = [("patients", budgets[-1], budgets[-2])] if len(budgets) > 1 else []
    if budgets:
        cheaper = arms[(arms["annotation"] != "full") & (arms["unannotated"] == "unused") & (arms["recipe"] == "")]
        pairs += [("kind", arm, "") for arm in cheaper.index]
        chosen = arms["unannotated"].isin(["ranking", "foreground_random"])
        pairs += [("ranking", arm, "") for arm in arms.index[chosen]]
    for question, (after, before) in CHANGES.items():
        for arm in arms.index[(arms[list(after)] == after).all(axis=1)]:
            wanted = arms.loc[arm, ALIKE].to_dict() | before
            same = arms.index[(arms[ALIKE] == wanted).all(axis=1)]
            pairs += [(question, arm, other) for other in same[:1]]
    return pairs


def _full_contours(results: BudgetResults, minutes: float) -> tuple[dict[str, float], str, float]:
    """Full contours of as many minutes: weights of the budgets that are mixed, a title, and the minutes there are."""
    known = results.arms.loc[results.budgets, "minutes"].to_numpy(float)
    place = np.interp(np.log(minutes), np.log(known), np.arange(len(known)))
    weights = {arm: 1 - abs(place - i) for i, arm in enumerate(results.budgets) if abs(place - i) < 1}
    found = float(np.clip(minutes, known.min(), known.max()))
    equal = 1 / SAME <= found / minutes <= SAME
    return weights, f"full contours, {'equal minutes' if equal else f'{found / 60:.1f} h'}", found


def budget_answers(gains: pd.DataFrame, laws: pd.DataFrame) -> str:
    """A Markdown list of all questions with their answers, from the tables of `budget_gains` and `power_laws`."""
    first, *others = (_answer(gains, question) for question in QUESTIONS)
    return "\n".join(f"- {line}" for line in (first, _doubling(laws), *others))


def _answer(gains: pd.DataFrame, question: str) -> str:
    asked, by_network = QUESTIONS[question]
    rows = gains[(gains["question"] == question) & ((gains["model"] != ALL) == by_network)]
    if rows.empty:
        return f"**{asked}** Not studied: this study has no such arm, or no arm to compare it with."
    found: dict[str, list[str]] = {}
    for row in rows.itertuples():
        network = f" for {model_title(row.model)}" if by_network else ""
        verdicts = found.setdefault(f"{row.title} against {row.against}", [])
        verdicts.append(f"**{row.verdict}**{network} ({_with_bounds(row.difference, row.low, row.high)})")
    text = "; ".join(f"{pair}: {', '.join(verdicts)}" for pair, verdicts in found.items())
    n = rows["patients"].iloc[0]
    few = f", fewer than {MIN_PATIENTS}: always {INCONCLUSIVE}" if n < MIN_PATIENTS else ""
    return f"**{asked}** {text}. Difference of Dice [95 % interval]; n = {n} patients{few}."


def _doubling(laws: pd.DataFrame) -> str:
    """What a power law predicts for twice the annotated patients, network by network."""
    rows = laws[laws["measure"] == "dice"]
    each = [
        f"{model_title(row.model)}: "
        + (
            f"no prediction ({row.refusal})"
            if row.refusal
            else _with_bounds(row.doubling, row.doubling_low, row.doubling_high)
        )
        for row in rows.itertuples()
    ]
    most, n = rows["most_patients"].iloc[0], rows["n"].iloc[0]
    counts = f" Dice, {2 * most:.0f} patients instead of {most:.0f}, if a power law holds; n = {n} patients."
    return f"**What would twice the annotations gain?** {'; '.join(each)}.{'' if rows['refusal'].all() else counts}"


def _with_bounds(value: float, low: float, high: float) -> str:
    bounds = f"{low:+.2f}, {high:+.2f}" if np.isfinite([low, high]).all() else "no interval"
    return f"{value:+.2f} [{bounds}]"
