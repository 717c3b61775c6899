"""An export of a planning system: its series and structure sets, and which fit each other."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from metaseg_nb.cohort.problems import Problem
from metaseg_nb.cohort.sources.naming import is_volume
from metaseg_nb.radiotherapy.series import DicomError, Series, as_volume, is_dicom_file, no_scan, read_headers
from metaseg_nb.radiotherapy.structure_sets import StructureSet, read_structure_set


@dataclass(frozen=True)
class Found:
    """A series as it was found: a volume, or the reason why it is none.

    ``left_aside`` says why it is no scan ("" if it is one); ``error`` what is wrong with its slices.
    """

    patient: str
    study: str
    description: str
    images: int
    contrast: bool
    left_aside: str = ""
    volume: Series | None = None
    error: DicomError | None = None
    mended: list[DicomError] = field(default_factory=list)


@dataclass(frozen=True)
class DicomFolder:
    """What lies below a folder; ``sets`` are (patient, structure set), ``problems`` files that cannot be read."""

    series: list[Found]
    sets: list[tuple[str, StructureSet]]
    problems: list[Problem]

    @property
    def patients(self) -> list[str]:
        """Patient IDs, in order."""
        return sorted({found.patient for found in self.series} | {patient for patient, _ in self.sets})


def is_dicom(folder: Path) -> bool:
    """Whether a folder holds DICOM files, and no NIfTI file: then it is a cohort to be imported."""
    try:
        files = [path for path in folder.rglob("*") if path.is_file()] if folder.is_dir() else []
        return not any(map(is_volume, files)) and any(map(is_dicom_file, files))
    except OSError:  # what cannot be opened is said by whoever reads the folder
        return False


def read_dicom(folder: Path) -> DicomFolder:
    """Read all headers and structure sets below a folder, sorted by their tags; no pixels."""
    headers, problems = read_headers(folder)
    sets = []
    for row in headers[headers["modality"] == "RTSTRUCT"].itertuples():
        try:
            sets.append((row.patient, read_structure_set(row.file)))
        except DicomError as error:
            problems.append(error.problem("-", row.file.name))
        except Exception as error:  # pydicom has no error of its own for a damaged file
            found = f"a structure set that cannot be read ({type(error).__name__}: {error})"
            problems.append(Problem("-", row.file.name, found, "a whole structure set", "export it again"))
    images = headers[~headers["modality"].str.startswith("RT") & ~headers["modality"].isin(["SEG", "SR", "PR", "REG"])]
    groups = images.groupby(["patient", "study", "series"], sort=True) if len(images) else []
    return DicomFolder([_found(frames) for _, frames in groups], sets, problems)


def _found(frames: pd.DataFrame) -> Found:
    first = frames.iloc[0]
    about = (first["patient"], first["study"], first["description"], len(frames), bool(frames["contrast"].any()))
    if reason := no_scan(frames):
        return Found(*about, left_aside=reason)
    try:
        volume, mended = as_volume(frames)
    except DicomError as error:
        return Found(*about, error=error)
    return Found(*about, volume=volume, mended=mended)


def fits(series: Series, structures: StructureSet) -> bool:
    """Whether contours lie in the space of a series: one frame of reference, or the series that they name."""
    same_frame = bool(series.frame_of_reference) and series.frame_of_reference == structures.frame_of_reference
    return same_frame or series.uid in structures.series


def describe_dicom(dicom: DicomFolder) -> str:
    """Say what a folder holds, without names: patients by number, series, structure sets, names of regions."""
    code_of = {patient: f"patient {number}" for number, patient in enumerate(dicom.patients, 1)}
    lines = [f"{len(dicom.patients)} patients, {len(dicom.series)} series, {len(dicom.sets)} structure sets"]
    for patient in dicom.patients:
        lines.append(f"\n{code_of[patient]}")
        own = [found for found in dicom.series if found.patient == patient]
        lines += [f"  series {_series(found)}" for found in own]
        for structures in (one for of, one in dicom.sets if of == patient):
            fitting = [f.description or "no description" for f in own if f.volume and fits(f.volume, structures)]
            names = ", ".join(f"{region.name} ({len(region.contours)})" for region in structures.regions)
            lines.append(f"  structure set {structures.label or 'without label'}: {names or 'no regions'}")
            lines.append(f"    fits: {', '.join(fitting) or 'no series of this patient'}")
    counts = Counter(name for _, structures in dicom.sets for name in {region.name for region in structures.regions})
    lines += ["", "regions of all structure sets (number of sets):"]
    lines += [f"  {name} ({count})" for name, count in counts.most_common()]
    return "\n".join([*lines, *_problems(dicom.problems)])


def _series(found: Found) -> str:
    contrast = "contrast agent" if found.contrast else "no contrast agent named"
    about = f"{found.description or 'no description'}: {found.images} slices, {contrast}"
    if found.volume is not None:
        shape, spacing = found.volume.shape, found.volume.spacing_mm
        about += f", {' x '.join(map(str, shape))} voxels of {' x '.join(f'{edge:.2f}' for edge in spacing)} mm"
    elif found.left_aside:
        about += f"; not used: {found.left_aside}"
    else:
        about += f"; cannot be used: {found.error}"
    return "; ".join([about, *(mended.found for mended in found.mended)])


def _problems(problems: Iterable[Problem]) -> list[str]:
    return [f"\nfile {Path(problem.file).name}: {problem.found}" for problem in problems]
