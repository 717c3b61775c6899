"""Regions that grow from a click or a line, and slices filled in between drawn ones: drawing with fewer strokes."""

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from metaseg_nb.cohort.lesions import find_lesions
from metaseg_nb.cohort.volumes import Volume

# A region does not reach farther from a click than this.
REACH_MM = 15.0
# A line along the longest diameter bounds its region by this multiple of its half length.
BEYOND_LINE = 1.2
# Percentile of the brightness along a line that counts as the lesion's: many enhance at their rim only.
BRIGHT = 90
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
    seed = _brightest_beside(image.array, voxel)
    place = _Place(image, probability, np.array([seed]), REACH_MM)
    score = place.score(image.array[seed], seed)
    return place.whole(_joined(score >= level, place.inside([seed])))


def grow_along(
    image: Volume, probability: np.ndarray, start: Sequence[int], end: Sequence[int], level: float
) -> np.ndarray:
    """Grow a region from a line that was drawn along a lesion's longest diameter.

    As `grow`, with the brightest tenth along the line (`BRIGHT`), and no farther from its middle than `BEYOND_LINE`
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
    ends = np.array([start, end])
    n = int(np.abs(ends[1] - ends[0]).max()) + 1
    line = [(int(x), int(y), int(z)) for x, y, z in np.linspace(ends[0], ends[1], n).round()]
    half_mm = float(np.linalg.norm((ends[1] - ends[0]) * image.spacing_mm) / 2)
    place = _Place(image, probability, ends, max(REACH_MM, 2 * half_mm))
    bright = float(np.percentile([image.array[voxel] for voxel in line], BRIGHT))
    score = place.score(bright, line[n // 2])
    wanted, seeds = (score >= level) & (place.distance_mm <= BEYOND_LINE * half_mm), place.inside(line)
    wanted[tuple(np.transpose(seeds))] = True
    # thick slices often leave the middle of a rim open above and below
    return place.whole(ndimage.binary_fill_holes(_joined(wanted, seeds), IN_PLANE))


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
                inside = [_signed_distance(piece) for piece in pieces]
                for z in range(last + 1, first):
                    share = (z - last) / (first - last)
                    filled[:, :, z] |= (1 - share) * inside[0] + share * inside[1] > 0
                break  # the nearest piece behind this one
    return np.moveaxis(filled, 2, axis)


class _Place:
    """The ball around the mean of some voxels, in the box that holds it: only this part of a volume is computed."""

    def __init__(self, image: Volume, probability: np.ndarray, voxels: np.ndarray, reach_mm: float):
        self.image, self.probability = image.array, probability
        middle, edges = voxels.mean(axis=0), np.array(image.spacing_mm)
        reach = np.ceil(reach_mm / edges).astype(int) + 1
        low = np.maximum(np.minimum(voxels.min(axis=0), middle.astype(int) - reach), 0)
        high = np.minimum(np.maximum(voxels.max(axis=0), middle.astype(int) + reach) + 1, image.array.shape)
        self.low, self.box = low, tuple(map(slice, low, high))
        x, y, z = (((np.arange(a, b) - m) * mm) ** 2 for a, b, m, mm in zip(low, high, middle, edges, strict=True))
        self.distance_mm = np.sqrt(x[:, None, None] + y[:, None] + z)
        self.ball = self.distance_mm <= reach_mm

    def score(self, brightness: float, seed: tuple[int, int, int]) -> np.ndarray:
        """Likeness of each voxel of the box to the lesion that a person pointed at: 0 outside the ball, at most 1."""
        image, probability = self.image[self.box], self.probability
        background = float(np.median(image[self.ball]))
        if brightness <= background:
            return np.zeros(image.shape)
        score = np.where(self.ball, (image - background) / (brightness - background), 0).clip(0, 1)
        if probability[seed] >= SEEN:
            score = (score + np.where(self.ball, probability[self.box] / probability[seed], 0).clip(0, 1)) / 2
        return score

    def inside(self, voxels: Sequence[Sequence[int]]) -> list[tuple[int, int, int]]:
        """Voxels of the volume as voxels of the box."""
        return [(int(x), int(y), int(z)) for x, y, z in np.array(voxels) - self.low]

    def whole(self, mask: np.ndarray) -> np.ndarray:
        """A mask of the box as one of the volume."""
        volume = np.zeros(self.image.shape, bool)
        volume[self.box] = mask
        return volume


def _brightest_beside(image: np.ndarray, voxel: Sequence[int]) -> tuple[int, int, int]:
    """The brightest of a voxel and its neighbours: a click is easily a voxel off."""
    low = np.maximum(np.asarray(voxel) - 1, 0)
    around = image[tuple(slice(first, v + 2) for first, v in zip(low, voxel, strict=True))]
    x, y, z = low + np.unravel_index(around.argmax(), around.shape)
    return int(x), int(y), int(z)


def _joined(wanted: np.ndarray, seeds: Sequence[tuple[int, int, int]]) -> np.ndarray:
    """The parts of a mask, joined by faces, that hold a seed, without holes."""
    parts, _ = ndimage.label(wanted)
    chosen = {int(parts[seed]) for seed in seeds} - {0}
    return ndimage.binary_fill_holes(np.isin(parts, list(chosen))) if chosen else np.zeros(wanted.shape, bool)


def _signed_distance(piece: np.ndarray) -> np.ndarray:
    """Distance to the edge of a 2D mask, positive inside."""
    return ndimage.distance_transform_edt(piece) - ndimage.distance_transform_edt(~piece)
