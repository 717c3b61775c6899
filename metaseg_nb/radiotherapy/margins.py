"""What contours cover of lesions when they are grown by a margin, what they treat besides, and which margin it takes.

Intervals are over patients.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import product
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd

from metaseg_nb.cohort.cases import Case, Cohort, LesionRule
from metaseg_nb.cohort.head import find_head
from metaseg_nb.cohort.lesions import (
    UNSCORED_MM3,
    box_around,
    dilate_by_one,
    is_scored,
    label_lesions,
    lesion_table,
    surface_distance_mm,
)
from metaseg_nb.cohort.problems import CohortError, refusal, shortened
from metaseg_nb.cohort.volumes import OWN_MASKS, Volume, describe_grid, read_lesions, read_mask, read_volume, same_grid
from metaseg_nb.evaluation.intervals import Estimate, bootstrap, share, share_difference
from metaseg_nb.evaluation.strata import per_patient, weighted
from metaseg_nb.evaluation.voxel_metrics import Spacing
from metaseg_nb.layout import StudyLayout, second_reader_masks
from metaseg_nb.machine import map_cases

SECOND_READER = "second reader"
# Lesions: 0.95 to the power of 72 is 0.025.
FOR_AN_UPPER_LIMIT = 72


@dataclass(frozen=True)
class Targets:
    """The lesions of a mask that are scored, by the rules of `lesion_metrics`; make it with `of`.

    ``table`` has a row per lesion: ``lesion`` (1 to n), ``diameter_mm`` (largest), ``volume_mm3``, ``x``, ``y``, ``z``
    (centre, voxel). Its index is the lesion's number in the arrays, which have the mask's shape: in ``labels`` of its
    voxels, in ``grown`` of the dilated lesion, by which a prediction detects it. Other numbers are of lesions that are
    not scored.
    """

    mask: np.ndarray
    table: pd.DataFrame
    grown: np.ndarray
    spacing_mm: Spacing

    @classmethod
    def of(cls, mask: np.ndarray, spacing_mm: Spacing) -> Self:
        """Find the lesions of a mask, bool of shape (X, Y, Z)."""
        grown, n = label_lesions(dilate_by_one(mask))
        table = lesion_table(np.where(mask, grown, 0), n, spacing_mm).set_index("lesion", drop=False)
        table = table[is_scored(table["volume_mm3"], UNSCORED_MM3)].drop(columns="voxels")
        return cls(mask, table.assign(lesion=np.arange(1, len(table) + 1)), grown, spacing_mm)

    @cached_property
    def labels(self) -> np.ndarray:
        """The number of its lesion in each voxel of the mask, else 0."""
        return np.where(self.mask, self.grown, 0)

    @cached_property
    def distance(self) -> np.ndarray:
        """Of each voxel to the mask; see `surface_distance_mm`."""
        return surface_distance_mm(self.mask, self.spacing_mm)

    def coverage(
        self, prediction: np.ndarray, margins_mm: Sequence[float], head: np.ndarray | bool = True
    ) -> tuple[pd.DataFrame, pd.DataFrame]:
        """What contours grown by margins cover of each lesion, and what they treat besides.

        Parameters
        ----------
        prediction : (X, Y, Z) bool array
            On the grid of the reference.
        margins_mm : sequence of floats
            Contours grow in 3D, see `surface_distance_mm`.
        head : (X, Y, Z) bool array, or True
            Where volumes are counted: air around the head is not treated. True: everywhere.

        Returns
        -------
        lesions : DataFrame
            ``table`` with ``detected``; ``covered_<m>``, the share of the lesion inside the contours grown by m mm;
            ``needed_95_mm`` and ``needed_98_mm``, the smallest margin that covers such a share. It is infinite for a
            missed lesion, even where the margin of a neighbour would reach it.
        treated : DataFrame
            A row per margin: ``margin_mm``; ``unneeded_cm3``, what the grown contours hold of the head, be it brain or
            skull, and the reference, grown alike, does not; ``target_cm3`` of the grown reference; ``false`` lesions.
        """
        away, rows = surface_distance_mm(prediction, self.spacing_mm), []
        number_of, away_inside = self.grown[self.mask], away[self.mask]
        touched = {*self.grown[prediction]}
        for number in self.table.index:
            voxels = away_inside[number_of == number]
            covered = {f"covered_{margin:g}": float(np.mean(voxels <= margin)) for margin in margins_mm}
            needed = np.quantile(voxels, (0.95, 0.98), method="inverted_cdf")
            last = dict(zip(("needed_95_mm", "needed_98_mm"), needed, strict=True))
            rows.append(covered | (last if number in touched else dict.fromkeys(last, np.inf)))
        lesions = self.table.assign(detected=self.table.index.isin(touched))
        parts, n_parts = label_lesions(prediction)
        false, voxel_cm3 = n_parts - len({*parts[self.grown > 0]} - {0}), float(np.prod(self.spacing_mm)) / 1000
        unneeded = [np.count_nonzero((away <= margin) & (self.distance > margin) & head) for margin in margins_mm]
        target = [np.count_nonzero((self.distance <= margin) & head) for margin in margins_mm]
        cm3 = {"unneeded_cm3": np.multiply(unneeded, voxel_cm3), "target_cm3": np.multiply(target, voxel_cm3)}
        treated = pd.DataFrame({"margin_mm": margins_mm, **cm3, "false": false})
        return lesions.join(pd.DataFrame(rows, lesions.index)).reset_index(drop=True), treated


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
            raise refusal("masks of reader", "-", second_reader, shortened(unknown), name=cohort.cases[0].name)
        masks = {name: masks[name] | {SECOND_READER: path} for name, path in own.items() if name in masks}
    work = [(case, masks[case.name]) for case in cohort.cases if case.name in masks]
    measure = partial(_case_coverage, rule=cohort.rule, margins_mm=margins_mm)
    lesions, treated = zip(*map_cases(measure, work, workers, "measuring margins"), strict=True)
    if not any(map(len, lesions)):
        raise refusal("cases with lesions", "-", layout.dataset, "no lesion above 2 mm³")
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
    image = read_volume(case.image, case.name)
    head = find_head(image.array, image.spacing_mm)
    in_head = True if head is None else head.on_image(inside.shape)[box]
    for model, mask in drawn.items():
        about = {"model": model, "case": case.name, "patient": case.patient}
        found.append([table.assign(**about) for table in targets.coverage(mask[box], margins_mm, in_head)])
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


def covered_shares(
    lesions: pd.DataFrame, by: Sequence[str], margins_mm: Sequence[float], n_bootstrap: int, seed: int
) -> pd.DataFrame:
    """Share of all lesions, detected or not, that contours cover when they are grown by each margin.

    Parameters
    ----------
    lesions : DataFrame
        From `study_coverage`, with the columns ``by``.
    by : sequence of str
        Columns that make the groups, such as ``network``.
    margins_mm : sequence of float
    n_bootstrap, seed : int
        Resamples of patients, each with all lesions.

    Returns
    -------
    DataFrame
        A row per group, ``covered_by`` (95 or 98: % of the volume of a covered lesion) and ``margin_mm``: ``share``
        (0 to 1), ``low``, ``high`` (95 % interval).
    """
    rows = []
    for group, own in lesions.groupby(list(by), observed=True):
        for covered_by, margin in product((95, 98), margins_mm):
            covered = weighted(own.assign(covered=own[f"needed_{covered_by}_mm"] <= margin), "covered")
            rows.append((*group, covered_by, margin, *share(covered["sum"], covered["n"], n_bootstrap, seed)))
    columns = [*by, "covered_by", "margin_mm", "share", "low", "high"]
    return pd.DataFrame(rows, columns=columns).astype({name: lesions[name].dtype for name in by})


def covered_lead(lesions: pd.DataFrame, margin_mm: float, pair: Sequence[str], n_bootstrap: int, seed: int) -> Estimate:
    """Share of all lesions that the first ``network`` of a pair covers by 95 % with this margin, minus the second's.

    With its 95 % interval over patients; NaN where all resamples are equal, for so few tell nothing.
    """
    covered = lesions.assign(covered=lesions["needed_95_mm"] <= margin_mm)
    first, second = (weighted(covered[covered["network"] == network], "covered") for network in pair)
    found, low, high = share_difference(first, second, n_bootstrap, seed)
    return (found, low, high) if low < high else (found, np.nan, np.nan)


def margin_table(lesions: pd.DataFrame, by: Sequence[str], n_bootstrap: int, seed: int) -> pd.DataFrame:
    """How many lesions are missed, and which margin the detected ones need, for each group of lesions.

    Parameters
    ----------
    lesions : DataFrame
        From `study_coverage`, with the columns ``by``.
    by : sequence of str
        Columns that make the groups, such as ``model``.
    n_bootstrap, seed : int
        Resamples of patients.

    Returns
    -------
    DataFrame
        A row per group: ``by``, ``patients``, ``lesions``, ``missed``, ``margin_mm``, ``low_mm``, ``high_mm``
        (`margin_needed`).
    """
    rows = []
    for group, own in lesions.groupby(list(by), observed=True):
        about = (own["patient"].nunique(), len(own), int((~own["detected"]).sum()))
        rows.append((*group, *about, *margin_needed(own, n_bootstrap, seed)))
    columns = [*by, "patients", "lesions", "missed", "margin_mm", "low_mm", "high_mm"]
    return pd.DataFrame(rows, columns=columns).astype({name: lesions[name].dtype for name in by})


def margin_needed(lesions: pd.DataFrame, n_bootstrap: int, seed: int) -> Estimate:
    """The smallest margin that covers 95 % of the detected lesions, each by 95 % of its volume or more.

    Lesions count by their ``weight``.

    Returns
    -------
    margin, low, high : float
        In mm, with its 95 % interval over patients; NaN if no lesion was detected, and for the ends of one patient's.
        With 97.5 % probability at least one of `FOR_AN_UPPER_LIMIT` detected lesions is above the margin that is
        sought. Of fewer, resampling cannot see how large it may be: then ``high`` is infinite.
    """
    detected = lesions[lesions["detected"]]
    if detected.empty:
        return np.nan, np.nan, np.nan
    needed = detected["needed_95_mm"].to_numpy()
    margins = np.unique(needed)
    covered = pd.DataFrame(needed[:, None] <= margins).assign(lesions=1.0).mul(detected["weight"].to_numpy(), axis=0)
    of_patients = covered.groupby(detected["patient"].to_numpy()).sum().to_numpy(float)

    def smallest(sums: np.ndarray) -> np.ndarray:
        return margins[(sums[:, :-1] >= 0.95 * sums[:, -1:] - 1e-9).argmax(axis=1)]

    found, low, high = bootstrap(smallest, of_patients, n_bootstrap, seed)
    open_ended = low <= high and len(needed) < FOR_AN_UPPER_LIMIT
    return found, low, np.inf if open_ended else high
