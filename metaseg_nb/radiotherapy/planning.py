"""Which series and which structure set make a case: one of each for an examination of a patient."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from metaseg_nb.cohort.problems import Problem, shortened
from metaseg_nb.radiotherapy.dicom_folder import DicomFolder, Found, fits
from metaseg_nb.radiotherapy.series import Series
from metaseg_nb.radiotherapy.structure_sets import StructureSet

# Codes of patients ("patient") or examinations ("examination") by their names.
Codes = Callable[[str, list[str]], dict[str, str]]


@dataclass(frozen=True)
class Choice:
    """What is taken of an export: series by description, regions by name; with * and ?, capitals or not."""

    series: str = "*"
    roi_names: tuple[str, ...] = ("*GTV*", "TV", "*met*")
    roi_names_without: tuple[str, ...] = ("*PTV*", "*CTV*", "* mm*", "*+*", "*PRV*")
    organ_names: tuple[str, ...] = ("*stem*", "*chiasm*", "*optic*", "*cochlea*")


@dataclass(frozen=True)
class Planned:
    """One examination of a patient: the series, its structure set if there is one, and the case's code."""

    name: str
    patient: str
    series: Series
    structures: StructureSet | None

    @property
    def date(self) -> str:
        """Year of the examination, or ""."""
        return self.series.date[:4]


def plan_cases(
    dicom: DicomFolder, choice: Choice, patients: dict[str, str], codes: Codes
) -> tuple[list[Planned], list[Problem]]:
    """Choose one series and one structure set for each examination."""
    examinations: dict[tuple[str, str], list[Found]] = {}
    for found in dicom.series:
        examinations.setdefault((found.patient, found.study), []).append(found)
    case_codes = codes("examination", sorted(" ".join(key) for key in examinations))
    planned, problems = [], []
    for key, series in examinations.items():
        name, patient = case_codes[" ".join(key)], patients[key[0]]
        sets = [structures for of, structures in dicom.sets if of == key[0]]
        case, noticed = _plan_case(name, patient, series, sets, choice)
        problems += noticed
        planned += [case] if case else []
    used = {case.structures.file for case in planned if case.structures}
    damaged = {found.patient for found in dicom.series if found.error}  # whose sets may fit what cannot be used
    for of, structures in dicom.sets:
        if structures.file not in used and of not in damaged and not _any_fits(dicom, structures):
            found = f"structure set {structures.label!r} that fits no MR series"
            fix = "export the series it was drawn on, or leave the structure set out"
            problems.append(Problem(patients[of], structures.label, found, "a series in its frame of reference", fix))
    return planned, problems


def _any_fits(dicom: DicomFolder, structures: StructureSet) -> bool:
    return any(found.volume is not None and fits(found.volume, structures) for found in dicom.series)


def _plan_case(
    name: str, patient: str, series: Sequence[Found], sets: Sequence[StructureSet], choice: Choice
) -> tuple[Planned | None, list[Problem]]:
    problems = []
    scans = [found for found in series if not found.left_aside]
    wanted = [found for found in scans if fnmatchcase(found.description.lower(), choice.series.lower())]
    if not wanted:
        there = shortened(f"{found.description or 'no description'}" for found in scans) or "no MR series"
        fix = "correct `series`, or export the contrast-enhanced T1"
        expected = f"a series whose description is like {choice.series!r}"
        return None, [Problem(name, "-", there, expected, fix, "error" if scans else "warning")]
    for found in wanted:
        problems += [found.error.problem(name, found.description)] if found.error else []
        problems += [mended.problem(name, found.description, "note") for mended in found.mended]
    volumes = [found.volume for found in wanted if found.volume is not None]
    if not volumes:
        return None, problems
    if any(found.error and found.contrast for found in wanted) and not any(one.contrast for one in volumes):
        return None, problems  # another series is no substitute for a damaged one
    fitting = [[structures for structures in sets if fits(volume, structures)] for volume in volumes]
    ranks = [
        (bool(some), volume.contrast, any(volume.uid in structures.series for structures in some))
        for volume, some in zip(volumes, fitting, strict=True)
    ]
    best = [i for i, rank in enumerate(ranks) if rank == max(ranks)]
    if len(best) > 1:
        there = f"{len(best)} series that fit: {shortened(volumes[i].description for i in best)}"
        fix = "name one by `series`, or export one"
        return None, [*problems, Problem(name, "-", there, "one series for an examination", fix)]
    volume, own = volumes[best[0]], sorted(fitting[best[0]], key=lambda structures: structures.made)
    if len(own) > 1:
        there = f"{len(own)} structure sets: {shortened(structures.label for structures in own)}"
        fix = f"nothing, if the newest ({own[-1].label!r}) is meant; otherwise leave the others out of the export"
        problems.append(Problem(name, volume.description, there, "one structure set for a series", fix, "warning"))
    return Planned(name, patient, volume, own[-1] if own else None), problems
