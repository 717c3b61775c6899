"""Quality of probabilities: detection at every threshold (FROC), calibration, and uncertainty of patients.

Detection and calibration count alike: a table has a row for each threshold, or bin of probabilities, of each case.
"""

from collections.abc import Sequence
from functools import partial
from itertools import product

import numpy as np
import pandas as pd

from metaseg_nb.evaluation.comparison import Estimate, bootstrap
from metaseg_nb.evaluation.lesion_metrics import detection_counts
from metaseg_nb.evaluation.voxel_metrics import Spacing

THRESHOLDS = (*np.arange(5, 100, 5) / 100, 0.99)
# False lesions per patient at which curves are usually read: Setio et al. 2017 (Med. Image Anal. 42:1), LUNA16.
FALSE_RATES = (0.125, 0.25, 0.5, 1, 2, 4, 8)
COUNTS = ["n_truth", "n_detected", "n_false"]
N_BINS = 20
# The lowest bin is left out: millions of clear background voxels would make every network look calibrated.
FIRST_BIN = 1
SUMS = ["n_voxels", "probability_sum", "n_lesion"]
# A patient is a failure below this Dice.
FAILURE_DICE = 0.5
PROBABILITY_SCORES = ("average_precision", "ece", "auroc")


def detections_by_threshold(
    truth: np.ndarray, probability: np.ndarray, spacing_mm: Spacing, thresholds: Sequence[float] = THRESHOLDS
) -> pd.DataFrame:
    """Count detected and false lesions of a case at each threshold, matched as in `lesion_metrics`.

    Parameters
    ----------
    truth : ndarray of bool, shape (X, Y, Z)
    probability : ndarray, shape (X, Y, Z)
        Or any map that grows with confidence.
    spacing_mm : tuple of 3 floats
    thresholds : sequence of float
        A voxel that reaches one is lesion.

    Returns
    -------
    DataFrame
        A row per threshold: ``threshold``, ``n_truth``, ``n_detected``, ``n_false``.
    """
    counts = [detection_counts(truth, probability >= threshold, spacing_mm) for threshold in thresholds]
    return pd.DataFrame(counts).assign(threshold=thresholds)[["threshold", *COUNTS]]


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


def froc(detections: pd.DataFrame) -> pd.DataFrame:
    """FROC curves of all networks; a patient's cases are averaged first, as in the leaderboard.

    Parameters
    ----------
    detections : DataFrame
        A row per (``model``, case, ``threshold``): ``patient``, ``n_truth``, ``n_detected``, ``n_false``.

    Returns
    -------
    DataFrame
        A row per (``model``, ``threshold``), from high to low: ``sensitivity`` (share of all lesions),
        ``false_per_patient``, ``precision`` (1 where nothing is predicted), and the counts, summed over patients.

    References
    ----------
    Free-response ROC: Bunch et al. 1978; Chakraborty 1989 (Med. Phys. 16:561).
    """
    tables = []
    for model, rows in detections.groupby("model", sort=False):
        thresholds, counts = _by_patient(rows)
        sensitivity, false, precision = _rates(counts.sum(axis=0), len(counts))
        table = pd.DataFrame(counts.sum(axis=0), columns=COUNTS).assign(model=model, threshold=thresholds)
        sensitivity = np.nan_to_num(sensitivity, nan=1.0)
        tables.append(table.assign(precision=precision, sensitivity=sensitivity, false_per_patient=false))
    return pd.concat(tables, ignore_index=True)


def _by_patient(detections: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Thresholds from high to low, and `COUNTS`, means over each patient's cases, as (patient, threshold, count)."""
    means = detections.pivot_table(COUNTS, "patient", "threshold", fill_value=0)[COUNTS]
    counts = means.to_numpy().reshape(len(means), len(COUNTS), -1).transpose(0, 2, 1)[:, ::-1]
    return means.columns.levels[1].to_numpy()[::-1], counts


def _rates(sums: np.ndarray, n_patients: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sensitivity (NaN without lesions), false lesions per patient, precision; ``sums`` has `COUNTS` last."""
    truth, detected, false = np.moveaxis(sums.astype(float), -1, 0)
    with np.errstate(invalid="ignore"):
        sensitivity = detected / truth
        precision = np.nan_to_num(detected / (detected + false), nan=1.0)
    return sensitivity, false / n_patients, precision


def froc_points(detections: pd.DataFrame, models: Sequence[str], n_bootstrap: int, seed: int) -> pd.DataFrame:
    """Highest sensitivity with no more than a given number of false lesions per patient, with its interval.

    The threshold is chosen again in each resample of patients.

    Parameters
    ----------
    detections : DataFrame
        As of `froc`.
    models : sequence of str

    Returns
    -------
    DataFrame
        A row per (``model``, ``false_per_patient`` of `FALSE_RATES`): ``patients``, ``lesions`` (all), ``sensitivity``
        with ``low``, ``high`` (95 % bootstrap interval; NaN below two patients). 0 where every threshold has more
        false lesions.
    """
    rows = []
    for model in models:
        of_model = detections[detections["model"] == model]
        lesions = int(of_model.loc[of_model["threshold"] == of_model["threshold"].max(), "n_truth"].sum())
        _, counts = _by_patient(of_model)
        for rate in FALSE_RATES:
            highest = partial(_highest_sensitivity, n_patients=len(counts), rate=rate)
            rows.append((model, rate, len(counts), lesions, *bootstrap(highest, counts, n_bootstrap, seed)))
    columns = ["model", "false_per_patient", "patients", "lesions", "sensitivity", "low", "high"]
    return pd.DataFrame(rows, columns=columns)


def _highest_sensitivity(sums: np.ndarray, n_patients: int, rate: float) -> np.ndarray:
    sensitivity, false, _ = _rates(sums, n_patients)
    return np.where(false <= rate, sensitivity, 0 * sensitivity).max(axis=-1)


def operating_points(found: pd.DataFrame, models: Sequence[str], n_bootstrap: int, seed: int) -> pd.DataFrame:
    """What each operating point finds, and what it costs in false lesions.

    Parameters
    ----------
    found : DataFrame
        A row per (``model``, case, ``operating_point``): ``patient`` and `COUNTS`. A patient's cases are averaged.
    models : sequence of str

    Returns
    -------
    DataFrame
        A row per (``model``, ``operating_point``): ``patients``, ``sensitivity`` (share of all lesions) and
        ``false_per_patient``, each with ``_low``, ``_high`` (95 % bootstrap interval over patients).
    """
    rows = []
    for model, point in product(models, found["operating_point"].unique()):
        cases = found[(found["model"] == model) & (found["operating_point"] == point)]
        counts = cases.groupby("patient")[COUNTS].mean().to_numpy()
        rates = partial(_rates, n_patients=len(counts))
        sensitivity = bootstrap(lambda sums, rates=rates: rates(sums)[0], counts, n_bootstrap, seed)
        false = bootstrap(lambda sums, rates=rates: rates(sums)[1], counts, n_bootstrap, seed)
        rows.append((model, point, len(counts), *sensitivity, *false))
    estimates = [name + end for name in ("sensitivity", "false_per_patient") for end in ("", "_low", "_high")]
    return pd.DataFrame(rows, columns=["model", "operating_point", "patients", *estimates])


def average_precision(detections: pd.DataFrame, n_bootstrap: int, seed: int) -> Estimate:
    """Average precision of one network with its 95 % bootstrap interval over patients; NaN without lesions.

    The area under precision over sensitivity, in steps: each gain in sensitivity counts with its precision, and
    lesions that no threshold finds with precision 0, as in picai_eval (Saha et al. 2024, Lancet Oncol. 25:879).
    """

    def area(sums: np.ndarray) -> np.ndarray:
        sensitivity, _, precision = _rates(sums, 1)
        # a lower threshold can join two lesions' predictions or lose none: only gains are counted
        best = np.maximum.accumulate(sensitivity, axis=-1)
        return (np.diff(best, prepend=0.0, axis=-1) * precision).sum(axis=-1)

    _, counts = _by_patient(detections)
    return bootstrap(area, counts, n_bootstrap, seed)


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
    probability, observed = sums["probability_sum"] / sums["n_voxels"], sums["n_lesion"] / sums["n_voxels"]
    return sums[["n_voxels"]].assign(probability=probability, observed=observed).reset_index()


def calibration_error(calibration: pd.DataFrame, n_bootstrap: int, seed: int) -> Estimate:
    """Expected calibration error of one network with its 95 % bootstrap interval over patients.

    The error is the mean gap between predicted probability and observed share, over voxels; NaN where no voxel has a
    probability that counts. The interval (NaN below two patients) lies rather too high than too low: resampling adds
    noise to each bin, and a gap has no sign.
    """

    def error(sums: np.ndarray) -> np.ndarray:
        voxels, predicted, lesion = np.moveaxis(sums, 1, 0)
        with np.errstate(invalid="ignore"):
            return np.abs(predicted - lesion).sum(axis=-1) / voxels.sum(axis=-1)

    rows = calibration[calibration["bin"] >= FIRST_BIN]
    sums = rows.pivot_table(SUMS, "patient", "bin", aggfunc="sum", fill_value=0)[SUMS]
    return bootstrap(error, sums.to_numpy().reshape(len(sums), len(SUMS), -1), n_bootstrap, seed)


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
    rows = calibration[(calibration["bin"] >= FIRST_BIN) & (calibration["n_voxels"] > 0)]
    p = (rows["probability_sum"] / rows["n_voxels"]).clip(1e-9, 1 - 1e-9)
    bits = (-p * np.log2(p) - (1 - p) * np.log2(1 - p)) * rows["n_voxels"]
    sums = rows.assign(bits=bits).groupby(["model", "patient"])[["bits", "n_voxels"]].sum()
    uncertainty = sums["bits"] / sums["n_voxels"]
    dice = scores.rename_axis("patient").reset_index().melt("patient", var_name="model", value_name="dice")
    own = pd.MultiIndex.from_frame(dice[["model", "patient"]])
    return dice.assign(uncertainty=uncertainty.reindex(own, fill_value=0.0).to_numpy())


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
    rows = []
    for model in models:
        detections, calibration, own = (table[table["model"] == model] for table in (*results, patients))
        unsure, failed = own["uncertainty"].to_numpy(), (own["dice"] < FAILURE_DICE).to_numpy()
        precision = average_precision(detections, n_bootstrap, seed)
        error = calibration_error(calibration, n_bootstrap, seed)
        flagging = area_under_roc(unsure, failed, n_bootstrap, seed)
        rows.append((model, *precision, len(own), int(failed.sum()), *error, *flagging))
    precision, error, flagging = ([name, f"{name}_low", f"{name}_high"] for name in PROBABILITY_SCORES)
    return pd.DataFrame(rows, columns=["model", *precision, "patients", "failures", *error, *flagging])


def area_under_roc(score: np.ndarray, positive: np.ndarray, n_bootstrap: int, seed: int) -> Estimate:
    """Chance that a positive scores higher than a negative, ties counting half, with its 95 % interval.

    NaN without one of each.

    References
    ----------
    Mann & Whitney 1947; Hanley & McNeil 1982 (Radiology 143:29).
    """
    score, positive = np.asarray(score, float), np.asarray(positive, bool)
    higher = (1 + np.sign(score[positive, None] - score[~positive])) / 2

    def area(times: np.ndarray) -> np.ndarray:  # how often each patient is drawn
        of_positive, of_negative = times[:, positive], times[:, ~positive]
        with np.errstate(invalid="ignore"):
            won = ((of_positive @ higher) * of_negative).sum(axis=1)
            return won / (of_positive.sum(axis=1) * of_negative.sum(axis=1))

    return bootstrap(area, np.eye(len(score)), n_bootstrap, seed)
