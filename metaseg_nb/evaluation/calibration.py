"""Whether probabilities mean what they say, and whether a network knows when it fails."""

import numpy as np
import pandas as pd

from metaseg_nb.evaluation.detection import area_under_roc, average_precision, average_precision_interval, froc
from metaseg_nb.evaluation.intervals import percentiles, times_drawn

# The lowest bin is left out: millions of voxels that nobody doubts would make every network look calibrated.
FIRST_BIN = 1
# A patient is a failure below this Dice.
FAILURE_DICE = 0.5


def reliability(calibration: pd.DataFrame) -> pd.DataFrame:
    """Pool the cases of one network into its reliability diagram.

    Parameters
    ----------
    calibration : DataFrame
        A row per (case, ``bin``), from `probability_bins`.

    Returns
    -------
    DataFrame
        A row per bin that has voxels, from probability 1 / N_BINS on: ``n_voxels``,
        ``probability`` (mean of what was said), ``observed`` (share that is lesion).

    References
    ----------
    Guo et al. 2017 (ICML, arXiv:1706.04599).
    """
    sums = calibration.groupby("bin")[["n_voxels", "probability_sum", "n_lesion"]].sum()
    sums = sums[(sums.index >= FIRST_BIN) & (sums["n_voxels"] > 0)]
    return pd.DataFrame(
        {
            "n_voxels": sums["n_voxels"],
            "probability": sums["probability_sum"] / sums["n_voxels"],
            "observed": sums["n_lesion"] / sums["n_voxels"],
        }
    ).reset_index()


def expected_calibration_error(diagram: pd.DataFrame) -> float:
    """Mean gap between said and observed over voxels; NaN where no voxel has a probability that counts."""
    if not len(diagram):
        return float("nan")
    gaps = (diagram["probability"] - diagram["observed"]).abs()
    return float(np.average(gaps, weights=diagram["n_voxels"]))


def calibration_error_interval(calibration: pd.DataFrame, n_bootstrap: int, seed: int) -> tuple[float, float]:
    """95 % bootstrap interval of `expected_calibration_error` of one network; NaN below two patients.

    Resamples add noise to each bin, and a gap has no sign: the interval lies rather too high than too low.
    """
    rows = calibration[calibration["bin"] >= FIRST_BIN]
    n_patients = rows["patient"].nunique()
    if n_patients < 2:
        return float("nan"), float("nan")
    drawn = times_drawn(n_patients, n_bootstrap, seed)
    voxels, said, lesion = (
        drawn @ rows.pivot_table(column, "patient", "bin", aggfunc="sum", fill_value=0).to_numpy()
        for column in ("n_voxels", "probability_sum", "n_lesion")
    )
    with np.errstate(invalid="ignore"):
        return percentiles(np.abs(said - lesion).sum(axis=1) / voxels.sum(axis=1))


def uncertainty(calibration: pd.DataFrame) -> pd.Series:
    """How unsure a network was of each patient: mean entropy of the voxels that it did not rule out, in bits.

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
    Mehrtash et al. 2020 (IEEE TMI 39:3868): entropy averaged over a predicted segment foretells its Dice.
    """
    rows = calibration[calibration["bin"] >= FIRST_BIN]
    p = (rows["probability_sum"] / rows["n_voxels"].where(rows["n_voxels"] > 0)).clip(1e-9, 1 - 1e-9)
    bits = (-p * np.log2(p) - (1 - p) * np.log2(1 - p)) * rows["n_voxels"]
    sums = rows.assign(bits=bits.fillna(0)).groupby("patient")[["bits", "n_voxels"]].sum()
    return (sums["bits"] / sums["n_voxels"].where(sums["n_voxels"] > 0)).fillna(0.0)


def flagging(calibration: pd.DataFrame, dice: pd.Series, n_bootstrap: int, seed: int) -> dict[str, float]:
    """Tell whether uncertainty flags the failures of one network.

    Parameters
    ----------
    calibration : DataFrame
        Of that network.
    dice : Series
        By patient.
    n_bootstrap, seed
        Of the interval: resamples of patients without a failure or without a success are passed over.

    Returns
    -------
    dict
        ``patients``, ``failures`` (Dice below `FAILURE_DICE`), ``ece`` with ``ece_low``, ``ece_high``, ``auroc``
        (chance that a failure is less sure than a success; NaN without one of each) with ``auroc_low``,
        ``auroc_high``.
    """
    unsure = uncertainty(calibration).reindex(dice.index).to_numpy()
    failed = (dice < FAILURE_DICE).to_numpy()
    drawn = np.random.default_rng(seed).integers(len(dice), size=(n_bootstrap, len(dice)))
    low, high = percentiles(np.array([area_under_roc(unsure[rows], failed[rows]) for rows in drawn]))
    ece_low, ece_high = calibration_error_interval(calibration, n_bootstrap, seed)
    return {
        "patients": len(dice),
        "failures": int(failed.sum()),
        "ece": expected_calibration_error(reliability(calibration)),
        "ece_low": ece_low,
        "ece_high": ece_high,
        "auroc": area_under_roc(unsure, failed),
        "auroc_low": low,
        "auroc_high": high,
    }


def know_failures(
    results: tuple[pd.DataFrame, pd.DataFrame], scores: pd.DataFrame, n_bootstrap: int, seed: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """`flagging` and average precision of every network, and each patient's uncertainty.

    Parameters
    ----------
    results : pair of DataFrame
        ``detections`` and ``calibration`` of all networks.
    scores : DataFrame
        Dice, a row per patient, a column per network.

    Returns
    -------
    flags : DataFrame
        A row per network: ``model``, ``average_precision`` with ``_low``, ``_high``, and the keys of `flagging`.
    patients : DataFrame
        ``model``, ``patient``, ``uncertainty``, ``dice``.
    """
    detections, calibration = results
    flags, patients = [], []
    for model in scores.columns:
        of_model, dice = calibration[calibration["model"] == model], scores[model].dropna()
        found = detections[detections["model"] == model]
        names = ("average_precision", "average_precision_low", "average_precision_high")
        precision = average_precision(froc(found)), *average_precision_interval(found, n_bootstrap, seed)
        flags.append(
            {"model": model, **dict(zip(names, precision, strict=True)), **flagging(of_model, dice, n_bootstrap, seed)}
        )
        known = {"uncertainty": uncertainty(of_model).reindex(dice.index), "dice": dice}
        patients.append(pd.DataFrame(known).rename_axis("patient").reset_index().assign(model=model))
    return pd.DataFrame(flags), pd.concat(patients, ignore_index=True)
