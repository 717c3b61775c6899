"""The examination of a case: facts of its files, its lesions, and the problems that were found."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from metaseg_nb.cohort.cases import Case, LesionRule
from metaseg_nb.cohort.checks.header import examine_headers
from metaseg_nb.cohort.checks.image import coverage_problems, image_problems
from metaseg_nb.cohort.checks.label import grid_problem, implausible_problems, lesion_problems, outside_problems
from metaseg_nb.cohort.fingerprint import anatomy_of, sampled_ranks
from metaseg_nb.cohort.lesions import Lesions, find_lesions, scored_as
from metaseg_nb.cohort.nifti_files import NiftiFile
from metaseg_nb.cohort.position import Head, find_head, lesion_positions, map_of_head, map_of_lesions
from metaseg_nb.cohort.problems import CohortError, Problem
from metaseg_nb.cohort.thumbnail import Thumbnail, make_thumbnail
from metaseg_nb.cohort.volumes import Volume, lesion_mask, not_finite, read_voxels, same_grid, undeclared_problem

# Of a head's intensities, named in facts.
PERCENTILES = (1, 50, 99)
# Facts of a case; a fact is missing where its file could not be read.
FACTS = (
    *("shape", "spacing_mm", "finest_mm", "coarsest_mm", "axes", "sequences", "skull", "head_cm3"),
    *("intensity_min", "intensity_p1", "intensity_median", "intensity_p99", "intensity_max"),
    *("n_lesions", "lesion_volume_mm3", "largest_diameter_mm", "label_content"),
)


@dataclass(frozen=True)
class Examination:
    """The result for one case; what could not be read is missing.

    Parameters
    ----------
    facts : dict
        A row of the table of cases.
    lesions : DataFrame
        From `lesion_table` and `scored_as`, with the positions where there is a head to measure them by.
    problems : list of Problem
    thumbnail : Thumbnail or None
    head_map, lesion_map : ndarray of bool, shape `MAP_SHAPE`, or None
    ranks, anatomy : ndarray or None
        Fingerprints of the image: `sampled_ranks`, `anatomy_of`.
    """

    facts: dict[str, Any] = field(default_factory=dict)
    lesions: pd.DataFrame = field(default_factory=pd.DataFrame)
    problems: list[Problem] = field(default_factory=list)
    thumbnail: Thumbnail | None = None
    head_map: np.ndarray | None = None
    lesion_map: np.ndarray | None = None
    ranks: np.ndarray | None = None
    anatomy: np.ndarray | None = None


@dataclass(frozen=True)
class _Marked:
    """A label, its mask and its lesions."""

    label: Volume
    mask: np.ndarray
    lesions: Lesions


def examine(case: Case, rule: LesionRule) -> Examination:
    """Read each file of a case once and collect all facts and problems; a bad case raises nothing."""
    files, problems = examine_headers(case)
    image, found = _read_images(case, files)
    problems += found
    head = None if image is None else find_head(image.array, image.spacing_mm)
    problems += coverage_problems(case, head) if head is not None else []
    marked, found = _read_label(case, rule, files)
    problems += found
    on_image = marked is not None and image is not None and same_grid(image, marked.label)
    if marked is not None and marked.lesions.n:
        problems += implausible_problems(case, marked.lesions, head)
        if head is not None and on_image:
            problems += outside_problems(case, marked.lesions, head)
        elif head is not None:  # with numbers it stands for what the headers alone said
            problem = grid_problem(case, marked.mask, marked.label, image, head)
            same = problem.file, problem.expected
            problems = [*(other for other in problems if (other.file, other.expected) != same), problem]
    placed = on_image and head is not None
    return Examination(
        facts=_image_facts(case, image, head) | _label_facts(marked),
        lesions=_lesion_table(marked, head if placed else None),
        problems=problems,
        thumbnail=None if image is None else make_thumbnail(image, marked.mask if on_image else None),
        head_map=None if head is None else map_of_head(head),
        lesion_map=map_of_lesions(marked.mask, head) if placed else None,
        ranks=None if image is None else sampled_ranks(image.array),
        anatomy=None if head is None else anatomy_of(image.array, head),
    )


def _read_images(case: Case, files: dict[Path, NiftiFile]) -> tuple[Volume | None, list[Problem]]:
    """Read and check the sequences one by one; only the first is kept."""
    problems, first = [], None
    for path in reversed(case.images):
        first, found = _read(case, path, files)
        problems += found + ([] if first is None else image_problems(case, str(path), first.array))
    return first, problems


def _read_label(case: Case, rule: LesionRule, files: dict[Path, NiftiFile]) -> tuple[_Marked | None, list[Problem]]:
    label, problems = (None, []) if case.label is None else _read(case, case.label, files)
    if label is None:
        return None, problems
    if problem := not_finite(label.array, case.label, case.name):
        return None, [problem]
    mask = lesion_mask(label.array, rule)
    marked = _Marked(label, mask, find_lesions(mask, label.spacing_mm))
    undeclared = undeclared_problem(case.label, case.name, label.array, rule)
    if undeclared and marked.lesions.n == 0:
        return marked, [undeclared]  # not empty, but of values that mean nothing yet
    return marked, [*([undeclared] if undeclared else []), *lesion_problems(case, marked.lesions)]


def _read(case: Case, path: Path, files: dict[Path, NiftiFile]) -> tuple[Volume | None, list[Problem]]:
    """The voxels of a file that could be opened, or why they cannot be read."""
    try:
        return (read_voxels(files[path]) if path in files else None), []
    except CohortError as error:
        return None, error.problems


def _image_facts(case: Case, image: Volume | None, head: Head | None) -> dict[str, Any]:
    if image is None:
        return {}
    facts = {
        "shape": "x".join(str(n) for n in image.array.shape),
        "spacing_mm": "x".join(f"{edge:.3g}" for edge in image.spacing_mm),
        "finest_mm": min(image.spacing_mm),
        "coarsest_mm": max(image.spacing_mm),
        "axes": image.native_axes,
        "sequences": len(case.images),
        "intensity_min": float(np.nanmin(image.array)),
        "intensity_max": float(np.nanmax(image.array)),
    }
    if head is not None:
        inside = image.array[tuple(slice(None, None, n) for n in head.step)][head.mask]
        low, middle, high = (float(value) for value in np.nanpercentile(inside, PERCENTILES))
        facts |= {"intensity_p1": low, "intensity_median": middle, "intensity_p99": high}
        facts |= {"head_cm3": head.volume_cm3, "skull": head.skull}
    return facts


def _label_facts(marked: _Marked | None) -> dict[str, Any]:
    if marked is None:
        return {}
    table = marked.lesions.table
    return {
        "n_lesions": len(table),
        "lesion_volume_mm3": float(table["volume_mm3"].sum()),
        "largest_diameter_mm": float(table["diameter_mm"].max()) if len(table) else 0.0,
        "label_content": hashlib.sha256(np.ascontiguousarray(marked.mask).tobytes()).hexdigest()[:16],
    }


def _lesion_table(marked: _Marked | None, head: Head | None) -> pd.DataFrame:
    if marked is None:
        return pd.DataFrame()
    table = marked.lesions.table.join(scored_as(marked.lesions))
    return table if head is None or table.empty else table.join(lesion_positions(marked.lesions, head))
