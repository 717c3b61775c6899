"""Synthetic patients through DICOM and back: the way that a patient of the clinic goes, checked voxel by voxel."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from nibabel.affines import apply_affine
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

from metaseg_nb.cohort.cases import Case, LesionRule
from metaseg_nb.cohort.volumes import read_lesions, read_mask, read_volume
from metaseg_nb.files import finished_folder
from metaseg_nb.layout import StudyLayout
from metaseg_nb.radiotherapy.contours import rasterise
from metaseg_nb.radiotherapy.examinations import Choice
from metaseg_nb.radiotherapy.exporting import lesion_regions, one_series
from metaseg_nb.radiotherapy.importing import LABEL, import_dicom
from metaseg_nb.radiotherapy.series import Series
from metaseg_nb.radiotherapy.structure_sets import read_structure_set, write_structure_set

# A brainstem of the synthetic head: centre and half axes in mm of the template's space.
BRAINSTEM, BRAINSTEM_AXES = (0, -28, -33), (13, 11, 24)


def round_trip(layout: StudyLayout, cases: Sequence[Case], rule: LesionRule, model: str) -> pd.DataFrame:
    """Write synthetic cases as DICOM, import them, and write their predictions as structure sets that are read again.

    Parameters
    ----------
    layout : StudyLayout
        Below ``radiotherapy/`` are written ``export/`` (series and structure sets), ``imported/`` and ``<model>/``.
    cases : sequence of Case
        With masks and folds.
    rule : LesionRule
    model : str
        Network whose predictions are written.

    Returns
    -------
    DataFrame
        A row per case: ``case``, ``slices``, ``regions`` (lesions in the structure set), ``different`` (voxels in which
        the imported mask and the reference differ), ``predicted`` (lesions), ``prediction_different`` (voxels in which
        the prediction and the structure set that was written of it differ).
    """
    export, imported, rows = layout.radiotherapy / "export", layout.radiotherapy / "imported", []
    references = {case.name: read_lesions(case, rule).array for case in cases}
    series = {case.name: _write_patient(export / case.name, case, references[case.name]) for case in cases}
    import_dicom(export, imported, Choice(), lambda kind, names: {name: name.split()[0] for name in names})
    for case in cases:
        reference, back = references[case.name], read_mask(imported / case.name / LABEL, case.name).array
        prediction = read_mask(layout.prediction_files(case.name, case.fold, [model])[model], case.name).array
        written, found = layout.radiotherapy / model / f"{case.name}.dcm", lesion_regions(prediction)
        if found:
            write_structure_set(written, found, series[case.name], model)
        again = _mask_of(written, series[case.name]) if found else np.zeros_like(prediction)
        row = {"case": case.name, "slices": reference.shape[2], "regions": len(lesion_regions(reference))}
        row |= {"different": int((reference != back).sum()), "predicted": len(found)}
        rows.append(row | {"prediction_different": int((prediction != again).sum())})
    return pd.DataFrame(rows)


def _write_patient(folder: Path, case: Case, mask: np.ndarray) -> Series:
    """Image and reference of a case as a planning system holds them; a synthetic brainstem beside the lesions.

    They are in RAS order, whatever the order of the file: columns, rows and slices of DICOM are right-handed.
    """
    image = read_volume(case.image, case.name)
    with finished_folder(folder) as unfinished:  # slices of an earlier version may be others
        write_series(unfinished, np.rint(image.array), image.affine, case.name)
    series = one_series(folder)
    regions = {name.replace("_auto", ""): region for name, region in lesion_regions(mask).items()}
    places = apply_affine(series.affine_ras, np.moveaxis(np.indices(series.shape), 0, -1))
    regions["Brainstem"] = (((places - BRAINSTEM) / BRAINSTEM_AXES) ** 2).sum(axis=-1) <= 1
    write_structure_set(folder / "structures.dcm", regions, series, "synthetic")
    return series


def _mask_of(path: Path, series: Series) -> np.ndarray:
    """All regions of a structure set as one mask on the grid of a series."""
    regions = read_structure_set(path).regions
    return np.any([rasterise(region.contours, series.shape, series.affine).mask for region in regions], axis=0)


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
    ras_to_lps = np.array([-1.0, -1.0, 1.0])
    columns = affine[:3, :3] * ras_to_lps[:, None]
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
        place = (affine @ [0, 0, k, 1])[:3] * ras_to_lps
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
