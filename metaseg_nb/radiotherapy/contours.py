"""Contours and masks, each made from the other, by one rule: a voxel is inside when its centre is."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import contourpy
import numpy as np

# Points of one contour lie in one plane within this share of a slice; further apart it is drawn across the slices.
FLAT = 0.1
# Coordinates are rounded, often to 0.01 mm: this share of a slice is no difference.
ROUNDED = 0.02


@dataclass
class Rasterised:
    """A mask made from contours, and what was noticed on the way.

    ``mask`` (columns, rows, slices) bool. ``off_slice_mm`` is the largest distance of a contour from the slice it was
    drawn on. Counted are contours that make no voxel, as they have one or two ``points``, are ``copies`` of another
    one, lie ``across`` the slices, or have no slice (``outside``); and those ``cut`` off by the image's edge.
    """

    mask: np.ndarray
    off_slice_mm: float = 0.0
    counts: Counter[str] = field(default_factory=Counter)


def rasterise(
    contours: Sequence[np.ndarray], shape: tuple[int, int, int], affine: np.ndarray, every: float = 1.0
) -> Rasterised:
    """Make a mask from closed contours.

    Contours of one plane are combined by the even-odd rule: one inside another is a hole. A plane between two slices
    belongs to the nearest one, half a slice off at most.

    Parameters
    ----------
    contours : sequence of (points, 3) arrays
        LPS coordinates in mm.
    shape : tuple of int
        Columns, rows, slices.
    affine : (4, 4) array
        From column, row and slice to LPS mm.
    every : float
        Distance of the contours' planes in slices (`plane_distance`). Above 1, each slice takes the nearest plane.
    """
    result = Rasterised(np.zeros(shape, dtype=bool, order="F"))
    inverse, seen = np.linalg.inv(affine), set()
    planes: dict[float, list[np.ndarray]] = {}
    for points in contours:
        voxels, key = points @ inverse[:3, :3].T + inverse[:3, 3], np.round(points, 3).tobytes()
        if len(np.unique(points, axis=0)) < 3:
            result.counts["points"] += 1
        elif key in seen:  # drawn twice, two would cancel each other
            result.counts["copies"] += 1
        elif np.ptp(voxels[:, 2]) > FLAT:
            result.counts["across"] += 1
        else:
            outline = voxels[:, :2]
            planes.setdefault(round(float(voxels[:, 2].mean()), 2), []).append(outline)
            result.counts["cut"] += bool((outline < -0.5).any() or (outline > np.array(shape[:2]) - 0.5).any())
        seen.add(key)
    places, slices = np.array(sorted(planes)), np.arange(shape[2])
    if every > 1 and planes:
        nearest = places[np.abs(places[:, None] - slices).argmin(axis=0)]
        drawn = [(k, place) for k, place in zip(slices, nearest, strict=True) if abs(place - k) <= every / 2 + 0.01]
    else:
        # half-way planes all go up, however their coordinates were rounded: else some slices get two, and others none
        nearest = np.floor(places + 0.5 + ROUNDED).astype(int)
        drawn = [(k, place) for k, place in zip(nearest, places, strict=True) if k in slices]
        off = max((abs(place - k) for k, place in drawn), default=0.0)
        result.off_slice_mm = float(off * np.linalg.norm(affine[:3, 2]))
    for k, place in drawn:
        result.mask[:, :, k] |= even_odd(planes[place], shape[:2])
    used = {place for _, place in drawn}
    result.counts["outside"] = sum(len(outlines) for place, outlines in planes.items() if place not in used)
    return result


def plane_distance(contours: Sequence[np.ndarray], affine: np.ndarray) -> float:
    """Smallest distance of the planes of contours, in slices; 1 where it is a slice, or cannot be told."""
    row = np.linalg.inv(affine)[2]
    places = np.unique([np.round(points.mean(axis=0) @ row[:3] + row[3], 2) for points in contours if len(points) > 2])
    gaps = np.diff(places)
    every = float(gaps[gaps > FLAT].min(initial=np.inf))
    return every if 1.5 < every < np.inf else 1.0


def even_odd(outlines: Sequence[np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    """Pixels whose centre lies inside an odd number of closed outlines, (columns, rows) bool.

    Parameters
    ----------
    outlines : sequence of (points, 2) arrays
        Column and row; pixel centres are whole numbers.
    shape : tuple of int
        Columns, rows.
    """
    starts = np.concatenate(outlines)
    ends = np.concatenate([np.roll(outline, -1, axis=0) for outline in outlines])
    mask = np.zeros(shape, dtype=bool)
    low = max(0, int(np.ceil(starts[:, 1].min())))
    high = min(shape[1] - 1, int(np.floor(starts[:, 1].max())))
    columns = np.arange(shape[0])
    for row in range(low, high + 1):
        crosses = (starts[:, 1] <= row) != (ends[:, 1] <= row)
        (x0, y0), (x1, y1) = starts[crosses].T, ends[crosses].T
        at = np.sort(x0 + (row - y0) / (y1 - y0) * (x1 - x0))
        mask[:, row] = (len(at) - np.searchsorted(at, columns, side="right")) % 2 == 1
    return mask


def trace(mask: np.ndarray, affine: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """Contours of a mask, slice by slice, half-way between the centres of voxels inside and outside.

    `rasterise` gives the mask again, voxel by voxel. A hole is joined to its outline by a line there and back
    (keyhole), since planning systems do not agree on contours inside contours.

    Parameters
    ----------
    mask : (columns, rows, slices) array
    affine : (4, 4) array
        From column, row and slice to LPS mm.

    Returns
    -------
    list of (slice, points)
        Points (points, 3) in LPS mm, of one closed contour, not closed by a copy of the first.
    """
    contours = []
    for k in np.flatnonzero(mask.any(axis=(0, 1))):
        padded = np.pad(mask[:, :, k], 1).astype(np.float64)
        lines = contourpy.contour_generator(
            z=padded.T, fill_type=contourpy.FillType.OuterOffset, corner_mask=False
        ).filled(0.5, 2.0)
        for points, offsets in zip(*lines, strict=True):
            rings = [points[a : b - 1] - 1 for a, b in pairwise(offsets)]
            outline = _keyhole(rings[0], rings[1:])
            voxels = np.column_stack([outline, np.full(len(outline), k)])
            contours.append((int(k), voxels @ affine[:3, :3].T + affine[:3, 3]))
    return contours


def _keyhole(outline: np.ndarray, holes: Sequence[np.ndarray]) -> np.ndarray:
    """One outline with its holes, each entered and left over the shortest line to what is joined so far."""
    for hole in sorted(holes, key=lambda ring: ring[:, 0].min()):
        apart = np.linalg.norm(outline[:, None] - hole[None], axis=-1)
        at, start = np.unravel_index(np.argmin(apart), apart.shape)
        around = np.roll(hole, -start, axis=0)
        outline = np.concatenate([outline[: at + 1], around, around[:1], outline[at:]])
    return outline
