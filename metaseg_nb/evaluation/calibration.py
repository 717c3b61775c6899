"""Whether probabilities are right (calibration), and whether doubt tells where a network fails."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from metaseg_nb.evaluation.detection import average_precision
from metaseg_nb.evaluation.intervals import (
    Estimate,
    bootstrap,
    estimate,
    named,
    of_each_patient,
    percentiles,
    times_drawn,
)

N_BINS = 20
# The lowest bin is left out: millions of clear background voxels would make every network look calibrated.
FIRST_BIN = 1
SUMS = ["n_voxels", "probability_sum", "n_lesion"]
# A patient is a failure below this Dice.
FAILURE_DICE = 0.5
# With fewer failures, or fewer successes, chance alone separates the two too often.
FEWEST = 5


def probability_bins(probability: np.ndarray, truth: np.ndarray) -> pd.DataFrame:
    """Count voxels and lesion voxels by probability, in `N_BINS` bins of equal width.

    Parameters
    ----------
    probability : ndarray, shape (X, Y, Z)
        0 to 1.
    truth : ndarray of bool, shape (X, Y, Z)

    Returns
    -------
    DataFrame
        A row per bin: ``bin`` (0 to N_BINS - 1), ``n_voxels``, ``probability_sum``, ``n_lesion``.
    """
    flat = np.asarray(probability, dtype=np.float64).ravel()
    bins = np.minimum((flat * N_BINS).astype(int), N_BINS - 1)
    weights = (None, flat, np.asarray(truth).ravel().astype(float))
    sums = [np.bincount(bins, weight, minlength=N_BINS) for weight in weights]
    table = pd.DataFrame(dict(zip(SUMS, sums, strict=True))).astype({"n_lesion": int})
    return table.rename_axis("bin").reset_index()


def reliability(calibration: pd.DataFrame) -> pd.DataFrame:
    """Reliability diagrams of all networks; a patient's cases are averaged, then patients are pooled.

    Parameters
    ----------
    calibration : DataFrame
        A row per (``model``, case, ``bin``), from `probability_bins`, with ``patient``.

    Returns
    -------
    DataFrame
        A row per (``model``, ``bin``) that has voxels, from probability 1 / N_BINS on: ``n_voxels``,
        ``probability`` (mean predicted), ``observed`` (share that is lesion).

    References
    ----------
    Guo et al. 2017 (ICML, arXiv:1706.04599).
    """
    patients = calibration.groupby(["model", "patient", "bin"], sort=False, as_index=False)[SUMS].mean()
    sums = _not_ruled_out(patients.groupby(["model", "bin"], sort=False, as_index=False)[SUMS].sum())
    probability, observed = sums["probability_sum"] / sums["n_voxels"], sums["n_lesion"] / sums["n_voxels"]
    table = sums[["model", "bin", "n_voxels"]].assign(probability=probability, observed=observed)
    return table.sort_values("bin", kind="stable", ignore_index=True)


def _not_ruled_out(calibration: pd.DataFrame) -> pd.DataFrame:
    return calibration[(calibration["bin"] >= FIRST_BIN) & (calibration["n_voxels"] > 0)]


def calibration_error(calibration: pd.DataFrame, n_bootstrap: int, seed: int) -> Estimate:
    """Expected calibration error of one network with its 95 % bootstrap interval over patients.

    The error is the mean gap between predicted probability and observed share, over voxels, a patient's cases being
    averaged; NaN where no voxel has a probability that counts. The interval (NaN below two patients) lies rather too
    high than too low: resampling adds noise to each bin, and a gap has no sign.
    """

    def error(sums: np.ndarray) -> np.ndarray:
        voxels, predicted, lesion = np.moveaxis(sums, 1, 0)
        with np.errstate(invalid="ignore"):
            return np.abs(predicted - lesion).sum(axis=-1) / voxels.sum(axis=-1)

    rows = calibration[calibration["bin"] >= FIRST_BIN]
    return bootstrap(error, of_each_patient(rows, SUMS, "bin"), n_bootstrap, seed)


def patient_uncertainty(calibration: pd.DataFrame, scores: pd.DataFrame) -> pd.DataFrame:
    """How uncertain a network was in each patient, beside its Dice.

    Uncertainty is the mean entropy of the voxels that were not ruled out, in bits, 0 to 1; 0 where all were. Entropies
    are those of the bins' mean probabilities.

    Parameters
    ----------
    calibration : DataFrame
        As of `reliability`.
    scores : DataFrame
        From `patient_scores`.

    Returns
    -------
    DataFrame
        A row per (``model``, ``patient``): ``uncertainty``, ``dice``.

    References
    ----------
    Mehrtash et al. 2020 (IEEE TMI 39:3868): entropy averaged over a predicted segment predicts its Dice.
    """
    rows = _not_ruled_out(calibration)
    p = (rows["probability_sum"] / rows["n_voxels"]).clip(1e-9, 1 - 1e-9)
    bits = (-p * np.log2(p) - (1 - p) * np.log2(1 - p)) * rows["n_voxels"]
    sums = rows.assign(bits=bits).groupby(["model", "patient"])[["bits", "n_voxels"]].sum()
    uncertainty = sums["bits"] / sums["n_voxels"]
    dice = scores.rename_axis("patient").reset_index().melt("patient", var_name="model", value_name="dice")
    own = pd.MultiIndex.from_frame(dice[["model", "patient"]])
    return dice.assign(uncertainty=uncertainty.reindex(own, fill_value=0.0).to_numpy())


def probability_scores(
    detections: pd.DataFrame, calibration: pd.DataFrame, models: Sequence[str], n_bootstrap: int, seed: int
) -> pd.DataFrame:
    """Detection and calibration, from the probabilities of each network.

    Parameters
    ----------
    detections, calibration : DataFrame
        Of all networks, from `pool`.
    models : sequence of str
    n_bootstrap, seed
        Of the intervals.

    Returns
    -------
    DataFrame
        A row per network: ``model``, and each with ``_low``, ``_high``: ``average_precision``, ``ece`` (calibration
        error).
    """
    rows = []
    for model in models:
        found, of_bins = (table[table["model"] == model] for table in (detections, calibration))
        row = {"model": model, **named("average_precision", average_precision(found, n_bootstrap, seed))}
        rows.append(row | named("ece", calibration_error(of_bins, n_bootstrap, seed)))
    return pd.DataFrame(rows)


def flags_of_failures(
    patients: pd.DataFrame, score: str, models: Sequence[str], n_bootstrap: int, seed: int
) -> pd.DataFrame:
    """Whether a score is higher in the patients in whom a network fails.

    Parameters
    ----------
    patients : DataFrame
        A row per (``model``, ``patient``): ``dice``, and the score, such as ``uncertainty``.
    score : str
        Its column; who has none does not count.
    models : sequence of str
    n_bootstrap, seed
        Of the interval; resamples without a failure or without a success are passed over.

    Returns
    -------
    DataFrame
        A row per network that has scores: ``model``, ``patients``, ``failures`` (Dice below `FAILURE_DICE`),
        ``auroc`` with ``_low``, ``_high``: the chance that a failure scores higher than a success (`area_under_roc`),
        and ``answer``: whether the score is higher or lower in failures, in words.
    """
    rows, known = [], patients.dropna(subset=score)
    for model in models:
        own = known[known["model"] == model]
        failed = own["dice"] < FAILURE_DICE
        area = area_under_roc(own[score].to_numpy(), failed.to_numpy(), n_bootstrap, seed)
        row = {"model": model, "patients": len(own), "failures": failed.sum(), **named("auroc", area)}
        rows.append(row | {"answer": _in_words(failed.sum(), (~failed).sum(), area)})
    return pd.DataFrame(rows).query("patients > 0")


def _in_words(failures: int, successes: int, area: Estimate) -> str:
    """What an area under the ROC curve says of a score."""
    if failures == 0:
        return "no failures"
    if min(failures, successes) < FEWEST:
        return f"too few {'failures' if failures < FEWEST else 'successes'} to tell"
    _, low, high = area
    found = "higher in failures" if low > 0.5 else "lower in failures" if high < 0.5 else "not clearly different"
    return f"{found}, area under the ROC curve {estimate(*area)}"


def area_under_roc(score: np.ndarray, positive: np.ndarray, n_bootstrap: int, seed: int) -> Estimate:
    """Chance that a positive scores higher than a negative, ties counting half, with its 95 % interval.

    NaN without one of each. No interval (NaN) with fewer than `FEWEST` positives or negatives. It is widened for the
    number of the rarer ones (`percentiles`): with random scores and 5 of 10, 20 or 100 patients positive, it leaves
    0.5 out in 2, 2 and 3 % (simulated, 1,500 cohorts each), and not in 3, 5 and 10 % as for the number of patients.

    Parameters
    ----------
    score : ndarray of float, shape (N,)
        One of each patient.
    positive : ndarray of bool, shape (N,)
    n_bootstrap, seed : int
        Resamples of patients.

    References
    ----------
    Mann & Whitney 1947; Hanley & McNeil 1982 (Radiology 143:29).
    """
    score, positive = np.asarray(score, float), np.asarray(positive, bool)
    # scipy's `mannwhitneyu` takes no weights, so each resample would be a call; these are two matrix products for all
    higher = (1 + np.sign(score[positive, None] - score[~positive])) / 2

    def area(times: np.ndarray) -> np.ndarray:  # how often each patient is drawn
        of_positive, of_negative = times[:, positive], times[:, ~positive]
        with np.errstate(invalid="ignore"):
            won = ((of_positive @ higher) * of_negative).sum(axis=1)
            return won / (of_positive.sum(axis=1) * of_negative.sum(axis=1))

    found, rarer = float(area(np.ones((1, len(score))))[0]), min(positive.sum(), (~positive).sum())
    if rarer < FEWEST:
        return found, np.nan, np.nan
    return found, *percentiles(area(times_drawn(len(score), n_bootstrap, seed)), rarer)
