"""Label files as masks of lesions: the one way in which a mask is read."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from metaseg_nb.cohort.cases import Case, LesionRule
from metaseg_nb.cohort.problems import CohortError, Problem
from metaseg_nb.cohort.volumes import Volume, read_volume

# Values this near a declared one are it: rounding errors of another program.
FUZZ = 0.01
# Lesions are 1: masks that the workbook writes.
OWN_MASKS = LesionRule()


def read_mask(path: str | Path, case: str, rule: LesionRule = OWN_MASKS) -> Volume:
    """Read a file as a mask of bool; raises as `read_values` does."""
    values = read_values(path, case, rule)
    return replace(values, array=lesion_mask(values.array, rule))


def read_lesions(case: Case, rule: LesionRule) -> Volume:
    """Read a case's label as a mask of bool; raises as `read_values` does."""
    return read_mask(case.label, case.name, rule)


def read_values(path: str | Path, case: str, rule: LesionRule) -> Volume:
    """Read the values of a mask file.

    Parameters
    ----------
    path : path
    case : str
        Named in errors.
    rule : LesionRule

    Raises
    ------
    CohortError
        The file cannot be read, or holds a value that the rule does not name.
    """
    values = read_volume(path, case)
    if problem := undeclared_problem(path, case, values.array, rule):
        raise CohortError([problem])
    return values


def lesion_mask(array: np.ndarray, rule: LesionRule) -> np.ndarray:
    """Mask of bool, of the shape of ``array``: which voxels a rule counts as lesion."""
    if rule.threshold > 0:
        return array > rule.threshold
    return np.isin(np.rint(array), rule.values)


def declared_values(rule: LesionRule) -> list[int]:
    """Background and all values a rule names, ascending."""
    return sorted({0, *rule.values, *rule.other_values})


def undeclared_problem(path: str | Path, case: str, array: np.ndarray, rule: LesionRule) -> Problem | None:
    """Problem of values that a rule does not name, with what they probably mean."""
    if rule.threshold > 0:
        return _emptied_problem(path, case, array, rule.threshold)
    values, counts = np.unique(array[array != 0], return_counts=True)
    declared = np.isin(np.rint(values), declared_values(rule)) & (np.abs(values - np.rint(values)) <= FUZZ)
    values, counts = values[~declared], counts[~declared]
    if len(values) == 0:
        return None
    listed, voxels = (", ".join(f"{n:g}" for n in some[:5]) for some in (values, counts))
    found = f"label values {listed}{', ...' if len(values) > 5 else ''} ({voxels} voxels)"
    fix = "correct the mask, or name its values in `lesion_values` or `other_values` of the study file"
    fix += " (of `score`: --lesion-values, --prediction-lesion-values, --other-values)"
    if len(values) > 10 or not np.allclose(values, np.rint(values)):
        fix = "the mask is grey (interpolated, or saved as a picture): set `label_threshold` in the study file"
        fix += " (of `score`: --label-threshold)"
    expected = f"only {', '.join(str(value) for value in declared_values(rule))}, as declared"
    return Problem(case, str(path), found, expected, fix)


def _emptied_problem(path: str | Path, case: str, array: np.ndarray, threshold: float) -> Problem | None:
    """Problem of a grey mask that a threshold leaves nothing of."""
    low, high = float(array.min()), float(array.max())
    if not 0 < high <= threshold:
        return None
    found = f"values from {low:g} to {high:g}, none above the threshold {threshold:g}"
    fix = f"set `label_threshold` (of `score`: --label-threshold) below {high:g}; if there is no lesion, save zeros"
    return Problem(case, str(path), found, "a mask with values on both sides of the threshold", fix)
