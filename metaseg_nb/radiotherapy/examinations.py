"""What makes a case of an examination: one series, one structure set, and the mask of its chosen regions."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import reduce

import nibabel as nib
import numpy as np

from metaseg_nb.cohort.lesions import box_around, label_lesions
from metaseg_nb.cohort.problems import STOPPING, Problem, broken, shortened
from metaseg_nb.radiotherapy.contours import plane_distance, rasterise
from metaseg_nb.radiotherapy.dicom_folder import DicomFolder, described, fits
from metaseg_nb.radiotherapy.series import NOT_MR, Series
from metaseg_nb.radiotherapy.structure_sets import CORRECTED, Region, StructureSet, chosen, is_named

# Share of a slice that contours may lie beside it before this is worth a note.
OFF_SLICE = 0.02
# Contours so many slices apart are those of one lesion, rather than of lesions of one slice.
FEW_SLICES = 4
# What `rasterise` counts: the rule that such contours break, and the words for them.
COUNTED = {
    "points": ("three points", "of one or two points"),
    "copies": ("contours once", "that are there twice"),
    "across": ("flat contours", "across the slices"),
    "outside": ("contours on slices", "above or below the image"),
    "cut": ("contours inside", "beyond the edge of the image"),
}
# Codes of patients ("patient") or examinations ("examination") by their names.
Codes = Callable[[str, list[str]], dict[str, str]]


@dataclass(frozen=True)
class Choice:
    """What is taken of an export: series by description, regions by name; with * and ?, capitals or not."""

    series: str = "*"
    roi_names: Sequence[str] = ("*GTV*", "TV", "*met*")
    roi_names_without: Sequence[str] = ("*PTV*", "*CTV*", "*[0-9]mm*", "*[0-9]?mm*", "*+*", "*PRV*")
    organ_names: Sequence[str] = ("*brain*stem*", "*chiasm*", "*optic*", "*cochlea*")


@dataclass(frozen=True)
class Planned:
    """One examination of a patient: the series, its structure set if there is one, and the case's code."""

    name: str
    patient: str
    series: Series
    structures: StructureSet | None


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
    examinations: dict[tuple[str, str], list[Series]] = {}
    for series in dicom.series:
        if not series.left_aside.endswith(NOT_MR):
            examinations.setdefault((series.patient, series.study), []).append(series)
    case_codes = codes("examination", sorted(" ".join(key) for key in examinations))
    cases = {of: [case_codes[" ".join(key)] for key in examinations if key[0] == of] for of in patients}
    planned, told = [], dicom.problems(patients)
    problems = [problem for of, problem in told if of == "-"]
    for key, series in examinations.items():
        sets = [structures for of, structures in dicom.sets if of == key[0]]
        case, noticed = _plan_case(case_codes[" ".join(key)], patients[key[0]], series, sets, choice)
        problems += noticed
        planned += [case] if case and key[0] else []
    told += [(of, broken("MR of each", "-", "-", "no MR series")) for of in patients if not cases[of]]
    told += [(of, problem) for of, structures in dicom.sets if (problem := _misplaced(dicom, of, structures))]
    cases = {of: names or [patients[of]] for of, names in cases.items()}
    problems += [replace(problem, case=case) for of, problem in told if of != "-" for case in cases[of]]
    return planned, problems, {case: patients[of] for of, names in cases.items() for case in names}


def _misplaced(dicom: DicomFolder, of: str, structures: StructureSet) -> Problem | None:
    """Error of a structure set that fits no series of its patient."""
    own = [series for series in dicom.series if series.patient == of and not series.left_aside]
    if any(fits(series, structures) for series in own):
        return None
    found = "a structure set that fits no MR series of its patient"
    return broken("series of set", "-", structures.label or "no label", found)


def _plan_case(
    name: str, patient: str, series: Sequence[Series], sets: Sequence[StructureSet], choice: Choice
) -> tuple[Planned | None, list[Problem]]:
    scans = [one for one in series if not one.left_aside]
    wanted = [one for one in scans if is_named(one.description, [choice.series])]
    if not wanted:
        names = [one.description or "no description" for one in scans]
        names = names or [f"{one.description or 'no description'} ({one.left_aside})" for one in series]
        rule = "wanted scan" if scans else "any scan"
        return None, [broken(rule, name, "-", shortened(names), series=repr(choice.series))]
    fitting = [[structures for structures in sets if fits(one, structures)] for one in wanted]
    ranks = [
        (bool(some), one.contrast, any(one.uid in structures.series for structures in some))
        for one, some in zip(wanted, fitting, strict=True)
    ]
    best = [i for i, rank in enumerate(ranks) if rank == max(ranks)]
    problems = []
    for i, one in enumerate(wanted):  # one that would have been chosen is replaced by no other
        if one.error:
            problems += one.error.problems(name, one.description, "error" if i in best else "note")
        problems += [replace(mended, case=name, file=one.description) for mended in one.mended]
    if len(best) > 1:
        words = f"{len(best)} series that fit: {shortened(described(wanted[i]) for i in best)}"
        return None, [*problems, broken("one series", name, "-", words)]
    found, fit = wanted[best[0]], fitting[best[0]]
    own = [one for one in fit if not one.regions or not all(region.is_predicted for region in one.regions)]
    own.sort(key=lambda one: (bool(chosen(one.regions, choice.roi_names, choice.roi_names_without)), one.made))
    if left_aside := len(fit) - len(own):
        words = f"{left_aside} structure set(s) of predictions, left aside"
        problems.append(broken("set of a physician", name, found.description, words))
    if len(own) > 1:
        words = f"{len(own)} structure sets: {shortened(map(_about, own))}"
        problems.append(broken("one structure set", name, found.description, words, newest=_about(own[-1])))
    structures, noticed = _in_frame_of(found, own[-1], choice, name) if own else (None, [])
    case, problems = Planned(name, patient, found, structures), problems + noticed
    return (case, problems) if found.is_volume else (None, problems + _of_damaged(case, choice))


def _of_damaged(case: Planned, choice: Choice) -> list[Problem]:
    """What is wrong with the regions of a damaged series besides: all is told at once."""
    problems = _no_lesions(case, choice)
    if problems or np.isnan(case.series.affine).any():
        return problems
    return [problem for problem in mask_of_case(case, choice)[2] if problem.severity in STOPPING]


def _about(structures: StructureSet) -> str:
    about = filter(None, [f"{len(structures.regions)} regions", structures.made[:4]])
    return f"{structures.label or 'no label'} ({', '.join(about)})"


def _in_frame_of(
    series: Series, structures: StructureSet, choice: Choice, case: str
) -> tuple[StructureSet, list[Problem]]:
    """Leave out regions of another frame of reference, where a set names several: a CT's beside that of the MR."""
    if len(structures.frames_of_reference) < 2 or not series.frame_of_reference:
        return structures, []
    inside, elsewhere, problems = [], [], []
    for region in structures.regions:
        is_inside = region.frame_of_reference in ("", series.frame_of_reference)
        (inside if is_inside else elsewhere).append(region)
    for rule, patterns in (("regions on MR", choice.roi_names), ("organs on MR", choice.organ_names)):
        if wanted := chosen(elsewhere, patterns, choice.roi_names_without):
            words = f"{shortened(one.name for one in wanted)} in another frame of reference, as of a CT"
            problems.append(broken(rule, case, structures.label or "no label", words))
    return replace(structures, regions=inside), problems


def _no_lesions(case: Planned, choice: Choice) -> list[Problem]:
    """Warning of a case without structure set, or without a region that is chosen."""
    if case.structures is None:
        return [broken("set of series", case.name, case.series.description, "no structure set")]
    if chosen(case.structures.regions, choice.roi_names, choice.roi_names_without):
        return []
    names = [region.name for region in case.structures.regions]
    found = f"regions {shortened(names)}" if names else "no regions"
    like, unlike = ", ".join(choice.roi_names), ", ".join(choice.roi_names_without)
    return [broken("regions of lesions", case.name, case.structures.label, found, like=like, unlike=unlike)]


def mask_of_case(case: Planned, choice: Choice) -> tuple[np.ndarray | None, dict[str, list[str]], list[Problem]]:
    """One mask of all chosen regions; the names of the regions of each lesion; and what was noticed."""
    if (missing := _no_lesions(case, choice)) or case.structures is None:
        return None, {}, missing
    about = case.name, case.structures.label
    regions = chosen(case.structures.regions, choice.roi_names, choice.roi_names_without)
    every, masks, problems = _every(case), [], []
    if predicted := [region.name for region in case.structures.regions if region.is_predicted]:
        problems.append(broken("drawn regions", *about, f"{shortened(predicted)}, left aside"))
    if corrected := [region.name for region in regions if region.begins_with(CORRECTED)]:
        words = f"{shortened(corrected)}, which began as a proposal of networks"
        problems.append(broken("drawn without network", *about, words))
    for region in regions:
        mask, noticed = _drawn(case, region, every)
        masks.append(mask)
        problems += noticed
    if every > 1:
        slice_mm = case.series.spacing_mm[2]
        found = f"contours every {every * slice_mm:.2f} mm, on slices every {slice_mm:.2f} mm"
        problems.append(broken("contour of each slice", *about, found))
    whole = reduce(np.logical_or, masks)
    if not whole.any():
        found = f"no voxel in {shortened(region.name for region in regions)}"
        return whole, {}, [*problems, broken("lesion in regions", *about, found)]
    box = box_around(whole, 0.0, (1.0, 1.0, 1.0))
    # lesions are numbered as notebook 01 reads them, in RAS order
    ras = nib.orientations.io_orientation(case.series.affine_ras)
    whole_box, *boxes = (nib.orientations.apply_orientation(mask[box], ras) for mask in (whole, *masks))
    labels, n = label_lesions(whole_box)
    inside = [(region.name, np.unique(labels[own])) for region, own in zip(regions, boxes, strict=True)]
    return whole, {str(k): [name for name, lesions in inside if k in lesions] for k in range(1, n + 1)}, problems


def organs_of_case(case: Planned, choice: Choice) -> tuple[np.ndarray, list[str], list[Problem]]:
    """Organs at risk, a bit each in the order of their names; and what was noticed.

    All regions that a pattern of ``organ_names`` means are one organ. It is called after the pattern, for names of
    regions may hold anything.
    """
    bits, organs, problems, every = np.zeros(case.series.shape, np.uint8, order="F"), [], [], _every(case)
    left = [region for region in case.structures.regions if region.contours] if case.structures else []
    for pattern in choice.organ_names:
        regions = chosen(left, [pattern], choice.roi_names_without)
        for region in regions:
            mask, noticed = _drawn(case, region, every)
            problems += [replace(one, severity="warning") for one in noticed if one.severity in STOPPING]
            if mask.any():
                organs += [] if pattern in organs else [pattern]
                bits[mask] |= 1 << organs.index(pattern)
        names = [region.name for region in regions]
        left = [region for region in left if region.name not in names]  # a region is of one organ
    return bits, [pattern.strip("*").replace("*", " ") for pattern in organs], problems


def _every(case: Planned) -> float:
    """How far apart the planes of the contours are, in slices: other images may have thicker ones."""
    if case.structures is None or case.series.uid in case.structures.series:
        return 1.0
    contours = [one for region in case.structures.regions for one in region.contours]
    return plane_distance(contours, case.series.affine)


def _drawn(case: Planned, region: Region, every: float) -> tuple[np.ndarray, list[Problem]]:
    """The mask of a region, and what was noticed of its contours."""
    made = rasterise(region.contours, case.series.shape, case.series.affine, every)
    about = case.name, region.name
    told = [(*COUNTED[kind], n) for kind, n in made.counts.items() if n]
    problems = [broken(rule, *about, f"{n} contours {words}") for rule, words, n in told]
    if not region.contours:
        problems.append(broken("closed contours", *about, "no contours"))
    elif not made.mask.any() and not made.counts["outside"] and not made.counts["across"]:
        problems.append(broken("voxel of region", *about, "contours around no centre of a voxel"))
    if every == 1 < (apart := plane_distance(region.contours, case.series.affine)) <= FEW_SLICES:
        problems.append(broken("slices of lesion", *about, f"contours on every {apart:.0f} slices only"))
    if made.off_slice_mm > OFF_SLICE * (slice_mm := case.series.spacing_mm[2]):
        found = f"contours up to {made.off_slice_mm:.2f} mm beside their slice"
        problems.append(broken("planes of slices", *about, found, every=f"{slice_mm:.2f}"))
    return made.mask, problems
