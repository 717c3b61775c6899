"""From the study grid back to the grid of the file a case came from."""

import numpy as np

from metaseg_nb.cohort.volumes import Volume
from metaseg_nb.preprocessing.grid import Grid, resample


def to_native(probability: np.ndarray, grid: Grid, native: Grid) -> np.ndarray:
    """Bring probabilities to a case's own grid, linearly; 0 where the study grid does not reach.

    Parameters
    ----------
    probability : ndarray of float32
        On ``grid``.
    grid, native : Grid

    Returns
    -------
    ndarray of float32, shape ``native.shape``, RAS
    """
    return resample(probability, grid, native)


def native_mask(probability: np.ndarray, grid: Grid, source: Volume, threshold: float) -> Volume:
    """Mask (uint8) on the grid of ``source``, 1 where the probability reaches the threshold."""
    native = Grid(source.spacing_mm, source.array.shape)
    mask = to_native(probability, grid, native) >= threshold
    return Volume(mask.astype(np.uint8), source.affine, source.native_orientation)
