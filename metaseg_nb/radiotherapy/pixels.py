"""Voxels of DICOM files, as numbers in the order of NIfTI."""

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import SimpleITK as sitk
from pydicom.dataset import Dataset
from pydicom.pixels import pixel_array
from pydicom.uid import ImplicitVRLittleEndian

from metaseg_nb.radiotherapy.headers import DicomError, first_of, items_of


def read_pixels(frames: pd.DataFrame) -> np.ndarray:
    """Read the voxels of a series, (columns, rows, slices); whole numbers stay so, others are float32.

    Parameters
    ----------
    frames : DataFrame
        `Series.frames`, of a volume.

    Raises
    ------
    DicomError
        The pixels of a file cannot be decoded.
    """
    read: dict[Path, np.ndarray] = {}
    slices = []
    for number, row in enumerate(frames.itertuples(), 1):
        if row.file not in read:  # a multi-frame file is read once; others are let go
            read = {row.file: file_pixels(row.file, f"slice {number} of {len(frames)}, file {row.place}")}
        slices.append(read[row.file][row.frame])
    volume = np.stack(slices).T  # the first axis is the fastest in memory, as in a NIfTI file
    if np.issubdtype(volume.dtype, np.floating):
        whole = np.array_equal(np.rint(volume), volume) and np.abs(volume).max(initial=0) < 2**31
        return volume.astype(np.int32 if whole else np.float32)
    return volume


def file_pixels(path: Path, name: str) -> np.ndarray:
    """All frames of a file, (frames, rows, columns), after its rescale slope and intercept.

    An error calls it by ``name``.
    """
    fix = "copy the file again from the export, or export the series again"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            header = pydicom.dcmread(path, force=True)
            if "TransferSyntaxUID" not in header.file_meta:
                header.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
            if header.file_meta.TransferSyntaxUID.is_compressed:  # ITK's GDCM knows all of JPEG, and rescales itself
                fix += ", without compression"
                return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
            pixels = pixel_array(header).reshape(-1, header.Rows, header.Columns)
    except Exception as error:  # of pydicom, numpy or ITK, by the kind of damage
        found = f"{name}: pixels that cannot be decoded ({type(error).__name__})"
        raise DicomError(found, "whole images", fix) from error
    return _rescaled(pixels, header)


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
