"""MR series as volumes: slices in order, with checked geometry, and their voxels in the order of NIfTI."""

import warnings
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from tempfile import NamedTemporaryFile

import numpy as np
import pandas as pd
import pydicom
import SimpleITK as sitk
from pydicom.datadict import dictionary_description
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.pixels import pixel_array
from pydicom.uid import ImplicitVRLittleEndian, MultiFrameGrayscaleWordSecondaryCaptureImageStorage, generate_uid

from metaseg_nb.cohort.problems import Problem, broken, shortened
from metaseg_nb.radiotherapy.headers import MR_IMAGES, PLACED, DicomError, dicom_error, first_of, items_of

# Values of Image Type of what is no scan of a volume: planning views, projections, maps that were calculated.
NO_SCAN = {"LOCALIZER", "PROJECTION IMAGE", "MIP", "MINIP", "ADC", "TRACEW", "FA", "CBF", "CBV", "MTT", "TTP", "SUB"}
NOT_MR = ", not MR"
# Slices are evenly spaced within this, and perpendicular to their stack within this angle.
GAP_MM, GAP_SHARE, TILT_DEGREES = 0.05, 0.02, 0.5
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
NOWHERE = np.full((4, 4), np.nan)
# Elements that say how pixels are stored.
OF_PIXELS = {
    *("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
}
# Columns of a header without which there is no volume.
GEOMETRY = [*PLACED, "Rows", "Columns"]


@dataclass(frozen=True)
class Series:
    """A series as it was found: a volume of parallel, evenly spaced slices of one size, or the reason why it is none.

    ``frames`` are its rows of `read_headers`, a row per slice. In a volume they are in order, and ``affine`` (4, 4)
    takes column, row and slice to LPS coordinates in mm; ``mended`` says what was put right. Otherwise ``left_aside``
    says why it is no scan ("" if it is one), or ``error`` all that is wrong with its slices.
    """

    uid: str
    patient: str
    study: str
    number: str
    description: str
    date: str
    time: str
    scanner: str
    site: str
    contrast: bool
    frame_of_reference: str
    frames: pd.DataFrame
    affine: np.ndarray = field(default_factory=lambda: NOWHERE)
    left_aside: str = ""
    error: DicomError | None = None
    mended: list[Problem] = field(default_factory=list)

    @property
    def is_volume(self) -> bool:
        """Whether it can be used."""
        return not self.left_aside and self.error is None

    @property
    def shape(self) -> tuple[int, int, int]:
        """Columns, rows, slices."""
        return int(self.frames["Columns"].iloc[0]), int(self.frames["Rows"].iloc[0]), len(self.frames)

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


def series_of(frames: pd.DataFrame) -> Series:
    """Make a series of its rows of `read_headers`."""
    first = frames.iloc[0]
    names = ("patient", "study", "number", "description", "date", "time", "scanner", "site", "frame_of_reference")
    about = {name: first[name] for name in names}
    contrast, left_aside = bool(frames["contrast"].any()), _no_scan(frames)
    series = Series(uid=first["series"], contrast=contrast, frames=frames, left_aside=left_aside, **about)
    if series.left_aside:
        return series
    frames, affine, problems = _as_volume(frames)
    errors = [problem for problem in problems if problem.severity == "error"]
    mended = [problem for problem in problems if problem not in errors]
    return replace(series, frames=frames, affine=affine, mended=mended, error=DicomError(*errors) if errors else None)


def _no_scan(frames: pd.DataFrame) -> str:
    """Say why the images of a series are no MR scan of a volume; "" if they are."""
    first = frames.iloc[0]
    kinds = NO_SCAN & set().union(*frames["image_type"])
    if first["modality"] != "MR":
        return first["modality"] + NOT_MR
    if kinds:
        return " ".join(sorted(kinds)).lower()
    if first["colours"] != "MONOCHROME2":
        return f"in colours, or from white to black ({first['colours']})"
    placed = frames[[*PLACED]].notna().any(axis=None)
    return "" if placed or first["sop_class"] in MR_IMAGES else "no position in space"


def _as_volume(frames: pd.DataFrame) -> tuple[pd.DataFrame, np.ndarray, list[Problem]]:
    """Put slices in the order of their positions; with the affine of their volume, and all that was noticed.

    The affine is of NaN where slices do not say how they lie, or where there is one alone.
    """
    problems, unplaced = _cut_off(frames), _unplaced(frames)
    if unplaced:
        return frames, NOWHERE, problems + unplaced
    first = frames.iloc[0]
    along_row, along_column = np.array(first["ImageOrientationPatient"]).reshape(2, 3)
    normal = np.cross(along_row, along_column)
    along = np.array(frames["ImagePositionPatient"].tolist()) @ normal
    frames = frames.assign(along=along).sort_values("along", kind="stable")
    frames, doubles = _without_doubles(frames)
    if len(frames) == 1:
        return frames, NOWHERE, [*problems, broken("several slices", "-", "-", "one slice alone")]
    positions = np.array(frames["ImagePositionPatient"].tolist())
    step = (positions[-1] - positions[0]) / (len(positions) - 1)
    row_mm, column_mm = first["PixelSpacing"]  # DICOM: distance of rows, then of columns
    affine = np.eye(4)
    affine[:3] = np.column_stack([along_row * column_mm, along_column * row_mm, step, positions[0]])
    return frames.reset_index(drop=True), affine, problems + doubles + _uneven(frames["along"].to_numpy(), step, normal)


def _cut_off(frames: pd.DataFrame) -> list[Problem]:
    places = frames.loc[frames["cut_off"], "place"]
    found = f"{len(places)} of {len(frames)} slices cut off, with fewer bytes of pixels than their headers say"
    return [broken("whole slices", "-", "-", f"{found}: {shortened(places)}")] if len(places) else []


def _unplaced(frames: pd.DataFrame) -> list[Problem]:
    missing = frames[GEOMETRY].isna() | (frames[GEOMETRY] == 0)
    if missing.any(axis=None):
        names = ", ".join(map(dictionary_description, missing.columns[missing.any()]))
        found = f"{missing.any(axis=1).sum()} of {len(frames)} slices without {names}"
        return [broken("placed slices", "-", "-", found)]
    values = {column: np.array(frames[column].tolist(), float).reshape(len(frames), -1) for column in GEOMETRY}
    directions, edges = values["ImageOrientationPatient"].reshape(-1, 2, 3), values["PixelSpacing"]
    square = np.allclose(directions @ directions.transpose(0, 2, 1), np.eye(2), atol=0.01)
    positions = values.pop("ImagePositionPatient")
    if not (square and np.isfinite(positions).all() and np.isfinite(edges).all() and (edges > 0).all()):
        found = "rows and columns that are not perpendicular, voxels with an edge of 0 mm, or slices at no finite place"
        return [broken("placed slices", "-", "-", found)]
    apart = {dictionary_description(column): np.ptp(of, axis=0).max() for column, of in values.items()}
    apart["Photometric Interpretation"] = frames["colours"].nunique() - 1
    several = [name for name, most in apart.items() if most > 1e-3]
    return [broken("parallel slices", "-", "-", f"slices of several {', '.join(several)}")] if several else []


def _without_doubles(frames: pd.DataFrame) -> tuple[pd.DataFrame, list[Problem]]:
    """Keep one of the slices that lie at one place, if they show the same."""
    number = np.r_[0, np.cumsum(np.diff(frames["along"]) > 1e-3)]
    places, sizes = np.unique(number, return_counts=True)
    if len(places) == len(frames):
        return frames, []
    kept = frames[np.r_[True, np.diff(number) > 0]]
    for place in places[sizes > 1]:
        whole = frames[(number == place) & ~frames["cut_off"]].itertuples()
        try:
            images = [
                file_pixels(row.file, f"a slice that is there twice, file {row.place}")[row.frame] for row in whole
            ]
        except DicomError as error:
            return kept, [*error.args]
        if not all(np.array_equal(images[0], other) for other in images[1:]):
            found = f"{len(frames)} slices at {len(places)} positions, with different content at one position"
            return kept, [broken("one slice a place", "-", "-", found)]
    found = f"{len(frames) - len(kept)} slices twice, with the same content"
    return kept, [broken("slices once", "-", "-", found)]


def _uneven(along: np.ndarray, step: np.ndarray, normal: np.ndarray) -> list[Problem]:
    """Errors of slices that are missing or shifted sideways: places along the normal, from one to the next, in mm."""
    gaps, problems = np.diff(along), []
    usual = float(np.median(gaps))
    uneven = np.flatnonzero(np.abs(gaps - usual) > max(GAP_MM, GAP_SHARE * usual))
    if len(uneven):
        name = "xyz"[int(np.argmax(np.abs(normal)))]
        places = (f"{gaps[i]:.2f} mm between {name} = {along[i]:.2f} and {along[i + 1]:.2f} mm" for i in uneven)
        found = f"missing or uneven slices: {shortened(places)}"
        problems.append(broken("even slices", "-", "-", found, every=f"{usual:.2f}"))
    tilt = np.degrees(np.arccos(np.clip(step @ normal / np.linalg.norm(step), -1, 1)))
    if tilt > TILT_DEGREES:
        found = f"slices shifted sideways from one to the next (gantry tilt of {tilt:.1f} degrees)"
        problems.append(broken("no tilt", "-", "-", found))
    return problems


def read_pixels(frames: pd.DataFrame) -> np.ndarray:
    """Read the voxels of a series, (columns, rows, slices); whole numbers stay so, others are float32.

    Parameters
    ----------
    frames : DataFrame
        `Series.frames`, of a volume.

    Raises
    ------
    DicomError
        The pixels of files cannot be decoded; with all of these.
    """
    slices, errors, file, pixels = [], [], None, None
    for number, row in enumerate(frames.itertuples(), 1):
        if row.file != file:  # a multi-frame file is read once; others are let go
            file, pixels = row.file, None
            try:
                pixels = file_pixels(row.file, f"slice {number} of {len(frames)}, file {row.place}")
            except DicomError as error:
                errors += error.args
        if pixels is not None:
            slices.append(pixels[row.frame])
    if errors:
        raise DicomError(replace(errors[0], found=shortened(error.found for error in errors)))
    volume = np.stack(slices).T  # the first axis is the fastest in memory, as in a NIfTI file
    if np.issubdtype(volume.dtype, np.floating):
        whole = np.array_equal(np.rint(volume), volume) and np.abs(volume).max(initial=0) < 2**31
        return volume.astype(np.int32 if whole else np.float32)
    return volume


def file_pixels(path: Path, name: str) -> np.ndarray:
    """All frames of a file, (frames, rows, columns), after its rescale slope and intercept.

    An error calls it by ``name``.
    """
    fix = ""
    try:
        with warnings.catch_warnings(action="ignore"):
            header = pydicom.dcmread(path, force=True)
            if "TransferSyntaxUID" not in header.file_meta:
                header.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
            stored = pixel_array
            if header.file_meta.TransferSyntaxUID.is_compressed:
                fix = "copy the file again from the export, or export the series again, without compression"
                stored = _decompressed
            return _rescaled(stored(header).reshape(-1, header.Rows, header.Columns), header)
    except Exception as error:  # of pydicom, numpy or ITK, by the kind of damage
        found = f"{name}: pixels that cannot be decoded ({type(error).__name__})"
        raise dicom_error("decoded pixels", found, fix) from error


def _decompressed(header: Dataset) -> np.ndarray:
    """The stored values of compressed pixels.

    ITK's GDCM knows all of JPEG. It gets the pixels alone: from a whole header it would take one slope for all frames.
    """
    alone = Dataset({element.tag: element for element in header.group_dataset(0x0028) if element.keyword in OF_PIXELS})
    alone.SOPClassUID, alone.SOPInstanceUID = MultiFrameGrayscaleWordSecondaryCaptureImageStorage, generate_uid()
    alone.file_meta = FileMetaDataset()
    alone.file_meta.TransferSyntaxUID = header.file_meta.TransferSyntaxUID
    alone["PixelData"] = header["PixelData"]
    with NamedTemporaryFile(suffix=".dcm") as file:
        alone.save_as(file.name, enforce_file_format=True)
        return sitk.GetArrayFromImage(sitk.ReadImage(file.name))


def _rescaled(pixels: np.ndarray, header: Dataset) -> np.ndarray:
    frames = items_of(header, "PerFrameFunctionalGroupsSequence") or [Dataset()]
    whole = first_of(header, "SharedFunctionalGroupsSequence")
    lines = []
    for frame in frames:
        parts = [header, *(first_of(part, "PixelValueTransformationSequence") for part in (frame, whole))]
        pairs = ([part.get(name, None) for name in ("RescaleSlope", "RescaleIntercept")] for part in parts)
        slope, intercept = next((pair for pair in pairs if pair != [None, None]), (None, None))
        lines.append((float(1 if slope is None else slope), float(0 if intercept is None else intercept)))
    if all(line == (1.0, 0.0) for line in lines):
        return pixels
    slope, intercept = np.array(lines, dtype=np.float64).T[:, :, None, None]
    return pixels * slope + intercept
