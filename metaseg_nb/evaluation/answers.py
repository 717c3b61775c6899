"""What cross-validation found, in sentences (Markdown) made from its tables."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from metaseg_nb.cohort.cases import Cohort
from metaseg_nb.evaluation.calibration import FAILURE_DICE
from metaseg_nb.evaluation.claims import ALL, Claim
from metaseg_nb.evaluation.comparison import ALPHA, MIN_PATIENTS, Ranks, patient_scores
from metaseg_nb.evaluation.intervals import bootstrap_interval
from metaseg_nb.markdown import escaped
from metaseg_nb.parameters import model_title
from metaseg_nb.settings import THRESHOLD_MODEL as FLOOR


def answer(board: pd.DataFrame, metrics: pd.DataFrame, cohort: Cohort, n_bootstrap: int, seed: int) -> str:
    """Which network leads, and its gain over the floor, paired by patient."""
    networks = board[board["model"] != FLOOR]
    best, others = networks.iloc[0], networks.iloc[1:]
    text = (
        f"**{model_title(best['model'])} has the highest mean Dice: {best['dice_mean']:.2f}** "
        f"({interval(best['dice_low'], best['dice_high'])}, n = {best['patients']} patients of the "
        f"cohort *{escaped(cohort.name)}*, {best['failures']} of them with Dice 0)."
    )
    for _, other in others.head(1).iterrows():
        overlap = "overlap" if other["dice_high"] > best["dice_low"] else "do not overlap"
        text += f" Next is {model_title(other['model'])} with {other['dice_mean']:.2f}"
        text += f"; the two intervals {overlap}." if best["patients"] > 1 else "."
    for _, floor in board[board["model"] == FLOOR].iterrows():
        dice = patient_scores(metrics, [best["model"], FLOOR])
        gain = dice[best["model"]] - dice[FLOOR]
        text += (
            f" An intensity threshold reaches {floor['dice_mean']:.2f}; the gain over it, patient by patient, is "
            f"{gain.mean():+.2f} ({interval(*bootstrap_interval(gain, n_bootstrap, seed), '+.2f')})."
        )
    return text


def interval(low: float, high: float, form: str = ".2f") -> str:
    """A 95 % interval in words."""
    return (
        f"95 % interval {low:{form}} to {high:{form}}" if np.isfinite([low, high]).all() else "one patient: no interval"
    )


def worst_class(strata: pd.DataFrame, board: pd.DataFrame) -> str:
    """Lesions of which diameter the leading network misses most, and who finds more; ``strata`` from `stratified`."""
    leader = board.loc[board["model"] != FLOOR, "model"].iloc[0]
    rows = strata[(strata["model"] == leader) & (strata["stratum"] == "diameter_class") & (strata["n_lesions"] > 0)]
    if rows.empty:
        return "There is no reference lesion in this cohort."
    often = rows[rows["n_patients"] > 1]  # one patient says little of a class
    worst = rows.loc[(rows if often.empty else often)["sensitivity"].idxmin()]
    if rows["sensitivity"].min() == 1:
        return f"{model_title(leader)} detects all {rows['n_lesions'].sum()} lesions."
    bounds = interval(100 * worst["low"], 100 * worst["high"], ".0f")
    return (
        f"**{model_title(leader)} misses most among lesions of {worst['class']}: it detects "
        f"{100 * worst['sensitivity']:.0f} % of them** ({bounds}, "
        f"n = {worst['n_lesions']} lesions in {worst['n_patients']} patients).{_who_finds_more(worst, strata, board)}"
    )


def _who_finds_more(worst: pd.Series, strata: pd.DataFrame, board: pd.DataFrame) -> str:
    """The network that detects most of a class, and at what price."""
    rivals = strata[(strata["stratum"] == worst["stratum"]) & (strata["class"] == worst["class"])]
    rivals = rivals[rivals["model"].isin(board.loc[board["model"] != FLOOR, "model"])].dropna(subset="sensitivity")
    most = rivals.loc[rivals["sensitivity"].idxmax()]
    if most["sensitivity"] <= worst["sensitivity"]:
        return " No other network finds more of these." if len(rivals) > 1 else ""
    false = board.set_index("model")["false_per_patient"]
    return (
        f" {model_title(most['model'])} finds most of these, {100 * most['sensitivity']:.0f} % "
        f"({interval(100 * most['low'], 100 * most['high'], '.0f')}), with {false[most['model']]:.1f} false lesions "
        f"per patient against {false[worst['model']]:.1f}."
    )


def describe_price(board: pd.DataFrame) -> str:
    """What detection costs: false lesions per patient, network by network; ``board`` the leaderboard."""
    lines = [
        f"{model_title(row.model)} {row.false_per_patient:.1f} "
        f"({interval(row.false_per_patient_low, row.false_per_patient_high, '.1f')})"
        for row in board.itertuples()
    ]
    return f"Detection has its price, false lesions per patient (n = {board['patients'].iloc[0]}): {'; '.join(lines)}."


def describe_claims(claims: Mapping[str, Sequence[Claim]]) -> str:
    """Each claim answered by all networks together, then by each; ``claims`` from `claims_by_network`."""
    return "\n".join(f"{number}. {claim}{_by_network(claim, claims)}" for number, claim in enumerate(claims[ALL], 1))


def _by_network(claim: Claim, claims: Mapping[str, Sequence[Claim]]) -> str:
    own = {
        model: said.verdict for model in claims if model != ALL for said in claims[model] if said.words == claim.words
    }
    verdicts = list(dict.fromkeys(own.values()))
    if len(own) < 2 or verdicts == [claim.verdict]:
        return " So it is with each network alone." if len(own) > 1 else ""
    named = {verdict: ", ".join(model_title(model) for model in own if own[model] == verdict) for verdict in verdicts}
    parts = (f"{verdict.removesuffix(' here')} with {names}" for verdict, names in named.items())
    return f" One by one: {'; '.join(parts)}."


def how_sure(ranks: Ranks, pairs: pd.DataFrame, places: pd.DataFrame) -> str:
    """Whether the networks differ, and how often the leader leads when patients are resampled."""
    if len(places) < 2:
        return "**How sure**: one network is compared with no other."
    if ranks.patients < MIN_PATIENTS:
        return f"**How sure**: fewer than {MIN_PATIENTS} patients ({ranks.patients}) are too few to test a difference."
    differ = pairs[pairs["p_holm"] < ALPHA]
    named = ", ".join(f"{model_title(row.first)} and {model_title(row.second)}" for row in differ.itertuples())
    found = f"{len(differ)} of {len(pairs)} pairs differ ({named})" if len(differ) else "no pair of networks differs"
    overall = f"Friedman p {p_value(ranks.p)}; " if np.isfinite(ranks.p) else ""
    stays = f"{model_title(places.index[0])} leads in {100 * places.iloc[0, 0]:.0f} % of the resamples of patients"
    return f"**How sure**: {overall}{found} (Wilcoxon, Holm, 5 %); {stays}."


def p_value(p: float) -> str:
    """A p-value as it is read: two digits, and a bound below 0.001."""
    return "< 0.001" if p < 0.001 else f"= {p:.2g}"


def describe_luck(luck: pd.DataFrame) -> str:
    """What choosing the epoch on the selection set did to the test patients."""
    if luck.empty:
        return "The last epoch's weights were not scored in this study: how much choosing the epoch did is not known."
    parts = [
        f"{model_title(row.model)} {row.difference:+.3f} ({interval(row.low, row.high, '+.3f')})"
        for row in luck.itertuples()
    ]
    patients = f"n = {luck['patients'].iloc[0]} patients"
    return _listed(f"Dice gained by choosing the epoch instead of taking the last ({patients}):", parts)


def describe_missed(table: pd.DataFrame) -> str:
    """Which kind of mistake is the more common one, network by network; ``table`` from `missed_and_false`."""
    parts = [
        f"{model_title(row.model)} {row.missed:.1f} missed, {row.false:.1f} false "
        f"(difference {row.difference:+.1f}, {interval(row.difference_low, row.difference_high, '+.1f')})"
        for row in table.itertuples()
    ]
    return _listed(f"Lesions per patient (n = {table['patients'].iloc[0]}):", parts)


def describe_agreement(limits: pd.DataFrame) -> str:
    """Bias and limits of agreement, network by network; ``limits`` from `limits_of_agreement`."""
    parts = [
        f"{model_title(row.model)} {row.bias_cm3:+.1f} cm³ ({interval(row.low, row.high, '+.1f')}), "
        f"limits {row.lower_cm3:+.1f} and {row.upper_cm3:+.1f} cm³ (each ± {row.limit_error_cm3:.1f})"
        for row in limits.itertuples()
    ]
    return _listed(f"Predicted minus reference volume (n = {limits['patients'].iloc[0]} patients):", parts)


def describe_flags(flags: pd.DataFrame) -> str:
    """Calibration error, and whether uncertainty flags failures; ``flags`` a row per network, from `flagging`."""
    if flags.empty:
        return (
            "Probabilities were not kept in this study, so FROC, calibration and uncertainty are left out: "
            "run 03 again to have them."
        )
    parts = [
        f"{model_title(row.model)}: average precision of detection {row.average_precision:.2f} "
        f"({interval(row.average_precision_low, row.average_precision_high)}), calibration error {row.ece:.2f} "
        f"({interval(row.ece_low, row.ece_high)}), {_flagged(row)}"
        for row in flags.itertuples()
    ]
    return _listed(f"Of {flags['patients'].iloc[0]} patients:", parts)


def _listed(head: str, parts: Sequence[str]) -> str:
    """One line a network."""
    return "\n".join([f"{head}\n", *(f"- {part}" for part in parts)])


def _flagged(row: tuple) -> str:
    if not np.isfinite(row.auroc):
        return f"failures cannot be flagged: {row.failures} of {row.patients} patients below Dice {FAILURE_DICE}"
    said = (
        "are flagged"
        if row.auroc_low > 0.5
        else "are flagged the wrong way"
        if row.auroc_high < 0.5
        else "are not reliably flagged"
    )
    return (
        f"its {row.failures} failures {said} by uncertainty (area under ROC {row.auroc:.2f}, "
        f"{interval(row.auroc_low, row.auroc_high)})"
    )
