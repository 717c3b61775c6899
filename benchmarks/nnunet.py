"""Compare the workbook with nnU-Net (https://github.com/MIC-DKFZ/nnUNet) at equal CPU time, one thread each.

    make bench PART=nnunet                                                    the comparison
    python benchmarks/nnunet.py development dynunet,unet 0 1,2                configurations, fold, seeds: to pick one

Both run on the processor, also where there is a GPU: the clock is that of the processor.

60 synthetic patients (`nnunet_cohorts.py`) on the workbook's study grid of 3 mm, two folds by patient: 27 to train on,
3 to select on, 30 to test on. Both programs get the same images and labels, and train for BENCH_MINUTES of CPU time
(4 unless told; validations are not counted). The final weights predict: nnU-Net's last, the workbook's running mean
at the last step. Neither mirrors what it predicts; windows overlap by half in both.

All is kept in BENCH_FOLDER (``runs/bench_nnunet`` unless told), and nothing there is made again:

- ``runs/<cohort>/``: the cohort (``synthetic_cohort/``) and its case store (``cases/``);
- ``trained/<cohort>/<configuration>/fold<k>_seed<s>/``: ``probabilities/<case>.npz`` (``probability``, float16, study
  grid; selection and test patients), ``record.json`` (CPU seconds, steps), ``scores_2023_2026.csv``; of the workbook
  also ``weights_<epoch>.pt``, the state dict of the running mean at eight epochs, and ``run/`` as notebook 03 leaves
  it;
- ``nnunet/<cohort>/``: what nnU-Net reads and preprocesses; ``venv/``: its environment.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import nibabel as nib
import numpy as np
from nnunet_cohorts import FOLDER, SPACING_MM, parts_of, stored
from nnunet_scores import judged, of_test, paired, summary
from nnunet_workbook import SECONDS, folder_of

PYTHON = FOLDER / "venv" / "bin" / "python"
INSTALL = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check")
AFFINE = np.diag([SPACING_MM] * 3 + [1.0])


def install() -> None:
    """Make an environment for nnU-Net, which draws other versions than the workbook's, and put torch's back."""
    if (FOLDER / "venv" / "done").exists():
        return
    subprocess.run([sys.executable, "-m", "venv", FOLDER / "venv"], check=True)
    subprocess.run([PYTHON, *INSTALL, "nnunetv2==2.8.1"], check=True)
    subprocess.run([PYTHON, "-m", "pip", "uninstall", "--quiet", "--yes", "torchvision"], check=True)
    subprocess.run([PYTHON, *INSTALL, "torch==2.13.0"], check=True)
    (FOLDER / "venv" / "done").touch()


def data_set(cohort: str, fold: int) -> Path:
    """Write what nnU-Net reads: the stored images and labels of a fold, as NIfTI on the study grid."""
    folder = FOLDER / "nnunet" / cohort / "nnUNet_raw" / f"Dataset{fold + 1:03}_fold{fold}"
    parts = parts_of(cohort, fold)
    if (folder / "dataset.json").exists():
        return folder
    known = [*parts.training, *parts.selection]
    for part, cases in (("Tr", known), ("Ts", parts.test)):
        for kind in ("images", "labels"):
            (folder / f"{kind}{part}").mkdir(parents=True, exist_ok=True)
        for case in stored(cohort, cases):
            image, label = np.asarray(case.image[0], np.float32), np.asarray(case.label, np.uint8)
            nib.save(nib.Nifti1Image(image, AFFINE), folder / f"images{part}" / f"{case.name}_0000.nii.gz")
            nib.save(nib.Nifti1Image(label, AFFINE), folder / f"labels{part}" / f"{case.name}.nii.gz")
    names = [{"train": [case.name for case in parts.training], "val": [case.name for case in parts.selection]}]
    (folder / "splits.json").write_text(json.dumps(names), encoding="utf-8")
    labels = {"background": 0, "metastasis": 1}
    facts = {"channel_names": {"0": "MRI"}, "labels": labels, "numTraining": len(known), "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps(facts), encoding="utf-8")
    return folder


def train(cohort: str, configuration: str, fold: int, seed: int) -> None:
    """Train and predict in a process of its own, unless that was done."""
    folder, here = folder_of(cohort, configuration, fold, seed), Path(__file__).parent
    if (folder / "record.json").exists():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    if configuration == "nnunet":
        command = [PYTHON, here / "nnunet_theirs.py", data_set(cohort, fold), folder, SECONDS, seed]
    else:
        command = [sys.executable, here / "nnunet_workbook.py", cohort, configuration, fold, seed]
    with folder.with_suffix(".log").open("w", encoding="utf-8") as log:
        environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        subprocess.run([*map(str, command)], check=True, stdout=log, stderr=subprocess.STDOUT, env=environment)


def main(cohort: str, configurations: Sequence[str], folds: Sequence[int], seeds: Sequence[int]) -> None:
    for seed, configuration, fold in product(seeds, configurations, folds):
        train(cohort, configuration, fold, seed)
    print(judged(cohort, configurations, folds, seeds), end="\n\n")
    if cohort == "development":
        return
    table = of_test([*product(configurations, folds, seeds)])
    print(summary(table), end="\n\n")
    first, *others = configurations
    for one, rule in product(others, ("chosen", "0.5")):
        print(paired(table, (one, rule), (first, rule)))


if __name__ == "__main__":
    install()
    cohort, configurations, folds, seeds = sys.argv[1:] or ["test", "nnunet,unet,dynunet", "0,1", "1,2,3"]
    main(cohort, configurations.split(","), [*map(int, folds.split(","))], [*map(int, seeds.split(","))])
