"""Conclusions of cross-validation: claims of the Zürich study, tested on this cohort; and Markdown sentences.

The claims are tested for all networks together, and for each. The sentences hold the numbers of the tables.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from metaseg_nb.cohort.cases import Cohort
from metaseg_nb.cohort.folds import split
from metaseg_nb.cohort.lesions import DIAMETER_NAMES, THIRDS
from metaseg_nb.evaluation.comparison import ALPHA, pairwise, patient_scores
from metaseg_nb.evaluation.intervals import INCONCLUSIVE, MIN_PATIENTS, estimate, once_each, share_difference, verdict
from metaseg_nb.evaluation.strata import weighted
from metaseg_nb.files import escaped
from metaseg_nb.parameters import model_title
from metaseg_nb.settings import ALL
from metaseg_nb.settings import THRESHOLD_MODEL as BASELINE

SMALL = DIAMETER_NAMES[:2]
NETWORK_KINDS = ("convolutional", "transformer")
# By their names in `training.networks`; all others are convolutional.
TRANSFORMERS = ("unetr", "swin_unetr")
# Each claim, and what is measured.
LOWER_BRAIN = (
    "Lesions in the lower brain are harder",
    "Dice per reference lesion, middle and superior thirds minus inferior third",
)
SMALL_LESIONS = ("Small lesions are missed", "Share detected, lesions of 10 mm and more minus smaller ones")
MORE_MISSED = ("Missed lesions are more common than false lesions", "Missed minus false lesions per patient")
BY_KIND = ("Convolutional networks are better than transformers", "Dice of convolutional networks minus transformers")
# What was counted, and two groups: sums and numbers (``sum``, ``n``) of each patient.
Groups = tuple[str, pd.DataFrame, pd.DataFrame]


def network_kinds(runs: pd.DataFrame) -> dict[str, str]:
    """Kind of each model, from the ``network`` that its parameter file names; ``runs`` from `pool`."""
    networks = runs.drop_duplicates("model").set_index("model")["network"]
    return {model: NETWORK_KINDS[network in TRANSFORMERS] for model, network in networks.items()}


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
        Model to one of `NETWORK_KINDS`.

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
        placed = found[found["third"].isin(THIRDS)]
        claims = [
            (LOWER_BRAIN, _lesion_groups(placed, placed["third"] == THIRDS[0], "dice")),
            (SMALL_LESIONS, _lesion_groups(found, found["diameter_class"].isin(SMALL), "detected")),
            (MORE_MISSED, _mistakes(own)),
        ]
        if name not in transformers:
            claims.append((BY_KIND, _by_kind(metrics[metrics["model"].isin([*models, *transformers])], kinds)))
        for claim, (counted, first, second) in claims:
            patients = min(len(first), len(second))
            difference = share_difference(first, second, n_bootstrap, seed)
            answer = verdict(*difference[1:], patients, "supported", "contradicted")
            rows.append((name, *claim, *difference, counted, patients, answer))
    columns = ["model", "claim", "measured", "difference", "low", "high", "counted", "patients", "verdict"]
    return pd.DataFrame(rows, columns=columns)


def _lesion_groups(lesions: pd.DataFrame, harder: pd.Series, column: str) -> Groups:
    """The easier and the harder lesions."""
    first, second = weighted(lesions[~harder], column), weighted(lesions[harder], column)
    n_models = max(1, lesions["model"].nunique())
    n_patients, fewest = lesions["patient"].nunique(), min(len(first), len(second))
    counted = f"{(~harder).sum() // n_models} against {harder.sum() // n_models} lesions in {n_patients} patients"
    if fewest < MIN_PATIENTS:
        counted += f" ({fewest} patients in one group, {MIN_PATIENTS} are needed)"
    return counted, first, second


def _mistakes(metrics: pd.DataFrame) -> Groups:
    counts = metrics.groupby("patient")[["n_missed", "n_false"]].mean()
    missed, false = counts.mean()
    counted = f"{missed:.1f} missed, {false:.1f} false per patient, {len(counts)} patients"
    return counted, once_each(counts["n_missed"]), once_each(counts["n_false"])


def _by_kind(metrics: pd.DataFrame, kinds: Mapping[str, str]) -> Groups:
    kind = metrics["model"].map(kinds)
    dice = metrics.assign(kind=kind).pivot_table(index="patient", columns="kind", values="dice")
    paired = dice.reindex(columns=list(NETWORK_KINDS)).dropna()
    counted = f"{len(paired)} patients" if kind.nunique() == len(NETWORK_KINDS) else "networks of one kind"
    return counted, *(once_each(paired[kind]) for kind in NETWORK_KINDS)


def differing(ranks: pd.DataFrame, pairs: pd.DataFrame) -> dict[tuple[str, str], bool]:
    """Pairs of networks that differ, and whether the mean difference and the ranks point to different ones of them.

    They differ by Wilcoxon's test with Holm's correction, where Friedman's test says that any do. With two networks
    there is no Friedman test to pass.
    """
    differ = pairs[(pairs["p_holm"] < ALPHA) & (not ranks["p"].iloc[0] >= ALPHA)]
    at_odds = np.sign(differ["difference"]) != np.sign(differ["rank_biserial"])
    return dict(zip(zip(differ["first"], differ["second"], strict=True), at_odds, strict=True))


def which_network(
    board: pd.DataFrame,
    metrics: pd.DataFrame,
    cohort: str,
    ranks: pd.DataFrame,
    pairs: pd.DataFrame,
    n_bootstrap: int,
    seed: int,
) -> str:
    """Which network leads, whether it is better than the next and than the intensity threshold.

    It is better than the next one only where this pair is among the `differing` ones, and ranks and mean agree on which
    of both is better: ranks say how many patients it is better in, and the mean also by how much.

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
    dice = estimate(*best[["dice_mean", "dice_low", "dice_high"]])
    patients = f"{_counted(best['patients'], 'patient')} of the cohort *{escaped(cohort)}*"
    text = f"{lead}: **{dice}**, {patients}, {best['failures']} with Dice 0."
    differ = differing(ranks, pairs)
    following = networks[len(equal) :][:1].assign(place="Next")
    for row in pd.concat([following, baseline.assign(place="For comparison")]).itertuples():
        pair = best["model"], row.model
        at_odds = differ.get(pair, differ.get(pair[::-1]))  # None where they do not differ
        scores = patient_scores(metrics, pair)
        gain = pairwise(scores, n_bootstrap, seed).iloc[0]
        difference = estimate(*gain[["difference", "low", "high"]], form="+.2f")
        answer = verdict(gain["low"], gain["high"], gain["patients"], f"{name} is better", f"{name} is worse")
        if row.model != BASELINE and (at_odds is None or at_odds):
            answer = INCONCLUSIVE
        if at_odds:
            answer += f" ({name} is better in the mean, worse by ranks)"
        other = f"{row.place}: {model_title(row.model)} {row.dice_mean:.2f}"
        text += f" {other}; mean difference per patient {difference}: {answer}."
    return f"**Which network?** {text}"


def not_compared_alike(runs: pd.DataFrame) -> str:
    """Which networks decide at which operating point, if not all at the same; else empty. ``runs`` from `pool`."""
    of_point = runs.groupby("operating_point", sort=False)["model"].unique()
    if len(of_point) < 2:
        return ""
    which = "; ".join(f"{point}: {', '.join(map(model_title, models))}" for point, models in of_point.items())
    return (
        f"**Not compared alike.** The networks decide at different operating points ({which}). A part of their "
        "differences comes from that. To compare them alike, give all the same `operating_point`, and run 03 again."
    )


def is_the_transformer_better(claims: pd.DataFrame) -> str:
    """Whether transformers are better than convolutional networks; ``claims`` from `claim_table`."""
    row = claims[(claims["model"] == ALL) & (claims["claim"] == BY_KIND[0])].iloc[0]
    if not np.isfinite(row["difference"]):
        return (
            f"**Is the transformer better?** Not compared: {row['counted']} ({' and '.join(NETWORK_KINDS)} are needed)."
        )
    answer = {"supported": "No", "contradicted": "Yes"}.get(row["verdict"], "Inconclusive")
    difference = estimate(*row[["difference", "low", "high"]], form="+.2f")
    return f"**Is the transformer better?** **{answer}.** {row['measured']}: {difference}, {row['counted']}."


def what_would_help_the_transformer(runs: pd.DataFrame, scores: pd.DataFrame, n_bootstrap: int, seed: int) -> str:
    """What its token size, a convolutional stem and pretraining change, as far as this study can say.

    Parameters
    ----------
    runs : DataFrame
        From `pool`: ``model``, ``network``.
    scores : DataFrame
        From `patient_scores`, of all networks.
    """
    models = runs.drop_duplicates("network").set_index("network")["model"]
    tokens = "not studied here (add `swin_unetr` to `models`: its tokens have 2 voxels, those of UNETR 16)"
    if set(TRANSFORMERS) <= set(models.index):
        gain = pairwise(scores[[models["swin_unetr"], models["unetr"]]], n_bootstrap, seed).iloc[0]
        difference = estimate(*gain[["difference", "low", "high"]], form="+.2f")
        answer = verdict(gain["low"], gain["high"], gain["patients"], "smaller are better", "smaller are worse")
        tokens = f"Dice with 2 voxels (Swin UNETR) minus 16 (UNETR) {difference}: {answer}, but these differ in more"
    return (
        f"**What would help the transformer?** Smaller tokens: {tokens}. Pretraining: not studied here (notebook 06, "
        "arm `pretraining_25`). A convolutional stem: not part of this workbook."
    )


def how_sure(ranks: pd.DataFrame, pairs: pd.DataFrame, places: pd.DataFrame) -> str:
    """Whether the networks differ, and how often the leader leads when patients are resampled."""
    if len(places) < 2:
        return "**How sure?** There is only one network to compare."
    n, p = ranks[["patients", "p"]].iloc[0]
    if n < MIN_PATIENTS:
        few = _counted(int(n), "patient")
        return f"**How sure?** Inconclusive: {few}, {MIN_PATIENTS} are needed for a test."
    differ = differing(ranks, pairs)
    named = ", ".join(
        f"{model_title(first)} and {model_title(second)}{', in the mean the other way' if at_odds else ''}"
        for (first, second), at_odds in differ.items()
    )
    found = f"{len(differ)} of {len(pairs)} pairs differ ({named})" if len(differ) else "inconclusive, no pair differs"
    overall = f"Friedman p {'< 0.001' if p < 0.001 else f'= {p:.2g}'}; " if np.isfinite(p) else ""
    stays = f"{model_title(places.index[0])} ranks first in {100 * places.iloc[0, 0]:.0f} % of the resamples"
    return f"**How sure?** {overall}{found} (Wilcoxon, Holm, 5 %); {stays}."


def worst_classes(strata: pd.DataFrame, models: Sequence[str]) -> str:
    """Lesions of which diameter each network misses most; ``strata`` from `all_strata`."""
    rows = strata[(strata["stratum"] == "diameter_class") & (strata["n_lesions"] > 0)]
    if rows.empty:
        return "**Which lesions does each network miss?** There is no reference lesion in this cohort."
    of_class = defaultdict(list)
    for model in models:
        own = rows[rows["model"] == model]
        often = own[own["n_patients"] > 1]  # one patient shows little of a class
        known = own if often.empty else often
        worst = own.loc[known["sensitivity"].idxmin()]
        if len(known) > 1 and np.ptp(known["sensitivity"]) == 0:
            of_class["in every class"].append(f"{model_title(model)} {worst['sensitivity']:.2f}")
            continue
        n = f"{_counted(worst['n_lesions'], 'lesion')} in {_counted(worst['n_patients'], 'patient')}"
        share = estimate(*worst[["sensitivity", "low", "high"]])
        of_class[f"{worst['class']} ({n})"].append(f"{model_title(model)} {share}")
    parts = [f"{which}: {', '.join(shares)}" for which, shares in of_class.items()]
    return f"**Which lesions does each network miss?** Diameters with the lowest share detected: {'; '.join(parts)}."


def training_sets(cohort: Cohort, runs: pd.DataFrame) -> str:
    """How many patients each fold was trained on, and in which folds all have Dice 0 on the selection set."""
    sizes = {len({case.patient for case in split(cohort, fold).training}) for fold in runs["fold"].unique()}
    number = _counted(min(sizes), "patient") if len(sizes) == 1 else f"{min(sizes)} to {max(sizes)} patients"
    text = f"**On how many patients?** Each fold was trained on {number}."
    best = runs.groupby("fold")["selection_dice"].max()
    if empty := [f"fold {fold}" for fold in best.index[best == 0]]:
        text += f" In {' and '.join(empty)} every network has Dice 0.00 on the selection set (threshold 0.50)."
        text += " Nothing about these networks can be concluded from that, and what was chosen on it means nothing."
    return text


def known_and_new_sites(tested: pd.DataFrame, differences: pd.DataFrame) -> str:
    """How much better networks are at sites that they know; tables from `with_site_seen` and `site_differences`."""
    if tested.empty:
        return "No case has a site. Name it in the list, or in a column `site` of the patients table."
    if differences.empty:
        which, other = ("known", "site") if tested["site_seen"].iloc[0] else ("new", "patient")
        text = f"All patients are of {which} sites ({_counted(tested['site'].nunique(), 'site')})."
        return f"{text} To compare, name in `compared_study` the same study with `folds_by: {other}`."
    first = differences.iloc[0]
    who = "the same patients" if first["paired"] else "**different patients**, who may differ in more"
    lines = [
        f"- {model_title(row.model)}: known sites {row.seen:.2f}, new sites {row.unseen:.2f}, difference "
        f"{estimate(row.difference, row.low, row.high, '+.2f')}: "
        f"{verdict(row.low, row.high, min(row.n_seen, row.n_unseen), 'better at known sites', 'better at new sites')}"
        for row in differences.itertuples()
    ]
    numbers = f"known (n = {first['n_seen']}) and new sites (n = {first['n_unseen']})"
    sizes = f"on {first['training_seen']:.0f} patients (mean), the others on {first['training_unseen']:.0f}"
    trained = f"Networks that knew the site were trained {sizes}: a part of the difference may come from that."
    return "\n".join([f"Mean Dice of patients of {numbers}: {who}. {trained}\n", *lines])


def _counted(n: int, word: str) -> str:
    """A number with its word: 1 patient, 2 patients."""
    return f"{n} {word}" if n == 1 else f"{n} {word}s"
