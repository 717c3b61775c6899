"""Checks of a file's header: it must put a plausible volume at one place in space."""

from itertools import combinations

import nibabel as nib
import numpy as np

from metaseg_nb.cohort.cases import Case
from metaseg_nb.cohort.problems import Problem
from metaseg_nb.cohort.volumes import corners_apart_mm, describe_grid, ras_grid, same_grid, spacing_of

# Voxel edges in millimetres: usual in the clinic, and possible at all.
USUAL_SPACING_MM = (0.3, 5.0)
POSSIBLE_SPACING_MM = (0.05, 20.0)
# sform and qform hold the same place with different rounding.
SAME_PLACE_MM = 0.1
# Axes this far from a right angle are sheared, not rounded.
SHEAR_DEGREES = 0.5


def header_problems(case: Case, path: str, image: nib.Nifti1Image) -> list[Problem]:
    """Problems of one file's header, without reading its voxels; a label's grid is compared with its image's."""
    found = [forms_problem(case, path, image)]
    if path != str(case.label):
        found += [spacing_problem(case, path, image), shear_problem(case, path, image)]
    return [problem for problem in found if problem is not None]


def spacing_problem(case: Case, path: str, image: nib.Nifti1Image) -> Problem | None:
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


def shear_problem(case: Case, path: str, image: nib.Nifti1Image) -> Problem | None:
    """Axes that are not at right angles to each other: distances and volumes would be wrong."""
    axes = image.affine[:3, :3] / np.linalg.norm(image.affine[:3, :3], axis=0)
    cosines = [abs(axes[:, i] @ axes[:, j]) for i, j in combinations(range(3), 2)]
    off = float(np.degrees(np.arcsin(min(1.0, max(cosines)))))
    if off <= SHEAR_DEGREES:
        return None
    fix = "resample it onto a grid of right angles (gantry tilt), image and label alike"
    return Problem(case.name, path, f"axes {off:.1f}° off a right angle", "axes at right angles", fix)


def forms_problem(case: Case, path: str, image: nib.Nifti1Image) -> Problem | None:
    """The two places a NIfTI header may give, sform and qform, where they differ."""
    (sform, s_code), (qform, q_code) = image.get_sform(coded=True), image.get_qform(coded=True)
    if not s_code or not q_code:
        return None
    apart = corners_apart_mm(image.shape[:3], sform, qform)
    if apart <= SAME_PLACE_MM:
        return None
    fix = "this workbook takes the sform, other programs the qform: compare the overlay, then set both alike"
    return Problem(case.name, path, f"sform and qform up to {apart:.1f} mm apart", "one place", fix, "warning")


def axes_note(case: Case, image: nib.Nifti1Image, label: nib.Nifti1Image) -> Problem | None:
    """A label stored with other axes than its image: read rightly here, flipped by programs that ignore headers."""
    axes = ["".join(nib.aff2axcodes(file.affine)) for file in (image, label)]
    if axes[0] == axes[1] or not same_grid(image, label):
        return None
    found = f"axes {axes[1]}, the image has {axes[0]}"
    fix = "nothing, if it was meant: both are brought to RAS here"
    return Problem(case.name, str(case.label), found, "the axes of its image", fix, "note")


def grid_problem(case: Case, path: str, image: nib.Nifti1Image, other: nib.Nifti1Image) -> Problem | None:
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
