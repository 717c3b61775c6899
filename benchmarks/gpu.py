"""Training steps of every network on a GPU: samples per second, memory and share of the time the GPU is busy.

The study's step, 8 patches of 128³, or the most that fit. Ways are timed one after the other on one card: the loop of
MONAI's tutorials in single precision (cuDNN takes TF32, PyTorch's default), and this workbook's step with more and
more of what it does on a GPU. Patches are noise and lie on the GPU already.

    python benchmarks/gpu.py [--networks unet segresnet ...]
"""

import argparse
import gc
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from step import Step, batch, monais, new_network, ours, settings_of
from torch.profiler import ProfilerActivity, profile

from metaseg_nb.training.cost import network_cost
from metaseg_nb.training.networks import NETWORKS

PATCH, PATCHES = 128, (8, 4, 2, 1)
WARM_UP, STEPS = 3, 8
PLAIN, LAST = torch.contiguous_format, torch.channels_last_3d


@dataclass(frozen=True)
class Way:
    """How a step is computed."""

    name: str
    make: Callable
    layout: torch.memory_format = PLAIN
    precision: str = "bf16"
    choosing: bool = False  # cuDNN tries its algorithms first
    compiled: bool = False


WAYS = (
    Way(
        "MONAI's loop, single precision",
        lambda network, settings, layout: monais(network.cuda(), settings),
        PLAIN,
        "no",
    ),
    Way("ours, single precision", ours, PLAIN, "no"),
    Way("bf16", ours),
    Way("bf16, cuDNN chooses", ours, choosing=True),
    Way("bf16, channels last", ours, LAST),
    Way("bf16, channels last, cuDNN chooses", ours, LAST, choosing=True),
    Way("bf16, channels last, cuDNN chooses, compiled", ours, LAST, choosing=True, compiled=True),
)


@dataclass(frozen=True)
class Measured:
    """A way's step."""

    samples_a_second: float
    memory_gb: float
    busy: float
    first_steps_s: float


def measure(name: str, way: Way, patches: int) -> Measured:
    torch.backends.cudnn.benchmark = way.choosing
    changes = {"patch_size": PATCH, "precision": way.precision, "compiled": way.compiled, "batch_size": patches}
    settings = settings_of(name, changes)
    step = way.make(new_network(settings), settings, way.layout)
    images, labels = (tensor.cuda() for tensor in batch(settings))
    torch.cuda.reset_peak_memory_stats()
    first = seconds_of(step, images, labels, WARM_UP)
    seconds = seconds_of(step, images, labels, STEPS)
    memory_gb = torch.cuda.max_memory_allocated() / 1e9
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        profiled = seconds_of(step, images, labels, STEPS)
    kernels = sum(event.self_device_time_total for event in profiler.key_averages()) / 1e6
    return Measured(patches * STEPS / seconds, memory_gb, kernels / profiled, first)


def seconds_of(step: Step, images: torch.Tensor, labels: torch.Tensor, n: int) -> float:
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(n):
        step(images, labels)
    torch.cuda.synchronize()
    return time.perf_counter() - start


def most_patches(name: str) -> int:
    """The most that a single-precision step holds, so that all ways are timed on the same work."""
    memory_gb = torch.cuda.get_device_properties(0).total_memory / 1e9
    costs = {
        n: network_cost(settings_of(name, {"patch_size": PATCH, "precision": "no", "batch_size": n}), 1)
        for n in PATCHES
    }
    return max(n for n, cost in costs.items() if cost.memory_gb < 0.8 * memory_gb)


def rows(name: str) -> Iterator[str]:
    patches, first = most_patches(name), None
    for way in WAYS:
        estimate = network_cost(
            settings_of(name, {"patch_size": PATCH, "precision": way.precision, "batch_size": patches}), 1
        )
        try:
            found = measure(name, way, patches)
        except torch.OutOfMemoryError:
            yield f"| {name} | {patches} | {way.name} | out of memory | – | – | {estimate.memory_gb:.1f} | – | – |"
        else:
            first = first or found.samples_a_second
            yield (
                f"| {name} | {patches} | {way.name} | {found.samples_a_second:.1f} "
                f"| {found.samples_a_second / first:.2f} | {found.memory_gb:.1f} | {estimate.memory_gb:.1f} "
                f"| {found.busy:.0%} | {found.first_steps_s:.1f} |"
            )
        gc.collect()
        torch.cuda.empty_cache()
        torch.compiler.reset()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=list(NETWORKS))
    names = parser.parse_args().networks
    if not torch.cuda.is_available():
        print("no GPU here: not measured")
        return
    print(f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}; patches of {PATCH}³\n")
    print("| network | patches | way | samples / s | to MONAI's | GB | counted, GB | busy | first steps, s |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name in names:
        for row in rows(name):
            print(row, flush=True)


if __name__ == "__main__":
    main()
