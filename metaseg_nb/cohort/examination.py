"""One look at each case: what it is (facts), what lies in it (lesions), what is wrong with it (problems)."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from metaseg_nb.cohort.cases import Case, LesionRule
from metaseg_nb.cohort.labels import read_lesions, require_one_grid
from metaseg_nb.cohort.lesions import label_lesions, lesion_table
from metaseg_nb.cohort.problems import CohortError, Problem
from metaseg_nb.cohort.volumes import Volume, read_volume
from metaseg_nb.parallel import map_cases


@dataclass(frozen=True)
class Examination:
    """What one look at a case gave; ``facts`` is empty when the case could not be read."""

    facts: dict[str, Any] = field(default_factory=dict)
    lesions: pd.DataFrame = field(default_factory=pd.DataFrame)
    problems: list[Problem] = field(default_factory=list)


def examine(case: Case, rule: LesionRule) -> Examination:
    """Read a case once and say all that is known about it; never raises for a bad case."""
    problems, lesions, burden = [], pd.DataFrame(), {}
    try:
        image = read_volume(case.image, case.name)
        problems += _image_problems(case, image)
    except CohortError as error:
        image, problems = None, [*error.problems]
    if case.label is not None:
        try:
            lesions, burden = _lesions(case, rule)
        except CohortError as error:
            problems += error.problems
        if burden and burden["n_lesions"] == 0:
            problems.append(_empty(case))
    try:
        require_one_grid(case)
    except CohortError as error:
        problems += [problem for problem in error.problems if problem not in problems]
    facts = {} if image is None else _facts(case, image) | burden
    return Examination(facts, lesions, problems)


def examine_all(cases: Sequence[Case], rule: LesionRule, workers: int) -> list[Examination]:
    """Examine many cases in parallel and find what only shows between them: one image under two names."""
    look = partial(examine, rule=rule)
    examinations = map_cases(look, cases, workers, "reading cases")
    first: dict[str, str] = {}
    for case, examination in zip(cases, examinations, strict=True):
        content = examination.facts.get("content")
        if content in first:
            examination.problems.append(
                Problem(
                    case.name,
                    str(case.image),
                    f"the same voxels as case {first[content]}",
                    "each image once",
                    "remove one of the two, or training and test will share it",
                )
            )
        elif content:
            first[content] = case.name
    return examinations


def _image_problems(case: Case, image: Volume) -> list[Problem]:
    if image.array.min() < image.array.max():
        return []
    found = f"the value {image.array.flat[0]:g} everywhere"
    return [Problem(case.name, str(case.image), found, "an image", "export it again")]


def _empty(case: Case) -> Problem:
    expected = "at least one lesion"
    return Problem(case.name, str(case.label), "an empty label", expected, "make sure none was missed", "warning")


def _lesions(case: Case, rule: LesionRule) -> tuple[pd.DataFrame, dict[str, Any]]:
    mask = read_lesions(case, rule)
    table = lesion_table(*label_lesions(mask.array), mask.spacing_mm)
    for column, value in (("primary", case.primary), ("patient", case.patient), ("case", case.name)):
        table.insert(0, column, value)
    burden = {
        "n_lesions": len(table),
        "lesion_volume_mm3": float(table["volume_mm3"].sum()),
        "largest_diameter_mm": float(table["diameter_mm"].max()) if len(table) else 0.0,
    }
    return table, burden


def _facts(case: Case, image: Volume) -> dict[str, Any]:
    return {
        "case": case.name,
        "patient": case.patient,
        "primary": case.primary,
        "shape": "x".join(str(n) for n in image.array.shape),
        "spacing_mm": "x".join(f"{edge:.3g}" for edge in image.spacing_mm),
        "axes": image.native_axes,
        "intensity_min": float(image.array.min()),
        "intensity_max": float(image.array.max()),
        "content": hashlib.sha256(np.ascontiguousarray(image.array).tobytes()).hexdigest()[:16],
    }
