"""Time notebook 01's look at every case against MONAI's Auto3DSeg data analyzer, and its growth with the cohort.

python benchmarks/exploration.py [patients ...]        synthetic patients at about 1 mm; 50 and 100 unless told
"""

import os

os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # before NumPy loads

import logging
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from metaseg_nb.cohort.cases import Case, LesionRule
from metaseg_nb.cohort.datalist import read_datalist
from metaseg_nb.cohort.examination import examine_all
from metaseg_nb.demo_cohort.files import make_cohort

COMPARED = 10
SIZES = (50, 100)
WORKERS = 2


def ours(cases: list[Case], folder: Path, workers: int = 1) -> None:
    examine_all(cases, LesionRule(), folder, workers)


def monais(cases: list[Case], folder: Path) -> None:
    """Statistics of image, foreground and labels, with connected components, as Auto3DSeg's first step takes them."""
    import torch  # here, so that the memory of the other measurements is their own
    from monai.apps.auto3dseg import DataAnalyzer

    torch.set_num_threads(1)
    folder.mkdir()
    logging.disable(logging.WARNING)
    entries = [{"image": str(case.image), "label": str(case.label)} for case in cases]
    to = str(folder / "stats.yaml")
    DataAnalyzer({"training": entries}, "", to, do_ccp=True, device="cpu", worker=0).get_all_case_stats()


def measured(function: Callable, cases: list[Case], folder: Path, *arguments: int) -> tuple[float, float]:
    """Seconds of a call, and the largest memory of any process it ran in, in MiB; each call in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_measure, function, cases, folder, *arguments).result()


def _measure(function: Callable, cases: list[Case], folder: Path, *arguments: int) -> tuple[float, float]:
    with tempfile.TemporaryDirectory() as scratch:
        function(cases[:1], Path(scratch) / "imports", *arguments)
    start = time.perf_counter()
    function(cases, folder, *arguments)
    seconds = time.perf_counter() - start
    peaks = [resource.getrusage(who).ru_maxrss / 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return seconds, max(peaks)


def main() -> None:
    sizes = [int(argument) for argument in sys.argv[1:]] or SIZES
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        cases = read_datalist(make_cohort(folder / "cohort", max(sizes), workers=WORKERS)).cases
        few = cases[:COMPARED]
        (mine, my_peak), (theirs, their_peak) = measured(ours, few, folder / "few"), measured(monais, few, folder / "m")
        print(
            f"{len(few)} synthetic patients, one process, one thread: this workbook {mine:.1f} s and {my_peak:.0f} MiB,"
        )
        print(f"MONAI's Auto3DSeg DataAnalyzer {theirs:.1f} s ({theirs / mine:.1f} times) and {their_peak:.0f} MiB.\n")
        print(
            f"| patients | first run, {WORKERS} processes, s | s per patient | second run, s | peak of a process, MiB |"
        )
        print("|---|---|---|---|---|")
        for n in sizes:
            first, peak = measured(ours, cases[:n], folder / f"kept{n}", WORKERS)
            again, _ = measured(ours, cases[:n], folder / f"kept{n}", WORKERS)
            print(f"| {n} | {first:.1f} | {first / n:.2f} | {again:.2f} | {peak:.0f} |", flush=True)


if __name__ == "__main__":
    main()
