"""Where training patches lie: one rule for each way of sampling.

A rule gives the first voxel of a cubic patch, from a case's lesions and a generator. A patch's *inner half* is
the cube of half its edge around its middle.
"""

from collections.abc import Callable
from typing import NamedTuple, Self

import numpy as np

from metaseg_nb.preprocessing.case_store import StoredCase

# Places looked at for a background patch, and those of them whose lesion voxels are counted.
CANDIDATES, COUNTED = 32, 4


class CaseArrays(NamedTuple):
    """A case's memory maps, each opened once: see `StoredCase`."""

    image: np.ndarray
    label: np.ndarray
    head_voxels: np.ndarray
    lesion_voxels: np.ndarray
    lesion_boxes: np.ndarray
    marked_boxes: np.ndarray

    @classmethod
    def of(cls, case: StoredCase) -> Self:
        """Open the arrays of a case."""
        return cls(*(np.asarray(getattr(case, name)) for name in cls._fields))


def place_patch(case: CaseArrays, size: int, sampling: str, wants_lesion: bool, rng: np.random.Generator) -> np.ndarray:
    """Choose the place of a patch.

    Parameters
    ----------
    case : CaseArrays
        One without lesions gives background patches, whatever is wanted.
    size : int
        Edge of the patch, voxels.
    sampling : str
        One of `RULES`. "voxel": a lesion patch holds a lesion voxel, drawn from all, anywhere in its inner half; so
        large lesions are seen most. "lesion": it has a lesion, drawn from all, in its inner half, whole where it
        fits; so small lesions are seen as often. "roi": every patch lies around a lesion, drawn from all, whose
        middle is in its inner half; the patch may reach beyond the volume.
    wants_lesion : bool
        Or else background: the whole patch is free of lesion, if that can be had, or holds as little as can.
    rng : Generator

    Returns
    -------
    ndarray of int, shape (3,)
        First voxel of the patch; negative where it begins before the volume.
    """
    rule = RULES[sampling]
    if len(case.lesion_boxes) and (wants_lesion or rule.only_lesions):
        return rule.lesion_place(case, size, rng)
    return _with_least_lesion(case, size, rng)


def place_in_head(
    head_voxels: np.ndarray, size: int, shape: tuple[int, int, int], rng: np.random.Generator, n: int = 1
) -> np.ndarray:
    """Choose places of n patches, each around a random voxel of the head: int, shape (n, 3); see `place_patch`."""
    centres = head_voxels[rng.integers(len(head_voxels), size=n)]
    return _inside(centres - size // 2, size, shape)


def _at_a_voxel(case: CaseArrays, size: int, rng: np.random.Generator) -> np.ndarray:
    voxel = case.lesion_voxels[rng.integers(len(case.lesion_voxels))]
    return _inside(voxel - size // 4 - rng.integers(size // 2, size=3), size, case.label.shape)


def _at_a_lesion(case: CaseArrays, size: int, rng: np.random.Generator) -> np.ndarray:
    first, beyond = _any_box(case, rng)
    # from the lesion at the lower end of the inner half to the lesion at its upper end, or from the inner half at
    # the one end of a lesion that does not fit to the other
    ends = np.sort([first - size // 4, beyond - size // 4 - size // 2], axis=0)
    return _inside(rng.integers(ends[0], ends[1], endpoint=True), size, case.label.shape)


def _around_a_lesion(case: CaseArrays, size: int, rng: np.random.Generator) -> np.ndarray:
    middle = _any_box(case, rng).sum(axis=0) // 2
    return middle - size // 2 + rng.integers(-(size // 4), size // 4, 3, endpoint=True)


class Rule(NamedTuple):
    """A way of sampling: where its lesion patches lie, and whether there are no others."""

    lesion_place: Callable[[CaseArrays, int, np.random.Generator], np.ndarray]
    only_lesions: bool = False


RULES = {
    "voxel": Rule(_at_a_voxel),
    "lesion": Rule(_at_a_lesion),
    "roi": Rule(_around_a_lesion, only_lesions=True),
}


def _any_box(case: CaseArrays, rng: np.random.Generator) -> np.ndarray:
    """Corners of a lesion's box, shape (2, 3)."""
    return case.lesion_boxes[rng.integers(len(case.lesion_boxes))].T


def _with_least_lesion(case: CaseArrays, size: int, rng: np.random.Generator) -> np.ndarray:
    """Of places around random voxels of the head, the first that is free of lesion, or the one with least."""
    starts = place_in_head(case.head_voxels, size, case.label.shape, rng, CANDIDATES)
    first, beyond = case.lesion_boxes[..., 0], case.lesion_boxes[..., 1]
    shared = np.minimum(starts[:, None] + size, beyond) - np.maximum(starts[:, None], first)
    in_boxes = shared.clip(0).prod(axis=2).sum(axis=1)  # 0 without lesions
    least = np.argsort(in_boxes, kind="stable")[:COUNTED]
    if in_boxes[least[0]] == 0:
        return starts[least[0]]
    # boxes hold more than lesion: count
    return min(starts[least], key=lambda start: _lesion_in(case.lesion_voxels, start, size))


def _lesion_in(voxels: np.ndarray, start: np.ndarray, size: int) -> int:
    axes = (voxels[:, axis] - start[axis] for axis in range(3))
    return int(np.logical_and.reduce([(axis >= 0) & (axis < size) for axis in axes]).sum())


def _inside(start: np.ndarray, size: int, shape: tuple[int, int, int]) -> np.ndarray:
    """Move patches into the volume; centre them along axes where the volume is the smaller one."""
    room = np.array(shape) - size
    return np.where(room >= 0, np.clip(start, 0, np.maximum(room, 0)), room // 2)
