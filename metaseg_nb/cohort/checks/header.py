"""Checks of a file's header: it must put a plausible volume at one place in space."""

from itertools import combinations
from pathlib import Path

import nibabel as nib
import numpy as np

from metaseg_nb.cohort.cases import Case
from metaseg_nb.cohort.nifti_files import UNREADABLE, NiftiFile, in_mm, open_nifti
from metaseg_nb.cohort.problems import CohortError, Problem
from metaseg_nb.cohort.volumes import corners_apart_mm, describe_grid, ras_grid, same_grid, spacing_of

# Voxel edges in millimetres: usual in the clinic, and possible at all.
USUAL_SPACING_MM = (0.3, 5.0)
POSSIBLE_SPACING_MM = (0.05, 20.0)
# sform and qform hold the same place with different rounding.
SAME_PLACE_MM = 0.1
# Axes this far from a right angle are sheared, not rounded.
SHEAR_DEGREES = 0.5


def examine_headers(case: Case) -> tuple[dict[Path, NiftiFile], list[Problem]]:
    """Open all files of a case that can be opened, and check what their headers say: alone, and beside the image's."""
    files, problems = {}, []
    for path in case.files:
        try:
            files[path] = open_nifti(path, case.name)
            problems += header_problems(case, str(path), files[path])
        except CohortError as error:
            problems += error.problems
    image = files.get(case.image)
    for path, file in files.items():
        if image is not None and path != case.image:
            found = [grid_problem(case, str(path), image, file)]
            found += [axes_note(case, image, file)] if path == case.label else []
            problems += [problem for problem in found if problem is not None]
    return files, problems


def require_sound_headers(case: Case) -> list[Problem]:
    """Raise `CohortError` with all that makes files useless by their headers; return what else is to be said."""
    problems = examine_headers(case)[1]
    if errors := [problem for problem in problems if problem.severity == "error"]:
        raise CohortError(errors)
    return problems


def header_problems(case: Case, path: str, image: NiftiFile) -> list[Problem]:
    """Problems of one file's header, without reading its voxels; a label's grid is compared with its image's."""
    found = [place_problem(case, path, image)]
    if path != str(case.label):
        found += [spacing_problem(case, path, image), shear_problem(case, path, image)]
    return [problem for problem in found if problem is not None]


def spacing_problem(case: Case, path: str, image: NiftiFile) -> Problem | None:
    """Voxel edges that no head scan has (error), or that hide small lesions (warning)."""
    spacing = spacing_of(image.affine)
    if _within(spacing, USUAL_SPACING_MM):
        return None
    severity = "warning" if _within(spacing, POSSIBLE_SPACING_MM) else "error"
    fix = "lesions smaller than a voxel edge cannot be seen; take the thinner series where there is one"
    if severity == "error":
        fix = "the header is wrong, or in other units: export it again"
    edges = "x".join(f"{edge:.3g}" for edge in spacing)
    expected = f"voxel edges of {USUAL_SPACING_MM[0]:g} to {USUAL_SPACING_MM[1]:g} mm"
    return Problem(case.name, path, f"extreme spacing of {edges} mm", expected, fix, severity)


def shear_problem(case: Case, path: str, image: NiftiFile) -> Problem | None:
    """Axes that are not at right angles to each other: distances and volumes would be wrong."""
    axes = image.affine[:3, :3] / np.linalg.norm(image.affine[:3, :3], axis=0)
    cosines = [abs(axes[:, i] @ axes[:, j]) for i, j in combinations(range(3), 2)]
    off = float(np.degrees(np.arcsin(min(1.0, max(cosines)))))
    if off <= SHEAR_DEGREES:
        return None
    fix = "resample it onto a grid of right angles (gantry tilt), image and label alike"
    return Problem(case.name, path, f"axes {off:.1f}° off a right angle", "axes at right angles", fix)


def place_problem(case: Case, path: str, image: NiftiFile) -> Problem | None:
    """A header that names no place, or places that differ: programs show such a file at different places."""
    s_code, q_code = image.place["sform_code"], image.place["qform_code"]
    fix = "compare the overlay in your programs; masks written here keep this header, so they stay with their image"
    found, expected = "", "one place"
    if not s_code and not q_code:
        found = (
            "sform and qform codes of 0: nibabel, and so this workbook, takes the axes as LAS with the origin in the"
            " middle, ITK (3D Slicer, ITK-SNAP) as LPS with the origin in the first voxel"
        )
        expected, fix = "a header that names a place", f"convert the DICOM series again; otherwise {fix}"
    elif s_code and (apart := _apart_mm(image, _qform(image) if q_code else _sform_by_edges(image))) > SAME_PLACE_MM:
        other = "qform" if q_code else f"voxel edges (pixdim {'x'.join(f'{n:g}' for n in image.place['pixdim'][1:])})"
        found = f"sform and {other} " + (f"up to {apart:.1f} mm apart" if apart < np.inf else "that is no place")
        fix = f"this workbook takes the sform, other programs the qform or pixdim: {fix}"
    return Problem(case.name, path, found, expected, fix, "warning") if found else None


def _apart_mm(image: NiftiFile, other: np.ndarray | None) -> float:
    if other is None or not np.isfinite(other).all():
        return np.inf
    return corners_apart_mm(image.shape, image.affine, in_mm(other, image.place))


def _qform(image: NiftiFile) -> np.ndarray | None:
    """The place by the qform, as ITK reads it: negative edges count; None where its quaternion is no rotation."""
    try:
        qform = image.header.get_qform()
    except UNREADABLE:
        return None
    return qform * [*np.where(np.array(image.place["pixdim"][1:]) < 0, -1, 1), 1]


def _sform_by_edges(image: NiftiFile) -> np.ndarray:
    """The sform's directions with the voxel edges of pixdim, as ITK takes them."""
    sform = image.header.get_sform()
    return sform * [*np.array(image.place["pixdim"][1:]) / spacing_of(sform), 1]


def axes_note(case: Case, image: NiftiFile, label: NiftiFile) -> Problem | None:
    """A label stored with other axes than its image: read rightly here, flipped by programs that ignore headers."""
    axes = ["".join(nib.aff2axcodes(file.affine)) for file in (image, label)]
    if axes[0] == axes[1] or not same_grid(image, label):
        return None
    found = f"axes {axes[1]}, the image has {axes[0]}"
    fix = "nothing, if it was meant: both are brought to RAS here"
    return Problem(case.name, str(case.label), found, "the axes of its image", fix, "note")


def grid_problem(case: Case, path: str, image: NiftiFile, other: NiftiFile) -> Problem | None:
    """A label or further sequence on another grid than the case's first image."""
    if same_grid(image, other):
        return None
    (shape, affine), (other_shape, other_affine) = ras_grid(image), ras_grid(other)
    found = f"{describe_grid(other)} beside an image of {describe_grid(image)}"
    if shape == other_shape:
        found = f"up to {corners_apart_mm(shape, affine, other_affine):.1f} mm off the image: {found}"
    fix = "resample it onto the image, or export both again"
    return Problem(case.name, path, found, "the grid of the case's first image", fix)


def _within(spacing: tuple[float, ...], limits: tuple[float, float]) -> bool:
    return all(limits[0] <= edge <= limits[1] for edge in spacing)
