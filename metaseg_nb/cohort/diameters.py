"""Diameters of a lesion on its axial slices, as radiologists measure them for RECIST and RANO-BM."""

from typing import NamedTuple

import numpy as np
from scipy.spatial.distance import cdist


class Diameters(NamedTuple):
    """The longest axial diameter, the longest one across it on the same slice, and the number of axial slices."""

    longest_mm: float
    perpendicular_mm: float
    slices: int


def longest_axial_line(voxels: np.ndarray, spacing_mm: tuple[float, float, float]) -> np.ndarray:
    """The longest line between two voxels of a lesion on one axial slice, as for RECIST.

    If it is as long on several slices, it is that of the middle one of them.

    Parameters
    ----------
    voxels : ndarray of int, shape (N, 3)
        Sorted as ``numpy.argwhere`` gives them.
    spacing_mm : tuple of 3 floats

    Returns
    -------
    ndarray of int, shape (2, 3)
        Both ends.
    """
    lines, lengths_mm = [], []
    for z in np.unique(voxels[:, 2]):
        own = voxels[voxels[:, 2] == z]
        new_row = np.diff(own[:, 0], prepend=-1, append=-1) != 0
        ends = own[new_row[:-1] | new_row[1:]]  # of rows along Y: only these can be farthest apart
        places = ends * spacing_mm
        apart = cdist(places, places)
        lines.append(ends[list(np.unravel_index(apart.argmax(), apart.shape))])
        lengths_mm.append(apart.max())
    longest = np.flatnonzero(np.isclose(lengths_mm, max(lengths_mm)))
    return lines[longest[len(longest) // 2]]


def axial_diameters(voxels: np.ndarray, spacing_mm: tuple[float, float, float]) -> Diameters:
    """Measure a lesion on its own voxels.

    A line ends half a voxel beyond the centres of its last voxels, so a lesion of one voxel has a voxel's edge.

    Parameters
    ----------
    voxels, spacing_mm
        As of `longest_axial_line`.

    References
    ----------
    Eisenhauer et al. 2009 (RECIST 1.1, Eur. J. Cancer 45:228); Lin et al. 2015 (RANO-BM, Lancet Oncol. 16:e270).
    """
    edges = np.asarray(spacing_mm[:2])
    start, end = longest_axial_line(voxels, spacing_mm)
    line = (end - start)[:2] * edges
    length = float(np.linalg.norm(line))
    along = line / length if length else np.array([1.0, 0.0])
    across = np.array([-along[1], along[0]])
    edge_along, edge_across = (float(np.linalg.norm(direction * edges)) for direction in (along, across))
    places = voxels[voxels[:, 2] == start[2]][:, :2] * edges
    row, offset = np.round(places @ along / edge_along).astype(int), places @ across
    widths = [np.ptp(offset[row == one]) for one in np.unique(row)]
    slices = len(np.unique(voxels[:, 2]))
    return Diameters(length + edge_along, float(max(widths)) + edge_across, slices)
