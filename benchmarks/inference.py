"""Cost of prediction: the study's overlap of windows against this workbook's, windows without head, mirror images.

A U-Net is trained for some minutes on synthetic patients, so that Dice means something, and predicts patients it
never saw, each at the threshold that is best for the others of them: on a CPU (one thread) half its width at 2 mm, on a
GPU the study's size at 1 mm. Speed is a ratio of two ways run one after the other on one machine.

    python benchmarks/inference.py [runs/demo]

With the folder of a finished study: its networks and their test patients instead, each network at its own threshold.
"""

import json
import os
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch
from step import STUDY

from metaseg_nb.cohort.datalist import read_datalist
from metaseg_nb.cohort.synthetic.files import make_cohort
from metaseg_nb.inference.decision import decision_of, dice_by_decision
from metaseg_nb.inference.selection import dice, selection_dice
from metaseg_nb.inference.sliding_window import predict_probability
from metaseg_nb.layout import RunLayout
from metaseg_nb.parameters import resolve
from metaseg_nb.preprocessing.case_store import StoredCase, open_cases
from metaseg_nb.preprocessing.prepare import prepare_cohort
from metaseg_nb.provenance import device, device_name
from metaseg_nb.settings import Preprocess, Train
from metaseg_nb.training.checkpoints import load_checkpoint, network_of
from metaseg_nb.training.fit import fit
from metaseg_nb.training.networks import build_network, memory_layout
from metaseg_nb.training.patches import PatchBatches

TRAINED, SELECTION, UNSEEN = 20, 2, 12
TRAINING = {"flip_probability": 0.5, "ema_decay": 0.99}
ON_CPU = {
    "width": 0.5,
    "patch_size": 32,
    "patches_per_case": 2,
    "epochs": 200,
    "validate_every": 100,
    "precision": "no",
}
ON_GPU = {
    "width": 1.0,
    "patch_size": 128,
    "patches_per_case": 4,
    "epochs": 100,
    "validate_every": 50,
    "learning_rate": 0.001,
    "precision": "bf16",
    "loader_workers": 8,
}
DEVICE = device()
SPACING_MM, SIZE = (1.0, ON_GPU) if DEVICE.type == "cuda" else (2.0, ON_CPU)
STUDYS_OVERLAP, OVERLAP = 0.8, 0.5
STUDYS = {"overlap": STUDYS_OVERLAP, "precision": "no"}
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
    workers = os.cpu_count() or 1
    cohort = read_datalist(make_cohort(folder / "cohort", TRAINED + SELECTION + UNSEEN, seed=3, workers=workers))
    changes = {"spacing_mm": SPACING_MM, "workers": workers}
    settings = Preprocess.check(resolve("02_preprocess_n4", "demo") | changes)
    found = prepare_cohort(cohort, folder / "cases", settings)
    assert not found.problems, found.problems
    return open_cases(folder / "cases", cohort.cases)


def trained(folder: Path, training: list[StoredCase], selection: list[StoredCase], settings: Train) -> torch.nn.Module:
    run = RunLayout(folder / "run")
    validate = partial(selection_dice, cases=selection, settings=settings, device=DEVICE)
    history = fit(settings, PatchBatches(training, settings), run, validate, training[0].recipe)
    steps, seconds = (history[column].diff().iloc[-1] for column in ("step", "seconds"))
    patches = steps * settings.batch_size * settings.patches_per_case
    print(f"{device_name()}: trained for {history['seconds'].iloc[-1]:.0f} s; {patches / seconds:.1f} patches of")
    print(
        f"{settings.patch_size}³ a second, cut and changed by the way, with the look at the selection set.\n",
        flush=True,
    )
    return network_of(load_checkpoint(run.best_checkpoint), DEVICE)


def everywhere(shape: tuple[int, int, int]) -> np.ndarray:
    return np.argwhere(np.ones(shape, bool))


def by_way(network: torch.nn.Module, cases: list[StoredCase], settings: Train) -> None:
    ways = {
        f"overlap {STUDYS_OVERLAP}, all windows, single precision: the study's": (STUDYS, False),
        f"overlap {OVERLAP}, all windows": ({}, False),
        f"overlap {OVERLAP}, windows near the head: ours": ({}, True),
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
        probability = predict_probability(counting, case.image, voxels, settings, DEVICE)
        seconds += time.perf_counter() - start
        scores.append(dice_by_decision(probability, case.label > 0, case.grid.spacing_mm)[:, 0])
    fair = [own[(np.sum(scores, axis=0) - own).argmax()] for own in scores]
    return counting.windows / len(cases), seconds / len(cases), float(np.mean(fair))


def by_network(case: StoredCase, settings: Train) -> None:
    """Seconds of a case with the study's networks, untrained: the study's way and ours."""
    print("| network | study's, s a case | ours, s a case | ratio |\n|---|---|---|---|")
    for name in STUDY:
        of_network = settings.model_copy(update={"network": name})
        network = build_network(name, settings.width, settings.patch_size, 1)
        network = network.to(DEVICE, memory_format=memory_layout(name, DEVICE)).eval()
        for _ in range(2):  # the first is the warm-up
            theirs = seconds_of(network, case, of_network.model_copy(update=STUDYS), everywhere(case.grid.shape))
            mine = seconds_of(network, case, of_network, case.head_voxels)
        print(f"| {name} | {theirs:.2f} | {mine:.2f} | {theirs / mine:.1f} |", flush=True)
    print()


def seconds_of(network: torch.nn.Module, case: StoredCase, settings: Train, voxels: np.ndarray) -> float:
    start = time.perf_counter()
    predict_probability(network, case.image, voxels, settings, DEVICE)
    return time.perf_counter() - start


def of_study(root: Path) -> None:
    """The networks of a finished study on their test patients: the study's way against ours."""
    cohort = read_datalist(root / "dataset.json")
    print("| network | patients | study's: Dice | ours: Dice | ours − study's ± s.e. | times as fast |")
    print("|---|---|---|---|---|---|")
    for model in sorted({path.parents[1] for path in root.glob("*/fold*/metrics.json")}):
        found = []
        for run in map(RunLayout, sorted(model.glob("fold*"))):
            tested = json.loads(run.metrics.read_text())["cases"]["test"]
            cases = [case for case in cohort.cases if case.name in tested]
            checkpoint = load_checkpoint(run.best_checkpoint)
            network = network_of(checkpoint, DEVICE)
            found += [both_ways(checkpoint, network, case) for case in open_cases(root / "cases", cases)]
        (theirs, their_s), (mine, our_s) = np.array(found).transpose(1, 2, 0)
        error = (mine - theirs).std(ddof=1) / len(found) ** 0.5
        difference = f"{(mine - theirs).mean():+.3f} ± {error:.3f}"
        speed = their_s.sum() / our_s.sum()
        print(f"| {model.name} | {len(found)} | {theirs.mean():.3f} | {mine.mean():.3f} | {difference} | {speed:.1f} |")


def both_ways(checkpoint: dict, network: torch.nn.Module, case: StoredCase) -> list[tuple[float, float]]:
    """Dice of a case on the study grid, and seconds: the study's way and ours."""
    settings, threshold = Train.check(checkpoint["identity"]["settings"]), decision_of(checkpoint).threshold
    truth, found = case.label > 0, []
    for changes, voxels in ((STUDYS, everywhere(case.grid.shape)), ({"overlap": OVERLAP}, case.head_voxels)):
        start = time.perf_counter()
        probability = predict_probability(network, case.image, voxels, settings.model_copy(update=changes), DEVICE)
        seconds, mask = time.perf_counter() - start, probability >= threshold
        found.append((float(dice(2 * (mask & truth).sum(), mask.sum() + truth.sum())), seconds))
    return found


def at_full_size(case: StoredCase, settings: Train) -> None:
    """How many windows an image of 1 mm takes, and how few of them fewer overlap and the head leave."""
    times = round(SPACING_MM)
    shape = tuple(n * times for n in case.grid.shape)
    image, head = np.zeros((1, *shape), np.float32), np.array(case.head_voxels) * times
    print(f"| window, of {shape} at 1 mm | study's windows | overlap {OVERLAP} | and near the head | ratio |")
    print("|---|---|---|---|---|")
    for size in WINDOWS:
        counts = []
        for overlap, voxels in ((STUDYS_OVERLAP, everywhere(shape)), (OVERLAP, everywhere(shape)), (OVERLAP, head)):
            network, windows = Counting(), {"patch_size": size, "overlap": overlap}
            predict_probability(network, image, voxels, settings.model_copy(update=windows), DEVICE)
            counts.append(network.windows)
        print(f"| {size}³ | {counts[0]} | {counts[1]} | {counts[2]} | {counts[0] / counts[2]:.1f} |", flush=True)


def main() -> None:
    if DEVICE.type == "cpu":
        torch.set_num_threads(1)
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    if len(sys.argv) > 1:
        of_study(Path(sys.argv[1]))
        return
    settings = Train.check(resolve("03_train", "demo", "unet", 0) | TRAINING | SIZE | {"overlap": OVERLAP})
    with tempfile.TemporaryDirectory() as name:
        cases = prepared(Path(name))
        training, others = cases[:TRAINED], cases[TRAINED:]
        network = trained(Path(name), training, others[:SELECTION], settings)
        by_way(network, others[SELECTION:], settings)
        by_network(others[-1], settings)
        at_full_size(cases[0], settings)


if __name__ == "__main__":
    main()
