"""Training patches, read from the case store without loading a volume.

What step n of a run sees depends on (seed, fold, n) alone, so a run that is taken up again at step n goes on exactly
as if it had never stopped; and what it sees of the batch's case i on i besides, so processes can share a batch.
"""

import math
import os
import signal
import tempfile
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch.utils.data import DataLoader

from metaseg_nb.preprocessing.case_store import StoredCase
from metaseg_nb.settings import Train
from metaseg_nb.training.augmentation import (
    Change,
    before_change,
    change_intensity,
    draw_change,
    finish_moving,
    rows_flipped,
)
from metaseg_nb.training.losses import build_loss
from metaseg_nb.training.networks import start_at_prior
from metaseg_nb.training.sampling import CaseArrays, place_patch

# Keeps the draws of case order and of patches apart.
ORDER, PATCHES = 0, 1
# Seconds in which processes that cut patches must give a batch.
PATIENCE_S = 300
# Longest folder for their sockets, in bytes: a path holds 107, and 32 of these are what comes below it.
LONGEST_TMPDIR, SHORT_TMPDIR = 75, "/tmp"

# Images as they are stored, float16 (N, C, P, P, P); what is learned of them, uint8 (N, 1, ...); and how their
# intensity is to be changed, float32 (N, C, 2).
Packed = Sequence[torch.Tensor]


class PatchBatches:
    """Batch of each step: ``batch_size`` cases with ``patches_per_case`` patches each.

    Each epoch visits every case once, in a new order; a label's values are 0, 1, and `UNKNOWN` in partly known cases.

    Parameters
    ----------
    cases : sequence of StoredCase
        With labels.
    settings : Train
    rank, processes : int
        Of the cases of each batch, this process gets every ``processes``-th, from the ``rank``-th on.
    epoch_cases : int, optional
        An epoch is as long as with so many cases, whatever their number: fewer come more often, and a training with
        few takes as many steps as one with many.

    Attributes
    ----------
    score : str
        What `fit` calls the score on the selection set.
    """

    score = "dice"

    def __init__(
        self,
        cases: Sequence[StoredCase],
        settings: Train,
        rank: int = 0,
        processes: int = 1,
        epoch_cases: int | None = None,
    ):
        self.cases = sorted(cases, key=lambda case: case.name)
        self.settings = settings
        self.rank, self.processes = rank, processes
        self.steps_per_epoch = -(-(epoch_cases or len(self.cases)) // settings.batch_size)
        n = -(-(settings.batch_size - rank) // processes) * settings.patches_per_case
        edges = (settings.patch_size,) * 3
        self._images = Buffers((n, self.channels, *edges), np.float16)
        self._labels = Buffers((n, 1, *(self._label_edge,) * 3), np.uint8)
        self._shown = Buffers((n, self.channels, *edges), np.float32)
        self._moving = np.empty((self.channels, *edges), np.float16)  # a patch on its way

    @property
    def channels(self) -> int:
        """Number of sequences, the same in all cases."""
        return self.cases[0].channels

    def loss(self) -> Callable[[torch.Tensor | list[torch.Tensor], torch.Tensor], torch.Tensor]:
        """From a network's outputs and a step's labels to one number."""
        return build_loss(self.settings.loss)

    def begin(self, network: torch.nn.Module) -> None:
        """Set what a new network says before it learned anything."""
        start_at_prior(network)

    def __len__(self) -> int:
        return self.steps_per_epoch * self.settings.epochs

    def __getitem__(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Images and labels of a step: float32 (N, C, P, P, P), and uint8 (N, 1, P, P, P)."""
        return self.unpack(self.packed(step))

    def packed(self, step: int) -> Packed:
        """Cut a step's patches, and leave to `unpack` what a GPU does better."""
        images, labels, n = self._images.take(), self._labels.take().zero_(), self.settings.patches_per_case
        intensity = torch.empty(*images.shape[:2], 2)
        share = self._cases_of(step)[self.rank :: self.processes]
        parts = (batch.split(n) for batch in (images, labels, intensity))
        for (place, case), *patches in zip(share, *parts, strict=True):
            self._fill(step, place, case, patches)
        return images, labels, intensity

    def unpack(self, packed: Packed) -> tuple[torch.Tensor, torch.Tensor]:
        """Make images and labels of what `packed` gave, on the device it lies on."""
        images, labels, intensity = packed
        return self._show(images, intensity), labels

    def _show(self, images: torch.Tensor, intensity: torch.Tensor) -> torch.Tensor:
        # PyTorch keeps a GPU's memory itself
        shown = self._shown.take().copy_(images) if images.device.type == "cpu" else images.float()
        return change_intensity(shown, intensity)

    @property
    def _label_edge(self) -> int:
        return self.settings.patch_size

    def _fill(self, step: int, place: int, stored: StoredCase, patches: Packed) -> None:
        """Write the patches of the case at this place of the batch."""
        settings, case = self.settings, CaseArrays.of(stored)
        rng = np.random.default_rng([settings.seed, settings.fold, PATCHES, step, place])
        first = (step * settings.batch_size + place) * settings.patches_per_case
        for patch, (image, label, intensity) in enumerate(zip(*patches, strict=True), first):
            # dealt over all patches of the run, so that the share holds for one patch per case too
            dealt = math.ceil((patch + 1) * settings.lesion_share) - math.ceil(patch * settings.lesion_share)
            start = place_patch(case, settings.patch_size, settings.sampling, dealt > 0, rng)
            change = draw_change(settings, len(image), rng)
            self._write_image(case.image, start, change, image, intensity)
            write_label(case, start, change, label.numpy())

    def _write_image(
        self, array: np.ndarray, start: np.ndarray, change: Change, image: torch.Tensor, intensity: torch.Tensor
    ) -> None:
        cut(array, start, rows_flipped(self._moving, change))
        finish_moving(torch.from_numpy(self._moving), change, image)
        intensity.copy_(torch.from_numpy(change.intensity))

    def _cases_of(self, step: int) -> list[tuple[int, StoredCase]]:
        """Cases of the whole batch, with their places in it."""
        epoch, place = divmod(step, self.steps_per_epoch)
        rng = np.random.default_rng([self.settings.seed, self.settings.fold, ORDER, epoch])
        order = rng.permutation(len(self.cases))
        # the last batch of an epoch is filled from its start, so that all batches are alike
        places = np.arange(place * self.settings.batch_size, (place + 1) * self.settings.batch_size)
        return list(enumerate(self.cases[i] for i in order[places % len(order)]))

    def loader(self, first_step: int, device: torch.device) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Batches from a step on, in order, on a device.

        Raises
        ------
        TimeoutError
            Processes that cut patches gave nothing for `PATIENCE_S` seconds.
        """
        steps, workers = range(len(self)), self.settings.loader_workers
        # a generator of its own: a loader that starts draws a number, which dropout's must not miss
        loader = {"batch_size": None, "num_workers": workers, "generator": torch.Generator()}
        if workers:
            loader |= {"timeout": PATIENCE_S, "worker_init_fn": _begin_worker}
        # a GPU reads pinned memory beside its work
        pinned = device.type == "cuda"
        batches = DataLoader(steps, sampler=steps[first_step:], collate_fn=self.packed, pin_memory=pinned, **loader)
        for batch in _in_time(batches):
            yield self.unpack([part.to(device, non_blocking=True) for part in batch])


def _in_time(batches: DataLoader) -> Iterator[Packed]:
    try:
        yield from batches
    except RuntimeError as error:
        if "timed out" not in str(error):
            raise
        raise TimeoutError(
            f"the {batches.num_workers} loader_workers gave no patches for {PATIENCE_S} s: the disk of the case store "
            "may be too slow or gone. Start again to go on, or with loader_workers: 0"
        ) from error


def _begin_worker(_: int) -> None:
    """Prepare a process that cuts patches."""
    if len(os.fsencode(tempfile.gettempdir())) > LONGEST_TMPDIR:
        tempfile.tempdir = SHORT_TMPDIR
    # A cluster sends SIGTERM to all processes of a job. This one is needed until the step is finished and saved, so
    # it ends only when the process that trains tells it to.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_end_on_request_of, args=[os.getppid()], daemon=True).start()


def _end_on_request_of(parent: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)


def cut(array: np.ndarray, start: np.ndarray, out: np.ndarray) -> None:
    """Copy a cube out of the last three axes of an array; what lies beyond it is 0."""
    source, target = _overlap(start, out.shape[-1], np.zeros(3, int), array.shape[-3:])
    if out[..., *target].size < out.size:
        out[:] = 0
    out[..., *target] = array[..., *source]


def write_label(case: CaseArrays, start: np.ndarray, change: Change, label: np.ndarray) -> None:
    """Write a case's label into a patch of zeros, uint8 of shape (1, P, P, P): its marked boxes, as all else is 0."""
    patch = before_change(label, change)[0]
    for box in case.marked_boxes:
        source, target = _overlap(start, len(patch), *box.T)
        patch[target] = case.label[source]


def _overlap(
    start: np.ndarray, size: int, first: np.ndarray, beyond: np.ndarray
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """What a patch shares with a box, as slices of the volume and of the patch; empty where it shares nothing."""
    low = np.maximum(start, first)
    high = np.maximum(np.minimum(start + size, beyond), low)
    return tuple(map(slice, low, high)), tuple(map(slice, low - start, high - start))


class Buffers:
    """Tensors of one shape and type, whose memory is used again as soon as nobody holds it: fresh pages are slow.

    Parameters
    ----------
    shape : tuple of ints
    dtype : NumPy type
    """

    def __init__(self, shape: tuple[int, ...], dtype: type):
        self._shape, self._dtype = shape, dtype
        self._lent: list[tuple[np.ndarray, weakref.ref]] = []

    def take(self) -> torch.Tensor:
        """Give a tensor that shares memory with no other in use; what it holds is left over from before."""
        free = [i for i, (_, holder) in enumerate(self._lent) if holder() is None]
        array = self._lent.pop(free[0])[0] if free else np.empty(self._shape, self._dtype)
        # a tensor, its views and what is made of them hold this view as long as one of them is there
        view = array.view()
        self._lent.append((array, weakref.ref(view)))
        return torch.from_numpy(view)
