"""Cost of prediction: the study's overlap of windows against this workbook's, windows without head, mirror images.

A small U-Net is trained for two minutes on synthetic patients at 2 mm, so that Dice means something, and predicts
patients it never saw, each at the threshold that is best for the others of them. Speed is a ratio of two ways run
one after the other on one machine, one thread.

    python benchmarks/inference.py
"""

import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch

from metaseg_nb.cohort.datalist import read_datalist
from metaseg_nb.cohort.synthetic.files import make_cohort
from metaseg_nb.inference.decision import dice_by_decision
from metaseg_nb.inference.selection import selection_dice
from metaseg_nb.inference.sliding_window import predict_probability
from metaseg_nb.layout import RunLayout
from metaseg_nb.parameters import resolve
from metaseg_nb.preprocessing.case_store import StoredCase, open_cases
from metaseg_nb.preprocessing.prepare import prepare_cohort
from metaseg_nb.settings import Preprocess, Train
from metaseg_nb.training.checkpoints import load_checkpoint, network_of
from metaseg_nb.training.fit import fit
from metaseg_nb.training.patches import PatchBatches

CPU = torch.device("cpu")
TRAINED, SELECTION, UNSEEN = 16, 2, 6
SPACING_MM = 2.0
TRAINING = {
    "width": 0.5,
    "patch_size": 32,
    "patches_per_case": 2,
    "flip_probability": 0.5,
    "epochs": 240,
    "ema_decay": 0.99,
    "validate_every": 80,
    "overlap": 0.5,
}
STUDYS_OVERLAP = 0.8
# At 1 mm, voxels.
WINDOWS = (64, 96, 128)


class Counting(torch.nn.Module):
    """A network that counts the windows it is shown; one of its own does nothing with them."""

    def __init__(self, network: torch.nn.Module | None = None):
        super().__init__()
        self.network, self.windows = network, 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Count, and pass the windows on."""
        self.windows += len(x)
        return self.network(x) if self.network else x[:, :1]


def prepared(folder: Path) -> list[StoredCase]:
    cohort = read_datalist(make_cohort(folder / "cohort", TRAINED + SELECTION + UNSEEN, seed=3))
    settings = Preprocess.check(resolve("02_preprocess_n4", "demo") | {"spacing_mm": SPACING_MM})
    found = prepare_cohort(cohort, folder / "cases", settings)
    assert not found.problems, found.problems
    return open_cases(folder / "cases", cohort.cases)


def trained(folder: Path, training: list[StoredCase], selection: list[StoredCase], settings: Train) -> torch.nn.Module:
    run = RunLayout(folder / "run")
    validate = partial(selection_dice, cases=selection, settings=settings, device=CPU)
    history = fit(settings, PatchBatches(training, settings), run, validate, training[0].recipe)
    print(f"Trained for {history['seconds'].iloc[-1]:.0f} s.\n", flush=True)
    return network_of(load_checkpoint(run.best_checkpoint), CPU)


def everywhere(shape: tuple[int, int, int]) -> np.ndarray:
    return np.argwhere(np.ones(shape, bool))


def by_way(network: torch.nn.Module, cases: list[StoredCase], settings: Train) -> None:
    ways = {
        f"overlap {STUDYS_OVERLAP}, all windows: the study's": ({"overlap": STUDYS_OVERLAP}, False),
        "overlap 0.5, all windows": ({}, False),
        "overlap 0.5, windows near the head: ours": ({}, True),
        "ours, mirrored": ({"mirrored": True}, True),
        "overlap 0.25, windows near the head": ({"overlap": 0.25}, True),
    }
    print(
        f"| {len(cases)} unseen cases, windows of {settings.patch_size}³ | windows a case | seconds a case | ", end=""
    )
    print("times as fast as the study's | Dice | less than the study's |\n|---|---|---|---|---|---|")
    first = None
    for name, (changes, head_only) in ways.items():
        n_windows, seconds, score = predicted(network, cases, settings.model_copy(update=changes), head_only)
        first = first or (seconds, score)
        speed, loss = first[0] / seconds, first[1] - score
        print(f"| {name} | {n_windows:.0f} | {seconds:.2f} | {speed:.1f} | {score:.3f} | {loss:.4f} |", flush=True)
    print()


def predicted(
    network: torch.nn.Module, cases: list[StoredCase], settings: Train, head_only: bool
) -> tuple[float, float, float]:
    """Windows and seconds a case, and mean Dice on the study grid, each case at the best threshold of the others."""
    counting, scores, seconds = Counting(network).eval(), [], 0.0
    for case in cases:
        voxels = case.head_voxels if head_only else everywhere(case.grid.shape)
        start = time.perf_counter()
        probability = predict_probability(counting, case.image, voxels, settings, CPU)
        seconds += time.perf_counter() - start
        scores.append(dice_by_decision(probability, case.label > 0, case.grid.spacing_mm)[:, 0])
    fair = [own[(np.sum(scores, axis=0) - own).argmax()] for own in scores]
    return counting.windows / len(cases), seconds / len(cases), float(np.mean(fair))


def at_full_size(case: StoredCase, settings: Train) -> None:
    """How many windows an image of 1 mm takes, and how few of them fewer overlap and the head leave."""
    times = round(SPACING_MM)
    shape = tuple(n * times for n in case.grid.shape)
    image, head = np.zeros((1, *shape), np.float32), np.array(case.head_voxels) * times
    print(f"| window, of {shape} at 1 mm | study's windows | overlap 0.5 | and near the head | ratio |")
    print("|---|---|---|---|---|")
    for size in WINDOWS:
        counts = []
        for overlap, voxels in ((STUDYS_OVERLAP, everywhere(shape)), (0.5, everywhere(shape)), (0.5, head)):
            network, windows = Counting(), {"patch_size": size, "overlap": overlap}
            predict_probability(network, image, voxels, settings.model_copy(update=windows), CPU)
            counts.append(network.windows)
        print(f"| {size}³ | {counts[0]} | {counts[1]} | {counts[2]} | {counts[0] / counts[2]:.1f} |", flush=True)


def main() -> None:
    torch.set_num_threads(1)
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    settings = Train.check(resolve("03_train", "demo", "unet", 0) | TRAINING)
    with tempfile.TemporaryDirectory() as name:
        cases = prepared(Path(name))
        training, others = cases[:TRAINED], cases[TRAINED:]
        network = trained(Path(name), training, others[:SELECTION], settings)
        by_way(network, others[SELECTION:], settings)
        at_full_size(cases[0], settings)


if __name__ == "__main__":
    main()
