"""The four claims of the Zürich study, tested on this cohort: for all networks together, and for each."""

from collections.abc import Mapping

import pandas as pd

from metaseg_nb.cohort.lesions import DIAMETER_NAMES, THIRDS
from metaseg_nb.evaluation.intervals import MIN_PATIENTS, share_difference, verdict
from metaseg_nb.evaluation.strata import weighted

SMALL = DIAMETER_NAMES[:2]
KINDS = ("convolutional", "transformer")
# By their names in `training.networks`; all others are convolutional.
TRANSFORMERS = ("unetr", "swin_unetr")
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
        claims = [_lower_brain(found), _small_lesions(found), _more_missed_than_false(own)]
        if name not in transformers:
            claims.append(_by_kind(metrics[metrics["model"].isin([*models, *transformers])], kinds))
        for claim, measured, counted, first, second in claims:
            patients = min(len(first), len(second))
            difference, low, high = share_difference(first, second, n_bootstrap, seed)
            answer = verdict(low, high, patients, "supported", "contradicted")
            rows.append((name, claim, measured, difference, low, high, counted, patients, answer))
    columns = ["model", "claim", "measured", "difference", "low", "high", "counted", "patients", "verdict"]
    return pd.DataFrame(rows, columns=columns)


def _lower_brain(lesions: pd.DataFrame) -> Claim:
    measured = "Dice per reference lesion, middle and superior thirds minus inferior third"
    placed = lesions[lesions["third"].isin(THIRDS)]
    groups = _lesion_groups(placed, placed["third"] == THIRDS[0], "dice")
    return "Lesions in the lower brain are harder", measured, *groups


def _small_lesions(lesions: pd.DataFrame) -> Claim:
    measured = "Share detected, lesions of 10 mm and more minus smaller ones"
    groups = _lesion_groups(lesions, lesions["diameter_class"].isin(SMALL), "detected")
    return "Small lesions are missed", measured, *groups


def _lesion_groups(lesions: pd.DataFrame, harder: pd.Series, column: str) -> tuple[str, pd.DataFrame, pd.DataFrame]:
    """How many lesions were counted, and the easier and the harder ones, patient by patient."""
    first, second = weighted(lesions[~harder], column), weighted(lesions[harder], column)
    n_models = max(1, lesions["model"].nunique())
    n_patients, fewest = lesions["patient"].nunique(), min(len(first), len(second))
    counted = f"{(~harder).sum() // n_models} against {harder.sum() // n_models} lesions in {n_patients} patients"
    if fewest < MIN_PATIENTS:
        counted += f" ({fewest} patients in one group, {MIN_PATIENTS} are needed)"
    return counted, first, second


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
