"""Check for int16 overflow: bright voxels that were stored as large negative ones."""

import cc3d
import numpy as np

from metaseg_nb.cohort.cases import Case
from metaseg_nb.cohort.problems import Problem

INT16 = np.iinfo(np.int16)
# Of a spot's rim: elsewhere a wrapped spot may border on dark tissue, and single jumps are noise.
RIM_SHARE = 0.5


def overflow_problem(case: Case, path: str, array: np.ndarray) -> Problem | None:
    """Problem of an image whose brightest voxels were wrapped to negative values by 16-bit storage, or None.

    A value above 32767 comes out 65536 lower, so a wrapped spot is negative, lies in the midst of
    positive voxels, and most of its rim is more than half of the range of int16 away from its neighbours
    (Itoh's condition for unwrapping, Appl Opt 21(14), 1982). An image without negative values can
    never fulfil this, and padding with -32768 reaches the volume's edge.

    Parameters
    ----------
    case : Case
    path : str
    array : ndarray, shape (X, Y, Z)
        Finite values.
    """
    if array.min() >= 0 or array.min() < INT16.min or array.max() > INT16.max:
        return None
    # 6-connected: 26 would join spots to the noise around them
    spots = cc3d.connected_components((array < 0).astype(np.uint8), connectivity=6)
    wrapped = np.setdiff1d(_beyond_a_jump(spots, array), _at_the_edge(spots))
    if len(wrapped) == 0:
        return None
    found = f"{int(np.isin(spots, wrapped).sum())} voxels down to {array.min():.0f} in the midst of bright ones"
    fix = "the image overflowed when it was saved as int16: export it again as float or scaled"
    return Problem(case.name, path, found, "no int16 overflow", fix)


def _beyond_a_jump(spots: np.ndarray, array: np.ndarray) -> np.ndarray:
    """Numbers of the spots most of whose rim is more than half the range of int16 away from its neighbours."""
    rim, jumps = [], []
    for axis in range(3):
        low, high = (np.take(spots, np.arange(spots.shape[axis])[part], axis) for part in (slice(-1), slice(1, None)))
        crossing = (low > 0) != (high > 0)
        rim.append(np.maximum(low, high)[crossing])
        jumps.append(np.abs(np.diff(array, axis=axis))[crossing] > INT16.max)
    rim, jumps = np.concatenate(rim), np.concatenate(jumps)
    return np.flatnonzero(np.bincount(rim, jumps) > RIM_SHARE * np.maximum(1, np.bincount(rim)))


def _at_the_edge(spots: np.ndarray) -> np.ndarray:
    return np.unique(np.concatenate([np.take(spots, [0, -1], axis).ravel() for axis in range(3)]))
