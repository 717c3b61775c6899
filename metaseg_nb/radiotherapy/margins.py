"""What contours cover of each lesion when they are grown by a margin, and what they treat besides."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Self

import edt
import numpy as np
import pandas as pd

from metaseg_nb.cohort.cases import Case, Cohort, LesionRule
from metaseg_nb.cohort.lesions import UNSCORED_MM3, dilate_by_one, is_scored, label_lesions, lesion_table
from metaseg_nb.cohort.problems import CohortError
from metaseg_nb.cohort.volumes import describe_grid, read_lesions, read_mask, same_grid
from metaseg_nb.evaluation.comparison import Estimate, bootstrap
from metaseg_nb.evaluation.voxel_metrics import Spacing
from metaseg_nb.layout import PROJECT, StudyLayout
from metaseg_nb.parallel import map_cases

SECOND_READER = "second reader"


def distance_mm(mask: np.ndarray, spacing_mm: Spacing) -> np.ndarray:
    """Distance of each voxel's centre to that of the nearest voxel of a mask, in mm; infinite for an empty mask.

    A mask grown by a margin is where this is at most the margin.
    """
    if not mask.any():
        return np.full(mask.shape, np.inf)
    return edt.edt(~mask.astype(bool), anisotropy=spacing_mm)


@dataclass(frozen=True)
class Targets:
    """The lesions of a reference that are scored, by the rules of `lesion_metrics`; make it with `of`.

    Arrays have the shape (X, Y, Z): ``labels`` are numbers of lesions, ``grown`` those of the dilated lesions, by which
    a prediction detects them, ``distance`` is that to the reference.
    """

    table: pd.DataFrame
    labels: np.ndarray
    grown: np.ndarray
    distance: np.ndarray
    spacing_mm: Spacing

    @classmethod
    def of(cls, reference: np.ndarray, spacing_mm: Spacing) -> Self:
        """Find the lesions of a mask, bool of shape (X, Y, Z)."""
        grown, n = label_lesions(dilate_by_one(reference))
        labels = np.where(reference, grown, 0)
        table = lesion_table(labels, n, spacing_mm)
        table = table.loc[
            is_scored(table["volume_mm3"], UNSCORED_MM3), ["lesion", "diameter_mm", "volume_mm3", "x", "y", "z"]
        ]
        return cls(table.reset_index(drop=True), labels, grown, distance_mm(reference, spacing_mm), spacing_mm)

    def coverage(self, prediction: np.ndarray, margins_mm: Sequence[float]) -> tuple[pd.DataFrame, pd.DataFrame]:
        """What contours grown by margins cover of each lesion, and what they treat besides.

        Parameters
        ----------
        prediction : (X, Y, Z) bool array
            On the grid of the reference.
        margins_mm : sequence of floats
            Contours grow in 3D, see `distance_mm`.

        Returns
        -------
        lesions : DataFrame
            A row per lesion: ``lesion``, ``diameter_mm`` (largest), ``volume_mm3``, ``x``, ``y``, ``z`` (centre,
            voxel), ``detected``; ``covered_<m>``, the
            share of the lesion inside the contours grown by m mm; ``needed_95_mm`` and ``needed_98_mm``, the smallest
            margin that covers such a share, infinite without any contour.
        treated : DataFrame
            A row per margin: ``margin_mm``; ``unneeded_cm3``, what the grown contours hold and the reference, grown
            alike, does not; ``target_cm3`` of the grown reference; ``missed`` and ``false`` lesions.
        """
        away, inside, rows = distance_mm(prediction, self.spacing_mm), self.labels > 0, []
        lesion_of, away_inside = self.labels[inside], away[inside]
        for lesion in self.table["lesion"]:
            voxels = np.sort(away_inside[lesion_of == lesion])
            covered = {f"covered_{margin:g}": float(np.mean(voxels <= margin)) for margin in margins_mm}
            needed = {f"needed_{share}_mm": voxels[_last(share / 100, len(voxels))] for share in (95, 98)}
            rows.append({**covered, **needed})
        detected = self.table["lesion"].isin(np.unique(self.grown[prediction]))
        lesions = self.table.assign(detected=detected).join(pd.DataFrame(rows, index=self.table.index))
        parts, n_parts = label_lesions(prediction)
        counts = {"missed": int((~detected).sum()), "false": n_parts - len({*parts[self.grown > 0]} - {0})}
        voxel_cm3 = float(np.prod(self.spacing_mm)) / 1000
        treated = [
            {
                "margin_mm": margin,
                "unneeded_cm3": np.count_nonzero((away <= margin) & (self.distance > margin)) * voxel_cm3,
                "target_cm3": np.count_nonzero(self.distance <= margin) * voxel_cm3,
                **counts,
            }
            for margin in margins_mm
        ]
        return lesions, pd.DataFrame(treated)


def _last(share: float, n: int) -> int:
    """Index of the farthest voxel that has to be covered, of n in order."""
    return int(np.ceil(share * n - 1e-9)) - 1


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
        Folder of masks ``<case>.nii.gz``, from the project folder; "": none. Cases that are not there were read once.
    workers : int

    Returns
    -------
    lesions, treated : DataFrame
        As of `Targets.coverage`, with ``model`` (or `SECOND_READER`), ``case`` and ``patient``.

    Raises
    ------
    CohortError
        There is no mask of a second reader, or a mask is not on the grid of its case.
    """
    work = []
    for case in cohort.cases:
        file = f"{case.name}.nii.gz"
        masks = {model: layout.run(model, case.fold or 0).predictions / file for model in models}
        own = PROJECT / Path(second_reader).expanduser() / file
        work.append((case, masks | ({SECOND_READER: own} if second_reader and own.is_file() else {})))
    if second_reader and not any(SECOND_READER in masks for _, masks in work):
        expected = f"masks named as the cases, such as {cohort.cases[0].name}.nii.gz"
        raise CohortError.one("-", second_reader, "no mask of a case", expected, "correct `second_reader`")
    measure = partial(_case_coverage, rule=cohort.rule, margins_mm=margins_mm)
    lesions, treated = zip(*map_cases(measure, work, workers, "measuring margins"), strict=True)
    return pd.concat(lesions, ignore_index=True), pd.concat(treated, ignore_index=True)


def _case_coverage(
    work: tuple[Case, Mapping[str, Path]], rule: LesionRule, margins_mm: Sequence[float]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    case, masks = work
    reference = read_lesions(case, rule)
    targets, found = Targets.of(reference.array > 0, reference.spacing_mm), []
    for model, path in masks.items():
        drawn = read_mask(path, case.name)
        if not same_grid(reference, drawn):
            grids = describe_grid(drawn), describe_grid(reference)
            raise CohortError.one(case.name, path, *grids, "predict or draw it again on the grid of the image")
        about = {"model": model, "case": case.name, "patient": case.patient}
        found.append([table.assign(**about) for table in targets.coverage(drawn.array > 0, margins_mm)])
    lesions, treated = zip(*found, strict=True)
    return pd.concat(lesions, ignore_index=True), pd.concat(treated, ignore_index=True)


def margin_table(lesions: pd.DataFrame, by: Sequence[str], n_bootstrap: int, seed: int) -> pd.DataFrame:
    """How many lesions are missed, and which margin the detected ones need, for each group of lesions.

    Parameters
    ----------
    lesions : DataFrame
        Rows of `lesion_coverage` with ``patient``.
    by : sequence of str
        Columns that make the groups, such as ``model``.
    n_bootstrap, seed : int
        Resamples of patients.

    Returns
    -------
    DataFrame
        A row per group: ``by``, ``patients``, ``lesions``, ``missed``, ``covered_as_drawn`` (share of the detected
        lesions that are covered by 95 % without a margin), ``margin_mm``, ``low_mm``, ``high_mm`` (`margin_needed`).
    """
    rows = []
    for group, own in lesions.groupby(list(by), observed=True):
        row = dict(zip(by, group, strict=True))
        row |= {"patients": own["patient"].nunique(), "lesions": len(own), "missed": int((~own["detected"]).sum())}
        row["covered_as_drawn"] = (own.loc[own["detected"], "needed_95_mm"] <= 0).mean()
        needed = margin_needed(own, n_bootstrap, seed)
        rows.append(row | dict(zip(("margin_mm", "low_mm", "high_mm"), needed, strict=True)))
    return pd.DataFrame(rows).astype({name: lesions[name].dtype for name in by})


def margin_needed(lesions: pd.DataFrame, n_bootstrap: int, seed: int) -> Estimate:
    """The smallest margin that covers 95 % of the detected lesions, each by 95 % of its volume or more.

    Returns
    -------
    margin, low, high : float
        In mm, with its 95 % interval over patients; NaN if no lesion was detected.
    """
    detected = lesions[lesions["detected"]]
    if detected.empty:
        return np.nan, np.nan, np.nan
    needed = detected["needed_95_mm"].to_numpy()
    margins = np.unique(needed)
    covered = pd.DataFrame(needed[:, None] <= margins).assign(lesions=1)
    of_patients = covered.groupby(detected["patient"].to_numpy()).sum().to_numpy(float)

    def smallest(sums: np.ndarray) -> np.ndarray:
        return margins[(sums[:, :-1] >= 0.95 * sums[:, -1:] - 1e-9).argmax(axis=1)]

    return bootstrap(smallest, of_patients, n_bootstrap, seed)
