"""How near lesions lie to organs at risk, where the structure set of a case has them."""

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from metaseg_nb.cohort.cases import Case, Cohort, LesionRule
from metaseg_nb.cohort.lesions import find_lesions
from metaseg_nb.cohort.volumes import read_lesions, read_mask, read_volume
from metaseg_nb.layout import StudyLayout
from metaseg_nb.parallel import map_cases
from metaseg_nb.radiotherapy.importing import ORGANS, RECORD
from metaseg_nb.radiotherapy.margins import distance_mm

COLUMNS = ["model", "case", "patient", "lesion", "diameter_mm", "organ", "distance_mm"]
REFERENCE = "reference"


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
        ``model`` (or `REFERENCE`), ``case``, ``patient``, ``lesion``, ``diameter_mm``, ``organ`` (name in the structure
        set), ``distance_mm`` (between the centres of the nearest voxels; 0: they share a voxel).
    """
    work = []
    for case in cohort.cases:
        folder = imported / case.name
        names = json.loads((folder / RECORD).read_text(encoding="utf-8"))["organs"] if folder.is_dir() else []
        masks = {model: layout.run(model, case.fold or 0).predictions / f"{case.name}.nii.gz" for model in models}
        work += [(case, folder / ORGANS, names, masks)] if names else []
    tables = map_cases(partial(_distances, rule=cohort.rule), work, workers, "distances to organs")
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=COLUMNS)


def _distances(work: tuple[Case, Path, list[str], Mapping[str, Path]], rule: LesionRule) -> pd.DataFrame:
    case, path, names, masks = work
    organs, reference = read_volume(path, case.name).array, read_lesions(case, rule)
    away = {name: distance_mm(organs == number, reference.spacing_mm) for number, name in enumerate(names, 1)}
    drawn = {REFERENCE: reference.array > 0} | {
        model: read_mask(path, case.name).array for model, path in masks.items()
    }
    rows = []
    for model, mask in drawn.items():
        lesions = find_lesions(mask, reference.spacing_mm)
        for lesion in lesions.table.itertuples():
            voxels = tuple(lesions.voxels(int(lesion.lesion)).T)
            about = (model, case.name, case.patient, lesion.lesion, lesion.diameter_mm)
            rows += [(*about, name, float(np.min(distance[voxels]))) for name, distance in away.items()]
    return pd.DataFrame(rows, columns=COLUMNS)
