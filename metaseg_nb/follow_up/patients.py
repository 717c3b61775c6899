"""Follow the lesions of every patient with several dates, in the reference and in the masks of networks."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from nibabel.affines import apply_affine

from metaseg_nb.cohort.cases import Case, Cohort, LesionRule
from metaseg_nb.cohort.diameters import axial_diameters
from metaseg_nb.cohort.lesions import UNSCORED_MM3, find_lesions, is_scored
from metaseg_nb.cohort.problems import CohortError
from metaseg_nb.cohort.volumes import Volume, read_lesions, read_mask
from metaseg_nb.follow_up.identity import Points, follow
from metaseg_nb.follow_up.placing import place_dates
from metaseg_nb.layout import StudyLayout
from metaseg_nb.parallel import map_cases

REFERENCE = "reference"
MEASURES = ["volume_mm3", "diameter_mm", "perpendicular_mm", "slices", "x", "y", "z"]


class FollowUp(NamedTuple):
    """What becomes of the lesions of a cohort.

    ``dates`` is that of `place_dates`; the lesions of a date with a ``problem`` are not followed. ``lesions`` has a row
    per (``model``, ``patient``, ``lesion``) and date from the lesion's first on: ``case``, ``day``, ``part`` (its place
    among the lesions of its mask), ``fate``, ``of`` (`follow`), and `MEASURES`, 0 where it is not there (the voxel
    ``x``, ``y``, ``z``: NaN). ``changes`` has a row per (``model``, reference lesion, date but its first):
    ``reference_mm``, ``predicted_mm``, changes of the longest axial diameter since the date before.
    """

    dates: pd.DataFrame
    lesions: pd.DataFrame
    changes: pd.DataFrame


@dataclass(frozen=True)
class Measured:
    """The lesions of a mask: a row of `MEASURES` each, their voxels, and these in mm of the first date's world."""

    shape: tuple[int, ...]
    table: pd.DataFrame
    voxels: list[np.ndarray]
    points: list[Points]

    @classmethod
    def of(cls, mask: Volume, matrix: np.ndarray) -> "Measured":
        """Measure a mask on its own voxels; ``matrix`` leads from the first date's world to that of the mask.

        Lesions that scoring leaves out (2 mm³ and less) are left out here too.
        """
        lesions, back = find_lesions(mask.array > 0, mask.spacing_mm), np.linalg.inv(matrix) @ mask.affine
        voxels = [lesions.voxels(lesion) for lesion in lesions.boxes]
        volume_mm3 = float(np.prod(mask.spacing_mm))
        voxels = [own for own in voxels if is_scored(np.array(len(own) * volume_mm3), UNSCORED_MM3)]
        rows = [
            (len(own) * volume_mm3, *axial_diameters(own, mask.spacing_mm), *own.mean(axis=0).tolist())
            for own in voxels
        ]
        table = pd.DataFrame(rows, columns=MEASURES, dtype=float)
        return cls(mask.shape, table, voxels, [apply_affine(back, own) for own in voxels])


def follow_study(
    layout: StudyLayout, cohort: Cohort, models: Sequence[str], reach_mm: float, workers: int = 1
) -> FollowUp:
    """Follow the lesions of all patients who have several dates; each date was predicted by a model that never saw it.

    Parameters
    ----------
    layout : StudyLayout
    cohort : Cohort
    models : sequence of str
        Networks that have predicted every fold.
    reach_mm : float
        See `follow`.
    workers : int

    Raises
    ------
    CohortError
        No patient has several dates.
    """
    patients = several_dates(cohort)
    if not patients:
        found = "no patient with two cases that have different dates"
        fix = "give `date` or `day` in the list or the patients table, and run 01 again; or set `follow_up` to false"
        raise CohortError.one("-", layout.dataset, found, "patients with several dates", fix)
    masks = {case.name: layout.prediction_files(case.name, case.fold, models) for of in patients for case in of}
    work = partial(_follow_patient, masks=masks, rule=cohort.rule, reach_mm=reach_mm)
    found = map_cases(work, patients, workers, "following patients")
    return FollowUp(*(pd.concat(tables, ignore_index=True) for tables in zip(*found, strict=True)))


def several_dates(cohort: Cohort) -> list[list[Case]]:
    """Cases of each patient who has several dates, in their order; all of them have a day, and none the same."""
    of_patient = defaultdict(list)
    for case in cohort.cases:
        of_patient[case.patient].append(case)
    found = []
    for cases in of_patient.values():
        days = [case.day for case in cases if case.day is not None]
        if len(cases) > 1 and len({*days}) == len(cases):
            found.append(sorted(cases, key=lambda case: case.day or 0))
    return found


def _follow_patient(
    cases: Sequence[Case], masks: Mapping[str, Mapping[str, Path]], rule: LesionRule, reach_mm: float
) -> FollowUp:
    dates = place_dates(cases)
    placed = [
        (case, np.reshape(row.matrix, (4, 4)))
        for case, row in zip(cases, dates.itertuples(), strict=True)
        if not row.problem
    ]
    own = [case for case, _ in placed]
    references = [Measured.of(read_lesions(case, rule), matrix) for case, matrix in placed]
    lesions = [follow_masks(own, references, reach_mm).assign(model=REFERENCE)]
    changes = []
    for model in masks[cases[0].name]:
        predictions = [Measured.of(read_mask(masks[case.name][model], case.name), matrix) for case, matrix in placed]
        lesions.append(follow_masks(own, predictions, reach_mm).assign(model=model))
        pairs = zip(own, references, predictions, strict=True)
        predicted = {case.name: predicted_mm(reference, prediction) for case, reference, prediction in pairs}
        changes.append(_changes(lesions[0], predicted).assign(model=model))
    return FollowUp(dates, pd.concat(lesions, ignore_index=True), pd.concat([pd.DataFrame(), *changes]))


def follow_masks(cases: Sequence[Case], masks: Sequence[Measured], reach_mm: float) -> pd.DataFrame:
    """Follow the lesions of one patient's masks; ``lesions`` of `FollowUp`, for one model.

    Parameters
    ----------
    cases : sequence of Case
        In the order of their dates.
    masks : sequence of Measured
        One for each date.
    reach_mm : float
    """
    rows = follow([mask.points for mask in masks], reach_mm)
    nothing = dict.fromkeys(MEASURES, 0.0) | dict.fromkeys("xyz", np.nan)
    facts = [
        masks[date].table.iloc[part].to_dict() if pd.notna(part) else nothing
        for date, part in zip(rows["date"], rows["part"], strict=True)
    ]
    about = [
        {"patient": case.patient, "case": case.name, "day": case.day} for case in (cases[date] for date in rows["date"])
    ]
    tables = [pd.DataFrame(about, columns=["patient", "case", "day"]), rows[["lesion", "part", "of", "fate"]]]
    whole = pd.concat([*tables, pd.DataFrame(facts, columns=MEASURES)], axis=1)
    return whole.astype({"day": int, "lesion": int} | dict.fromkeys(MEASURES, float))  # also without a lesion


def predicted_mm(reference: Measured, prediction: Measured) -> list[float]:
    """The longest axial diameter that a network finds for each reference lesion, in their order; NaN where missed.

    A predicted lesion counts for the reference lesion that it overlaps most; of several the largest is measured.
    """
    labels = np.zeros(reference.shape, int)
    for number, voxels in enumerate(reference.voxels, 1):
        labels[tuple(voxels.T)] = number
    longest = np.full(1 + len(reference.voxels), np.nan)
    for voxels, own_mm in zip(prediction.voxels, prediction.table["diameter_mm"], strict=True):
        counts = np.bincount(labels[tuple(voxels.T)], minlength=len(longest))
        if counts[1:].any():
            most = 1 + counts[1:].argmax()
            longest[most] = np.fmax(longest[most], own_mm)
    return longest[1:].tolist()


def _changes(lesions: pd.DataFrame, predicted: Mapping[str, list[float]]) -> pd.DataFrame:
    """Changes of reference lesions that are there at two dates in a row, and those that a network finds."""
    there = lesions[lesions["part"].notna()]
    found = [predicted[case][part] for case, part in zip(there["case"], there["part"], strict=True)]
    there = there.assign(predicted_mm=found, reference_mm=there["diameter_mm"]).sort_values(["lesion", "day"])
    steps = there.groupby("lesion")[["reference_mm", "predicted_mm"]].diff()
    return there[["patient", "lesion", "case", "day"]].join(steps).dropna(subset="reference_mm")
