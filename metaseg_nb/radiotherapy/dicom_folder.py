"""An export of a planning system: its series and structure sets, and which fit each other."""

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from metaseg_nb.cohort.problems import Problem
from metaseg_nb.cohort.sources.naming import is_volume
from metaseg_nb.radiotherapy.headers import files_below, is_dicom_file, read_headers, unreadable
from metaseg_nb.radiotherapy.identities import identity_problems, without_names
from metaseg_nb.radiotherapy.series import Series, series_of
from metaseg_nb.radiotherapy.structure_sets import StructureSet, read_structure_set

# Modalities of what comes with images and is none: segmentations, reports, display settings, documents, plans.
NO_IMAGES = ("SEG", "SR", "PR", "REG", "KO", "DOC", "PLAN", "RAW", "FID", "SMR", "AU", "ECG")


@dataclass(frozen=True)
class DicomFolder:
    """What lies below a folder: ``headers`` of all files, series, and structure sets as (patient, structure set).

    ``unread`` are files that cannot be read, as (patient or "-", problem).
    """

    headers: pd.DataFrame
    series: list[Series]
    sets: list[tuple[str, StructureSet]]
    unread: list[tuple[str, Problem]]

    @property
    def patients(self) -> list[str]:
        """Patient IDs, in order."""
        return sorted(set(self.headers.get("patient", [])))

    def problems(self, codes: dict[str, str]) -> list[tuple[str, Problem]]:
        """What is wrong with files and IDs, as (patient or "-", problem); it names patients by their codes."""
        return [*self.unread, *identity_problems(self.headers, codes)]


def is_dicom(folder: Path) -> bool:
    """Whether a folder holds DICOM files, and no NIfTI file: then it is a cohort to be imported."""
    try:
        files = list(files_below(folder)) if folder.is_dir() else []
        return not any(map(is_volume, files)) and any(is_dicom_file(path) for path in files if path.exists())
    except OSError:  # what cannot be opened is said by whoever reads the folder
        return False


def read_dicom(folder: Path) -> DicomFolder:
    """Read all headers and structure sets below a folder, sorted by their tags; no pixels."""
    headers, problems = read_headers(folder)
    unread, sets = [("-", problem) for problem in problems], []
    for row in headers[headers["modality"] == "RTSTRUCT"].itertuples():
        try:
            sets.append((row.patient, read_structure_set(row.file)))
        except Exception as error:  # pydicom has no error of its own for a damaged file
            told = unreadable(error, "a structure set")
            unread.append((row.patient, told.problem("-", row.place)))
    images = headers[~headers["modality"].str.startswith("RT") & ~headers["modality"].isin(NO_IMAGES)]
    groups = images.groupby(["patient", "study", "series"], sort=True) if len(images) else []
    return DicomFolder(headers, [series_of(frames) for _, frames in groups], sets, unread)


def fits(series: Series, structures: StructureSet) -> bool:
    """Whether contours lie in the space of a series: one frame of reference, or the series that they name."""
    return series.frame_of_reference in structures.frames_of_reference or series.uid in structures.series


def describe_dicom(dicom: DicomFolder) -> str:
    """Say what a folder holds, without names: patients by number, series, structure sets, names of regions."""
    codes = {patient: f"patient {number}" for number, patient in enumerate(dicom.patients, 1)}
    lines = [f"{len(dicom.patients)} patients, {len(dicom.series)} series, {len(dicom.sets)} structure sets"]
    for patient in dicom.patients:
        lines.append(f"\n{codes[patient]}")
        own = [series for series in dicom.series if series.patient == patient]
        lines += [f"  {_about(series)}" for series in own]
        for structures in (one for of, one in dicom.sets if of == patient):
            fitting = [one.description or "no description" for one in own if one.is_volume and fits(one, structures)]
            names = ", ".join(f"{region.name or 'no name'} ({len(region.contours)})" for region in structures.regions)
            lines.append(f"  structure set {structures.label or 'without label'}: {names}")
            lines.append(f"    fits: {', '.join(fitting) or 'no series of this patient that can be used'}")
    counts = Counter(name for _, structures in dicom.sets for name in {region.name for region in structures.regions})
    lines += ["", "regions of all structure sets (number of sets):"]
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    lines += [f"  {name or 'no name'} ({n})" for name, n in ordered]
    problems = [replace(problem, case=codes.get(patient, "-")) for patient, problem in dicom.problems(codes)]
    lines += ["", *(f"{problem.severity}: {problem}" for problem in problems)]
    return without_names(dicom.headers, codes)("\n".join(lines)).rstrip()


def described(series: Series) -> str:
    """Description, slices, and what tells series of one description apart; of the date, the year alone may be shown."""
    number = f"series {series.number}" if series.number else ""
    time = f"{series.time[:2]}:{series.time[2:4]}" if series.time else ""
    about = ", ".join(filter(None, [number, f"{len(series.frames)} slices", series.date[:4], time]))
    return f"{series.description or 'no description'} ({about})"


def _about(series: Series) -> str:
    about = f"{described(series)}: {'contrast agent' if series.contrast else 'no contrast agent named'}"
    if series.left_aside:
        about += f"; not used: {series.left_aside}"
    elif series.error:
        about += f"; cannot be used: {series.error}"
    else:
        edges = " x ".join(f"{edge:.2f}" for edge in series.spacing_mm)
        about += f", {' x '.join(map(str, series.shape))} voxels of {edges} mm"
    return "; ".join([about, *(mended.args[0] for mended in series.mended)])
