"""What makes a case of an examination: one series, one structure set, and the mask of its chosen regions."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial, reduce

import nibabel as nib
import numpy as np

from metaseg_nb.cohort.lesions import box_around, label_lesions
from metaseg_nb.cohort.problems import STOPPING, Problem, shortened
from metaseg_nb.radiotherapy.contours import plane_distance, rasterise
from metaseg_nb.radiotherapy.dicom_folder import DicomFolder, described, fits
from metaseg_nb.radiotherapy.series import NOT_MR, Series
from metaseg_nb.radiotherapy.structure_sets import CORRECTED, Region, StructureSet, chosen, is_named, is_prediction

# Share of a slice that contours may lie beside it before this is worth a note.
OFF_SLICE = 0.02
# Contours so many slices apart are those of one lesion, rather than of lesions of one slice.
FEW_SLICES = 4
LOOK, EXPORT = "look at the case", "export the whole series, or another one"
# What `rasterise` counts: the words for it, what was expected, what to do, and how grave it is.
COUNTED = {
    "points": ("of one or two points", "contours of three or more points", "nothing, if they are marks", "warning"),
    "copies": ("that are there twice", "each contour once", "nothing: each was used once", "note"),
    "across": ("across the slices", "contours in the planes of the slices", "name their series by `series`", "error"),
    "outside": ("above or below the image", "contours on the slices of the image", EXPORT, "error"),
    "cut": ("beyond the edge of the image", "contours within the image", LOOK, "warning"),
}
# Codes of patients ("patient") or examinations ("examination") by their names.
Codes = Callable[[str, list[str]], dict[str, str]]


@dataclass(frozen=True)
class Choice:
    """What is taken of an export: series by description, regions by name; with * and ?, capitals or not."""

    series: str = "*"
    roi_names: tuple[str, ...] = ("*GTV*", "TV", "*met*")
    roi_names_without: tuple[str, ...] = ("*PTV*", "*CTV*", "*mm*", "*+*", "*PRV*")
    organ_names: tuple[str, ...] = ("*brain*stem*", "*chiasm*", "*optic*", "*cochlea*")


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
    without = ("no MR series", "an MR series of each patient", "export it, or leave the patient out", "warning")
    told += [(of, Problem("-", "-", *without)) for of in patients if not cases[of]]
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
    fix = "export the series it was drawn on, under the same Patient ID; or copy contours of a CT to the MR in the "
    fix += "planning system, for registrations in an export are not applied; or leave the structure set out"
    return Problem("-", structures.label or "no label", found, "a series in its frame of reference", fix)


def _plan_case(
    name: str, patient: str, series: Sequence[Series], sets: Sequence[StructureSet], choice: Choice
) -> tuple[Planned | None, list[Problem]]:
    scans = [one for one in series if not one.left_aside]
    wanted = [one for one in scans if is_named(one.description, [choice.series])]
    if not wanted:
        names = [one.description or "no description" for one in scans]
        names = names or [f"{one.description or 'no description'} ({one.left_aside})" for one in series]
        fix = "correct `series`, or export the contrast-enhanced T1"
        expected = f"an MR scan whose description is like {choice.series!r}"
        return None, [Problem(name, "-", shortened(names), expected, fix, "error" if scans else "warning")]
    fitting = [[structures for structures in sets if fits(one, structures)] for one in wanted]
    ranks = [
        (bool(some), one.contrast, any(one.uid in structures.series for structures in some))
        for one, some in zip(wanted, fitting, strict=True)
    ]
    best = [i for i, rank in enumerate(ranks) if rank == max(ranks)]
    problems = []
    for i, one in enumerate(wanted):  # one that would have been chosen is replaced by no other
        if one.error:
            problems.append(one.error.problem(name, one.description, "error" if i in best else "note"))
        problems += [mended.problem(name, one.description, "note") for mended in one.mended]
    if len(best) > 1:
        words = f"{len(best)} series that fit: {shortened(described(wanted[i]) for i in best)}"
        fix = "name one by `series`; of those with the same description leave all but one out of the export"
        return None, [*problems, Problem(name, "-", words, "one series for an examination", fix)]
    found, fit = wanted[best[0]], fitting[best[0]]
    if not found.is_volume:
        return None, problems
    own = [one for one in fit if not is_prediction(one)]
    own.sort(key=lambda one: (bool(chosen(one.regions, choice.roi_names, choice.roi_names_without)), one.made))
    if left_aside := len(fit) - len(own):
        fix = "nothing; a set that a physician corrected needs other names of regions"
        words = f"{left_aside} structure set(s) of predictions, left aside"
        problems.append(Problem(name, found.description, words, "what a physician drew", fix, "warning"))
    if len(own) > 1:
        words = f"{len(own)} structure sets: {shortened(map(_about, own))}"
        meant = f"the newest with lesions, {_about(own[-1])}, is meant"
        fix = f"nothing, if {meant}; otherwise leave the others out of the export"
        problems.append(Problem(name, found.description, words, "one structure set for a series", fix, "warning"))
    if not own:
        return Planned(name, patient, found, None), problems
    structures, noticed = _in_frame_of(found, own[-1], choice, name)
    return Planned(name, patient, found, structures), problems + noticed


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
    for patterns, severity in ((choice.roi_names, "error"), (choice.organ_names, "warning")):
        if wanted := chosen(elsewhere, patterns, choice.roi_names_without):
            words = f"{shortened(one.name for one in wanted)} in another frame of reference, as of a CT"
            fix = "copy them to the MR in the planning system, then export again: registrations are not applied"
            expected = "regions in the frame of reference of the MR series"
            problems.append(Problem(case, structures.label or "no label", words, expected, fix, severity))
    return replace(structures, regions=inside), problems


def mask_of_case(case: Planned, choice: Choice) -> tuple[np.ndarray | None, dict[str, list[str]], list[Problem]]:
    """One mask of all chosen regions; the names of the regions of each lesion; and what was noticed."""
    if case.structures is None:
        fix, wanted = "nothing, if it is only to be predicted", "a structure set in its frame of reference"
        return None, {}, [Problem(case.name, case.series.description, "no structure set", wanted, fix, "warning")]
    problem = partial(Problem, case.name, case.structures.label)
    names = [region.name for region in case.structures.regions]
    regions = chosen(case.structures.regions, choice.roi_names, choice.roi_names_without)
    if not regions:
        found = f"regions {shortened(names)}" if names else "no regions"
        expected = (
            f"regions named like {', '.join(choice.roi_names)}, and not like {', '.join(choice.roi_names_without)}"
        )
        return None, {}, [problem(found, expected, "correct `roi_names` or `roi_names_without`", "warning")]
    every, masks, problems = _every(case), [], []
    if predicted := [region.name for region in case.structures.regions if region.is_predicted]:
        fix = "nothing; give those that a person corrected another name"
        problems.append(problem(f"{shortened(predicted)}, left aside", "regions that a person drew", fix, "warning"))
    if corrected := [region.name for region in regions if region.begins_with(CORRECTED)]:
        words = f"{shortened(corrected)}, which began as a proposal of networks"
        fix = "do not test these networks on this case: scores may be too good"
        problems.append(problem(words, "regions that a person drew without a network", fix, "warning"))
    for region in regions:
        mask, noticed = _drawn(case, region, every)
        masks.append(mask)
        problems += noticed
    if every > 1:
        slice_mm = case.series.spacing_mm[2]
        found = f"contours every {every * slice_mm:.2f} mm, on slices every {slice_mm:.2f} mm"
        fix = "look at the case: each slice took the nearest contour"
        problems.append(problem(found, "contours on every slice", fix, "warning"))
    whole = reduce(np.logical_or, masks)
    if not whole.any():
        found = f"no voxel in {shortened(region.name for region in regions)}"
        fix = "look at the case; if this patient has no lesion, name it in `confirmed`"
        return whole, {}, [*problems, problem(found, "a lesion in these regions", fix, "doubt")]
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
    rows = [(f"{n} contours {COUNTED[kind][0]}", *COUNTED[kind][1:]) for kind, n in made.counts.items() if n]
    if not region.contours:
        rows.append(("no contours", "closed contours", "nothing, if the region is not used", "note"))
    elif not made.mask.any() and not made.counts["outside"] and not made.counts["across"]:
        rows.append(("contours around no centre of a voxel", "a region of at least one voxel", LOOK, "warning"))
    if every == 1 < (apart := plane_distance(region.contours, case.series.affine)) <= FEW_SLICES:
        found = f"contours on every {apart:.0f} slices only"
        fix = "interpolate in the planning system, then export again: one lesion is many here; or, if they are lesions "
        fix += "of one slice each, name the case in `confirmed`"
        rows.append((found, "contours on every slice of a lesion", fix, "doubt"))
    if made.off_slice_mm > OFF_SLICE * (slice_mm := case.series.spacing_mm[2]):
        found = f"contours up to {made.off_slice_mm:.2f} mm beside their slice"
        fix = f"{LOOK}: each contour was drawn on the nearest slice"
        rows.append((found, f"contours on slices every {slice_mm:.2f} mm", fix, "note"))
    return made.mask, [Problem(case.name, region.name, *row) for row in rows]
