"""Training on a GPU, of every network: patches per second, memory and share of the time in which the GPU is busy.

The study's step, 8 patches of 128³, or the most that fit. First the loop of notebook 03 beside its bare step: with
cases that stay on the GPU, and with strong augmentation there. Then ways of the bare step, one after the other on one
card: the loop of MONAI's tutorials in single precision (cuDNN takes TF32, PyTorch's default), and this workbook's step
in bf16, with the channels of a voxel side by side, and compiled in the network's own `training_layout`. The bare step's
patches are noise, and lie on the GPU already; the loop's are cut from synthetic cases. What has not begun after
BENCH_MINUTES (6) is not measured.

    python benchmarks/gpu.py [--networks unet segresnet ...]
"""

import argparse
import gc
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import torch
from inference import prepared
from step import Step, batch, monais, new_network, ours, settings_of
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from metaseg_nb.layout import RunLayout
from metaseg_nb.preprocessing.case_store import StoredCase
from metaseg_nb.settings import Train
from metaseg_nb.training.cost import USABLE_SHARE, Cost, network_cost
from metaseg_nb.training.fit import fit
from metaseg_nb.training.networks import NETWORKS, training_layout
from metaseg_nb.training.patches import PatchBatches

PATCH, PATCHES = 128, (8, 4, 2, 1)
WARM_UP, STEPS, LOOP_STEPS = 3, 8, 15
# Cases of the loop, which are so many synthetic patients again and again.
CASES, PATIENTS = 60, 4
# Patches of a fold of the study: 217 patients, 4 patches of each in 350 epochs.
FOLD = 217 * 4 * 350
ENDS = time.monotonic() + 60 * float(os.environ.get("BENCH_MINUTES", "6"))
PLAIN, LAST = torch.contiguous_format, torch.channels_last_3d


@dataclass(frozen=True)
class Way:
    """How a step is computed."""

    name: str
    make: Callable[[torch.nn.Module, Train, torch.memory_format], Step]
    layout: torch.memory_format | None  # None: the network's own
    precision: str = "bf16"
    compiled: bool = False


def monais_on_gpu(network: torch.nn.Module, settings: Train, layout: torch.memory_format) -> Step:
    return monais(network.cuda(), settings)


WAYS = (
    Way("MONAI's loop, single precision", monais_on_gpu, PLAIN, "no"),
    Way("bf16", ours, PLAIN),
    Way("bf16, channels last", ours, LAST),
    Way("bf16, compiled", ours, None, compiled=True),
)
OURS = Way("bf16", ours, None)
LOOPS = {
    "stay on the GPU": {},
    "stay on the GPU, strong augmentation": {"augmentation": "strong"},
}


@dataclass(frozen=True)
class Measured:
    """A way's step."""

    samples_a_second: float
    memory_gb: float
    busy: float
    first_steps_s: float


def measure(name: str, way: Way, patches: int) -> Measured:
    changes = {"patch_size": PATCH, "precision": way.precision, "compiled": way.compiled, "batch_size": patches}
    settings = settings_of(name, changes)
    layout = way.layout or training_layout(name, torch.device("cuda"))
    step = way.make(new_network(settings), settings, layout)
    images, labels = (tensor.cuda() for tensor in batch(settings))
    torch.cuda.reset_peak_memory_stats()
    first = seconds_of(step, images, labels, WARM_UP)
    seconds = seconds_of(step, images, labels, STEPS)
    memory_gb = torch.cuda.max_memory_allocated() / 1e9
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        profiled = seconds_of(step, images, labels, STEPS)
    return Measured(patches * STEPS / seconds, memory_gb, busy_s(profiler) / profiled, first)


def busy_s(profiler: profile) -> float:
    """Seconds in which at least one kernel ran: those of two streams may run at the same time."""
    ranges = [event.time_range for event in profiler.events() if event.device_type == DeviceType.CUDA]
    busy, until = 0.0, 0.0
    for kernel in sorted(ranges, key=lambda kernel: kernel.start):
        busy += max(0.0, kernel.end - max(kernel.start, until))
        until = max(until, kernel.end)
    return busy / 1e6


class Timed(PatchBatches):
    """Batches of a training of which `LOOP_STEPS` steps are timed, and as many timed and profiled."""

    def loader(self, first_step: int, device: torch.device) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """As it is, with a look at the clock; the last step, after which all is saved, is not timed."""
        batches, self.seconds = super().loader(first_step, device), []
        self.profiler = profile(activities=[ProfilerActivity.CUDA])
        yield from islice(batches, WARM_UP)
        for watched in (nullcontext(), self.profiler):
            torch.cuda.synchronize()
            with watched:
                start = time.perf_counter()
                yield from islice(batches, LOOP_STEPS)
                torch.cuda.synchronize()
                self.seconds.append(time.perf_counter() - start)
        yield from batches


def loop(name: str, changes: dict, patches: int, cases: list[StoredCase]) -> tuple[float, float]:
    """Patches a second of notebook 03's loop, and the share of the time in which the GPU is busy."""
    batch_size = min(2, patches)
    each = {"patch_size": PATCH, "batch_size": batch_size, "patches_per_case": patches // batch_size}
    settings = settings_of(name, each | {"epochs": 1} | changes)
    batches = Timed(cases, settings, epoch_cases=batch_size * (WARM_UP + 2 * LOOP_STEPS + 1))
    with tempfile.TemporaryDirectory() as folder:
        fit(RunLayout(Path(folder)), batches, lambda network: 0.0)
    return patches * LOOP_STEPS / batches.seconds[0], busy_s(batches.profiler) / batches.seconds[1]


def seconds_of(step: Step, images: torch.Tensor, labels: torch.Tensor, n: int) -> float:
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(n):
        step(images, labels)
    torch.cuda.synchronize()
    return time.perf_counter() - start


def most_patches(costs: list[Cost]) -> int:
    """Patches of a step that fit by every way's count."""
    memory_gb = torch.cuda.get_device_properties(0).total_memory / 1e9
    return max(n for n in PATCHES if max(c.memory_of(n, PATCH) for c in costs) < USABLE_SHARE * memory_gb)


def cost(name: str, way: Way) -> Cost:
    changes = {"patch_size": PATCH, "precision": way.precision, "compiled": way.compiled, "batch_size": PATCHES[0]}
    return network_cost(settings_of(name, changes), 1)


def loop_rows(name: str, cases: list[StoredCase]) -> Iterator[str]:
    patches = most_patches([cost(name, OURS)])
    bare = measure(name, OURS, patches)
    yield f"| {name} | {patches} | bare step | {bare.samples_a_second:.1f} | 1 | {bare.busy:.0%} | – |"
    for way, changes in LOOPS.items():
        forget()
        samples, busy = loop(name, changes, patches, cases)
        yield (
            f"| {name} | {patches} | {way} | {samples:.1f} | {samples / bare.samples_a_second:.2f} | {busy:.0%} "
            f"| {FOLD / samples / 60:.0f} |"
        )


def step_rows(name: str) -> Iterator[str]:
    costs = [cost(name, way) for way in WAYS]
    # all ways on the same work
    patches = most_patches(costs)
    first = None
    for way, counted in zip(WAYS, costs, strict=True):
        counted_gb = counted.memory_of(patches, PATCH)
        if time.monotonic() > ENDS:
            yield f"| {name} | {patches} | {way.name} | out of time | – | – | {counted_gb:.1f} | – | – |"
            continue
        try:
            found = measure(name, way, patches)
        except torch.OutOfMemoryError:
            yield f"| {name} | {patches} | {way.name} | out of memory | – | – | {counted_gb:.1f} | – | – |"
        else:
            first = first or found.samples_a_second
            yield (
                f"| {name} | {patches} | {way.name} | {found.samples_a_second:.1f} "
                f"| {found.samples_a_second / first:.2f} | {found.memory_gb:.1f} | {counted_gb:.1f} "
                f"| {found.busy:.0%} | {found.first_steps_s:.1f} |"
            )
        forget()


def forget() -> None:
    """Give back what the way before took."""
    gc.collect()
    torch.cuda.empty_cache()
    torch.compiler.reset()


def tables(names: list[str]) -> Iterator[str]:
    yield f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}; patches of {PATCH}³\n"
    yield "| network | patches | cases of the loop | samples / s | to the bare step | busy | minutes a fold |"
    yield "|---|---|---|---|---|---|---|"
    with tempfile.TemporaryDirectory() as folder:
        patients = prepared(Path(folder), PATIENTS, 1.0)
        cases = [replace(patients[i % PATIENTS], name=f"case{i:02}") for i in range(CASES)]
        for name in names:
            yield from loop_rows(name, cases) if time.monotonic() < ENDS else [f"| {name} | – | out of time |"]
    yield "\n| network | patches | way | samples / s | to MONAI's | GB | counted, GB | busy | first steps, s |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for name in names:
        yield from step_rows(name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=list(NETWORKS))
    names = parser.parse_args().networks
    if not torch.cuda.is_available():
        print("no GPU here: not measured")
        return
    for row in tables(names):
        print(row, flush=True)


if __name__ == "__main__":
    main()
