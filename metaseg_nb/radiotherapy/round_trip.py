"""Synthetic patients through DICOM and back: the way that a patient of the clinic goes, checked voxel by voxel."""

from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
from nibabel.affines import apply_affine

from metaseg_nb.cohort.cases import Case, LesionRule
from metaseg_nb.cohort.volumes import read_lesions, read_mask
from metaseg_nb.demo_cohort.dicom import write_series
from metaseg_nb.layout import StudyLayout
from metaseg_nb.radiotherapy.contours import rasterise
from metaseg_nb.radiotherapy.exporting import lesion_regions, one_series, write_prediction
from metaseg_nb.radiotherapy.importing import import_dicom
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
    series = {case.name: _write_patient(export / case.name, case, rule) for case in cases}
    import_dicom(export, imported, Choice(), lambda kind, names: {name: name.split()[0] for name in names})
    for case in cases:
        reference, back = read_lesions(case, rule), read_mask(imported / case.name / "label.nii.gz", case.name)
        prediction = layout.prediction_files(case.name, case.fold, [model])[model]
        written = layout.radiotherapy / model / f"{case.name}.dcm"
        n = write_prediction(written, prediction, series[case.name], model, segmentation=False)
        mask = np.asarray(nib.Nifti1Image.from_filename(prediction).dataobj) > 0
        again = _mask_of(written, series[case.name]) if n else np.zeros_like(mask)
        row = {
            "case": case.name,
            "slices": series[case.name].shape[2],
            "regions": len(lesion_regions(reference.array > 0)),
        }
        row |= {"different": int(((reference.array > 0) != back.array).sum()), "predicted": n}
        rows.append(row | {"prediction_different": int((mask != again).sum())})
    return pd.DataFrame(rows)


def _write_patient(folder: Path, case: Case, rule: LesionRule) -> Series:
    """Image and reference of a case as a planning system holds them; a synthetic brainstem beside the lesions."""
    image, mask = nib.Nifti1Image.from_filename(case.image), read_lesions(case, rule)
    write_series(folder, np.rint(np.asarray(image.dataobj)), np.asarray(image.affine), case.name)
    series = one_series(folder)
    own = nib.orientations.ornt_transform(
        nib.orientations.axcodes2ornt("RAS"), nib.orientations.io_orientation(series.affine_ras)
    )
    lesions = lesion_regions(nib.orientations.apply_orientation(mask.array > 0, own))
    regions = {name.replace("_auto", ""): region for name, region in lesions.items()}
    places = apply_affine(series.affine_ras, np.moveaxis(np.indices(series.shape), 0, -1))
    regions["Brainstem"] = (((places - BRAINSTEM) / BRAINSTEM_AXES) ** 2).sum(axis=-1) <= 1
    write_structure_set(folder / "structures.dcm", regions, series, "synthetic")
    return series


def _mask_of(path: Path, series: Series) -> np.ndarray:
    """All regions of a structure set as one mask on the grid of a series."""
    regions = read_structure_set(path).regions
    return np.any([rasterise(region.contours, series.shape, series.affine).mask for region in regions], axis=0)
