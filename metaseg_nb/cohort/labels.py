"""Label files as masks of lesions."""

import numpy as np

from metaseg_nb.cohort.cases import Case, LesionRule
from metaseg_nb.cohort.checks.header import grid_problem
from metaseg_nb.cohort.problems import CohortError, Problem
from metaseg_nb.cohort.volumes import Volume, open_nifti, read_volume

# Values this near a declared one are it: rounding errors of another program.
FUZZ = 0.01


def read_lesions(case: Case, rule: LesionRule) -> Volume:
    """Read a case's label as a mask of bool; raises as `read_label` does."""
    label = read_label(case, rule)
    return Volume(lesion_mask(label.array, rule), label.affine, label.native_orientation)


def read_label(case: Case, rule: LesionRule) -> Volume:
    """Read the values of a case's label.

    Parameters
    ----------
    case : Case
        With a label.
    rule : LesionRule

    Raises
    ------
    CohortError
        The file cannot be read, or holds a value that the rule does not name.
    """
    label = read_volume(case.label, case.name)
    unknown = undeclared_values(np.unique(label.array), rule)
    if len(unknown):
        raise CohortError([undeclared(case, unknown, rule)])
    return label


def lesion_mask(array: np.ndarray, rule: LesionRule) -> np.ndarray:
    """Mask of bool, of the shape of ``array``: which voxels a rule counts as lesion."""
    if rule.threshold > 0:
        return array > rule.threshold
    return np.isin(np.rint(array), rule.values)


def declared_values(rule: LesionRule) -> list[int]:
    """Background and all values a rule names, ascending."""
    return sorted({0, *rule.values, *rule.other_values})


def undeclared_values(values: np.ndarray, rule: LesionRule) -> np.ndarray:
    """Those of some label values that a rule does not name; none for grey masks."""
    if rule.threshold > 0:
        return values[:0]
    return values[~(np.isin(np.rint(values), declared_values(rule)) & (np.abs(values - np.rint(values)) <= FUZZ))]


def undeclared(case: Case, values: np.ndarray, rule: LesionRule) -> Problem:
    """Problem of values that a rule does not name, with what they probably mean."""
    shown = ", ".join(f"{value:g}" for value in values[:5]) + (", ..." if len(values) > 5 else "")
    fix = "correct the mask, or name its values in `lesion_values` or `other_values` of the study file"
    if len(values) > 10 or not np.allclose(values, np.rint(values)):
        fix = "the mask is grey (interpolated, or saved as a picture): set `label_threshold` in the study file"
    expected = f"only {', '.join(str(value) for value in declared_values(rule))}, as the study file declares"
    return Problem(case.name, str(case.label), f"label values {shown}", expected, fix)


def require_one_grid(case: Case) -> None:
    """Raise `CohortError` unless all files of a case lie on one grid in RAS order; reads headers only."""
    image = open_nifti(case.image, case.name)
    others = [(path, open_nifti(path, case.name)) for path in case.files[1:]]
    problems = [grid_problem(case, str(path), image, other) for path, other in others]
    if any(problems):
        raise CohortError(problem for problem in problems if problem)
