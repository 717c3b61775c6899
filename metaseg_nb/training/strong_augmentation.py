"""Strong random changes to a batch of training patches, on the device the batch lies on.

Flips, quarter turns and brightness come before, from `metaseg_nb.training.augmentation`. Kinds, chances and ranges
are nnU-Net's (default trainer of version 2; Isensee et al. 2021, https://doi.org/10.1038/s41592-020-01008-z), but for
what that lacks: bending, as TorchIO bends (Pérez-García et al. 2021, https://doi.org/10.1016/j.cmpb.2021.106236), and
the bias field, a product of Legendre polynomials as in MONAI's RandBiasField.
"""

import numpy as np
import torch
from monai.transforms import (
    AffineGrid,
    Compose,
    RandAdjustContrast,
    RandGaussianSmooth,
    RandSimulateLowResolution,
    Resample,
)
from torch.nn.functional import interpolate

TURN_CHANCE, TURN_DEGREES = 0.2, 30.0  # at most, about each axis
ZOOM_CHANCE, ZOOM = 0.2, (0.7, 1.4)  # edge of what is shown, of the patch's; along all axes alike
# Knots along each axis, and by how much of the patch's edge each is moved at most: less than half of their distance.
BEND_CHANCE, BEND_KNOTS, BEND_SHARE = 0.2, 7, 7.5 / 128
NOISE_CHANCE, NOISE_VARIANCE = 0.1, 0.1  # at most, of the patch's own
BIAS_CHANCE, BIAS_DEGREE, BIAS_COEFFICIENT = 0.1, 3, 0.1
BLUR_CHANCE, BLUR_VOXELS = 0.2, (0.5, 1.0)
COARSE_CHANCE, COARSE_ZOOM = 0.25, (0.5, 1.0)
GAMMA_CHANCE, INVERTED_GAMMA_CHANCE, GAMMA = 0.3, 0.1, (0.7, 1.5)


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
        pairs.append((degrade(image).as_tensor(), label))
    images, labels = zip(*pairs, strict=True)
    return torch.stack(images), torch.stack(labels)


def move(image: torch.Tensor, label: torch.Tensor, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Turn, zoom and bend an image (C, P, P, P) and its label (1, P, P, P), in one interpolation."""
    turns, zooms, bends = rng.random(3) < (TURN_CHANCE, ZOOM_CHANCE, BEND_CHANCE)
    if not (turns or zooms or bends):
        return image, label
    size, device = image.shape[1:], image.device
    angles = turns * np.radians(rng.uniform(-TURN_DEGREES, TURN_DEGREES, 3))
    zoom = rng.uniform(*ZOOM) if zooms else 1.0
    grid, _ = AffineGrid(rotate_params=tuple(angles), scale_params=(zoom,) * 3, device=device)(size)
    grid[:3] += bends * size[0] * displacement(size, rng, device)
    take = Resample(padding_mode="zeros", device=device, dtype=torch.float32)
    moved = take(image, grid, mode="bilinear").as_tensor()
    return moved, take(label, grid, mode="nearest").as_tensor().to(label.dtype)


def displacement(size: tuple[int, int, int], rng: np.random.Generator, device: torch.device) -> torch.Tensor:
    """Draw where each voxel is moved to, as a share of the patch's edge: shape (3, X, Y, Z), linear between knots."""
    knots = rng.uniform(-BEND_SHARE, BEND_SHARE, (1, 3, *(BEND_KNOTS,) * 3)).astype(np.float32)
    return interpolate(torch.from_numpy(knots).to(device), size, mode="trilinear", align_corners=True)[0]


def add_noise(image: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Add Gaussian noise, as much of each channel's variance as is drawn."""
    generator = torch.Generator(image.device).manual_seed(int(rng.integers(2**63)))
    deviation = image.std(dim=(1, 2, 3), keepdim=True) * rng.uniform(0, NOISE_VARIANCE) ** 0.5
    return image + deviation * torch.randn(image.shape, generator=generator, device=image.device)


def bias_field(size: tuple[int, int, int], rng: np.random.Generator, device: torch.device) -> torch.Tensor:
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
