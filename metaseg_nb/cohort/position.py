"""Where lesions lie in the head: third, hemisphere, depth, and a map over patients.

No registration: each head is measured by its own bounding box. Where the skull is in
the image the box is the head's, otherwise the brain's.
"""

from dataclasses import dataclass

import cc3d
import edt
import numpy as np
import pandas as pd

from metaseg_nb.cohort.head import ends_of, head_mask, with_dark_background
from metaseg_nb.cohort.lesions import Lesions

# The head is found on voxels of about this edge: fine enough for thirds and depths, and quick.
COARSE_MM = 2.0
# Sulci and ventricles that open outwards are narrower than twice this.
CLOSING_MM = 8.0
# A brain without skull is smaller than this; the largest adult brains have about 1.9 litres.
BRAIN_AT_MOST_CM3 = 2200.0
# At this depth lies the fat of the scalp, twice as bright as the median of a head; of a brain its rim, never brighter.
SCALP_MM, BRIGHT_SCALP = (3.0, 6.0), 1.2
# A head that is cut and shorter than this along X, Y, Z does not hold the whole brain of an adult.
BRAIN_AT_LEAST_MM = (110.0, 140.0, 120.0)
# A head ends rounded. Where its outermost slice has more than this share of its largest one, it is cut; where the brain
# begins, 10 mm below the vertex, it is a quarter to a third.
CUT_SHARE = 0.4
# Smaller ones are no heads of people, and may end as they like.
HEAD_AT_LEAST_MM = 100.0
SIDES = (("left", "right"), ("back", "front"), ("bottom", "top"))
# A lesion may reach beyond the head this far: the head's outermost voxels are darker than its threshold.
REACH_MM = 5.0
# A lesion with this share of its voxels in the background does not belong to the head.
OUTSIDE_SHARE = 0.5
# Cells of the map along X, Y, Z: about 4 mm of a brain.
MAP_SHAPE = (36, 44, 36)
THIRDS = ("inferior", "middle", "superior")
HEMISPHERES = ("left", "right")
# Columns of a table of positions.
POSITIONS = ("third", "hemisphere", "depth_mm")


@dataclass(frozen=True)
class Head:
    """The head (or brain) of an image, its holes filled, on a coarser grid.

    Parameters
    ----------
    mask : ndarray of bool, shape (X / step, Y / step, Z / step)
        Never empty.
    step : ndarray of 3 int
        Voxels of the image along each edge of a voxel of ``mask``.
    spacing_mm : tuple of 3 floats
        Of ``mask``.
    rim : float
        Median intensity at the depth of the scalp, `SCALP_MM`, relative to that of all; the background's is 0.
    """

    mask: np.ndarray
    step: np.ndarray
    spacing_mm: tuple[float, float, float]
    rim: float

    @property
    def volume_cm3(self) -> float:
        """Volume of the filled mask."""
        return float(self.mask.sum() * np.prod(self.spacing_mm) / 1000)

    @property
    def extent_mm(self) -> np.ndarray:
        """Size of the head's box along X, Y, Z: float, shape (3,)."""
        low, high = self.box
        return (high - low) / self.step * self.spacing_mm

    @property
    def cut_at(self) -> list[str]:
        """Sides, of `SIDES`, where the image ends before the brain does.

        The neck may be cut: at the bottom it counts only where what is above is too short for a brain.
        """
        extent_mm = self.extent_mm
        short = extent_mm < BRAIN_AT_LEAST_MM
        cut = []
        for axis, sides in enumerate(SIDES):
            areas = self.mask.sum(axis=tuple({0, 1, 2} - {axis}))
            filled = np.flatnonzero(areas)
            padded = short[axis] and np.median(extent_mm) >= HEAD_AT_LEAST_MM
            for side, place, end in zip(sides, filled[[0, -1]], (0, len(areas) - 1), strict=True):
                is_flat = areas[place] > CUT_SHARE * areas.max() and (place == end or padded)
                cut += [side] if is_flat and (short[axis] or side != "bottom") else []
        return cut

    @property
    def is_brain(self) -> bool:
        """True where the skull seems to be stripped off already: by the volume, and no scalp is seen."""
        return self.volume_cm3 <= BRAIN_AT_MOST_CM3 and self.rim <= BRIGHT_SCALP

    @property
    def skull(self) -> str:
        """State of the skull: "stripped", "in the image", or unknown where only a part of the brain is covered."""
        if self.cut_at:
            return "unknown (brain not covered)"
        return "stripped" if self.is_brain else "in the image"

    @property
    def box(self) -> tuple[np.ndarray, np.ndarray]:
        """Lowest voxel and the one beyond the highest, along X, Y, Z of the image."""
        low, high = ends_of(self.mask)
        return low * self.step, (high + 1) * self.step

    def contains(self, voxels: np.ndarray) -> np.ndarray:
        """Tell for each voxel of the image, int of shape (N, 3), whether it is in the head."""
        return self.mask[tuple(self._coarse(voxels).T)]

    def depth_mm(self, points: np.ndarray) -> np.ndarray:
        """Distance in millimetres from points, in voxels of the image, shape (N, 3), to the nearest background."""
        depth = edt.edt(np.ascontiguousarray(self.mask), anisotropy=self.spacing_mm)
        return depth[tuple(self._coarse(np.rint(points).astype(int)).T)]

    def _coarse(self, voxels: np.ndarray) -> np.ndarray:
        return np.minimum(voxels // self.step, np.array(self.mask.shape) - 1)


def find_head(array: np.ndarray, spacing_mm: tuple[float, float, float]) -> Head | None:
    """Find the head in an image, shape (X, Y, Z); None where nothing stands out from the background."""
    step = _step(spacing_mm)
    coarse = np.nan_to_num(array[tuple(slice(None, None, n) for n in step)], posinf=0, neginf=0)
    edges = tuple(float(edge) for edge in step * spacing_mm)
    hull = _hull(head_mask(coarse), edges)
    return Head(hull, step, edges, _rim(with_dark_background(coarse), hull, edges)) if hull.any() else None


def _rim(array: np.ndarray, hull: np.ndarray, spacing_mm: tuple[float, float, float]) -> float:
    depth = edt.edt(np.ascontiguousarray(hull), anisotropy=spacing_mm)
    scalp = (depth > SCALP_MM[0]) & (depth <= SCALP_MM[1])
    if hull.all() or not scalp.any():
        return 0.0
    background, middle = np.median(array[~hull]), np.median(array[hull])
    return float((np.median(array[scalp]) - background) / (middle - background)) if middle > background else 0.0


def reach_of(mask: np.ndarray, spacing_mm: tuple[float, float, float]) -> np.ndarray:
    """Where lesions may lie: a head, its sulci and holes filled, and `REACH_MM` around it.

    Parameters
    ----------
    mask : ndarray of bool, shape (X, Y, Z)
        Voxels of the head, from `head_mask`.
    spacing_mm : tuple of 3 floats

    Returns
    -------
    ndarray of bool, shape (X, Y, Z)
        Empty for an empty mask.
    """
    step = _step(spacing_mm)
    coarse = np.zeros([-(-n // k) for n, k in zip(mask.shape, step, strict=True)], bool)
    coarse[tuple((np.argwhere(mask) // step).T)] = True
    edges_mm = tuple(float(edge) for edge in step * spacing_mm)
    hull = _hull(coarse, edges_mm)
    reach = edt.edt(np.pad(~hull, 1, constant_values=True), anisotropy=edges_mm)[1:-1, 1:-1, 1:-1] <= REACH_MM
    for axis, k in enumerate(step):
        reach = reach.repeat(k, axis)
    return reach[tuple(slice(n) for n in mask.shape)] & bool(hull.any())


def _step(spacing_mm: tuple[float, float, float]) -> np.ndarray:
    """Voxels along each edge of a coarse voxel: int, shape (3,)."""
    return np.array([max(1, int(COARSE_MM / edge)) for edge in spacing_mm])


def _hull(mask: np.ndarray, spacing_mm: tuple[float, float, float]) -> np.ndarray:
    """Close sulci, fill holes that are closed off from the background (ventricles, cysts), keep the largest piece."""
    margin = [(int(np.ceil(CLOSING_MM / edge)) + 1,) * 2 for edge in spacing_mm]
    grown = edt.edt(np.pad(~mask, margin, constant_values=True), anisotropy=spacing_mm) <= CLOSING_MM
    background = cc3d.connected_components((~grown).astype(np.uint8), connectivity=6)
    closed = edt.edt(background != background[0, 0, 0], anisotropy=spacing_mm) > CLOSING_MM
    pieces = cc3d.largest_k(closed.astype(np.uint8), k=1, connectivity=6).astype(bool)
    return pieces[tuple(slice(low, -high) for low, high in margin)]


def outside_lesions(lesions: Lesions, head: Head) -> list[int]:
    """Numbers of the lesions that do not belong to the head: half of their voxels or more lie in the background."""
    return [lesion for lesion in lesions.boxes if (~head.contains(lesions.voxels(lesion))).mean() >= OUTSIDE_SHARE]


def lesion_positions(lesions: Lesions, head: Head) -> pd.DataFrame:
    """Say of each lesion where its centre lies.

    Returns
    -------
    DataFrame
        Rows as in ``lesions.table``: ``third`` of the head's height (`THIRDS`), ``hemisphere``
        (`HEMISPHERES`, by the middle of the head's box), ``depth_mm`` below the surface of the head.
    """
    centres = lesions.table[["x", "y", "z"]].to_numpy()
    low, high = head.box
    relative = ((centres + 0.5) - low) / (high - low)
    third = np.clip((3 * relative[:, 2]).astype(int), 0, 2)
    return pd.DataFrame(
        {
            "third": np.array(THIRDS)[third],
            "hemisphere": np.array(HEMISPHERES)[(relative[:, 0] > 0.5).astype(int)],  # X grows to the right
            "depth_mm": head.depth_mm(centres),
        }
    )


def map_of_lesions(mask: np.ndarray, head: Head) -> np.ndarray:
    """Cells of the head's box that hold lesion: bool, shape `MAP_SHAPE`; ``mask`` is on the image's grid."""
    low, high = head.box
    cells = mask[np.ix_(*_middles(low, high))]  # where voxels are larger than cells, each cell has its voxel
    places = ((np.argwhere(mask) + 0.5 - low) / (high - low) * MAP_SHAPE).astype(int)
    inside = ((places >= 0) & (places < MAP_SHAPE)).all(axis=1)
    cells[tuple(places[inside].T)] = True  # where they are smaller, no voxel is passed over
    return cells


def map_of_head(head: Head) -> np.ndarray:
    """The head itself in its box: bool, shape `MAP_SHAPE`."""
    low, high = (ends // head.step for ends in head.box)
    return head.mask[np.ix_(*_middles(low, high))]


def _middles(low: np.ndarray, high: np.ndarray) -> list[np.ndarray]:
    """Voxel in the middle of each cell, along each axis."""
    return [low[i] + ((np.arange(n) + 0.5) * (high[i] - low[i]) / n).astype(int) for i, n in enumerate(MAP_SHAPE)]
