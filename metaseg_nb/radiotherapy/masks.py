"""Masks of a case: the chosen regions of its structure set on the slices of its series, and what was noticed."""

from dataclasses import replace
from functools import partial, reduce

import nibabel as nib
import numpy as np

from metaseg_nb.cohort.lesions import box_around, label_lesions
from metaseg_nb.cohort.problems import STOPPING, Problem, shortened
from metaseg_nb.radiotherapy.contours import plane_distance, rasterise
from metaseg_nb.radiotherapy.planning import Choice, Planned
from metaseg_nb.radiotherapy.structure_sets import CORRECTED, Region, chosen

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
