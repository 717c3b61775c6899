"""Random changes to training patches, made on the device that the patches lie on.

Each patch is flipped, turned and made brighter or darker, as in the study. Where strong augmentation is asked for, a
batch is changed further: kinds, chances and ranges are nnU-Net's (default trainer of version 2; Isensee et al. 2021,
https://doi.org/10.1038/s41592-020-01008-z), but for what that lacks: bending, as TorchIO bends (Pérez-García et al.
2021, https://doi.org/10.1016/j.cmpb.2021.106236), and the bias field, a product of Legendre polynomials as in MONAI's
RandBiasField.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from monai.transforms import AffineGrid, Compose, RandAdjustContrast, RandGaussianSmooth, RandSimulateLowResolution
from torch.nn.functional import grid_sample, interpolate

from metaseg_nb.settings import Training

TURN_CHANCE, TURN_DEGREES = 0.2, 30.0  # at most, about each axis
ZOOM_CHANCE, ZOOM = 0.2, (0.7, 1.4)  # edge of what is shown, of the patch's; along all axes alike
# Knots along each axis, and by how much of the patch's edge each is moved at most: less than half of their distance.
BEND_CHANCE, BEND_KNOTS, BEND_SHARE = 0.2, 7, 7.5 / 128
NOISE_CHANCE, NOISE_VARIANCE = 0.1, 0.1  # at most, of the patch's own
BIAS_CHANCE, BIAS_DEGREE, BIAS_COEFFICIENT = 0.1, 3, 0.1
BLUR_CHANCE, BLUR_VOXELS = 0.2, (0.5, 1.0)
COARSE_CHANCE, COARSE_ZOOM = 0.25, (0.5, 1.0)
GAMMA_CHANCE, INVERTED_GAMMA_CHANCE, GAMMA = 0.3, 0.1, (0.7, 1.5)


@dataclass(frozen=True)
class Change:
    """What is done to a patch of shape (C, X, Y, Z): first axes are flipped, then two change places.

    ``flipped`` are axes; ``swapped`` are two, or twice the same for none; ``intensity``, float32 of shape (C, 2), is
    what each channel is multiplied by, and what is added then.
    """

    flipped: tuple[int, ...]
    swapped: tuple[int, int]
    intensity: np.ndarray


def draw_change(settings: Training, channels: int, rng: np.random.Generator, lacking: Sequence[int] = ()) -> Change:
    """Draw flips on three axes, a turn by quarters in a random plane, and each channel's scale and shift.

    Sequences that the case lacks (numbers from 1) stay 0; others than the first become so by ``sequence_dropout``.
    """
    flips = rng.random(3) < settings.flip_probability
    swapped = (1, 1)
    if rng.random() < settings.rotate_probability:
        one, other = rng.choice(3, 2, replace=False)
        # a quarter turn to the one or the other side, or, once in three times, a half turn
        flips[one] ^= True
        if rng.integers(3) == 0:
            flips[other] ^= True
        else:
            swapped = (int(one) + 1, int(other) + 1)
    flipped = tuple((np.flatnonzero(flips) + 1).tolist())
    scale = 1 + rng.uniform(-settings.intensity_scale, settings.intensity_scale, channels)
    shift = rng.uniform(-settings.intensity_shift, settings.intensity_shift, channels)
    intensity = np.stack([scale, shift], axis=1, dtype=np.float32)
    intensity[[number - 1 for number in lacking]] = 0
    if settings.sequence_dropout:  # else nothing more is drawn: studies without it draw what they always did
        intensity[1:][rng.random(channels - 1) < settings.sequence_dropout] = 0
    return Change(flipped, swapped, intensity)


def move_patches(patches: torch.Tensor, changes: Sequence[Change]) -> torch.Tensor:
    """Flip and turn each of the patches, shape (N, C, P, P, P), into new ones of the same type."""
    pairs = zip(patches, changes, strict=True)
    return torch.stack([patch.flip(change.flipped).transpose(*change.swapped) for patch, change in pairs])


def change_intensity(images: torch.Tensor, changes: Sequence[Change]) -> torch.Tensor:
    """Scale and shift each channel of images, shape (N, C, P, P, P), into new ones of float32."""
    intensity = torch.from_numpy(np.stack([change.intensity for change in changes]))
    intensity = intensity.to(images.device, non_blocking=True)
    scale, shift = intensity[..., None, None, None].unbind(2)
    return (images.float() * scale).add_(shift)


def augment_strongly(images: torch.Tensor, labels: torch.Tensor, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Turn, zoom and bend patches; add noise, a bias field, blur, low resolution and gamma: each by its own chance.

    Parameters
    ----------
    images : Tensor of float32, shape (N, C, P, P, P)
    labels : Tensor of uint8, 0 or 1, shape (N, 1, P, P, P)
        Moved as the images are.
    seed : int
        All that is drawn depends on it alone.

    Returns
    -------
    images, labels : Tensor
        New ones of the same shape and type on the same device. What comes from beyond a patch is 0.
    """
    rng = np.random.default_rng(seed)
    degrade = _degrading(int(rng.integers(2**32)))
    pairs = []
    for image, label in zip(images, labels, strict=True):
        image, label = move(image, label, rng)
        if rng.random() < NOISE_CHANCE:
            image = add_noise(image, rng)
        if rng.random() < BIAS_CHANCE:
            image = image * bias_field(image.shape[1:], rng, image.device)
        shown = image.flatten(1).any(dim=1)[:, None, None, None]  # a missing sequence stays 0
        pairs.append((cast(MetaTensor, degrade(image)).as_tensor() * shown, label))
    return torch.stack([image for image, _ in pairs]), torch.stack([label for _, label in pairs])


def move(image: torch.Tensor, label: torch.Tensor, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Turn, zoom and bend an image (C, P, P, P) and its label (1, P, P, P), in one interpolation."""
    turns, zooms, bends = rng.random(3) < (TURN_CHANCE, ZOOM_CHANCE, BEND_CHANCE)
    if not (turns or zooms or bends):
        return image, label
    size, device = image.shape[1:], image.device
    angles = turns * np.radians(rng.uniform(-TURN_DEGREES, TURN_DEGREES, 3))
    zoom = rng.uniform(*ZOOM) if zooms else 1.0
    affine = AffineGrid(rotate_params=tuple(angles), scale_params=(zoom,) * 3, device=device)
    grid = cast(MetaTensor, affine(size)[0]).as_tensor()
    grid[:3] += bends * size[0] * displacement(size, rng, device)
    # from -1 to 1, the last axis first
    places = (2 / size[0] * grid[[2, 1, 0]]).movedim(0, -1)[None]
    moved = grid_sample(image[None], places, mode="bilinear", align_corners=False)[0]
    return moved, grid_sample(label[None].float(), places, mode="nearest", align_corners=False)[0].to(label.dtype)


def displacement(size: Sequence[int], rng: np.random.Generator, device: torch.device) -> torch.Tensor:
    """Draw where each voxel is moved to, as a share of the patch's edge: shape (3, X, Y, Z), linear between knots."""
    knots = rng.uniform(-BEND_SHARE, BEND_SHARE, (1, 3, *(BEND_KNOTS,) * 3)).astype(np.float32)
    return interpolate(torch.from_numpy(knots).to(device), size, mode="trilinear", align_corners=True)[0]


def add_noise(image: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Add Gaussian noise, as much of each channel's variance as is drawn."""
    generator = torch.Generator(image.device).manual_seed(int(rng.integers(2**63)))
    deviation = image.std(dim=(1, 2, 3), keepdim=True) * rng.uniform(0, NOISE_VARIANCE) ** 0.5
    return image + deviation * torch.randn(image.shape, generator=generator, device=image.device)


def bias_field(size: Sequence[int], rng: np.random.Generator, device: torch.device) -> torch.Tensor:
    """Draw a smooth field of factors: the exponential of a polynomial, shape (X, Y, Z).

    MONAI's RandBiasField computes in NumPy; this stays on the device.
    """
    coefficients = rng.uniform(-BIAS_COEFFICIENT, BIAS_COEFFICIENT, (BIAS_DEGREE + 1,) * 3)
    coefficients[np.indices(coefficients.shape).sum(axis=0) > BIAS_DEGREE] = 0
    along = [np.polynomial.legendre.legvander(np.linspace(-1, 1, n), BIAS_DEGREE) for n in size]
    factors = [torch.from_numpy(array.astype(np.float32)).to(device) for array in (coefficients, *along)]
    return torch.exp(torch.einsum("ijk,xi,yj,zk->xyz", *factors))


def _degrading(seed: int) -> Compose:
    """Blur, low resolution and gamma of an image (C, P, P, P), whose mean and deviation gamma keeps."""
    transforms = [
        RandGaussianSmooth(BLUR_VOXELS, BLUR_VOXELS, BLUR_VOXELS, prob=BLUR_CHANCE),
        RandSimulateLowResolution(prob=COARSE_CHANCE, zoom_range=COARSE_ZOOM),
        RandAdjustContrast(prob=INVERTED_GAMMA_CHANCE, gamma=GAMMA, invert_image=True, retain_stats=True),
        RandAdjustContrast(prob=GAMMA_CHANCE, gamma=GAMMA, retain_stats=True),
    ]
    return Compose(transforms).set_random_state(seed)
