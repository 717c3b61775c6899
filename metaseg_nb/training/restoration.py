"""Learning from images without labels: a network restores cubes of a patch that were hidden from it.

As in Models Genesis (Zhou et al., Medical Image Analysis 67, 2021) and, beside two other tasks, Swin UNETR's
pretraining (Tang et al., CVPR 2022). Cubes are cells of one grid, and the loss is over hidden voxels alone, as in
SimMIM (Xie et al., CVPR 2022).
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from metaseg_nb.preprocessing.case_store import StoredCase
from metaseg_nb.settings import Pretrain
from metaseg_nb.training.augmentation import draw_change
from metaseg_nb.training.patches import Packed, PatchBatches, cut
from metaseg_nb.training.sampling import place_in_head

# Keep the draws of hidden cubes apart from those of order, patches and dropout (0, 1, 2).
HIDING, VALIDATING = 3, 4
# Patches of each case of the selection set that are restored at each validation.
VALIDATION_PATCHES = 4
# In place of what is hidden: as what lies beyond a volume.
BLANK = 0.0


class RestorationBatches(PatchBatches):
    """Patches anywhere in the head with cubes hidden, and what they were; no label is read.

    A step's images, float32 of shape (N, C, P, P, P), are `BLANK` in the hidden cubes, in all sequences alike. Its
    targets, float32 of shape (N, 2, P, P, P), are the first sequence as it was, and 1 where it is hidden.

    Parameters
    ----------
    cases, settings, rank, processes, epoch_cases
        See `PatchBatches`; ``settings`` are those of `Pretrain`.
    """

    score = "variance_restored"

    def __init__(
        self,
        cases: Sequence[StoredCase],
        settings: Pretrain,
        rank: int = 0,
        processes: int = 1,
        epoch_cases: int | None = None,
    ):
        super().__init__([replace(case, label_facts=None) for case in cases], settings, rank, processes, epoch_cases)

    def loss(self):
        """`restoration_loss`."""
        return restoration_loss

    def begin(self, network: torch.nn.Module) -> None:
        """Leave it as it is: intensities have no prior as rare lesions do."""

    def unpack(self, packed: Packed) -> tuple[torch.Tensor, torch.Tensor]:
        """Make images and targets, with what is to be hidden as labels."""
        images, hidden, intensity = packed
        return hide(self._show(images, intensity), hidden)

    @property
    def _label_edge(self) -> int:
        return self.settings.patch_size // self.settings.hidden_edge

    def _fill(self, step: int, place: int, stored: StoredCase, patches: Packed) -> None:
        settings, array, head = self.settings, stored.image, stored.head_voxels
        rng = np.random.default_rng([settings.seed, settings.fold, HIDING, step, place])
        for image, hidden, intensity in zip(*patches, strict=True):
            (start,) = place_in_head(head, settings.patch_size, array.shape[1:], rng)
            self._write_image(array, start, draw_change(settings, len(image), rng), image, intensity)
            hidden.copy_(draw_hidden(settings, rng))


def draw_hidden(settings: Pretrain, rng: np.random.Generator) -> torch.Tensor:
    """Draw which cubes of a patch are hidden, of those with edge ``hidden_edge`` that it is made of.

    Returns
    -------
    Tensor of uint8, shape (1, cubes, cubes, cubes)
        1 where one is hidden; their share is ``hidden_share``, rounded to whole cubes, but never none and never all.
    """
    cubes = settings.patch_size // settings.hidden_edge
    n = min(max(1, round(settings.hidden_share * cubes**3)), cubes**3 - 1)
    hidden = torch.zeros(cubes**3, dtype=torch.uint8)
    hidden[torch.from_numpy(rng.choice(cubes**3, n, replace=False))] = 1
    return hidden.view(1, cubes, cubes, cubes)


def hide(images: torch.Tensor, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Hide cubes of patches.

    Parameters
    ----------
    images : Tensor of float32, shape (N, C, P, P, P)
    hidden : Tensor of uint8, shape (N, 1, cubes, cubes, cubes)
        As `draw_hidden` draws them.

    Returns
    -------
    images, targets : Tensor of float32
        See `RestorationBatches`.
    """
    edge = images.shape[-1] // hidden.shape[-1]
    for axis in (2, 3, 4):
        hidden = hidden.repeat_interleave(edge, axis)
    return images.masked_fill(hidden > 0, BLANK), torch.cat([images[:, :1], hidden], dim=1)


def restoration_loss(outputs: torch.Tensor | list[torch.Tensor], targets: torch.Tensor) -> torch.Tensor:
    """Mean squared error over hidden voxels, in single precision; of several outputs the first counts.

    Squared, because that is what the score measures, and because the absolute error (that of Swin UNETR's pretraining
    and of SimMIM) is least at the median, which knows nothing of the few bright voxels that are of interest here.

    Parameters
    ----------
    outputs : Tensor, shape (N, 1, X, Y, Z), or a list, full resolution first
    targets : Tensor of float32, shape (N, 2, X, Y, Z)
        As in `RestorationBatches`.
    """
    restored = outputs if torch.is_tensor(outputs) else outputs[0]
    image, hidden = targets[:, :1], targets[:, 1:]
    return ((restored.float() - image) ** 2 * hidden).sum() / hidden.sum()


def validation_patches(case: StoredCase, settings: Pretrain) -> tuple[torch.Tensor, torch.Tensor]:
    """Patches of a case, not changed at random, and what they were; the same at each call.

    Returns
    -------
    images : Tensor of float32, shape (`VALIDATION_PATCHES`, C, P, P, P)
    targets : Tensor of float32, shape (`VALIDATION_PATCHES`, 2, P, P, P)
        As in `RestorationBatches`.
    """
    rng, size = np.random.default_rng([settings.seed, settings.fold, VALIDATING]), settings.patch_size
    array = case.image
    images = np.empty((VALIDATION_PATCHES, len(array), size, size, size), np.float32)
    starts = place_in_head(case.head_voxels, size, array.shape[1:], rng, VALIDATION_PATCHES)
    for image, start in zip(images, starts, strict=True):
        cut(array, start, image)
    hidden = torch.stack([draw_hidden(settings, rng) for _ in images])
    return hide(torch.from_numpy(images), hidden)


@torch.inference_mode()
def restore(network: torch.nn.Module, images: torch.Tensor, device: torch.device) -> torch.Tensor:
    """What a network makes of patches, shape (N, C, P, P, P): float32 on the CPU, shape (N, 1, P, P, P)."""
    return torch.cat([network(image[None].to(device)).float().cpu() for image in images])


def variance_restored(
    network: torch.nn.Module, cases: Sequence[StoredCase], settings: Pretrain, device: torch.device
) -> float:
    """Share of the variance of hidden voxels that a network restores, over patches of the selection set.

    Parameters
    ----------
    network : Module
        In evaluation mode, on ``device``.
    cases : sequence of StoredCase
    settings : Pretrain
    device : torch.device

    Returns
    -------
    float
        1: every hidden voxel is restored; 0: no better than the mean of all hidden voxels; less than 0: worse.
    """
    found = []
    for case in cases:
        images, targets = validation_patches(case, settings)
        hidden = targets[:, 1:] > 0
        found.append(torch.stack([restore(network, images, device)[hidden], targets[:, :1][hidden]]).double())
    restored, truth = torch.cat(found, dim=1)
    return float(1 - ((restored - truth) ** 2).sum() / ((truth - truth.mean()) ** 2).sum())
