"""Would one treat by these contours? What a margin around them covers, lesion by lesion, and what it treats besides."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import edt
import numpy as np
import pandas as pd

from metaseg_nb.cohort.cases import Case, Cohort, LesionRule
from metaseg_nb.cohort.lesions import UNSCORED_MM3, find_lesions, is_scored
from metaseg_nb.cohort.problems import CohortError
from metaseg_nb.cohort.volumes import describe_grid, read_lesions, read_mask, same_grid
from metaseg_nb.evaluation.comparison import bootstrap
from metaseg_nb.layout import StudyLayout
from metaseg_nb.parallel import map_cases

Spacing = tuple[float, float, float]
# Shares of a lesion that count as covered, as of a prescription dose in a target.
SHARES = (0.95, 0.98)
MARGINS_MM = (0.0, 1.0, 2.0, 3.0, 4.0, 5.0)
# Margins that are tried to find the smallest one that is enough.
STEPS_MM = np.arange(0, 201) / 10


def distance_mm(mask: np.ndarray, spacing_mm: Spacing) -> np.ndarray:
    """Distance of each voxel's centre to the nearest voxel of a mask, in mm; infinite for an empty mask.

    A mask grown by a margin is where this is at most the margin.
    """
    if not mask.any():
        return np.full(mask.shape, np.inf)
    return edt.edt(~mask.astype(bool), anisotropy=spacing_mm)


def lesion_coverage(
    reference: np.ndarray,
    prediction: np.ndarray,
    spacing_mm: Spacing,
    margins_mm: Sequence[float] = MARGINS_MM,
) -> pd.DataFrame:
    """What contours grown by margins cover of each reference lesion.

    Parameters
    ----------
    reference, prediction : (X, Y, Z) bool arrays on one grid
    spacing_mm : sequence of 3 floats
    margins_mm : sequence of floats
        Contours grow in 3D; a voxel belongs to the grown contour if its centre is at most so far from one inside.

    Returns
    -------
    DataFrame
        A row per lesion: ``lesion`` (number), ``diameter_mm`` (largest), ``volume_mm3``, ``found`` (it shares a voxel
        with the prediction), ``covered_<m>`` (share within a margin of m mm), ``needed_95_mm`` and ``needed_98_mm``
        (the smallest margin that covers such a share; infinite without any contour). Lesions of 2 mm³ and less are
        left out, as in notebook 04.
    """
    lesions = find_lesions(reference, spacing_mm)
    table = lesions.table[["lesion", "diameter_mm", "volume_mm3"]]
    table = table[is_scored(table["volume_mm3"], UNSCORED_MM3)].reset_index(drop=True)
    away = distance_mm(prediction, spacing_mm)
    rows = []
    for lesion in table["lesion"]:
        voxels = np.sort(away[tuple(lesions.voxels(int(lesion)).T)])
        covered = {f"covered_{margin:g}": float(np.mean(voxels <= margin)) for margin in margins_mm}
        last = {f"needed_{share:.0%}".rstrip("%") + "_mm": voxels[_last(share, len(voxels))] for share in SHARES}
        rows.append({"found": bool(voxels[0] == 0), **covered, **last})
    return pd.concat([table, pd.DataFrame(rows, index=table.index)], axis=1)


def _last(share: float, n: int) -> int:
    """Index of the farthest voxel that has to be covered, of n in order."""
    return int(np.ceil(share * n - 1e-9)) - 1


def treated_besides(
    reference: np.ndarray,
    prediction: np.ndarray,
    spacing_mm: Spacing,
    margins_mm: Sequence[float] = MARGINS_MM,
) -> pd.DataFrame:
    """What grown contours treat that the reference, grown alike, would not, and the targets that are made up or missed.

    Returns
    -------
    DataFrame
        A row per margin: ``margin_mm``, ``unneeded_cm3``, ``target_cm3`` (the grown reference), ``missed`` and
        ``false`` (lesions of the reference, of the prediction, that share no voxel with the other).
    """
    wanted, given = distance_mm(reference, spacing_mm), distance_mm(prediction, spacing_mm)
    voxel_cm3 = float(np.prod(spacing_mm)) / 1000
    counts = {"missed": _apart(reference, prediction, spacing_mm), "false": _apart(prediction, reference, spacing_mm)}
    rows = [
        {
            "margin_mm": margin,
            "unneeded_cm3": np.count_nonzero((given <= margin) & (wanted > margin)) * voxel_cm3,
            "target_cm3": np.count_nonzero(wanted <= margin) * voxel_cm3,
            **counts,
        }
        for margin in margins_mm
    ]
    return pd.DataFrame(rows)


def _apart(mask: np.ndarray, other: np.ndarray, spacing_mm: Spacing) -> int:
    """Scored lesions of a mask that share no voxel with another mask."""
    lesions = find_lesions(mask, spacing_mm)
    scored = lesions.table.loc[is_scored(lesions.table["volume_mm3"], UNSCORED_MM3), "lesion"]
    return len(set(scored) - set(np.unique(lesions.labels[other.astype(bool)])))


def study_coverage(
    layout: StudyLayout,
    cohort: Cohort,
    models: Sequence[str],
    folds: Sequence[int],
    margins_mm: Sequence[float] = MARGINS_MM,
    workers: int = 1,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Coverage of all test patients of a study, by networks that never saw them.

    Returns
    -------
    lesions : DataFrame
        `lesion_coverage` with ``model``, ``case`` and ``patient``.
    cases : DataFrame
        `treated_besides` with the same.
    """
    runs = {(model, fold): layout.run(model, fold).predictions for model in models for fold in folds}
    of_fold = {fold: [case for case in cohort.cases if case.fold == fold] for fold in folds}
    work = [
        (case, predictions / f"{case.name}.nii.gz", model)
        for (model, fold), predictions in runs.items()
        for case in of_fold[fold]
    ]
    measure = partial(_case_coverage, rule=cohort.rule, margins_mm=margins_mm)
    lesions, besides = zip(*map_cases(measure, work, workers, "measuring margins"), strict=True)
    return pd.concat(lesions, ignore_index=True), pd.concat(besides, ignore_index=True)


def reader_coverage(
    cohort: Cohort, second_reader: Path, margins_mm: Sequence[float] = MARGINS_MM, workers: int = 1
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Coverage of the reference by a second reader's masks, ``<case>.nii.gz`` in a folder: as `study_coverage`."""
    masks = {case: second_reader / f"{case.name}.nii.gz" for case in cohort.cases}
    work = [(case, path, "second reader") for case, path in masks.items() if path.is_file()]
    if not work:
        expected, fix = "a mask <case>.nii.gz for a case of the study", "correct `second_reader`"
        raise CohortError.one("-", second_reader, "no such mask", expected, fix)
    measure = partial(_case_coverage, rule=cohort.rule, margins_mm=margins_mm)
    lesions, besides = zip(*map_cases(measure, work, workers, "second reader"), strict=True)
    return pd.concat(lesions, ignore_index=True), pd.concat(besides, ignore_index=True)


def _case_coverage(
    work: tuple[Case, Path, str], rule: LesionRule, margins_mm: Sequence[float]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    case, mask, model = work
    reference, prediction = read_lesions(case, rule), read_mask(mask, case.name)
    if not same_grid(reference, prediction):
        found, expected = describe_grid(prediction), describe_grid(reference)
        raise CohortError.one(case.name, mask, found, expected, "predict or draw it again on the grid of the image")
    masks = (reference.array > 0, prediction.array > 0, reference.spacing_mm, margins_mm)
    about = {"model": model, "case": case.name, "patient": case.patient}
    return lesion_coverage(*masks).assign(**about), treated_besides(*masks).assign(**about)


def margin_needed(
    lesions: pd.DataFrame, n_bootstrap: int, seed: int, share_of_lesions: float = 0.95, needed: str = "needed_95_mm"
) -> tuple[float, float, float]:
    """The smallest margin that covers so many of the found lesions, with its 95 % interval over patients, in mm.

    Margins are tried in steps of 0.1 mm up to 20 mm; NaN where none of these is enough, or no lesion was found.

    Parameters
    ----------
    lesions : DataFrame
        Rows of `lesion_coverage` with ``patient``.
    n_bootstrap, seed : int
        Resamples of patients.
    share_of_lesions : float
        0 to 1.
    needed : str
        Column: the share of each lesion that is to be covered.
    """
    found = lesions[lesions["found"]]
    patients = found.groupby("patient")[needed]
    counts = [[*np.sum(values.to_numpy()[:, None] <= STEPS_MM + 1e-6, axis=0), len(values)] for _, values in patients]

    def smallest(sums: np.ndarray) -> np.ndarray:
        enough = sums[:, :-1] >= share_of_lesions * sums[:, -1:] - 1e-9
        return np.where(enough.any(axis=1), STEPS_MM[enough.argmax(axis=1)], np.nan)

    if not counts:
        return np.nan, np.nan, np.nan
    return bootstrap(smallest, np.array(counts, dtype=float), n_bootstrap, seed)
