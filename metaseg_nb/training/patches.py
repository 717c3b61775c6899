"""Training patches, read from the case store without loading a volume.

What step n of a run sees depends on (seed, fold, n) alone, so a run that is
taken up again at step n goes on exactly as if it had never stopped.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from metaseg_nb.preprocessing.case_store import StoredCase
from metaseg_nb.settings import Train
from metaseg_nb.training.augmentation import augment

# Keeps the draws of case order and of patches apart.
ORDER, PATCHES = 0, 1


class PatchBatches(Dataset):
    """Batch of each step: ``batch_size`` cases with ``patches_per_case`` patches each.

    Each epoch visits every case once, in a new order.

    Parameters
    ----------
    cases : sequence of StoredCase
        With labels.
    settings : Train
    """

    def __init__(self, cases: Sequence[StoredCase], settings: Train):
        self.cases = sorted(cases, key=lambda case: case.name)
        self.settings = settings
        self.steps_per_epoch = -(-len(self.cases) // settings.batch_size)

    @property
    def channels(self) -> int:
        """Number of sequences, the same in all cases."""
        return self.cases[0].channels

    def __len__(self) -> int:
        return self.steps_per_epoch * self.settings.epochs

    def __getitem__(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Images and labels of a step: float32, shapes (N, C, P, P, P) and (N, 1, P, P, P)."""
        settings = self.settings
        rng = np.random.default_rng([settings.seed, settings.fold, PATCHES, step])
        pairs = []
        for i, case in enumerate(self._cases_of(step), step * settings.batch_size):
            for n in range(i * settings.patches_per_case, (i + 1) * settings.patches_per_case):
                # dealt over all patches of the run, so that the share holds for one patch per case too
                wants_lesion = math.ceil((n + 1) * settings.lesion_share) > math.ceil(n * settings.lesion_share)
                pairs.append(augment(*draw_patch(case, settings.patch_size, wants_lesion, rng), settings, rng))
        images, labels = (np.stack(arrays) for arrays in zip(*pairs, strict=True))
        return torch.from_numpy(images), torch.from_numpy(labels)[:, None].float()

    def _cases_of(self, step: int) -> list[StoredCase]:
        epoch, place = divmod(step, self.steps_per_epoch)
        rng = np.random.default_rng([self.settings.seed, self.settings.fold, ORDER, epoch])
        order = rng.permutation(len(self.cases))
        # the last batch of an epoch is filled from its start, so that all batches are alike
        places = np.arange(place * self.settings.batch_size, (place + 1) * self.settings.batch_size)
        return [self.cases[i] for i in order[places % len(order)]]

    def loader(self, first_step: int) -> DataLoader:
        """Batches from a step on, in order."""
        steps, workers = range(first_step, len(self)), self.settings.loader_workers
        # a generator of its own: a loader that starts draws a number, which dropout's must not miss
        return DataLoader(self, batch_size=None, sampler=steps, num_workers=workers, generator=torch.Generator())


def draw_patch(
    case: StoredCase, size: int, wants_lesion: bool, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Cut one cubic patch.

    A lesion patch holds a lesion voxel drawn at random, anywhere in its inner
    half; a background patch, and every patch of a case without lesions, is
    centred on a random voxel of the head.

    Returns
    -------
    image : ndarray of float32, shape (C, size, size, size)
    label : ndarray of uint8, shape (size, size, size)
        Beyond the volume both are 0.
    """
    voxels = case.lesion_voxels
    if wants_lesion and len(voxels):
        centre = voxels[rng.integers(len(voxels))] + rng.integers(-size // 4, size // 4 + 1, 3)
    else:
        centre = case.head_voxels[rng.integers(len(case.head_voxels))]
    start = _inside(np.asarray(centre) - size // 2, size, case.grid.shape)
    return cut(case.image, start, size, np.float32), cut(case.label, start, size, np.uint8)


def cut(array: np.ndarray, start: np.ndarray, size: int, dtype: type) -> np.ndarray:
    """Copy a cube out of the last three axes of an array; what lies beyond it is 0."""
    shape = array.shape[-3:]
    patch = np.zeros((*array.shape[:-3], *(size,) * 3), dtype)
    low, high = np.maximum(start, 0), np.minimum(start + size, shape)
    source = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    target = tuple(slice(a, b) for a, b in zip(low - start, high - start, strict=True))
    patch[..., *target] = array[..., *source]
    return patch


def _inside(start: np.ndarray, size: int, shape: tuple[int, int, int]) -> np.ndarray:
    """Move a patch into the volume; centre it along axes where the volume is the smaller one."""
    room = np.array(shape) - size
    return np.where(room >= 0, np.clip(start, 0, np.maximum(room, 0)), room // 2)
