"""Networks compared over patients: the leaderboard, paired tests, how stable the ranking is; volumes, the epoch."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas as pd
from scipy import stats

from metaseg_nb.cohort.datalist import read_written, require_written
from metaseg_nb.evaluation.intervals import MIN_PATIENTS, bootstrap_interval, named, share, times_drawn
from metaseg_nb.evaluation.pooling import PooledResults
from metaseg_nb.evaluation.scoring import METRICS
from metaseg_nb.layout import StudyLayout, home
from metaseg_nb.parameters import resolve

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


def make_leaderboard(metrics: pd.DataFrame, n_bootstrap: int, seed: int) -> pd.DataFrame:
    """Rank the networks by mean Dice over patients.

    A patient's cases are averaged first. A failure is a patient whose Dice is 0. ``lesion_sensitivity`` is the share of
    all lesions. It is a ratio of sums, because patients without lesions have no share of their own. The two F1 of METS
    2026 are ratios of sums too, each with the false lesions of both sizes.

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
        ``dice_low``, ``dice_high``; and for each of `METRICS`, ``false_per_patient``, ``large_false_2026`` and
        ``small_false_2026`` its mean under its own name, with ``_sd``, ``_median``, ``_low``, ``_high``;
        ``lesion_sensitivity``, ``f1_large_2026`` and ``f1_small_2026`` with ``_low``, ``_high``.
    """
    patients = metrics.groupby(["model", "patient"]).mean(numeric_only=True)
    false = ["large_false_2026", "small_false_2026"]
    scores = patients[["dice", *METRICS, *false]].assign(false_per_patient=patients["n_false"])
    board = means(scores, metrics["model"].unique(), n_bootstrap, seed).rename(columns={"dice": "dice_mean"})
    board.insert(2, "failures", [int((scores.loc[model, "dice"] == 0).sum()) for model in board["model"]])
    shares = {"lesion_sensitivity": (patients["n_detected"], patients["n_truth"])}
    for size in ("large", "small"):
        right, missed = 2 * patients[f"{size}_found_2026"], patients[f"{size}_missed_2026"]
        shares[f"f1_{size}_2026"] = right, right + missed + patients[false].sum(axis=1)
    for name, (part, whole) in shares.items():
        found = [named(name, share(part[model], whole[model], n_bootstrap, seed)) for model in board["model"]]
        board = board.join(pd.DataFrame(found))
    return board.sort_values("dice_mean", ascending=False, ignore_index=True, kind="stable")


def means(values: pd.DataFrame, models: Sequence[str], n_bootstrap: int, seed: int) -> pd.DataFrame:
    """Mean over patients of every column, network by network.

    Parameters
    ----------
    values : DataFrame
        A row per (``model``, ``patient``), which are its index.

    Returns
    -------
    DataFrame
        A row per network, in the order of ``models``: ``model``, ``patients``, and for each column its mean under its
        own name, with ``_sd``, ``_median``, and the 95 % bootstrap interval ``_low``, ``_high`` (`bootstrap_interval`).
    """
    rows = []
    for model in models:
        row = {"model": model, "patients": len(values.loc[model])}
        for name, of_patients in values.loc[model].items():
            low, high = bootstrap_interval(of_patients, n_bootstrap, seed)
            row |= {name: of_patients.mean(), f"{name}_sd": of_patients.std(), f"{name}_median": of_patients.median()}
            row |= {f"{name}_low": low, f"{name}_high": high}
        rows.append(row)
    return pd.DataFrame(rows)


def epoch_choice(
    results: PooledResults, models: Sequence[str], column: str, n_bootstrap: int, seed: int
) -> pd.DataFrame:
    """Compare the chosen epoch's weights with the last epoch's, each with a decision of its own, on the same patients.

    Parameters
    ----------
    results : PooledResults
    models : sequence of str
    column : str
        The metric, such as ``dice`` or ``lesion_dice``.

    Returns
    -------
    DataFrame
        A row per network: ``model``, ``patients``, ``chosen``, ``last``, ``difference``
        (chosen minus last) with ``low``, ``high``. Below 0, the last epoch was better.
    """
    kept = results.runs[["model", "fold", "weights"]]
    other = kept.replace({"weights": {"last": "chosen", "chosen": "last"}})
    both = pd.concat([results.metrics.merge(kept), results.other_metrics.merge(other)])
    scores = both.pivot_table(column, ["model", "patient"], "weights").dropna()
    scores["difference"] = (scores["chosen"] - scores["last"]).round(12)
    table = means(scores, models, n_bootstrap, seed).rename(columns=lambda name: name.removeprefix("difference_"))
    return table[["model", "patients", "chosen", "last", "difference", "low", "high"]]


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
        the 95 % interval of either limit: t(0.975, n - 1) √(3 / n) sd). NaN for one patient.

    References
    ----------
    Bland & Altman 1986 (Lancet 327:307); intervals of the limits: 1999 (Stat. Methods Med. Res. 8:135).
    """
    difference = volumes.set_index(["model", "patient"])[["difference"]].set_axis(["bias_cm3"], axis=1)
    table = means(difference, models, n_bootstrap, seed).rename(columns=lambda name: name.removeprefix("bias_cm3_"))
    n, spread = table["patients"], 1.96 * table["sd"]
    return table[["model", "patients", "bias_cm3", "low", "high"]].assign(
        lower_cm3=table["bias_cm3"] - spread,
        upper_cm3=table["bias_cm3"] + spread,
        limit_error_cm3=stats.t.ppf(0.975, n - 1) * np.sqrt(3 / n) * table["sd"],
    )


def summary(study: str) -> str:
    """What a finished study found, its leaderboard or its answers, and where its report is, as text for a terminal."""
    settings = resolve("06_annotation_budget", study)
    layout = StudyLayout(settings["study"])
    if settings["arms"]:
        require_written(layout, layout.annotation_answers)
        found = layout.annotation_answers.read_text(encoding="utf-8")
    else:
        board = read_written(layout, layout.leaderboard)
        dice = ["dice_mean", "dice_sd", "dice_low", "dice_high"]
        shown = board[["model", "patients", "failures", *dice, "hd95_mm", "false_per_patient"]]
        found = shown.to_string(index=False, float_format="{:.3f}".format, na_rep="–")
    return f"{found}\n\nreport: {(layout.report / 'index.html').relative_to(home())}"
