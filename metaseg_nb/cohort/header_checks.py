"""Checks of headers: a plausible volume at one position in space, on the grid of the case's first image."""

from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np

from metaseg_nb.cohort.cases import Case
from metaseg_nb.cohort.nifti_files import UNREADABLE, NiftiFile, in_mm, open_nifti
from metaseg_nb.cohort.problems import CohortError, Problem, broken
from metaseg_nb.cohort.volumes import Volume, away, corners_apart_mm, describe_grid, same_grid, spacing_of

# Voxel edges that are usual in the clinic, and those that are possible at all.
USUAL_MM, POSSIBLE_MM = (0.3, 5.0), (0.05, 20.0)
# sform and qform hold the same place with different rounding.
SAME_PLACE_MM = 0.1
# Axes this far from a right angle are sheared, not rounded.
SHEAR_DEGREES = 0.5
NO_POSITION = (
    "sform and qform codes of 0, which programs read differently: nibabel and this workbook assume LAS axes with the "
    "origin in the middle, ITK (3D Slicer, ITK-SNAP) assumes LPS axes with the origin in the first voxel"
)


def examine_headers(case: Case) -> tuple[dict[Path, NiftiFile], list[Problem]]:
    """Open the files of a case and check their headers, each alone and against that of the first image."""
    files, problems = {}, []
    for path in case.files:
        try:
            files[path] = open_nifti(path, case.name)
            problems += header_problems(case, str(path), files[path])
        except CohortError as error:
            problems += error.problems
    for path, file in files.items():
        if case.image in files and path != case.image:
            problems += _beside(case, path, files[case.image], file)
    return files, problems


def require_sound_headers(case: Case) -> list[Problem]:
    """Raise `CohortError` with all errors in the headers of a case; return the problems that are no errors."""
    problems = examine_headers(case)[1]
    if errors := [problem for problem in problems if problem.severity == "error"]:
        raise CohortError(errors)
    return problems


def header_problems(case: Case, path: str, image: NiftiFile) -> list[Problem]:
    """Problems of one file's header, whose voxels are not read; of a mask only those of its place."""
    is_image = path not in map(str, (case.label, case.brain))
    found = [*_position(image), *(_edges_and_angles(image) if is_image else [])]
    return [broken(rule, case, path, words) for rule, words in found]


def other_grid(image: NiftiFile | Volume, other: NiftiFile | Volume) -> str:
    """How the grid of a label or further sequence differs from that of the case's first image."""
    apart = f"{far} from the image: " if (far := away(image, other)) else ""
    return f"{apart}{describe_grid(other)}; the image has {describe_grid(image)}"


def _beside(case: Case, path: Path, image: NiftiFile, other: NiftiFile) -> Iterator[Problem]:
    """Another grid; or, of a label, other axes: read rightly here, flipped by programs that ignore headers."""
    axes, other_axes = ("".join(nib.aff2axcodes(file.affine)) for file in (image, other))
    if not same_grid(image, other):
        rule = "sequences on one grid" if path in case.images else "one grid"
        yield broken(rule, case, path, other_grid(image, other))
    elif path == case.label and axes != other_axes:
        yield broken("same axes", case, path, f"axes {other_axes}; the image has {axes}")


def _edges_and_angles(image: NiftiFile) -> Iterator[tuple[str, str]]:
    """Voxel edges that no head scan has, or that hide small lesions; sheared axes, which make distances wrong."""
    spacing = np.array(spacing_of(image.affine))
    possible, usual = (((least <= spacing) & (spacing <= most)).all() for least, most in (POSSIBLE_MM, USUAL_MM))
    if not (possible and usual):
        found = f"extreme spacing of {'x'.join(f'{edge:.3g}' for edge in spacing)} mm"
        yield "usual spacing" if possible else "possible spacing", found
    axes = image.affine[:3, :3] / spacing
    cosines = np.abs(axes.T @ axes)[np.triu_indices(3, 1)]
    off = float(np.degrees(np.arcsin(min(1.0, cosines.max()))))
    if off > SHEAR_DEGREES:
        yield "right angles", f"axes {off:.1f}° off a right angle"


def _position(image: NiftiFile) -> Iterator[tuple[str, str]]:
    """A header that gives no position, or two: programs show such a file at different positions."""
    s_code, q_code, edges = image.place["sform_code"], image.place["qform_code"], np.array(image.place["pixdim"][1:])
    if not s_code:
        yield from [] if q_code else [("a position", NO_POSITION)]
        return
    try:
        if q_code:  # as ITK reads it: negative edges count
            place = np.asarray(image.header.get_qform()) * [*np.where(edges < 0, -1, 1), 1]
        else:  # the sform's directions with the voxel edges of pixdim, as ITK takes them
            sform = np.asarray(image.header.get_sform())
            place = sform * [*edges / spacing_of(sform), 1]
        apart = corners_apart_mm(image.shape, image.affine, in_mm(place, image.place))
    except UNREADABLE:  # a quaternion that is no rotation
        apart = np.nan
    if not apart <= SAME_PLACE_MM:
        other = "qform" if q_code else f"voxel edges (pixdim {'x'.join(f'{edge:g}' for edge in edges)})"
        found = f"up to {apart:.1f} mm apart" if np.isfinite(apart) else "without a valid position"
        yield "one position", f"sform and {other} {found}"
