"""Kinds of annotation, cheaper than an outline of every lesion on every slice, simulated from the full mask.

A kind says of each voxel that it is lesion (1), background (0) or unknown (`UNKNOWN`), never background of what
nobody looked at; and what a physician does for it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from metaseg_nb.cohort.lesions import Lesions, find_lesions
from metaseg_nb.cohort.problems import CohortError, Problem
from metaseg_nb.preprocessing.annotation_store import UNKNOWN
from metaseg_nb.settings import Train

# Around an outlined lesion, so far is known to be background.
MARGIN_MM = 10.0
# Of a box's edges: an ellipsoid of half of them in its middle is taken for lesion.
CERTAIN_OF_BOX = 0.5
# Of a lesion's diameter: a ball of so large a radius is taken for lesion; in one of three quarters of the diameter
# lies all of any convex lesion, measured from its centroid, and beyond is background.
CERTAIN_OF_DIAMETER, POSSIBLE_OF_DIAMETER = 0.25, 0.75
# All of these, kept with what is made by them.
RULE = {"known": [MARGIN_MM, CERTAIN_OF_BOX, CERTAIN_OF_DIAMETER, POSSIBLE_OF_DIAMETER]}


@dataclass(frozen=True)
class Work:
    """What a physician does with a case.

    ``n_lesions`` there are; ``n_outlined`` of them are outlined, on ``n_slices`` axial slices in all (a slice counts
    once for each lesion on it); ``n_boxes`` are drawn, ``n_points`` set.
    """

    n_lesions: int
    n_outlined: int = 0
    n_slices: int = 0
    n_boxes: int = 0
    n_points: int = 0


@dataclass(frozen=True)
class Annotation:
    """What is known of a case.

    Attributes
    ----------
    label : ndarray of uint8, shape (X, Y, Z)
        0 background, 1 lesion, `UNKNOWN`.
    boxes : ndarray of int, shape (B, 3, 2)
        Hold all voxels that are not 0; the upper end beyond.
    work : Work
    """

    label: np.ndarray
    boxes: np.ndarray = field(repr=False)
    work: Work


def annotate(mask: np.ndarray, spacing_mm: tuple[float, float, float], settings: Train) -> Annotation:
    """Simulate an annotation of a case.

    Parameters
    ----------
    mask : ndarray of bool, shape (X, Y, Z)
        All lesions.
    spacing_mm : tuple of 3 floats
    settings : Train
        ``annotation``: "full"; "largest": the ``n_largest`` largest lesions are outlined, and where there are more,
        only their surroundings (`MARGIN_MM`) are known; "slices": every ``slice_step``-th axial slice is, counted from
        the middle of the largest lesion, so that one hits a lesion where there is any; "boxes": a box around each
        lesion; "points": a point in each lesion, with its largest diameter.
    """
    return KINDS[settings.annotation](find_lesions(mask, spacing_mm), settings)


def full_work(boxes: np.ndarray) -> Work:
    """Work of outlining all lesions on all slices, given their boxes, int of shape (L, 3, 2), the upper end beyond."""
    return Work(len(boxes), len(boxes), int(np.diff(boxes[:, 2]).sum()))


def _full(lesions: Lesions, settings: Train) -> Annotation:
    corners = _corners(lesions)
    return Annotation((lesions.labels > 0).astype(np.uint8), corners, full_work(corners))


def _largest(lesions: Lesions, settings: Train) -> Annotation:
    if lesions.n <= settings.n_largest:
        return _full(lesions, settings)
    outlined = 1 + np.argsort(-_sizes(lesions), kind="stable")[: settings.n_largest]
    label = np.full(lesions.labels.shape, UNKNOWN, np.uint8)
    margin = np.ceil(MARGIN_MM / np.array(lesions.spacing_mm)).astype(int)
    for lesion in outlined:
        label[_grown(lesions.boxes[lesion], margin)] = 0
    label[lesions.labels > 0] = UNKNOWN  # who outlines one lesion does not call its neighbour background
    label[np.isin(lesions.labels, outlined)] = 1
    slices = sum(_slices(lesions.boxes[lesion]) for lesion in outlined)
    return Annotation(label, _everything(label), Work(lesions.n, len(outlined), slices))


def _every_nth_slice(lesions: Lesions, settings: Train) -> Annotation:
    label = (lesions.labels > 0).astype(np.uint8)
    middle = label.shape[2] // 2
    if lesions.n:
        box = lesions.boxes[1 + int(_sizes(lesions).argmax())][2]
        middle = (box.start + box.stop) // 2
    looked_at = np.arange(label.shape[2]) % settings.slice_step == middle % settings.slice_step
    label[:, :, ~looked_at] = UNKNOWN
    on_slices = [int(looked_at[box[2]].sum()) for box in lesions.boxes.values()]
    return Annotation(label, _everything(label), Work(lesions.n, np.count_nonzero(on_slices), sum(on_slices)))


def _boxes(lesions: Lesions, settings: Train) -> Annotation:
    corners = _corners(lesions)
    return Annotation(label_of_boxes(lesions.labels.shape, corners), corners, Work(lesions.n, n_boxes=lesions.n))


def _points(lesions: Lesions, settings: Train) -> Annotation:
    voxels = [lesions.voxels(lesion) for lesion in lesions.boxes]
    centres = [own[((own - own.mean(axis=0)) ** 2).sum(axis=1).argmin()] for own in voxels]
    shape, diameters_mm = lesions.labels.shape, lesions.table["diameter_mm"].to_numpy()
    label, boxes = label_of_points(shape, lesions.spacing_mm, np.reshape(centres, (-1, 3)).astype(int), diameters_mm)
    return Annotation(label, boxes, Work(lesions.n, n_points=lesions.n))


KINDS: dict[str, Callable[[Lesions, Train], Annotation]] = {
    "full": _full,
    "largest": _largest,
    "slices": _every_nth_slice,
    "boxes": _boxes,
    "points": _points,
}


def label_of_boxes(shape: tuple[int, int, int], boxes: np.ndarray, case: str = "-") -> np.ndarray:
    """What boxes around all lesions say: outside is background, an ellipsoid in the middle of each is lesion.

    Parameters
    ----------
    shape : tuple of 3 ints
    boxes : ndarray of int, shape (L, 3, 2)
        First voxel and the one beyond the last.
    case : str
        Named in errors.

    Returns
    -------
    ndarray of uint8, shape ``shape``
        0, 1, and `UNKNOWN` in the rest of the boxes.

    Raises
    ------
    CohortError
        With every box that is empty or reaches out of the volume.
    """
    boxes = np.asarray(boxes).reshape(-1, 3, 2)
    _require_inside(case, boxes, (boxes[..., 0] >= 0) & (boxes[..., 0] < boxes[..., 1]) & (boxes[..., 1] <= shape))
    label = np.zeros(shape, np.uint8)
    places = [tuple(slice(*axis) for axis in box) for box in boxes]
    for place in places:
        label[place] = UNKNOWN
    for place in places:
        radius = CERTAIN_OF_BOX * np.array([axis.stop - axis.start for axis in place]) / 2
        middle = np.array([(axis.start + axis.stop - 1) / 2 for axis in place])
        label[place][_in_ellipsoid(place, middle, radius)] = 1
    return label


def label_of_points(
    shape: tuple[int, int, int],
    spacing_mm: tuple[float, float, float],
    points: np.ndarray,
    diameters_mm: np.ndarray,
    case: str = "-",
) -> tuple[np.ndarray, np.ndarray]:
    """What a point in every lesion and its diameter say: a ball around the point is lesion, far from all is background.

    Parameters
    ----------
    shape : tuple of 3 ints
    spacing_mm : tuple of 3 floats
    points : ndarray of int, shape (L, 3)
        Voxel indices.
    diameters_mm : ndarray, shape (L,)
    case : str
        Named in errors.

    Returns
    -------
    label : ndarray of uint8, shape ``shape``
        0, 1, and `UNKNOWN` where a lesion of that diameter may reach.
    boxes : ndarray of int, shape (L, 3, 2)
        Hold all voxels that are not 0.

    Raises
    ------
    CohortError
        With every point that is not in the volume or has no diameter.
    """
    points, diameters_mm = np.asarray(points).reshape(-1, 3), np.asarray(diameters_mm, float)
    _require_inside(case, points, ((points >= 0) & (points < shape)) & (diameters_mm > 0)[:, None])
    label = np.zeros(shape, np.uint8)
    reach = np.ceil(POSSIBLE_OF_DIAMETER * diameters_mm[:, None] / np.array(spacing_mm)).astype(int)
    boxes = np.stack([(points - reach).clip(0), np.minimum(points + reach + 1, shape)], axis=2)
    for share, value in ((POSSIBLE_OF_DIAMETER, UNKNOWN), (CERTAIN_OF_DIAMETER, 1)):
        for point, diameter, box in zip(points, diameters_mm, boxes, strict=True):
            place = tuple(slice(*axis) for axis in box)
            label[place][_in_ellipsoid(place, point, share * diameter / np.array(spacing_mm))] = value
    return label, boxes


def _in_ellipsoid(place: tuple[slice, ...], middle: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """Voxels of a place in an ellipsoid, bool; the one nearest to its middle always is."""
    voxels = np.ogrid[place]
    distance = sum(((axis - m) / r) ** 2 for axis, m, r in zip(voxels, middle, radius, strict=True))
    return distance <= max(1.0, distance.min())


def _require_inside(case: str, found: np.ndarray, good: np.ndarray) -> None:
    problems = [
        Problem(case, "annotation", f"{place.tolist()}", "a place inside the volume, of some size", "mend or remove it")
        for place, fine in zip(found, good, strict=True)
        if not fine.all()
    ]
    if problems:
        raise CohortError(problems)


def _sizes(lesions: Lesions) -> np.ndarray:
    """Voxels of each lesion."""
    return np.bincount(lesions.labels.ravel(), minlength=lesions.n + 1)[1:]


def _slices(box: tuple[slice, slice, slice]) -> int:
    """Axial slices that a lesion is on: it has no gaps."""
    return box[2].stop - box[2].start


def _corners(lesions: Lesions) -> np.ndarray:
    corners = [[[axis.start, axis.stop] for axis in box] for box in lesions.boxes.values()]
    return np.array(corners, int).reshape(-1, 3, 2)


def _grown(box: tuple[slice, slice, slice], margin: np.ndarray) -> tuple[slice, ...]:
    return tuple(slice(max(0, axis.start - m), axis.stop + m) for axis, m in zip(box, margin, strict=True))


def _everything(label: np.ndarray) -> np.ndarray:
    return np.array([[[0, n] for n in label.shape]])
