"""Regions that grow from a click or a line, and slices filled in between drawn ones: drawing with fewer strokes."""

from collections.abc import Sequence

import edt
import numpy as np
from scipy import ndimage

from metaseg_nb.cohort.lesions import find_lesions
from metaseg_nb.cohort.volumes import Volume

# A region does not reach farther from a click than this.
REACH_MM = 15.0
# A line along the longest diameter bounds its region by this multiple of its half length.
BEYOND_LINE = 1.2
# Percentile of the brightness along a line that counts as the lesion's: many enhance at their rim only.
BRIGHTER = 90
# From this probability on at the click, the network takes part in the region.
SEEN = 0.1
# Neighbours on one axial slice.
IN_PLANE = ndimage.generate_binary_structure(2, 1)[:, :, None]


def grow(image: Volume, probability: np.ndarray, voxel: Sequence[int], level: float) -> np.ndarray:
    """Grow a region around a clicked voxel.

    The region holds the voxels, connected by faces with the brightest one beside the click, of at least ``level``. 1 is
    as bright as that voxel, 0 as the median around it; so 0.5 is the half maximum. Where the network sees something
    at the click, its probability, as a share of that at the click, counts as much as the brightness.

    Parameters
    ----------
    image : Volume
    probability : ndarray, shape (X, Y, Z)
        Of lesion; zeros without a network.
    voxel : sequence of 3 ints
        RAS.
    level : float
        In (0, 1]; a lower one gives a larger region.

    Returns
    -------
    ndarray of bool, shape (X, Y, Z)
        Empty where nothing at the click is brighter than what is around it.
    """
    low = np.maximum(np.asarray(voxel) - 1, 0)  # a click is easily a voxel off: the brightest neighbour counts
    around = image.array[tuple(map(slice, low, np.asarray(voxel) + 2))]
    seed = low + np.unravel_index(around.argmax(), around.shape)
    return _region(image, probability, seed[None], level, is_line=False)


def grow_along(
    image: Volume, probability: np.ndarray, start: Sequence[int], end: Sequence[int], level: float
) -> np.ndarray:
    """Grow a region from a line that was drawn along a lesion's longest diameter.

    As `grow`, with the brightest tenth along the line (`BRIGHTER`), and no farther from its middle than `BEYOND_LINE`
    times half its length. The voxels of the line are always in it, and so is a dark middle that it encloses on
    an axial slice.

    Parameters
    ----------
    image, probability
        As in `grow`.
    start, end : sequence of 3 ints
        Ends of the line, RAS.
    level : float
        In (0, 1].

    Returns
    -------
    ndarray of bool, shape (X, Y, Z)
    """
    line = np.linspace(start, end, np.abs(np.subtract(end, start)).max() + 1).round().astype(int)
    return _region(image, probability, line, level, is_line=True)


def interpolated(mask: np.ndarray, axis: int) -> np.ndarray:
    """Fill the slices between two drawn ones of the same lesion.

    Two pieces that lie behind one another along the axis, with nothing between them, are joined. Each slice between is
    where the mean of the two signed distances to their edges, weighted by nearness, is inside.

    Parameters
    ----------
    mask : ndarray of bool, shape (X, Y, Z)
    axis : int
        Across the drawn slices.

    References
    ----------
    Raya & Udupa 1990, IEEE Trans. Med. Imaging 9(1):32-42 (shape-based interpolation).
    """
    filled = np.moveaxis(mask.copy(), axis, 2)
    lesions = find_lesions(filled, (1.0, 1.0, 1.0))
    ends = sorted((box[2].start, box[2].stop - 1, lesion) for lesion, box in lesions.boxes.items())
    for _, last, lower in ends:
        for first, _, upper in ends:
            pieces = lesions.labels[:, :, last] == lower, lesions.labels[:, :, first] == upper
            if first > last + 1 and (pieces[0] & pieces[1]).any():
                inside = [edt.sdf(np.ascontiguousarray(piece)) for piece in pieces]
                for z in range(last + 1, first):
                    filled[:, :, z] |= (first - z) * inside[0] + (z - last) * inside[1] > 0
                break  # the nearest piece behind this one
    return np.moveaxis(filled, 2, axis)


def _region(image: Volume, probability: np.ndarray, seeds: np.ndarray, level: float, is_line: bool) -> np.ndarray:
    """The voxels of at least ``level`` that are joined by faces with a seed, without holes; `grow` says how.

    Seeds, int of shape (N, 3), are in a row, and a person pointed at the one in the middle. Around it, what lies within
    ``reach_mm`` is the background, and what lies within ``within_mm`` may be in the region. Those of a line always are.
    """
    edges, middle = np.array(image.spacing_mm), (seeds[0] + seeds[-1]) / 2
    bright, half_mm = np.percentile(image.array[tuple(seeds.T)], BRIGHTER), np.linalg.norm((seeds[-1] - middle) * edges)
    reach_mm, within_mm = max(REACH_MM, 2 * half_mm), BEYOND_LINE * half_mm if is_line else REACH_MM
    low = np.maximum(np.floor(middle - reach_mm / edges), 0).astype(int)
    high = np.minimum(np.ceil(middle + reach_mm / edges).astype(int) + 1, image.array.shape)
    box, own, pointed = tuple(map(slice, low, high)), tuple((seeds - low).T), tuple(seeds[len(seeds) // 2])
    x, y, z = (((axis - m) * mm) ** 2 for axis, m, mm in zip(np.ogrid[box], middle, edges, strict=True))
    distance_mm, around = np.sqrt(x + y + z), image.array[box]
    dark, wanted = np.median(around[distance_mm <= reach_mm]), np.zeros(around.shape, bool)
    if bright > dark:
        score = ((around - dark) / (bright - dark)).clip(0, 1)
        if probability[pointed] >= SEEN:
            score = (score + (probability[box] / probability[pointed]).clip(0, 1)) / 2
        wanted = (score >= level) & (distance_mm <= within_mm)
    wanted[own] |= is_line
    parts, _ = ndimage.label(wanted)
    filled = ndimage.binary_fill_holes(np.isin(parts, parts[own]) & wanted)
    if is_line:  # thick slices often leave the middle of a rim open above and below
        filled = ndimage.binary_fill_holes(filled, IN_PLANE)
    region = np.zeros(image.array.shape, bool)
    region[box] = filled
    return region
