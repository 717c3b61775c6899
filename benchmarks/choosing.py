"""What choosing on few patients costs: the decision, and the epoch.

    make bench PART=nnunet; make bench PART=choosing

Each training of the workbook that `nnunet.py` left in BENCH_FOLDER has eight epochs, and 33 patients not used for
training. Some of these patients choose, the others are scored, again and again at random. Nothing is trained here.
"""

import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from nnunet_cohorts import FOLDER, parts_of, stored
from scipy.special import logit

import metaseg_nb as ms
from metaseg_nb.inference.decision import (
    MIN_LESIONS_MM3,
    PEAKS,
    PRIOR,
    THRESHOLDS,
    UNDECIDED,
    Decision,
    Outcome,
    best_decision,
    dice,
    outcome_of,
)
from metaseg_nb.inference.sliding_window import case_probability
from metaseg_nb.settings import Train
from metaseg_nb.training.training_run import SMOOTHED_OVER

CHOOSING = (2, 3, 5, 10, 20)
REPEATS = 200


def outcomes_of(folder: Path) -> list[list[tuple]]:
    """Outcome of all decisions, and Dice at 0.5, of each patient at each epoch of a training; kept in its folder."""
    kept = folder / "outcomes.pkl"
    if kept.is_file():
        return pickle.loads(kept.read_bytes())
    cohort, fold = folder.parts[-3], int(folder.name[4])
    parts, checkpoint = parts_of(cohort, fold), ms.training.load_checkpoint(folder / "run" / "best.pt")
    settings, epochs = Train.check(checkpoint["identity"]["settings"]), []
    for path in sorted(folder.glob("weights_*.pt"), key=lambda path: int(path.stem.split("_")[1])):
        network = ms.training.network_of(checkpoint | {"network": torch.load(path)}, torch.device("cpu"))
        epochs.append([])
        for case in stored(cohort, [*parts.selection, *parts.test]):
            probability, truth = case_probability(network, case, settings, torch.device("cpu")), case.label > 0
            predicted = probability >= UNDECIDED.threshold
            of_half = float(dice(2.0 * (predicted & truth).sum(), predicted.sum() + truth.sum()))
            epochs[-1].append((outcome_of(probability, truth, case.grid.spacing_mm), of_half))
    kept.write_bytes(pickle.dumps(epochs))
    return epochs


def lesion_dice(outcome: Outcome) -> np.ndarray:
    """Lesion-wise Dice of each decision; 1 where there is no lesion and none is predicted."""
    counted = outcome.n_lesions + outcome.false
    return np.where(counted > 0, outcome.dice / np.maximum(counted, 1), 1.0)


def place(decision: Decision) -> tuple[int, ...]:
    """Where a decision stands in the arrays of an `Outcome`."""
    pairs = ((THRESHOLDS, decision.threshold), (PEAKS, decision.peak), (MIN_LESIONS_MM3, decision.min_lesion_mm3))
    return tuple(int(np.abs(values - value).argmin()) for values, value in pairs)


def freely(outcomes: list) -> tuple[int, ...]:
    """The decision with the highest mean lesion-wise Dice, however few the patients."""
    mean = np.mean([lesion_dice(outcome) for outcome in outcomes], axis=0)
    mean[THRESHOLDS[:, None] > PEAKS] = -1
    nearest_half = np.abs(logit(THRESHOLDS))[:, None, None]
    best = mean.round(9) == mean.max().round(9)
    return tuple(map(int, np.unravel_index(np.where(best, nearest_half, np.inf).argmin(), best.shape)))


def trials(epochs: list[list[tuple]], rng: np.random.Generator) -> Iterator[dict]:
    """Lesion-wise Dice of the patients that did not choose, by the way and number of those that did."""
    patients = len(epochs[0])
    half = np.array([[value for _, value in one] for one in epochs])
    scores = np.array([[lesion_dice(outcome) for outcome, _ in one] for one in epochs])
    for n in CHOOSING:
        for _ in range(REPEATS):
            drawn = rng.permutation(patients)
            few, rest = drawn[:n], drawn[n:]
            curve = pd.Series(half[:, few].mean(axis=1))
            smoothed = curve.rolling(SMOOTHED_OVER, min_periods=1).mean()
            last = [epochs[-1][i][0] for i in few]
            decided = place(best_decision(last))
            row = {"n": n, "0.5": place(UNDECIDED), "prior": place(PRIOR), "free": freely(last), "shrunk": decided}
            row |= {name: scores[(-1, rest, *row[name])].mean() for name in ("0.5", "prior", "free", "shrunk")}
            for name, epoch in (("best epoch", curve[::-1].idxmax()), ("smoothed", smoothed[::-1].idxmax())):
                own = place(best_decision([epochs[epoch][i][0] for i in few]))
                row[name] = scores[(epoch, rest, *own)].mean()
                row[f"{name}, Dice at 0.5"] = half[epoch, rest].mean() - half[-1, rest].mean()
            yield row


def main() -> None:
    torch.set_num_threads(1)
    folders = sorted(
        path.parent for path in (FOLDER / "trained").glob("*/*/*/record.json") if "nnunet" not in path.parts
    )
    tables = []
    for seed, folder in enumerate(folders):
        table = pd.DataFrame(trials(outcomes_of(folder), np.random.default_rng(seed)))
        tables.append(table.groupby("n").mean().assign(training="/".join(folder.parts[-3:])))
    means = pd.concat(tables).reset_index().set_index(["training", "n"])
    for name in ("best epoch", "smoothed"):
        means[f"{name} − last"] = means.pop(name) - means["shrunk"]
    for n, rows in means.groupby("n"):
        cells = (f"{name} {rows[name].mean():+.3f} ± {rows[name].std():.3f}" for name in rows)
        print(f"{n:2} patients choose, {len(rows)} trainings: {'; '.join(cells)}")


if __name__ == "__main__":
    main()
