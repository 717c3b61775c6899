"""Label files as masks of lesions."""

import numpy as np

from metaseg_nb.cohort.cases import Case, LesionRule
from metaseg_nb.cohort.problems import CohortError
from metaseg_nb.cohort.volumes import Volume, describe_grid, open_nifti, read_volume, same_grid

# Values this near a declared one are it: rounding errors of another program.
FUZZ = 0.01


def read_lesions(case: Case, rule: LesionRule) -> Volume:
    """Read a case's label as a mask of bool.

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
        raise CohortError.one(
            case.name,
            case.label,
            f"label values {', '.join(f'{value:g}' for value in unknown[:5])}{', ...' if len(unknown) > 5 else ''}",
            f"only {', '.join(str(value) for value in declared_values(rule))}, as the study file declares",
            "correct the mask; or name its values in `lesion_values` and `other_values`, or set `label_threshold`",
        )
    return Volume(lesion_mask(label.array, rule), label.affine, label.native_orientation)


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


def require_one_grid(case: Case) -> None:
    """Raise `CohortError` unless all files of a case lie on one grid in RAS order; reads headers only."""
    image = open_nifti(case.image, case.name)
    for path in case.files[1:]:
        other = open_nifti(path, case.name)
        if not same_grid(image, other):
            raise CohortError.one(
                case.name,
                path,
                f"{describe_grid(other)} beside an image of {describe_grid(image)}",
                "the grid of the case's first image",
                "resample it onto the image, or export both again",
            )
