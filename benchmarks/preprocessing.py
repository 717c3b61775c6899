"""Cost of preprocessing: this workbook's defaults against the study's settings, processes, cohort size, precision.

Cases are synthetic. Speed is a ratio of two ways run one after the other on one machine, one thread a process.

    python benchmarks/preprocessing.py
"""

import resource
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from metaseg_nb.cohort.cases import Case, Cohort
from metaseg_nb.cohort.datalist import read_datalist
from metaseg_nb.cohort.volumes import read_volume, write_volume
from metaseg_nb.demo_cohort.files import make_cohort
from metaseg_nb.machine import map_cases
from metaseg_nb.parameters import resolve
from metaseg_nb.preprocessing.case_store import open_case
from metaseg_nb.preprocessing.prepare import prepare_cohort
from metaseg_nb.settings import Preprocess
from metaseg_nb.training.patches import cut

CASES, PATCH = 8, 96
# For the size of the cohort: voxels this many times as long as a scanner's, so that it takes seconds.
COARSER = 3
COHORT_SIZES = (20, 40, 80)


def timed(cohort: Cohort, folder: Path, settings: Preprocess) -> float:
    start = time.perf_counter()
    prepared = prepare_cohort(cohort, folder, settings)
    assert not prepared.problems, prepared.problems
    return time.perf_counter() - start


def repeated(cohort: Cohort, n: int) -> Cohort:
    """A cohort of n cases: those that are there, again and again under other names."""
    cases = [replace(cohort.cases[i % len(cohort.cases)], name=f"case{i}") for i in range(n)]
    return replace(cohort, cases=cases, unlabelled=[])


def coarsened(case: Case, folder: Path) -> Case:
    """The same case with every third voxel of each axis."""
    files = []
    for path in (case.image, case.label):
        volume = read_volume(path, case.name)
        affine = volume.affine @ np.diag([COARSER, COARSER, COARSER, 1])
        files.append(folder / path.parent.name / path.name)
        write_volume(files[-1], replace(volume, array=volume.array[::COARSER, ::COARSER, ::COARSER], affine=affine))
    return replace(case, images=(files[0],), label=files[1])


def against_the_study(cohort: Cohort, folder: Path, ours: Preprocess, studys: Preprocess) -> None:
    one = repeated(cohort, 1)
    mine, theirs = (timed(one, folder / name, way) for name, way in (("ours", ours), ("study", studys)))
    print("| a case at 1 mm | seconds | study's / ours |\n|---|---|---|")
    print(f"| ours | {mine:.1f} | {theirs / mine:.1f} |\n| study's settings | {theirs:.1f} | 1 |\n", flush=True)


def by_processes(cohort: Cohort, folder: Path, settings: Preprocess) -> None:
    cases = repeated(cohort, CASES)
    map_cases(len, [[]] * 4, 2, "starting processes once")
    seconds = {n: timed(cases, folder / f"{n}", settings.model_copy(update={"workers": n})) for n in (1, 2)}
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"| processes | seconds for {CASES} cases | speed-up |\n|---|---|---|")
    for n, value in seconds.items():
        print(f"| {n} | {value:.1f} | {seconds[1] / value:.2f} |")
    print(f"\nPeak memory of one process: {peak_mb:.0f} MB.\n", flush=True)


def by_cohort_size(cohort: Cohort, folder: Path, settings: Preprocess) -> None:
    small = replace(cohort, cases=[coarsened(case, folder / "coarse") for case in cohort.cases])
    coarse = settings.model_copy(update={"spacing_mm": float(COARSER), "workers": 2})
    print(f"| cases ({COARSER} mm), 2 processes | seconds | seconds a case |\n|---|---|---|")
    for n in COHORT_SIZES:
        seconds = timed(repeated(small, n), folder / f"size{n}", coarse)
        print(f"| {n} | {seconds:.1f} | {seconds / n:.2f} |", flush=True)
    print()


def by_precision(folder: Path) -> None:
    """Half against single precision: what the case store holds, and drawing patches from it."""
    case = open_case(folder / "1", "case0")
    half, rng = np.array(case.image), np.random.default_rng(0)
    starts = rng.integers(-PATCH // 4, np.array(case.grid.shape) - PATCH // 2, (50, 3))
    print("| image.npy | MB | ms a patch of 96³ |\n|---|---|---|")
    for dtype in (np.float16, np.float32):
        path = folder / f"{dtype.__name__}.npy"
        np.save(path, half.astype(dtype))
        stored, start = np.load(path, mmap_mode="r"), time.perf_counter()
        for corner in starts:
            cut(stored, corner, PATCH).astype(np.float32)
        milliseconds = 1000 * (time.perf_counter() - start) / len(starts)
        print(f"| {dtype.__name__} | {path.stat().st_size / 1e6:.1f} | {milliseconds:.1f} |")
    values = np.linspace(0, 1, 1_000_001, dtype=np.float32)
    error = np.abs(values.astype(np.float16).astype(np.float32) - values).max()
    disk_mb = sum(path.stat().st_size for path in case.folder.iterdir()) / 1e6
    print(f"\nLargest rounding error on [0, 1]: {error:.1e}. A case takes {disk_mb:.1f} MB in all.")


def main() -> None:
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    ours = Preprocess.check(resolve("02_preprocess_n4", "demo") | {"spacing_mm": 1.0, "workers": 1})
    studys = Preprocess.check(resolve("02_preprocess_n4", "usz") | {"bias_correction": "n4_itk", "workers": 1})
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cohort = read_datalist(make_cohort(folder / "cohort", 4, seed=3))
        against_the_study(cohort, folder, ours, studys)
        by_processes(cohort, folder, ours)
        by_cohort_size(cohort, folder, ours)
        by_precision(folder)


if __name__ == "__main__":
    main()
