"""From the study grid back to the grid of the file a case came from."""

import numpy as np

from metaseg_nb.cohort.volumes import Volume
from metaseg_nb.preprocessing.grid import Grid, resample_lesions


def native_mask(probability: np.ndarray, grid: Grid, source: Volume, threshold: float) -> Volume:
    """Mask (uint8) on the grid of ``source`` of the lesions that reach the threshold, by `resample_lesions`.

    Parameters
    ----------
    probability : ndarray, shape ``grid.shape``
    grid : Grid
        The study grid.
    source : Volume
        Any on the case's own grid, RAS.
    threshold : float
    """
    native = Grid(source.spacing_mm, source.array.shape)
    mask = resample_lesions(probability, grid, native, threshold)
    return Volume(mask.astype(np.uint8), source.affine, source.native_orientation)
