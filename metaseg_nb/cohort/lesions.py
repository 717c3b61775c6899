"""Lesions of a mask: 26-connected components, their volume, diameter and place."""

from dataclasses import dataclass
from functools import cached_property

import cc3d
import numpy as np
import pandas as pd
from scipy.spatial import ConvexHull, QhullError
from scipy.spatial.distance import pdist

# Classes by largest diameter in millimetres, as they are reported everywhere.
DIAMETER_EDGES_MM = (0.0, 5.0, 10.0, 20.0, np.inf)
DIAMETER_NAMES = ("<5 mm", "5-10 mm", "10-20 mm", ">20 mm")

# Columns of a table of lesions.
LESION_FACTS = ("lesion", "voxels", "volume_mm3", "diameter_mm", "x", "y", "z")


@dataclass(frozen=True)
class Lesions:
    """The lesions of a mask.

    Parameters
    ----------
    labels : ndarray of int, shape (X, Y, Z)
        0 outside, 1..n inside.
    boxes : dict of int to tuple of 3 slices
        Bounding box of each lesion, in voxels.
    spacing_mm : tuple of 3 floats
    """

    labels: np.ndarray
    boxes: dict[int, tuple[slice, slice, slice]]
    spacing_mm: tuple[float, float, float]

    @property
    def n(self) -> int:
        """Number of lesions."""
        return len(self.boxes)

    @cached_property
    def table(self) -> pd.DataFrame:
        """From `lesion_table`; made when it is asked for, as diameters take the most time."""
        return lesion_table(self.labels, self.n, self.spacing_mm)

    def voxels(self, lesion: int) -> np.ndarray:
        """Voxel indices of a lesion, int of shape (N, 3), sorted."""
        box = self.boxes[lesion]
        return np.argwhere(self.labels[box] == lesion) + [axis.start for axis in box]


def find_lesions(mask: np.ndarray, spacing_mm: tuple[float, float, float]) -> Lesions:
    """Find the 26-connected components of a mask of bool, shape (X, Y, Z)."""
    labels, n = label_lesions(mask)
    found = cc3d.statistics(labels)["bounding_boxes"] if n else []
    boxes = {lesion: tuple(found[lesion]) for lesion in range(1, n + 1)}
    return Lesions(labels, boxes, spacing_mm)


def label_lesions(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """Number the 26-connected components of a mask.

    Parameters
    ----------
    mask : ndarray of bool, shape (X, Y, Z)

    Returns
    -------
    labels : ndarray of int, shape (X, Y, Z)
        0 outside, 1..n inside.
    n : int
        Number of lesions.
    """
    return cc3d.connected_components(np.ascontiguousarray(mask, dtype=np.uint8), connectivity=26, return_N=True)


def largest_diameter_mm(voxels: np.ndarray, spacing_mm: tuple[float, float, float]) -> float:
    """Largest distance between two corners of a lesion's voxels (3D Feret diameter).

    Parameters
    ----------
    voxels : ndarray of int, shape (N, 3)
        Voxel indices of one lesion, sorted as ``numpy.argwhere`` gives them.
    spacing_mm : tuple of 3 floats

    Returns
    -------
    float
        Millimetres. Corners, not centres, are measured: one voxel has the
        length of its diagonal.
    """
    # Only the two ends of each run of voxels along Z can be farthest apart.
    change = (np.diff(voxels[:, :2], axis=0) != 0).any(axis=1)
    voxels = voxels[np.r_[True, change] | np.r_[change, True]]
    corners = (voxels[:, None, :] + np.array(np.meshgrid([0, 1], [0, 1], [0, 1])).reshape(3, -1).T).reshape(-1, 3)
    points = np.unique(corners, axis=0) * np.asarray(spacing_mm)
    try:
        points = points[ConvexHull(points).vertices]
    except QhullError as error:  # the corners of a voxel always span a volume
        raise ValueError(f"a lesion of {len(voxels)} voxels with spacing {spacing_mm} mm spans no volume") from error
    return float(pdist(points).max())


def lesion_table(labels: np.ndarray, n: int, spacing_mm: tuple[float, float, float]) -> pd.DataFrame:
    """Describe every lesion of a labelled mask.

    Parameters
    ----------
    labels, n
        From `label_lesions`.
    spacing_mm : tuple of 3 floats

    Returns
    -------
    DataFrame
        One row per lesion: ``lesion`` (1..n), ``voxels``, ``volume_mm3``,
        ``diameter_mm``, ``x``, ``y``, ``z`` (centroid, voxel indices).
    """
    rows = []
    statistics = cc3d.statistics(labels) if n else None
    for lesion in range(1, n + 1):
        box = statistics["bounding_boxes"][lesion]
        offset = np.array([axis.start for axis in box])
        voxels = np.argwhere(labels[box] == lesion) + offset
        x, y, z = voxels.mean(axis=0)
        volume = len(voxels) * float(np.prod(spacing_mm))
        diameter = largest_diameter_mm(voxels, spacing_mm)
        rows.append((lesion, len(voxels), volume, diameter, x, y, z))
    # without rows pandas could not know that these are numbers
    numbers = dict.fromkeys(LESION_FACTS[2:], float) | {"lesion": int, "voxels": int}
    return pd.DataFrame(rows, columns=LESION_FACTS).astype(numbers)


def diameter_class(diameter_mm: pd.Series) -> pd.Series:
    """Class of each diameter, one of `DIAMETER_NAMES` (lower edge included)."""
    return pd.cut(diameter_mm, DIAMETER_EDGES_MM, labels=list(DIAMETER_NAMES), right=False)
