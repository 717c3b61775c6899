"""What is reviewed of a study: its tables from notebook 04, and a case's image with the masks compared on it."""

import gzip
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from typing import Self

import nibabel as nib
import numpy as np
import pandas as pd
from nibabel.affines import from_matvec

from metaseg_nb.cohort.cases import Case, Cohort, case_named
from metaseg_nb.cohort.datalist import read_study_cohort, read_written
from metaseg_nb.cohort.head import shown_window, with_dark_background
from metaseg_nb.cohort.lesions import dilate_by_one, find_lesions, label_lesions
from metaseg_nb.cohort.problems import CohortError, Problem
from metaseg_nb.cohort.volumes import Volume, read_lesions, read_mask, read_volume
from metaseg_nb.figures.style import FOUND, PREDICTION, REFERENCE
from metaseg_nb.files import read_table
from metaseg_nb.layout import StudyLayout, home
from metaseg_nb.settings import THRESHOLD_MODEL

# What the values 1, 2, 3 of `CaseImages.agreement` mean: what only one of the two marks has the colour of that one.
AGREEMENT_COLOURS = {"found": FOUND, "missed": REFERENCE, "false": PREDICTION}


@dataclass(frozen=True)
class StudyTables:
    """A study whose networks have been compared.

    Parameters
    ----------
    layout : StudyLayout
    cohort : Cohort
    board, metrics, lesions : DataFrame
        Pooled: a row per model, per (``model``, case) and per (``model``, reference lesion).
    models : list of str
        Networks, best first, without the intensity threshold.
    runs : dict of (str, int) to dict
        What each run says of itself, by network and fold.
    """

    layout: StudyLayout
    cohort: Cohort
    board: pd.DataFrame
    metrics: pd.DataFrame
    lesions: pd.DataFrame
    models: list[str]
    runs: dict[tuple[str, int], dict]

    @classmethod
    def read(cls, study: str) -> Self:
        """Read the tables of a study.

        Raises
        ------
        CohortError
            Notebook 04 has not been run, or not since a network was trained or scored again; or a prediction, a table
            of a run or one of 01 or 04 is lost, or not as it was written.
        """
        # loads torch and MONAI, which the processes that draw the gallery do not need: 300 MB each
        from metaseg_nb.training.finished_run import read_finished

        layout = StudyLayout(study)
        names = ("leaderboard", "metrics", "lesions")
        board, metrics, lesions = (read_written(layout, layout.cross_validation / f"{name}.csv") for name in names)
        models, cohort = [model for model in board["model"] if model != THRESHOLD_MODEL], read_study_cohort(layout)
        runs = {run: read_finished(layout.run(*run)) for run in product(models, range(cohort.n_folds))}
        fix = f"run notebook 04 (`python -m metaseg_nb run 04_cross_validation --study {study}`), then 05"
        if later := [run for run in runs if not _is_pooled(metrics, layout, *run)]:
            raise CohortError(
                Problem(f"{model}, fold {fold}", "metrics.csv", "other scores than in 04", "one training", fix)
                for model, fold in later
            )
        return cls(layout, cohort, board, metrics, lesions, models, runs)


def finished_studies() -> list[str]:
    """Studies that have a leaderboard."""
    return sorted(path.parts[-3] for path in (home() / "runs").glob("*/cross_validation/provenance.json"))


def _is_pooled(metrics: pd.DataFrame, layout: StudyLayout, model: str, fold: int) -> bool:
    """Tell whether the scores of a run are those that 04 pooled."""
    pooled = metrics[(metrics["model"] == model) & (metrics["fold"] == fold)]
    own = read_table(layout.run(model, fold).metrics_table)
    columns = own.select_dtypes("number").columns.intersection(pooled.columns)
    return np.array_equal(pooled[columns].to_numpy(float), own[columns].to_numpy(float), equal_nan=True)


@dataclass(frozen=True)
class CaseImages:
    """What is looked at of a case.

    Parameters
    ----------
    name : str
    image : Volume
        First sequence, RAS order.
    reference : ndarray of bool, shape (X, Y, Z)
    predictions : dict of str to ndarray of bool, shape (X, Y, Z)
        By network.
    """

    name: str
    image: Volume
    reference: np.ndarray
    predictions: dict[str, np.ndarray]

    @property
    def marked(self) -> np.ndarray:
        """The mask to look at: the reference, or the first prediction that marks anything where it is empty."""
        return next((mask for mask in (self.reference, *self.predictions.values()) if mask.any()), self.reference)

    @property
    def place(self) -> tuple[int, int, int]:
        """Voxel in the largest lesion of `marked`; the middle where nothing is marked."""
        return centre_of_largest(self.marked)

    @cached_property
    def greys(self) -> tuple[float, float]:
        """Values of the image that are drawn black and white."""
        return shown_window(self.image.array)

    def file(self, array: np.ndarray) -> bytes:
        """An array on this grid as a compressed NIfTI file."""
        return gzip.compress(self.nifti(array).to_bytes(), compresslevel=1)

    def agreement(self, model: str) -> np.ndarray:
        """Compare a network with the reference: 1 in both, 2 in the reference only, 3 in the network only, else 0."""
        reference, prediction = self.reference, self.predictions[model]
        return np.select([reference & prediction, reference, prediction], [1, 2, 3], 0).astype(np.uint8)

    def nifti(self, array: np.ndarray, kept: tuple[slice, ...] = (slice(None),) * 3) -> nib.Nifti1Image:
        """An array on this grid, or a part of it, as an image in memory: no header field of the file comes along."""
        affine = self.image.affine @ from_matvec(np.eye(3), [part.start or 0 for part in kept])
        return nib.Nifti1Image(np.ascontiguousarray(array[kept]), affine)


def read_case_images(layout: StudyLayout, cohort: Cohort, name: str, models: Sequence[str]) -> CaseImages:
    """Read a case of a study with its reference and the predictions of networks, each by the model of its fold."""
    case = case_named(cohort.cases, name)
    files = layout.prediction_files(name, case.fold, models)
    predictions = {model: read_mask(path, name).array for model, path in files.items()}
    return CaseImages(name, read_image(case), read_lesions(case, cohort.rule).array, predictions)


def read_image(case: Case) -> Volume:
    """First sequence of a case, to look at: its background is dark, whatever its value in the file."""
    image = read_volume(case.image, case.name)
    return replace(image, array=with_dark_background(image.array))


def centre_of_largest(mask: np.ndarray) -> tuple[int, int, int]:
    """A voxel of the largest lesion of a mask, nearest to its centre of mass; the volume's middle when empty."""
    labels, n = label_lesions(mask)
    if n == 0:
        x, y, z = (size // 2 for size in mask.shape)
    else:
        voxels = np.argwhere(labels == np.bincount(labels.ravel())[1:].argmax() + 1)
        x, y, z = voxels[((voxels - voxels.mean(axis=0)) ** 2).sum(axis=1).argmin()].tolist()
    return x, y, z


def false_lesions(
    reference: np.ndarray, prediction: np.ndarray, spacing_mm: tuple[float, float, float]
) -> pd.DataFrame:
    """Describe the predicted lesions that are false as `lesion_metrics` counts: they touch no dilated reference lesion.

    Returns
    -------
    DataFrame
        As `lesion_table`: ``lesion``, ``voxels``, ``volume_mm3``, ``diameter_mm``, ``x``, ``y``, ``z``; largest first.
    """
    lesions = find_lesions(prediction, spacing_mm)
    touching = np.unique(lesions.labels[dilate_by_one(reference)])
    table = lesions.table
    return table[~table["lesion"].isin(touching)].sort_values("volume_mm3", ascending=False, ignore_index=True)
