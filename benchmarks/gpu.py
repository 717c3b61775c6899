"""Training steps of every network on a GPU: samples per second, memory and share of the time the GPU is busy.

The study's step, 8 patches of 128³, or the most that fit. Ways are timed one after the other on one card: the loop of
MONAI's tutorials in single precision (cuDNN takes TF32, PyTorch's default), and this workbook's step in bf16, with the
channels of a voxel side by side, and compiled in the network's own `training_layout`. Patches are noise, and lie on the
GPU already.

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

from metaseg_nb.settings import Train
from metaseg_nb.training.cost import USABLE, Cost, network_cost
from metaseg_nb.training.networks import NETWORKS, training_layout

PATCH, PATCHES = 128, (8, 4, 2, 1)
WARM_UP, STEPS = 3, 8
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
    kernels = sum(event.self_device_time_total for event in profiler.key_averages()) / 1e6
    return Measured(patches * STEPS / seconds, memory_gb, kernels / profiled, first)


def seconds_of(step: Step, images: torch.Tensor, labels: torch.Tensor, n: int) -> float:
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(n):
        step(images, labels)
    torch.cuda.synchronize()
    return time.perf_counter() - start


def cost(name: str, way: Way) -> Cost:
    changes = {"patch_size": PATCH, "precision": way.precision, "compiled": way.compiled, "batch_size": PATCHES[0]}
    return network_cost(settings_of(name, changes), 1)


def rows(name: str) -> Iterator[str]:
    memory_gb, costs = torch.cuda.get_device_properties(0).total_memory / 1e9, [cost(name, way) for way in WAYS]
    # all ways on the same work
    patches = max(n for n in PATCHES if max(c.memory_of(n, PATCH) for c in costs) < USABLE * memory_gb)
    first = None
    for way, counted in zip(WAYS, costs, strict=True):
        counted_gb = counted.memory_of(patches, PATCH)
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
