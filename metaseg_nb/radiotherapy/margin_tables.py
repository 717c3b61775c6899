"""Which share of all lesions a margin covers, and which margin the detected ones need, with intervals over patients."""

from collections.abc import Sequence
from itertools import product

import numpy as np
import pandas as pd

from metaseg_nb.evaluation.intervals import Estimate, bootstrap, share, share_difference
from metaseg_nb.evaluation.strata import weighted

# Lesions: 0.95 to the power of 72 is 0.025.
FOR_AN_INTERVAL = 72


def covered_shares(
    lesions: pd.DataFrame, by: Sequence[str], margins_mm: Sequence[float], n_bootstrap: int, seed: int
) -> pd.DataFrame:
    """Share of all lesions, detected or not, that contours cover when they are grown by each margin.

    Parameters
    ----------
    lesions : DataFrame
        From `study_coverage`, with the columns ``by``.
    by : sequence of str
        Columns that make the groups, such as ``network``.
    margins_mm : sequence of float
    n_bootstrap, seed : int
        Resamples of patients, each with all lesions.

    Returns
    -------
    DataFrame
        A row per group, ``covered_by`` (95 or 98: % of the volume of a covered lesion) and ``margin_mm``: ``share``
        (0 to 1), ``low``, ``high`` (95 % interval).
    """
    rows = []
    for group, own in lesions.groupby(list(by), observed=True):
        for covered_by, margin in product((95, 98), margins_mm):
            covered = weighted(own.assign(covered=own[f"needed_{covered_by}_mm"] <= margin), "covered")
            rows.append((*group, covered_by, margin, *share(covered["sum"], covered["n"], n_bootstrap, seed)))
    columns = [*by, "covered_by", "margin_mm", "share", "low", "high"]
    return pd.DataFrame(rows, columns=columns).astype({name: lesions[name].dtype for name in by})


def covered_lead(lesions: pd.DataFrame, margin_mm: float, pair: Sequence[str], n_bootstrap: int, seed: int) -> Estimate:
    """Share of all lesions that the first ``network`` of a pair covers by 95 % with this margin, minus the second's.

    With its 95 % interval over patients; NaN where all resamples are equal, for so few tell nothing.
    """
    covered = lesions.assign(covered=lesions["needed_95_mm"] <= margin_mm)
    first, second = (weighted(covered[covered["network"] == network], "covered") for network in pair)
    found, low, high = share_difference(first, second, n_bootstrap, seed)
    return (found, low, high) if low < high else (found, np.nan, np.nan)


def margin_table(lesions: pd.DataFrame, by: Sequence[str], n_bootstrap: int, seed: int) -> pd.DataFrame:
    """How many lesions are missed, and which margin the detected ones need, for each group of lesions.

    Parameters
    ----------
    lesions : DataFrame
        From `study_coverage`, with the columns ``by``.
    by : sequence of str
        Columns that make the groups, such as ``model``.
    n_bootstrap, seed : int
        Resamples of patients.

    Returns
    -------
    DataFrame
        A row per group: ``by``, ``patients``, ``lesions``, ``missed``, ``margin_mm``, ``low_mm``, ``high_mm``
        (`margin_needed`).
    """
    rows = []
    for group, own in lesions.groupby(list(by), observed=True):
        about = (own["patient"].nunique(), len(own), int((~own["detected"]).sum()))
        rows.append((*group, *about, *margin_needed(own, n_bootstrap, seed)))
    columns = [*by, "patients", "lesions", "missed", "margin_mm", "low_mm", "high_mm"]
    return pd.DataFrame(rows, columns=columns).astype({name: lesions[name].dtype for name in by})


def margin_needed(lesions: pd.DataFrame, n_bootstrap: int, seed: int) -> Estimate:
    """The smallest margin that covers 95 % of the detected lesions, each by 95 % of its volume or more.

    Lesions count by their ``weight``.

    Returns
    -------
    margin, low, high : float
        In mm, with its 95 % interval over patients; NaN if no lesion was detected. Fewer than `FOR_AN_INTERVAL`
        detected lesions have no interval: with 97.5 % probability at least one of so many is above the margin that is
        sought. With fewer, resampling could not see how large it may be.
    """
    detected = lesions[lesions["detected"]]
    if detected.empty:
        return np.nan, np.nan, np.nan
    needed = detected["needed_95_mm"].to_numpy()
    margins = np.unique(needed)
    covered = pd.DataFrame(needed[:, None] <= margins).assign(lesions=1.0).mul(detected["weight"].to_numpy(), axis=0)
    of_patients = covered.groupby(detected["patient"].to_numpy()).sum().to_numpy(float)

    def smallest(sums: np.ndarray) -> np.ndarray:
        return margins[(sums[:, :-1] >= 0.95 * sums[:, -1:] - 1e-9).argmax(axis=1)]

    found, low, high = bootstrap(smallest, of_patients, n_bootstrap, seed)
    return (found, low, high) if len(needed) >= FOR_AN_INTERVAL else (found, np.nan, np.nan)
