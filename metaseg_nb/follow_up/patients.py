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
    """The lesions of a mask: a row of `MEASURES` each, and their voxel centres in mm of the first date's world."""

    table: pd.DataFrame
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
        return cls(pd.DataFrame(rows, columns=MEASURES, dtype=float), [apply_affine(back, own) for own in voxels])


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
    references = [read_lesions(case, rule) for case, _ in placed]
    lesions = [follow_masks(placed, references, reach_mm).assign(model=REFERENCE)]
    changes = []
    for model in masks[cases[0].name]:
        predictions = [read_mask(masks[case.name][model], case.name) for case, _ in placed]
        lesions.append(follow_masks(placed, predictions, reach_mm).assign(model=model))
        pairs = zip(references, predictions, strict=True)
        predicted = {case.name: predicted_mm(*pair) for (case, _), pair in zip(placed, pairs, strict=True)}
        changes.append(_changes(lesions[0], predicted).assign(model=model))
    return FollowUp(dates, pd.concat(lesions, ignore_index=True), pd.concat([pd.DataFrame(), *changes]))


def follow_masks(placed: Sequence[tuple[Case, np.ndarray]], masks: Sequence[Volume], reach_mm: float) -> pd.DataFrame:
    """Follow the lesions of one patient's masks; ``lesions`` of `FollowUp`, for one model.

    Parameters
    ----------
    placed : sequence of (Case, ndarray of shape (4, 4))
        Each date's case, in order, and where the first date's world lies in its own.
    masks : sequence of Volume
        One for each date, on its own grid.
    reach_mm : float
    """
    measured = [Measured.of(mask, matrix) for mask, (_, matrix) in zip(masks, placed, strict=True)]
    rows = follow([of.points for of in measured], reach_mm)
    nothing = dict.fromkeys(MEASURES, 0.0) | dict.fromkeys("xyz", np.nan)
    facts = [
        measured[date].table.iloc[part].to_dict() if pd.notna(part) else nothing
        for date, part in zip(rows["date"], rows["part"], strict=True)
    ]
    about = [
        {"patient": case.patient, "case": case.name, "day": case.day}
        for case in (placed[date][0] for date in rows["date"])
    ]
    tables = [pd.DataFrame(about, columns=["patient", "case", "day"]), rows[["lesion", "part", "of", "fate"]]]
    whole = pd.concat([*tables, pd.DataFrame(facts, columns=MEASURES)], axis=1)
    return whole.astype({"day": int, "lesion": int} | dict.fromkeys(MEASURES, float))  # also without a lesion


def predicted_mm(reference: Volume, prediction: Volume) -> list[float]:
    """The longest axial diameter that a network finds for each reference lesion, in their order; NaN where missed.

    A predicted lesion counts for the reference lesion that it overlaps most; of several the largest is measured.
    """
    lesions = [find_lesions(mask.array > 0, mask.spacing_mm) for mask in (reference, prediction)]
    truth, found = lesions
    kept = [
        n for n in truth.boxes if is_scored(np.array(len(truth.voxels(n)) * np.prod(truth.spacing_mm)), UNSCORED_MM3)
    ]
    longest = dict.fromkeys(kept, np.nan)
    for part in found.boxes:
        voxels = found.voxels(part)
        counts = np.bincount(truth.labels[tuple(voxels.T)], minlength=truth.n + 1)
        counts[0] = 0
        if (most := int(counts.argmax())) in longest:
            own = axial_diameters(voxels, found.spacing_mm).longest_mm
            longest[most] = np.nanmax([longest[most], own])
    return list(longest.values())


def _changes(lesions: pd.DataFrame, predicted: Mapping[str, list[float]]) -> pd.DataFrame:
    """Changes of reference lesions that are there at two dates in a row, and those that a network finds."""
    there = lesions[lesions["part"].notna()]
    found = [predicted[case][part] for case, part in zip(there["case"], there["part"], strict=True)]
    there = there.assign(predicted_mm=found, reference_mm=there["diameter_mm"]).sort_values(["lesion", "day"])
    steps = there.groupby("lesion")[["reference_mm", "predicted_mm"]].diff()
    return there[["patient", "lesion", "case", "day"]].join(steps).dropna(subset="reference_mm")
