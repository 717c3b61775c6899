"""The conclusions of cross-validation, as Markdown; short ones stand in notebook 04 itself."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from metaseg_nb.cohort.cases import Cohort
from metaseg_nb.cohort.folds import split
from metaseg_nb.evaluation.claims import ALL, KINDS
from metaseg_nb.evaluation.comparison import (
    ALPHA,
    CONTRADICTED,
    INCONCLUSIVE,
    MIN_PATIENTS,
    SUPPORTED,
    Ranks,
    pairwise,
    patient_scores,
    verdict,
)
from metaseg_nb.evaluation.intervals import estimate
from metaseg_nb.files import escaped
from metaseg_nb.parameters import model_title
from metaseg_nb.settings import THRESHOLD_MODEL as FLOOR


def which_network(board: pd.DataFrame, metrics: pd.DataFrame, cohort: str, n_bootstrap: int, seed: int) -> str:
    """Which network leads, whether it is better than the next and than the intensity threshold.

    Parameters
    ----------
    board : DataFrame
        The leaderboard, with the floor.
    metrics : DataFrame
        A row per (``model``, ``case``), with the floor.
    cohort : str
        Its name.
    """
    networks, floor = board[board["model"] != FLOOR], board[board["model"] == FLOOR]
    best, name = networks.iloc[0], model_title(networks["model"].iloc[0])
    equal = networks.loc[np.isclose(networks["dice_mean"], best["dice_mean"]), "model"].map(model_title)
    lead = f"{' and '.join(equal)} {'share' if len(equal) > 1 else 'has'} the highest mean Dice"
    if len(networks) == 1:
        lead = f"{name}, the only network, has this mean Dice"
    failures = (
        f"{counted(best['patients'], 'patient')} of the cohort *{escaped(cohort)}*, {best['failures']} with Dice 0"
    )
    text = f"{lead}: **{estimate(best['dice_mean'], best['dice_low'], best['dice_high'])}**, {failures}."
    for other, row in [*networks.iloc[1:2].iterrows(), *floor.iterrows()]:
        scores = patient_scores(metrics, [best["model"], row["model"]])
        gain = pairwise(scores, n_bootstrap, seed).iloc[0]
        found = {SUPPORTED: f"{name} is better", CONTRADICTED: f"{name} is worse", INCONCLUSIVE: "inconclusive"}
        title = f"{'Next' if other in networks.index else 'For comparison'}: {model_title(row['model'])}"
        difference = estimate(gain["difference"], gain["low"], gain["high"], "+.2f")
        answer = found[verdict(gain["low"], gain["high"], gain["patients"])]
        text += f" {title} {row['dice_mean']:.2f}; difference patient by patient {difference}: {answer}."
    return f"**Which network?** {text}"


def is_the_transformer_better(claims: pd.DataFrame) -> str:
    """Whether transformers are better than convolutional networks; ``claims`` from `claim_table`."""
    row = claims[(claims["model"] == ALL) & claims["claim"].str.startswith("Convolutional")].iloc[0]
    if not np.isfinite(row["difference"]):
        return f"**Is the transformer better?** Not compared: {row['counted']} ({' and '.join(KINDS)} are needed)."
    answer = {SUPPORTED: "No", CONTRADICTED: "Yes", INCONCLUSIVE: "Inconclusive"}[row["verdict"]]
    difference = estimate(row["difference"], row["low"], row["high"], "+.2f")
    return f"**Is the transformer better?** **{answer}.** {row['measured']}: {difference}, {row['counted']}."


def how_sure(ranks: Ranks, pairs: pd.DataFrame, places: pd.DataFrame) -> str:
    """Whether the networks differ, and how often the leader leads when patients are resampled."""
    if len(places) < 2:
        return "**How sure?** One network is compared with no other."
    if ranks.patients < MIN_PATIENTS:
        return (
            f"**How sure?** Inconclusive: {counted(ranks.patients, 'patient')}, {MIN_PATIENTS} are needed for a test."
        )
    differ = pairs[pairs["p_holm"] < ALPHA]
    named = ", ".join(f"{model_title(row.first)} and {model_title(row.second)}" for row in differ.itertuples())
    found = f"{len(differ)} of {len(pairs)} pairs differ ({named})" if len(differ) else "no pair differs, inconclusive"
    overall = f"Friedman p {p_value(ranks.p)}; " if np.isfinite(ranks.p) else ""
    stays = f"{model_title(places.index[0])} has the first rank in {100 * places.iloc[0, 0]:.0f} % of the resamples"
    return f"**How sure?** {overall}{found} (Wilcoxon, Holm, 5 %); {stays}."


def worst_classes(strata: pd.DataFrame, models: Sequence[str]) -> str:
    """Lesions of which diameter each network misses most; ``strata`` from `stratified`."""
    rows = strata[(strata["stratum"] == "diameter_class") & (strata["n_lesions"] > 0)]
    if rows.empty:
        return "**For which lesions does each fail?** There is no reference lesion in this cohort."
    parts = []
    for model in models:
        own = rows[rows["model"] == model]
        often = own[own["n_patients"] > 1]  # one patient shows little of a class
        worst = own.loc[(own if often.empty else often)["sensitivity"].idxmin()]
        share = estimate(worst["sensitivity"], worst["low"], worst["high"])
        n = f"{counted(worst['n_lesions'], 'lesion')} in {counted(worst['n_patients'], 'patient')}"
        parts.append(f"{model_title(model)} {worst['class']}, {share} detected, {n}")
    return f"**For which lesions does each fail?** Diameters with the lowest share detected: {'; '.join(parts)}."


def training_sets(cohort: Cohort, runs: pd.DataFrame) -> str:
    """On how many patients each fold was trained, and in which folds the selection set could choose nothing."""
    folds = sorted(runs["fold"].unique())
    sizes = {fold: len({case.patient for case in split(cohort, fold).training}) for fold in folds}
    least, most = min(sizes.values()), max(sizes.values())
    text = f"Each fold was trained on {counted(least, 'patient')}."
    if least < most:
        text = f"Each fold was trained on {least} to {most} patients."
    best = runs.groupby("fold")["selection_dice"].max()
    if empty := [f"fold {fold}" for fold in best.index[best == 0]]:
        choice = "epoch and threshold could not be chosen there"
        text += (
            f" {' and '.join(empty)}: the selection set has Dice 0.00 for every network, so it says nothing; {choice}."
        )
    return f"**On how many patients?** {text}"


def p_value(p: float) -> str:
    """A p-value with two digits, and a bound below 0.001."""
    return "< 0.001" if p < 0.001 else f"= {p:.2g}"


def counted(n: int, word: str) -> str:
    """A number with its word: 1 patient, 2 patients."""
    return f"{n} {word}" if n == 1 else f"{n} {word}s"
