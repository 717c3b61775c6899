"""How batches come to the device that learns from them.

Where all cases fit on a GPU, they stay there, and patches are cut there. Otherwise they are streamed: patches are cut
out of memory maps, and each batch is copied to the device.
"""

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import numpy as np
import torch

from metaseg_nb.preprocessing.case_store import StoredCase
from metaseg_nb.training.augmentation import Change, augment_strongly
from metaseg_nb.training.cost import USABLE, network_cost

if TYPE_CHECKING:
    from metaseg_nb.training.patches import PatchBatches

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
