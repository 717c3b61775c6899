"""Which series and which structure set make a case: one of each for an examination of a patient."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from metaseg_nb.cohort.problems import Problem, shortened
from metaseg_nb.radiotherapy.dicom_folder import DicomFolder, Found, fits
from metaseg_nb.radiotherapy.series import NOT_MR, Series
from metaseg_nb.radiotherapy.structure_sets import StructureSet, is_named

# Codes of patients ("patient") or examinations ("examination") by their names.
Codes = Callable[[str, list[str]], dict[str, str]]


@dataclass(frozen=True)
class Choice:
    """What is taken of an export: series by description, regions by name; with * and ?, capitals or not."""

    series: str = "*"
    roi_names: tuple[str, ...] = ("*GTV*", "TV", "*met*")
    roi_names_without: tuple[str, ...] = ("*PTV*", "*CTV*", "* mm*", "*+*", "*PRV*")
    organ_names: tuple[str, ...] = ("*brain*stem*", "*chiasm*", "*optic*", "*cochlea*")


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
) -> tuple[list[Planned], list[Problem], dict[str, str]]:
    """Choose one series and one structure set for each examination that has MR images.

    Returns
    -------
    planned : list of Planned
    problems : list of Problem
        A problem of a patient is told for each of its examinations, which can be left out.
    patient_of : dict of str to str
        Code of the patient by that of each examination, and of a patient without one by itself.
    """
    examinations: dict[tuple[str, str], list[Found]] = {}
    for found in dicom.series:
        if not found.left_aside.endswith(NOT_MR):
            examinations.setdefault((found.patient, found.study), []).append(found)
    case_codes = codes("examination", sorted(" ".join(key) for key in examinations))
    cases = {of: [case_codes[" ".join(key)] for key in examinations if key[0] == of] for of in patients}
    planned, told = [], dicom.problems(patients)
    problems = [problem for of, problem in told if of == "-"]
    for key, series in examinations.items():
        sets = [structures for of, structures in dicom.sets if of == key[0]]
        case, noticed = _plan_case(case_codes[" ".join(key)], patients[key[0]], series, sets, choice)
        problems += noticed
        planned += [case] if case and key[0] else []
    without = ("no MR series", "an MR series of each patient", "export it, or leave the patient out", "warning")
    told += [(of, Problem("-", "-", *without)) for of in patients if not cases[of]]
    told += [(of, problem) for of, structures in dicom.sets if (problem := _misplaced(dicom, of, structures))]
    cases = {of: names or [patients[of]] for of, names in cases.items()}
    problems += [replace(problem, case=case) for of, problem in told if of != "-" for case in cases[of]]
    return planned, problems, {case: patients[of] for of, names in cases.items() for case in names}


def _misplaced(dicom: DicomFolder, of: str, structures: StructureSet) -> Problem | None:
    """Error of a structure set that fits no series of its patient."""
    own = [found for found in dicom.series if found.patient == of and fits(found, structures)]
    others = any(found.patient != of and fits(found, structures) for found in dicom.series)
    if not all(found.left_aside for found in own):
        return None
    found = "a structure set that fits no MR series"
    fix = "export the series it was drawn on, or leave the structure set out"
    if own:
        found += f", but one that is not used ({own[0].left_aside})"
        fix = "copy the contours to the MR in the planning system: registrations in an export are not applied"
    elif others:
        found += " of this patient, but one under another Patient ID"
        fix = "export images and structure set under one ID"
    return Problem("-", structures.label or "no label", found, "a series in its frame of reference", fix)


def _plan_case(
    name: str, patient: str, series: Sequence[Found], sets: Sequence[StructureSet], choice: Choice
) -> tuple[Planned | None, list[Problem]]:
    scans = [found for found in series if not found.left_aside]
    wanted = [found for found in scans if is_named(found.description, [choice.series])]
    if not wanted:
        there = shortened(_told(found) for found in scans or series)
        fix = "correct `series`, or export the contrast-enhanced T1"
        expected = f"an MR scan whose description is like {choice.series!r}"
        return None, [Problem(name, "-", there, expected, fix, "error" if scans else "warning")]
    fitting = [[structures for structures in sets if fits(found, structures)] for found in wanted]
    ranks = [
        (bool(some), found.contrast, any(found.uid in structures.series for structures in some))
        for found, some in zip(wanted, fitting, strict=True)
    ]
    best = [i for i, rank in enumerate(ranks) if rank == max(ranks)]
    problems = []
    for i, found in enumerate(wanted):  # one that would have been chosen is replaced by no other
        if found.error:
            problems.append(found.error.problem(name, found.description, "error" if i in best else "note"))
        problems += [mended.problem(name, found.description, "note") for mended in found.mended]
    if len(best) > 1:
        there = f"{len(best)} series that fit: {shortened(_told(wanted[i]) for i in best)}"
        fix = "name one by `series`, or leave the others out of the export"
        return None, [*problems, Problem(name, "-", there, "one series for an examination", fix)]
    volume, own = wanted[best[0]].volume, sorted(fitting[best[0]], key=lambda structures: structures.made)
    if volume is None:
        return None, problems
    if len(own) > 1:
        there = f"{len(own)} structure sets: {shortened(structures.label or 'no label' for structures in own)}"
        fix = f"nothing, if the newest ({own[-1].label!r}) is meant; otherwise leave the others out of the export"
        problems.append(Problem(name, volume.description, there, "one structure set for a series", fix, "warning"))
    return Planned(name, patient, volume, own[-1] if own else None), problems


def _told(found: Found) -> str:
    return (found.description or "no description") + (f" ({found.left_aside})" if found.left_aside else "")
