"""What cross-validation found, in sentences (Markdown) made from its tables."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from metaseg_nb.cohort.cases import Cohort
from metaseg_nb.cohort.folds import split
from metaseg_nb.evaluation.calibration import FAILURE_DICE
from metaseg_nb.evaluation.claims import ALL, Claim
from metaseg_nb.evaluation.comparison import ALPHA, MIN_PATIENTS, Ranks, pairwise, patient_scores
from metaseg_nb.markdown import escaped
from metaseg_nb.parameters import model_title
from metaseg_nb.settings import THRESHOLD_MODEL as FLOOR


def answer(board: pd.DataFrame, metrics: pd.DataFrame, cohort: Cohort, n_bootstrap: int, seed: int) -> str:
    """Whether a network is better than the floor, which one leads, by how much, and on how many patients it trained."""
    networks, floors = board[board["model"] != FLOOR], board[board["model"] == FLOOR]
    best, name = networks.iloc[0], model_title(networks["model"].iloc[0])
    shared = networks.loc[np.isclose(networks["dice_mean"], best["dice_mean"]), "model"].map(model_title)
    lead = (
        f"{' and '.join(shared)} {'share' if len(shared) > 1 else 'has'} the highest mean Dice: {best['dice_mean']:.2f}"
    )
    if len(networks) == 1:
        lead = f"{name}, the only network, has a mean Dice of {best['dice_mean']:.2f}"
    patients = f"n = {counted(best['patients'], 'patient')} of the cohort *{escaped(cohort.name)}*"
    facts = (
        f"({interval(best['dice_low'], best['dice_high'])}, {counted(len(networks), 'network')}, {patients}, "
        f"{best['failures']} of them with Dice 0)."
    )
    said = [f"**{lead}** {facts}"]
    for _, floor in floors.iterrows():
        gain = _gain(metrics, best["model"], FLOOR, n_bootstrap, seed)
        if not gain.low > 0:
            better = "better" if gain.mean <= 0 else "surely better"
            said = [f"**No network is {better} than the intensity threshold.** {lead} {facts}"]
        said.append(f"The intensity threshold reaches {floor['dice_mean']:.2f}; {name} minus threshold, {gain}.")
    for _, other in networks.iloc[1:2].iterrows():
        gain = _gain(metrics, best["model"], other["model"], n_bootstrap, seed)
        unknown = "" if gain.low > 0 else " So it is not known which of the two is better."
        title = model_title(other["model"])
        said.append(f"Next is {title} with {other['dice_mean']:.2f}; {name} minus {title}, {gain}.{unknown}")
    return " ".join([*said, training_sets(cohort)]).strip()


class Gain(NamedTuple):
    """Mean difference of Dice between two models on the same patients, with its 95 % interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"patient by patient: {self.mean:+.2f} ({interval(self.low, self.high, '+.2f')})"


def _gain(metrics: pd.DataFrame, first: str, second: str, n_bootstrap: int, seed: int) -> Gain:
    pair = pairwise(patient_scores(metrics, [first, second]), n_bootstrap, seed).iloc[0]
    return Gain(pair["difference"], pair["low"], pair["high"])


def training_sets(cohort: Cohort) -> str:
    """On how many patients each fold's networks were trained; the selection set is not among them."""
    sizes = {fold: len({case.patient for case in split(cohort, fold).training}) for fold in range(cohort.n_folds)}
    if not sizes:
        return ""
    if len(set(sizes.values())) == 1:
        return f"Each fold trained on {counted(sizes[0], 'patient')}."
    smallest = min(sizes, key=sizes.__getitem__)
    least = f"{counted(sizes[smallest], 'patient')} (fold {smallest})"
    return f"Smallest training set: {least}; largest: {max(sizes.values())}."


def counted(n: int, word: str) -> str:
    """A number with its word: 1 patient, 2 patients."""
    return f"{n} {word}" if n == 1 else f"{n} {word}s"


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
        return f"{model_title(leader)} detects all of {counted(rows['n_lesions'].sum(), 'lesion')}."
    bounds = interval(100 * worst["low"], 100 * worst["high"], ".0f")
    return (
        f"**{model_title(leader)} misses most among lesions of {worst['class']}: it detects "
        f"{100 * worst['sensitivity']:.0f} % of them** ({bounds}, "
        f"n = {counted(worst['n_lesions'], 'lesion')} in {counted(worst['n_patients'], 'patient')})."
        f"{_who_finds_more(worst, strata, board)}"
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
        return " Each network alone says the same." if len(own) > 1 else ""
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
