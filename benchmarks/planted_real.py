"""The real part of `planted.py`: networks that saw no annotation, on real volumes that they never saw.

    python benchmarks/planted_real.py FOLDER [SEED]        the folder of a Decathlon list of six volumes

Synthetic patients have lesions that are known because they were painted. Real volumes of the other folds have planted
lesions; their masks are only scored with. Heads with skull are extracted by deepbet.
"""

import os

if __name__ == "__main__":
    os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}  # before PyTorch loads

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from nnunet_cohorts import FOLDER, cohort_of, parts_of

import metaseg_nb as ms
from metaseg_nb.annotation.planting import with_planted_lesions
from metaseg_nb.cohort.cases import Cohort
from metaseg_nb.evaluation.lesion_metrics import lesion_metrics
from metaseg_nb.inference.decision import standing
from metaseg_nb.inference.sliding_window import case_probability
from metaseg_nb.layout import RunLayout
from metaseg_nb.parameters import resolve
from metaseg_nb.preprocessing.stored_case import StoredCase
from metaseg_nb.settings import Preprocess, Train

CPU, SPACING_MM = torch.device("cpu"), 2.0
# Of enhancing tumour and necrosis; 2 is oedema.
LESIONS = ms.cohort.LesionRule(values=(1, 3, 4), other_values=(2,))
WITH_SKULL = ("thick_brain1", "thick_brain2")
FOLDS = (("met_00110", "thick_brain2"), ("gli_00001", "ms_patient26"), ("tcga_fg6692", "thick_brain1"))
# Its bright part has no mask: voxels brighter than this around the middle of the nodule, along the axes of the file.
NODULE, NODULE_MM, REACH_MM, BRIGHT = "met_00110", (91.5, 47.5, 74.5), 20.0, 1.25
# Plantings of each real volume, and synthetic patients.
DRAWS, SYNTHETIC = 3, 12
WAYS: dict[str, tuple[bool, bool, str]] = {  # synthetic patients, real volumes with planted lesions, augmentation
    "synthetic": (True, False, "study"),
    "synthetic, strong": (True, False, "strong"),
    "planted, strong": (False, True, "strong"),
    "both, strong": (True, True, "strong"),
    "planted": (False, True, "study"),
}
RECIPE: dict[str, Any] = {"study": "planted_real", "network": "unet", "width": 0.5, "patch_size": 32, "batch_size": 2}
RECIPE |= {"epochs": 25, "validate_every": 25, "learning_rate": 0.003, "flip_probability": 0.5, "overlap": 0.25}
EPOCH_CASES = 24


def prepared(name: str, cohort: Cohort, brain: str = "keep") -> list[StoredCase]:
    """The cases of a cohort on a grid of 2 mm."""
    changes = {"study": name, "spacing_mm": SPACING_MM, "brain": brain, "workers": 1}
    settings, store = Preprocess.check(resolve("02_preprocess_n4", "demo") | changes), FOLDER / f"{name}_cases"
    outcome = ms.preprocessing.prepare_cohort(cohort, store, settings)
    assert not outcome.problems, outcome.problems
    return ms.preprocessing.open_cases(store, cohort.all_cases)


def real(folder: Path) -> dict[str, StoredCase]:
    """The six volumes, by name."""
    found, _ = ms.cohort.read_cohort(str(folder / "dataset.json"), base=ms.PROJECT)
    found, stored = replace(found, rule=LESIONS), []
    for brain in ("keep", "deepbet"):
        cases, others = (
            [case for case in group if (case.name in WITH_SKULL) == (brain == "deepbet")]
            for group in (found.cases, found.unlabelled)
        )
        stored += prepared(f"real_{brain}", replace(found, cases=cases, unlabelled=others), brain)
    return {case.name: case for case in stored}


def planted(cases: Sequence[StoredCase]) -> list[StoredCase]:
    """Each case several times, each time with other lesions."""
    drawn = [(case, seed) for case in cases for seed in range(DRAWS)]
    return [
        replace(with_planted_lesions(case, seed, FOLDER / "planted"), name=f"{case.name}_{seed}")
        for case, seed in drawn
    ]


def network_of(way: str, fold: int, cases: dict[str, StoredCase], seed: int) -> torch.nn.Module:
    """Train, unless it is there; what learns from synthetic patients alone is the same in every fold."""
    synthetic, plants, augmentation = WAYS[way]
    settings = Train.check(
        resolve("03_train", "demo", "unet", 0) | RECIPE | {"augmentation": augmentation, "seed": seed}
    )
    folder = FOLDER / "planted_real" / f"seed{seed}" / way.replace(", ", "_") / f"fold{fold if plants else 0}"
    learned = planted([case for name, case in cases.items() if name not in FOLDS[fold]]) if plants else []
    if synthetic:
        parts = parts_of("development", 0)
        learned += prepared("synthetic", replace(cohort_of("development"), cases=parts.training[:SYNTHETIC]))
    if not (folder / "best.pt").is_file() or "history" not in ms.training.load_checkpoint(folder / "best.pt"):
        ms.training.train(RunLayout(folder), ms.training.PatchBatches(learned, settings, EPOCH_CASES), lambda _: 0.0)
    return ms.training.network_of(ms.training.load_checkpoint(folder / "best.pt"), CPU)


def relative_brightness(case: StoredCase) -> np.ndarray:
    """Brightness of a volume, white matter being 1, as `plant` has it."""
    image = case.image[0].astype(np.float32)
    dark, white = np.percentile(image[tuple(case.head_voxels.T)], (0.5, 75))
    return (image - dark) / (white - dark)


def reference(case: StoredCase) -> np.ndarray:
    """The mask of a case; of the one without, the bright part of its nodule."""
    if case.name != NODULE:
        return case.label > 0
    away_mm = case.grid.centres_mm(np.argwhere(np.ones(case.grid.shape))) - NODULE_MM
    near = (np.linalg.norm(away_mm, axis=1) < REACH_MM).reshape(case.grid.shape)
    return near & (relative_brightness(case) > BRIGHT)


def main(folder: Path, seed: int) -> None:
    torch.set_num_threads(1)
    cases, rows = real(folder), []
    for way in WAYS:
        for fold, names in enumerate(FOLDS):
            network = network_of(way, fold, cases, seed)
            settings = Train.check(resolve("03_train", "demo", "unet", 0) | RECIPE)
            for case in (cases[name] for name in names):
                probability, truth = case_probability(network, case, settings, CPU), reference(case)
                found = standing(probability, ms.inference.PRIOR) >= ms.inference.PRIOR.threshold
                summary, _ = lesion_metrics(truth, found, case.grid.spacing_mm)
                dice = 2 * (truth & found).sum() / max(1, truth.sum() + found.sum())
                counts = {name: int(summary[name]) for name in ("n_truth", "n_detected", "n_false")}
                covered = (truth & found).sum() / truth.sum()
                rows.append({"way": way, "case": case.name, "dice": dice, "covered": covered} | counts)
                print(seed, rows[-1], flush=True)
                kept = FOLDER / "planted_real" / f"seed{seed}" / f"{way.replace(', ', '_')}_{case.name}.npz"
                np.savez_compressed(kept, probability=probability.astype(np.float16))
        ms.write_table(FOLDER / "planted_real" / f"seed{seed}.csv", pd.DataFrame(rows))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("seed", type=int, nargs="?", default=1)
    main(**vars(parser.parse_args()))
