"""How batches come to the device that learns from them.

Where all cases fit on a GPU, they stay there, and patches are cut there. Other cases are streamed: patches are cut out
of memory maps, by processes of their own if there are any, and each batch is copied to the device.
"""

import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch.utils.data import DataLoader

from metaseg_nb.preprocessing.case_store import StoredCase
from metaseg_nb.training.augmentation import Change, augment_strongly
from metaseg_nb.training.cost import USABLE, network_cost

if TYPE_CHECKING:
    from metaseg_nb.training.patches import PatchBatches

# Seconds in which processes that cut patches must give a batch.
PATIENCE_S = 300
# Longest folder for their sockets, in bytes: a path holds 107, and 32 of these are what comes below it.
LONGEST_TMPDIR, SHORT_TMPDIR = 75, "/tmp"

# Images as they are stored, float16 (N, C, P, P, P); what is learned of them, uint8 (N, 1, ...); and how each patch is
# to be changed.
Packed = tuple[torch.Tensor, torch.Tensor, list[Change]]
# Images and labels, as a network takes them.
Batch = tuple[torch.Tensor, torch.Tensor]


def load(batches: "PatchBatches", first_step: int, device: torch.device) -> Iterator[Batch]:
    """Batches from a step on, in order, on a device; see `PatchBatches.loader`."""
    if stays_on_gpu(batches, device):
        batches = batches.on(device)
        packed = map(batches.packed, range(first_step, len(batches)))
    else:
        packed = _streamed(batches, first_step, device)
    made = (_made(batches, step, of_step, device) for step, of_step in enumerate(packed, first_step))
    yield from _beside_steps(made, device) if device.type == "cuda" else made


def stays_on_gpu(batches: "PatchBatches", device: torch.device) -> bool:
    """Tell whether the device is a GPU that has room for all cases beside a training step, as counted.

    A tenth of what is free is left to the libraries, as in `what_fits`.
    """
    if device.type != "cuda":
        return False
    free = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    step_gb = network_cost(batches.settings, batches.channels).memory_gb
    cases_gb = sum(getattr(case, name).nbytes for case in batches.cases for name in batches.cut_from) / 1e9
    return step_gb + cases_gb <= USABLE * free / 1e9


def copied(
    case: StoredCase, cut_from: tuple[str, ...], device: torch.device, as_seen: Callable[[np.ndarray], np.ndarray]
) -> StoredCase:
    """What patches of a case are made of: the volumes on a device, and in memory the voxels that they are placed by.

    The first of ``cut_from`` is the image, which ``as_seen`` maps.
    """
    placed_by = ("head_voxels", "lesion_voxels", "lesion_boxes") if case.has_label else ("head_voxels",)
    arrays = {name: np.array(getattr(case, name)) for name in (*cut_from, *placed_by)}
    arrays[cut_from[0]] = as_seen(arrays[cut_from[0]])
    volumes = {name: torch.from_numpy(arrays[name]).to(device) for name in cut_from}
    return cast(StoredCase, SimpleNamespace(grid=case.grid, lacking=case.lacking, **arrays | volumes))


def _made(batches: "PatchBatches", step: int, packed: Packed, device: torch.device) -> Batch:
    """Make a step's images and labels on a device, with all random changes."""
    images, labels, changes = packed
    batch = batches.unpack((images.to(device, non_blocking=True), labels.to(device, non_blocking=True), changes))
    strong = batches.settings.augmentation == "strong"
    return augment_strongly(*batch, batches.seed_of(step)) if strong else batch


def _beside_steps(batches: Iterator[Batch], device: torch.device) -> Iterator[Batch]:
    """Make each batch while the GPU is at work on the step before: on a stream of its own, before which none waits."""
    own, of_steps = torch.cuda.Stream(device, priority=-1), torch.cuda.current_stream(device)
    while True:
        with torch.cuda.stream(own):
            batch = next(batches, None)
        if batch is None:
            return
        of_steps.wait_stream(own)
        for tensor in batch:
            tensor.record_stream(of_steps)
        yield batch


def _streamed(batches: "PatchBatches", first_step: int, device: torch.device) -> Iterator[Packed]:
    steps, workers = range(len(batches)), batches.settings.loader_workers
    loader = DataLoader(
        cast(Any, steps),
        batch_size=None,
        sampler=steps[first_step:],
        num_workers=workers,
        collate_fn=cast(Any, batches.packed),
        pin_memory=device.type == "cuda",  # a GPU reads it beside its work
        timeout=PATIENCE_S if workers else 0,
        worker_init_fn=_begin_worker,
        generator=torch.Generator(),  # of its own: a loader that starts draws a number, which dropout's must miss
    )
    with _sigterm_blocked():
        packed = iter(loader)
    yield from packed


@contextmanager
def _sigterm_blocked() -> Iterator[None]:
    """Block SIGTERM in this process for the block, and for good in all threads of the processes it starts."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin_worker(_: int) -> None:
    """Prepare a process that cuts patches; SIGTERM is blocked in it since it was started.

    A cluster sends SIGTERM to all processes of a job. This one is needed until the step is finished and saved, so it
    ends only when the process that trains tells it to. To block the signal here would be late: torch has started
    threads before, and one of them would take it.
    """
    if len(os.fsencode(tempfile.gettempdir())) > LONGEST_TMPDIR:
        tempfile.tempdir = SHORT_TMPDIR
    threading.Thread(target=_end_on_request_of, args=[os.getppid()], daemon=True).start()


def _end_on_request_of(parent: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)
