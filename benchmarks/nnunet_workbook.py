"""The workbook's side of `nnunet.py`: train a network for so many CPU seconds on one thread, and predict with it.

python benchmarks/nnunet_workbook.py test dynunet 0 1        cohort, configuration, fold, seed
"""

import os

if __name__ == "__main__":
    # before PyTorch loads; CPU seconds say nothing of a GPU
    os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}

import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunet_cohorts import FOLDER, parts_of, stored

import metaseg_nb as ms
from metaseg_nb.inference.sliding_window import case_probability
from metaseg_nb.layout import RunLayout
from metaseg_nb.parameters import resolve
from metaseg_nb.settings import Train
from metaseg_nb.training.networks import count_parameters

SECONDS = 60 * float(os.environ.get("BENCH_MINUTES", "4"))
# Epochs that are trained to see what one takes; the first of them warms up.
TRIED, SAVED = 3, 8
# Of neighbouring windows, as nnU-Net has it.
OVERLAP = 0.5
STRONG = {"augmentation": "strong", "flip_probability": 0.5}
# DynUNet of half width in patches of 32³ is the network of nnU-Net's small plan: 16 to 128 channels.
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "dynunet": {},
    "dynunet_strong": STRONG,
    "unet": {"network": "unet"},
    "dynunet_lesion": {"sampling": "lesion"},
    "dynunet_patch48": {"patch_size": 48},
    "dynunet_lr001": {"learning_rate": 0.001},
    "dynunet_lr006": {"learning_rate": 0.006},
    "dynunet_blob": {"loss": "blob"},
    "dynunet_focal": {"loss": "dice_focal"},
    "dynunet_flips": {"flip_probability": 0.5},
    "dynunet_ema99": {"ema_decay": 0.99},
    # 8 patches of 32³, about as many voxels as 2 of 48³
    "dynunet_batch8": {"batch_size": 4, "patches_per_case": 2},
}


def settings_of(configuration: str, fold: int, seed: int) -> Train:
    """The demo's settings, changed by a configuration; a validation at each epoch."""
    changes = {"network": "dynunet", "seed": seed, "mirrored": False, "overlap": OVERLAP, "validate_every": 1}
    values = resolve("03_train", "demo", "dynunet", 0) | {"patch_size": 32, "width": 0.5, "learning_rate": 0.003}
    return Train.check(values | changes | {"fold": fold} | CONFIGURATIONS[configuration])


def folder_of(cohort: str, configuration: str, fold: int, seed: int) -> Path:
    """Where a training's results are; ``record.json`` is written last."""
    return FOLDER / "trained" / cohort / configuration / f"fold{fold}_seed{seed}"


def trained(
    folder: Path, cases: Sequence, settings: Train, keep: Callable[[int, torch.nn.Module], None] = lambda *_: None
) -> list[float]:
    """Train; the process's CPU seconds at each validation, without what ``keep`` takes of (epoch, network)."""
    seconds, kept = [], 0.0
    first = time.process_time()

    def validate(network: torch.nn.Module) -> float:
        nonlocal kept
        start = time.process_time()
        seconds.append(start - first - kept)
        keep(min(len(seconds) * settings.validate_every, settings.epochs), network)
        kept += time.process_time() - start
        return 0.0  # of equals the later weights are kept: the last

    ms.training.train(RunLayout(folder), ms.training.PatchBatches(cases, settings, len(cases)), validate)
    return [*seconds, time.process_time() - first - kept]


def main(cohort: str, configuration: str, fold: int, seed: int) -> None:
    torch.set_num_threads(1)
    parts, settings = parts_of(cohort, fold), settings_of(configuration, fold, seed)
    folder, cases = folder_of(cohort, configuration, fold, seed), stored(cohort, parts.training)
    shutil.rmtree(folder, ignore_errors=True)  # a training that was stopped: its seconds are not known
    with tempfile.TemporaryDirectory() as scratch:
        tried = trained(Path(scratch) / "run", cases, settings.model_copy(update={"epochs": TRIED}))
    epoch_s = (tried[TRIED - 1] - tried[0]) / (TRIED - 1)
    epochs = max(1, round(SECONDS / epoch_s))
    settings = settings.model_copy(update={"epochs": epochs, "validate_every": max(1, round(epochs / SAVED))})

    def keep(epoch: int, network: torch.nn.Module) -> None:
        torch.save(network.state_dict(), folder / f"weights_{epoch}.pt")

    folder.mkdir(parents=True)
    seconds = trained(folder / "run", cases, settings, keep)
    network = ms.training.network_of(ms.training.load_checkpoint(folder / "run" / "best.pt"), torch.device("cpu"))
    (folder / "probabilities").mkdir()
    start = time.process_time()
    predicted = [*parts.selection, *parts.test]
    for case in stored(cohort, predicted):
        probability = case_probability(network, case, settings, torch.device("cpu"))
        np.savez_compressed(folder / "probabilities" / f"{case.name}.npz", probability=probability.astype(np.float16))
    record = {
        "cpu_s": seconds[-1],
        "steps": epochs * -(-len(cases) // settings.batch_size),
        "epochs": epochs,
        "million_parameters": count_parameters(network) / 1e6,
        "prediction_s": (time.process_time() - start) / len(predicted),
        "settings": settings.model_dump(),
    }
    (folder / "record.json").write_text(json.dumps(record, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
