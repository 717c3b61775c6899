"""Cases of an export, written once as NIfTI, with codes instead of names: from there on a cohort like any other."""

import os
import zlib
from collections import defaultdict
from collections.abc import Callable, Collection
from dataclasses import replace
from datetime import date
from functools import partial
from hashlib import sha256
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd

from metaseg_nb.checksums import changed_files, checksum, read_record, write_record
from metaseg_nb.cohort.problems import CohortError, Problem, broken
from metaseg_nb.cohort.pseudonyms import give_codes
from metaseg_nb.cohort.sources.dates import date_in, days_since_first
from metaseg_nb.files import DamagedFile, finished_folder, write_json
from metaseg_nb.layout import PROJECT, StudyLayout
from metaseg_nb.machine import map_cases
from metaseg_nb.radiotherapy.dicom_folder import is_dicom, read_dicom, without_names
from metaseg_nb.radiotherapy.examinations import Choice, Codes, Planned, mask_of_case, organs_of_case, plan_cases
from metaseg_nb.radiotherapy.headers import DicomError
from metaseg_nb.radiotherapy.series import Series, read_pixels
from metaseg_nb.settings import Explore

RECORD, IMAGE, LABEL, ORGANS = "source.json", "image.nii.gz", "label.nii.gz", "organs.nii.gz"
# The rule by which image and mask were made; with another one it is made again.
VERSION = 5


def dicom_cohort(cohort: str) -> Path | None:
    """The folder that the parameter ``cohort`` means, if it holds DICOM files."""
    folder = PROJECT / os.path.expanduser(cohort.strip())
    return folder if cohort.strip() not in ("", "synthetic") and is_dicom(folder) else None


def import_cohort(folder: Path, layout: StudyLayout, settings: Explore) -> tuple[str, list[Problem], list[str]]:
    """Import the cohort of notebook 01 from a folder with DICOM files.

    Returns
    -------
    source : str
        Path of its datalist, without the cases of ``exclude``.
    problems : list of Problem
        What was noticed of the others.
    unknown : list of str
        Names in ``exclude`` that no case has.
    """
    choice = Choice(settings.series, settings.roi_names, settings.roi_names_without, settings.organ_names)

    def codes(kind: str, names: list[str]) -> dict[str, str]:
        return give_codes({kind: names}, layout.key)[kind]

    datalist, problems, unknown = import_dicom(
        folder, layout.imported, choice, codes, settings.workers, settings.exclude
    )
    return str(datalist), problems, unknown


def with_roi_names(lesions: pd.DataFrame, layout: StudyLayout) -> pd.DataFrame:
    """Add the column ``regions`` to lesions of imported cases: names of the regions of interest that each came from."""
    records = {case: whole_record(layout.imported / case / RECORD) for case in lesions["case"].unique()}
    regions = {case: record["regions"] if record else {} for case, record in records.items()}
    return lesions.assign(regions=[", ".join(regions[of.case].get(str(of.lesion), [])) for of in lesions.itertuples()])


def import_dicom(
    folder: Path, target: Path, choice: Choice, codes: Codes, workers: int = 1, exclude: Collection[str] = ()
) -> tuple[Path, list[Problem], list[str]]:
    """Write each examination of an export as a case: image, mask, and where they came from.

    Parameters
    ----------
    folder : Path
        With DICOM files anywhere below it; never changed.
    target : Path
        Folder for a folder per case, and the datalist. A case that is there whole, from the same files by the same
        choice, is not written again.
    choice : Choice
    codes : callable
        Codes of patients and cases by their names: ``codes(kind, names)``, with kind "patient" or "examination".
    workers : int
        Processes.
    exclude : collection of str
        Codes of cases to leave out, or of patients with all their cases.

    Returns
    -------
    datalist : Path
        ``dataset.json`` in ``target``.
    problems : list of Problem
        Everything that was noticed, by case code.
    unknown : list of str
        Names in ``exclude`` that no case has.

    Raises
    ------
    CohortError
        No case with a mask can be imported; with all problems.
    """
    dicom = read_dicom(folder)
    patients = codes("patient", dicom.patients)
    planned, problems, patient_of = plan_cases(dicom, choice, patients, codes)
    left_out = {case for case, patient in patient_of.items() if {case, patient} & {*exclude}}
    clean = without_names(dicom.headers, patients)
    planned = [_with_codes(case, clean) for case in planned if case.name not in left_out]
    done = map_cases(partial(_import_case, target=target, choice=choice), planned, workers, "importing")
    entries: dict[str, list[dict]] = {"training": [], "testing": []}
    days = _days_of(planned)
    for case, (entry, noticed) in zip(planned, done, strict=True):
        problems += noticed
        if entry is not None:
            entry = {"case": case.name, **entry, **days.get(case.name, {})}
            entries["training" if "label" in entry else "testing"].append(entry)
    problems = [replace(told, patient=patient_of.get(told.case, "")) for told in problems if told.case not in left_out]
    problems = [replace(told, file=clean(told.file), found=clean(told.found), fix=clean(told.fix)) for told in problems]
    if not entries["training"]:
        raise CohortError(problems or [broken("DICOM cohort", "-", folder.name, "no DICOM file of an MR series")])
    datalist = target / "dataset.json"
    write_json(datalist, {"name": target.parent.name, "description": "Imported from DICOM.", **entries})
    return datalist, problems, [name for name in exclude if name not in {*patient_of, *patient_of.values()}]


def _days_of(planned: Collection[Planned]) -> dict[str, dict[str, int]]:
    """Days from a patient's first examination to each; only they, and the year, are kept of dates."""
    dates: dict[str, dict[str, date | None]] = defaultdict(dict)
    for case in planned:
        dates[case.patient][case.name] = date_in(case.series.date)
    days = [days_since_first(of_patient) for of_patient in dates.values() if len(of_patient) > 1]
    return {name: {"day": day} for of_patient in days for name, day in of_patient.items() if day is not None}


def _with_codes(case: Planned, clean: Callable[[str], str]) -> Planned:
    """Put codes for the names of patients in all names that go into tables and records."""
    series = replace(case.series, description=clean(case.series.description))
    if case.structures is None:
        return replace(case, series=series)
    regions = [replace(region, name=clean(region.name)) for region in case.structures.regions]
    structures = replace(case.structures, label=clean(case.structures.label), regions=regions)
    return replace(case, series=series, structures=structures)


def _import_case(case: Planned, target: Path, choice: Choice) -> tuple[dict | None, list[Problem]]:
    """Write a case; its entry in the datalist (None if it has none), and what was noticed."""
    folder, source = target / case.name, _source(case, choice)
    written = whole_record(folder / RECORD)
    if written is None or not source.items() <= written.items():
        try:
            written = _write_case(case, folder, choice, source)
        except CohortError as error:
            return None, error.problems
    entry = {key: os.path.join(case.name, written[key]) for key in ("image", "label") if written[key]}
    entry |= {"patient": case.patient, "site": case.series.site, "scanner": case.series.scanner}
    entry |= {"date": case.series.date[:4]}
    problems = [Problem(**problem) for problem in written["problems"]]
    return {key: value for key, value in entry.items() if value}, problems


def _source(case: Planned, choice: Choice) -> dict:
    """What decides how a case is imported."""
    structures = checksum(case.structures.file) if case.structures else ""
    names = [list(choice.roi_names), list(choice.roi_names_without), list(choice.organ_names)]
    images = sha256("".join(map(checksum, dict.fromkeys(case.series.frames["file"]))).encode()).hexdigest()
    source = {"version": VERSION, "series": case.series.fingerprint, "images": images}
    return source | {"structure_set": structures, "roi_names": names}


def whole_record(path: Path) -> dict | None:
    """What an import wrote about a case; None if that, or one of the case's files, is not as it was written."""
    try:
        record = read_record(path)
    except (FileNotFoundError, DamagedFile):
        return None
    return None if changed_files(path, record) else record


def _write_case(case: Planned, folder: Path, choice: Choice, source: dict) -> dict:
    mask, regions, problems = mask_of_case(case, choice)
    bits, organs, noticed = organs_of_case(case, choice)
    problems += noticed
    try:
        images = {IMAGE: read_pixels(case.series.frames)}
    except DicomError as error:
        raise CohortError(error.problems(case.name, case.series.description) + problems) from error
    if mask is not None:
        images[LABEL] = mask.astype(np.uint8)
    if organs:
        images[ORGANS] = bits
    problems = [vars(problem) for problem in problems]
    files = {"image": IMAGE, "label": LABEL if mask is not None else ""}
    record = source | files | {"regions": regions, "organs": organs, "problems": problems}
    with finished_folder(folder) as unfinished:
        for name, array in images.items():
            save_image(unfinished / name, array, case.series)
        write_record(unfinished / RECORD, record, [unfinished / name for name in images])
    return record


def save_image(path: Path, array: np.ndarray, series: Series) -> None:
    """Write an array (columns, rows, slices) on the grid of a series as NIfTI."""
    if array.dtype == np.uint16 and array.max(initial=0) < 2**15:
        array = array.astype(np.int16)  # uint16 is no type that every reader of NIfTI knows
    image = nib.Nifti1Image(array, series.affine_ras)
    image.set_sform(series.affine_ras, code=1)
    image.set_qform(series.affine_ras, code=1)
    # looking for runs of equal bytes alone takes less than half the time of gzip's lowest level, and an image is no
    # larger; 31: with gzip's header, without a date: the same image is the same file
    packed = zlib.compressobj(1, zlib.DEFLATED, 31, zlib.DEF_MEM_LEVEL, zlib.Z_RLE)
    path.write_bytes(packed.compress(image.to_bytes()) + packed.flush())
