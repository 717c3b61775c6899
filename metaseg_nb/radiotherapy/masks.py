"""Masks of a case: the chosen regions of its structure set on the slices of its series, and what was noticed."""

from dataclasses import replace

import nibabel as nib
import numpy as np

from metaseg_nb.cohort.lesions import label_lesions
from metaseg_nb.cohort.problems import Problem, shortened
from metaseg_nb.radiotherapy.contours import Rasterised, plane_distance, rasterise
from metaseg_nb.radiotherapy.planning import Choice, Planned
from metaseg_nb.radiotherapy.structure_sets import chosen

_RAS = nib.orientations.axcodes2ornt("RAS")
# Share of a slice that contours may lie beside it before this is worth a note.
OFF_SLICE = 0.02


def mask_of_case(case: Planned, choice: Choice) -> tuple[np.ndarray | None, dict[str, list[str]], list[Problem]]:
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
    every = _every(case)
    made = [(region, rasterise(region.contours, case.series.shape, case.series.affine, every)) for region in regions]
    problems = [one for region, mask in made for one in _noticed(case, region.name, len(region.contours), mask)]
    if every > 1:
        slice_mm = case.series.spacing_mm[2]
        found = f"contours every {every * slice_mm:.2f} mm, on slices every {slice_mm:.2f} mm"
        fix = "look at the case: each slice took the nearest contour"
        problems.append(Problem(case.name, case.structures.label, found, "contours on every slice", fix, "warning"))
    whole = np.any([one.mask for _, one in made], axis=0)
    if not whole.any():
        found = f"no voxel in {shortened(region.name for region in regions)}"
        fix = "look at the case; if this patient has no lesion, name it in `confirmed`"
        problems.append(Problem(case.name, case.structures.label, found, "a lesion in these regions", fix, "doubt"))
    ras = nib.orientations.io_orientation(case.series.affine_ras)  # lesions are numbered as notebook 01 reads them
    labels, n = label_lesions(nib.orientations.apply_orientation(whole, ras))
    labels = nib.orientations.apply_orientation(labels, nib.orientations.ornt_transform(_RAS, ras))
    inside = [(region.name, set(np.unique(labels[one.mask]))) for region, one in made]
    return whole, {str(k): [name for name, lesions in inside if k in lesions] for k in range(1, n + 1)}, problems


def organs_of_case(case: Planned, choice: Choice) -> tuple[np.ndarray, list[str], list[Problem]]:
    """Organs at risk, a bit each in the order of their names; and what was noticed.

    All regions that a pattern of ``organ_names`` means are one organ. It is called after the pattern, for names of
    regions may hold anything.
    """
    assert case.structures is not None
    bits, organs, problems, every = np.zeros(case.series.shape, np.uint8), [], [], _every(case)
    left = [region for region in case.structures.regions if region.contours]
    for pattern in choice.organ_names:
        wanted = chosen([region.name for region in left], [pattern], list(choice.roi_names_without))
        for region in (region for region in left if region.name in wanted):
            made = rasterise(region.contours, case.series.shape, case.series.affine, every)
            noticed = _noticed(case, region.name, len(region.contours), made)
            problems += [replace(one, severity="warning") for one in noticed if one.severity == "error"]
            organs += [] if pattern in organs or not made.mask.any() else [pattern]
            bits[made.mask] |= 1 << organs.index(pattern) if made.mask.any() else 0
        left = [region for region in left if region.name not in wanted]  # a region is of one organ
    return bits, [pattern.strip("*").replace("*", " ") for pattern in organs], problems


def _every(case: Planned) -> float:
    """How far apart the planes of the contours are, in slices: other images may have thicker ones."""
    assert case.structures is not None
    if case.series.uid in case.structures.series:
        return 1.0
    contours = [one for region in case.structures.regions for one in region.contours]
    return plane_distance(contours, case.series.affine)


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
