"""Whether predictions have the right volume, and whether networks miss more than they invent."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from metaseg_nb.evaluation.intervals import bootstrap_interval


def volumes_cm3(metrics: pd.DataFrame, model: str) -> pd.DataFrame:
    """Lesion volume of each patient (mean over cases): ``truth``, ``prediction``, ``difference``, all in cm³."""
    columns = {"volume_truth_mm3": "truth", "volume_prediction_mm3": "prediction"}
    of_model = metrics[metrics["model"] == model].rename(columns=columns)
    volumes = of_model.groupby("patient")[["truth", "prediction"]].mean() / 1000
    return volumes.assign(difference=volumes["prediction"] - volumes["truth"])


def limits_of_agreement(metrics: pd.DataFrame, models: Sequence[str], n_bootstrap: int, seed: int) -> pd.DataFrame:
    """Bland and Altman's bias and 95 % limits of agreement of predicted against reference volume.

    Returns
    -------
    DataFrame
        A row per model: ``patients``, ``bias_cm3`` (prediction minus reference) with ``low``, ``high`` (95 %
        bootstrap interval), ``lower_cm3``, ``upper_cm3`` (bias ± 1.96 sd), ``limit_error_cm3`` (half-width of
        the 95 % interval of either limit). NaN where one patient says nothing of how patients differ.

    References
    ----------
    Bland & Altman 1986 (Lancet 327:307); intervals of the limits: 1999 (Stat. Methods Med. Res. 8:135).
    """
    rows = []
    for model in models:
        difference = volumes_cm3(metrics, model)["difference"]
        n, bias, spread = len(difference), difference.mean(), 1.96 * difference.std()
        low, high = bootstrap_interval(difference, n_bootstrap, seed)
        facts = {"patients": n, "bias_cm3": bias, "low": low, "high": high}
        limits = {"lower_cm3": bias - spread, "upper_cm3": bias + spread}
        rows.append({"model": model, **facts, **limits, "limit_error_cm3": np.sqrt(3 / n) * spread})
    return pd.DataFrame(rows)


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
        difference = counts["n_missed"] - counts["n_false"]
        row = {"model": model, "patients": len(counts)}
        for name, values in {
            "missed": counts["n_missed"],
            "false": counts["n_false"],
            "difference": difference,
        }.items():
            low, high = bootstrap_interval(values, n_bootstrap, seed)
            row |= {name: values.mean(), f"{name}_low": low, f"{name}_high": high}
        rows.append(row)
    return pd.DataFrame(rows)
