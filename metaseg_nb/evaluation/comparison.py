"""Bootstrap intervals over patients; paired tests of networks, effect sizes, and how stable their ranking is."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from scipy import stats

# With fewer even six equal signs could not reach 5 % in a signed-rank test: 2 / 2⁵ = 0.06.
MIN_PATIENTS = 6
ALPHA = 0.05
INCONCLUSIVE = "inconclusive"

Values = Sequence[float] | np.ndarray | pd.Series
Estimate = tuple[float, float, float]


def bootstrap(
    statistic: Callable[[np.ndarray], np.ndarray], of_patients: np.ndarray, n_resamples: int, seed: int
) -> Estimate:
    """Percentile bootstrap over patients: all intervals of cross-validation come from here.

    Parameters
    ----------
    statistic : callable
        Takes sums over patients, shape (B, ...), and gives its values, shape (B,); NaN where it does not exist, such as
        a sensitivity without lesions. Such resamples are passed over.
    of_patients : ndarray, shape (n_patients, ...)
        What is summed.
    n_resamples : int
        Resamples of as many patients, drawn with replacement.
    seed : int
        The same seed gives the same interval.

    Returns
    -------
    found, low, high : float
        The statistic of all patients once, with its 95 % interval; NaN for low and high with fewer than two patients:
        one patient cannot show how patients differ.

    References
    ----------
    Efron 1979, Ann. Statist. 7(1):1-26; Efron & Tibshirani 1993, An Introduction to
    the Bootstrap, chapter 13.
    """
    found = float(statistic(of_patients.sum(axis=0)[None])[0])
    if len(of_patients) < 2:
        return found, np.nan, np.nan
    drawn = times_drawn(len(of_patients), n_resamples, seed)
    return found, *percentiles(statistic(np.tensordot(drawn, of_patients, axes=1)))


def times_drawn(n_patients: int, n_resamples: int, seed: int) -> np.ndarray:
    """How often each resample draws each patient, int of shape (n_resamples, n_patients)."""
    drawn = np.random.default_rng(seed).integers(n_patients, size=(n_resamples, n_patients))
    places = drawn + n_patients * np.arange(n_resamples)[:, None]
    return np.bincount(places.ravel(), minlength=n_resamples * n_patients).reshape(n_resamples, n_patients)


def percentiles(resampled: np.ndarray) -> tuple[float, float]:
    """95 % interval of a statistic over the resamples in which it exists (is finite); NaN where it does in none."""
    exist = resampled[np.isfinite(resampled)]
    low, high = np.quantile(exist, [0.025, 0.975]) if len(exist) else (np.nan, np.nan)
    return float(low), float(high)


def bootstrap_interval(values: Values, n_resamples: int = 2000, seed: int = 0) -> tuple[float, float]:
    """95 % interval of a mean; see `bootstrap`.

    Parameters
    ----------
    values : sequence of float, shape (N,)
        One value per patient (first average a patient's cases: they are not independent).

    Raises
    ------
    ValueError
        Values are not finite.
    """
    values = np.asarray(values, dtype=np.float64)
    if not np.isfinite(values).all():
        bad = int((~np.isfinite(values)).sum())
        raise ValueError(f"values: found {bad} NaN or infinite; expected finite: give such cases their defined score")
    return bootstrap(lambda sums: sums / max(1, len(values)), values, n_resamples, seed)[1:]


def bootstrap_ratio(parts: Values, wholes: Values, n_resamples: int = 2000, seed: int = 0) -> tuple[float, float]:
    """95 % interval of ``sum(parts) / sum(wholes)``, such as lesions detected of all lesions; see `bootstrap`.

    Patients are resampled, each with all of its lesions, for lesions of one
    patient are not independent. Where no patient has a part, or every one the whole, all resamples are
    equal, but the share is not certain: then the interval is the exact one of a proportion
    of patients, none or all of N.

    Parameters
    ----------
    parts, wholes : sequence of float, shape (N,)
        One value per patient; every whole above 0.

    References
    ----------
    Exact interval: Clopper & Pearson 1934 (Biometrika 26:404).
    """
    parts, wholes, n = np.asarray(parts, float), np.asarray(wholes, float), len(parts)
    if n < 2:
        return np.nan, np.nan
    if not parts.any() or np.array_equal(parts, wholes):
        exact = stats.binomtest(n * bool(parts.any()), n).proportion_ci(method="exact")
        return float(exact.low), float(exact.high)
    return bootstrap(lambda sums: sums[:, 0] / sums[:, 1], np.column_stack([parts, wholes]), n_resamples, seed)[1:]


def estimate(value: float, low: float, high: float, form: str = ".2f") -> str:
    """A value with its 95 % interval as text, such as ``0.71 (95 % interval 0.65 to 0.78)``."""
    if not np.isfinite(value):
        return "unknown"
    if not np.isfinite([low, high]).all():
        return f"{_shown(value, form)} (too few for an interval)"
    return f"{_shown(value, form)} (95 % interval {_shown(low, form)} to {_shown(high, form)})"


def _shown(number: float, form: str) -> str:
    """A number as text, without the minus of -0.00."""
    text = f"{number:{form}}"
    return text if float(text) else f"{0:{form}}"


def verdict(low: float, high: float, patients: int, above: str, below: str) -> str:
    """Say whether the 95 % interval of a difference lies above 0, below it, or neither: `INCONCLUSIVE`."""
    if patients < MIN_PATIENTS or not np.isfinite([low, high]).all():
        return INCONCLUSIVE
    return above if low > 0 else below if high < 0 else INCONCLUSIVE


def patient_scores(metrics: pd.DataFrame, models: Sequence[str]) -> pd.DataFrame:
    """Mean Dice of each patient's cases: a row per patient, a column per model, in the order of ``models``."""
    return metrics.pivot_table(index="patient", columns="model", values="dice", observed=True)[list(models)]


@dataclass(frozen=True)
class Ranks:
    """Friedman's test with Nemenyi's.

    ``mean_ranks`` has the networks, best first (1 is best, ties share the mean of their ranks); ``nemenyi`` the p-value
    of each pair (model by model). With fewer than `MIN_PATIENTS` patients or three networks ``statistic``, ``p`` and
    ``critical_difference`` are NaN and Nemenyi's p-values 1.
    """

    patients: int
    mean_ranks: pd.Series
    statistic: float
    p: float
    critical_difference: float
    nemenyi: pd.DataFrame

    @property
    def table(self) -> pd.DataFrame:
        """A row per network, with the test's values repeated."""
        tested = {"patients": self.patients, "friedman": self.statistic, "p": self.p}
        table = self.mean_ranks.rename_axis("model").rename("mean_rank").reset_index()
        return table.assign(**tested, critical_difference=self.critical_difference)


def rank_test(scores: pd.DataFrame) -> Ranks:
    """Test whether networks differ at all, over patients.

    Parameters
    ----------
    scores : DataFrame
        From `patient_scores`; higher is better.

    References
    ----------
    Friedman 1937; Nemenyi 1963; as Demšar 2006 (JMLR 7:1-30) combines them. Identical
    networks: statistic 0, p = 1.
    """
    from scikit_posthocs import posthoc_nemenyi_friedman  # here: it takes a second, and only 04 needs it

    n, k = scores.shape
    ranks = scores.rank(axis=1, ascending=False).mean().sort_values(kind="stable")
    if n < MIN_PATIENTS or k < 3:
        untested = pd.DataFrame(1.0, scores.columns, scores.columns)
        return Ranks(n, ranks, np.nan, np.nan, np.nan, untested)
    alike = scores.eq(scores.iloc[:, 0], axis=0).all(axis=None)
    statistic, p = (0.0, 1.0) if alike else stats.friedmanchisquare(*scores.to_numpy().T)
    return Ranks(n, ranks, float(statistic), float(p), critical_difference(k, n), posthoc_nemenyi_friedman(scores))


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
