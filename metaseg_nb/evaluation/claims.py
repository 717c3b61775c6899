"""The four claims of the Zürich study, each put to the data at hand."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from metaseg_nb.evaluation.comparison import MIN_PATIENTS
from metaseg_nb.evaluation.intervals import bootstrap_interval, percentiles
from metaseg_nb.evaluation.strata import weighted

SMALL = ("<5 mm", "5-10 mm")
TRANSFORMERS = ("unetr", "swin_unetr")
# Under this name stand the claims put to all networks together.
ALL = "all networks"


@dataclass(frozen=True)
class Claim:
    """A claim and what the data say: the mean difference it speaks of, above 0 where it is right."""

    words: str
    measured: str
    difference: float
    low: float
    high: float
    counted: str
    patients: int

    @property
    def verdict(self) -> str:
        """Whether the interval is on one side of 0."""
        if self.patients < MIN_PATIENTS or not np.isfinite([self.low, self.high]).all():
            return "cannot be said"
        if self.low > 0:
            return "holds here"
        return "is contradicted here" if self.high < 0 else "is not settled here"

    def __str__(self) -> str:
        if self.verdict == "cannot be said":
            return f"**{self.words}**: cannot be said from {self.counted}{self._too_few}."
        return (
            f"**{self.words}**: {self.verdict}. {self.measured}: {self.difference:+.2f} "
            f"(95 % interval {self.low:+.2f} to {self.high:+.2f}; {self.counted})."
        )

    @property
    def _too_few(self) -> str:
        return f" ({self.patients} on one side, {MIN_PATIENTS} are needed)" if 0 < self.patients < MIN_PATIENTS else ""


def claims_by_network(
    metrics: pd.DataFrame, lesions: pd.DataFrame, models: Sequence[str], n_bootstrap: int, seed: int
) -> dict[str, list[Claim]]:
    """`study_claims` of all networks together, under `ALL`, then of each alone, under its name.

    A convolutional network alone is compared with the transformers; a transformer alone has no such claim.
    """
    claims = {ALL: study_claims(metrics, lesions, n_bootstrap, seed)}
    for model in models:
        own, own_lesions = metrics[metrics["model"] == model], lesions[lesions["model"] == model]
        claims[model] = study_claims(own, own_lesions, n_bootstrap, seed)[:-1]
        if model not in TRANSFORMERS:
            with_transformers = metrics[metrics["model"].isin([model, *TRANSFORMERS])]
            claims[model].append(_convolution_against_transformer(with_transformers, n_bootstrap, seed))
    return claims


def claim_table(claims: Mapping[str, Sequence[Claim]]) -> pd.DataFrame:
    """A row per claim and network: ``model`` (`ALL` or one), the fields of `Claim`, ``verdict``."""
    rows = [{"model": model, **vars(claim), "verdict": claim.verdict} for model in claims for claim in claims[model]]
    return pd.DataFrame(rows)


def study_claims(metrics: pd.DataFrame, lesions: pd.DataFrame, n_bootstrap: int, seed: int) -> list[Claim]:
    """Answer the study's claims from all networks together.

    Each lesion and patient counts with its mean over the networks, so that no claim rests on one of
    them; intervals resample patients.

    Parameters
    ----------
    metrics : DataFrame
        A row per (``model``, ``case``), networks only.
    lesions : DataFrame
        From `classified` and `per_patient`, the same networks.
    """
    two_groups = (
        (
            "Lesions in the lower brain are harder",
            "Lesion-wise Dice, middle and superior thirds minus inferior third",
            lesions["third"].isin(["middle", "superior"]),
            lesions["third"] == "inferior",
            "dice",
        ),
        (
            "Small lesions are missed",
            "Share detected, lesions of 10 mm and more minus smaller ones",
            ~lesions["diameter_class"].isin(SMALL),
            lesions["diameter_class"].isin(SMALL),
            "detected",
        ),
    )
    return [
        *(_between_lesions(*claim, lesions, n_bootstrap, seed) for claim in two_groups),
        _missed_against_false(metrics, n_bootstrap, seed),
        _convolution_against_transformer(metrics, n_bootstrap, seed),
    ]


def _between_lesions(
    words: str,
    measured: str,
    easier: pd.Series,
    harder: pd.Series,
    column: str,
    lesions: pd.DataFrame,
    n_bootstrap: int,
    seed: int,
) -> Claim:
    n_models = max(1, lesions["model"].nunique())
    groups = {"easier": lesions[easier], "harder": lesions[harder]}
    sums = {name: weighted(group, column) for name, group in groups.items()}
    table = pd.concat(sums, axis=1).fillna(0).astype(float)

    def gap(rows: np.ndarray) -> np.ndarray:
        totals = table.to_numpy()[rows].sum(axis=-2)
        with np.errstate(invalid="ignore"):
            return totals[..., 0] / totals[..., 1] - totals[..., 2] / totals[..., 3]

    difference, low, high = _resampled(gap, len(table), n_bootstrap, seed)
    counts = [len(group) // n_models for group in groups.values()]
    counted = f"{counts[0]} against {counts[1]} lesions in {len(table)} patients"
    fewest = min(group["patient"].nunique() for group in groups.values())
    return Claim(words, measured, difference, low, high, counted, fewest)


def _resampled(
    statistic: Callable[[np.ndarray], np.ndarray], n: int, n_bootstrap: int, seed: int
) -> tuple[float, float, float]:
    """A statistic of all patients, and its 95 % bootstrap interval over the resamples in which it exists."""
    if n < 2:
        return (np.nan,) * 3
    low, high = percentiles(statistic(np.random.default_rng(seed).integers(n, size=(n_bootstrap, n))))
    return float(statistic(np.arange(n))), low, high


def _missed_against_false(metrics: pd.DataFrame, n_bootstrap: int, seed: int) -> Claim:
    counts = metrics.groupby("patient")[["n_missed", "n_false"]].mean()
    difference = counts["n_missed"] - counts["n_false"]
    return _mean_claim(
        "False negatives are more common than false positives",
        "Missed minus false lesions per patient",
        difference,
        f"{counts['n_missed'].mean():.1f} missed, {counts['n_false'].mean():.1f} false per patient, "
        f"{len(difference)} patients",
        (n_bootstrap, seed),
    )


def _convolution_against_transformer(metrics: pd.DataFrame, n_bootstrap: int, seed: int) -> Claim:
    kind = metrics["model"].isin(TRANSFORMERS)
    named = metrics.assign(kind=np.where(kind, "transformer", "cnn"))
    dice = named.pivot_table(index="patient", columns="kind", values="dice")
    paired = dice.reindex(columns=["cnn", "transformer"]).dropna()
    counted = f"{len(paired)} patients" if kind.any() and not kind.all() else "networks of one kind"
    return _mean_claim(
        "Convolutional networks are above transformers (UNETR)",
        "Dice of convolutional networks minus transformers",
        paired["cnn"] - paired["transformer"],
        counted,
        (n_bootstrap, seed),
    )


def _mean_claim(words: str, measured: str, difference: pd.Series, counted: str, resampling: tuple[int, int]) -> Claim:
    low, high = bootstrap_interval(difference, *resampling)
    mean = float(difference.mean()) if len(difference) else float("nan")
    return Claim(words, measured, mean, low, high, counted, len(difference))
