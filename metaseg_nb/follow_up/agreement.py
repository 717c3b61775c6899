"""Does a network measure change? Its errors of growth, and its categories, against those of the reference."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from metaseg_nb.evaluation.intervals import Estimate, bootstrap

LIMIT = 1.96


def change_errors(changes: pd.DataFrame, models: Sequence[str], n_bootstrap: int, seed: int) -> pd.DataFrame:
    """Bland and Altman's limits for the change of longest diameters, predicted minus reference.

    Parameters
    ----------
    changes : DataFrame
        From `follow_study`: a row per (``model``, ``patient``, lesion, date but its first), with ``reference_mm`` and
        ``predicted_mm``, changes since the date before; ``predicted_mm`` is NaN where a date's lesion was missed.

    Returns
    -------
    DataFrame
        A row per model: ``patients``, ``changes`` (measured), ``missed`` (not measured), ``bias_mm`` with ``low``,
        ``high`` (95 % interval over patients), ``lower_mm`` and ``upper_mm`` (bias ± 1.96 sd), and
        ``smallest_mm``: a change of one lesion has to be larger to be told from error (1.96 sd). NaN below two changes.

    References
    ----------
    Bland & Altman 1986 (Lancet 327:307); smallest detectable change: Beckerman et al. 2001 (Qual. Life Res. 10:571).
    """
    rows = []
    for model in models:
        of_model = changes[changes["model"] == model]
        own = of_model.dropna(subset="predicted_mm")
        error = own["predicted_mm"] - own["reference_mm"]
        bias, low, high = _mean(error, own["patient"], n_bootstrap, seed)
        sd = LIMIT * error.std()
        counts = own["patient"].nunique(), len(own), len(of_model) - len(own)
        rows.append((model, *counts, bias, low, high, bias - sd, bias + sd, sd))
    columns = ["model", "patients", "changes", "missed", "bias_mm", "low", "high", "lower_mm", "upper_mm"]
    return pd.DataFrame(rows, columns=[*columns, "smallest_mm"])


def _mean(values: pd.Series, patients: pd.Series, n_bootstrap: int, seed: int) -> Estimate:
    """Mean over all values; its interval resamples patients with all of theirs."""
    sums = values.groupby(patients).agg(["sum", "size"]).to_numpy(float)
    if not len(sums):
        return np.nan, np.nan, np.nan
    return bootstrap(lambda drawn: drawn[:, 0] / drawn[:, 1], sums, n_bootstrap, seed)


def confusion(pairs: pd.DataFrame, categories: Sequence[str]) -> np.ndarray:
    """How often each category of the reference (row) has each category of a network (column); patients count alike.

    Parameters
    ----------
    pairs : DataFrame
        A row per (``patient``, date): ``reference`` and ``predicted``.
    categories : sequence of str

    Returns
    -------
    ndarray, shape (patients, K, K)
        Shares of each patient's dates.
    """
    place = {name: i for i, name in enumerate(categories)}
    tables = []
    for _, own in pairs.groupby("patient"):
        table = np.zeros((len(categories), len(categories)))
        np.add.at(table, (own["reference"].map(place).to_numpy(), own["predicted"].map(place).to_numpy()), 1)
        tables.append(table / len(own))
    return np.reshape(tables, (-1, len(categories), len(categories)))


def kappa(tables: np.ndarray, n_bootstrap: int, seed: int) -> Estimate:
    """Cohen's kappa of tables, shape (patients, K, K), with its 95 % interval over patients; NaN without a patient.

    References
    ----------
    Cohen 1960 (Educ. Psychol. Meas. 20:37).
    """

    def of(sums: np.ndarray) -> np.ndarray:
        total = sums.sum(axis=(1, 2))
        with np.errstate(invalid="ignore", divide="ignore"):
            observed = np.trace(sums, axis1=1, axis2=2) / total
            expected = (sums.sum(axis=2) * sums.sum(axis=1)).sum(axis=1) / total**2
            return (observed - expected) / (1 - expected)

    return bootstrap(of, tables, n_bootstrap, seed)
