"""Checks of an image's intensities."""

import numpy as np

from metaseg_nb.cohort.cases import Case
from metaseg_nb.cohort.checks.overflow import overflow_problem
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
        share = 100 * float((finite < 0).mean())
        found = f"negative values: {share:.2g} % of the voxels, down to {finite.min():.4g}"
        fix = "nothing, if they lie outside the head: N4 takes them as 0; otherwise export it again"
        problems.append(Problem(case.name, path, found, "no negative intensities", fix, "warning"))
    return problems
