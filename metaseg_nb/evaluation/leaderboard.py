"""One row per network: means over patients with their spread, interval and failures."""

from collections.abc import Sequence

import pandas as pd

from metaseg_nb.cohort.cases import Cohort
from metaseg_nb.cohort.lesions import DIAMETER_NAMES
from metaseg_nb.evaluation.intervals import bootstrap_interval, bootstrap_ratio
from metaseg_nb.evaluation.threshold_baseline import MODEL as FLOOR
from metaseg_nb.layout import StudyLayout, home
from metaseg_nb.settings import MODEL_NAMES, resolve

# Averaged over patients beside Dice.
MEANS = ("hd95_mm", "nsd_1mm", "nsd_2mm", "precision", "recall", "lesion_dice")


def leaderboard(metrics: pd.DataFrame, n_bootstrap: int, seed: int) -> pd.DataFrame:
    """Rank the networks by mean Dice over patients.

    A patient's cases are averaged first. A failure is a patient whose Dice is 0.
    ``lesion_sensitivity`` is the share of all lesions: a ratio of sums, as patients
    without lesions have none of their own.

    Parameters
    ----------
    metrics : DataFrame
        One row per (``model``, ``case``).
    n_bootstrap : int
        Resamples of patients for the 95 % interval of the mean Dice.
    seed : int

    Returns
    -------
    DataFrame
        Best first.
    """
    rows = [_row(model, cases, n_bootstrap, seed) for model, cases in metrics.groupby("model", sort=False)]
    return pd.DataFrame(rows).sort_values("dice_mean", ascending=False, ignore_index=True)


def sensitivity_by_diameter(lesions: pd.DataFrame, models: Sequence[str], n_bootstrap: int, seed: int) -> pd.DataFrame:
    """Share of reference lesions detected, by largest diameter.

    The interval resamples patients, for lesions of one patient are not independent.

    Returns
    -------
    DataFrame
        One row per (``model``, ``diameter_class``): ``n_lesions``,
        ``n_patients``, ``sensitivity``, ``low``, ``high`` (NaN below two patients).
    """
    rows = []
    for model in models:
        for name in DIAMETER_NAMES:
            of_class = lesions[(lesions["model"] == model) & (lesions["diameter_class"] == name)]
            rows.append({"model": model, "diameter_class": name, **_detected(of_class, n_bootstrap, seed)})
    return pd.DataFrame(rows)


def answer(board: pd.DataFrame, metrics: pd.DataFrame, cohort: Cohort, n_bootstrap: int, seed: int) -> str:
    """The leaderboard's answer in words (Markdown); the gain over the floor is paired by patient."""
    networks = board[board["model"] != FLOOR]
    best, others = networks.iloc[0], networks.iloc[1:]
    text = (
        f"**{MODEL_NAMES[best['model']]} has the highest mean Dice: {best['dice_mean']:.2f}** (95 % interval "
        f"{best['dice_low']:.2f} to {best['dice_high']:.2f}, n = {best['patients']} patients of the "
        f"cohort *{cohort.name}*, {best['failures']} of them with Dice 0)."
    )
    for _, other in others.head(1).iterrows():
        overlap = "overlap" if other["dice_high"] > best["dice_low"] else "do not overlap"
        text += f" Next is {MODEL_NAMES[other['model']]} with {other['dice_mean']:.2f}; the two intervals {overlap}."
    for _, floor in board[board["model"] == FLOOR].iterrows():
        dice = metrics.pivot_table(index="patient", columns="model", values="dice")
        gain = dice[best["model"]] - dice[FLOOR]
        low, high = bootstrap_interval(gain, n_bootstrap, seed)
        text += (
            f" An intensity threshold reaches {floor['dice_mean']:.2f}; the gain over it, patient by patient, is "
            f"{gain.mean():+.2f} (95 % interval {low:+.2f} to {high:+.2f})."
        )
    return text


def worst_class(sensitivity: pd.DataFrame, board: pd.DataFrame) -> str:
    """Which lesions the leading network misses most, in words (Markdown)."""
    leader = board.loc[board["model"] != FLOOR, "model"].iloc[0]
    rows = sensitivity[(sensitivity["model"] == leader) & (sensitivity["n_lesions"] > 0)]
    if rows.empty:
        return "There is no reference lesion in this cohort."
    worst = rows.loc[rows["sensitivity"].idxmin()]
    if worst["sensitivity"] == 1:
        return f"{MODEL_NAMES[leader]} detects all {rows['n_lesions'].sum()} lesions."
    return (
        f"**{MODEL_NAMES[leader]} misses most among lesions of {worst['diameter_class']}: it detects "
        f"{100 * worst['sensitivity']:.0f} % of them** "
        f"(n = {worst['n_lesions']} lesions in {worst['n_patients']} patients)."
    )


def summary(study: str) -> str:
    """The leaderboard of a finished study and where its report is, as text for a terminal."""
    layout = StudyLayout(resolve("04_cross_validation", study)["study"])
    file = layout.cross_validation / "leaderboard.csv"
    if not file.is_file():
        raise FileNotFoundError(f"study {study} has no leaderboard yet: run it first")
    table = pd.read_csv(file)
    shown = table[["model", "patients", "failures"]].copy()
    shown["Dice (mean ± sd)"] = _pairs(table, "dice_mean", "dice_sd", "±")
    shown["95 % interval"] = _pairs(table, "dice_low", "dice_high", "to")
    shown["HD95 mm"] = table["hd95_mm"].map("{:.1f}".format)
    shown["false/patient"] = table["false_per_patient"].map("{:.1f}".format)
    report = (layout.report / "index.html").relative_to(home())
    return f"{shown.to_string(index=False)}\n\nreport: {report}"


def _pairs(table: pd.DataFrame, first: str, second: str, between: str) -> list[str]:
    return [f"{a:.3f} {between} {b:.3f}" for a, b in zip(table[first], table[second], strict=True)]


def _row(model: str, cases: pd.DataFrame, n_bootstrap: int, seed: int) -> dict:
    numbers = ["dice", *MEANS, "n_truth", "n_detected", "n_false"]
    patients = cases.groupby("patient")[numbers].mean()
    low, high = bootstrap_interval(patients["dice"], n_bootstrap, seed)
    return {
        "model": model,
        "patients": len(patients),
        "failures": int((patients["dice"] == 0).sum()),
        "dice_mean": patients["dice"].mean(),
        "dice_sd": patients["dice"].std(),
        "dice_median": patients["dice"].median(),
        "dice_low": low,
        "dice_high": high,
        **{name: patients[name].mean() for name in MEANS},
        "lesion_sensitivity": patients["n_detected"].sum() / patients["n_truth"].sum()
        if patients["n_truth"].any()
        else float("nan"),
        "false_per_patient": patients["n_false"].mean(),
    }


def _detected(lesions: pd.DataFrame, n_bootstrap: int, seed: int) -> dict:
    by_patient = lesions.groupby("patient")["detected"].agg(["sum", "count"])
    low, high = bootstrap_ratio(by_patient["sum"], by_patient["count"], n_bootstrap, seed)
    sensitivity = lesions["detected"].mean() if len(lesions) else float("nan")
    return {
        "n_lesions": len(lesions),
        "n_patients": len(by_patient),
        "sensitivity": sensitivity,
        "low": low,
        "high": high,
    }
