"""MR series as volumes: slices in order, with checked geometry, and their voxels."""

import warnings
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import SimpleITK as sitk
from pydicom.dataset import Dataset
from pydicom.uid import ImplicitVRLittleEndian

from metaseg_nb.radiotherapy.headers import MR_IMAGES, DicomError, first_of

# Values of Image Type of what is no scan of a volume: planning views, projections, maps that were calculated.
NO_SCAN = {"LOCALIZER", "PROJECTION IMAGE", "MIP", "MINIP", "ADC", "TRACEW", "FA", "CBF", "CBV", "MTT", "TTP", "SUB"}
NOT_MR = ", not MR"
# Slices are evenly spaced within this, and perpendicular to their stack within this angle.
GAP_MM, GAP_SHARE, TILT_DEGREES = 0.05, 0.02, 0.5
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


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


def no_scan(frames: pd.DataFrame) -> str:
    """Say why the images of a series are no MR scan of a volume; "" if they are."""
    first = frames.iloc[0]
    kinds = NO_SCAN & set().union(*frames["image_type"])
    if first["modality"] != "MR":
        return first["modality"] + NOT_MR
    if kinds:
        return " ".join(sorted(kinds)).lower()
    if not first["colours"].startswith("MONOCHROME"):
        return f"in colours ({first['colours']})"
    placed = frames[["position", "orientation", "pixel_spacing"]].notna().any(axis=None)
    return "" if placed or first["sop_class"] in MR_IMAGES else "no position in space"


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
        Slices are missing, unevenly spaced, doubled with different content, tilted, of several sizes or
        orientations, or do not say where they lie.
    """
    _require_geometry(frames)
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
# Columns of a header, and what DICOM calls them.
GEOMETRY = {
    **{"position": "Image Position (Patient)", "orientation": "Image Orientation (Patient)"},
    **{"pixel_spacing": "Pixel Spacing", "rows": "Rows", "columns": "Columns"},
}


def _require_geometry(frames: pd.DataFrame) -> None:
    expected = "the position, the orientation and the edges of voxels of each slice"
    missing = frames[list(GEOMETRY)].isna() | (frames[list(GEOMETRY)] == 0)
    if missing.any(axis=None):
        names = ", ".join(GEOMETRY[column] for column in missing.columns[missing.any()])
        raise DicomError(f"{missing.any(axis=1).sum()} of {len(frames)} slices without {names}", expected, SPLIT)
    along_row, along_column = np.array(frames["orientation"].tolist()).reshape(-1, 2, 3).transpose(1, 0, 2)
    lengths = np.linalg.norm([along_row, along_column], axis=-1)
    if not (np.allclose(lengths, 1, atol=0.01) and np.allclose((along_row * along_column).sum(axis=1), 0, atol=0.01)):
        raise DicomError("rows and columns that are not perpendicular, or directions of length 0", expected, SPLIT)
    numbers = np.array(frames["position"].tolist()), np.array(frames["pixel_spacing"].tolist())
    if not (np.isfinite(numbers[0]).all() and np.isfinite(numbers[1]).all() and (numbers[1] > 0).all()):
        raise DicomError("voxels with an edge of 0 mm, or slices at no finite place", expected, SPLIT)
    if len(frames) == 1 and not frames["slice_mm"].iloc[0] > 0:
        raise DicomError("one slice that does not say how thick it is", expected, SPLIT)
    if (frames["colours"] != "MONOCHROME2").any():
        found = "grey values that run from white to black (MONOCHROME1)"
        raise DicomError(found, "grey values from black to white", "convert the series, or export another one")


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
        return normal * frames["slice_mm"].iloc[0]
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
        whole = np.array_equal(np.rint(volume), volume) and np.abs(volume).max(initial=0) < 2**31
        return volume.astype(np.int32 if whole else np.float32)
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
            pixels = header.pixel_array.reshape(-1, header.Rows, header.Columns)
    except Exception as error:  # of pydicom, numpy or ITK, by the kind of damage
        found = f"{name}: pixels that cannot be decoded ({type(error).__name__})"
        raise DicomError(found, "whole images", "export the series again, without compression") from error
    return _rescaled(pixels, header)


def _rescaled(pixels: np.ndarray, header: Dataset) -> np.ndarray:
    frames = header.get("PerFrameFunctionalGroupsSequence", None) or [Dataset()] * len(pixels)
    whole = first_of(header, "SharedFunctionalGroupsSequence")
    lines = []
    for frame in frames:
        parts = [header, *(first_of(part, "PixelValueTransformationSequence") for part in (frame, whole))]
        part = next((part for part in parts if part.get("RescaleSlope", None) is not None), Dataset())
        intercept = part.get("RescaleIntercept", None)
        lines.append((float(part.get("RescaleSlope", 1)), float(0 if intercept is None else intercept)))
    if all(line == (1.0, 0.0) for line in lines):
        return pixels
    slope, intercept = np.array(lines, dtype=np.float64).T[:, :, None, None]
    return pixels * slope + intercept
