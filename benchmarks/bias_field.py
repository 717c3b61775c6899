"""Time N4 with this workbook's settings against the study's, and measure both against the true field.

python benchmarks/bias_field.py [patients]        synthetic patients at about 1 mm; 2 unless told

The study: SimpleITK's N4 inside Otsu's mask, shrunk by 2, 4 levels of 50 iterations. One thread each.
"""

import os

os.environ |= {"OMP_NUM_THREADS": "1", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": "1"}  # before ITK loads

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from metaseg_nb.cohort.cases import Case
from metaseg_nb.cohort.datalist import read_datalist
from metaseg_nb.cohort.head import head_mask
from metaseg_nb.cohort.volumes import Volume, read_volume
from metaseg_nb.demo_cohort.files import make_cohort
from metaseg_nb.demo_cohort.rendering import true_bias_field
from metaseg_nb.parameters import resolve
from metaseg_nb.preprocessing.bias import correct_bias
from metaseg_nb.preprocessing.sitk_images import from_sitk, to_sitk

SEED = 0


def studys(volume: Volume) -> np.ndarray:
    image = to_sitk(np.maximum(volume.array, 0), volume.spacing_mm)
    mask = to_sitk(head_mask(volume.array).astype(np.uint8), volume.spacing_mm)
    n4 = sitk.N4BiasFieldCorrectionImageFilter()
    n4.SetMaximumNumberOfIterations([50] * 4)
    n4.Execute(sitk.Shrink(image, [2] * 3), sitk.Shrink(mask, [2] * 3))
    return volume.array / np.exp(from_sitk(n4.GetLogBiasFieldAsImage(image)))


def ours(volume: Volume) -> np.ndarray:
    settings = resolve("02_preprocess_n4", "usz")
    names = ("bias_correction", "n4_levels", "n4_iterations", "n4_fit_spacing_mm")
    return correct_bias(volume, *(settings[name] for name in names))


def error(volume: Volume, corrected: np.ndarray, truth: np.ndarray) -> float:
    """Root mean square of estimated / true field inside the brain, both scaled to equal mean."""
    brain = head_mask(volume.array)
    ratio = volume.array[brain] / corrected[brain] / truth[brain]
    return float((ratio / ratio.mean()).std())


def measure(case: Case, index: int) -> list[float]:
    volume = read_volume(case.image, case.name)
    truth = true_bias_field(SEED, index, volume.array.shape, volume.affine)
    row = [error(volume, volume.array, truth)]
    for way in (studys, ours):
        start = time.perf_counter()
        corrected = way(volume)
        row += [time.perf_counter() - start, error(volume, corrected, truth)]
    return row


def main() -> None:
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 2
    with tempfile.TemporaryDirectory() as scratch:
        cases = read_datalist(make_cohort(Path(scratch) / "cohort", n, SEED)).cases
        print("Error: root mean square of estimated / true bias field inside the brain; synthetic patients.\n")
        print("| case | error uncorrected | study's, s | error | ours, s | error | study's / ours |")
        print("|---|---|---|---|---|---|---|")
        for index, case in enumerate(cases):
            before, their_s, their_error, our_s, our_error = measure(case, index)
            cells = f"{before:.3f} | {their_s:.1f} | {their_error:.4f} | {our_s:.1f} | {our_error:.4f}"
            print(f"| {case.name} | {cells} | {their_s / our_s:.1f} |", flush=True)


if __name__ == "__main__":
    main()
