"""The four claims of the Zürich study, each tested on the data at hand."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from metaseg_nb.evaluation.comparison import MIN_PATIENTS, verdict
from metaseg_nb.evaluation.intervals import bootstrap_interval, percentiles
from metaseg_nb.evaluation.strata import weighted
from metaseg_nb.training.networks import TRANSFORMERS

SMALL = ("<5 mm", "5-10 mm")
KINDS = ("convolutional", "transformer")
# Under this name stand the claims for the mean over all networks.
ALL = "all networks"


def network_kinds(runs: pd.DataFrame) -> dict[str, str]:
    """Kind of each model, from the ``network`` that its parameter file names; ``runs`` from `pool`."""
    networks = runs.drop_duplicates("model").set_index("model")["network"]
    return {model: KINDS[network in TRANSFORMERS] for model, network in networks.items()}


def claim_table(
    metrics: pd.DataFrame, lesions: pd.DataFrame, kinds: Mapping[str, str], n_bootstrap: int, seed: int
) -> pd.DataFrame:
    """Test the claims for all networks together, then for each alone.

    Each lesion and patient counts with its mean over the networks; intervals resample patients. A convolutional
    network alone is compared with the transformers; a transformer alone has no such row.

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
    resampling, rows = (n_bootstrap, seed), []
    for name, models in {ALL: list(kinds), **{model: [model] for model in kinds}}.items():
        own, found = metrics[metrics["model"].isin(models)], lesions[lesions["model"].isin(models)]
        claims = [_lower_brain(found, *resampling), _small(found, *resampling), _missed_against_false(own, *resampling)]
        if name not in transformers:
            compared = metrics[metrics["model"].isin([*models, *transformers])]
            claims.append(_by_kind(compared, kinds, *resampling))
        rows += [{"model": name, **claim} for claim in claims]
    table = pd.DataFrame(rows)
    verdicts = [verdict(row.low, row.high, row.patients) for row in table.itertuples()]
    return table.assign(verdict=verdicts)


def _lower_brain(lesions: pd.DataFrame, n_bootstrap: int, seed: int) -> dict:
    groups = lesions["third"].isin(["middle", "superior"]), lesions["third"] == "inferior"
    measured = "Dice per reference lesion, middle and superior thirds minus inferior third"
    claim = {"claim": "Lesions in the lower brain are harder", "measured": measured}
    return claim | _between(*(lesions[group] for group in groups), "dice", n_bootstrap, seed)


def _small(lesions: pd.DataFrame, n_bootstrap: int, seed: int) -> dict:
    small = lesions["diameter_class"].isin(SMALL)
    measured = "Share detected, lesions of 10 mm and more minus smaller ones"
    claim = {"claim": "Small lesions are missed", "measured": measured}
    return claim | _between(lesions[~small], lesions[small], "detected", n_bootstrap, seed)


def _between(easier: pd.DataFrame, harder: pd.DataFrame, column: str, n_bootstrap: int, seed: int) -> dict:
    """Difference between two groups of lesions; patients are resampled with all their lesions."""
    groups = {"easier": easier, "harder": harder}
    sums = pd.concat({name: weighted(group, column) for name, group in groups.items()}, axis=1).fillna(0).astype(float)

    def gap(rows: np.ndarray) -> np.ndarray:
        totals = sums.to_numpy()[rows].sum(axis=-2)
        with np.errstate(invalid="ignore"):
            return totals[..., 0] / totals[..., 1] - totals[..., 2] / totals[..., 3]

    n, n_models = len(sums), max(1, pd.concat(groups)["model"].nunique())
    counted = " against ".join(str(len(group) // n_models) for group in groups.values()) + f" lesions in {n} patients"
    fewest = min(group["patient"].nunique() for group in groups.values())
    if fewest < MIN_PATIENTS:
        counted += f" ({fewest} patients in one group, {MIN_PATIENTS} are needed)"
    facts = {"difference": np.nan, "low": np.nan, "high": np.nan, "counted": counted, "patients": fewest}
    if n > 1:
        low, high = percentiles(gap(np.random.default_rng(seed).integers(n, size=(n_bootstrap, n))))
        facts |= {"difference": float(gap(np.arange(n))), "low": low, "high": high}
    return facts


def _missed_against_false(metrics: pd.DataFrame, n_bootstrap: int, seed: int) -> dict:
    counts = metrics.groupby("patient")[["n_missed", "n_false"]].mean()
    missed, false = counts.mean()
    return {
        "claim": "False negatives are more common than false positives",
        "measured": "Missed minus false lesions per patient",
        **_mean(counts["n_missed"] - counts["n_false"], n_bootstrap, seed),
        "counted": f"{missed:.1f} missed, {false:.1f} false per patient, {len(counts)} patients",
    }


def _by_kind(metrics: pd.DataFrame, kinds: Mapping[str, str], n_bootstrap: int, seed: int) -> dict:
    kind = metrics["model"].map(kinds)
    dice = metrics.assign(kind=kind).pivot_table(index="patient", columns="kind", values="dice")
    paired = dice.reindex(columns=KINDS).dropna()
    return {
        "claim": "Convolutional networks are better than transformers",
        "measured": "Dice of convolutional networks minus transformers",
        **_mean(paired["convolutional"] - paired["transformer"], n_bootstrap, seed),
        "counted": f"{len(paired)} patients" if kind.nunique() == len(KINDS) else "networks of one kind",
    }


def _mean(difference: pd.Series, n_bootstrap: int, seed: int) -> dict:
    if difference.empty:
        return {"difference": np.nan, "low": np.nan, "high": np.nan, "patients": 0}
    low, high = bootstrap_interval(difference, n_bootstrap, seed)
    return {"difference": float(difference.mean()), "low": low, "high": high, "patients": len(difference)}
