"""Random changes to a training patch, drawn from an explicit generator."""

import numpy as np

from metaseg_nb.settings import Train


def augment(
    image: np.ndarray, label: np.ndarray, settings: Train, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Flip on three axes, turn by quarters in a random plane, scale and shift the intensity.

    Parameters
    ----------
    image : ndarray of float32, shape (P, P, P)
    label : ndarray of uint8, shape (P, P, P)
    settings : Train
    rng : Generator

    Returns
    -------
    image, label : ndarray
        Same shape and type, contiguous.
    """
    flipped = [axis for axis in range(3) if rng.random() < settings.flip_probability]
    image, label = np.flip(image, flipped), np.flip(label, flipped)
    if rng.random() < settings.rotate_probability:
        plane = tuple(rng.choice(3, 2, replace=False).tolist())
        quarters = int(rng.integers(1, 4))
        image, label = np.rot90(image, quarters, plane), np.rot90(label, quarters, plane)
    scale = 1 + rng.uniform(-settings.intensity_scale, settings.intensity_scale)
    shift = rng.uniform(-settings.intensity_shift, settings.intensity_shift)
    return image * np.float32(scale) + np.float32(shift), np.ascontiguousarray(label)
