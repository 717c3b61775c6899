"""Prediction: MONAI's sliding windows with the study's overlap against this workbook's, on patients never seen.

Networks are trained for a minute or some on synthetic patients, so that Dice means something: on a CPU (one thread) a
U-Net of half the width at 2 mm, on a GPU the study's four at 1 mm with patches of 128³. Each predicts the same new
patients by every way, each patient at the threshold that is best for the others. What the four take at 1 mm on a CPU is
timed with untrained ones. Speed is a ratio of two ways run one after the other on one machine.

    python benchmarks/inference.py [runs/demo]

With the folder of a finished study: its networks and their test patients instead, each by its own threshold and peak.
"""

import copy
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch
from monai.inferers import sliding_window_inference
from step import STUDY

from metaseg_nb.cohort.datalist import read_datalist
from metaseg_nb.demo_cohort.files import make_cohort
from metaseg_nb.inference.decision import THRESHOLDS, Decision, decision_of, dice, standing
from metaseg_nb.inference.sliding_window import case_probability, selection_dice
from metaseg_nb.layout import RunLayout
from metaseg_nb.machine import device, device_name
from metaseg_nb.parameters import resolve
from metaseg_nb.preprocessing.case_store import StoredCase, open_cases
from metaseg_nb.preprocessing.prepare import prepare_cohort
from metaseg_nb.settings import Preprocess, Train
from metaseg_nb.training.checkpoints import load_checkpoint, network_of
from metaseg_nb.training.fit import fit
from metaseg_nb.training.networks import build_network, prediction_layout
from metaseg_nb.training.patches import PatchBatches

DEVICE = device()
ON_GPU = DEVICE.type == "cuda"
TRAINED, SELECTION, UNSEEN = 20, 2, 24
STUDYS_OVERLAP, OVERLAP = 0.8, 0.5
CPU_SIZE = {"width": 0.5, "patch_size": 32, "patches_per_case": 2}
FULL_SIZE = {"width": 1.0, "patch_size": 128, "patches_per_case": 4}
SPACING_MM, SIZE = (1.0, FULL_SIZE) if ON_GPU else (2.0, CPU_SIZE)
TRAINING = {"flip_probability": 0.5, "ema_decay": 0.99, "learning_rate": 0.001, "overlap": OVERLAP, "precision": "bf16"}
# About a minute each on a large GPU.
NETWORKS = (
    {
        "unet": {"epochs": 100, "validate_every": 50},
        "attention_unet": {"epochs": 50, "validate_every": 25},
        "segresnet": {"epochs": 30, "validate_every": 15},
        "unetr": {"epochs": 30, "validate_every": 15, "learning_rate": 0.0003},
    }
    if ON_GPU
    else {"unet": {"epochs": 200, "validate_every": 100}}
)


class Counting(torch.nn.Module):
    """A network that counts the voxels it is shown."""

    def __init__(self, network: torch.nn.Module):
        super().__init__()
        self.network, self.voxels = network, 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Count, and pass the windows on."""
        self.voxels += x[:, 0].numel()
        return self.network(x)


def prepared(folder: Path, n: int, spacing_mm: float) -> list[StoredCase]:
    workers = os.cpu_count() or 1
    cohort = read_datalist(make_cohort(folder / "cohort", n, seed=3, workers=workers))
    changes = {"spacing_mm": spacing_mm, "workers": workers}
    settings = Preprocess.check(resolve("02_preprocess_n4", "demo") | changes)
    found = prepare_cohort(cohort, folder / "cases", settings)
    assert not found.problems, found.problems
    return open_cases(folder / "cases", cohort.cases)


def trained(folder: Path, training: list[StoredCase], selection: list[StoredCase], settings: Train) -> torch.nn.Module:
    run = RunLayout(folder / settings.network)
    validate = partial(selection_dice, cases=selection, settings=settings, device=DEVICE)
    history = fit(run, PatchBatches(training, settings), validate)
    steps, seconds = (history[column].diff().iloc[-1] for column in ("step", "seconds"))
    patches = steps * settings.batch_size * settings.patches_per_case
    print(
        f"{settings.network}, {device_name()}: trained for {history['seconds'].iloc[-1]:.0f} s; {patches / seconds:.1f}"
        f" patches of {settings.patch_size}³ a second, cut and changed by the way, with the look at the selection set."
    )
    return network_of(load_checkpoint(run.best_checkpoint), DEVICE)


@torch.inference_mode()
def monais(network: torch.nn.Module, overlap: float, settings: Train, case: StoredCase) -> np.ndarray:
    """Lesion probabilities as MONAI's tutorials make them: single precision, all windows, four at once."""
    image = torch.from_numpy(np.asarray(case.image, np.float32))[None].to(DEVICE)
    windows = (settings.patch_size,) * 3
    logits = sliding_window_inference(image, windows, 4, network, overlap=overlap, mode="gaussian")
    return logits.sigmoid()[0, 0].cpu().numpy()


def ours(network: torch.nn.Module, settings: Train, case: StoredCase) -> np.ndarray:
    return case_probability(network, case, settings, DEVICE)


def plain(network: torch.nn.Module) -> torch.nn.Module:
    return copy.deepcopy(network).to(memory_format=torch.contiguous_format)


def timed(call: Callable[[], np.ndarray]) -> tuple[np.ndarray, float]:
    start = time.perf_counter()
    result = call()
    return result, time.perf_counter() - start


def by_way(network: torch.nn.Module, cases: list[StoredCase], settings: Train) -> None:
    single, mirrored = (settings.model_copy(update=change) for change in ({"precision": "no"}, {"mirrored": True}))
    theirs, own = Counting(plain(network)).eval(), Counting(network).eval()
    ways = {
        f"MONAI, overlap {STUDYS_OVERLAP}: the study's": (theirs, partial(monais, theirs, STUDYS_OVERLAP, settings)),
        f"MONAI, overlap {OVERLAP}": (theirs, partial(monais, theirs, OVERLAP, settings)),
        "ours, single precision": (theirs, partial(ours, theirs, single)),
        "ours": (own, partial(ours, own, settings)),
        "ours, mirrored": (own, partial(ours, own, mirrored)),
    }
    print(f"| {len(cases)} unseen cases | a voxel is shown | s a case | times as fast | Dice | to the study's ± s.e. |")
    print("|---|---|---|---|---|---|")
    first = None
    for name, (counting, predict) in ways.items():
        shown, seconds, scores = predicted(counting, predict, cases)
        first = first or (seconds, scores)
        print(f"| {name} | {shown:.1f} times | {seconds:.2f} | {first[0] / seconds:.1f} ", end="")
        print(f"| {scores.mean():.3f} | {difference(scores, first[1])} |", flush=True)
    print()


def predicted(
    counting: Counting, predict: Callable[[StoredCase], np.ndarray], cases: Sequence[StoredCase]
) -> tuple[float, float, np.ndarray]:
    """How often a voxel is shown, seconds a case, and Dice of each case at the best threshold of the others."""
    predict(cases[0])  # warms up
    counting.voxels, total_s, scores = 0, 0.0, []
    for case in cases:
        probability, seconds = timed(partial(predict, case))
        total_s += seconds
        scores.append(dice_by_threshold(probability, case.label > 0))
    fair = [own[(np.sum(scores, axis=0) - own).argmax()] for own in scores]
    return counting.voxels / sum(case.label.size for case in cases), total_s / len(cases), np.array(fair)


def dice_by_threshold(probability: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Dice on the study grid at each of `THRESHOLDS`."""
    of_all, of_lesion = (
        np.histogram(values, [*THRESHOLDS, np.inf])[0][::-1].cumsum()[::-1]
        for values in (probability[probability >= THRESHOLDS[0]], probability[truth])
    )
    return dice(2.0 * of_lesion, of_all + truth.sum())


def difference(scores: np.ndarray, studys: np.ndarray) -> str:
    more = scores - studys
    return f"{more.mean():+.4f} ± {more.std(ddof=1) / len(more) ** 0.5:.4f}, median {np.median(more):+.4f}"


def of_study(root: Path) -> None:
    """The networks of a finished study on their test patients, by both ways."""
    cohort = read_datalist(root / "dataset.json")
    print("| network | patients | the study's: Dice | ours: Dice | to the study's ± s.e. | times as fast |")
    print("|---|---|---|---|---|---|")
    for model in sorted({path.parents[1] for path in root.glob("*/fold*/metrics.json")}):
        found = []
        for run in map(RunLayout, sorted(model.glob("fold*"))):
            tested = json.loads(run.metrics.read_text(encoding="utf-8"))["cases"]["test"]
            cases = [case for case in cohort.cases if case.name in tested]
            found += both_ways(load_checkpoint(run.best_checkpoint), open_cases(root / "cases", cases))
        (theirs, their_s), (mine, our_s) = np.array(found).transpose(1, 2, 0)
        print(f"| {model.name} | {len(found)} | {theirs.mean():.3f} | {mine.mean():.3f} ", end="")
        print(f"| {difference(mine, theirs)} | {their_s.sum() / our_s.sum():.1f} |", flush=True)


def both_ways(checkpoint: dict, cases: Sequence[StoredCase]) -> list[list[tuple[float, float]]]:
    """Of each case its Dice on the study grid and its seconds: the study's way, and ours."""
    settings = Train.check(checkpoint["identity"]["settings"]).model_copy(update={"overlap": OVERLAP})
    network, decision = network_of(checkpoint, DEVICE), decision_of(checkpoint)
    ways = partial(monais, plain(network), STUDYS_OVERLAP, settings), partial(ours, network, settings)
    return [[scored(predict, decision, case) for predict in ways] for case in cases]


def scored(predict: Callable[[StoredCase], np.ndarray], decision: Decision, case: StoredCase) -> tuple[float, float]:
    probability, seconds = timed(partial(predict, case))
    mask, truth = standing(probability, decision) >= decision.threshold, case.label > 0
    return float(dice(2.0 * (mask & truth).sum(), mask.sum() + truth.sum())), seconds


def at_full_size(folder: Path) -> None:
    """Seconds that the study's networks, untrained, take for a case at 1 mm in windows of 128³."""
    (case,) = prepared(folder, 1, 1.0)
    print(f"| image of {case.grid.shape} | study's, s | ours, single precision, s | ours, s | study's / ours |")
    print("|---|---|---|---|---|")
    for name in STUDY:
        settings = Train.check(resolve("03_train", "demo", name, 0) | TRAINING | FULL_SIZE)
        network = build_network(name, settings.width, settings.patch_size, 1).eval()
        own = copy.deepcopy(network).to(memory_format=prediction_layout(name, settings.precision, DEVICE))
        single = settings.model_copy(update={"precision": "no"})
        ways = (
            partial(monais, network, STUDYS_OVERLAP, settings),
            partial(ours, network, single),
            partial(ours, own, settings),
        )
        ours(own, settings, case)  # warms up
        seconds = [timed(partial(predict, case))[1] for predict in ways]
        columns = " | ".join(f"{value:.1f}" for value in seconds)
        print(f"| {name} | {columns} | {seconds[0] / seconds[-1]:.1f} |", flush=True)


def main() -> None:
    if not ON_GPU:
        torch.set_num_threads(1)
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    if len(sys.argv) > 1:
        of_study(Path(sys.argv[1]))
        return
    with tempfile.TemporaryDirectory() as name:
        cases = prepared(Path(name), TRAINED + SELECTION + UNSEEN, SPACING_MM)
        training, others = cases[:TRAINED], cases[TRAINED:]
        for model, changes in NETWORKS.items():
            settings = Train.check(resolve("03_train", "demo", model, 0) | TRAINING | SIZE | changes)
            network = trained(Path(name), training, others[:SELECTION], settings)
            by_way(network, others[SELECTION:], settings)
        if not ON_GPU:
            at_full_size(Path(name) / "full_size")


if __name__ == "__main__":
    main()
