"""How lesions grow; and a network's errors of change, and its categories, against those of the reference."""

from collections.abc import Sequence
from functools import partial

import numpy as np
import pandas as pd
from statsmodels.stats.inter_rater import cohens_kappa

from metaseg_nb.evaluation.intervals import Estimate, bootstrap, named

DAYS_PER_MONTH = 365.25 / 12
# Of the standard normal distribution, for 95 % intervals and limits.
Z = 1.96


def with_growth(lesions: pd.DataFrame, volume_error: float) -> pd.DataFrame:
    """Add how each lesion's volume changes.

    Growth between two dates is taken as exponential. Errors of the two volumes are independent, and normal on the scale
    of logarithms.

    Parameters
    ----------
    lesions : DataFrame
        From `follow_study`: a row per (``model``, ``patient``, ``lesion``, date), with ``day`` and ``volume_mm3``.
    volume_error : float
        Standard error of one volume as a share of it, such as 0.1.

    Returns
    -------
    DataFrame
        With ``change_pct`` (of the volume since the lesion's first date), ``monthly_pct`` (since the date before),
        ``doubling_days`` (since the date before; negative: the volume halves in so many days), and
        ``fastest_doubling_days`` and ``slowest_doubling_days``, the 95 % interval of it. Of a lesion that shrinks they
        are negative. Where growth cannot be told from the error, the slowest is infinite: it may also shrink. NaN where
        a lesion is not there at one of the dates.

    References
    ----------
    Schwartz 1961 (Cancer 14:1272): doubling time of exponential growth.
    """
    lesions = lesions.sort_values(["model", "patient", "lesion", "day"], ignore_index=True)
    of_lesion = lesions.groupby(["model", "patient", "lesion"], sort=False)
    volume = lesions["volume_mm3"].where(lesions["volume_mm3"] > 0)
    before = of_lesion["volume_mm3"].shift().where(lambda volumes: volumes > 0)
    days = of_lesion["day"].diff()
    rate = np.log(volume / before) / days  # per day
    error = Z * np.sqrt(2) * volume_error / days
    towards = np.sign(rate).where(rate != 0, 1.0)  # as a growing one: an equal volume may have grown, too
    slowest = (rate.abs() - error).clip(lower=0) * towards
    return lesions.assign(
        change_pct=100 * (lesions["volume_mm3"] / of_lesion["volume_mm3"].transform("first") - 1),
        monthly_pct=100 * np.expm1(rate * DAYS_PER_MONTH),
        doubling_days=np.log(2) / rate,
        fastest_doubling_days=np.log(2) / ((rate.abs() + error) * towards),
        slowest_doubling_days=np.log(2) / slowest,
    )


def change_errors(changes: pd.DataFrame, models: Sequence[str], n_bootstrap: int, seed: int) -> pd.DataFrame:
    """Bland and Altman's limits for the change of longest diameters, predicted minus reference.

    Parameters
    ----------
    changes : DataFrame
        From `follow_study`: a row per (``model``, ``patient``, lesion, date but its first), with ``reference_mm`` and
        ``predicted_mm``, changes of lesions that are there at this date and the one before; ``predicted_mm`` is NaN
        where the network missed the lesion at one of them.

    Returns
    -------
    DataFrame
        A row per model: ``patients``, ``changes`` (measured), ``missed`` (not measured), and with 95 % intervals over
        patients (``_low``, ``_high``): ``bias_mm``, ``lower_mm`` and ``upper_mm`` (bias ± 1.96 sd), and
        ``smallest_mm``: a change of one lesion has to be larger to be told from error (the farther limit). Patients
        count alike, however many changes they have. NaN below two changes.

    References
    ----------
    Bland & Altman 1986 (Lancet 327:307); smallest detectable change: Beckerman et al. 2001 (Qual. Life Res. 10:571).
    """
    rows = []
    for model in models:
        of_model = changes[changes["model"] == model]
        own = of_model.dropna(subset="predicted_mm")
        error = own["predicted_mm"] - own["reference_mm"]
        weight = 1 / own.groupby("patient")["patient"].transform("size")
        moments = pd.DataFrame({"w": weight, "we": weight * error, "wee": weight * error**2, "ww": weight**2})
        sums = moments.groupby(own["patient"]).sum().to_numpy(float)
        row = {"model": model, "patients": len(sums), "changes": len(own), "missed": len(of_model) - len(own)}
        for name, of in {"bias_mm": 0, "lower_mm": -Z, "upper_mm": Z}.items():
            row |= named(name, bootstrap(partial(_limit, of=of), sums, n_bootstrap, seed))
        rows.append(row | named("smallest_mm", bootstrap(_farther, sums, n_bootstrap, seed)))
    return pd.DataFrame(rows)


def _limit(sums: np.ndarray, of: float) -> np.ndarray:
    """Mean and ``of`` sd, from the sums of weights, of weighted values and their squares, and of squared weights."""
    total, first, second, squares = np.moveaxis(sums, -1, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = first / total
        variance = (second / total - mean**2).clip(min=0) / (1 - squares / total**2)
        return mean + of * np.sqrt(variance) if of else mean


def _farther(sums: np.ndarray) -> np.ndarray:
    return np.maximum(-_limit(sums, -Z), _limit(sums, Z))


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
    names = list(categories)
    tables = [
        pd.crosstab(own["reference"], own["predicted"], normalize=True).reindex(index=names, columns=names)
        for _, own in pairs.groupby("patient")
    ]
    return np.nan_to_num(np.reshape(tables, (-1, len(names), len(names))))


def kappa(tables: np.ndarray, n_bootstrap: int, seed: int) -> Estimate:
    """Cohen's kappa of tables, shape (patients, K, K), with its 95 % interval over patients; NaN without a patient.

    References
    ----------
    Cohen 1960 (Educ. Psychol. Meas. 20:37).
    """

    def of(sums: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):  # 0 / 0 where all is of one category
            return np.array([cohens_kappa(table, return_results=False) if table.any() else np.nan for table in sums])

    return bootstrap(of, tables, n_bootstrap, seed)
