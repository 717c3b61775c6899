"""An export of a planning system: its series and structure sets, which fit each other, and who is who.

One patient has one Patient ID, and what leaves an export names nobody.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from metaseg_nb.cohort.problems import Problem, broken, shortened
from metaseg_nb.cohort.pseudonyms import with_parts
from metaseg_nb.cohort.sources.naming import is_volume
from metaseg_nb.privacy import cleaned_of
from metaseg_nb.radiotherapy.headers import files_below, is_dicom_file, read_headers, unreadable_dicom
from metaseg_nb.radiotherapy.series import Series, series_of
from metaseg_nb.radiotherapy.structure_sets import StructureSet, read_structure_set

# Modalities of what comes with images and is none: segmentations, reports, display settings, documents, plans.
NO_IMAGES = ("SEG", "SR", "PR", "REG", "KO", "DOC", "PLAN", "RAW", "FID", "SMR", "AU", "ECG")
# IDs that share a name and a date of birth: more than these share what stands for any name.
ONE_PERSON = 3


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
            told = unreadable_dicom(error, "a structure set").problems("-", row.place)
            unread += [(row.patient, problem) for problem in told]
    images = headers[~headers["modality"].str.startswith("RT") & ~headers["modality"].isin(NO_IMAGES)]
    groups = images.groupby(["patient", "study", "series"], sort=True) if len(images) else []
    return DicomFolder(headers, [series_of(frames) for _, frames in groups], sets, unread)


def identity_problems(headers: pd.DataFrame, codes: Mapping[str, str]) -> list[tuple[str, Problem]]:
    """What speaks against one ID for each patient, as (Patient ID, problem).

    A study or image under several IDs is an error, and so are files without ID. Several IDs that may mean one person
    are a doubt: they differ in spelling only, or share name and date of birth. One ID with several
    dates of birth is a doubt too.

    Parameters
    ----------
    headers : DataFrame
        See `read_headers`.
    codes : mapping of str to str
        Code of each patient by ID.
    """
    if headers.empty:
        return []
    named = headers[headers["patient"] != ""]
    persons = named[(named["person"] != "") & (named["born"] != "")]
    plain = named["patient"].str.lower().str.replace(r"[\W_]", "", regex=True).str.lstrip("0")
    same = _shared(named, named["study"]) | _shared(named, named["uid"])
    alike = _shared(persons, persons["person"].str.lower() + " " + persons["born"])
    alike = {ids for ids in alike if len(ids) <= ONE_PERSON} | _shared(named, plain)
    births = persons.groupby("patient")["born"].nunique()
    nameless = headers.loc[headers["patient"] == "", "file"].nunique()
    doubt = "Patient IDs that may mean one person (spelling, or name and date of birth)"
    found = [("one ID", [""], f"{nameless} files without Patient ID")] if nameless else []
    found += [("one ID", ids, f"images or studies of one UID under Patient IDs {_codes(ids, codes)}") for ids in same]
    found += [("one person", ids, f"{doubt}: {_codes(ids, codes)}") for ids in alike - same]
    several = births[births > 1].items()
    found += [("one person", [of], f"{n} dates of birth under one Patient ID: {codes[of]}") for of, n in several]
    return [(of, broken(rule, "-", "-", words)) for rule, ids, words in found for of in sorted(ids)]


def _codes(ids: Iterable[str], codes: Mapping[str, str]) -> str:
    return shortened(sorted(codes[name] for name in ids))


def _shared(headers: pd.DataFrame, values: pd.Series) -> set[frozenset[str]]:
    """IDs that share a value."""
    pairs = pd.DataFrame({"value": values, "patient": headers["patient"]}).drop_duplicates()
    several = pairs[pairs.duplicated("value", keep=False)]
    return {frozenset(ids) for _, ids in several.groupby("value")["patient"]}


def without_names(headers: pd.DataFrame, codes: Mapping[str, str]) -> Callable[[str], str]:
    """Make the function that puts codes for IDs and names of patients, which descriptions and file names may hold."""
    named = dict(codes)
    for person, patient in zip(headers.get("person", []), headers.get("patient", []), strict=True):
        named.setdefault(person, codes[patient])
    return cleaned_of(with_parts({name: code for name, code in named.items() if name}, []), [], {})


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
    return "; ".join([about, *(mended.found for mended in series.mended)])
