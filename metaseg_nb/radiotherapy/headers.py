"""Headers of the DICOM files in a folder: sorted by their tags, whatever the files are called."""

import math
import os
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
from pydicom import uid
from pydicom.dataset import Dataset

from metaseg_nb.checksums import checksum
from metaseg_nb.cohort.file_kinds import kind_of
from metaseg_nb.cohort.problems import Problem, broken, shortened
from metaseg_nb.cohort.sources.naming import site_of

# Without one of these nobody can tell where a file belongs.
NEEDED = ("SOPInstanceUID", "Modality", "StudyInstanceUID", "SeriesInstanceUID")
# Columns of text in a table of headers, and their elements.
TEXTS = {
    "modality": "Modality",
    "patient": "PatientID",
    "person": "PatientName",
    "born": "PatientBirthDate",
    "study": "StudyInstanceUID",
    "series": "SeriesInstanceUID",
    "uid": "SOPInstanceUID",
    "sop_class": "SOPClassUID",
    "date": "StudyDate",
    "time": "SeriesTime",
    "number": "SeriesNumber",
    "description": "SeriesDescription",
    "frame_of_reference": "FrameOfReferenceUID",
}
# Columns that say where a frame lies, called as their elements, and how many numbers each has.
PLACED = {"ImagePositionPatient": 3, "ImageOrientationPatient": 6, "PixelSpacing": 2}
TAGS = [
    *(*TEXTS.values(), *PLACED, "ImageType", "ContrastBolusAgent", "Manufacturer", "ManufacturerModelName"),
    *("Rows", "Columns", "BitsAllocated", "SamplesPerPixel", "NumberOfFrames", "MagneticFieldStrength"),
    *("PhotometricInterpretation", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
]
# Where a multi-frame file says so.
OF_PLACE = ("PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence")
# Bytes of the tag, kind and length before the pixels of a file, where these are not compressed.
BESIDE_PIXELS = {uid.ImplicitVRLittleEndian: 8, uid.ExplicitVRLittleEndian: 12, uid.ExplicitVRBigEndian: 12}
MR_IMAGES = (uid.MRImageStorage, uid.EnhancedMRImageStorage, uid.LegacyConvertedEnhancedMRImageStorage)
ENDINGS = (".dcm", ".dicom", ".ima")
# What scanners write where no contrast agent was given.
NO_CONTRAST = ("", "no", "n", "none", "without", "nein", "ohne", "keine", "keines", "0")


class DicomError(ValueError):
    """All that is wrong with a file, a series or a structure set, before its case is known."""

    def __init__(self, *problems: Problem):
        super().__init__(*problems)

    def __str__(self) -> str:
        return " ".join(f"found {of.found}; expected {of.expected}. What to do: {of.fix}." for of in self.args)

    def problems(self, case: str, file: str, severity: str = "error") -> list[Problem]:
        """Say which case and file they are about."""
        return [replace(problem, case=case, file=file, severity=severity) for problem in self.args]


def dicom_error(rule: str, found: str, fix: str = "", **words: object) -> DicomError:
    """Make the error of a rule that is broken; see `broken`."""
    return DicomError(broken(rule, "-", "-", found, fix, **words))


def unreadable_dicom(error: Exception, what: str) -> DicomError:
    """What any error in reading a file means to its owner; no path, and no words of a library."""
    if isinstance(error, DicomError):
        return error
    reason = (error.strerror if isinstance(error, OSError) else "") or type(error).__name__
    return dicom_error("readable DICOM", f"{what} that cannot be read ({reason})")


def files_below(folder: Path, refused: Callable[[OSError], object] | None = None) -> Iterator[Path]:
    """All files below a folder, in order; links are followed, and each folder is read once.

    ``refused`` is called for each folder that cannot be opened.
    """
    seen = set()
    for place, folders, names in os.walk(folder, followlinks=True, onerror=refused):
        folders.sort()
        if (real := os.path.realpath(place)) in seen:
            folders.clear()
            continue
        seen.add(real)
        for path in (Path(place, name) for name in sorted(names)):
            if path.is_file() or path.is_symlink():  # a pipe would wait for ever; a link to nothing is a lost file
                yield path


def is_dicom_file(path: Path) -> bool:
    """Whether a file begins as DICOM files do."""
    with path.open("rb") as file:
        kind = kind_of(file.read(132))  # further on, any text may hold the UID of a kind
    return kind is not None and kind.name.startswith("a DICOM")


def read_headers(folder: Path) -> tuple[pd.DataFrame, list[Problem]]:
    """Read the headers of all DICOM files below a folder.

    Returns
    -------
    headers : DataFrame
        A row per image of a file (a multi-frame file has several) or structure set: ``file``, ``place`` (below the
        folder, and the number of the file), ``frame``, the columns of `TEXTS`, ``image_type``, ``contrast``,
        ``scanner``, ``site``, ``colours``, ``Rows``, ``Columns``, ``cut_off``, and those of `PLACED` (LPS mm); "", None
        or 0 where none is given. Copies of a file are there once.
    problems : list of Problem
        Files that cannot be read, by their place; one for those of one folder and kind.
    """
    rows: list[dict] = []
    wrong: dict[tuple[Path, Problem], list[str]] = {}

    def refuse(error: Exception, path: Path, what: str, place: str) -> None:
        (problem,) = unreadable_dicom(error, what).problems("-", "-")
        wrong.setdefault((path.parent, problem), []).append(place)

    def refuse_folder(error: OSError) -> None:
        refuse(error, Path(error.filename), "a folder", os.path.relpath(error.filename, folder))

    found = {os.path.relpath(path, folder): path for path in files_below(folder, refuse_folder)}
    numbers = {name: number for number, name in enumerate(sorted(found), 1)}
    for name, path in found.items():
        place = f"{name} (file {numbers[name]} of {len(found)})"  # a code may stand for a part of the name
        try:
            with warnings.catch_warnings(action="ignore"):  # values that the standard forbids and that do no harm here
                rows += [{"place": place} | row for row in _rows(path)]
        except Exception as error:  # pydicom has no error of its own for a file that is cut off or damaged
            refuse(error, path, "a file", place)
    problems = [replace(problem, file=shortened(names, 1)) for (_, problem), names in wrong.items()]
    return _without_copies(pd.DataFrame(rows)) if rows else pd.DataFrame(columns=["modality"]), problems


def _without_copies(headers: pd.DataFrame) -> pd.DataFrame:
    """Keep one of the files that are equal byte by byte; what only calls itself the same stays."""
    named_twice = headers.duplicated(["uid", "frame"], keep=False)
    sums = {file: checksum(file) for file in set(headers.loc[named_twice, "file"])}
    content = headers["file"].map(lambda file: sums.get(file, ""))
    copies = headers.assign(content=content).duplicated(["uid", "frame", "content"])
    return headers[~copies].reset_index(drop=True)


def _header(path: Path) -> tuple[Dataset, int] | None:
    """A file's header without pixels, and how many bytes follow it; None for a file of another kind.

    Raises
    ------
    DicomError
        It should be a DICOM file, and is none or only a part of one.
    """
    meant = not path.name.startswith(".")  # hidden files are notes of an operating system
    if not is_dicom_file(path):
        if meant and not path.stat().st_size:
            raise dicom_error("whole DICOM", "an empty file")
        if meant and path.suffix.lower() in ENDINGS:
            raise dicom_error("whole DICOM", "a file that is called DICOM, and does not begin as one")
        return None
    with path.open("rb") as file:
        header = pydicom.dcmread(file, stop_before_pixels=True, force=True, specific_tags=TAGS)
        rest = path.stat().st_size - file.tell()
    if header.file_meta.get("MediaStorageSOPClassUID") == uid.MediaStorageDirectoryStorage:
        return None  # a DICOMDIR: a list of the other files
    if missing := [name for name in NEEDED if not text_of(header, name)]:
        raise dicom_error("whole DICOM", f"a DICOM file without {', '.join(missing)}")
    deflated = header.file_meta.get("TransferSyntaxUID") == uid.DeflatedExplicitVRLittleEndian  # read to its end
    if not (rest or deflated) and header.get("SOPClassUID") in MR_IMAGES:
        raise dicom_error("whole DICOM", "an MR image that ends before its pixels")
    return header, rest


def _is_cut_off(header: Dataset, rest: int) -> bool:
    """Whether fewer bytes follow a header than its pixels need; of compressed ones nobody can tell."""
    beside = BESIDE_PIXELS.get(header.file_meta.get("TransferSyntaxUID", uid.ImplicitVRLittleEndian))
    sizes = {"Rows": 0, "Columns": 0, "BitsAllocated": 0, "SamplesPerPixel": 1, "NumberOfFrames": 1}
    needed = math.prod(int(header.get(name, None) or usual) for name, usual in sizes.items()) // 8
    return beside is not None and needed > 0 and rest < beside + needed


def text_of(part: Dataset, name: str) -> str:
    """An element as one line of text, "" where there is none; what cannot be shown becomes a blank."""
    text = str(part.get(name, "") or "")
    if not text.isprintable():
        text = "".join(letter if letter.isprintable() else " " for letter in text)
    return " ".join(text.split())


def _rows(path: Path) -> Iterator[dict]:
    if (found := _header(path)) is None:
        return
    header, rest = found
    shared = {column: text_of(header, name) for column, name in TEXTS.items()} | {
        "file": path,
        "image_type": frozenset(map(str.upper, map(str, header.get("ImageType", None) or []))),
        "contrast": text_of(header, "ContrastBolusAgent").lower() not in NO_CONTRAST,
        "scanner": f"{text_of(header, 'Manufacturer')} {text_of(header, 'ManufacturerModelName')}".strip(),
        "site": site_of(text_of(header, "Manufacturer"), text_of(header, "MagneticFieldStrength")),
        "colours": text_of(header, "PhotometricInterpretation") or "MONOCHROME2",
        "Rows": int(header.get("Rows", 0) or 0),
        "Columns": int(header.get("Columns", 0) or 0),
        "cut_off": _is_cut_off(header, rest),
    }
    whole = first_of(header, "SharedFunctionalGroupsSequence")
    for number, frame in enumerate(items_of(header, "PerFrameFunctionalGroupsSequence") or [Dataset()]):
        groups = [group for part in (frame, whole) for name in OF_PLACE for group in items_of(part, name)[:1]]
        yield shared | {"frame": number} | {name: _numbers([*groups, header], name, n) for name, n in PLACED.items()}


def items_of(part: Dataset, sequence: str) -> list[Dataset]:
    """The items of a sequence; none where it is not there, or empty."""
    return list(part.get(sequence, None) or [])


def first_of(part: Dataset, sequence: str) -> Dataset:
    """The first item of a sequence; an empty one where there is none."""
    return (items_of(part, sequence) or [Dataset()])[0]


def _numbers(parts: list[Dataset], name: str, n: int) -> tuple[float, ...] | None:
    found = next((given for part in parts if (given := part.get(name, None)) is not None), ())
    return tuple(map(float, np.atleast_1d(found))) if np.size(found) == n else None
