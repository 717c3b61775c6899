"""Checks of an image: its intensities, and whether it holds the whole brain."""

import numpy as np

from metaseg_nb.cohort.cases import Case
from metaseg_nb.cohort.checks.overflow import overflow_problem
from metaseg_nb.cohort.head import head_mask, is_magnitude
from metaseg_nb.cohort.position import BRAIN_AT_LEAST_MM, SIDES, Head
from metaseg_nb.cohort.problems import Problem
from metaseg_nb.cohort.volumes import not_finite


def image_problems(case: Case, path: str, array: np.ndarray) -> list[Problem]:
    """Problems of one image: NaN or infinite values, one value everywhere, int16 overflow, negative values.

    Parameters
    ----------
    case : Case
    path : str
    array : ndarray, shape (X, Y, Z)
    """
    problem = not_finite(array, path, case.name)
    problems = [] if problem is None else [problem]
    finite = array if problem is None else array[np.isfinite(array)]
    if finite.size == 0:
        return problems
    if finite.min() == finite.max():
        found = f"the value {finite.flat[0]:g} everywhere"
        problems.append(Problem(case.name, path, found, "an image with contrast", "export it again"))
    elif problem is None and (overflow := overflow_problem(case, path, array)):
        problems.append(overflow)
    elif finite.min() < 0:
        problems.append(_negative_problem(case, path, np.nan_to_num(array, posinf=0, neginf=0)))
    return problems


def coverage_problem(case: Case, head: Head) -> Problem | None:
    """Problem of an image that ends before the brain does, or None."""
    if not head.cut_at:
        return None
    sizes = [
        f"{size:.0f} mm from {' to '.join(sides)} (a brain has {least:.0f} mm or more)"
        for size, least, sides in zip(head.extent_mm, BRAIN_AT_LEAST_MM, SIDES, strict=True)
        if set(sides) & set(head.cut_at) and size < least
    ]
    cut = f"the head is cut at its {' and '.join(head.cut_at)}"
    found = f"brain not covered: {'; '.join([*sizes, cut])}"
    fix = "take a series of the whole head; from this one nothing is known of lesions in the rest of the brain"
    return Problem(case.name, str(case.image), found, "an image of the whole brain", fix, "warning")


def _negative_problem(case: Case, path: str, array: np.ndarray) -> Problem:
    """Values below 0: as z-scores have them, or stray ones in an image that is otherwise as the scanner made it."""
    head = head_mask(array)
    inside = 100 * float((array[head] < 0).mean()) if head.any() else 0.0
    if not is_magnitude(array):
        found = f"intensities that were normalised or shifted: {inside:.2g} % of the head is below 0, the background "
        found += f"is {np.median(array[~head]):.3g}"
        fix = (
            "give the image as the scanner made it, if there is one; otherwise notebook 02 scales it as any other, but "
        )
        fix += "corrects no bias field, as a field multiplies signals that start at 0"
        return Problem(case.name, path, found, "intensities as the scanner gives them", fix, "warning")
    share = 100 * float((array < 0).mean())
    found = f"negative values: {share:.2g} % of the voxels, down to {array.min():.4g}; {inside:.2g} % of the head's"
    fix = "nothing, if they are few: they take no part in the bias correction; otherwise export it again"
    return Problem(case.name, path, found, "no negative intensities", fix, "warning")
