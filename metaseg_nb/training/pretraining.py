"""Pretraining without labels (03b): a network restores hidden cubes of a patch; checks of start weights.

As in Models Genesis (Zhou et al., Medical Image Analysis 67, 2021) and, beside two other tasks, Swin UNETR's
pretraining (Tang et al., CVPR 2022). Cubes are cells of one grid, and the loss is over hidden voxels alone, as in
SimMIM (Xie et al., CVPR 2022).
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from metaseg_nb.cohort.folds import Split
from metaseg_nb.cohort.problems import CohortError, Problem
from metaseg_nb.layout import RunLayout
from metaseg_nb.preprocessing.case_store import StoredCase
from metaseg_nb.settings import Pretrain
from metaseg_nb.training.augmentation import Change, change_intensity, draw_change, move_patches
from metaseg_nb.training.checkpoints import load_checkpoint
from metaseg_nb.training.losses import Outputs
from metaseg_nb.training.patches import Batch, Packed, PatchBatches, cut, place_in_head

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
    cases, settings, more
        See `PatchBatches`; ``settings`` are those of `Pretrain`.
    """

    score = "variance_restored"
    cut_from = ("image",)
    settings: Pretrain

    def __init__(self, cases: Sequence[StoredCase], settings: Pretrain, **more: Any):
        if with_masks := [case for case in cases if case.earlier]:
            found, fix = "an image with the mask of an earlier date", "pretrain in a study with `earlier_mask: false`"
            raise CohortError.one(with_masks[0].name, with_masks[0].folder, found, "images alone", fix)
        super().__init__([replace(case, label_facts=None) for case in cases], cast(Any, settings), **more)

    @cached_property
    def standard(self) -> None:
        """No landmarks: those of a fold come with its labels."""

    def loss(self):
        """`restoration_loss`."""
        return restoration_loss

    def begin(self, network: torch.nn.Module) -> None:
        """Leave it as it is: intensities have no prior as rare lesions do."""

    def unpack(self, packed: Packed) -> Batch:
        """Make images and targets, with what is to be hidden as labels."""
        images, hidden, changes = packed
        return hide(change_intensity(move_patches(images, changes), changes), hidden)

    def _patches(self, step: int, place: int, case: StoredCase) -> Iterator[tuple[torch.Tensor, torch.Tensor, Change]]:
        settings, image = self.settings, case.image
        rng = np.random.default_rng([settings.seed, settings.fold, HIDING, step, place])
        for _ in range(settings.patches_per_case):
            (start,) = place_in_head(case, settings.patch_size, rng)
            change = draw_change(settings, len(image), rng, case.lacking)
            patch = torch.as_tensor(cut(image, start, settings.patch_size))
            yield patch, torch.from_numpy(hidden_voxels(settings, rng)), change


def hidden_voxels(settings: Pretrain, rng: np.random.Generator) -> np.ndarray:
    """Draw which cubes of a patch are hidden, of those with edge ``hidden_edge`` that it is made of.

    Returns
    -------
    ndarray of uint8, shape (1, cubes, cubes, cubes)
        1 where one is hidden; their share is ``hidden_share``, rounded to whole cubes, but never none and never all.
    """
    cubes = settings.patch_size // settings.hidden_edge
    n = min(max(1, round(settings.hidden_share * cubes**3)), cubes**3 - 1)
    hidden = np.zeros(cubes**3, np.uint8)
    hidden[rng.choice(cubes**3, n, replace=False)] = 1
    return hidden.reshape(1, cubes, cubes, cubes)


def hide(images: torch.Tensor, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Hide cubes of patches.

    Parameters
    ----------
    images : Tensor of float32, shape (N, C, P, P, P)
    hidden : Tensor of uint8, shape (N, 1, cubes, cubes, cubes)
        As `hidden_voxels` draws them.

    Returns
    -------
    images, targets : Tensor of float32
        See `RestorationBatches`.
    """
    edge = images.shape[-1] // hidden.shape[-1]
    for axis in (2, 3, 4):
        hidden = hidden.repeat_interleave(edge, axis)
    return images.masked_fill(hidden > 0, BLANK), torch.cat([images[:, :1], hidden], dim=1)


def restoration_loss(outputs: Outputs, targets: torch.Tensor) -> torch.Tensor:
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
    rng = np.random.default_rng([settings.seed, settings.fold, VALIDATING])
    starts, image = place_in_head(case, settings.patch_size, rng, VALIDATION_PATCHES), case.image
    images = np.stack([cut(image, start, settings.patch_size) for start in starts])
    hidden = np.stack([hidden_voxels(settings, rng) for _ in images])
    return hide(torch.from_numpy(images).float(), torch.from_numpy(hidden))


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


def pretrained(run: RunLayout, parts: Split) -> Path:
    """Checkpoint of a finished pretraining that saw no case of a fold's test and selection set.

    Raises
    ------
    FileNotFoundError
        The pretraining is not finished.
    CohortError
        It saw a case that it must not have seen.
    """
    if not run.metrics.is_file():
        raise FileNotFoundError(f"no {run.metrics}; first pretrain this network on this fold with this seed (03b)")
    load_unseen(run.best_checkpoint, parts)
    return run.best_checkpoint


def load_unseen(checkpoint: Path, parts: Split) -> dict[str, Any]:
    """Load a checkpoint whose network saw no case of a fold's test and selection set, with or without its label.

    Raises
    ------
    CohortError
        With every such case that it saw.
    """
    content = load_checkpoint(checkpoint)
    seen, expected = content["identity"]["cases"], "weights trained without the cases of the selection and test set"
    found, fix = "it was trained with this case of the {} set", "train that network again on the folds of this study"
    problems = [
        Problem(case.name, str(checkpoint), found.format(name), expected, fix)
        for name, part in (("selection", parts.selection), ("test", parts.test))
        for case in part
        if case.name in seen
    ]
    if problems:
        raise CohortError(problems)
    return content
