"""Conclusions of cross-validation: tests of the four claims of the Zürich study, and Markdown sentences."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from metaseg_nb.cohort.cases import Cohort
from metaseg_nb.cohort.folds import split
from metaseg_nb.evaluation.comparison import (
    ALPHA,
    INCONCLUSIVE,
    MIN_PATIENTS,
    Estimate,
    Ranks,
    bootstrap,
    estimate,
    pairwise,
    patient_scores,
    verdict,
)
from metaseg_nb.evaluation.leaderboard import weighted
from metaseg_nb.files import escaped
from metaseg_nb.parameters import model_title
from metaseg_nb.settings import THRESHOLD_MODEL as BASELINE
from metaseg_nb.training.networks import TRANSFORMERS

SMALL = ("<5 mm", "5-10 mm")
KINDS = ("convolutional", "transformer")
# Under this name stand the claims for the mean over all networks.
ALL = "all networks"
# A claim, what is measured, what was counted, and two groups: sums and numbers (``sum``, ``n``) of each patient.
Claim = tuple[str, str, str, pd.DataFrame, pd.DataFrame]


def network_kinds(runs: pd.DataFrame) -> dict[str, str]:
    """Kind of each model, from the ``network`` that its parameter file names; ``runs`` from `pool`."""
    networks = runs.drop_duplicates("model").set_index("model")["network"]
    return {model: KINDS[network in TRANSFORMERS] for model, network in networks.items()}


def claim_table(
    metrics: pd.DataFrame, lesions: pd.DataFrame, kinds: Mapping[str, str], n_bootstrap: int, seed: int
) -> pd.DataFrame:
    """Test the claims for all networks together, then for each alone.

    Each lesion and patient counts with its mean over the networks; intervals resample patients, and are not adjusted
    for the number of claims and networks. A convolutional network alone is compared with the transformers; a
    transformer alone has no such row.

    Parameters
    ----------
    metrics : DataFrame
        A row per (``model``, ``case``), networks only.
    lesions : DataFrame
        From `classified` and `per_patient`, the same networks.
    kinds : mapping
        Model to one of `KINDS`.

    Returns
    -------
    DataFrame
        A row per (``model``, claim), `ALL` first: ``claim``, ``measured`` (a difference; above 0
        it supports the claim), ``difference``, ``low``, ``high``, ``counted``, ``patients``, ``verdict``.
    """
    transformers = [model for model, kind in kinds.items() if kind == "transformer"]
    rows = []
    for name, models in {ALL: list(kinds), **{model: [model] for model in kinds}}.items():
        own, found = metrics[metrics["model"].isin(models)], lesions[lesions["model"].isin(models)]
        claims = [*_claims_on_lesions(found), _more_missed_than_false(own)]
        if name not in transformers:
            claims.append(_by_kind(metrics[metrics["model"].isin([*models, *transformers])], kinds))
        for claim, measured, counted, first, second in claims:
            patients = min(len(first), len(second))
            difference, low, high = _difference(first, second, n_bootstrap, seed)
            answer = verdict(low, high, patients, "supported", "contradicted")
            rows.append((name, claim, measured, difference, low, high, counted, patients, answer))
    columns = ["model", "claim", "measured", "difference", "low", "high", "counted", "patients", "verdict"]
    return pd.DataFrame(rows, columns=columns)


def _difference(first: pd.DataFrame, second: pd.DataFrame, n_bootstrap: int, seed: int) -> Estimate:
    """Mean of one group minus that of another, with its interval; patients are resampled with all their lesions."""
    sums = pd.concat([first, second], axis=1).fillna(0).to_numpy(float)

    def gap(totals: np.ndarray) -> np.ndarray:
        a, n_a, b, n_b = totals.T
        with np.errstate(invalid="ignore"):
            return a / n_a - b / n_b

    return bootstrap(gap, sums, n_bootstrap, seed)


def _claims_on_lesions(lesions: pd.DataFrame) -> list[Claim]:
    upper, lower = lesions["third"].isin(["middle", "superior"]), lesions["third"] == "inferior"
    small = lesions["diameter_class"].isin(SMALL)
    thirds = "Dice per reference lesion, middle and superior thirds minus inferior third"
    sizes = "Share detected, lesions of 10 mm and more minus smaller ones"
    claims: list[Claim] = []
    for claim, measured, easier, harder, column in (
        ("Lesions in the lower brain are harder", thirds, lesions[upper], lesions[lower], "dice"),
        ("Small lesions are missed", sizes, lesions[~small], lesions[small], "detected"),
    ):
        first, second = weighted(easier, column), weighted(harder, column)
        n_models = max(1, pd.concat([easier, harder])["model"].nunique())
        n_patients, fewest = len(first.index.union(second.index)), min(len(first), len(second))
        counted = f"{len(easier) // n_models} against {len(harder) // n_models} lesions in {n_patients} patients"
        if fewest < MIN_PATIENTS:
            counted += f" ({fewest} patients in one group, {MIN_PATIENTS} are needed)"
        claims.append((claim, measured, counted, first, second))
    return claims


def _more_missed_than_false(metrics: pd.DataFrame) -> Claim:
    counts = metrics.groupby("patient")[["n_missed", "n_false"]].mean()
    missed, false = counts.mean()
    return (
        "False negatives are more common than false positives",
        "Missed minus false lesions per patient",
        f"{missed:.1f} missed, {false:.1f} false per patient, {len(counts)} patients",
        _once_each(counts["n_missed"]),
        _once_each(counts["n_false"]),
    )


def _by_kind(metrics: pd.DataFrame, kinds: Mapping[str, str]) -> Claim:
    kind = metrics["model"].map(kinds)
    dice = metrics.assign(kind=kind).pivot_table(index="patient", columns="kind", values="dice")
    paired = dice.reindex(columns=list(KINDS)).dropna()
    return (
        "Convolutional networks are better than transformers",
        "Dice of convolutional networks minus transformers",
        f"{len(paired)} patients" if kind.nunique() == len(KINDS) else "networks of one kind",
        _once_each(paired["convolutional"]),
        _once_each(paired["transformer"]),
    )


def _once_each(values: pd.Series) -> pd.DataFrame:
    return pd.DataFrame({"sum": values, "n": 1.0})


def differing(ranks: Ranks, pairs: pd.DataFrame) -> pd.DataFrame:
    """Pairs of networks that differ: by Wilcoxon's test with Holm's correction, where Friedman's test says that any do.

    With two networks there is no Friedman test to pass.
    """
    return pairs[(pairs["p_holm"] < ALPHA) & (not ranks.p >= ALPHA)]


def which_network(
    board: pd.DataFrame,
    metrics: pd.DataFrame,
    cohort: str,
    ranks: Ranks,
    pairs: pd.DataFrame,
    n_bootstrap: int,
    seed: int,
) -> str:
    """Which network leads, whether it is better than the next and than the intensity threshold.

    It is better than the next one only where this pair is among the `differing` ones.

    Parameters
    ----------
    board : DataFrame
        The leaderboard, with the baseline.
    metrics : DataFrame
        A row per (``model``, ``case``), with the baseline.
    cohort : str
        Its name.
    ranks, pairs
        From `rank_test` and `pairwise`, of all networks.
    """
    networks, baseline = board[board["model"] != BASELINE], board[board["model"] == BASELINE]
    best, name = networks.iloc[0], model_title(networks["model"].iloc[0])
    equal = networks.loc[np.isclose(networks["dice_mean"], best["dice_mean"]), "model"].map(model_title)
    lead = f"{' and '.join(equal)} {'share' if len(equal) > 1 else 'has'} the highest mean Dice"
    if len(networks) == 1:
        lead = f"{name}, the only network, has this mean Dice"
    dice = estimate(best["dice_mean"], best["dice_low"], best["dice_high"])
    patients = f"{_counted(best['patients'], 'patient')} of the cohort *{escaped(cohort)}*"
    text = f"{lead}: **{dice}**, {patients}, {best['failures']} with Dice 0."
    certain = [{pair.first, pair.second} for pair in differing(ranks, pairs).itertuples()]
    others = [("Next", row) for _, row in networks.iloc[len(equal) :][:1].iterrows()]
    for place, row in [*others, *(("For comparison", row) for _, row in baseline.iterrows())]:
        scores = patient_scores(metrics, [best["model"], row["model"]])
        gain = pairwise(scores, n_bootstrap, seed).iloc[0]
        difference = estimate(gain["difference"], gain["low"], gain["high"], "+.2f")
        answer = verdict(gain["low"], gain["high"], gain["patients"], f"{name} is better", f"{name} is worse")
        if row["model"] != BASELINE and {best["model"], row["model"]} not in certain:
            answer = INCONCLUSIVE
        other = f"{place}: {model_title(row['model'])} {row['dice_mean']:.2f}"
        text += f" {other}; mean difference per patient {difference}: {answer}."
    return f"**Which network?** {text}"


def is_the_transformer_better(claims: pd.DataFrame) -> str:
    """Whether transformers are better than convolutional networks; ``claims`` from `claim_table`."""
    row = claims[(claims["model"] == ALL) & claims["claim"].str.startswith("Convolutional")].iloc[0]
    if not np.isfinite(row["difference"]):
        return f"**Is the transformer better?** Not compared: {row['counted']} ({' and '.join(KINDS)} are needed)."
    answer = {"supported": "No", "contradicted": "Yes"}.get(row["verdict"], "Inconclusive")
    difference = estimate(row["difference"], row["low"], row["high"], "+.2f")
    return f"**Is the transformer better?** **{answer}.** {row['measured']}: {difference}, {row['counted']}."


def how_sure(ranks: Ranks, pairs: pd.DataFrame, places: pd.DataFrame) -> str:
    """Whether the networks differ, and how often the leader leads when patients are resampled."""
    if len(places) < 2:
        return "**How sure?** There is only one network to compare."
    if ranks.patients < MIN_PATIENTS:
        few = _counted(ranks.patients, "patient")
        return f"**How sure?** Inconclusive: {few}, {MIN_PATIENTS} are needed for a test."
    differ = differing(ranks, pairs)
    named = ", ".join(f"{model_title(row.first)} and {model_title(row.second)}" for row in differ.itertuples())
    found = f"{len(differ)} of {len(pairs)} pairs differ ({named})" if len(differ) else "inconclusive, no pair differs"
    p = "< 0.001" if ranks.p < 0.001 else f"= {ranks.p:.2g}"
    overall = f"Friedman p {p}; " if np.isfinite(ranks.p) else ""
    stays = f"{model_title(places.index[0])} ranks first in {100 * places.iloc[0, 0]:.0f} % of the resamples"
    return f"**How sure?** {overall}{found} (Wilcoxon, Holm, 5 %); {stays}."


def worst_classes(strata: pd.DataFrame, models: Sequence[str]) -> str:
    """Lesions of which diameter each network misses most; ``strata`` from `all_strata`."""
    rows = strata[(strata["stratum"] == "diameter_class") & (strata["n_lesions"] > 0)]
    if rows.empty:
        return "**Which lesions does each network miss?** There is no reference lesion in this cohort."
    parts = []
    for model in models:
        own = rows[rows["model"] == model]
        often = own[own["n_patients"] > 1]  # one patient shows little of a class
        known = own if often.empty else often
        worst = own.loc[known["sensitivity"].idxmin()]
        if len(known) > 1 and np.ptp(known["sensitivity"]) == 0:
            parts.append(f"{model_title(model)}: {worst['sensitivity']:.2f} detected in every class")
            continue
        share = estimate(worst["sensitivity"], worst["low"], worst["high"])
        n = f"{_counted(worst['n_lesions'], 'lesion')} in {_counted(worst['n_patients'], 'patient')}"
        parts.append(f"{model_title(model)}: {worst['class']}, {share} detected, {n}")
    return f"**Which lesions does each network miss?** Diameters with the lowest share detected: {'; '.join(parts)}."


def training_sets(cohort: Cohort, runs: pd.DataFrame) -> str:
    """How many patients each fold was trained on, and in which folds all have Dice 0 on the selection set."""
    sizes = {len({case.patient for case in split(cohort, fold).training}) for fold in runs["fold"].unique()}
    number = _counted(min(sizes), "patient") if len(sizes) == 1 else f"{min(sizes)} to {max(sizes)} patients"
    text = f"**On how many patients?** Each fold was trained on {number}."
    best = runs.groupby("fold")["selection_dice"].max()
    if empty := [f"fold {fold}" for fold in best.index[best == 0]]:
        text += f" In {' and '.join(empty)} every network has Dice 0.00 on the selection set (threshold 0.50)."
    return text


def _counted(n: int, word: str) -> str:
    """A number with its word: 1 patient, 2 patients."""
    return f"{n} {word}" if n == 1 else f"{n} {word}s"
