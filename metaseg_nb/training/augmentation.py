"""Random changes to a training patch, drawn from an explicit generator."""

import numpy as np

from metaseg_nb.settings import Train


def augment(
    image: np.ndarray, label: np.ndarray, settings: Train, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Flip on three axes, turn by quarters in a random plane, scale and shift the intensity.

    Parameters
    ----------
    image : ndarray of float32, shape (C, P, P, P)
        Each channel's intensity is changed by itself.
    label : ndarray of uint8, shape (P, P, P)
    settings : Train
    rng : Generator

    Returns
    -------
    image, label : ndarray
        Same shape and type, contiguous.
    """
    flipped = [axis for axis in range(3) if rng.random() < settings.flip_probability]
    image, label = np.flip(image, [axis + 1 for axis in flipped]), np.flip(label, flipped)
    if rng.random() < settings.rotate_probability:
        first, second = rng.choice(3, 2, replace=False).tolist()
        quarters = int(rng.integers(1, 4))
        image = np.rot90(image, quarters, (first + 1, second + 1))
        label = np.rot90(label, quarters, (first, second))
    each = (len(image), 1, 1, 1)
    scale = 1 + rng.uniform(-settings.intensity_scale, settings.intensity_scale, each)
    shift = rng.uniform(-settings.intensity_shift, settings.intensity_shift, each)
    return image * scale.astype(np.float32) + shift.astype(np.float32), np.ascontiguousarray(label)
