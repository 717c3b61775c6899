"""NIfTI files: opened and checked by their headers, before any voxel is read."""

import logging
import math
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import nibabel as nib
import numpy as np
import psutil
from nibabel import orientations
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError

from metaseg_nb import machine
from metaseg_nb.cohort.file_kinds import head_of, is_gzip, kind_of, kind_of_folder
from metaseg_nb.cohort.problems import RULES, CohortError, Problem, broken, refusal

CONTROL_GROUPS = Path("/sys/fs/cgroup")
# What nibabel, gzip and the operating system raise for a file that cannot be read.
UNREADABLE = (ImageFileError, HeaderDataError, OSError, EOFError, zlib.error, ValueError, OverflowError)
# Deflate makes nothing smaller than this share.
MOST_UNPACKED = 1032
# Bytes a voxel that are needed beside those of the file: as float32, scaled, and as masks.
WORK_BYTES = 16
# The header's fields for the place of its voxels: a mask gets those of its image, so that all programs agree.
PLACE_FIELDS = (
    *("xyzt_units", "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d"),
    *("qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z"),
)
# Of the unit codes of NIfTI, in millimetres; an image without unit, or with another, counts as in millimetres.
UNITS_MM = {1: 1000.0, 3: 0.001}
# A smaller factor of the values is none to some programs.
LEAST_SLOPE = 1e-15
# In mm: single numbers, as headers hold, tell no tenths of a millimetre apart beyond; and no voxel is so thin.
FARTHEST_MM, THINNEST_MM = 1e6, 1e-4
# nibabel prints what it mends in a header; what matters of it is a problem here.
QUIET = logging.Logger("headers")
QUIET.addHandler(logging.NullHandler())
# Kinds of numpy's types that are no numbers to measure, and what to do.
NO_NUMBERS = {"c": ("complex numbers", "export the magnitude"), "V": ("colours", "export the values, not the picture")}


@dataclass(frozen=True)
class NiftiFile:
    """A NIfTI file with a header that gives one volume a place; its voxels have not been read.

    Parameters
    ----------
    path : path
    case : str
        Named in errors.
    header : Nifti1Header
        As nibabel mends it; its lengths may be in other units than millimetres.
    place : mapping
        ``pixdim`` (the first four) and `PLACE_FIELDS` as the file has them.
    """

    path: Path
    case: str
    header: nib.Nifti1Header
    place: Mapping[str, Any]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along the file's own axes."""
        return cast(tuple[int, int, int], self.header.get_data_shape()[:3])

    @cached_property
    def affine(self) -> np.ndarray:
        """From voxel indices to millimetres: by the sform, else the qform, else nibabel's guess; shape (4, 4)."""
        return in_mm(np.asarray(self.header.get_best_affine()), self.place)

    @property
    def voxel_bytes(self) -> int:
        """Bytes that the voxels take in the file, unpacked; a header may claim any number."""
        return math.prod(self.shape) * self.header.get_data_dtype().itemsize


def read_place(header: nib.Nifti1Header) -> dict[str, Any]:
    """The place fields of a header, as plain numbers."""
    fields = {"pixdim": header["pixdim"][:4], **{field: header[field] for field in PLACE_FIELDS}}
    return {field: np.nan_to_num(value).tolist() for field, value in fields.items()}


def write_place(header: nib.Nifti1Header, place: Mapping[str, Any]) -> None:
    """Write into a header what `read_place` read from another."""
    header["pixdim"][:4] = place["pixdim"]
    for field in PLACE_FIELDS:
        header[field] = place[field]


def in_mm(affine: np.ndarray, place: Mapping[str, Any]) -> np.ndarray:
    """Bring an affine in a header's unit of length to millimetres."""
    scale = UNITS_MM.get(place["xyzt_units"] & 7, 1.0)
    return affine * np.array([[scale], [scale], [scale], [1.0]])


def open_nifti(path: str | Path, case: str) -> NiftiFile:
    """Open a NIfTI file of one 3D volume without reading its voxels.

    Raises
    ------
    CohortError
        The file is missing, unreadable, of another kind, not one volume of numbers, shorter than its header says
        or larger than the free memory, or its header puts no volume into space.
    """
    path = Path(path)
    try:
        if problem := _other_file(path, case):
            raise CohortError([problem])
        head = head_of(path)
        formats = (nib.Nifti1Header, nib.Nifti2Header)
        form = next((form for form in formats if form.may_contain_header(head)), None)
        if form is None:
            raise ImageFileError("no NIfTI header at its start")
        raw = form(head[: form.sizeof_hdr], check=False)
        header = raw.copy()
        header.check_fix(QUIET)
        file = NiftiFile(path, case, header, read_place(raw))
        for problem in _problems(file):
            raise CohortError([problem])
    except CohortError:
        raise
    except UNREADABLE as error:
        raise unreadable(case, path, error) from error
    return file


def unreadable(case: str, path: str | Path, error: Exception) -> CohortError:
    """Error of a file that could not be read, or not to its end."""
    fix = "ask its owner for permission to read it" if isinstance(error, PermissionError) else ""
    fix = "free memory, ask for more, or crop the image" if isinstance(error, MemoryError) else fix
    return refusal("whole file", case, path, f"unreadable ({type(error).__name__}: {error})", fix)


def _other_file(path: Path, case: str) -> Problem | None:
    """Problem of a path that cannot be a NIfTI file by its name and first bytes."""
    if not (path.is_file() or path.is_dir()):
        return broken("NIfTI file", case, path, "no such file")
    if path.is_file() and path.stat().st_size == 0:
        return broken("whole file", case, path, "0 bytes")
    if kind := kind_of_folder(path) if path.is_dir() else kind_of(head_of(path), path.name):
        return broken("NIfTI file", case, path, kind.name, kind.fix)
    if path.suffix == ".gz" and not is_gzip(path):
        fix = f"rename it to .nii if other programs read it; otherwise {RULES['whole file']['fix']}"
        return broken("whole file", case, path, "a file named .gz that is not gzip", fix)
    if path.suffix == ".nii" and is_gzip(path):
        return broken("whole file", case, path, "a gzip file named .nii", "rename it to .nii.gz")
    return None


def _problems(file: NiftiFile) -> Iterator[Problem]:
    """What is wrong with a file that is not one complete 3D volume that the memory can hold."""
    shape, place, header = file.header.get_data_shape(), file.place, file.header
    of = file.case, file.path
    if kind := NO_NUMBERS.get(header.get_data_dtype().kind):
        yield broken("numbers", *of, *kind)
    offset, first = header.get_data_offset(), header.single_vox_offset
    if offset < first:
        found = f"voxels from byte {offset} on (vox_offset), inside the header"
        yield broken("voxels after header", *of, found, first=first)
    slope, shift = float(header["scl_slope"]), np.nan_to_num(header["scl_inter"])
    is_set = slope != 0 and not np.isnan(slope)
    if (not is_set and shift) or (is_set and not LEAST_SLOPE <= abs(slope) < np.inf):
        found = f"a scale that programs read differently (scl_slope {slope:g}, scl_inter {shift:g})"
        yield broken("one scale", *of, found)
    if len(shape) < 3 or any(n != 1 for n in shape[3:]):  # one time point is a volume
        yield broken("one volume", *of, f"{len(shape)}D, shape {shape}")
    codes = place["sform_code"], place["qform_code"]
    if not all(0 <= code <= 5 for code in codes) or (not codes[0] and min(place["pixdim"][1:]) <= 0):
        found = f"a header with sform code {codes[0]}, qform code {codes[1]}, voxel edges {place['pixdim'][1:]}"
        yield broken("codes and edges", *of, found)
    placed = np.isfinite(file.affine).all() and np.isfinite(orientations.io_orientation(file.affine)).all()
    reach, edges = np.abs(file.affine[:3]) @ [*shape[:3], 1], np.linalg.norm(file.affine[:3, :3], axis=0)
    if min(shape) < 1 or not (placed and reach.max() <= FARTHEST_MM and edges.min() >= THINNEST_MM):
        found = f"a header with shape {shape} and affine {file.affine[:3].round(3).tolist()}"
        yield broken("placed voxels", *of, found)
    size, needed = file.path.stat().st_size, offset + file.voxel_bytes
    if needed > (MOST_UNPACKED * size if is_gzip(file.path) else size):
        found = f"{size} bytes, but a header with shape {file.shape}, which takes {needed} bytes"
        yield broken("whole file", *of, found)
    needed, free = file.voxel_bytes + WORK_BYTES * math.prod(file.shape), free_memory()
    if needed > free:
        found = f"shape {file.shape}, which takes {needed / 1e9:.3g} GB of memory; {free / 1e9:.3g} GB are free"
        yield broken("memory", *of, found)


def free_memory(groups: Path = CONTROL_GROUPS, process: Path = Path("/proc/self/cgroup")) -> int:
    """Bytes that may still be taken: of the machine's memory and of the limit of a SLURM job or container.

    Parameters
    ----------
    groups, process : path
        Linux's control groups (version 2) and the file that names this process's; another system has none.
    """
    free = [psutil.virtual_memory().available]
    own = groups / process.read_text(encoding="utf-8").strip().rpartition("::/")[2] if process.is_file() else groups
    for group in (own, *own.parents):
        try:
            limit = int((group / "memory.max").read_text(encoding="utf-8"))
            counts = dict(line.split() for line in (group / "memory.stat").read_text(encoding="utf-8").splitlines())
        except (OSError, ValueError):  # no group, or no limit
            continue
        free.append(limit - int(counts["anon"]))  # the rest are pages of files, which are given back
    return min(free) // machine.at_work
