"""The examination of a case: facts of its files, its lesions, and the problems that were found."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from metaseg_nb.cohort import checks
from metaseg_nb.cohort.cases import Case, LesionRule
from metaseg_nb.cohort.fingerprint import anatomy_of, sampled_ranks
from metaseg_nb.cohort.head import Head, find_head, shown_window, with_dark_background
from metaseg_nb.cohort.lesions import THIRDS, Lesions, find_lesions, fullest_slice, scored_as
from metaseg_nb.cohort.nifti_files import NiftiFile
from metaseg_nb.cohort.problems import CohortError, Problem
from metaseg_nb.cohort.volumes import Volume, lesion_mask, not_finite, read_voxels, same_grid, undeclared_values

# Facts of a case; a fact is missing where its file could not be read.
FACTS = (
    *("shape", "spacing_mm", "finest_mm", "coarsest_mm", "axes", "sequences", "skull", "head_cm3"),
    *("intensity_min", "intensity_p1", "intensity_median", "intensity_p99", "intensity_max"),
    *("n_lesions", "lesion_volume_mm3", "largest_diameter_mm", "label_content"),
)
# Cells of the map along X, Y, Z: about 4 mm of a brain.
MAP_SHAPE = (36, 44, 36)
HEMISPHERES = ("left", "right")
POSITIONS = ("third", "hemisphere", "depth_mm")


@dataclass(frozen=True)
class Examination:
    """The result for one case; what could not be read is missing.

    Parameters
    ----------
    facts : dict
        A row of the table of cases; and ``slice_spacing_mm``, voxel edges of ``grey_slice`` along X and Y.
    lesions : DataFrame
        From `lesion_table` and `scored_as`, with the positions where there is a head to measure them by.
    problems : list of Problem
    grey_slice : ndarray of uint8, shape (X, Y), or None
        The axial slice with most lesion, or the middle one, in RAS order.
    lesion_slice : ndarray of bool, shape (X, Y), or None
        Its lesions; empty where no label lies on the image.
    head_map, lesion_map : ndarray of bool, shape `MAP_SHAPE`, or None
    ranks, anatomy : ndarray or None
        Fingerprints of the image: `sampled_ranks`, `anatomy_of`.
    """

    facts: dict[str, Any] = field(default_factory=dict)
    lesions: pd.DataFrame = field(default_factory=pd.DataFrame)
    problems: list[Problem] = field(default_factory=list)
    grey_slice: np.ndarray | None = None
    lesion_slice: np.ndarray | None = None
    head_map: np.ndarray | None = None
    lesion_map: np.ndarray | None = None
    ranks: np.ndarray | None = None
    anatomy: np.ndarray | None = None


def examine(case: Case, rule: LesionRule) -> Examination:
    """Read each file of a case once and collect all facts and problems; a bad case raises no error."""
    files, problems = checks.examine_headers(case)
    image, head, mask_on_image, facts, arrays, table = None, None, None, {}, {}, pd.DataFrame()
    for path in reversed(case.images):  # only the first sequence is kept
        if image := _read(path, files, problems):
            problems += checks.image_problems(case, str(path), image.array)
    if image is not None:
        head = find_head(image.array, image.spacing_mm)
        problems += [] if head is None else checks.coverage_problems(case, head)
        facts |= _image_facts(image, head) | {"sequences": len(case.images)}
    brain = _read(case.brain, files, problems)
    if brain and image and head is not None and same_grid(image, brain):
        problems += checks.brain_problems(case, lesion_mask(brain.array, checks.BRAIN_RULE), head)
    label = _read(case.label, files, problems)
    not_numbers = not_finite(label.array, str(case.label), case.name) if label else []
    problems += not_numbers
    if case.label is not None and label is not None and not not_numbers:
        mask = lesion_mask(label.array, rule)
        lesions = find_lesions(mask, label.spacing_mm)
        table = lesions.table.join(scored_as(lesions))
        facts |= _label_facts(mask, table)
        mask_on_image = mask if image is not None and same_grid(image, label) else None
        undeclared = undeclared_values(case.label, case.name, label.array, rule)
        problems += undeclared
        if lesions.n or not undeclared:  # else not empty, but of values that mean nothing yet
            problems += checks.lesion_problems(case, lesions, head, mask_on_image is not None)
        if lesions.n and image is not None and head is not None:
            if mask_on_image is None:  # with numbers it stands for what the headers alone said
                problem = checks.grid_problem(case, mask, label, image, head)
                same = problem.file, problem.expected
                problems = [*(other for other in problems if (other.file, other.expected) != same), problem]
            else:
                table = table.join(lesion_positions(lesions, head))
    if image is not None:
        arrays = _pictures(image, mask_on_image, head) | {"ranks": sampled_ranks(image.array)}
        facts["slice_spacing_mm"] = list(image.spacing_mm[:2])
    return Examination(facts, table, problems, **arrays)


def _read(path: Path | None, files: Mapping[Path, NiftiFile], problems: list[Problem]) -> Volume | None:
    """Read the voxels of a file that could be opened; add why a file cannot be read to ``problems``."""
    try:
        return read_voxels(files[path]) if path is not None and path in files else None
    except CohortError as error:
        problems += error.problems
        return None


def _image_facts(image: Volume, head: Head | None) -> dict[str, Any]:
    facts = {
        "shape": "x".join(str(n) for n in image.array.shape),
        "spacing_mm": "x".join(f"{edge:.3g}" for edge in image.spacing_mm),
        "finest_mm": min(image.spacing_mm),
        "coarsest_mm": max(image.spacing_mm),
        "axes": image.native_axes,
        "intensity_min": float(np.nanmin(image.array)),
        "intensity_max": float(np.nanmax(image.array)),
    }
    if head is not None:
        inside = image.array[head.coarse][head.mask]
        percentiles = zip((1, 50, 99), ("intensity_p1", "intensity_median", "intensity_p99"), strict=True)
        facts |= {name: float(np.nanpercentile(inside, percentile)) for percentile, name in percentiles}
        facts |= {"head_cm3": head.volume_cm3, "skull": head.skull}
    return facts


def _label_facts(mask: np.ndarray, lesions: pd.DataFrame) -> dict[str, Any]:
    return {
        "n_lesions": len(lesions),
        "lesion_volume_mm3": float(lesions["volume_mm3"].sum()),
        "largest_diameter_mm": float(lesions["diameter_mm"].max()) if len(lesions) else 0.0,
        "label_content": hashlib.sha256(np.ascontiguousarray(mask).tobytes()).hexdigest()[:16],
    }


def _pictures(image: Volume, mask: np.ndarray | None, head: Head | None) -> dict[str, np.ndarray | None]:
    """Small pictures of an image and of the mask on its grid, so that the volume is not read again."""
    lesions = np.zeros(image.array.shape, bool) if mask is None else mask
    index = fullest_slice(lesions)
    array = with_dark_background(np.nan_to_num(image.array, posinf=0, neginf=0))
    low, high = shown_window(array[:, :, index : index + 1])
    grey = np.clip((array[:, :, index] - low) / max(high - low, np.finfo(np.float32).tiny), 0, 1)
    pictures = {"grey_slice": (255 * grey).astype(np.uint8), "lesion_slice": lesions[:, :, index]}
    if head is not None:
        pictures |= {"head_map": map_of_head(head), "anatomy": anatomy_of(image.array, head)}
        pictures |= {} if mask is None else {"lesion_map": map_of_lesions(mask, head)}
    return pictures


def lesion_positions(lesions: Lesions, head: Head) -> pd.DataFrame:
    """Say of each lesion where its centre lies.

    Returns
    -------
    DataFrame
        Rows as in ``lesions.table``: ``third`` of the head's height (`THIRDS`), ``hemisphere``
        (`HEMISPHERES`, by the middle of the head's box), ``depth_mm`` below the surface of the head.
    """
    centres = lesions.table[["x", "y", "z"]].to_numpy()
    low, high = head.box
    relative = ((centres + 0.5) - low) / (high - low)
    third = np.clip((3 * relative[:, 2]).astype(int), 0, 2)
    return pd.DataFrame(
        {
            "third": np.array(THIRDS)[third],
            "hemisphere": np.array(HEMISPHERES)[(relative[:, 0] > 0.5).astype(int)],  # X grows to the right
            "depth_mm": head.depth_mm(centres),
        }
    )


def map_of_lesions(mask: np.ndarray, head: Head) -> np.ndarray:
    """Cells of the head's box that hold lesion: bool, shape `MAP_SHAPE`; ``mask`` is on the image's grid."""
    low, high = head.box[0], np.minimum(head.box[1], mask.shape)  # a coarse voxel may reach beyond the image
    cells = mask[_middles(low, high)]  # where voxels are larger than cells, each cell has its voxel
    places = ((np.argwhere(mask) + 0.5 - low) / (high - low) * MAP_SHAPE).astype(int)
    inside = ((places >= 0) & (places < MAP_SHAPE)).all(axis=1)
    cells[tuple(places[inside].T)] = True  # where they are smaller, no voxel is passed over
    return cells


def map_of_head(head: Head) -> np.ndarray:
    """The head itself in its box: bool, shape `MAP_SHAPE`."""
    return head.mask[_middles(*(ends // head.step for ends in head.box))]


def _middles(low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, ...]:
    """Voxels in the middle of each cell, as an index."""
    size = high - low
    return np.ix_(*(low[i] + ((np.arange(n) + 0.5) * size[i] / n).astype(int) for i, n in enumerate(MAP_SHAPE)))
