"""What the whole study takes, on paper: GPU hours, storage and memory, from what a small finished study took.

python benchmarks/costs.py [runs/demo] [--tflops 20]

Measured in the small study: bytes of a stored voxel, of a predicted voxel and of a trained parameter, seconds of
preprocessing a voxel, memory of the notebooks. Counted: operations and GPU memory of a training step at the study's
size. Assumed: what a GPU sustains of its peak (--tflops); `seconds` in any history.csv says what yours does.
"""

import argparse
import json
import math
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd

from metaseg_nb.layout import StudyLayout
from metaseg_nb.parameters import job_resources, resolve
from metaseg_nb.settings import Train
from metaseg_nb.training.cost import network_cost

STUDY, NETWORKS, FOLDS = "usz", ("unet", "attention_unet", "segresnet", "unetr"), 5
PATIENTS = (273, 1000, 10_000)
# Four fifths of the patients are not tested in a fold, and a tenth of those select.
TRAINING_SHARE = 0.8 * 0.9
# Published: 30 h for 350 epochs, 120 h for UNETR's 1400, on the study's GPU and with its loading of images.
PUBLISHED_HOURS_AN_EPOCH = 30 / 350


@dataclass(frozen=True)
class Measured:
    """Per unit, in the small study; voxels of the study's grid."""

    voxels_a_case: float
    store_bytes_a_voxel: float
    mask_bytes_a_case: float
    checkpoint_bytes_a_parameter: float
    preprocessing_s_a_voxel: float  # of the patient's own image
    memory_gb: dict[str, float]


def measure(root: Path) -> Measured:
    """Read what a finished study took; its cases are taken to cover the same head at the study's spacing."""
    shapes = [np.load(image, mmap_mode="r").shape[-3:] for image in root.glob("cases/*/image.npy")]
    voxels = sum(math.prod(shape) for shape in shapes)
    finer = (_recipe_spacing_mm(root) / resolve("02_preprocess_n4", STUDY)["spacing_mm"]) ** 3
    runs = list(root.glob("*/fold*/metrics.json"))
    parameters = sum(json.loads(run.read_text(encoding="utf-8"))["parameters"] for run in runs)
    masks = list(root.glob("*/fold*/predictions/*.nii.gz"))
    natives = [math.prod(nib.load(mask).shape) for mask in masks]
    records = [json.loads(record.read_text(encoding="utf-8")) for record in root.rglob("*.run.json")]
    memory = pd.Series({(r["notebook"], n): r["peak_memory_gb"] for n, r in enumerate(records) if r["peak_memory_gb"]})
    return Measured(
        voxels_a_case=voxels / len(shapes) * finer,
        store_bytes_a_voxel=_bytes(root.glob("cases/*/*")) / voxels,
        mask_bytes_a_case=_bytes(masks) / sum(natives) * voxels / len(shapes) * finer,
        checkpoint_bytes_a_parameter=_bytes(p for run in runs for p in run.parent.glob("*.pt")) / parameters,
        preprocessing_s_a_voxel=pd.read_csv(root / "preprocessing.csv")["seconds"].mean() / np.mean(natives),
        memory_gb=memory.groupby(level=0).max().to_dict(),
    )


def _recipe_spacing_mm(root: Path) -> float:
    return json.loads((root / "notebooks/02_preprocess_n4.run.json").read_text(encoding="utf-8"))["parameters"][
        "spacing_mm"
    ]


def _bytes(paths) -> int:
    return sum(path.stat().st_size for path in paths)


def training_table(patients: int, tflops: float) -> pd.DataFrame:
    """GPU hours, memory and jobs of each network: one row each."""
    rows = []
    for model in NETWORKS:
        settings, job = Train.check(resolve("03_train", STUDY, model, 0)), job_resources(STUDY, model)
        cost = network_cost(settings, 1)
        steps = math.ceil(patients * TRAINING_SHARE / settings.batch_size) * settings.epochs
        hours = steps * cost.tflop / tflops / 3600
        rows.append(
            {
                "network": model,
                "parameters_m": cost.parameters / 1e6,
                "tflop_a_step": cost.tflop,
                "gpu_memory_gb": cost.memory_gb,
                "epochs": settings.epochs,
                "hours_a_run": hours,
                "gpu_hours": FOLDS * hours,
                "jobs_a_run": math.ceil(hours / job.job_hours),
                "published_pace_gpu_hours": FOLDS * settings.epochs * PUBLISHED_HOURS_AN_EPOCH * patients / PATIENTS[0],
            }
        )
    return pd.DataFrame(rows)


def study_row(patients: int, training: pd.DataFrame, measured: Measured) -> dict[str, float]:
    """What all networks on all folds take together, with so many patients."""
    runs = len(NETWORKS) * FOLDS
    parameters = training["parameters_m"].sum() * 1e6 * FOLDS
    voxels = patients * measured.voxels_a_case
    return {
        "patients": patients,
        "gpu_hours": training["gpu_hours"].sum(),
        "days_on_4_gpus": training["gpu_hours"].sum() / 24 / 4,
        "published_pace_gpu_hours": training["published_pace_gpu_hours"].sum(),
        "preprocessing_cpu_hours": voxels * measured.preprocessing_s_a_voxel / 3600,
        "case_store_gb": voxels * measured.store_bytes_a_voxel / 1e9,
        "checkpoints_gb": parameters * measured.checkpoint_bytes_a_parameter / 1e9,
        "predictions_gb": runs / FOLDS * patients * measured.mask_bytes_a_case / 1e9,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", nargs="?", type=Path, default=StudyLayout("demo").root, help="a finished study")
    parser.add_argument("--tflops", type=float, default=20.0, help="what a GPU sustains, 10¹² operations a second")
    options = parser.parse_args()
    measured = measure(options.root)
    training = {patients: training_table(patients, options.tflops) for patients in PATIENTS}
    print(f"{PATIENTS[0]} patients, {FOLDS} folds, at {options.tflops:g} TFLOP/s:")
    print(training[PATIENTS[0]].round(2).to_string(index=False))
    print(
        pd.DataFrame([study_row(n, table, measured) for n, table in training.items()]).round(1).to_string(index=False)
    )
    print("most memory of a notebook here, GB:", {name: round(gb, 2) for name, gb in measured.memory_gb.items()})


if __name__ == "__main__":
    main()
