"""Comparison of the arms of an annotation budget: learning curves, power laws, gains, and answers in sentences."""

from itertools import pairwise, product

import numpy as np
import pandas as pd

from metaseg_nb.annotation.results import BudgetResults
from metaseg_nb.evaluation.intervals import EQUAL, INCONCLUSIVE, MIN_PATIENTS, named, percentiles, share, verdict
from metaseg_nb.parameters import model_title
from metaseg_nb.settings import ALL

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
GAIN_COLUMNS = ["question", "arm", "title", "against", "model", "patients", "minutes", "minutes_against"]
GAIN_COLUMNS += ["difference", "low", "high", "verdict"]


def draw_resamples(results: BudgetResults, n_bootstrap: int, seed: int) -> np.ndarray:
    """Resamples of patients and of seeds, the same for everything that is compared.

    Patients and seeds are drawn separately, each with replacement, and crossed (pigeonhole bootstrap). Intervals are
    too wide where trainings hardly differ, and too narrow where they differ much and seeds are few: in simulated
    studies of three or five seeds, 95 % intervals held the truth in 84 to 99 %. With one seed they do not show how
    much another training would differ.

    Returns
    -------
    ndarray of int, shape (1 + B, S, P)
        How often each resample draws each patient of each seed. The first draws each once: these are the results.

    References
    ----------
    Owen 2007, Ann. Appl. Stat. 1(2):386-411.
    """
    rng, sizes = np.random.default_rng(seed), results.patients[["patient", "seed"]].nunique()
    patients, seeds = (rng.multinomial(n, np.full(n, 1 / n), n_bootstrap) for n in sizes)
    drawn = seeds[:, :, None] * patients[:, None, :]
    return np.concatenate([np.ones_like(drawn[:1]), drawn])


def ratio(draws: np.ndarray, parts: np.ndarray, wholes: np.ndarray) -> np.ndarray:
    """``parts.sum() / wholes.sum()``, both of shape (S, P), for each of the draws; NaN without wholes."""
    parts, wholes = (np.tensordot(draws, each, 2) for each in (parts, wholes))
    return np.divide(parts, wholes, out=np.full(len(draws), np.nan), where=wholes > 0)


def with_interval(draws: np.ndarray, values: np.ndarray) -> tuple[float, float, float]:
    """A number, from its values for each of the draws, and its 95 % interval; NaN with fewer than two patients.

    The interval is widened for the number of patients (`percentiles`), and not for that of seeds.
    """
    return float(values[0]), *percentiles(values[1:], draws.shape[2])


def budget_curves(results: BudgetResults, n_bootstrap: int, seed: int) -> pd.DataFrame:
    """Every measure of every network in every arm.

    Returns
    -------
    DataFrame
        A row per (``model``, ``arm``): the columns of `BudgetResults.arms`, ``n`` (patients tested), ``seeds``, and
        each of `MEASURES` with ``_low`` and ``_high``, its 95 % interval; NaN for a mean of equal values.
    """
    draws, rows = draw_resamples(results, n_bootstrap, seed), []
    for model, arm in product(results.models, results.arms.index):
        row = {"model": model, "arm": arm, **results.arms.loc[arm].to_dict()}
        row |= {"n": draws.shape[2], "seeds": draws.shape[1]}
        for measure, (_, of_lesions) in MEASURES.items():
            parts, wholes = _parts(results, model, arm, measure)
            found, low, high = with_interval(draws, ratio(draws, parts, wholes))
            if of_lesions and wholes.any() and np.array_equal(parts, wholes * parts.any()):  # no lesion, or all, found
                _, low, high = share(parts.mean(axis=0), wholes.mean(axis=0))
            elif not of_lesions and np.ptp(parts) < EQUAL:  # say no false lesion at all: others may have some
                low, high = np.nan, np.nan
            row |= named(measure, (found, low, high))
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
        with 95 % intervals (``_low``, ``_high``), ``n`` (patients tested), and ``refusal``.
    """
    draws, rows = draw_resamples(results, n_bootstrap, seed), []
    patients = results.arms.loc[results.budgets, "patients"].to_numpy(float)
    for model, measure in product(results.models, FITTED):
        errors = []
        for parts, wholes in (_parts(results, model, arm, measure) for arm in results.budgets):
            least = 0.5 / wholes.sum() if wholes.any() else np.nan
            errors.append(np.maximum(1 - ratio(draws, parts, wholes), least))
        laws, refusal = fit_power_law(patients, np.reshape(errors, (len(patients), len(draws))).T, draws.shape[2])
        row = {"model": model, "measure": measure, "most_patients": max(patients, default=np.nan)}
        for name, values in laws.items():
            row |= named(name, with_interval(draws, values))
        rows.append(row | {"n": draws.shape[2], "refusal": refusal})
    return pd.DataFrame(rows)


def fit_power_law(patients: np.ndarray, errors: np.ndarray, n_tested: int) -> tuple[dict[str, np.ndarray], str]:
    """Fit error = ``a`` · patients^-``b`` by least squares of the logarithms.

    Parameters
    ----------
    patients : ndarray, shape (K,)
        Annotated patients of each budget.
    errors : ndarray, shape (1 + B, K)
        Above 0: those of the results, and of each resample.
    n_tested : int
        Patients that were resampled.

    Returns
    -------
    laws : dict of ndarray, shape (1 + B,)
        ``a``, ``b``, ``doubling`` (by how much twice the largest budget lowers the error).
    refusal : str
        Why the law is not to be used, or empty. It is refused with fewer than `LEAST_BUDGETS` budgets, without
        lesions, where the error does not fall, and where the error of the largest budget is off the law beyond chance
        (95 %) and by more than `TOLERATED` of ``doubling``, as it is where a curve flattens.

    References
    ----------
    Power laws of learning curves: Figueroa et al. 2012, BMC Med. Inform. Decis. Mak. 12:8;
    Viering & Loog 2023, IEEE TPAMI 45(6):7799-7819. They end in a plateau that few budgets do not show.
    """
    names, n_budgets = ("a", "b", "doubling"), len(np.unique(patients))
    if n_budgets < LEAST_BUDGETS or not np.isfinite(errors[0]).all():
        few = f"{n_budgets} budget(s) of fully contoured patients; {LEAST_BUDGETS} are needed"
        unknown = dict.fromkeys(names, np.full(len(errors), np.nan))
        return unknown, few if n_budgets < LEAST_BUDGETS else "there are no lesions"
    most = patients.max()
    slope, log_a = np.polyfit(np.log(patients), np.log(errors).T, 1)
    at_most, at_twice = (np.exp(log_a + slope * np.log(n)) for n in (most, 2 * most))
    laws = dict(zip(names, (np.exp(log_a), -slope, at_most - at_twice), strict=True))
    misfits = errors[:, patients.argmax()] - at_most
    low, high = percentiles(misfits[1:], n_tested)
    refusal = ""
    if round(laws["b"][0], 9) <= 0:
        refusal = "the error does not fall with more annotated patients"
    elif low * high > 0 and abs(misfits[0]) > TOLERATED * laws["doubling"][0]:
        off = f"with {most:.0f} patients the result differs from it by {-misfits[0]:+.2f} [{-high:+.2f}, {-low:+.2f}]"
        refusal = f"a power law does not fit: {off}"
    return laws, refusal


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
    draws, rows = draw_resamples(results, n_bootstrap, seed), []
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
    return pd.DataFrame(rows, columns=GAIN_COLUMNS)


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
