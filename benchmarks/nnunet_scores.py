"""Scores for `nnunet.py`, from the probabilities that trainings left; nothing is trained here."""

from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from nnunet_cohorts import RULE, parts_of, stored
from nnunet_workbook import folder_of

from metaseg_nb.cohort.volumes import read_lesions
from metaseg_nb.evaluation.detection import average_precision, detections_by_threshold, froc_points
from metaseg_nb.evaluation.intervals import bootstrap
from metaseg_nb.evaluation.lesion_metrics import lesion_metrics, mets_2026
from metaseg_nb.inference.decision import UNDECIDED, Decision, best_decision, native_mask, outcome_of
from metaseg_nb.preprocessing.case_store import StoredCase

SMALL_MM, TRIED, FALSE_RATE = 10.0, (0.3, 0.5, 0.7, 0.9, 0.95), 0.5
# Title, and two columns of `scored`: the sum of the one, divided by the sum of the other. The last three are of 2026.
MEASURES = {
    "Dice": ("dice", "patients"),
    "lesion-wise Dice": ("lesion_dice", "patients"),
    "lesions found": ("found", "lesions"),
    "under 10 mm": ("small", "smalls"),
    "false a patient": ("false", "patients"),
    "lesion-wise Dice, 2026": ("lesion_dice_2026", "patients"),
    "F1 large, 2026": ("large_right_2026", "large_counted_2026"),
    "F1 small, 2026": ("small_right_2026", "small_counted_2026"),
}


def probabilities(folder: Path, cases: Sequence[StoredCase]) -> list[np.ndarray]:
    """What a training predicted for these cases: float32, on the study grid."""
    files = [folder / "probabilities" / f"{case.name}.npz" for case in cases]
    return [np.load(file)["probability"].astype(np.float32) for file in files]


def decide(predicted: Sequence[np.ndarray], cases: Sequence[StoredCase]) -> Decision:
    """The workbook's decision, chosen on the selection set, for either program's probabilities."""
    pairs = zip(predicted, cases, strict=True)
    return best_decision([outcome_of(probability, case.label > 0, case.grid.spacing_mm) for probability, case in pairs])


def scored(truth: np.ndarray, mask: np.ndarray, spacing_mm: tuple[float, float, float]) -> dict[str, float]:
    """One case, by the rules of BraTS-METS 2023 and 2026: the columns that `MEASURES` adds up."""
    summary, lesions = lesion_metrics(truth, mask, spacing_mm)
    small = lesions[lesions["diameter_mm"] < SMALL_MM]
    voxels, of_2026 = int(truth.sum()) + int(mask.sum()), mets_2026(truth, mask, spacing_mm)
    scores = {
        "patients": 1,
        "dice": 2.0 * int((truth & mask).sum()) / voxels if voxels else 1.0,
        "lesion_dice": summary["lesion_dice"],
        "found": summary["n_detected"],
        "lesions": summary["n_truth"],
        "small": int(small["detected"].sum()),
        "smalls": len(small),
        "false": summary["n_false"],
        "lesion_dice_2026": of_2026["lesion_dice_2026"],
    }
    false = of_2026["large_false_2026"] + of_2026["small_false_2026"]
    for size in ("large", "small"):
        right = 2 * of_2026[f"{size}_found_2026"]
        counted = right + of_2026[f"{size}_missed_2026"] + false
        scores |= {f"{size}_right_2026": right, f"{size}_counted_2026": counted}
    return scores


def of_test(runs: Sequence[tuple[str, int, int]], cohort: str = "test") -> pd.DataFrame:
    """Score runs (configuration, fold, seed) on their test patients, on the grid of each patient's own image.

    Each at the threshold chosen on its selection patients, and at 0.5; a row per run, rule and patient. Rows are kept
    beside the probabilities.
    """
    tables = []
    for configuration, fold, seed in runs:
        folder, parts = folder_of(cohort, configuration, fold, seed), parts_of(cohort, fold)
        kept = folder / "scores_2023_2026.csv"  # scores.csv of earlier runs has no 2026
        if not kept.exists():
            selection, test = stored(cohort, parts.selection), stored(cohort, parts.test)
            rules = {"chosen": decide(probabilities(folder, selection), selection), "0.5": UNDECIDED}
            rows = []
            for case, own, probability in zip(parts.test, test, probabilities(folder, test), strict=True):
                truth = read_lesions(case, RULE)
                for rule, decision in rules.items():
                    mask = native_mask(probability, own.grid, own.native, decision) > 0
                    found = scored(truth.array > 0, mask, truth.spacing_mm)
                    about = {"configuration": configuration, "rule": rule, "fold": fold, "seed": seed}
                    rows.append(about | {"patient": case.name, "decision": str(decision)} | found)
            pd.DataFrame(rows).to_csv(kept, index=False)
        tables.append(pd.read_csv(kept, dtype={"rule": str}))
    return pd.concat(tables, ignore_index=True)


def summary(table: pd.DataFrame) -> str:
    """Mean over patients, then over seeds, with the lowest and the highest seed: a row per configuration and rule."""
    lines = ["| run | threshold | " + " | ".join(MEASURES) + " |", "|---" * (len(MEASURES) + 2) + "|"]
    for (configuration, rule), rows in table.groupby(["configuration", "rule"], sort=False):
        sums = rows.groupby("seed").sum(numeric_only=True)
        seeds = [sums[part] / sums[whole] for part, whole in MEASURES.values()]
        cells = [f"{share.mean():.3f} ({share.min():.3f}–{share.max():.3f})" for share in seeds]
        decisions = "; ".join(rows["decision"].unique())
        lines.append(f"| {configuration} | {rule}: {decisions} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def paired(table: pd.DataFrame, one: tuple[str, str], other: tuple[str, str]) -> str:
    """The one minus the other (configuration, rule) with 95 % intervals over patients, each the mean of its seeds."""
    means = table.groupby(["configuration", "rule", "patient"]).mean(numeric_only=True)
    a, b = means.loc[one], means.loc[other]
    cells = []
    for part, whole in MEASURES.values():
        of_patients = np.column_stack([a[part], a[whole], b[part], b[whole]])
        found, low, high = bootstrap(_difference, of_patients, 2000, 0)
        cells.append(f"{found:+.3f} [{low:+.3f}, {high:+.3f}]")
    return f"| {' at '.join(one)} − {' at '.join(other)} | {len(a)} patients | " + " | ".join(cells) + " |"


def _difference(sums: np.ndarray) -> np.ndarray:
    return sums[:, 0] / sums[:, 1] - sums[:, 2] / sums[:, 3]


def judged(cohort: str, configurations: Sequence[str], folds: Sequence[int], seeds: Sequence[int]) -> str:
    """Judge trainings on the study grid: a row for each configuration and seed, test patients of all folds together.

    Without a threshold: average precision, and the share of lesions found at half a false one a patient. With one:
    lesion-wise Dice at the best of `TRIED` for the selection patients of each fold, and at the best for the judged.
    """
    titles = ("configuration", "seed", "AP", "found at 0.5 false", "lesion-wise Dice", "at its best threshold")
    lines = ["| " + " | ".join(titles) + " |", "|---" * len(titles) + "|"]
    for configuration, seed in product(configurations, seeds):
        curves, chosen, others = [], [], []
        for fold in folds:
            folder, parts = folder_of(cohort, configuration, fold, seed), parts_of(cohort, fold)
            selection, test = stored(cohort, parts.selection), stored(cohort, parts.test)
            predicted = probabilities(folder, test)
            for case, probability in zip(test, predicted, strict=True):
                curve = detections_by_threshold(case.label > 0, probability, case.grid.spacing_mm)
                curves.append(curve.assign(patient=case.name, model=configuration))
            of_selection, of_test = (
                _lesion_dice(probabilities(folder, selection), selection),
                _lesion_dice(predicted, test),
            )
            chosen.append(of_test[of_selection.argmax()])
            others.append(of_test)
        points = froc_points(pd.concat(curves), [configuration], 2, 0).set_index("false_per_patient")["sensitivity"]
        precision, best = average_precision(pd.concat(curves), 2, 0)[0], np.mean(others, axis=0)
        cells = [precision, points[FALSE_RATE], np.mean(chosen)]
        cells = [*(f"{cell:.3f}" for cell in cells), f"{best.max():.3f} ({TRIED[best.argmax()]})"]
        lines.append(f"| {configuration} | {seed} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _lesion_dice(predicted: Sequence[np.ndarray], cases: Sequence[StoredCase]) -> np.ndarray:
    """Mean lesion-wise Dice on the study grid at each of `TRIED`."""
    scores = [
        [lesion_metrics(case.label > 0, probability >= t, case.grid.spacing_mm)[0]["lesion_dice"] for t in TRIED]
        for probability, case in zip(predicted, cases, strict=True)
    ]
    return np.mean(scores, axis=0)
