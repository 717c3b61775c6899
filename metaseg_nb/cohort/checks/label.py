"""Checks of a label: its values, and whether its lesions lie where lesions can be."""

import nibabel as nib
import numpy as np

from metaseg_nb.cohort.cases import Case, LesionRule
from metaseg_nb.cohort.labels import undeclared, undeclared_values
from metaseg_nb.cohort.lesions import Lesions
from metaseg_nb.cohort.position import OUTSIDE_SHARE, Head, outside_lesions
from metaseg_nb.cohort.problems import Problem
from metaseg_nb.cohort.volumes import Volume


def value_problems(case: Case, array: np.ndarray, rule: LesionRule) -> list[Problem]:
    """Label values that the study file does not declare.

    Parameters
    ----------
    case : Case
    array : ndarray, shape (X, Y, Z)
        The label file's values.
    rule : LesionRule
    """
    unknown = undeclared_values(np.unique(array), rule)
    return [undeclared(case, unknown, rule)] if len(unknown) else []


def lesion_problems(case: Case, lesions: Lesions) -> list[Problem]:
    """Lesions that are not there, too small or cut off."""
    if lesions.n == 0:
        expected, fix = "at least one lesion", "make sure none was missed; if so, it stays in as a patient without"
        return [Problem(case.name, str(case.label), "an empty label", expected, fix, "warning")]
    return [problem for problem in (_specks(case, lesions), _cut(case, lesions)) if problem is not None]


def outside_problem(case: Case, lesions: Lesions, head: Head) -> Problem | None:
    """Lesions outside the head of the image, which lies on the label's grid."""
    outside = outside_lesions(lesions, head)
    if not outside:
        return None
    found = f"{len(outside)} of {lesions.n} lesions outside the brain"
    if len(outside) == lesions.n:
        fix = "the label belongs to another image or another place: compare the overlay"
        return Problem(case.name, str(case.label), found, "lesions inside the brain", fix)
    return _warning(case, found, "lesions inside the brain", "look at the overlay and erase them")


def header_problem(case: Case, mask: np.ndarray, label: Volume, image: Volume, head: Head) -> Problem | None:
    """A label that lies on its image only if headers are ignored: voxel on voxel, as the files store them.

    Parameters
    ----------
    case : Case
    mask : ndarray of bool, shape (X, Y, Z)
        Lesions, on the grid of ``label``.
    label, image : Volume
    head : Head
        Of ``image``.
    """
    if label.native_shape != image.native_shape:
        return None
    ways = (np.linalg.inv(image.affine) @ label.affine, np.linalg.inv(image.to_native) @ label.to_native)
    voxels = np.argwhere(mask)
    by_header, ignoring = (_share_inside(nib.affines.apply_affine(way, voxels), head, image) for way in ways)
    if by_header >= OUTSIDE_SHARE or ignoring < OUTSIDE_SHARE:
        return None
    found = f"{100 * by_header:.0f} % of it inside the brain by the headers, {100 * ignoring:.0f} % if they are ignored"
    fix = "compare the overlay voxel by voxel; if it is right, give the label the image's header"
    return Problem(case.name, str(case.label), found, "a label that lies on its image by its header", fix)


def _share_inside(places: np.ndarray, head: Head, image: Volume) -> float:
    places = np.rint(places).astype(int)
    inside = ((places >= 0) & (places < image.array.shape)).all(axis=1)
    return float(head.contains(places[inside]).sum() / len(places))


def _specks(case: Case, lesions: Lesions) -> Problem | None:
    n = int((lesions.table["voxels"] == 1).sum())
    if n == 0:
        return None
    fix = "look whether they are slips of the brush; `min_lesion_mm3` of notebook 02 removes them from training"
    return _warning(case, f"{n} of {lesions.n} lesions of a single voxel", "lesions of several voxels", fix)


def _cut(case: Case, lesions: Lesions) -> Problem | None:
    touching = [lesion for lesion, box in lesions.boxes.items() if _touches(box, lesions.labels.shape)]
    if not touching:
        return None
    fix = "take a series that covers the whole lesion, or leave the case out: its volume is not known"
    found = f"{len(touching)} of {lesions.n} lesions cut by the edge of the volume"
    return _warning(case, found, "lesions inside the volume", fix)


def _touches(box: tuple[slice, ...], shape: tuple[int, ...]) -> bool:
    # an axis of one voxel is a slice: everything in it would touch
    return any(n > 1 and (axis.start == 0 or axis.stop == n) for axis, n in zip(box, shape, strict=True))


def _warning(case: Case, found: str, expected: str, fix: str) -> Problem:
    return Problem(case.name, str(case.label), found, expected, fix, "warning")
