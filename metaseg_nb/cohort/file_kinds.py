"""Recognise files that are not NIfTI by their first bytes, and say how to convert them."""

import gzip
import re
import zlib
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

# Bytes at a file's start that tell its kind.
HEAD_BYTES = 4096
GZIP_MAGIC = b"\x1f\x8b"
DCM2NIIX = "convert the series to NIfTI, for instance with `dcm2niix -z y FOLDER`"
CONVERTED = "convert it to NIfTI, for instance with SimpleITK: `WriteImage(ReadImage(FILE), 'image.nii.gz')`"
STRUCTURES = "convert the structures to masks on the image's grid, with 3D Slicer or `plastimatch convert`"
UNPACK = "unpack it and give the NIfTI file in it, or convert what is in it to NIfTI"
FETCH = "fetch the file: `git lfs pull` or `git annex get`"
DOWNLOAD = "the download gave a web page instead of the file: log in to the website and download the file again"
NO_IMAGE = "give the NIfTI file (.nii or .nii.gz)"


class Kind(NamedTuple):
    """A kind of file: its name, how to convert it to NIfTI, and the pattern of the bytes it is recognised by."""

    name: str
    fix: str
    pattern: bytes = b""


HALF = Kind(
    "half of a pair (.hdr and .img), or Analyze",
    "write both as one NIfTI file, for instance with nibabel or SimpleITK; if it is Analyze, which does not say where "
    "left and right are, convert the DICOM series to NIfTI instead",
    # sizeof_hdr of Analyze and NIfTI-1 (348) and of NIfTI-2 (540), in either byte order
    rb"^(\x5c\x01\x00\x00|\x00\x00\x01\x5c|\x1c\x02\x00\x00|\x00\x00\x02\x1c)",
)
# The first that fits counts: DICOM objects are told by their class before DICOM is.
FILE_KINDS = (
    HALF,
    Kind("a DICOM structure set (RTSTRUCT)", STRUCTURES, rb"1\.2\.840\.10008\.5\.1\.4\.1\.1\.481\.3"),
    Kind("a DICOM segmentation (SEG)", STRUCTURES, rb"1\.2\.840\.10008\.5\.1\.4\.1\.1\.66\.4"),
    Kind("a DICOM file", DCM2NIIX, rb"^.{128}DICM"),
    # without the preamble a DICOM file starts with an element of group 0002 or 0008
    Kind("a DICOM file", DCM2NIIX, rb"^(\x02\x00[\x00\x01\x02\x10]\x00|\x08\x00[\x00\x01\x05\x08\x12\x16]\x00)"),
    Kind("an NRRD file", CONVERTED, rb"^NRRD000"),
    Kind("a MetaImage file (.mha, .mhd)", CONVERTED, rb"ElementType"),
    Kind("an archive or workbook", UNPACK, rb"^(PK\x03\x04|7z\xbc\xaf|BZh|\xfd7zXZ|\x28\xb5\x2f\xfd)"),
    Kind("a file that is compressed twice", "unpack it once", rb"^\x1f\x8b"),
    Kind("a macOS companion file (._)", "leave it out: the image has the same name without ._", rb"^\x00\x05\x16\x07"),
    Kind("a web page", DOWNLOAD, rb"^(<!DOCTYPE|<html)"),
    Kind("a pointer instead of the file", FETCH, rb"^(version https://git-lfs|/annex/objects)"),
)


def is_gzip(path: Path) -> bool:
    """Tell whether a file is packed, whatever its name."""
    with path.open("rb") as file:
        return file.read(2) == GZIP_MAGIC


def opened(path: Path) -> BinaryIO:
    """Open a file's bytes, unpacked where they are packed."""
    return cast(BinaryIO, gzip.open(path) if is_gzip(path) else path.open("rb"))


def head_of(path: Path) -> bytes:
    """Read the first `HEAD_BYTES` of a file, unpacked where they are packed."""
    with opened(path) as file:
        return file.read(HEAD_BYTES)


def kind_of(head: bytes, name: str = "") -> Kind | None:
    """Tell the kind of a file by its first bytes (`head_of`) and its name; None: NIfTI, or unknown."""
    if head[344:347] == b"n+1" or head[4:7] == b"n+2":
        return None
    if name.lower().endswith((".img", ".img.gz")):
        return HALF
    return next((kind for kind in FILE_KINDS if re.search(kind.pattern, head, re.DOTALL)), None)


def file_kind(path: Path) -> Kind | None:
    """Tell the kind of a file that is neither NIfTI nor text; None where that is unknown."""
    with suppress(OSError, EOFError, zlib.error):
        return kind_of(head_of(path)) or (Kind("a gzip file", UNPACK) if is_gzip(path) else None)
    return None


def kind_of_folder(folder: Path) -> Kind:
    """Tell a folder of DICOM files from any other; one file is looked at."""
    shown = (path for path in sorted(folder.iterdir()) if path.is_file() and not path.name.startswith("."))
    kind = next((kind_of(head_of(path)) for path in shown), None)
    of_dicom = kind is not None and kind.fix == DCM2NIIX
    return Kind("a folder of DICOM files", DCM2NIIX) if of_dicom else Kind("a folder", NO_IMAGE)
