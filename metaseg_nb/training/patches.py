"""Training patches: where they lie, and how batches of them come to the device that learns from them.

Where all cases fit on a GPU, they stay there, and patches are cut there. Otherwise they are streamed: patches are cut
out of memory maps, no volume is loaded, and each batch is copied to the device.

What step n of a run sees depends on (seed, fold, n) alone, so a run that is taken up again at step n goes on exactly
as if it had never stopped; and what it sees of the batch's case i on i besides, so processes can share a batch. Strong
augmentation comes after that: where several processes share a batch, it depends on the process too.
"""

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, Self, TypeVar, cast

import numpy as np
import torch

from metaseg_nb.preprocessing.case_store import StoredCase
from metaseg_nb.preprocessing.intensity import landmarks_of, standard_of, with_landmarks
from metaseg_nb.settings import Train
from metaseg_nb.training.augmentation import Change, augment_strongly, change_intensity, draw_change, move_patches
from metaseg_nb.training.checkpoints import identity_code, load_checkpoint
from metaseg_nb.training.cost import USABLE_SHARE, network_cost
from metaseg_nb.training.losses import Outputs, build_loss
from metaseg_nb.training.networks import start_at_prior

# Keeps the draws of case order, of patches and of a step (dropout, strong augmentation) apart.
ORDER, PATCHES, STEP = 0, 1, 2
# Places looked at for a background patch, and those of them whose lesion voxels are counted.
CANDIDATES, COUNTED = 32, 4

# Images as they are stored, float16 (N, C, P, P, P); what is learned of them, uint8 (N, 1, ...); and how each patch is
# to be changed.
Packed = tuple[torch.Tensor, torch.Tensor, list[Change]]
# Images and labels, as a network takes them.
Batch = tuple[torch.Tensor, torch.Tensor]
Array = TypeVar("Array", np.ndarray, torch.Tensor)


class PatchBatches:
    """What a network learns from: in each step ``batch_size`` cases with ``patches_per_case`` patches each.

    Each epoch visits every case once, in a new order; a label's values are 0, 1, and `UNKNOWN` in partly known cases.

    Parameters
    ----------
    cases : sequence of StoredCase
        The training set, with labels.
    settings : Train
    epoch_cases : int, optional
        An epoch is as long as with so many cases, whatever their number: fewer come more often, and a training with
        few takes as many steps as one with many.
    start : path, optional
        Checkpoint of a network to start from, with all its weights but those of the output layers.
    selection : sequence of StoredCase
        The selection set, which is scored: with other cases or labels there, a run starts anew.

    Attributes
    ----------
    score : str
        What `fit` calls the score on the selection set.
    cut_from : tuple of str
        Attributes of a case that patches are cut from.
    """

    score = "dice"
    cut_from: ClassVar[tuple[str, ...]] = ("image_with_whole_lesions", "label")

    def __init__(
        self,
        cases: Sequence[StoredCase],
        settings: Train,
        epoch_cases: int | None = None,
        start: Path | None = None,
        selection: Sequence[StoredCase] = (),
    ):
        self.cases = sorted(cases, key=lambda case: case.name)
        self.settings, self.start, self.selection = settings, start, selection
        self.rank, self.processes = 0, 1
        self.steps_per_epoch = -(-(epoch_cases or len(self.cases)) // settings.batch_size)

    def share(self, rank: int, processes: int) -> Self:
        """The same batches, with every ``processes``-th of the cases of each, from the ``rank``-th on."""
        share = copy.copy(self)
        share.rank, share.processes = rank, processes
        return share

    def on(self, device: torch.device) -> Self:
        """The same batches, of cases whose volumes are copied to a device, so that patches are cut there."""
        moved = copy.copy(self)
        moved.cases = [self._copied(case, device) for case in self.cases]
        moved.standard = None  # their images are mapped already
        return moved

    def _copied(self, case: StoredCase, device: torch.device) -> StoredCase:
        """The volumes that patches are cut from on a device, and in memory the voxels that they are placed by."""
        placed_by = ("head_voxels", "lesion_voxels", "lesion_boxes") if case.has_label else ("head_voxels",)
        arrays: dict[str, Any] = {name: np.array(getattr(case, name)) for name in (*self.cut_from, *placed_by)}
        image, *_ = self.cut_from
        arrays[image] = self._as_seen(case, arrays[image])
        arrays |= {name: torch.from_numpy(arrays[name]).to(device) for name in self.cut_from}
        return cast(StoredCase, SimpleNamespace(grid=case.grid, lacking=case.lacking, **arrays))

    def identity(self) -> dict[str, Any]:
        """All that decides what a training computes; its checkpoints carry it."""
        parts = {
            "settings": self.settings.model_dump(),
            "recipe": self.cases[0].recipe,
            "cases": {case.name: case.identity for case in self.cases},
            "epoch": {"steps": self.steps_per_epoch},
            "start": {"weights": identity_code(load_checkpoint(self.start)["identity"])} if self.start else {},
        }
        selection = {case.name: case.identity for case in self.selection}
        return parts | {"selection": selection} if selection else parts

    @property
    def channels(self) -> int:
        """Number of sequences, the same in all cases."""
        return self.cases[0].channels

    @cached_property
    def _landmarks(self) -> dict[str, np.ndarray]:
        return {case.name: landmarks_of(case.image, case.reach) for case in self.cases}

    @cached_property
    def standard(self) -> np.ndarray | None:
        """Landmarks that intensities are brought to, of the training set alone: (C, 9); None if none are asked for."""
        asked = self.cases[0].recipe.get("intensity_scaling") == "nyul"
        return standard_of(self._landmarks.values()) if asked else None

    def _as_seen(self, case: StoredCase, image: Any) -> Any:
        """Map an image of a case, or a part of it, to the standard; as it is if there is none."""
        return image if self.standard is None else with_landmarks(image, self._landmarks[case.name], self.standard)

    def loss(self) -> Callable[[Outputs, torch.Tensor], torch.Tensor]:
        """From a network's outputs and a step's labels to one number."""
        return build_loss(self.settings.loss, unknown=any(case.annotation for case in self.cases))

    def begin(self, network: torch.nn.Module) -> None:
        """Set what a new network predicts before training."""
        start_at_prior(network)

    def __len__(self) -> int:
        return self.steps_per_epoch * self.settings.epochs

    def __getitem__(self, step: int) -> Batch:
        """Images and labels of a step: float32 (N, C, P, P, P), and uint8 (N, 1, P, P, P)."""
        return self.unpack(self.packed(step))

    def packed(self, step: int) -> Packed:
        """Cut a step's patches, and leave to `unpack` what a GPU does better."""
        share = self._cases_of(step)[self.rank :: self.processes]
        patches = [patch for place, case in share for patch in self._patches(step, place, case)]
        images, labels, changes = zip(*patches, strict=True)
        return torch.stack(images), torch.stack(labels), list(changes)

    def unpack(self, packed: Packed) -> Batch:
        """Make images and labels of what `packed` gave, on the device it lies on."""
        images, labels, changes = packed
        return change_intensity(move_patches(images, changes), changes), move_patches(labels, changes)

    def seed_of(self, step: int) -> int:
        """Seed of what a step draws besides its patches, in this process."""
        key = [self.settings.seed, self.settings.fold, STEP, step, self.rank]
        return int(np.random.SeedSequence(key).generate_state(1)[0])

    def _patches(self, step: int, place: int, case: StoredCase) -> Iterator[tuple[torch.Tensor, torch.Tensor, Change]]:
        """Draw the patches of the case at this place of the batch."""
        settings, image, label = self.settings, case.image_with_whole_lesions, case.label
        rng = np.random.default_rng([settings.seed, settings.fold, PATCHES, step, place])
        first = (step * settings.batch_size + place) * settings.patches_per_case
        for patch in range(first, first + settings.patches_per_case):
            # dealt over all patches of the run, so that the share holds for one patch per case too
            dealt = math.ceil((patch + 1) * settings.lesion_share) - math.ceil(patch * settings.lesion_share)
            start = place_patch(case, settings.patch_size, settings.sampling, dealt > 0, rng)
            change = draw_change(settings, len(image), rng, case.lacking)
            patch = self._as_seen(case, cut(image, start, settings.patch_size))
            known = cut(label[None], start, settings.patch_size)
            yield torch.as_tensor(patch), torch.as_tensor(known), change

    def _cases_of(self, step: int) -> list[tuple[int, StoredCase]]:
        """Cases of the whole batch, with their places in it."""
        epoch, place = divmod(step, self.steps_per_epoch)
        rng = np.random.default_rng([self.settings.seed, self.settings.fold, ORDER, epoch])
        order = rng.permutation(len(self.cases))
        # the last batch of an epoch is filled from its start, so that all batches are alike
        places = np.arange(place * self.settings.batch_size, (place + 1) * self.settings.batch_size)
        return list(enumerate(self.cases[i] for i in order[places % len(order)]))

    def loader(self, first_step: int, device: torch.device) -> Iterator[Batch]:
        """Batches from a step on, in order, on a device, with strong augmentation where that is asked for."""
        batches = self.on(device) if stays_on_gpu(self, device) else self
        packed = map(batches.packed, range(first_step, len(batches)))
        made = (batches._made(step, of_step, device) for step, of_step in enumerate(packed, first_step))
        yield from _beside_steps(made, device) if device.type == "cuda" else made

    def _made(self, step: int, packed: Packed, device: torch.device) -> Batch:
        """Make a step's images and labels on a device, with all random changes."""
        images, labels, changes = packed
        batch = self.unpack((images.to(device, non_blocking=True), labels.to(device, non_blocking=True), changes))
        strong = self.settings.augmentation == "strong"
        return augment_strongly(*batch, self.seed_of(step)) if strong else batch


def stays_on_gpu(batches: PatchBatches, device: torch.device) -> bool:
    """Tell whether the device is a GPU that has room for all cases beside a training step, as counted.

    A tenth of what is free is left to the libraries, as in `what_fits`.
    """
    if device.type != "cuda":
        return False
    free = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    step_gb = network_cost(batches.settings, batches.channels).memory_gb
    cases_gb = sum(getattr(case, name).nbytes for case in batches.cases for name in batches.cut_from) / 1e9
    return step_gb + cases_gb <= USABLE_SHARE * free / 1e9


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


def cut(array: Array, start: np.ndarray, size: int) -> Array:
    """Copy a cube of this edge out of the last three axes of an array, or of a tensor where it lies; 0 beyond them."""
    low = np.maximum(start, 0)
    high = np.maximum(np.minimum(start + size, array.shape[-3:]), low)
    shape = (*array.shape[:-3], size, size, size)
    cube: Any = array.new_zeros(shape) if isinstance(array, torch.Tensor) else np.zeros(shape, array.dtype)
    cube[..., *map(slice, low - start, high - start)] = array[..., *map(slice, low, high)]
    return cube


def place_patch(case: StoredCase, size: int, sampling: str, wants_lesion: bool, rng: np.random.Generator) -> np.ndarray:
    """Choose the place of a patch, whose *inner half* is the cube of half its edge around its middle.

    Parameters
    ----------
    case : StoredCase
        One without lesions gives background patches, whatever is wanted.
    size : int
        Edge of the patch, voxels.
    sampling : str
        "voxel": a lesion patch holds a lesion voxel, drawn from all, anywhere in its inner half; so large lesions are
        seen most. "lesion": it has a lesion, drawn from all, in its inner half, whole where it fits; so small lesions
        are seen as often. "roi": every patch lies around a lesion, drawn from all, whose middle is in its inner half;
        the patch may reach beyond the volume.
    wants_lesion : bool
        Or else background: the whole patch is free of lesion, if that can be had, or holds as little as can.
    rng : Generator

    Returns
    -------
    ndarray of int, shape (3,)
        First voxel of the patch; negative where it begins before the volume.
    """
    boxes, shape = case.lesion_boxes, case.grid.shape
    if not len(boxes) or not (wants_lesion or sampling == "roi"):
        return _with_least_lesion(case, boxes, size, rng)
    if sampling == "voxel":
        voxel = case.lesion_voxels[rng.integers(len(case.lesion_voxels))]
        return _inside(voxel - size // 4 - rng.integers(size // 2, size=3), size, shape)
    first, beyond = boxes[rng.integers(len(boxes))].T
    if sampling == "roi":
        return (first + beyond) // 2 - size // 2 + rng.integers(-(size // 4), size // 4, 3, endpoint=True)
    # from the lesion at the lower end of the inner half to the lesion at its upper end, or from the inner half at
    # the one end of a lesion that does not fit to the other
    ends = np.sort([first - size // 4, beyond - size // 4 - size // 2], axis=0)
    return _inside(rng.integers(ends[0], ends[1], endpoint=True), size, shape)


def place_in_head(case: StoredCase, size: int, rng: np.random.Generator, n: int = 1) -> np.ndarray:
    """Choose places of n patches, each around a random voxel of the head: int, shape (n, 3); see `place_patch`."""
    voxels = case.head_voxels
    return _inside(voxels[rng.integers(len(voxels), size=n)] - size // 2, size, case.grid.shape)


def _with_least_lesion(case: StoredCase, boxes: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Of places around random voxels of the head, the first that is free of lesion, or the one with least."""
    starts, voxels = place_in_head(case, size, rng, CANDIDATES), case.lesion_voxels
    shared = np.minimum(starts[:, None] + size, boxes[..., 1]) - np.maximum(starts[:, None], boxes[..., 0])
    in_boxes = shared.clip(0).prod(axis=2).sum(axis=1)
    # boxes hold more than lesion: count in those places whose boxes hold least
    likely = starts[np.argsort(in_boxes, kind="stable")[:COUNTED]]
    return min(likely, key=lambda start: ((voxels >= start) & (voxels < start + size)).all(axis=1).sum())


def _inside(start: np.ndarray, size: int, shape: tuple[int, int, int]) -> np.ndarray:
    """Move patches into the volume; centre them along axes where the volume is the smaller one."""
    room = np.array(shape) - size
    return np.where(room >= 0, np.clip(start, 0, np.maximum(room, 0)), room // 2)
