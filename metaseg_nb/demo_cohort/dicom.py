"""Synthetic patients as a scanner would send them: an MR series as DICOM files."""

from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

RAS_TO_LPS = np.array([-1.0, -1.0, 1.0])


def write_series(folder: Path, array: np.ndarray, affine: np.ndarray, patient: str, **tags: str) -> None:
    """Write an image as an MR series, a file a slice.

    The same arguments give the same UIDs.

    Parameters
    ----------
    folder : Path
        Of the files.
    array : (columns, rows, slices) array
        Written as 16-bit whole numbers.
    affine : (4, 4) array
        From column, row and slice to RAS mm; its axes are perpendicular.
    patient : str
        Patient ID.
    **tags : str
        Elements by keyword instead of the usual ones, such as ``SeriesDescription``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    columns = affine[:3, :3] * RAS_TO_LPS[:, None]
    spacing = np.linalg.norm(columns, axis=0)
    directions = columns / spacing
    study, series, frame = (
        generate_uid(entropy_srcs=[patient, kind]) for kind in ("study", "series", "frame of reference")
    )
    for k in range(array.shape[2]):
        data = Dataset()
        data.file_meta = FileMetaDataset()
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data.SpecificCharacterSet = "ISO_IR 192"
        data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = MRImageStorage
        data.Modality, data.Manufacturer, data.ManufacturerModelName = "MR", "synthetic", "synthetic"
        data.PatientID, data.PatientName, data.PatientBirthDate, data.PatientSex = patient, patient, "", ""
        data.StudyInstanceUID, data.SeriesInstanceUID, data.FrameOfReferenceUID = study, series, frame
        data.StudyDate, data.StudyTime, data.StudyID, data.AccessionNumber = "20200101", "000000", "1", ""
        data.ReferringPhysicianName, data.PositionReferenceIndicator, data.SeriesNumber = "", "", 1
        data.SeriesDescription, data.ContrastBolusAgent = "t1 contrast (synthetic)", "synthetic"
        data.ImageType = ["ORIGINAL", "PRIMARY", "OTHER"]
        data.ScanningSequence, data.SequenceVariant, data.ScanOptions, data.MRAcquisitionType = "GR", "NONE", "", "3D"
        data.EchoTime, data.RepetitionTime, data.EchoTrainLength = 3, 2000, 1
        data.PatientPosition, data.BodyPartExamined = "HFS", "HEAD"
        data.SliceThickness = f"{spacing[2]:.6f}"
        data.InstanceNumber = k + 1
        data.ImageOrientationPatient = [f"{value:.10f}"[:16] for value in directions[:, :2].T.ravel()]
        place = (affine @ [0, 0, k, 1])[:3] * RAS_TO_LPS
        data.ImagePositionPatient = [f"{value:.6f}" for value in place]
        data.PixelSpacing = [f"{spacing[1]:.8f}", f"{spacing[0]:.8f}"]
        data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
        data.Columns, data.Rows = array.shape[:2]
        data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 1
        data.PixelData = np.ascontiguousarray(array[:, :, k].T).astype("<i2").tobytes()
        for name, value in tags.items():
            setattr(data, name, value)
        uid = generate_uid(entropy_srcs=[data.SeriesInstanceUID, str(k)])
        data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = uid
        data.save_as(folder / f"{k:04d}.dcm", enforce_file_format=True)
