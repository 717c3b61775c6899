"""Training patches: this workbook's way against MONAI's pipelines and against bare copying, in speed and in memory.

Cases are synthetic, 1 mm; patches of 128³ voxels, four a visit, flipped, turned by quarters and changed in intensity
at random. Each way runs in a process of its own, one thread; seconds are the processor's. Preprocessing that ours
does once, before training, is not counted; the plain pipeline, as the study ran it, does it at each visit.

    python benchmarks/patches.py
"""

import os

os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # before NumPy loads

import re
import statistics
import tempfile
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from itertools import chain, count, islice
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from monai.data import CacheDataset, Dataset
from monai.transforms import (
    Compose,
    CropForegroundd,
    EnsureChannelFirstd,
    LoadImaged,
    Orientationd,
    RandCropByPosNegLabeld,
    RandFlipd,
    RandRotate90d,
    RandScaleIntensityd,
    RandShiftIntensityd,
    ScaleIntensityd,
    Spacingd,
)

from metaseg_nb.cohort.datalist import read_datalist
from metaseg_nb.demo_cohort.files import make_cohort
from metaseg_nb.parameters import resolve
from metaseg_nb.preprocessing.case_store import StoredCase, open_case
from metaseg_nb.preprocessing.prepare import prepare_cohort
from metaseg_nb.settings import Preprocess, Train
from metaseg_nb.training.patches import PatchBatches

CASES, SIZE, EACH = 4, 128, 4
A_STEP = 2 * EACH  # of two cases, as the study's
BOTH = ("image", "label")


def stored_cases(folder: Path, n: int) -> list[StoredCase]:
    """As many cases: those that are there, again and again under other names."""
    names = sorted(path.name for path in (folder / "cases").iterdir() if path.is_dir())
    cases = [open_case(folder / "cases", name) for name in names]
    return [replace(cases[i % len(cases)], name=f"case{i:03}") for i in range(n)]


def files(folder: Path, n: int) -> list[dict[str, str]]:
    """Image and label files of as many cases, for MONAI."""
    cases = read_datalist(folder / "cohort" / "dataset.json").cases
    pairs = [{"image": str(case.image), "label": str(case.label)} for case in cases]
    return [pairs[i % len(pairs)] for i in range(n)]


def our_batches(folder: Path, n: int, augmentation: str = "study") -> PatchBatches:
    changes = {"patch_size": SIZE, "patches_per_case": EACH, "epochs": 10_000}
    settings = resolve("03_train", "usz", "unet", 0) | changes | {"augmentation": augmentation}
    return PatchBatches(stored_cases(folder, n), Train.check(settings))


def ours(folder: Path, n: int, augmentation: str = "study") -> Iterator[torch.Tensor]:
    for images, _ in our_batches(folder, n, augmentation).loader(0, torch.device("cpu")):
        yield from images


def ours_strong(folder: Path, n: int) -> Iterator[torch.Tensor]:
    return ours(folder, n, "strong")


def ours_for_gpu(folder: Path, n: int) -> Iterator[torch.Tensor]:
    """What the processor has to do for a GPU on which the cases do not fit: it makes all changes itself."""
    batches = our_batches(folder, n)
    return chain.from_iterable(batches.packed(step)[0] for step in count())


def ours_on_gpu(folder: Path, n: int) -> Iterator[int]:
    """What the processor has to do where the cases stay on a GPU, which cuts patches itself: tensors without data."""
    batches = our_batches(folder, n).on(torch.device("meta"))
    return chain.from_iterable(batches.packed(step)[2] for step in count())


def bare_copy(folder: Path, n: int) -> Iterator[np.ndarray]:
    """Crops at random places of memory maps that stay open, as they are stored."""
    opened, rng = [(case.image, case.label) for case in stored_cases(folder, n)], np.random.default_rng(0)
    for image, label in (opened[i % len(opened)] for i in count()):
        box = tuple(slice(start, start + SIZE) for start in rng.integers(np.array(label.shape) - SIZE + 1))
        np.array(label[box])
        yield np.array(image[:, *box])


def bare_float32(folder: Path, n: int) -> Iterator[np.ndarray]:
    """The same, as the float32 that a network takes."""
    return (crop.astype(np.float32) for crop in bare_copy(folder, n))


def monai_transforms() -> Compose:
    return Compose(
        [
            LoadImaged(BOTH),
            EnsureChannelFirstd(BOTH),
            Orientationd(BOTH, axcodes="RAS", labels=None),
            Spacingd(BOTH, pixdim=(1.0, 1.0, 1.0), mode=("bilinear", "nearest")),
            ScaleIntensityd("image"),
            CropForegroundd(BOTH, source_key="image"),
            RandCropByPosNegLabeld(
                BOTH, "label", (SIZE,) * 3, pos=1, neg=1, num_samples=EACH, image_key="image", allow_smaller=True
            ),
            *(RandFlipd(BOTH, prob=0.5, spatial_axis=axis) for axis in range(3)),
            RandRotate90d(BOTH, prob=0.5, max_k=3),
            RandScaleIntensityd("image", factors=0.1, prob=1.0),
            RandShiftIntensityd("image", offsets=0.1, prob=1.0),
        ]
    ).set_random_state(0)


def monai_plain(folder: Path, n: int) -> Iterator[dict]:
    data = Dataset(files(folder, n), monai_transforms())
    return chain.from_iterable(data[i % n] for i in count())


def monai_cached(folder: Path, n: int) -> Iterator[dict]:
    data = CacheDataset(files(folder, n), monai_transforms(), num_workers=None, progress=False)
    return chain.from_iterable(data[i % n] for i in count())


def measured(way, folder: Path, n: int, patches: int) -> tuple[float, float]:
    """Milliseconds a patch, the median over steps after the first; and MB that the process grew by at most."""
    warnings.simplefilter("ignore")
    before = peak_mb()
    drawn, seconds = way(folder, n), []
    for _ in range(1 + patches // A_STEP):
        start = time.process_time()
        for _ in islice(drawn, A_STEP):
            pass
        seconds.append(time.process_time() - start)
    return 1000 * statistics.median(seconds[1:]) / A_STEP, peak_mb() - before


def peak_mb() -> float:
    """Most memory of this process so far; getrusage would count what its parent held when it started this one."""
    return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text(encoding="utf-8"))[1]) / 1024


def in_new_process(*arguments) -> tuple[float, float]:
    with ProcessPoolExecutor(1, get_context("spawn")) as one:
        return one.submit(measured, *arguments).result()


def by_way(folder: Path) -> None:
    ways = {
        "ours, streamed to a GPU, which makes all changes itself": (ours_for_gpu, 400),
        "ours, places alone, of cases that stay on a GPU": (ours_on_gpu, 400),
        "ours, for a CPU": (ours, 400),
        "ours, for a CPU, strong augmentation": (ours_strong, 40),
        "bare copy of crops, as stored (float16, uint8)": (bare_copy, 400),
        "bare copy of crops, then float32": (bare_float32, 400),
        "MONAI, read at each visit": (monai_plain, 10 * EACH),
        "MONAI, CacheDataset with all cases": (monai_cached, 10 * EACH),
    }
    found = {name: in_new_process(way, folder, CASES, patches)[0] for name, (way, patches) in ways.items()}
    first = next(iter(found.values()))
    print("| way | ms a patch | patches a second | time / ours for a GPU |\n|---|---|---|---|")
    for name, milliseconds in found.items():
        print(f"| {name} | {milliseconds:.2f} | {1000 / milliseconds:.1f} | {milliseconds / first:.2f} |")
    print(flush=True)


def by_cohort_size(folder: Path) -> None:
    runs = [(f"ours, for a {name}", way, n) for name, way in (("GPU", ours_for_gpu), ("CPU", ours)) for n in (20, 200)]
    runs.append(("MONAI, CacheDataset", monai_cached, 20))
    runs.append(("MONAI, CacheDataset", monai_cached, 40))
    print("| way | cases | memory of the process beyond its start, MB |\n|---|---|---|")
    for name, way, n in runs:
        _, megabytes = in_new_process(way, folder, n, A_STEP if way is monai_cached else n * EACH)
        print(f"| {name} | {n} | {megabytes:.0f} |", flush=True)


def main() -> None:
    settings = Preprocess.check(resolve("02_preprocess_n4", "demo") | {"spacing_mm": 1.0, "workers": 1})
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cohort = read_datalist(make_cohort(folder / "cohort", CASES, seed=3, workers=1))
        prepared = prepare_cohort(cohort, folder / "cases", settings)
        assert not prepared.problems, prepared.problems
        by_way(folder)
        by_cohort_size(folder)


if __name__ == "__main__":
    main()
