"""Random changes to a training patch, cheap enough for the processes that cut patches.

Drawn from an explicit generator first, then done to image and label: moving a patch is most of what cutting it costs,
so each voxel is moved as few times as can be, in the two bytes it has in the case store. Its intensity is changed, and
single precision made of it, where the network is: a GPU takes it in half the bytes.
"""

from dataclasses import dataclass

import numpy as np
import torch

from metaseg_nb.settings import Train

# The last axis of (C, X, Y, Z), whose voxels lie side by side.
ALONG_ROWS = 3


@dataclass(frozen=True)
class Change:
    """What is done to a patch: axes are reversed, then two change places; any flips and quarter turn are that.

    Parameters
    ----------
    flipped : tuple of ints
        Axes of an array of shape (C, X, Y, Z).
    swapped : tuple of 2 ints
        Axes of such an array, the smaller first; twice the same: none.
    intensity : ndarray of float32, shape (C, 2)
        What each channel's intensity is multiplied by, and what is added then.
    """

    flipped: tuple[int, ...]
    swapped: tuple[int, int]
    intensity: np.ndarray


def draw_change(settings: Train, channels: int, rng: np.random.Generator) -> Change:
    """Draw flips on three axes, a turn by quarters in a random plane, and each channel's scale and shift."""
    flips = rng.random(3) < settings.flip_probability
    swapped = (1, 1)
    if rng.random() < settings.rotate_probability:
        one, other = rng.choice(3, 2, replace=False)
        # a quarter turn to the one or the other side, or, once in three times, a half turn
        flips[one] ^= True
        if rng.integers(3) == 0:
            flips[other] ^= True
        else:
            swapped = (int(min(one, other)) + 1, int(max(one, other)) + 1)
    flipped = tuple((np.flatnonzero(flips) + 1).tolist())
    scale = 1 + rng.uniform(-settings.intensity_scale, settings.intensity_scale, channels)
    shift = rng.uniform(-settings.intensity_shift, settings.intensity_shift, channels)
    return Change(flipped, swapped, np.stack([scale, shift], axis=1, dtype=np.float32))


def before_change(changed: np.ndarray, change: Change) -> np.ndarray:
    """View a changed array, shape (C, P, P, P), as it lies before: what is written into the view is moved."""
    return np.flip(changed.swapaxes(*change.swapped), change.flipped)


def rows_flipped(array: np.ndarray, change: Change) -> np.ndarray:
    """View an array, shape (C, P, P, P), with those axes reversed that leave its rows as they are."""
    return np.flip(array, [axis for axis in change.flipped if axis != ALONG_ROWS])


def finish_moving(image: torch.Tensor, change: Change, out: torch.Tensor) -> None:
    """Move an image as is left to do once it was written to `rows_flipped`.

    Parameters
    ----------
    image : Tensor of float16, shape (C, P, P, P)
    change : Change
    out : Tensor of float16, shape (C, P, P, P)
        Gets the moved image.
    """
    if ALONG_ROWS in change.flipped:
        # as integers: of these, torch reverses many at once
        image = image.view(torch.int16).flip(ALONG_ROWS).view(torch.float16)
    out.copy_(_swap(image, *change.swapped))


def change_intensity(images: torch.Tensor, intensity: torch.Tensor) -> torch.Tensor:
    """Change each channel's intensity in place, on the device the patches lie on.

    Parameters
    ----------
    images : Tensor of float32, shape (N, C, P, P, P)
    intensity : Tensor of float32, shape (N, C, 2)
        Of a `Change`.
    """
    scale, shift = intensity[..., None, None, None].unbind(2)
    return images.mul_(scale).add_(shift)


def _swap(image: torch.Tensor, first: int, second: int) -> torch.Tensor:
    """Let two spatial axes change places.

    Where the last one is among them no row stays a row, and what is moved must stay in the cache: it does plane by
    plane, so the first axis goes to the last by way of the middle. At 128³ that takes 1 ms; in one go, 24 ms.
    """
    if second != ALONG_ROWS:
        return image.transpose(first, second)
    return image.transpose(first, 2).contiguous().transpose(2, 3).contiguous().transpose(first, 2)
