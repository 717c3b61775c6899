"""From the study grid back to the grid of the file a case came from."""

import numpy as np

from metaseg_nb.inference.decision import Decision
from metaseg_nb.preprocessing.grid import Grid, resample, resample_lesions
from metaseg_nb.preprocessing.steps import remove_specks


def native_mask(probability: np.ndarray, grid: Grid, native: Grid, decision: Decision) -> np.ndarray:
    """Lesions on a case's own grid, by `resample_lesions`; components that are too small there are removed.

    Parameters
    ----------
    probability : ndarray, shape ``grid.shape``
    grid : Grid
        The study grid.
    native : Grid
        The case's own.
    decision : Decision

    Returns
    -------
    ndarray of uint8, shape ``native.shape``
    """
    mask = resample_lesions(probability, grid, native, decision.threshold)
    return remove_specks(mask, native.spacing_mm, decision.min_lesion_mm3).astype(np.uint8)


def native_probability(probability: np.ndarray, grid: Grid, native: Grid) -> np.ndarray:
    """Probabilities on a case's own grid, float32, by linear interpolation; 0 where the study grid does not reach.

    Cut at the threshold they give about the mask of `native_mask`, which unlike them keeps each lesion's volume.
    """
    return resample(probability, grid, native).clip(0, 1)
