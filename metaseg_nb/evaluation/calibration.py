"""Whether probabilities are right, and whether uncertainty points to the patients in whom a network fails."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from metaseg_nb.evaluation.detection import area_under_roc, average_precision
from metaseg_nb.evaluation.intervals import percentiles, times_drawn

N_BINS = 20
# The lowest bin is left out: millions of clear background voxels would make every network look calibrated.
FIRST_BIN = 1
# A patient is a failure below this Dice.
FAILURE_DICE = 0.5
SUMS = ["n_voxels", "probability_sum", "n_lesion"]


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
    """Reliability diagrams of all networks; their cases are pooled.

    Parameters
    ----------
    calibration : DataFrame
        A row per (``model``, case, ``bin``), from `probability_bins`.

    Returns
    -------
    DataFrame
        A row per (``model``, ``bin``) that has voxels, from probability 1 / N_BINS on: ``n_voxels``,
        ``probability`` (mean predicted), ``observed`` (share that is lesion).

    References
    ----------
    Guo et al. 2017 (ICML, arXiv:1706.04599).
    """
    rows = calibration[(calibration["bin"] >= FIRST_BIN) & (calibration["n_voxels"] > 0)]
    sums = rows.groupby(["model", "bin"], sort=False)[SUMS].sum().sort_index(level="bin", sort_remaining=False)
    shares = {
        "probability": sums["probability_sum"] / sums["n_voxels"],
        "observed": sums["n_lesion"] / sums["n_voxels"],
    }
    return sums[["n_voxels"]].assign(**shares).reset_index()


def calibration_error(calibration: pd.DataFrame, n_bootstrap: int, seed: int) -> tuple[float, float, float]:
    """Expected calibration error of one network with its 95 % bootstrap interval over patients.

    The error is the mean gap between predicted probability and observed share, over voxels; NaN where no voxel has a
    probability that counts. The interval (NaN below two patients) lies rather too high than too low: resampling adds
    noise to each bin, and a gap has no sign.
    """
    rows = calibration[calibration["bin"] >= FIRST_BIN]
    n_patients = rows["patient"].nunique()
    tables = [rows.pivot_table(name, "patient", "bin", aggfunc="sum", fill_value=0).to_numpy() for name in SUMS]

    def error(drawn: np.ndarray) -> np.ndarray:
        voxels, predicted, lesion = (drawn @ table for table in tables)
        with np.errstate(invalid="ignore"):
            return np.abs(predicted - lesion).sum(axis=-1) / voxels.sum(axis=-1)

    found = float(error(np.ones(n_patients)))
    if n_patients < 2:
        return found, np.nan, np.nan
    return found, *percentiles(error(times_drawn(n_patients, n_bootstrap, seed)))


def uncertainty(calibration: pd.DataFrame) -> pd.Series:
    """How uncertain a network was in each patient: mean entropy of the voxels that it did not rule out, in bits.

    Parameters
    ----------
    calibration : DataFrame
        Of one network; entropies are those of the bins' mean probabilities.

    Returns
    -------
    Series
        0 to 1, by patient; 0 where every voxel was ruled out.

    References
    ----------
    Mehrtash et al. 2020 (IEEE TMI 39:3868): entropy averaged over a predicted segment predicts its Dice.
    """
    rows = calibration[calibration["bin"] >= FIRST_BIN]
    p = (rows["probability_sum"] / rows["n_voxels"].where(rows["n_voxels"] > 0)).clip(1e-9, 1 - 1e-9)
    bits = (-p * np.log2(p) - (1 - p) * np.log2(1 - p)) * rows["n_voxels"]
    sums = rows.assign(bits=bits.fillna(0)).groupby("patient")[["bits", "n_voxels"]].sum()
    return (sums["bits"] / sums["n_voxels"].where(sums["n_voxels"] > 0)).fillna(0.0)


def patient_uncertainty(calibration: pd.DataFrame, scores: pd.DataFrame) -> pd.DataFrame:
    """`uncertainty` beside Dice: ``model``, ``patient``, ``uncertainty``, ``dice``; ``scores`` a column per network."""
    tables = []
    for model in scores.columns:
        unsure, dice = uncertainty(calibration[calibration["model"] == model]), scores[model].dropna()
        table = pd.DataFrame({"uncertainty": unsure.reindex(dice.index), "dice": dice})
        tables.append(table.rename_axis("patient").reset_index().assign(model=model))
    return pd.concat(tables, ignore_index=True)


def probability_scores(
    results: tuple[pd.DataFrame, pd.DataFrame],
    patients: pd.DataFrame,
    models: Sequence[str],
    n_bootstrap: int,
    seed: int,
) -> pd.DataFrame:
    """Detection, calibration and flagging of failures, from the probabilities of each network.

    Parameters
    ----------
    results : pair of DataFrame
        ``detections`` and ``calibration`` of all networks.
    patients : DataFrame
        From `patient_uncertainty`.
    models : sequence of str
    n_bootstrap, seed
        Of the intervals; resamples without a failure or without a success are passed over.

    Returns
    -------
    DataFrame
        A row per network: ``model``, ``patients``, ``failures`` (Dice below `FAILURE_DICE`), and each with ``_low``,
        ``_high``: ``average_precision``, ``ece`` (calibration error), ``auroc`` (chance that a failure is less certain
        than a success; NaN without one of each).
    """
    detections, calibration = results
    rows = []
    for model in models:
        found, of_model, own = (table[table["model"] == model] for table in (detections, calibration, patients))
        failed = (own["dice"] < FAILURE_DICE).to_numpy()
        row = {
            "model": model,
            **_columns("average_precision", average_precision(found, n_bootstrap, seed)),
            "patients": len(own),
            "failures": int(failed.sum()),
            **_columns("ece", calibration_error(of_model, n_bootstrap, seed)),
            **_columns("auroc", _flagging(own["uncertainty"].to_numpy(), failed, n_bootstrap, seed)),
        }
        rows.append(row)
    return pd.DataFrame(rows)


def _columns(name: str, found: tuple[float, float, float]) -> dict[str, float]:
    return dict(zip((name, f"{name}_low", f"{name}_high"), found, strict=True))


def _flagging(unsure: np.ndarray, failed: np.ndarray, n_bootstrap: int, seed: int) -> tuple[float, float, float]:
    drawn = np.random.default_rng(seed).integers(len(failed), size=(n_bootstrap, len(failed)))
    return area_under_roc(unsure, failed), *percentiles(
        np.array([area_under_roc(unsure[rows], failed[rows]) for rows in drawn])
    )
