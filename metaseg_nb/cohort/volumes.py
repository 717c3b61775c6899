"""NIfTI volumes in RAS order, and the way back to the grid of the file they came from.

Everything above this module works on arrays (X, Y, Z) whose axes grow to the
patient's Right, Anterior and Superior. Files are read into that order and
written back in their own, so that a mask saved here lies on its image in any viewer.
"""

import gzip
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel import orientations
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError

from metaseg_nb.cohort.problems import CohortError, Problem
from metaseg_nb.files import finished

# What nibabel, gzip and the operating system raise for a file that cannot be read.
UNREADABLE = (
    ImageFileError,
    HeaderDataError,
    OSError,
    EOFError,
    zlib.error,
    gzip.BadGzipFile,
    ValueError,
    OverflowError,
)

GZIP_MAGIC = b"\x1f\x8b"


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
    """

    array: np.ndarray
    affine: np.ndarray
    native_orientation: np.ndarray

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
    return tuple(float(edge) for edge in nib.affines.voxel_sizes(affine))


def open_nifti(path: str | Path, case: str) -> nib.Nifti1Image:
    """Open a 3D NIfTI file without reading its voxels.

    Raises
    ------
    CohortError
        The file is missing, unreadable, not NIfTI, not 3D, or its header puts no volume into space.
    """
    path = Path(path)
    if not path.is_file():
        raise CohortError.one(case, path, "no such file", "a NIfTI file", "correct the path in the datalist")
    if path.stat().st_size == 0:
        raise CohortError.one(case, path, "0 bytes", "a whole NIfTI file", "copy or export it again")
    with path.open("rb") as file:
        compressed = file.read(2) == GZIP_MAGIC
    if path.suffix == ".gz" and not compressed:
        fix = "rename it to .nii if other programs read it; otherwise copy or export it again"
        raise CohortError.one(case, path, "no gzip file behind the name .gz", "a whole NIfTI file", fix)
    try:
        image = nib.load(path)
    except UNREADABLE as error:
        raise _unreadable(case, path, error) from error
    if len(image.shape) != 3 and image.shape[3:] != (1,):  # one time point is a volume
        raise CohortError.one(
            case, path, f"{len(image.shape)}D, shape {image.shape}", "one 3D volume", "split it or pick one volume"
        )
    if 0 in image.shape or not abs(np.linalg.det(image.affine[:3, :3])) > 0:  # "not >" takes NaN along
        found = f"a header with shape {image.shape} and affine {image.affine[:3].round(3).tolist()}"
        raise CohortError.one(case, path, found, "voxels that have a volume", "export it again")
    return image


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
        The file is missing, unreadable, truncated, not 3D or holds NaN or infinite values.
    """
    volume = read_voxels(open_nifti(path, case), path, case, dtype)
    if problem := not_finite(volume.array, path, case):
        raise CohortError([problem])
    return volume


def not_finite(array: np.ndarray, path: str | Path, case: str) -> Problem | None:
    """Problem of an array that holds NaN or infinite values, or None."""
    count = array.size - int(np.isfinite(array).sum())
    if count == 0:
        return None
    return Problem(case, str(path), f"{count} NaN or infinite voxels", "finite values", "export it again")


def read_voxels(image: nib.Nifti1Image, path: str | Path, case: str, dtype: type = np.float32) -> Volume:
    """Read the voxels of a file that `open_nifti` opened into RAS order, whatever their values."""
    native = orientations.io_orientation(image.affine)
    try:
        canonical = nib.as_closest_canonical(image)
        array = np.asanyarray(canonical.dataobj, dtype=dtype).reshape(canonical.shape[:3])
    except UNREADABLE as error:
        raise _unreadable(case, path, error) from error
    return Volume(array, canonical.affine, native)


def write_volume(path: str | Path, volume: Volume) -> None:
    """Write a volume in the axis order of the file it came from; whole or not at all."""
    ras = orientations.axcodes2ornt("RAS")
    back = orientations.ornt_transform(ras, volume.native_orientation)
    array = orientations.apply_orientation(volume.array, back)
    affine = volume.affine @ orientations.inv_ornt_aff(back, volume.array.shape)
    image = nib.Nifti1Image(np.ascontiguousarray(array), affine)
    image.set_sform(affine, code=1)
    image.set_qform(affine, code=1)
    with finished(Path(path)) as unfinished:
        nib.save(image, unfinished)


def same_grid(first: nib.Nifti1Image | Volume, second: nib.Nifti1Image | Volume, tolerance_mm: float = 1e-2) -> bool:
    """Tell whether two volumes, brought to RAS order, share shape and affine (every corner within ``tolerance_mm``)."""
    (shape, affine), (other_shape, other_affine) = ras_grid(first), ras_grid(second)
    if shape != other_shape:
        return False
    return corners_apart_mm(shape, affine, other_affine) <= tolerance_mm


def corners_apart_mm(shape: Sequence[int], affine: np.ndarray, other: np.ndarray) -> float:
    """Largest distance in millimetres between where two affines put the corners of a volume."""
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in shape])).reshape(3, -1).T
    apart = nib.affines.apply_affine(affine, corners) - nib.affines.apply_affine(other, corners)
    return float(np.linalg.norm(apart, axis=1).max())


def ras_grid(volume: nib.Nifti1Image | Volume) -> tuple[tuple[int, ...], np.ndarray]:
    """Shape and affine that a volume has once its axes are in RAS order; its voxels are not read."""
    shape, orientation = _shape(volume), orientations.io_orientation(volume.affine)
    ordered = tuple(int(shape[axis]) for axis in np.argsort(orientation[:, 0]))
    return ordered, volume.affine @ orientations.inv_ornt_aff(orientation, shape)


def describe_grid(volume: nib.Nifti1Image | Volume) -> str:
    """Put a grid in words, for errors: shape, spacing, axes, origin."""
    spacing = "x".join(f"{edge:.4g}" for edge in spacing_of(volume.affine))
    axes = "".join(nib.aff2axcodes(volume.affine))
    origin = ", ".join(f"{x:.1f}" for x in volume.affine[:3, 3])
    return f"shape {tuple(_shape(volume))}, {spacing} mm, {axes}, origin ({origin}) mm"


def _shape(volume: nib.Nifti1Image | Volume) -> Sequence[int]:
    return volume.array.shape if isinstance(volume, Volume) else volume.shape[:3]


def _unreadable(case: str, path: str | Path, error: Exception) -> CohortError:
    return CohortError.one(
        case, path, f"unreadable ({type(error).__name__}: {error})", "a whole NIfTI file", "copy or export it again"
    )
