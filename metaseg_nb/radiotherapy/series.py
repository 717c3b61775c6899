"""MR series in a folder of DICOM files: what is there, sorted by tags, and each as a volume with checked geometry."""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import SimpleITK as sitk
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import ImplicitVRLittleEndian

from metaseg_nb.cohort.problems import Problem

TAGS = [
    *("SOPClassUID", "SOPInstanceUID", "Modality", "PatientID", "StudyInstanceUID", "SeriesInstanceUID"),
    *("StudyDate", "SeriesDescription", "ImageType", "FrameOfReferenceUID", "ContrastBolusAgent", "Manufacturer"),
    *("ManufacturerModelName", "Rows", "Columns", "NumberOfFrames", "ImagePositionPatient", "ImageOrientationPatient"),
    *("PixelSpacing", "SliceThickness", "SpacingBetweenSlices", "SharedFunctionalGroupsSequence"),
    "PerFrameFunctionalGroupsSequence",
]
# A file without the usual first 128 bytes begins with a group of the header in little-endian order.
WITHOUT_PREAMBLE = (b"\x02\x00", b"\x08\x00")
# Values of Image Type of what is no scan of a volume: planning views, projections, maps that were calculated.
NO_SCAN = {"LOCALIZER", "PROJECTION IMAGE", "MIP", "MINIP", "ADC", "TRACEW", "FA", "CBF", "CBV", "MTT", "TTP", "SUB"}
# Slices are evenly spaced within this, and perpendicular to their stack within this angle.
GAP_MM, GAP_SHARE, TILT_DEGREES = 0.05, 0.02, 0.5
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


class DicomError(ValueError):
    """What is wrong with a series or a structure set, as the fields of a `Problem` without case and file."""

    def __init__(self, found: str, expected: str, fix: str):
        super().__init__(f"found {found}; expected {expected}. What to do: {fix}.")
        self.found, self.expected, self.fix = found, expected, fix

    def problem(self, case: str, file: str, severity: str = "error") -> Problem:
        """Say which case and file it is about."""
        return Problem(case, file, self.found, self.expected, self.fix, severity)


@dataclass(frozen=True)
class Series:
    """A series of parallel, evenly spaced slices of one size.

    ``frames`` has a row per slice, in the order of the volume: ``file``, ``frame`` (in its file), ``uid`` (SOP
    Instance UID), ``sop_class``. ``affine`` (4, 4) takes column, row and slice to LPS coordinates in mm.
    """

    uid: str
    patient: str
    study: str
    description: str
    date: str
    scanner: str
    contrast: bool
    frame_of_reference: str
    shape: tuple[int, int, int]
    affine: np.ndarray
    frames: pd.DataFrame

    @property
    def affine_ras(self) -> np.ndarray:
        """From column, row and slice to RAS coordinates in mm, as in NIfTI."""
        return LPS_TO_RAS @ self.affine

    @property
    def spacing_mm(self) -> np.ndarray:
        """Distance of columns, rows and slices, (3,)."""
        return np.linalg.norm(self.affine[:3, :3], axis=0)

    @cached_property
    def fingerprint(self) -> str:
        """Hash that names the series without giving away its UIDs."""
        return sha256("\n".join([self.uid, *self.frames["uid"]]).encode()).hexdigest()[:16]


def read_headers(folder: Path) -> tuple[pd.DataFrame, list[Problem]]:
    """Read the headers of all DICOM files below a folder; names of files mean nothing.

    Returns
    -------
    headers : DataFrame
        A row per image of a file (a multi-frame file has several) or structure set: ``file``, ``frame``, ``modality``,
        ``patient``, ``study``, ``series``, ``uid``, ``sop_class``, ``date``, ``description``, ``image_type``,
        ``frame_of_reference``, ``contrast``, ``scanner``, ``rows``, ``columns``, ``position`` (LPS mm),
        ``orientation``, ``pixel_spacing``, ``slice_mm``. Copies of a file are there once.
    problems : list of Problem
        DICOM files that cannot be read.
    """
    rows: list[dict] = []
    problems: list[Problem] = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "DICOMDIR"):
        try:
            header = _header(path)
            rows += _rows(path, header) if header is not None else []
        except Exception as error:  # pydicom has no error of its own for a file that is cut off or damaged
            found = f"a DICOM file that cannot be read ({type(error).__name__}: {error})"
            problems.append(Problem("-", path.name, found, "a whole DICOM file", "export it again, or remove it"))
    headers = pd.DataFrame(rows).drop_duplicates(["uid", "frame"]) if rows else pd.DataFrame(columns=["modality"])
    return headers.reset_index(drop=True), problems


def is_dicom_file(path: Path) -> bool:
    """Whether a file begins as DICOM files do."""
    with path.open("rb") as file:
        start = file.read(132)
    return start[128:] == b"DICM" or (start[:2] in WITHOUT_PREAMBLE and len(start) == 132)


def _header(path: Path) -> Dataset | None:
    """A file's header without pixels; None for a file of another kind."""
    if not is_dicom_file(path):
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # values that the standard forbids and that do no harm here
        try:
            header = pydicom.dcmread(path, stop_before_pixels=True, force=True, specific_tags=TAGS)
        except InvalidDicomError:
            return None
        return header if "SOPInstanceUID" in header and "Modality" in header else None


def _rows(path: Path, header: Dataset) -> Iterator[dict]:
    shared = {
        "file": path,
        "modality": str(header.Modality),
        "patient": str(header.get("PatientID", "")).strip(),
        "study": str(header.get("StudyInstanceUID", "")),
        "series": str(header.get("SeriesInstanceUID", "")),
        "uid": str(header.SOPInstanceUID),
        "sop_class": str(header.get("SOPClassUID", "")),
        "date": str(header.get("StudyDate", "") or ""),
        "description": str(header.get("SeriesDescription", "") or "").strip(),
        "image_type": frozenset(map(str.upper, map(str, header.get("ImageType", None) or []))),
        "frame_of_reference": str(header.get("FrameOfReferenceUID", "") or ""),
        "contrast": bool(str(header.get("ContrastBolusAgent", "") or "").strip()),
        "scanner": f"{header.get('Manufacturer', '') or ''} {header.get('ManufacturerModelName', '') or ''}".strip(),
        "rows": int(header.get("Rows", 0) or 0),
        "columns": int(header.get("Columns", 0) or 0),
    }
    whole = _first(header, "SharedFunctionalGroupsSequence")
    frames = header.get("PerFrameFunctionalGroupsSequence", None) or [Dataset()]
    for number, frame in enumerate(frames):
        groups = [group for part in (frame, whole) for group in _groups(part)]
        yield shared | {"frame": number} | _geometry([header, *groups])


def _groups(part: Dataset) -> list[Dataset]:
    names = ("PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence")
    return [_first(part, name) for name in names if name in part]


def _first(part: Dataset, sequence: str) -> Dataset:
    return (part.get(sequence, None) or [Dataset()])[0]


def _geometry(parts: list[Dataset]) -> dict:
    def value(name: str, n: int) -> tuple[float, ...] | None:
        found = next((part.get(name) for part in parts if part.get(name, None) is not None), ())
        return tuple(map(float, np.atleast_1d(found))) if np.size(found) == n else None

    slice_mm = value("SpacingBetweenSlices", 1) or value("SliceThickness", 1) or (0.0,)
    return {
        "position": value("ImagePositionPatient", 3),
        "orientation": value("ImageOrientationPatient", 6),
        "pixel_spacing": value("PixelSpacing", 2),
        "slice_mm": slice_mm[0],
    }


def no_scan(frames: pd.DataFrame) -> str:
    """Say why the images of a series are no MR scan of a volume; "" if they are."""
    first = frames.iloc[0]
    kinds = NO_SCAN & set().union(*frames["image_type"])
    if first["modality"] != "MR":
        return f"{first['modality']}, not MR"
    if kinds:
        return " ".join(sorted(kinds)).lower()
    return "no position in space" if frames[["position", "orientation", "pixel_spacing"]].isna().any(axis=None) else ""


def as_volume(frames: pd.DataFrame) -> tuple[Series, list[DicomError]]:
    """Put the slices of a series in the order of their positions, and check that they make one volume.

    Parameters
    ----------
    frames : DataFrame
        Rows of `read_headers` of one series.

    Returns
    -------
    series : Series
    warnings : list of DicomError
        What was put right.

    Raises
    ------
    DicomError
        Slices are missing, unevenly spaced, doubled with different content, tilted, or of several sizes or
        orientations.
    """
    first = frames.iloc[0]
    for column, what in (("rows", "rows"), ("columns", "columns"), ("pixel_spacing", "pixel spacings in mm")):
        if len(values := sorted(set(frames[column]))) > 1:
            raise DicomError(f"slices with {what} {', '.join(map(str, values))}", "slices of one size", SPLIT)
    orientation = np.array(frames["orientation"].tolist())
    if np.abs(orientation - orientation[0]).max() > 1e-3:
        raise DicomError("slices in several orientations", "parallel slices", SPLIT)
    along_row, along_column = orientation[0, :3], orientation[0, 3:]
    normal = np.cross(along_row, along_column)
    frames = frames.assign(along=np.array(frames["position"].tolist()) @ normal).sort_values("along", kind="stable")
    frames, mended = _without_doubles(frames)
    positions = np.array(frames["position"].tolist())
    step = _step(frames, positions, normal, _name_of_slices(normal))
    row_mm, column_mm = first["pixel_spacing"]  # DICOM: distance of rows, then of columns
    affine = np.eye(4)
    affine[:3] = np.column_stack([along_row * column_mm, along_column * row_mm, step, positions[0]])
    shape = (int(first["columns"]), int(first["rows"]), len(frames))
    about = {key: first[key] for key in ("patient", "study", "description", "date", "scanner", "frame_of_reference")}
    kept = frames[["file", "frame", "uid", "sop_class"]].reset_index(drop=True)
    contrast = bool(frames["contrast"].any())
    return Series(uid=first["series"], contrast=contrast, shape=shape, affine=affine, frames=kept, **about), mended


SPLIT = "export the series alone, or choose another one with `series`"


def _without_doubles(frames: pd.DataFrame) -> tuple[pd.DataFrame, list[DicomError]]:
    """Keep one of the slices that lie at one place, if they show the same."""
    number = np.r_[0, np.cumsum(np.diff(frames["along"]) > 1e-3)]
    places, sizes = np.unique(number, return_counts=True)
    if len(places) == len(frames):
        return frames, []
    kept = frames[np.r_[True, np.diff(number) > 0]]
    for place in places[sizes > 1]:
        images = [
            _pixels(row.file, "a slice that is there twice")[row.frame] for row in frames[number == place].itertuples()
        ]
        if not all(np.array_equal(images[0], other) for other in images[1:]):
            found = f"{len(frames)} slices at {len(places)} positions, with different content at one position"
            raise DicomError(found, "one slice at each position", f"(several echoes or times?) {SPLIT}")
    found = f"{len(frames) - len(kept)} slices twice, with the same content"
    return kept, [DicomError(found, "each slice once", "nothing: each was taken once")]


def _step(frames: pd.DataFrame, positions: np.ndarray, normal: np.ndarray, name: str) -> np.ndarray:
    """From one slice to the next, in mm (3,)."""
    if len(frames) == 1:
        return normal * (frames["slice_mm"].iloc[0] or 1.0)
    along = frames["along"].to_numpy()
    gaps = np.diff(along)
    usual = float(np.median(gaps))
    uneven = np.flatnonzero(np.abs(gaps - usual) > max(GAP_MM, GAP_SHARE * usual))
    if len(uneven):
        places = [f"{gaps[i]:.2f} mm between {name} {along[i]:.2f} and {along[i + 1]:.2f} mm" for i in uneven[:3]]
        more = f" and {len(uneven) - 3} more" if len(uneven) > 3 else ""
        whole = gaps[uneven] / usual
        if np.all((whole > 1.5) & (np.abs(whole - np.round(whole)) < 0.05)):
            missing = int(np.sum(np.round(whole) - 1))
            found = f"{missing} missing slice(s), with a gap of {', '.join(places)}{more}"
            raise DicomError(found, f"a slice every {usual:.2f} mm", "export the whole series again")
        found = f"uneven distances between slices: {', '.join(places)}{more}"
        raise DicomError(found, f"a slice every {usual:.2f} mm", "export a series that is evenly spaced")
    step = (positions[-1] - positions[0]) / (len(positions) - 1)
    tilt = np.degrees(np.arccos(np.clip(step @ normal / np.linalg.norm(step), -1, 1)))
    if tilt > TILT_DEGREES:
        found = f"slices shifted sideways from one to the next (gantry tilt of {tilt:.1f} degrees)"
        raise DicomError(found, "slices straight above each other", "resample the series in the planning system")
    return step


def _name_of_slices(normal: np.ndarray) -> str:
    return "xyz"[int(np.argmax(np.abs(normal)))] + " ="


def read_pixels(series: Series) -> np.ndarray:
    """Read a series' voxels, (columns, rows, slices); whole numbers stay so, others are float32.

    Raises
    ------
    DicomError
        The pixels of a file cannot be decoded.
    """
    read: dict[Path, np.ndarray] = {}
    slices = []
    for number, row in enumerate(series.frames.itertuples(), 1):
        if row.file not in read:  # a multi-frame file is read once; others are let go
            read = {row.file: _pixels(row.file, f"slice {number} of {len(series.frames)}")}
        slices.append(read[row.file][row.frame])
    volume = np.stack(slices, axis=-1).swapaxes(0, 1)
    if np.issubdtype(volume.dtype, np.floating):
        whole = np.rint(volume)
        return volume.astype(np.float32) if not np.array_equal(whole, volume) else whole.astype(np.int32)
    return volume


def _pixels(path: Path, name: str) -> np.ndarray:
    """All frames of a file, (frames, rows, columns), after its rescale slope and intercept.

    An error calls it by ``name``: that of the file may be a patient's.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            header = pydicom.dcmread(path, force=True)
            if "TransferSyntaxUID" not in header.file_meta:
                header.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
            if header.file_meta.TransferSyntaxUID.is_compressed:  # ITK's GDCM knows all of JPEG, and rescales itself
                return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
            pixels = header.pixel_array
    except Exception as error:  # of pydicom, numpy or ITK, by the kind of damage
        found = f"{name}: pixels that cannot be decoded ({type(error).__name__})"
        raise DicomError(found, "whole images", "export the series again, without compression") from error
    return _rescaled(pixels.reshape(-1, *pixels.shape[-2:]), header)


def _rescaled(pixels: np.ndarray, header: Dataset) -> np.ndarray:
    frames = header.get("PerFrameFunctionalGroupsSequence", None) or [Dataset()] * len(pixels)
    whole = _first(header, "SharedFunctionalGroupsSequence")
    lines = []
    for frame in frames:
        parts = [header, *(_first(part, "PixelValueTransformationSequence") for part in (frame, whole))]
        part = next((part for part in parts if "RescaleSlope" in part), Dataset())
        lines.append((float(part.get("RescaleSlope", 1)), float(part.get("RescaleIntercept", 0))))
    if all(line == (1.0, 0.0) for line in lines):
        return pixels
    slope, intercept = np.array(lines, dtype=np.float64).T[:, :, None, None]
    return pixels * slope + intercept
