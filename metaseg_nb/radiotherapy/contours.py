"""Contours and masks, each made from the other, by one rule: a voxel is inside when its centre is."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import contourpy
import numpy as np

# Points of one contour lie in one plane within this share of a slice; further apart it is drawn across the slices.
FLAT = 0.1


@dataclass
class Rasterised:
    """A mask made from contours, and what was noticed on the way.

    ``mask`` (columns, rows, slices) bool. ``off_slice_mm`` is the largest distance of a contour from the slice it was
    drawn on. Counted contours make no voxel: those of one or two points, copies of another one, those ``across``
    the slices, and those with no slice (``outside``). ``cut`` ones reach beyond the image's edge.
    """

    mask: np.ndarray
    off_slice_mm: float = 0.0
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(("points", "copies", "across", "outside"), 0))
    cut: int = 0


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
    result = Rasterised(np.zeros(shape, dtype=bool))
    inverse = np.linalg.inv(affine)
    slice_mm = float(np.linalg.norm(affine[:3, 2]))
    planes: dict[float, list[np.ndarray]] = {}
    for points in _different(contours, result):
        voxels = points @ inverse[:3, :3].T + inverse[:3, 3]
        if np.ptp(voxels[:, 2]) > FLAT:
            result.counts["across"] += 1
            continue
        outline = voxels[:, :2]
        result.cut += bool((outline < -0.5).any() or (outline > np.array(shape[:2]) - 0.5).any())
        planes.setdefault(round(float(voxels[:, 2].mean()), 2), []).append(outline)
    reach = max(every, 1.0) / 2 + 0.01  # of a plane, in slices
    used = set()
    for k in range(shape[2]):
        near = sorted((abs(place - k), place) for place in planes if abs(place - k) <= reach)
        near = near[:1] if every > 1 else [(off, place) for off, place in near if np.rint(place) == k]
        for off, place in near:
            used.add(place)
            result.mask[:, :, k] |= even_odd(planes[place], shape[:2])
            result.off_slice_mm = max(result.off_slice_mm, off * slice_mm if every <= 1 else 0.0)
    result.counts["outside"] = sum(len(outlines) for place, outlines in planes.items() if place not in used)
    return result


def plane_distance(contours: Sequence[np.ndarray], affine: np.ndarray) -> float:
    """Smallest distance of the planes of contours, in slices; 1 where it is a slice, or cannot be told."""
    row = np.linalg.inv(affine)[2]
    places = np.unique([np.round(points.mean(axis=0) @ row[:3] + row[3], 2) for points in contours if len(points) > 2])
    gaps = np.diff(places)
    every = float(gaps[gaps > FLAT].min(initial=np.inf))
    return every if 1.5 < every < np.inf else 1.0


def _different(contours: Sequence[np.ndarray], result: Rasterised) -> list[np.ndarray]:
    """Contours with an area, each once: drawn twice, two would cancel each other."""
    seen, kept = set(), []
    for points in contours:
        if len(np.unique(points, axis=0)) < 3:
            result.counts["points"] += 1
        elif (key := np.round(points, 3).tobytes()) in seen:
            result.counts["copies"] += 1
        else:
            seen.add(key)
            kept.append(points)
    return kept


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
