"""Are networks different: paired tests over patients, effect sizes, and how stable their ranking is."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas as pd
from scipy import stats

from metaseg_nb.evaluation.intervals import MIN_PATIENTS, bootstrap_interval, times_drawn

ALPHA = 0.05


def patient_scores(metrics: pd.DataFrame, models: Sequence[str]) -> pd.DataFrame:
    """Mean Dice of each patient's cases: a row per patient, a column per model, in the order of ``models``."""
    return metrics.pivot_table(index="patient", columns="model", values="dice", observed=True)[list(models)]


def rank_test(scores: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Test whether networks differ at all, over patients: Friedman's test, and Nemenyi's for each pair.

    Parameters
    ----------
    scores : DataFrame
        From `patient_scores`; higher is better.

    Returns
    -------
    ranks : DataFrame
        A row per network (the index), best first: ``mean_rank`` (1 is best, ties share the mean of their ranks),
        ``patients``, and in all rows alike ``friedman``, its ``p`` and Nemenyi's ``critical_difference``; these are NaN
        with fewer than `MIN_PATIENTS` patients or three networks.
    nemenyi : DataFrame
        The p-value of each pair, model by model; NaN where nothing was tested.

    References
    ----------
    Friedman 1937; Nemenyi 1963; as Demšar 2006 (JMLR 7:1-30) combines them. Identical
    networks: statistic 0, p = 1.
    """
    from scikit_posthocs import posthoc_nemenyi_friedman  # here: it takes a second, and only 04 needs it

    n, k = scores.shape
    mean_ranks = scores.rank(axis=1, ascending=False).mean().sort_values(kind="stable")
    ranks = mean_ranks.rename_axis("model").to_frame("mean_rank").assign(patients=n)
    if n < MIN_PATIENTS or k < 3:
        untested = pd.DataFrame(np.nan, scores.columns, scores.columns)
        return ranks.assign(friedman=np.nan, p=np.nan, critical_difference=np.nan), untested
    alike = scores.eq(scores.iloc[:, 0], axis=0).all(axis=None)
    statistic, p = (0.0, 1.0) if alike else stats.friedmanchisquare(*scores.to_numpy().T)
    ranks = ranks.assign(friedman=statistic, p=p, critical_difference=critical_difference(k, n))
    return ranks, posthoc_nemenyi_friedman(scores)


def critical_difference(n_models: int, n_patients: int) -> float:
    """Nemenyi's: mean ranks that differ by more are different at `ALPHA`, all pairs taken together."""
    quantile = stats.studentized_range.isf(ALPHA, n_models, np.inf) / np.sqrt(2)
    return float(quantile * np.sqrt(n_models * (n_models + 1) / (6 * n_patients)))


def pairwise(scores: pd.DataFrame, n_bootstrap: int, seed: int) -> pd.DataFrame:
    """Compare every pair of networks, patient by patient.

    Parameters
    ----------
    scores : DataFrame
        From `patient_scores`; higher is better.
    n_bootstrap, seed
        Of the interval of the mean difference.

    Returns
    -------
    DataFrame
        A row per pair, ``first`` the column that stands before ``second``: ``patients``,
        ``difference`` (mean of first minus second), ``low``, ``high`` (95 % bootstrap
        interval), ``rank_biserial`` (-1 to 1; above 0 the first is better), ``p``
        (Wilcoxon signed-rank, two-sided), ``p_holm``; p-values are NaN with fewer than
        `MIN_PATIENTS` patients.

    References
    ----------
    Wilcoxon 1945, zeros as Pratt 1959; Holm 1979; matched-pairs rank-biserial
    correlation: Kerby 2014 (Compr. Psychol. 3:11.IT.3.1).
    """
    from statsmodels.stats.multitest import multipletests  # here: it takes a second, and only 04 needs it

    rows = []
    for first, second in combinations(scores.columns, 2):
        gain = (scores[first] - scores[second]).to_numpy(float).round(12)  # 0.3 - 0.1 and 0.2 are a tie
        tested = gain.mean(), *bootstrap_interval(gain, n_bootstrap, seed), rank_biserial(gain), signed_rank_p(gain)
        rows.append((first, second, len(gain), *tested))
    columns = ["first", "second", "patients", "difference", "low", "high", "rank_biserial", "p"]
    table = pd.DataFrame(rows, columns=columns)
    return table.assign(p_holm=multipletests(table["p"], method="holm")[1] if table["p"].notna().any() else table["p"])


def signed_rank_p(differences: np.ndarray) -> float:
    """Two-sided p of Wilcoxon's signed-rank test; 1 when all are 0, NaN when there are too few."""
    if len(differences) < MIN_PATIENTS:
        return np.nan
    return float(stats.wilcoxon(differences, zero_method="pratt").pvalue) if differences.any() else 1.0


def rank_biserial(differences: np.ndarray) -> float:
    """Share of the ranks in favour of the first minus that of the second; 0 when all differences are 0."""
    changed = differences[differences != 0]
    ranks = stats.rankdata(np.abs(changed))
    return float((ranks * np.sign(changed)).sum() / ranks.sum()) if len(changed) else 0.0


def rank_distribution(scores: pd.DataFrame, n_bootstrap: int, seed: int) -> pd.DataFrame:
    """How often each network takes each rank when patients are resampled.

    Returns
    -------
    DataFrame
        A row per network, best mean first, a column per rank (1 is best): share of the resamples.
        Networks with equal means share their ranks evenly.

    References
    ----------
    Wiesenfarth et al. 2021 (Sci. Rep. 11:2369), challengeR.
    """
    means = times_drawn(len(scores), n_bootstrap, seed) @ scores.to_numpy(float) / len(scores)
    best, worst = (stats.rankdata(-means.round(12), method=method, axis=1)[:, :, None] for method in ("min", "max"))
    places = np.arange(1, scores.shape[1] + 1)
    shares = ((best <= places) & (places <= worst)) / (worst - best + 1)
    best_first = scores.mean().sort_values(ascending=False, kind="stable").index
    return pd.DataFrame(shares.mean(axis=0), index=scores.columns, columns=places).loc[best_first]
