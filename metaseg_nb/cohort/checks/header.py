"""Checks of headers: each must put a plausible volume at one place in space, on the grid of the case's first image."""

from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import nibabel as nib
import numpy as np

from metaseg_nb.cohort.cases import Case
from metaseg_nb.cohort.checks.rules import USUAL_SPACING_MM, broken
from metaseg_nb.cohort.nifti_files import UNREADABLE, NiftiFile, in_mm, open_nifti
from metaseg_nb.cohort.problems import CohortError, Problem
from metaseg_nb.cohort.volumes import Volume, corners_apart_mm, describe_grid, ras_grid, same_grid, spacing_of

# Voxel edges that are possible at all.
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
            problems += _beside(case, path, image, file)
    return files, problems


def require_sound_headers(case: Case) -> list[Problem]:
    """Raise `CohortError` with all that makes files useless by their headers; return what else is to be said."""
    problems = examine_headers(case)[1]
    if errors := [problem for problem in problems if problem.severity == "error"]:
        raise CohortError(errors)
    return problems


def header_problems(case: Case, path: str, image: NiftiFile) -> list[Problem]:
    """Problems of one file's header, whose voxels are not read."""
    found = [_place(image)] if path == str(case.label) else [_place(image), _spacing(image), _shear(image)]
    return [broken(problem[0], case, path, problem[1]) for problem in found if problem]


def other_grid(image: NiftiFile | Volume, other: NiftiFile | Volume) -> str:
    """How the grid of a label or further sequence differs from that of the case's first image."""
    (shape, affine), (other_shape, other_affine) = ras_grid(image), ras_grid(other)
    found = f"{describe_grid(other)} beside an image of {describe_grid(image)}"
    if shape != other_shape:
        return found
    return f"up to {corners_apart_mm(shape, affine, other_affine):.1f} mm off the image: {found}"


def _beside(case: Case, path: Path, image: NiftiFile, other: NiftiFile) -> Iterator[Problem]:
    """Another grid; or, of a label, other axes: read rightly here, flipped by programs that ignore headers."""
    axes = ["".join(nib.aff2axcodes(file.affine)) for file in (image, other)]
    if not same_grid(image, other):
        yield broken("one grid", case, path, other_grid(image, other))
    elif path == case.label and axes[0] != axes[1]:
        yield broken("same axes", case, path, f"axes {axes[1]}, the image has {axes[0]}")


def _spacing(image: NiftiFile) -> tuple[str, str] | None:
    """Voxel edges that no head scan has, or that hide small lesions."""
    spacing = spacing_of(image.affine)
    found = f"extreme spacing of {'x'.join(f'{edge:.3g}' for edge in spacing)} mm"
    for rule, (least, most) in (("possible spacing", POSSIBLE_SPACING_MM), ("usual spacing", USUAL_SPACING_MM)):
        if not all(least <= edge <= most for edge in spacing):
            return rule, found
    return None


def _shear(image: NiftiFile) -> tuple[str, str] | None:
    """Axes that are not at right angles to each other: distances and volumes would be wrong."""
    axes = image.affine[:3, :3] / np.linalg.norm(image.affine[:3, :3], axis=0)
    cosines = [abs(axes[:, i] @ axes[:, j]) for i, j in combinations(range(3), 2)]
    off = float(np.degrees(np.arcsin(min(1.0, max(cosines)))))
    return ("right angles", f"axes {off:.1f}° off a right angle") if off > SHEAR_DEGREES else None


def _place(image: NiftiFile) -> tuple[str, str] | None:
    """A header that names no place, or places that differ: programs show such a file at different places."""
    s_code, q_code = image.place["sform_code"], image.place["qform_code"]
    if not s_code and not q_code:
        return "a place", (
            "sform and qform codes of 0: nibabel, and so this workbook, takes the axes as LAS with the origin in the"
            " middle, ITK (3D Slicer, ITK-SNAP) as LPS with the origin in the first voxel"
        )
    if not s_code or (apart := _apart_mm(image, _qform(image) if q_code else _sform_by_edges(image))) <= SAME_PLACE_MM:
        return None
    other = "qform" if q_code else f"voxel edges (pixdim {'x'.join(f'{n:g}' for n in image.place['pixdim'][1:])})"
    return "one place", f"sform and {other} {f'up to {apart:.1f} mm apart' if apart < np.inf else 'that is no place'}"


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
