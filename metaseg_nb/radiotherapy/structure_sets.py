"""Structure sets (RTSTRUCT): read as contours by region, and written on the slices of a series."""

import datetime
import re
import warnings
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from importlib.metadata import version
from pathlib import Path
from unicodedata import normalize

import numpy as np
import pandas as pd
import pydicom
from highdicom import AlgorithmIdentificationSequence
from highdicom.seg import SegmentAlgorithmTypeValues, Segmentation, SegmentationTypeValues, SegmentDescription
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.uid import ImplicitVRLittleEndian, RTStructureSetStorage, generate_uid

from metaseg_nb.files import finished
from metaseg_nb.radiotherapy.contours import trace
from metaseg_nb.radiotherapy.headers import dicom_error, items_of, text_of
from metaseg_nb.radiotherapy.series import Series

# Lesions in turn, in colours that a planning system shows on grey.
ROI_COLOURS = [(255, 64, 64), (64, 200, 255), (255, 200, 0), (120, 255, 120), (255, 128, 255), (255, 140, 40)]
# How regions are called before their number: predicted by networks; drawn by a person in 08, or corrected there.
PREDICTED, BY_HAND, CORRECTED = "GTV_auto_", "GTV_hand_", "GTV_corr_"
RESEARCH_LABEL, NAME = "RESEARCH USE", "research use only: not for treatment"  # a label has at most 16 characters
# Elements that a structure set shares with the images it is drawn on.
SHARED = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyDate", "StudyTime"),
    *("StudyID", "AccessionNumber", "ReferringPhysicianName", "StudyDescription"),
)


@dataclass(frozen=True)
class Region:
    """A region of interest (ROI): its name, contours, each (points, 3) in LPS mm, and their frame of reference."""

    name: str
    contours: list[np.ndarray] = field(repr=False)
    frame_of_reference: str = ""

    @property
    def is_predicted(self) -> bool:
        """Whether this workbook drew it, by its name: then it is no reference."""
        return self.begins_with(PREDICTED)

    def begins_with(self, name: str) -> bool:
        """Whether its name begins so; capitals make no difference."""
        return self.name.strip().casefold().startswith(name.casefold())


@dataclass(frozen=True)
class StructureSet:
    """A structure set; it says in which frames of reference, and on which image series (UIDs), it was drawn."""

    file: Path
    label: str
    made: str
    frames_of_reference: frozenset[str]
    series: frozenset[str]
    regions: list[Region]


def read_structure_set(path: Path) -> StructureSet:
    """Read a structure set.

    Raises
    ------
    DicomError
        A contour is not a list of points in space, or belongs to no region; there is no region.
    """
    with warnings.catch_warnings(action="ignore"):  # values that the standard forbids and that do no harm here
        data = pydicom.dcmread(path, force=True)
        rois = items_of(data, "StructureSetROISequence")
        names = {int(roi.ROINumber): text_of(roi, "ROIName") for roi in rois}
        contours: dict[int, list[np.ndarray]] = {number: [] for number in names}
        unnamed = 0
        for roi in items_of(data, "ROIContourSequence"):
            drawn = [_points(one) for one in items_of(roi, "ContourSequence")]
            unnamed += len(drawn) if int(roi.ReferencedROINumber) not in names else 0
            contours.setdefault(int(roi.ReferencedROINumber), []).extend(drawn)
        if not names or "ROIContourSequence" not in data:
            raise dicom_error("whole regions", "a structure set without regions or contours, or cut off before them")
        if unnamed or len(names) < len(rois):
            found = "contours of which nobody can tell the region: its number is not there, or twice"
            raise dicom_error("whole regions", found)
        of_regions = {int(roi.ROINumber): text_of(roi, "ReferencedFrameOfReferenceUID") for roi in rois}
        regions = [Region(name, contours[number], of_regions[number]) for number, name in names.items()]
        references = items_of(data, "ReferencedFrameOfReferenceSequence")
        frames = {text_of(part, "FrameOfReferenceUID") for part in (data, *references)} | {*of_regions.values()}
        studies = [study for part in references for study in items_of(part, "RTReferencedStudySequence")]
        images = [one for study in studies for one in items_of(study, "RTReferencedSeriesSequence")]
        series = frozenset(text_of(one, "SeriesInstanceUID") for one in images) - {""}
        made = text_of(data, "StructureSetDate") + text_of(data, "StructureSetTime")
        made = made or text_of(data, "InstanceCreationDate") + text_of(data, "InstanceCreationTime")
    return StructureSet(path, text_of(data, "StructureSetLabel"), made, frozenset(frames - {""}), series, regions)


def _points(contour: Dataset) -> np.ndarray:
    raw = contour.get_item("ContourData")  # its bytes: pydicom makes an object of each number, ten times slower
    numbers = raw.value.split(b"\\") if raw is not None and raw.value else []
    try:
        values = np.array(numbers, dtype=np.float64)
    except ValueError:
        values = np.array([np.nan])
    if len(values) % 3 or not np.isfinite(values).all():
        raise dicom_error("points in space", f"a contour of {len(numbers)} values that are not three numbers a point")
    points = values.reshape(-1, 3)
    # the other closed type, CLOSEDPLANAR_XOR, is combined by the even-odd rule too
    return points if str(contour.get("ContourGeometricType", "CLOSED")).startswith("CLOSED") else points[:1]


def is_named(name: str, patterns: Iterable[str]) -> bool:
    """Whether a pattern with *, ? and [0-9] matches a name; capitals, and blanks around it, make no difference."""

    def plain(text: str) -> str:  # other brackets are letters; an accent may be a character of its own
        return re.sub(r"\[(?!0-9\])", "[[]", normalize("NFC", text).strip().casefold())

    return any(fnmatchcase(normalize("NFC", name).strip().casefold(), plain(pattern)) for pattern in patterns)


def chosen(regions: Iterable[Region], patterns: Iterable[str], without: Iterable[str]) -> list[Region]:
    """Regions whose name any of the patterns matches, and none of ``without``; predictions are never chosen."""
    own = [one for one in regions if not one.is_predicted]
    return [one for one in own if is_named(one.name, patterns) and not is_named(one.name, without)]


def write_structure_set(
    path: Path, regions: Mapping[str, np.ndarray], series: Series, model: str, reader: str = ""
) -> None:
    """Write masks as a structure set on the slices of a series, marked as for research only.

    Patient, study and frame of reference are those of the images. Each region has the type GTV and its own colour.

    Parameters
    ----------
    path : Path
        File to write.
    regions : mapping of str to (columns, rows, slices) bool array
        Mask by name; at most 64 characters a name.
    series : Series
        The images that the masks lie on.
    model : str
        What made the masks: a network, or the notebook in which a person drew them.
    reader : str
        Code of that person; "": a network alone.
    """
    first = _scan(series.frames["file"].iloc[0])
    now = datetime.datetime.now()
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = RTStructureSetStorage
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = generate_uid(prefix=None)
    data.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian  # explicit: no contour of more than 64 kB
    data.SpecificCharacterSet = first.get("SpecificCharacterSet", "ISO_IR 192")
    for name in SHARED:
        setattr(data, name, first.get(name, ""))
    data.Modality, data.Manufacturer, data.ManufacturerModelName = "RTSTRUCT", "metaseg_nb", model[:64]
    data.SeriesInstanceUID, data.SeriesNumber, data.OperatorsName = generate_uid(prefix=None), 1, ""
    data.SeriesDescription = NAME
    data.StructureSetLabel, data.StructureSetName = RESEARCH_LABEL, NAME
    data.InstanceCreationDate = data.StructureSetDate = now.strftime("%Y%m%d")
    data.InstanceCreationTime = data.StructureSetTime = now.strftime("%H%M%S")
    data.ApprovalStatus = "UNAPPROVED"
    data.FrameOfReferenceUID, data.PositionReferenceIndicator = series.frame_of_reference, ""
    images = [_image(series, k) for k in range(series.shape[2])]
    data.ReferencedFrameOfReferenceSequence = [_reference(series, images)]
    data.StructureSetROISequence, data.ROIContourSequence, data.RTROIObservationsSequence = [], [], []
    for number, (name, mask) in enumerate(regions.items(), 1):
        region, drawn, observed = Dataset(), Dataset(), Dataset()
        region.ROINumber = drawn.ReferencedROINumber = number
        observed.ObservationNumber = observed.ReferencedROINumber = number
        region.ReferencedFrameOfReferenceUID = series.frame_of_reference
        region.ROIName, region.ROIGenerationAlgorithm = name, "SEMIAUTOMATIC" if reader else "AUTOMATIC"
        region.ROIGenerationDescription = NAME
        drawn.ROIDisplayColor = list(ROI_COLOURS[(number - 1) % len(ROI_COLOURS)])
        drawn.ContourSequence = [_contour(images[k], points) for k, points in trace(mask, series.affine)]
        observed.RTROIInterpretedType, observed.ROIInterpreter = "GTV", reader and f"{reader}^"
        data.StructureSetROISequence.append(region)
        data.ROIContourSequence.append(drawn)
        data.RTROIObservationsSequence.append(observed)
    with finished(path) as temporary:
        data.save_as(temporary, enforce_file_format=True)


def is_own(path: Path, prefix: str) -> bool:
    """Tell whether a file is a structure set or a segmentation written here, whose regions begin with ``prefix``."""
    with suppress(Exception):  # of many kinds: any file may be there
        data = pydicom.dcmread(path, stop_before_pixels=True)
        names = [one.ROIName for one in data.get("StructureSetROISequence", [])]
        names += [one.SegmentLabel for one in data.get("SegmentSequence", [])]
        return data.SeriesDescription == NAME and all(name.startswith(prefix) for name in names)
    return False


def _scan(path: Path) -> Dataset:
    """The header of an image, without what is longer than DICOM allows: what is written shares its elements."""
    with warnings.catch_warnings(action="ignore"):
        data = pydicom.dcmread(path, stop_before_pixels=True, force=True)
    for name in ("StudyID", "AccessionNumber"):
        setattr(data, name, text_of(data, name)[:16])
    return data


def _image(series: Series, k: int) -> Dataset:
    row, image = series.frames.iloc[k], Dataset()
    image.ReferencedSOPClassUID, image.ReferencedSOPInstanceUID = row["sop_class"], row["uid"]
    if series.frames["uid"].duplicated().any():
        image.ReferencedFrameNumber = int(row["frame"]) + 1
    return image


def _reference(series: Series, images: list[Dataset]) -> Dataset:
    drawn_on, study, reference = Dataset(), Dataset(), Dataset()
    drawn_on.SeriesInstanceUID, drawn_on.ContourImageSequence = series.uid, images
    study.ReferencedSOPClassUID = "1.2.840.10008.3.1.2.3.1"  # detached study management, as the standard asks
    study.ReferencedSOPInstanceUID, study.RTReferencedSeriesSequence = series.study, [drawn_on]
    reference.FrameOfReferenceUID, reference.RTReferencedStudySequence = series.frame_of_reference, [study]
    return reference


def _contour(image: Dataset, points: np.ndarray) -> Dataset:
    contour = Dataset()
    contour.ContourImageSequence = [image]
    contour.ContourGeometricType, contour.NumberOfContourPoints = "CLOSED_PLANAR", len(points)
    contour.ContourData = [f"{value:.4f}" for value in points.ravel()]  # a number has at most 16 characters
    return contour


def write_segmentation(
    path: Path, regions: Mapping[str, np.ndarray], series: Series, model: str, reader: str = ""
) -> None:
    """Write masks as a DICOM segmentation (SEG), a segment each; parameters as of `write_structure_set`."""
    images = [_scan(file) for file in dict.fromkeys(series.frames["file"])]
    family = codes.DCM.ManualProcessing if reader else codes.DCM.ArtificialIntelligence
    algorithm = AlgorithmIdentificationSequence(model, family, version("metaseg_nb"))
    drawn = SegmentAlgorithmTypeValues.SEMIAUTOMATIC if reader else SegmentAlgorithmTypeValues.AUTOMATIC
    about = codes.SCT.MorphologicallyAbnormalStructure, codes.SCT.Neoplasm, drawn, algorithm
    segments = [
        SegmentDescription(number, name, *about, tracking_uid=generate_uid(prefix=None), tracking_id=name)
        for number, name in enumerate(regions, 1)
    ]
    # the frames of a file stand in any order
    starts = np.cumsum([0, *(int(image.get("NumberOfFrames") or 1) for image in images)])
    places = starts[pd.factorize(series.frames["file"])[0]] + series.frames["frame"].to_numpy()
    stacked = np.zeros((starts[-1], *series.shape[1::-1], len(regions)), np.uint8)
    stacked[places] = np.stack([mask.transpose(2, 1, 0) for mask in regions.values()], axis=-1)
    try:
        data = Segmentation(
            images,
            stacked,
            SegmentationTypeValues.BINARY,
            segments,
            series_instance_uid=generate_uid(prefix=None),
            series_number=1,
            sop_instance_uid=generate_uid(prefix=None),
            instance_number=1,
            manufacturer="metaseg_nb",
            manufacturer_model_name=model[:64],
            software_versions=version("metaseg_nb"),
            device_serial_number="0",
            content_label=RESEARCH_LABEL.replace(" ", "_"),
            content_description=NAME,
            content_creator_name=f"{reader}^" if reader else None,
            series_description=NAME,
        )
    except (TypeError, ValueError) as error:  # its words may hold what stands in the header
        found = f"images of which highdicom makes no segmentation ({type(error).__name__}), perhaps for their headers"
        fix = "write a structure set, without --seg"
        raise ValueError(f"found {found}; expected the forms of DICOM. What to do: {fix}.") from error
    with finished(path) as temporary:
        data.save_as(temporary, enforce_file_format=True)
