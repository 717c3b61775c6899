"""Cases of an export, written once as NIfTI, with codes instead of names: from there on a cohort like any other."""

import gzip
import json
import os
from functools import partial
from hashlib import sha256
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd

from metaseg_nb.cohort.lesions import label_lesions
from metaseg_nb.cohort.problems import CohortError, Problem, shortened
from metaseg_nb.cohort.pseudonyms import give_codes
from metaseg_nb.files import finished_folder, write_json
from metaseg_nb.layout import PROJECT, StudyLayout
from metaseg_nb.parallel import map_cases
from metaseg_nb.radiotherapy.contours import Rasterised, plane_distance, rasterise
from metaseg_nb.radiotherapy.dicom_folder import is_dicom, read_dicom
from metaseg_nb.radiotherapy.planning import Choice, Codes, Planned, plan_cases
from metaseg_nb.radiotherapy.series import DicomError, Series, read_pixels
from metaseg_nb.radiotherapy.structure_sets import chosen
from metaseg_nb.settings import Explore

RECORD, ORGANS = "source.json", "organs.nii.gz"
_RAS = nib.orientations.axcodes2ornt("RAS")
# The rule by which a mask was made; with another one it is made again.
VERSION = 2
# Share of a slice that contours may lie beside it before this is worth a note.
OFF_SLICE = 0.02


def dicom_cohort(cohort: str) -> Path | None:
    """The folder that the parameter ``cohort`` means, if it holds DICOM files."""
    folder = PROJECT / os.path.expanduser(cohort.strip())
    return folder if cohort.strip() not in ("", "synthetic") and is_dicom(folder) else None


def import_cohort(layout: StudyLayout, settings: Explore) -> tuple[str, list[Problem]]:
    """Import the cohort of notebook 01 from DICOM files: path of its datalist, and what was noticed."""
    choice = Choice(
        settings.series, tuple(settings.roi_names), tuple(settings.roi_names_without), tuple(settings.organ_names)
    )
    folder = dicom_cohort(settings.cohort)
    assert folder is not None

    def codes(kind: str, names: list[str]) -> dict[str, str]:
        return give_codes({kind: names}, layout.key)[kind]

    datalist, problems = import_dicom(folder, layout.imported, choice, codes, settings.workers)
    return str(datalist), problems


def with_roi_names(lesions: pd.DataFrame, layout: StudyLayout) -> pd.DataFrame:
    """Add the column ``regions`` to lesions of imported cases: names of the regions of interest that each came from."""
    records = {case: _read_record(layout.imported / case / RECORD) for case in lesions["case"].unique()}
    named = [
        ", ".join((records[row.case] or {}).get("regions", {}).get(str(row.lesion), [])) for row in lesions.itertuples()
    ]
    return lesions.assign(regions=named)


def import_dicom(
    folder: Path, target: Path, choice: Choice, codes: Codes, workers: int = 1
) -> tuple[Path, list[Problem]]:
    """Write each examination of an export as a case: image, mask, and where they came from.

    Parameters
    ----------
    folder : Path
        With DICOM files anywhere below it; never changed.
    target : Path
        Folder for a folder per case, and the datalist. A case that is there, from the same files by the same choice,
        is not written again.
    choice : Choice
    codes : callable
        Codes of patients and cases by their names: ``codes(kind, names)``, with kind "patient" or "examination".
    workers : int
        Processes.

    Returns
    -------
    datalist : Path
        ``dataset.json`` in ``target``.
    problems : list of Problem
        Everything that was noticed, by case code.

    Raises
    ------
    CohortError
        No case can be imported; with all problems.
    """
    dicom = read_dicom(folder)
    patients = codes("patient", dicom.patients)
    planned, problems = plan_cases(dicom, choice, patients, codes)
    problems = [*dicom.problems, *problems]
    done = map_cases(partial(_import_case, target=target, choice=choice), planned, workers, "importing")
    entries: dict[str, list[dict]] = {"training": [], "testing": []}
    for case, (entry, noticed) in zip(planned, done, strict=True):
        problems += noticed
        if entry is not None:
            entries["training" if "label" in entry else "testing"].append({"case": case.name, **entry})
    if not any(entries.values()):
        raise CohortError(problems or [_nothing(folder)])
    datalist = target / "dataset.json"
    write_json(datalist, {"name": target.parent.name, "description": "Imported from DICOM.", **entries})
    return datalist, problems


def _nothing(folder: Path) -> Problem:
    return Problem(
        "-", folder.name, "no DICOM file of an MR series", "MR series and structure sets", "correct `cohort`"
    )


def _import_case(case: Planned, target: Path, choice: Choice) -> tuple[dict | None, list[Problem]]:
    """Write a case; its entry in the datalist (None if it has none), and what was noticed."""
    folder = target / case.name
    record = _record(case, choice)
    written = _read_record(folder / RECORD)
    if written is None or any(written[key] != value for key, value in record.items()):
        try:
            written = record | _write_case(case, folder, choice, record)
        except DicomError as error:
            return None, [error.problem(case.name, case.series.description)]
    entry = {key: os.path.join(case.name, written[key]) for key in ("image", "label") if written[key]}
    entry |= {"patient": case.patient, "scanner": case.series.scanner, "date": case.date}
    problems = [Problem(**problem) for problem in written["problems"]]
    return {key: value for key, value in entry.items() if value}, problems


def _record(case: Planned, choice: Choice) -> dict:
    """What decides how a case is imported."""
    structures = sha256(case.structures.file.read_bytes()).hexdigest() if case.structures else ""
    names = [list(choice.roi_names), list(choice.roi_names_without), list(choice.organ_names)]
    return {"version": VERSION, "series": case.series.fingerprint, "structure_set": structures, "roi_names": names}


def _read_record(path: Path) -> dict | None:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _write_case(case: Planned, folder: Path, choice: Choice, record: dict) -> dict:
    series, problems = case.series, []
    pixels = read_pixels(series)
    with finished_folder(folder) as unfinished:
        save_image(unfinished / "image.nii.gz", pixels, series)
        label, regions, organs = "", {}, []
        if case.structures:
            mask, regions, problems = _masks(case, choice)
            if mask is not None:
                label = "label.nii.gz"
                save_image(unfinished / label, mask.astype(np.uint8), series)
            numbers, organs = _organs(case, choice)
            if organs:
                save_image(unfinished / ORGANS, numbers, series)
        else:
            fix = "nothing, if it is only to be predicted"
            wanted = "a structure set in its frame of reference"
            problems.append(Problem(case.name, series.description, "no structure set", wanted, fix, "warning"))
        more = {"image": "image.nii.gz", "label": label, "regions": regions, "organs": organs}
        more["problems"] = [vars(problem) for problem in problems]
        write_json(unfinished / RECORD, record | more)
    return more


def save_image(path: Path, array: np.ndarray, series: Series) -> None:
    """Write an array (columns, rows, slices) on the grid of a series as NIfTI."""
    if array.dtype == np.uint16 and array.max(initial=0) < 2**15:
        array = array.astype(np.int16)  # uint16 is no type that every reader of NIfTI knows
    image = nib.Nifti1Image(array, series.affine_ras)
    image.set_sform(series.affine_ras, code=1)
    image.set_qform(series.affine_ras, code=1)
    with gzip.open(path, "wb", compresslevel=1) as file:  # a third of the time of the usual level
        file.write(image.to_bytes())


def _masks(case: Planned, choice: Choice) -> tuple[np.ndarray | None, dict[str, list[str]], list[Problem]]:
    """One mask of all chosen regions; the names of the regions of each lesion; and what was noticed."""
    assert case.structures is not None
    patterns, without = list(choice.roi_names), list(choice.roi_names_without)
    names = [region.name for region in case.structures.regions]
    wanted = chosen(names, patterns, without)
    regions = [region for region in case.structures.regions if region.name in wanted]  # a name may be there twice
    if not regions:
        found = f"regions {shortened(names)}" if names else "no regions"
        expected = f"regions named like {', '.join(patterns)}, and not like {', '.join(without)}"
        fix = "correct `roi_names` or `roi_names_without`"
        return None, {}, [Problem(case.name, case.structures.label, found, expected, fix, "warning")]
    every = 1.0
    if case.series.uid not in case.structures.series:  # drawn on other images, whose slices may be further apart
        contours = [one for region in case.structures.regions for one in region.contours]
        every = plane_distance(contours, case.series.affine)
    made = [(region, rasterise(region.contours, case.series.shape, case.series.affine, every)) for region in regions]
    problems = [one for region, mask in made for one in _noticed(case, region.name, len(region.contours), mask)]
    if every > 1:
        slice_mm = case.series.spacing_mm[2]
        found = f"contours every {every * slice_mm:.2f} mm, on slices every {slice_mm:.2f} mm"
        fix = "look at the case: each slice took the nearest contour"
        problems.append(Problem(case.name, case.structures.label, found, "contours on every slice", fix, "warning"))
    whole = np.any([one.mask for _, one in made], axis=0)
    ras = nib.orientations.io_orientation(case.series.affine_ras)  # lesions are numbered as notebook 01 reads them
    labels, n = label_lesions(nib.orientations.apply_orientation(whole, ras))
    labels = nib.orientations.apply_orientation(labels, nib.orientations.ornt_transform(_RAS, ras))
    inside = [(region.name, set(np.unique(labels[one.mask]))) for region, one in made]
    return whole, {str(k): [name for name, lesions in inside if k in lesions] for k in range(1, n + 1)}, problems


def _organs(case: Planned, choice: Choice) -> tuple[np.ndarray, list[str]]:
    """Organs at risk by number, from 1 in the order of their names; where two overlap the later one counts."""
    assert case.structures is not None
    wanted = chosen(
        [region.name for region in case.structures.regions], list(choice.organ_names), list(choice.roi_names_without)
    )
    regions = [region for region in case.structures.regions if region.name in wanted and region.contours]
    numbers = np.zeros(case.series.shape, np.uint8)
    for number, region in enumerate(regions, 1):
        numbers[rasterise(region.contours, case.series.shape, case.series.affine).mask] = number
    return numbers, [region.name for region in regions]


def _noticed(case: Planned, name: str, n: int, made: Rasterised) -> list[Problem]:
    """Problems of one region's contours."""
    counts, slice_mm = made.counts, case.series.spacing_mm[2]
    lost = n and not made.mask.any() and not counts["outside"] and not counts["across"]
    every, look = f"contours on slices every {slice_mm:.2f} mm", "look at the case"
    rows = [
        (not n, "no contours", "closed contours", "nothing, if the region is not used", "note"),
        (
            counts["points"],
            f"{counts['points']} contours of one or two points",
            "contours of three or more points",
            "nothing, if they are marks",
            "warning",
        ),
        (
            counts["copies"],
            f"{counts['copies']} contours that are there twice",
            "each contour once",
            "nothing: each was used once",
            "note",
        ),
        (
            counts["across"],
            f"{counts['across']} contours across the slices",
            "contours in the planes of the slices",
            "name the series that they were drawn on by `series`",
            "error",
        ),
        (
            counts["outside"],
            f"{counts['outside']} contours above or below the image",
            every,
            "export the whole series, or another one",
            "error",
        ),
        (made.cut, f"{made.cut} contours beyond the edge of the image", "contours within the image", look, "warning"),
        (
            made.off_slice_mm > OFF_SLICE * slice_mm,
            f"contours up to {made.off_slice_mm:.2f} mm beside their slice",
            every,
            f"{look}: each contour was drawn on the nearest slice",
            "note",
        ),
        (lost, "contours around no centre of a voxel", "a region of at least one voxel", look, "warning"),
    ]
    return [Problem(case.name, name, *row) for there, *row in rows if there]
