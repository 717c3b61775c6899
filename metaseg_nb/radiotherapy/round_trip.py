"""Synthetic patients through DICOM and back: the way that a patient of the clinic goes, checked voxel by voxel."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from nibabel.affines import apply_affine

from metaseg_nb.cohort.cases import Case, LesionRule
from metaseg_nb.cohort.volumes import read_lesions, read_mask, read_volume
from metaseg_nb.demo_cohort.dicom import write_series
from metaseg_nb.files import finished_folder
from metaseg_nb.layout import StudyLayout
from metaseg_nb.radiotherapy.contours import rasterise
from metaseg_nb.radiotherapy.exporting import lesion_regions, one_series
from metaseg_nb.radiotherapy.importing import LABEL, import_dicom
from metaseg_nb.radiotherapy.planning import Choice
from metaseg_nb.radiotherapy.series import Series
from metaseg_nb.radiotherapy.structure_sets import read_structure_set, write_structure_set

# A brainstem of the synthetic head: centre and half axes in mm of the template's space.
BRAINSTEM, BRAINSTEM_AXES = (0, -28, -33), (13, 11, 24)


def round_trip(layout: StudyLayout, cases: Sequence[Case], rule: LesionRule, model: str) -> pd.DataFrame:
    """Write synthetic cases as DICOM, import them, and write their predictions as structure sets that are read again.

    Parameters
    ----------
    layout : StudyLayout
        Below ``radiotherapy/`` are written ``export/`` (series and structure sets), ``imported/`` and ``<model>/``.
    cases : sequence of Case
        With masks and folds.
    rule : LesionRule
    model : str
        Network whose predictions are written.

    Returns
    -------
    DataFrame
        A row per case: ``case``, ``slices``, ``regions`` (lesions in the structure set), ``different`` (voxels in which
        the imported mask and the reference differ), ``predicted`` (lesions), ``prediction_different`` (voxels in which
        the prediction and the structure set that was written of it differ).
    """
    export, imported, rows = layout.radiotherapy / "export", layout.radiotherapy / "imported", []
    references = {case.name: read_lesions(case, rule).array for case in cases}
    series = {case.name: _write_patient(export / case.name, case, references[case.name]) for case in cases}
    import_dicom(export, imported, Choice(), lambda kind, names: {name: name.split()[0] for name in names})
    for case in cases:
        reference, back = references[case.name], read_mask(imported / case.name / LABEL, case.name).array
        prediction = read_mask(layout.prediction_files(case.name, case.fold, [model])[model], case.name).array
        written, found = layout.radiotherapy / model / f"{case.name}.dcm", lesion_regions(prediction)
        if found:
            write_structure_set(written, found, series[case.name], model)
        again = _mask_of(written, series[case.name]) if found else np.zeros_like(prediction)
        row = {"case": case.name, "slices": reference.shape[2], "regions": len(lesion_regions(reference))}
        row |= {"different": int((reference != back).sum()), "predicted": len(found)}
        rows.append(row | {"prediction_different": int((prediction != again).sum())})
    return pd.DataFrame(rows)


def _write_patient(folder: Path, case: Case, mask: np.ndarray) -> Series:
    """Image and reference of a case as a planning system holds them; a synthetic brainstem beside the lesions.

    They are in RAS order, whatever the order of the file: columns, rows and slices of DICOM are right-handed.
    """
    image = read_volume(case.image, case.name)
    with finished_folder(folder) as unfinished:  # slices of an earlier version may be others
        write_series(unfinished, np.rint(image.array), image.affine, case.name)
    series = one_series(folder)
    regions = {name.replace("_auto", ""): region for name, region in lesion_regions(mask).items()}
    places = apply_affine(series.affine_ras, np.moveaxis(np.indices(series.shape), 0, -1))
    regions["Brainstem"] = (((places - BRAINSTEM) / BRAINSTEM_AXES) ** 2).sum(axis=-1) <= 1
    write_structure_set(folder / "structures.dcm", regions, series, "synthetic")
    return series


def _mask_of(path: Path, series: Series) -> np.ndarray:
    """All regions of a structure set as one mask on the grid of a series."""
    regions = read_structure_set(path).regions
    return np.any([rasterise(region.contours, series.shape, series.affine).mask for region in regions], axis=0)
