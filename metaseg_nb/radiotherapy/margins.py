"""What contours cover of each lesion when they are grown by a margin, and what they treat besides."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd

from metaseg_nb.cohort.cases import Case, Cohort, LesionRule
from metaseg_nb.cohort.lesions import (
    UNSCORED_MM3,
    box_around,
    dilate_by_one,
    is_scored,
    label_lesions,
    lesion_table,
    surface_distance_mm,
)
from metaseg_nb.cohort.problems import CohortError, shortened
from metaseg_nb.cohort.volumes import OWN_MASKS, Volume, describe_grid, read_lesions, read_mask, same_grid
from metaseg_nb.evaluation.strata import per_patient
from metaseg_nb.evaluation.voxel_metrics import Spacing
from metaseg_nb.layout import StudyLayout, second_reader_masks
from metaseg_nb.machine import map_cases

SECOND_READER = "second reader"


@dataclass(frozen=True)
class Targets:
    """The lesions of a mask that are scored, by the rules of `lesion_metrics`; make it with `of`.

    ``table`` has a row per lesion: ``lesion`` (1 to n), ``diameter_mm`` (largest), ``volume_mm3``, ``x``, ``y``, ``z``
    (centre, voxel). In ``labels`` voxels have the number of their lesion, in ``grown`` those of the dilated lesions, by
    which a prediction detects them; larger numbers are lesions that are not scored. Arrays have the mask's shape.
    """

    mask: np.ndarray
    table: pd.DataFrame
    grown: np.ndarray
    spacing_mm: Spacing

    @classmethod
    def of(cls, mask: np.ndarray, spacing_mm: Spacing) -> Self:
        """Find the lesions of a mask, bool of shape (X, Y, Z)."""
        grown, n = label_lesions(dilate_by_one(mask))
        table = lesion_table(np.where(mask, grown, 0), n, spacing_mm)
        scored = is_scored(table["volume_mm3"], UNSCORED_MM3)
        number = np.zeros(n + 1, grown.dtype)
        number[[*table.loc[scored, "lesion"], *table.loc[~scored, "lesion"]]] = np.arange(1, n + 1)
        table = table[scored].assign(lesion=np.arange(1, scored.sum() + 1)).drop(columns="voxels")
        return cls(mask, table.reset_index(drop=True), number[grown], spacing_mm)

    @property
    def labels(self) -> np.ndarray:
        """The number of its lesion in each voxel of the mask, else 0."""
        return np.where(self.mask, self.grown, 0)

    @cached_property
    def distance(self) -> np.ndarray:
        """Of each voxel to the mask; see `surface_distance_mm`."""
        return surface_distance_mm(self.mask, self.spacing_mm)

    def coverage(self, prediction: np.ndarray, margins_mm: Sequence[float]) -> tuple[pd.DataFrame, pd.DataFrame]:
        """What contours grown by margins cover of each lesion, and what they treat besides.

        Parameters
        ----------
        prediction : (X, Y, Z) bool array
            On the grid of the reference.
        margins_mm : sequence of floats
            Contours grow in 3D, see `surface_distance_mm`.

        Returns
        -------
        lesions : DataFrame
            ``table`` with ``detected``; ``covered_<m>``, the share of the lesion inside the contours grown by m mm;
            ``needed_95_mm`` and ``needed_98_mm``, the smallest margin that covers such a share. It is infinite for a
            missed lesion, even where the margin of a neighbour would reach it.
        treated : DataFrame
            A row per margin: ``margin_mm``; ``unneeded_cm3``, what the grown contours hold and the reference, grown
            alike, does not; ``target_cm3`` of the grown reference; ``false`` lesions.
        """
        away, labels, rows = surface_distance_mm(prediction, self.spacing_mm), self.labels, []
        lesion_of, away_inside = labels[self.mask], away[self.mask]
        touched = {*self.grown[prediction]}
        for lesion in self.table["lesion"]:
            voxels = away_inside[lesion_of == lesion]
            covered = {f"covered_{margin:g}": float(np.mean(voxels <= margin)) for margin in margins_mm}
            needed = np.quantile(voxels, (0.95, 0.98), method="inverted_cdf")
            last = dict(zip(("needed_95_mm", "needed_98_mm"), needed, strict=True))
            rows.append(covered | (last if lesion in touched else dict.fromkeys(last, np.inf)))
        lesions = self.table.assign(detected=self.table["lesion"].isin(touched))
        parts, n_parts = label_lesions(prediction)
        false, voxel_cm3 = n_parts - len({*parts[self.grown > 0]} - {0}), float(np.prod(self.spacing_mm)) / 1000
        treated = [
            {
                "margin_mm": margin,
                "unneeded_cm3": np.count_nonzero((away <= margin) & (self.distance > margin)) * voxel_cm3,
                "target_cm3": np.count_nonzero(self.distance <= margin) * voxel_cm3,
                "false": false,
            }
            for margin in margins_mm
        ]
        return lesions.join(pd.DataFrame(rows, index=lesions.index)), pd.DataFrame(treated)


def study_coverage(
    layout: StudyLayout,
    cohort: Cohort,
    models: Sequence[str],
    margins_mm: Sequence[float],
    second_reader: str = "",
    workers: int = 1,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Coverage of all patients of a study by the networks that never saw them, and by a second reader.

    Parameters
    ----------
    layout : StudyLayout
    cohort : Cohort
    models : sequence of str
        Networks that have predicted every fold.
    margins_mm : sequence of float
    second_reader : str
        Folder of masks ``<case>.nii.gz``, from the project folder; only the cases with such a mask are measured, so
        that all are compared on the same patients. "": none, and all cases are measured.
    workers : int

    Returns
    -------
    lesions, treated : DataFrame
        As of `Targets.coverage`, with ``model`` (or `SECOND_READER`), ``case`` and ``patient``; lesions also with
        their ``weight`` (`per_patient`).

    Raises
    ------
    CohortError
        A mask of the second reader belongs to no case, there is none, or a mask is not on the grid of its case; or no
        case has a lesion that is scored.
    """
    masks = {case.name: layout.prediction_files(case.name, case.fold, models) for case in cohort.cases}
    if second_reader:
        own = {path.name.removesuffix(".nii.gz"): path for path in second_reader_masks(second_reader)}
        known = {case.name for case in cohort.labelled}  # of those only for training nothing is predicted
        if unknown := sorted({*own} - known) or ([] if {*own} & {*masks} else ["no mask"]):
            expected = f"masks named as the cases, such as {cohort.cases[0].name}.nii.gz"
            raise CohortError.one("-", second_reader, shortened(unknown), expected, "rename them to these names")
        masks = {name: masks[name] | {SECOND_READER: path} for name, path in own.items() if name in masks}
    work = [(case, masks[case.name]) for case in cohort.cases if case.name in masks]
    measure = partial(_case_coverage, rule=cohort.rule, margins_mm=margins_mm)
    lesions, treated = zip(*map_cases(measure, work, workers, "measuring margins"), strict=True)
    if not any(map(len, lesions)):
        fix = "look at the masks: without lesions there is no margin to measure"
        raise CohortError.one("-", layout.dataset, "no lesion above 2 mm³", "cases with lesions", fix)
    of_cases = pd.concat(treated, ignore_index=True)
    return per_patient(pd.concat(lesions, ignore_index=True), of_cases), of_cases


def _case_coverage(
    work: tuple[Case, Mapping[str, Path]], rule: LesionRule, margins_mm: Sequence[float]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    case, masks = work
    reference = read_lesions(case, rule)
    drawn, inside = masks_on(reference, case.name, masks, rule), reference.array > 0
    box = box_around(np.any([inside, *drawn.values()], axis=0), max(margins_mm), reference.spacing_mm)
    targets, found = Targets.of(inside[box], reference.spacing_mm), []
    for model, mask in drawn.items():
        about = {"model": model, "case": case.name, "patient": case.patient}
        found.append([table.assign(**about) for table in targets.coverage(mask[box], margins_mm)])
    lesions, treated = (pd.concat(tables, ignore_index=True) for tables in zip(*found, strict=True))
    lesions[["x", "y", "z"]] += [axis.start for axis in box]
    return lesions, treated


def masks_on(reference: Volume, case: str, masks: Mapping[str, Path], rule: LesionRule) -> dict[str, np.ndarray]:
    """Masks of networks and of a second reader, whose masks are read by the rule of the study.

    Raises
    ------
    CohortError
        A mask is not on the grid of the reference.
    """
    found = {}
    for model, path in masks.items():
        drawn = read_mask(path, case, rule if model == SECOND_READER else OWN_MASKS)
        if not same_grid(reference, drawn):
            grids = describe_grid(drawn, reference), describe_grid(reference)
            raise CohortError.one(case, path, *grids, "predict or draw it again on the grid of the image")
        found[model] = drawn.array > 0
    return found
