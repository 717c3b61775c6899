"""Compare N4 by matrix products with SimpleITK's filter: time, difference, and error against the true field.

python benchmarks/bias_field.py [PATIENTS [FILE ...]]

PATIENTS (2 by default) are synthetic, at about 1 mm; FILEs are real volumes, whose
true field is not known. Settings are the study's (`usz`). Error: root mean square of estimated / true field inside the
head, both scaled to equal mean. One thread each.
"""

import os

os.environ |= {"OMP_NUM_THREADS": "1", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": "1"}  # before ITK loads

import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from metaseg_nb.cohort.datalist import read_datalist
from metaseg_nb.cohort.head import head_mask
from metaseg_nb.cohort.volumes import Volume, read_volume
from metaseg_nb.demo_cohort.files import make_cohort
from metaseg_nb.demo_cohort.patients import true_bias_field
from metaseg_nb.parameters import resolve
from metaseg_nb.preprocessing.bias import correct_bias

SEED = 0


def corrected_by(way: str, volume: Volume) -> np.ndarray:
    settings = resolve("02_preprocess_n4", "usz")
    return correct_bias(volume, way, *(settings[name] for name in ("n4_levels", "n4_iterations", "n4_fit_spacing_mm")))


def difference(volume: Volume, first: np.ndarray, second: np.ndarray) -> float:
    """Root mean square of the ratio of two fields in the head, in per cent; a constant factor does not count."""
    head = head_mask(volume.array) & (volume.array > 0)
    ratio = first[head] / second[head]
    return 100 * float(ratio.std() / ratio.mean())


def error(volume: Volume, corrected: np.ndarray, truth: np.ndarray) -> float:
    """Root mean square of estimated / true field inside the brain, both scaled to equal mean."""
    brain = head_mask(volume.array)
    ratio = volume.array[brain] / corrected[brain] / truth[brain]
    return float((ratio / ratio.mean()).std())


def measure(name: str, volume: Volume, truth: np.ndarray | None = None) -> None:
    corrected, seconds = {}, {}
    for way in ("n4_itk", "n4"):
        start = time.perf_counter()
        corrected[way] = corrected_by(way, volume)
        seconds[way] = time.perf_counter() - start
    errors = ["" if truth is None else f"{error(volume, corrected[way], truth):.4f}" for way in corrected]
    off = difference(volume, corrected["n4"], corrected["n4_itk"])
    cells = [f"{seconds['n4_itk']:.1f}", errors[0], f"{seconds['n4']:.1f}", errors[1], f"{off:.3f}"]
    print(f"| {name} | {' | '.join(cells)} | {seconds['n4_itk'] / seconds['n4']:.0f} |", flush=True)


def main() -> None:
    n, files = int(sys.argv[1]) if len(sys.argv) > 1 else 2, [Path(file) for file in sys.argv[2:]]
    print("| case | ITK, s | error | n4, s | error | n4 against ITK, % | times faster |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as scratch:
        for index, case in enumerate(read_datalist(make_cohort(Path(scratch) / "cohort", n, SEED)).cases):
            volume = read_volume(case.image, case.name)
            measure(case.name, volume, true_bias_field(SEED, index, volume.array.shape, volume.affine))
    for file in files:
        measure(file.name, read_volume(file, file.name))


if __name__ == "__main__":
    main()
