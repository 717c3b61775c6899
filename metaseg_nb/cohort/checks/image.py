"""Checks of an image: its intensities, and whether it holds the whole brain."""

from collections.abc import Iterator

import cc3d
import numpy as np

from metaseg_nb.cohort.cases import Case
from metaseg_nb.cohort.checks.rules import broken
from metaseg_nb.cohort.head import head_mask, is_magnitude
from metaseg_nb.cohort.position import BRAIN_AT_LEAST_MM, SIDES, Head
from metaseg_nb.cohort.problems import Problem
from metaseg_nb.cohort.volumes import not_finite

INT16 = np.iinfo(np.int16)
# Of a spot's rim: elsewhere a wrapped spot may border on dark tissue, and single jumps are noise.
RIM_SHARE = 0.5


def image_problems(case: Case, path: str, array: np.ndarray) -> list[Problem]:
    """Problems of one image, shape (X, Y, Z): NaN, one value everywhere, int16 overflow, negative values."""
    problem = not_finite(array, path, case.name)
    finite = array if problem is None else array[np.isfinite(array)]
    found = None
    if finite.size and finite.min() == finite.max():
        found = "contrast", f"the value {finite.flat[0]:g} everywhere"
    elif finite.size and finite.min() < 0:
        found = (problem is None and _overflow(array)) or _negative(np.nan_to_num(array, posinf=0, neginf=0))
    return [*([problem] if problem else []), *([broken(found[0], case, path, found[1])] if found else [])]


def coverage_problems(case: Case, head: Head) -> Iterator[Problem]:
    """Problem of an image that ends before the brain does."""
    if head.cut_at:
        sizes = [
            f"{size:.0f} mm from {' to '.join(sides)} (a brain has {least:.0f} mm or more)"
            for size, least, sides in zip(head.extent_mm, BRAIN_AT_LEAST_MM, SIDES, strict=True)
            if set(sides) & set(head.cut_at) and size < least
        ]
        cut = f"the head is cut at its {' and '.join(head.cut_at)}"
        yield broken("whole brain", case, case.image, f"brain not covered: {'; '.join([*sizes, cut])}")


def _negative(array: np.ndarray) -> tuple[str, str]:
    """Values below 0: as z-scores have them, or stray ones in an image that is otherwise as the scanner made it."""
    head = head_mask(array)
    inside = 100 * float((array[head] < 0).mean()) if head.any() else 0.0
    if not is_magnitude(array):
        found = f"intensities that were normalised or shifted: {inside:.2g} % of the head is below 0, the background "
        return "scanner's values", f"{found}is {np.median(array[~head]):.3g}"
    found = f"negative values: {100 * float((array < 0).mean()):.2g} % of the voxels, down to {array.min():.4g}; "
    return "no negative values", f"{found}{inside:.2g} % of the head's"


def _overflow(array: np.ndarray) -> tuple[str, str] | None:
    """Bright voxels that 16-bit storage wrapped to negative values.

    A value above 32767 comes out 65536 lower, so a wrapped spot is negative, lies in the midst of
    positive voxels, and most of its rim is more than half of the range of int16 away from its neighbours
    (Itoh's condition for unwrapping, Appl Opt 21(14), 1982). Padding with -32768 reaches the volume's edge.
    """
    if array.min() < INT16.min or array.max() > INT16.max:
        return None
    # 6-connected: 26 would join spots to the noise around them
    spots = cc3d.connected_components((array < 0).astype(np.uint8), connectivity=6)
    at_the_edge = np.unique(np.concatenate([np.take(spots, [0, -1], axis).ravel() for axis in range(3)]))
    n = int(np.isin(spots, np.setdiff1d(_beyond_a_jump(spots, array), at_the_edge)).sum())
    return ("no overflow", f"{n} voxels down to {array.min():.0f} in the midst of bright ones") if n else None


def _beyond_a_jump(spots: np.ndarray, array: np.ndarray) -> np.ndarray:
    """Numbers of the spots most of whose rim is more than half the range of int16 away from its neighbours."""
    rim, jumps = [], []
    for axis in range(3):
        low, high = (np.take(spots, np.arange(spots.shape[axis])[part], axis) for part in (slice(-1), slice(1, None)))
        crossing = (low > 0) != (high > 0)
        rim.append(np.maximum(low, high)[crossing])
        jumps.append(np.abs(np.diff(array, axis=axis))[crossing] > INT16.max)
    rim, jumps = np.concatenate(rim), np.concatenate(jumps)
    return np.flatnonzero(np.bincount(rim, jumps) > RIM_SHARE * np.maximum(1, np.bincount(rim)))
