"""Which distance from the training cases tells better where a network fails: of image statistics, or of its features.

    make bench PART=likeness

A U-Net is trained on 27 synthetic patients of one scanner, and tested on 30 others; then the other way round. The
images of every second test patient are changed as by another scanner: contrast, noise and sharpness, more or less.
The table in `README.md` is of one of these two folds, with the epochs that stand here.
"""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from nnunet_cohorts import FOLDER, FOLDS, parts_of, stored
from scipy.ndimage import gaussian_filter

import metaseg_nb as ms
from metaseg_nb.evaluation.calibration import FAILURE_DICE, area_under_roc
from metaseg_nb.evaluation.intervals import estimate
from metaseg_nb.inference.decision import UNDECIDED, dice
from metaseg_nb.inference.ensemble import distance, image_statistics, spread_of
from metaseg_nb.inference.sliding_window import predict_probability
from metaseg_nb.layout import RunLayout
from metaseg_nb.parameters import resolve
from metaseg_nb.settings import Train

EPOCHS = int(os.environ.get("BENCH_EPOCHS", "25"))
CPU = torch.device("cpu")


def by_another_scanner(image: np.ndarray, reach: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Another contrast, more noise and less sharpness, each drawn; shape (1, X, Y, Z), from 0 to 1."""
    exponent, noise, blur = np.exp(rng.uniform(-0.7, 0.7)), rng.uniform(0, 0.08), rng.uniform(0, 1.0)
    changed = gaussian_filter(image[0].astype(np.float32) ** exponent, blur) + rng.normal(0, noise, reach.shape)
    return np.where(reach, changed.clip(0, 1), 0)[None].astype(np.float32)


def deepest_features(network: torch.nn.Module, image: np.ndarray, reach: np.ndarray, settings: Train) -> tuple:
    """Lesion probability, and the mean of the network's coarsest features over all windows of an image."""
    outputs = {}

    def keep(module, _, output):
        if torch.is_tensor(output) and output.ndim == 5:
            outputs.setdefault(module, []).append((output.shape[-1], output.mean(dim=(2, 3, 4))))

    hooks = [module.register_forward_hook(keep) for module in network.modules()]
    probability = predict_probability(network, image, reach, settings, CPU)
    for hook in hooks:
        hook.remove()
    coarsest = min(outputs.values(), key=lambda of: of[0][0])
    return probability, torch.cat([features for _, features in coarsest]).mean(dim=0).numpy()


def trained(fold: int, training: list, selection: list) -> tuple[torch.nn.Module, Train]:
    """A small U-Net, kept in BENCH_FOLDER."""
    values = resolve("03_train", "demo", "unet", 0) | {"width": 0.25, "epochs": EPOCHS, "validate_every": EPOCHS}
    settings, run = Train.check(values | {"fold": fold}), RunLayout(Path(FOLDER) / f"likeness_{EPOCHS}" / f"fold{fold}")
    run.root.mkdir(parents=True, exist_ok=True)
    ms.training.train(run, ms.training.PatchBatches(training, settings, selection=selection), lambda network: 0.0)
    return ms.training.network_of(ms.training.load_checkpoint(run.best_checkpoint), CPU), settings


def rows_of(fold: int) -> pd.DataFrame:
    """Dice and both distances of each test patient."""
    parts, rows = parts_of("development", fold), []
    training, selection, test = (stored("development", of) for of in (parts.training, parts.selection, parts.test))
    network, settings = trained(fold, training, selection)
    own = [deepest_features(network, case.image, case.reach, settings)[1] for case in training]
    spreads = (
        spread_of(np.array([image_statistics(case.image, case.reach) for case in training])),
        spread_of(np.array(own)),
    )
    for i, case in enumerate(test):
        image, rng = np.array(case.image, np.float32), np.random.default_rng([fold, i])
        image = by_another_scanner(image, case.reach, rng) if i % 2 else image
        probability, features = deepest_features(network, image, case.reach, settings)
        predicted, truth = probability >= UNDECIDED.threshold, case.label > 0
        score = float(dice(2.0 * (predicted & truth).sum(), predicted.sum() + truth.sum()))
        far = distance(spreads[0], image_statistics(image, case.reach)), distance(spreads[1], features)
        rows.append((fold, i % 2, score, *far))
    return pd.DataFrame(rows, columns=["fold", "changed", "dice", "statistics", "features"])


def main() -> None:
    """Print the area under the ROC curve of each distance."""
    table = pd.concat([rows_of(fold) for fold in range(FOLDS)], ignore_index=True)
    print(table.groupby("changed")[["dice", "statistics", "features"]].mean().round(2))
    for name, part in (("all patients", table), ("other scanner", table[table["changed"] == 1])):
        failed = (part["dice"] < FAILURE_DICE).to_numpy()
        for measure in ("statistics", "features"):
            # distances of two networks are compared by their ranks
            ranks = part.groupby("fold")[measure].rank(pct=True).to_numpy()
            area = estimate(*area_under_roc(ranks, failed, 2000, 0))
            rank = part[["dice", measure]].corr("spearman").iloc[0, 1]
            print(
                f"{name}, {measure}: {failed.sum()} failures of {len(part)}, area under ROC {area}, Spearman {rank:.2f}"
            )


if __name__ == "__main__":
    main()
