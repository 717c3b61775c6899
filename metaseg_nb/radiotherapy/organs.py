"""How near lesions lie to organs at risk, where the structure set of a case has them."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import ndimage

from metaseg_nb.cohort.cases import Case, Cohort, LesionRule
from metaseg_nb.cohort.lesions import dilate_by_one, distance_mm
from metaseg_nb.cohort.problems import CohortError, refusal
from metaseg_nb.cohort.volumes import describe_grid, read_lesions, read_volume, same_grid
from metaseg_nb.layout import StudyLayout
from metaseg_nb.machine import map_cases
from metaseg_nb.radiotherapy.importing import ORGANS, RECORD, whole_record
from metaseg_nb.radiotherapy.margins import Targets, masks_on
from metaseg_nb.settings import REFERENCE_MODEL

ORGAN_COLUMNS = ["model", "case", "patient", "lesion", "diameter_mm", "false", "organ", "distance_mm"]


def organ_distances(
    layout: StudyLayout, cohort: Cohort, imported: Path, models: Sequence[str], workers: int = 1
) -> pd.DataFrame:
    """Distance of each lesion, of the reference and of each network, to each organ at risk of its case.

    Parameters
    ----------
    layout : StudyLayout
    cohort : Cohort
    imported : Path
        Folder of imported cases. Cases that are not there, or have no organ at risk, have no row.
    models : sequence of str
        Networks; each case is predicted by the one of its fold.
    workers : int

    Returns
    -------
    DataFrame
        ``model`` (or `REFERENCE_MODEL`), ``case``, ``patient``, ``lesion`` (as `Targets` counts them), ``diameter_mm``,
        ``false`` (it detects no lesion of the reference), ``organ``, ``distance_mm`` (between the surfaces of both; 0:
        they touch or overlap).

    Raises
    ------
    CohortError
        What was imported of a case is lost or damaged, or organs or a prediction are not on the grid of its image.
    """
    work = []
    for case in cohort.cases:
        folder = imported / case.name
        record = whole_record(folder / RECORD) if folder.is_dir() else {"organs": []}
        if record is None:
            raise refusal("import of case", case, folder / RECORD, "a lost or damaged file")
        masks = layout.prediction_files(case.name, case.fold, models)
        work += [(case, folder / ORGANS, record["organs"], masks)] if record["organs"] else []
    tables = map_cases(partial(_distances, rule=cohort.rule), work, workers, "distances to organs")
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=ORGAN_COLUMNS)


def _distances(work: tuple[Case, Path, list[str], Mapping[str, Path]], rule: LesionRule) -> pd.DataFrame:
    case, path, names, masks = work
    organs, reference = read_volume(path, case.name, np.uint8), read_lesions(case, rule)
    if not same_grid(reference, organs):
        grids = describe_grid(organs, reference), describe_grid(reference)
        raise CohortError.one(case.name, path, *grids, "run notebook 01 again")
    # Each organ has a bit of its own: organs may overlap. Between two whole voxels lies one edge less than between
    # their centres: the organ takes its neighbours in.
    wider = (ndimage.maximum_filter(organs.array & 1 << bit > 0, 3) for bit in range(len(names)))
    away = {name: distance_mm(organ, reference.spacing_mm) for name, organ in zip(names, wider, strict=True)}
    drawn, rows = {REFERENCE_MODEL: reference.array > 0} | masks_on(reference, case.name, masks, rule), []
    detecting = dilate_by_one(reference.array > 0)
    for model, mask in drawn.items():
        targets = Targets.of(mask, reference.spacing_mm)
        for lesion in targets.table.itertuples():
            inside = targets.labels == lesion.Index
            false = not detecting[inside].any()
            about = (model, case.name, case.patient, lesion.lesion, lesion.diameter_mm, false)
            rows += [(*about, name, float(distance[inside].min())) for name, distance in away.items()]
    return pd.DataFrame(rows, columns=ORGAN_COLUMNS)
