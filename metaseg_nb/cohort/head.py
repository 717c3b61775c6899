"""The head and the background of an image; the background need not be 0, nor the darkest value."""

from collections.abc import Sequence
from dataclasses import dataclass

import cc3d
import edt
import numpy as np
import SimpleITK as sitk

OTSU_BINS = 200
# Grey values shown: the rest is clipped, or one bright vessel darkens the brain.
SHOWN_PERCENTILES = (1, 99.7)
# A value that fills this share of the volume's twelve edges, which no head reaches, is the background's.
EDGES_SHARE = 0.2
# Where this share of all else is faint, below this part of the contrast, it is noise of air and not yet the head.
FAINT, FAINT_SHARE = 0.05, 0.08
# Of the values beside the background: what lies below is darker than it, and what more than this share holds counts.
DARK_PERCENTILE, BRIGHT_PERCENTILE = 0.5, 90
FEW = 0.01
# The background of a magnitude image is about 0. Below the first multiple of the head's median it is not; below the
# second, a number far from all others, it is padding.
LEAST_BACKGROUND, PADDING = -0.05, -3.0
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
# Cells of the map along X, Y, Z: about 4 mm of a brain.
MAP_SHAPE = (36, 44, 36)
# A lesion may reach beyond the head this far: the head's outermost voxels are darker than its threshold.
REACH_MM = 5.0


def ends_of(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First and last voxel of a mask of bool that is not empty, along each axis: int, shape (3,)."""
    places = [np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    return np.array([place[0] for place in places]), np.array([place[-1] for place in places])


def head_mask(array: np.ndarray) -> np.ndarray:
    """Find the voxels of the head.

    Where one value fills the background and nothing faint surrounds the head, as in skull-stripped images, the head
    is all that differs from it, be it brighter or darker. Elsewhere it is what is brighter than Otsu's threshold
    (IEEE SMC 9(1), 1979), the background being taken as dark wherever its value lies.

    Parameters
    ----------
    array : ndarray, shape (X, Y, Z)
        Finite values.

    Returns
    -------
    ndarray of bool, shape (X, Y, Z)
        Empty where nothing stands out.
    """
    background = background_mask(array)
    values = array[~background]
    if values.size == 0:
        return ~background
    if background.any():
        dark, bright = np.percentile(values, (DARK_PERCENTILE, BRIGHT_PERCENTILE))
        if (values < dark + FAINT * (bright - dark)).mean() < FAINT_SHARE:
            return ~background
        array = np.where(background, dark, array)
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.T))
    return sitk.GetArrayFromImage(sitk.OtsuThreshold(image, 0, 1, OTSU_BINS)).T.astype(bool)


def background_mask(array: np.ndarray) -> np.ndarray:
    """Mask of bool, shape (X, Y, Z), of the voxels that hold the background's one value; empty where air is noise."""
    edges = [np.take(np.take(array, [0, -1], first), [0, -1], second) for first, second in ((0, 1), (0, 2), (1, 2))]
    values, counts = np.unique(np.concatenate([edge.ravel() for edge in edges]), return_counts=True)
    background = values[counts.argmax()] if counts.max() >= EDGES_SHARE * counts.sum() else np.nan
    return array == background


def with_dark_background(array: np.ndarray) -> np.ndarray:
    """Give a background that lies amid the other values their lowest one; an image without such a one as it is."""
    background = background_mask(array)
    if not background.any() or background.all():
        return array
    beside, value = array[~background], array[background][0]
    return np.where(background, beside.min(), array) if (beside < value).mean() > FEW else array


def is_magnitude(array: np.ndarray, head: np.ndarray) -> bool:
    """Tell whether 0 means no signal, so that a bias field may be divided out; False after z-scoring.

    Parameters
    ----------
    array : ndarray, shape (X, Y, Z)
        Finite values.
    head : ndarray of bool, shape (X, Y, Z)
        Its `head_mask`.
    """
    if not head.any() or head.all():
        return True
    inside, outside = array[head], np.median(array[~head])
    middle = np.median(inside)
    return bool((inside < 0).mean() <= FEW and not PADDING * middle < outside < LEAST_BACKGROUND * middle)


def shown_window(array: np.ndarray) -> tuple[float, float]:
    """Values of a volume drawn black and white: percentiles of what is not background, black at most 0."""
    inside = array[~background_mask(array) & (array > array.min())]
    low, high = np.percentile(inside if inside.size else array, SHOWN_PERCENTILES)
    return float(min(low, 0)), float(high)


@dataclass(frozen=True)
class Head:
    """The head (or brain) of an image, its holes filled, on a coarser grid.

    Parameters
    ----------
    mask : ndarray of bool, shape (X / step, Y / step, Z / step)
        Never empty.
    step : ndarray of 3 int
        Voxels of the image along each edge of a voxel of ``mask``.
    spacing_mm : ndarray of 3 floats
        Of ``mask``.
    rim : float
        Median intensity at the depth of the scalp, `SCALP_MM`, relative to that of all; the background's is 0.
    """

    mask: np.ndarray
    step: np.ndarray
    spacing_mm: np.ndarray
    rim: float

    @property
    def coarse(self) -> tuple[slice, ...]:
        """Which voxels of the image are those of ``mask``."""
        return _every(self.step)

    def on_image(self, shape: Sequence[int]) -> np.ndarray:
        """The head on the grid of the image: bool, of its ``shape``."""
        return self.mask[np.ix_(*(np.arange(n) // step for n, step in zip(shape, self.step, strict=True)))]

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
    def skull(self) -> str:
        """State of the skull: "stripped", "in the image", or unknown where only a part of the brain is covered."""
        if self.cut_at:
            return "unknown (brain not covered)"
        # by the volume, and by whether a scalp is seen
        is_brain = self.volume_cm3 <= BRAIN_AT_MOST_CM3 and self.rim <= BRIGHT_SCALP
        return "stripped" if is_brain else "in the image"

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
        depth = edt.edt(np.ascontiguousarray(self.mask), anisotropy=tuple(self.spacing_mm))
        return depth[tuple(self._coarse(np.rint(points).astype(int)).T)]

    def _coarse(self, voxels: np.ndarray) -> np.ndarray:
        return np.minimum(voxels // self.step, np.array(self.mask.shape) - 1)


def find_head(array: np.ndarray, spacing_mm: Sequence[float]) -> Head | None:
    """Find the head in an image, shape (X, Y, Z); None where nothing stands out from the background."""
    step = _step(spacing_mm)
    coarse = np.nan_to_num(array[_every(step)], posinf=0, neginf=0)
    hull = _hull(head_mask(coarse), step * spacing_mm)
    if not hull.any():
        return None
    return Head(hull, step, step * spacing_mm, _rim(with_dark_background(coarse), hull, step * spacing_mm))


def map_of_lesions(mask: np.ndarray, head: Head) -> np.ndarray:
    """Cells of the head's box that hold lesion: bool, shape `MAP_SHAPE`; ``mask`` is on the image's grid."""
    low, high = head.box[0], np.minimum(head.box[1], mask.shape)  # a coarse voxel may reach beyond the image
    cells = mask[_middles(low, high)]  # where voxels are larger than cells, each cell has its voxel
    places = ((np.argwhere(mask) + 0.5 - low) / (high - low) * MAP_SHAPE).astype(int)
    inside = ((places >= 0) & (places < MAP_SHAPE)).all(axis=1)
    cells[tuple(places[inside].T)] = True  # where they are smaller, no voxel is passed over
    return cells


def map_of_head(head: Head) -> np.ndarray:
    """The head itself in its box: bool, shape `MAP_SHAPE`."""
    return head.mask[_middles(*(ends // head.step for ends in head.box))]


def _middles(low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, ...]:
    """Voxels in the middle of each cell, as an index."""
    size = high - low
    return np.ix_(*(low[i] + ((np.arange(n) + 0.5) * size[i] / n).astype(int) for i, n in enumerate(MAP_SHAPE)))


def _rim(array: np.ndarray, hull: np.ndarray, spacing_mm: np.ndarray) -> float:
    depth = edt.edt(np.ascontiguousarray(hull), anisotropy=tuple(spacing_mm))
    scalp = (depth > SCALP_MM[0]) & (depth <= SCALP_MM[1])
    if hull.all() or not scalp.any():
        return 0.0
    background, middle = np.median(array[~hull]), np.median(array[hull])
    return float((np.median(array[scalp]) - background) / (middle - background)) if middle > background else 0.0


def reach_of(mask: np.ndarray, spacing_mm: Sequence[float]) -> np.ndarray:
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
    hull = _hull(coarse, step * spacing_mm)
    outside = np.pad(~hull, 1, constant_values=True)
    reach = edt.edt(outside, anisotropy=tuple(step * spacing_mm))[1:-1, 1:-1, 1:-1] <= REACH_MM
    for axis, k in enumerate(step):
        reach = reach.repeat(k, axis)
    return reach[tuple(slice(n) for n in mask.shape)] & bool(hull.any())


def _step(spacing_mm: Sequence[float]) -> np.ndarray:
    """Voxels along each edge of a coarse voxel: int, shape (3,)."""
    return np.array([max(1, int(COARSE_MM / edge)) for edge in spacing_mm])


def _every(step: np.ndarray) -> tuple[slice, ...]:
    return tuple(slice(None, None, n) for n in step)


def _hull(mask: np.ndarray, spacing_mm: np.ndarray) -> np.ndarray:
    """Close sulci, fill holes that are closed off from the background (ventricles, cysts), keep the largest piece."""
    margin, edges = [(int(np.ceil(CLOSING_MM / edge)) + 1,) * 2 for edge in spacing_mm], tuple(spacing_mm)
    grown = edt.edt(np.pad(~mask, margin, constant_values=True), anisotropy=edges) <= CLOSING_MM
    background = cc3d.connected_components((~grown).astype(np.uint8), connectivity=6)
    closed = edt.edt(background != background[0, 0, 0], anisotropy=edges) > CLOSING_MM
    pieces = cc3d.largest_k(closed.astype(np.uint8), k=1, connectivity=6).astype(bool)
    return pieces[tuple(slice(low, -high) for low, high in margin)]
