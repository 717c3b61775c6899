"""Means over patients, network by network: the leaderboard, mistakes, volumes, and what choosing the epoch did."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from metaseg_nb.cohort.datalist import read_written, require_written
from metaseg_nb.evaluation.comparison import pairwise, patient_scores
from metaseg_nb.evaluation.intervals import bootstrap_interval, bootstrap_ratio, mean_with_interval
from metaseg_nb.evaluation.metrics import METRICS
from metaseg_nb.layout import StudyLayout, home
from metaseg_nb.parameters import resolve


def make_leaderboard(metrics: pd.DataFrame, n_bootstrap: int, seed: int) -> pd.DataFrame:
    """Rank the networks by mean Dice over patients.

    A patient's cases are averaged first. A failure is a patient whose Dice is 0.
    ``lesion_sensitivity`` is the share of all lesions: a ratio of sums, as patients
    without lesions have none of their own.

    Parameters
    ----------
    metrics : DataFrame
        One row per (``model``, ``case``).
    n_bootstrap : int
        Resamples of patients for the 95 % intervals.
    seed : int

    Returns
    -------
    DataFrame
        Best first. ``model``, ``patients``, ``failures``; ``dice_mean``, ``dice_sd``, ``dice_median``,
        ``dice_low``, ``dice_high``; and for each of `METRICS` and ``false_per_patient`` its mean under its
        own name, with ``_sd``, ``_median``, ``_low``, ``_high``; ``lesion_sensitivity`` with ``_low``, ``_high``.
    """
    rows = [_row(model, cases, n_bootstrap, seed) for model, cases in metrics.groupby("model", sort=False)]
    return pd.DataFrame(rows).sort_values("dice_mean", ascending=False, ignore_index=True, kind="stable")


def with_costs(board: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """Add what each network costs: ``parameters`` and ``train_minutes``, the mean of its folds; NaN for the floor."""
    costs = runs.groupby("model").agg(parameters=("parameters", "first"), train_minutes=("train_seconds", "mean"))
    costs["train_minutes"] /= 60
    return board.merge(costs, how="left", left_on="model", right_index=True)


def selection_luck(
    metrics: pd.DataFrame, metrics_last: pd.DataFrame, models: Sequence[str], n_bootstrap: int, seed: int
) -> pd.DataFrame:
    """Dice of the weights of the chosen epoch beside that of the last epoch's, on the same patients.

    Returns
    -------
    DataFrame
        A row per network: ``model``, ``patients``, ``best``, ``last``, ``difference``
        (best minus last) with ``low``, ``high``. Below 0, the last epoch was better.
    """
    columns = ["model", "patients", "best", "last", "difference", "low", "high"]
    rows = []
    for model in models:
        both = {"best": metrics, "last": metrics_last}
        parts = (table[table["model"] == model].assign(model=name) for name, table in both.items())
        scores = patient_scores(pd.concat(parts), ["best", "last"])
        pair = pairwise(scores, n_bootstrap, seed).iloc[0]
        rows.append({"model": model, **scores.mean(), **pair[["patients", "difference", "low", "high"]]})
    return pd.DataFrame(rows, columns=columns)


def missed_and_false(metrics: pd.DataFrame, models: Sequence[str], n_bootstrap: int, seed: int) -> pd.DataFrame:
    """False negatives against false positives, per patient.

    Returns
    -------
    DataFrame
        A row per model: ``patients``; ``missed``, ``false`` (mean lesions per patient) and ``difference`` (missed
        minus false), each with ``_low``, ``_high`` (95 % bootstrap interval).
    """
    rows = []
    for model in models:
        counts = metrics[metrics["model"] == model].groupby("patient")[["n_missed", "n_false"]].mean()
        counts.columns = ["missed", "false"]
        counts["difference"] = counts["missed"] - counts["false"]
        rows.append({"model": model, "patients": len(counts)})
        for name, values in counts.items():
            rows[-1] |= mean_with_interval(name, values, n_bootstrap, seed)
    return pd.DataFrame(rows)


def patient_volumes(metrics: pd.DataFrame) -> pd.DataFrame:
    """Lesion volume of each (``model``, ``patient``), mean over cases.

    Columns in cm³: ``truth``, ``prediction``, ``difference`` (prediction minus truth) and ``mean`` of both.
    """
    columns = {"volume_truth_mm3": "truth", "volume_prediction_mm3": "prediction"}
    volumes = metrics.rename(columns=columns).groupby(["model", "patient"])[[*columns.values()]].mean() / 1000
    difference = volumes["prediction"] - volumes["truth"]
    return volumes.assign(difference=difference, mean=volumes.mean(axis=1)).reset_index()


def limits_of_agreement(volumes: pd.DataFrame, models: Sequence[str], n_bootstrap: int, seed: int) -> pd.DataFrame:
    """Bland and Altman's bias and 95 % limits of agreement of predicted against reference volume.

    Parameters
    ----------
    volumes : DataFrame
        From `patient_volumes`.

    Returns
    -------
    DataFrame
        A row per model: ``patients``, ``bias_cm3`` (prediction minus reference) with ``low``, ``high`` (95 %
        bootstrap interval), ``lower_cm3``, ``upper_cm3`` (bias ± 1.96 sd), ``limit_error_cm3`` (half-width of
        the 95 % interval of either limit). NaN for one patient.

    References
    ----------
    Bland & Altman 1986 (Lancet 327:307); intervals of the limits: 1999 (Stat. Methods Med. Res. 8:135).
    """
    rows = []
    for model in models:
        difference = volumes.loc[volumes["model"] == model, "difference"]
        n, bias, spread = len(difference), difference.mean(), 1.96 * difference.std()
        low, high = bootstrap_interval(difference, n_bootstrap, seed)
        limits = {"lower_cm3": bias - spread, "upper_cm3": bias + spread, "limit_error_cm3": np.sqrt(3 / n) * spread}
        rows.append({"model": model, "patients": n, "bias_cm3": bias, "low": low, "high": high, **limits})
    return pd.DataFrame(rows)


def summary(study: str) -> str:
    """What a finished study found, its leaderboard or its answers, and where its report is, as text for a terminal."""
    settings = resolve("06_annotation_budget", study)
    layout = StudyLayout(settings["study"])
    if not settings["arms"]:
        found = _as_text(read_written(layout, layout.leaderboard))
    else:
        require_written(layout, layout.annotation_answers)
        found = layout.annotation_answers.read_text(encoding="utf-8")
    return f"{found}\n\nreport: {(layout.report / 'index.html').relative_to(home())}"


def _as_text(table: pd.DataFrame) -> str:
    shown = table[["model", "patients", "failures"]].copy()
    shown["Dice (mean ± sd)"] = _pairs(table, "dice_mean", "dice_sd", "±")
    shown["95 % interval"] = _pairs(table, "dice_low", "dice_high", "to")
    shown["HD95 mm"] = table["hd95_mm"].map("{:.1f}".format)
    shown["false/patient"] = table["false_per_patient"].map("{:.1f}".format)
    return shown.to_string(index=False)


def _pairs(table: pd.DataFrame, first: str, second: str, between: str) -> list[str]:
    return [f"{a:.3f} {between} {b:.3f}" for a, b in zip(table[first], table[second], strict=True)]


def _row(model: str, cases: pd.DataFrame, n_bootstrap: int, seed: int) -> dict:
    columns = {"dice": "dice", **{name: name for name in METRICS}, "n_false": "false_per_patient"}
    patients = cases.groupby("patient")[[*columns, "n_truth", "n_detected"]].mean()
    row = {"model": model, "patients": len(patients), "failures": int((patients["dice"] == 0).sum())}
    for column, name in columns.items():
        values, found = patients[column], mean_with_interval(name, patients[column], n_bootstrap, seed)
        mean = {"dice_mean" if name == "dice" else name: found.pop(name)}
        row |= mean | {f"{name}_sd": values.std(), f"{name}_median": values.median()} | found
    return row | _sensitivity(patients[patients["n_truth"] > 0], n_bootstrap, seed)


def _sensitivity(patients: pd.DataFrame, n_bootstrap: int, seed: int) -> dict:
    low, high = bootstrap_ratio(patients["n_detected"], patients["n_truth"], n_bootstrap, seed)
    share = patients["n_detected"].sum() / patients["n_truth"].sum() if len(patients) else np.nan
    return {"lesion_sensitivity": share, "lesion_sensitivity_low": low, "lesion_sensitivity_high": high}
