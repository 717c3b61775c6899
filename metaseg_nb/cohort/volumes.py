"""NIfTI volumes and masks in RAS order, and the way back to the grid of the file they came from.

Everything above this module works on arrays (X, Y, Z) whose axes grow to the
patient's Right, Anterior and Superior. Files are read into that order and
written back in their own, so that a mask saved here lies on its image in any viewer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel import orientations
from nibabel.affines import apply_affine, voxel_sizes
from nibabel.arrayproxy import ArrayProxy

from metaseg_nb.cohort.cases import Case, LesionRule
from metaseg_nb.cohort.file_kinds import opened
from metaseg_nb.cohort.nifti_files import UNREADABLE, NiftiFile, open_nifti, unreadable, write_place
from metaseg_nb.cohort.problems import CohortError, Problem, broken, refusal
from metaseg_nb.files import finished

# Lesions are 1: masks that the workbook writes.
OWN_MASKS = LesionRule()
# Values of a mask this near a declared one are it: rounding errors of another program.
FUZZ = 0.01


@dataclass(frozen=True)
class Volume:
    """An array on a grid.

    Parameters
    ----------
    array : ndarray, shape (X, Y, Z)
        Voxel values, axes in RAS order.
    affine : ndarray, shape (4, 4)
        From voxel indices of ``array`` to millimetres in RAS world space.
    native_orientation : ndarray, shape (3, 2)
        nibabel orientation of the file the volume came from.
    place : mapping, optional
        What that file's header says about its place, from `NiftiFile`: written back as it was.
    """

    array: np.ndarray
    affine: np.ndarray
    native_orientation: np.ndarray
    place: Mapping[str, Any] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Voxels along X, Y, Z."""
        return self.array.shape

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Voxel edges along X, Y, Z in millimetres."""
        return spacing_of(self.affine)

    @property
    def native_axes(self) -> str:
        """Axis codes of the file, such as "LPS"."""
        return "".join(orientations.ornt2axcodes(self.native_orientation))

    @property
    def native_shape(self) -> tuple[int, ...]:
        """Shape of the array in the file."""
        return tuple(self.array.shape[int(axis)] for axis in self.native_orientation[:, 0])

    @property
    def to_native(self) -> np.ndarray:
        """From voxel indices of ``array`` to those of the file: shape (4, 4)."""
        return orientations.inv_ornt_aff(self.native_orientation, self.native_shape)


def spacing_of(affine: np.ndarray) -> tuple[float, float, float]:
    """Voxel edges in millimetres of a 4x4 affine."""
    x, y, z = (float(edge) for edge in voxel_sizes(affine))
    return x, y, z


def read_volume(path: str | Path, case: str, dtype: type = np.float32) -> Volume:
    """Read a NIfTI file into RAS order; every value must be a number.

    Parameters
    ----------
    path : path
        ``.nii`` or ``.nii.gz``.
    case : str
        Named in errors.
    dtype : type
        Of the returned array, after the file's slope and intercept are applied.

    Raises
    ------
    CohortError
        `open_nifti` refuses the file, or it is damaged or holds NaN or infinite values.
    """
    volume = read_voxels(open_nifti(path, case), dtype)
    if problems := not_finite(volume.array, path, case):
        raise CohortError(problems)
    return volume


def not_finite(array: np.ndarray, path: str | Path, case: str) -> list[Problem]:
    """Problem of an array that holds NaN or infinite values; empty if all are finite."""
    count = array.size - int(np.isfinite(array).sum())
    return [broken("finite", case, path, f"{count} NaN or infinite voxels")] if count else []


def read_voxels(file: NiftiFile, dtype: type = np.float32) -> Volume:
    """Read the voxels of an opened file into RAS order, whatever their values.

    The file is read to its end: gzip's checksum is verified there.

    Raises
    ------
    CohortError
        The file is damaged, or holds more voxels than its header says.
    """
    slice_bytes = file.voxel_bytes // file.shape[2]
    try:
        with opened(file.path) as stream:
            array = np.asanyarray(ArrayProxy(stream, file.header, mmap=False), dtype=dtype).reshape(file.shape)
            beyond = len(stream.read(slice_bytes))
    except (*UNREADABLE, MemoryError) as error:
        raise unreadable(file.case, file.path, error) from error
    if beyond == slice_bytes:  # fewer bytes are padding
        found = f"more voxels than the shape {file.shape} of its header"
        raise refusal("whole file", file.case, file.path, found)
    native = orientations.io_orientation(file.affine)
    affine = file.affine @ orientations.inv_ornt_aff(native, file.shape)
    return Volume(orientations.apply_orientation(array, native), affine, native, file.place)


def write_volume(path: str | Path, volume: Volume, description: str = "") -> None:
    """Write a volume in the axis order and at the place of the file it came from; complete or not at all.

    ``description``, at most 79 letters, stands in its header.
    """
    ras = orientations.axcodes2ornt("RAS")
    back = orientations.ornt_transform(ras, volume.native_orientation)
    array = np.asfortranarray(orientations.apply_orientation(volume.array, back))  # as it lies in a file
    if volume.place is None:
        affine = volume.affine @ orientations.inv_ornt_aff(back, volume.array.shape)
        image = nib.Nifti1Image(array, affine)
        image.set_sform(affine, code=1)
        image.set_qform(affine, code=1)
    else:
        image = nib.Nifti1Image(array, None)
        write_place(image.header, volume.place)
    image.header["descrip"] = description
    with finished(Path(path)) as unfinished:
        nib.save(image, unfinished)


def same_grid(first: NiftiFile | Volume, second: NiftiFile | Volume, tolerance_mm: float = 1e-2) -> bool:
    """Tell whether two volumes, brought to RAS order, share shape and affine (every corner within ``tolerance_mm``)."""
    (shape, affine), (other_shape, other_affine) = ras_grid(first), ras_grid(second)
    return shape == other_shape and corners_apart_mm(shape, affine, other_affine) <= tolerance_mm


def corners_apart_mm(shape: Sequence[int], affine: np.ndarray, other: np.ndarray) -> float:
    """Largest distance in millimetres between where two affines put the corners of a volume."""
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in shape])).reshape(3, -1).T
    apart = apply_affine(affine, corners) - apply_affine(other, corners)
    return float(np.linalg.norm(apart, axis=1).max())


def ras_grid(volume: NiftiFile | Volume) -> tuple[tuple[int, ...], np.ndarray]:
    """Shape and affine that a volume has once its axes are in RAS order; its voxels are not read."""
    shape, orientation = volume.shape, orientations.io_orientation(volume.affine)
    ordered = tuple(int(shape[axis]) for axis in np.argsort(orientation[:, 0]))
    return ordered, volume.affine @ orientations.inv_ornt_aff(orientation, shape)


def _away(volume: NiftiFile | Volume, other: NiftiFile | Volume) -> str:
    """How far a grid lies from another of its shape, in words; empty for another shape."""
    (shape, affine), (other_shape, other_affine) = ras_grid(volume), ras_grid(other)
    if shape != other_shape:
        return ""
    apart = corners_apart_mm(shape, affine, other_affine)
    return f"up to {apart:.{1 if apart >= 0.1 else 2}f} mm away"  # never 0: beyond the tolerance of `same_grid`


def describe_grid(volume: NiftiFile | Volume, other: NiftiFile | Volume | None = None) -> str:
    """Describe a grid for an error: shape, spacing, axes, origin; and how far it lies from another."""
    spacing = "x".join(f"{edge:.4g}" for edge in spacing_of(volume.affine))
    axes = "".join(nib.aff2axcodes(volume.affine))
    origin = ", ".join(f"{x:.1f}" for x in volume.affine[:3, 3])
    apart = f", {far}" if other is not None and (far := _away(volume, other)) else ""
    return f"shape {tuple(volume.shape)}, {spacing} mm, {axes}, origin ({origin}) mm{apart}"


def other_grid(image: NiftiFile | Volume, other: NiftiFile | Volume) -> str:
    """How the grid of a label or further sequence differs from that of the case's first image."""
    apart = f"{far} from the image: " if (far := _away(image, other)) else ""
    return f"{apart}{describe_grid(other)}; the image has {describe_grid(image)}"


def read_mask(path: str | Path, case: str, rule: LesionRule = OWN_MASKS) -> Volume:
    """Read a file as a mask of bool; raises as `read_values` does."""
    values = read_values(path, case, rule)
    return replace(values, array=lesion_mask(values.array, rule))


def read_lesions(case: Case, rule: LesionRule) -> Volume:
    """Read a case's label as a mask of bool; raises as `read_values` does."""
    assert case.label is not None
    return read_mask(case.label, case.name, rule)


def read_values(path: str | Path, case: str, rule: LesionRule) -> Volume:
    """Read the values of a mask file.

    Raises
    ------
    CohortError
        The file cannot be read, or holds a value that the rule does not name.
    """
    values = read_volume(path, case)
    if problems := undeclared_values(path, case, values.array, rule):
        raise CohortError(problems)
    return values


def lesion_mask(array: np.ndarray, rule: LesionRule) -> np.ndarray:
    """Mask of bool, of the shape of ``array``: which voxels a rule counts as lesion."""
    if rule.threshold > 0:
        return array > rule.threshold
    return np.isin(np.rint(array), rule.values)


def undeclared_values(path: str | Path, case: str, array: np.ndarray, rule: LesionRule) -> list[Problem]:
    """Problem of values that a rule does not name, or of a threshold that leaves nothing of a grey mask."""
    if rule.threshold > 0:
        low, high = float(array.min()), float(array.max())
        if not 0 < high <= rule.threshold:
            return []
        found = f"values from {low:g} to {high:g}, none above the threshold {rule.threshold:g}"
        return [broken("both sides", case, path, found, high=f"{high:g}")]
    named = sorted({0, *rule.values, *rule.other_values})
    values, counts = np.unique(array[array != 0], return_counts=True)
    declared = np.isin(np.rint(values), named) & (np.abs(values - np.rint(values)) <= FUZZ)
    values, counts = values[~declared], counts[~declared]
    if len(values) == 0:
        return []
    listed, voxels = (", ".join(f"{n:g}" for n in some[:5]) for some in (values, counts))
    found = f"label values {listed}{', ...' if len(values) > 5 else ''} ({voxels} voxels)"
    is_grey = len(values) > 10 or not np.allclose(values, np.rint(values))
    names = ", ".join(map(str, named))
    return [broken("not grey" if is_grey else "declared values", case, path, found, named=names)]
