"""Losses by name, for one output of a network or for several.

Adding a loss is one entry in `LOSSES` and its name in `metaseg_nb.settings.Train`.
"""

from collections.abc import Callable
from typing import NamedTuple

import cc3d
import numpy as np
import torch
from monai.losses import DiceCELoss, DiceFocalLoss, TverskyLoss
from torch.nn.functional import interpolate

from metaseg_nb.preprocessing.case_store import UNKNOWN

Outputs = torch.Tensor | list[torch.Tensor]
# From logits and labels, float32 of one shape, to one number.
VoxelLoss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

# Keeps a lesion's Dice finite; as MONAI's.
SMOOTH = 1e-5

# Over all voxels of a batch: a patch without lesion has no Dice of its own.
DICE_CE = DiceCELoss(sigmoid=True, batch=True)
LOSSES: dict[str, VoxelLoss] = {
    "dice_ce": DICE_CE,
    # voxels that are already right count little (Lin et al., ICCV 2017)
    "dice_focal": DiceFocalLoss(sigmoid=True, batch=True, gamma=2.0),
    # a missed voxel weighs 0.7, a false one 0.3 (Salehi et al., MLMI 2017)
    "tversky": TverskyLoss(sigmoid=True, batch=True, alpha=0.3, beta=0.7),
    # twice this, and once `lesion_dice`: the weights of Kofler et al.
    "blob": DICE_CE,
}


def build_loss(name: str, unknown: bool = True) -> Callable[[Outputs, torch.Tensor], torch.Tensor]:
    """Build a loss.

    Parameters
    ----------
    name : str
        A key of `LOSSES`.
    unknown : bool
        Whether labels may hold `UNKNOWN`. Where they do not, a GPU is not waited for to see that.

    Returns
    -------
    callable
        From logits and labels, both of shape (N, 1, X, Y, Z), to one number, in single precision whatever the logits'.
        Labels are 0, 1 or `UNKNOWN`, whose voxels take no part. Logits may be a list, full resolution first: each
        output weighs half as much as the one before, all together 1 (nnU-Net's, Isensee et al., Nature Methods 2021).
        Coarser logits are interpolated up to the labels; nnU-Net brings the labels down instead, where a lesion of a
        few voxels is lost.
    """

    def loss(outputs: Outputs, labels: torch.Tensor) -> torch.Tensor:
        labels = labels.float()
        certain = labels != UNKNOWN if unknown else None
        known = None if certain is None or certain.all() else certain
        lesions = lesions_of(labels) if name == "blob" else None
        total, weights = torch.zeros((), device=labels.device), 0.0
        for place, output in enumerate([outputs] if torch.is_tensor(outputs) else outputs):
            logits = as_fine(output, labels)
            part = over_known(LOSSES[name], logits, labels, known)
            if lesions:
                part = 2 * part + lesion_dice(logits, labels, lesions)
            total, weights = total + 0.5**place * part, weights + 0.5**place
        return total / weights

    return loss


def as_fine(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Logits in single precision, interpolated up to the grid of the labels."""
    if logits.shape == labels.shape:
        return logits.float()
    return interpolate(logits.float(), labels.shape[2:], mode="trilinear", align_corners=False)


def over_known(loss: VoxelLoss, logits: torch.Tensor, labels: torch.Tensor, known: torch.Tensor | None) -> torch.Tensor:
    """Loss over the known voxels alone (None: all are known), 0 where there is none; places must not matter to it."""
    if known is None:
        return loss(logits, labels)
    target = labels[known][None, None]
    return loss(logits[known][None, None], target) if target.numel() else 0 * logits.sum()


class LesionVoxels(NamedTuple):
    """The lesions, 26-connected components, of a batch of labels."""

    voxels: torch.Tensor  # places in the flat batch, lesion by lesion
    sizes: list[int]  # voxels of each lesion
    patches: torch.Tensor  # the patch that each lies in


def lesions_of(labels: torch.Tensor) -> LesionVoxels:
    """Find every lesion of labels, shape (N, 1, X, Y, Z), on the CPU: voxels that are 1."""
    masks = (labels[:, 0] == 1).cpu().numpy()
    voxels, sizes, patches = [], [], []
    for patch, mask in enumerate(masks):
        inside = np.flatnonzero(mask)
        lesion = cc3d.connected_components(mask, connectivity=26).ravel()[inside]
        voxels.append(patch * mask.size + inside[np.argsort(lesion, kind="stable")])
        of_patch = np.bincount(lesion)[1:].tolist()
        sizes += of_patch
        patches += [patch] * len(of_patch)
    at = {"dtype": torch.long, "device": labels.device}
    return LesionVoxels(torch.tensor(np.concatenate(voxels), **at), sizes, torch.tensor(patches, **at))


def lesion_dice(logits: torch.Tensor, labels: torch.Tensor, lesions: LesionVoxels) -> torch.Tensor:
    """Mean over all lesions of a batch of 1 - soft Dice, each with the other lesions of its patch masked out.

    A small lesion counts as much as a large one; voxels outside all lesions count for each lesion of their patch.

    Parameters
    ----------
    logits, labels : Tensor of float32, shape (N, 1, X, Y, Z)
        Labels may hold `UNKNOWN`: such voxels count for nothing.
    lesions : LesionVoxels
        Of these labels.

    Returns
    -------
    Tensor
        One number; 0 where there is no lesion.

    References
    ----------
    Kofler et al., "blob loss: instance imbalance aware loss functions for semantic segmentation", IPMI 2023.
    They take the mean over patches of the mean over each patch's lesions; here every lesion of the batch is alike.
    """
    probability = torch.sigmoid(logits)
    if not lesions.sizes:
        return 0 * probability.mean()
    outside = (probability * (labels == 0)).sum((1, 2, 3, 4))[lesions.patches]
    inside = torch.stack([part.sum() for part in probability.flatten()[lesions.voxels].split(lesions.sizes)])
    volume = torch.tensor(lesions.sizes, dtype=inside.dtype, device=inside.device)
    return (1 - (2 * inside + SMOOTH) / (outside + inside + volume + SMOOTH)).mean()
