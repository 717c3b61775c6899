"""Kinds of annotation that are cheaper than contouring every lesion on every slice, simulated from the full mask.

A kind says of each voxel that it is lesion (1), background (0) or unknown (`UNKNOWN`), and counts what a physician
does for it. What was not annotated is unknown, never background.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from metaseg_nb.annotation.growing import BEYOND_LINE, BRIGHTER, grow_along
from metaseg_nb.cohort.lesions import Lesions, find_lesions, longest_axial_line
from metaseg_nb.cohort.volumes import Volume
from metaseg_nb.preprocessing.case_store import UNKNOWN
from metaseg_nb.preprocessing.grid import Grid
from metaseg_nb.settings import Train

# Around a contoured lesion, voxels up to this distance are known to be background.
MARGIN_MM = 10.0
# Distances of slices that differ by less are equal: edges of voxels are rounded.
ROUNDED_MM = 1e-3
# In a box, an ellipsoid of this share of its edges is taken for lesion.
CERTAIN_OF_BOX = 0.5
# Radii as shares of a lesion's diameter: the inner ball is taken for lesion. The outer one, around the centroid, holds
# all of any convex lesion; beyond it is background.
CERTAIN_OF_DIAMETER, POSSIBLE_OF_DIAMETER = 0.25, 0.75
# All of these; part of an annotation's identity.
PARTIAL_RULE = {"known": [MARGIN_MM, CERTAIN_OF_BOX, CERTAIN_OF_DIAMETER, POSSIBLE_OF_DIAMETER]}
# Whose slices are contoured: labels that earlier versions stored, of slices of the study grid, are made again.
RULE_OF_SLICES = {"slices": "of the image"}
# The region of a line reaches as far as the image is half as bright as on the line; 08 begins with this level too.
LEVEL = 0.5
RULE_OF_LINES = {"lines": [LEVEL, BEYOND_LINE, BRIGHTER]}
RAS = np.array([[0, 1], [1, 1], [2, 1]])


@dataclass(frozen=True)
class Work:
    """What a physician does with a case, on the image's own grid.

    Of ``n_lesions`` in the case, ``n_contoured`` are contoured, on ``n_slices`` axial slices in all (a slice counts
    once for each lesion on it); ``n_boxes`` and ``n_lines`` are drawn and ``n_points`` set.
    """

    n_lesions: int
    n_contoured: int = 0
    n_slices: int = 0
    n_boxes: int = 0
    n_points: int = 0
    n_lines: int = 0


def annotate(
    mask: np.ndarray,
    image: np.ndarray,
    grid: Grid,
    native: Grid,
    settings: Train,
    slices: Sequence[int],
) -> tuple[np.ndarray, Work]:
    """Simulate an annotation of a case.

    Parameters
    ----------
    mask : ndarray of bool, shape (X, Y, Z)
        All lesions.
    image : ndarray, shape (X, Y, Z)
        Lines grow on it.
    grid, native : Grid
        The study grid, which mask and image lie on, and the image's own.
    settings : Train
        ``annotation``: "full"; "largest": the ``n_largest`` largest lesions are contoured, and where there are more,
        only their surroundings (`MARGIN_MM`) are known; "slices": every ``slice_step``-th axial slice of the image is
        contoured, counted from the middle of the largest lesion, so that a slice goes through a lesion if there is one,
        and every slice of the study grid is known that lies in a contoured one, or that one lies in;
        "boxes": a box around each lesion; "points": a point in each lesion, with its largest diameter;
        "lines": the longest axial diameter of each lesion, and the region that grows from it is taken for the lesion.
    slices : sequence of int
        Axial slices of the image that each lesion lies on, the largest lesion first; the work is counted by them.

    Returns
    -------
    label : ndarray of uint8, shape (X, Y, Z)
        0 background, 1 lesion, `UNKNOWN`.
    work : Work
    """
    lesions, n = find_lesions(mask, grid.spacing_mm), len(slices)
    if settings.annotation == "slices":
        return _every_nth_slice(lesions, grid, native, settings.slice_step), work_of_slices(slices, settings.slice_step)
    if settings.annotation == "boxes":
        return label_of_boxes(mask.shape, _boxes(lesions)), Work(n, n_boxes=n)
    if settings.annotation == "points":
        voxels = [lesions.voxels(lesion) for lesion in lesions.boxes]
        centres = [own[((own - own.mean(axis=0)) ** 2).sum(axis=1).argmin()] for own in voxels]
        points, diameters_mm = np.reshape(centres, (-1, 3)).astype(int), lesions.table["diameter_mm"].to_numpy()
        return label_of_points(mask.shape, grid.spacing_mm, points, diameters_mm), Work(n, n_points=n)
    if settings.annotation == "lines":
        label = np.zeros(mask.shape, np.uint8)
        for region in grown_regions(lesions, image):
            label[region] = 1
        return label, Work(n, n_lines=n)
    if settings.annotation == "largest" and lesions.n > settings.n_largest:
        return _largest(lesions, settings.n_largest, slices)
    return mask.astype(np.uint8), full_work(slices)


def full_work(slices: Sequence[int]) -> Work:
    """Work of contouring all lesions on all of the image's axial slices; ``slices`` as in `annotate`."""
    return Work(len(slices), len(slices), sum(slices))


def work_of_slices(slices: Sequence[int], step: int) -> Work:
    """Work of contouring every ``step``-th of the image's axial slices; ``slices`` as in `annotate`.

    The largest lesion is contoured in its middle, and from there up and down. Where the others lie between contoured
    slices is not known: they are counted as if all lesions lay one above the other. In the mean that is right.
    """
    lesion_of = np.repeat(np.arange(len(slices)), slices)
    contoured = lesion_of[(slices[0] if slices else 0) // 2 % step :: step]
    return Work(len(slices), len(np.unique(contoured)), len(contoured))


def grown_regions(lesions: Lesions, image: np.ndarray) -> Iterator[np.ndarray]:
    """The region of each lesion, in their order: grown from its longest axial diameter, without the help of a network.

    Parameters
    ----------
    lesions : Lesions
    image : ndarray, shape (X, Y, Z)

    Yields
    ------
    ndarray of bool, shape (X, Y, Z)
    """
    volume = Volume(np.asarray(image, np.float32), np.diag([*lesions.spacing_mm, 1.0]), RAS)
    no_network = np.zeros(image.shape, np.float32)
    for lesion in lesions.boxes:
        start, end = longest_axial_line(lesions.voxels(lesion), lesions.spacing_mm)
        yield grow_along(volume, no_network, start, end, LEVEL)


def _largest(lesions: Lesions, n_largest: int, slices: Sequence[int]) -> tuple[np.ndarray, Work]:
    chosen = np.argsort(-lesions.table["voxels"].to_numpy(), kind="stable")[:n_largest]
    label = np.full(lesions.labels.shape, UNKNOWN, np.uint8)
    margin = np.ceil(MARGIN_MM / np.array(lesions.spacing_mm)).astype(int)
    for box in _boxes(lesions)[chosen]:
        label[tuple(map(slice, (box[:, 0] - margin).clip(0), box[:, 1] + margin))] = 0
    label[lesions.labels > 0] = UNKNOWN  # who contours one lesion does not call its neighbour background
    label[np.isin(lesions.labels, 1 + chosen)] = 1
    contoured = slices[:n_largest]
    return label, Work(len(slices), len(contoured), sum(contoured))


def _every_nth_slice(lesions: Lesions, grid: Grid, native: Grid, step: int) -> np.ndarray:
    label, ends = (lesions.labels > 0).astype(np.uint8), _boxes(lesions)[:, 2]
    middle = ends[lesions.table["voxels"].argmax()].sum() // 2 if lesions.n else label.shape[2] // 2
    away_mm = np.abs(grid.centres_along(2)[:, None] - native.centres_along(2))
    contoured = away_mm[:, away_mm[middle].argmin() % step :: step]
    # a thick slice of the study grid is known if a contour lies in it, and a thick one of the image makes several known
    label[:, :, (contoured > max(grid.spacing_mm[2], native.spacing_mm[2]) / 2 + ROUNDED_MM).all(axis=1)] = UNKNOWN
    return label


def _boxes(lesions: Lesions) -> np.ndarray:
    """Bounding box of each lesion, int of shape (L, 3, 2)."""
    boxes = [[[axis.start, axis.stop] for axis in box] for box in lesions.boxes.values()]
    return np.array(boxes, int).reshape(-1, 3, 2)


def label_of_boxes(shape: tuple[int, ...], boxes: np.ndarray) -> np.ndarray:
    """Label from a box around each lesion: outside is background, an ellipsoid in the middle of each is lesion.

    Parameters
    ----------
    shape : tuple of 3 ints
    boxes : ndarray of int, shape (L, 3, 2)
        First voxel, and the one after the last.

    Returns
    -------
    ndarray of uint8, shape ``shape``
        0, 1, and `UNKNOWN` in the rest of the boxes.
    """
    certain = CERTAIN_OF_BOX * np.diff(boxes)[..., 0] / 2
    return _ellipsoids(shape, boxes, (np.sum(boxes, axis=2) - 1) / 2, np.full(certain.shape, np.inf), certain)


def label_of_points(
    shape: tuple[int, ...], spacing_mm: tuple[float, float, float], points: np.ndarray, diameters_mm: np.ndarray
) -> np.ndarray:
    """Label from a point in each lesion and its diameter: a ball around it is lesion, far from all is background.

    Parameters
    ----------
    shape : tuple of 3 ints
    spacing_mm : tuple of 3 floats
    points : ndarray of int, shape (L, 3)
        Voxel indices.
    diameters_mm : ndarray, shape (L,)

    Returns
    -------
    ndarray of uint8, shape ``shape``
        0, 1, and `UNKNOWN` where a lesion of that diameter may reach.
    """
    diameters = np.reshape(diameters_mm, (-1, 1)) / np.array(spacing_mm)
    reach = np.ceil(POSSIBLE_OF_DIAMETER * diameters).astype(int)
    boxes = np.stack([(points - reach).clip(0), np.minimum(points + reach + 1, shape)], axis=2)
    return _ellipsoids(shape, boxes, points, POSSIBLE_OF_DIAMETER * diameters, CERTAIN_OF_DIAMETER * diameters)


def _ellipsoids(
    shape: tuple[int, ...], boxes: np.ndarray, middles: np.ndarray, possible: np.ndarray, certain: np.ndarray
) -> np.ndarray:
    """Ellipsoids in boxes; radii in voxels, shape (L, 3), of what may be lesion and of what is.

    The voxel nearest to a middle is always in its ellipsoid.
    """
    label = np.zeros(shape, np.uint8)
    for radii, value in ((possible, UNKNOWN), (certain, 1)):
        for box, middle, radius in zip(boxes, middles, radii, strict=True):
            place = tuple(slice(*axis) for axis in box)
            x, y, z = (((axis - m) / r) ** 2 for axis, m, r in zip(np.ogrid[place], middle, radius, strict=True))
            distance = x + y + z
            label[place][distance <= max(1.0, distance.min())] = value
    return label
