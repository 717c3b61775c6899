"""Checks of a label: whether its lesions lie where lesions can be."""

from dataclasses import replace

import nibabel as nib
import numpy as np

from metaseg_nb.cohort.cases import Case
from metaseg_nb.cohort.checks.header import grid_problem
from metaseg_nb.cohort.lesions import Lesions
from metaseg_nb.cohort.position import OUTSIDE_SHARE, Head, outside_lesions
from metaseg_nb.cohort.problems import Problem
from metaseg_nb.cohort.volumes import Volume


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


def header_problem(case: Case, mask: np.ndarray, label: Volume, image: Volume, head: Head) -> Problem:
    """A label on another grid than its image, with the way that keeps its lesions in the brain.

    Two ways are tried: by the headers, and voxel on voxel as the files store them.

    Parameters
    ----------
    case : Case
    mask : ndarray of bool, shape (X, Y, Z)
        Lesions, on the grid of ``label``; not empty.
    label, image : Volume
    head : Head
        Of ``image``.
    """
    found = grid_problem(case, str(case.label), image, label)
    voxels, to_image = np.argwhere(mask), np.linalg.inv(image.affine) @ label.affine
    by_header, ignoring = _share_inside(nib.affines.apply_affine(to_image, voxels), head, image), 0.0
    if label.native_shape == image.native_shape:
        on_voxels = np.linalg.inv(image.to_native) @ label.to_native
        ignoring = _share_inside(nib.affines.apply_affine(on_voxels, voxels), head, image)
    inside = [f"{100 * share:.0f} %" for share in (by_header, ignoring)]
    resample = "resample it onto the image (nearest neighbour)"
    copy = "give it the image's header and leave its voxels as they are"
    if max(by_header, ignoring) < OUTSIDE_SHARE:
        fix = "the label belongs to another image or another place: find the right one"
    elif ignoring < OUTSIDE_SHARE:
        fix = f"{resample}; do not copy the image's header, which would put the lesions outside the brain"
    elif by_header < OUTSIDE_SHARE:
        fix = f"{copy}, once the overlay voxel by voxel is right; do not resample it, which would lose the lesions"
    else:
        fix = f"compare the overlay both ways: where the headers are right, {resample}; otherwise {copy}"
    return replace(
        found,
        found=f"{inside[0]} of it inside the brain by the headers, {inside[1]} if they are ignored: {found.found}",
        fix=fix,
    )


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
