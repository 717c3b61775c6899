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
from metaseg_nb.cohort.lesions import UNSCORED_MM3, axial_diameters, find_lesions, is_scored
from metaseg_nb.cohort.problems import refusal
from metaseg_nb.cohort.volumes import Volume, read_lesions, read_mask, read_volume
from metaseg_nb.follow_up.identity import INSIDE, UNSEEN, Points, follow
from metaseg_nb.layout import StudyLayout
from metaseg_nb.machine import map_cases
from metaseg_nb.preprocessing.registration import register_dates
from metaseg_nb.settings import REFERENCE_MODEL

MEASURES = ["volume_mm3", "diameter_mm", "perpendicular_mm", "slices", "x", "y", "z", "cut"]
PERHAPS = "possibly another patient, another sequence, or after surgery"
# Of the date that the others are registered to.
UNMOVED = (0.0, 0.0, 1.0, np.eye(4).ravel().tolist(), "")


class Followed(NamedTuple):
    """What becomes of the lesions of a cohort.

    ``dates`` is that of `place_dates`, and has dates without a mask to follow; the lesions of a date with a ``problem``
    are not followed. ``lesions`` has a row per (``model``, ``patient``, ``lesion``) and date from the lesion's
    first on: ``case``, ``day``, ``part`` (its place among the lesions of its mask), ``fate``, ``of`` (`follow`), and
    `MEASURES`, 0 where it is not there (the voxel ``x``, ``y``, ``z``: NaN) and NaN where its place was not imaged.
    ``cut``: whether the edge of the image cuts it, so that it is larger than measured.
    ``changes`` has a row per (``model``, reference lesion, two dates in a row at which it is there), with the later of
    them: ``reference_mm``, ``predicted_mm``, changes of the longest axial diameter.
    """

    dates: pd.DataFrame
    lesions: pd.DataFrame
    changes: pd.DataFrame


@dataclass(frozen=True)
class Measured:
    """The lesions of a mask: a row of `MEASURES` each, their voxels, and parts of these as points.

    ``points`` are in mm of the reference date's world; ``to_voxel`` leads from there to the voxels of the mask.
    """

    shape: tuple[int, ...]
    to_voxel: np.ndarray
    table: pd.DataFrame
    voxels: list[np.ndarray]
    points: list[Points]

    @classmethod
    def of(cls, mask: Volume, matrix: np.ndarray) -> "Measured":
        """Measure a mask on its own voxels; ``matrix`` leads from the reference date's world to that of the mask.

        Lesions that scoring leaves out (2 mm³ and less) are left out here too. A voxel counts as parts of at most 1 mm:
        the centres of thick slices lie farther apart than two lesions that are the same.
        """
        lesions, to_voxel = find_lesions(mask.array > 0, mask.spacing_mm), np.linalg.inv(mask.affine) @ matrix
        parts_of = {lesion: lesions.voxels(lesion) for lesion in lesions.boxes}
        volume_mm3, cut = float(np.prod(mask.spacing_mm)), lesions.cut
        scored = {of: own for of, own in parts_of.items() if is_scored(np.array(len(own) * volume_mm3), UNSCORED_MM3)}
        rows = [
            (len(own) * volume_mm3, *axial_diameters(own, mask.spacing_mm), *own.mean(axis=0).tolist(), of in cut)
            for of, own in scored.items()
        ]
        voxels = [*scored.values()]
        table = pd.DataFrame(rows, columns=MEASURES, dtype=float)
        n = np.ceil(np.round(mask.spacing_mm, 2)).astype(int).tolist()
        parts, back = (np.indices(n).reshape(3, -1).T + 0.5) / n - 0.5, np.linalg.inv(to_voxel)
        points = [apply_affine(back, (own[:, None] + parts).reshape(-1, 3)) for own in voxels]
        return cls(mask.shape, to_voxel, table, voxels, points)

    def shows(self, place: Points) -> bool:
        """Whether most of a place of the reference date's world lies inside the mask's image."""
        voxels = apply_affine(self.to_voxel, place)
        return bool(((voxels >= -0.5) & (voxels <= np.array(self.shape) - 0.5)).all(axis=1).mean() >= INSIDE)


def follow_study(
    layout: StudyLayout,
    cohort: Cohort,
    models: Sequence[str],
    reach_mm: float,
    reference_date: int,
    workers: int = 1,
) -> Followed:
    """Follow the lesions of all patients who have several dates; each date was predicted by a model that never saw it.

    Parameters
    ----------
    layout : StudyLayout
    cohort : Cohort
    models : sequence of str
        Networks that have predicted every fold.
    reach_mm : float
        See `follow`.
    reference_date : int
        Of the dates with a mask; see `place_dates`.
    workers : int

    Raises
    ------
    CohortError
        No patient has several dates.
    """
    patients = [cases for cases, why in several_dates(cohort) if not why]
    if not patients:
        found = "no patient with two dated cases that both have a mask, one of them the first"
        raise refusal("several dates", "-", layout.dataset, found)
    masks = {case.name: layout.prediction_files(case.name, case.fold, models) for case in cohort.cases}
    work = partial(_follow_patient, masks=masks, rule=cohort.rule, reach_mm=reach_mm, reference_date=reference_date)
    found = map_cases(work, patients, workers, "following patients")
    return Followed(*(pd.concat(tables, ignore_index=True) for tables in zip(*found, strict=True)))


def several_dates(cohort: Cohort) -> list[tuple[list[Case], str]]:
    """Cases of each patient with several, in the order of their dates; and why they are not followed, "" if they are.

    Only cases of the cross-validation count as having a mask: others are not predicted by networks that never saw them.
    """
    of_patient = defaultdict(list)
    for case in cohort.all_cases:
        of_patient[case.patient].append(case)
    followed = {case.name for case in cohort.cases}
    found = []
    for cases in (cases for cases in of_patient.values() if len(cases) > 1):
        cases = sorted(cases, key=lambda case: case.day or 0)
        days, masks = [case.day for case in cases], [case.name in followed for case in cases]
        reasons = {
            "a case without a date": None in days,
            "two cases of one date": len({*days}) < len(days),
            "no mask at the first date": not masks[0],
            "a mask at one date only": sum(masks) < 2,
        }
        found.append((cases, next((why for why, holds in reasons.items() if holds), "")))
    return found


def place_dates(cases: Sequence[Case], reference_date: int) -> pd.DataFrame:
    """Register the first sequence of each date of a patient to that of one date, rigidly.

    Parameters
    ----------
    cases : sequence of Case
        In the order of their dates.
    reference_date : int
        The date that the others are registered to, from 1; where a patient has fewer dates, the last. If the first
        date cannot be registered to it, the dates are registered to the first: a later one is not the beginning.

    Returns
    -------
    DataFrame
        A row per case: ``patient``, ``case``, ``day``; ``moved_mm``, ``degrees`` (how the head lies elsewhere than the
        headers say); ``alike`` (correlation of the two heads' structure, 1 for the reference date); ``matrix`` (from
        the reference date's world to this one's, 16 numbers row by row); ``problem``: why this date cannot be
        followed, "" where nothing speaks against it. A date that cannot be registered has ``matrix`` 1, and ``alike``
        NaN.
    """
    volumes = [read_volume(case.image, case.name) for case in cases]
    fixed = min(reference_date, len(cases)) - 1
    rows = [_placed(volumes[fixed], volume) if date != fixed else UNMOVED for date, volume in enumerate(volumes)]
    dates = pd.DataFrame(rows, columns=["moved_mm", "degrees", "alike", "matrix", "problem"])
    if dates["problem"].iloc[0]:
        return place_dates(cases, 1)
    others = dates.index != fixed
    if others.sum() > 1 and (dates["problem"][others] != "").all():
        dates.loc[others, "problem"] += f"; {cases[fixed].name}, or all others"
    names, days = [case.name for case in cases], [case.day for case in cases]
    return dates.assign(patient=cases[0].patient, case=names, day=days)


def _placed(fixed: Volume, moving: Volume) -> tuple[float, float, float, list[float], str]:
    found, alike, problem = register_dates(fixed, moving)
    if found is None:
        return np.nan, np.nan, np.nan, np.eye(4).ravel().tolist(), problem
    return found.moved_mm, found.degrees, alike, found.matrix.ravel().tolist(), problem and f"{problem}; {PERHAPS}"


def _follow_patient(
    cases: Sequence[Case],
    masks: Mapping[str, Mapping[str, Path]],
    rule: LesionRule,
    reach_mm: float,
    reference_date: int,
) -> Followed:
    whole, without = ([case for case in cases if (case.name in masks) is masked] for masked in (True, False))
    dates = place_dates(whole, reference_date)
    rows = zip(whole, dates["matrix"], dates["problem"], strict=True)
    placed = [(case, np.reshape(matrix, (4, 4))) for case, matrix, problem in rows if not problem]
    lacking = [
        (case.patient, case.name, case.day, "only for training" if case.label else "no mask") for case in without
    ]
    if lacking:
        dates = pd.concat([dates, pd.DataFrame(lacking, columns=["patient", "case", "day", "problem"])])
    own = [case for case, _ in placed]
    references = [Measured.of(read_lesions(case, rule), matrix) for case, matrix in placed]
    lesions = [follow_masks(own, references, reach_mm).assign(model=REFERENCE_MODEL)]
    changes = []
    for model in masks[cases[0].name]:
        predictions = [Measured.of(read_mask(masks[case.name][model], case.name), matrix) for case, matrix in placed]
        lesions.append(follow_masks(own, predictions, reach_mm).assign(model=model))
        pairs = zip(own, references, predictions, strict=True)
        predicted = {case.name: predicted_mm(reference, prediction) for case, reference, prediction in pairs}
        changes.append(_changes(lesions[0], predicted).assign(model=model))
    return Followed(dates, pd.concat(lesions, ignore_index=True), pd.concat(changes) if changes else pd.DataFrame())


def follow_masks(cases: Sequence[Case], masks: Sequence[Measured], reach_mm: float) -> pd.DataFrame:
    """Follow the lesions of one patient's masks; ``lesions`` of `Followed`, for one model.

    Parameters
    ----------
    cases : sequence of Case
        In the order of their dates.
    masks : sequence of Measured
        One for each date.
    reach_mm : float
    """
    rows = follow([mask.points for mask in masks], reach_mm, lambda date, place: masks[date].shows(place))
    about = pd.DataFrame([(case.patient, case.name, case.day) for case in cases], columns=["patient", "case", "day"])
    parts = pd.concat([mask.table for mask in masks], keys=range(len(masks)), names=["date", "part"])
    whole = rows.join(about, on="date").merge(parts.reset_index(), "left", ["date", "part"])
    whole.loc[whole["part"].isna() & (whole["fate"] != UNSEEN), MEASURES[:4]] = 0.0
    columns = ["patient", "case", "day", "lesion", "part", "of", "fate", *MEASURES]
    whole["cut"] = whole["cut"].eq(1)
    return whole[columns].astype({"day": int, "lesion": int})  # also without a lesion


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
    places = zip(lesions["case"], lesions["part"], strict=True)
    found = [predicted[case][part] if pd.notna(part) else np.nan for case, part in places]
    known = lesions.assign(predicted_mm=found, reference_mm=lesions["diameter_mm"].where(lesions["part"].notna()))
    known = known.sort_values(["lesion", "day"])
    steps = known.groupby("lesion")[["reference_mm", "predicted_mm"]].diff()
    return known[["patient", "lesion", "case", "day"]].join(steps).dropna(subset="reference_mm")
