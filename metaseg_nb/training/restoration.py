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
from metaseg_nb.training.patches import PatchBatches, cut
from metaseg_nb.training.sampling import place_in_head

# Keep the draws of hidden cubes apart from those of order, patches and dropout (0, 1, 2).
HIDING, LOOK = 3, 4
# Patches of each case of the selection set that are restored at a look.
PATCHES_LOOKED_AT = 4
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
    _label = (2, np.float32)

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

    def _fill(self, step: int, place: int, case: StoredCase, images: torch.Tensor, targets: torch.Tensor) -> None:
        settings, array, head = self.settings, case.image, case.head_voxels
        rng = np.random.default_rng([settings.seed, settings.fold, HIDING, step, place])
        for image, target in zip(images, targets, strict=True):
            (start,) = place_in_head(head, settings.patch_size, array.shape[1:], rng)
            self._write_image(array, start, draw_change(settings, len(image), rng), image)
            hide(image, target, settings, rng)


def hide(image: torch.Tensor, target: torch.Tensor, settings: Pretrain, rng: np.random.Generator) -> None:
    """Hide cubes of a patch.

    Parameters
    ----------
    image : Tensor of float32, shape (C, P, P, P)
        Becomes `BLANK` in cubes of ``hidden_edge`` voxels, drawn from those that the patch is made of; their share is
        ``hidden_share``, rounded to whole cubes, but never none and never all.
    target : Tensor of float32, shape (2, P, P, P)
        Gets the first sequence as it was, and 1 where it is hidden.
    settings : Pretrain
    rng : Generator
    """
    edge, cells = settings.hidden_edge, settings.patch_size // settings.hidden_edge
    n = min(max(1, round(settings.hidden_share * cells**3)), cells**3 - 1)
    hidden = torch.zeros(cells**3)
    hidden[torch.from_numpy(rng.choice(cells**3, n, replace=False))] = 1
    target[0] = image[0]
    by_cell = target[1].view(cells, edge, cells, edge, cells, edge)
    by_cell.copy_(hidden.view(cells, 1, cells, 1, cells, 1).expand_as(by_cell))
    image.masked_fill_(target[1] > 0, BLANK)


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


def patches_looked_at(case: StoredCase, settings: Pretrain) -> tuple[torch.Tensor, torch.Tensor]:
    """Patches of a case, not changed at random, and what they were; the same at each call.

    Returns
    -------
    images : Tensor of float32, shape (`PATCHES_LOOKED_AT`, C, P, P, P)
    targets : Tensor of float32, shape (`PATCHES_LOOKED_AT`, 2, P, P, P)
        As in `RestorationBatches`.
    """
    rng, size, array = np.random.default_rng([settings.seed, settings.fold, LOOK]), settings.patch_size, case.image
    images = np.empty((PATCHES_LOOKED_AT, len(array), size, size, size), np.float32)
    for image, start in zip(
        images, place_in_head(case.head_voxels, size, array.shape[1:], rng, PATCHES_LOOKED_AT), strict=True
    ):
        cut(array, start, image)
    images = torch.from_numpy(images)
    targets = torch.empty(PATCHES_LOOKED_AT, 2, size, size, size)
    for image, target in zip(images, targets, strict=True):
        hide(image, target, settings, rng)
    return images, targets


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
        images, targets = patches_looked_at(case, settings)
        hidden = targets[:, 1:] > 0
        found.append(torch.stack([restore(network, images, device)[hidden], targets[:, :1][hidden]]).double())
    restored, truth = torch.cat(found, dim=1)
    return float(1 - ((restored - truth) ** 2).sum() / ((truth - truth.mean()) ** 2).sum())
