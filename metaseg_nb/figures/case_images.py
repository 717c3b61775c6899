"""An image with the masks that are compared on it: reference and networks."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
from nibabel.affines import from_matvec

from metaseg_nb.cohort.cases import Case, Cohort, case_named
from metaseg_nb.cohort.head import with_dark_background
from metaseg_nb.cohort.labels import read_lesions, read_mask
from metaseg_nb.cohort.lesions import dilate_by_one, find_lesions, label_lesions
from metaseg_nb.cohort.thumbnail import shown_window
from metaseg_nb.cohort.volumes import Volume, read_volume
from metaseg_nb.figures.style import FOUND, PREDICTION, REFERENCE
from metaseg_nb.layout import StudyLayout

# What the values 1, 2, 3 of `CaseImages.agreement` mean: what only one of the two marks has the colour of that one.
AGREEMENT_COLOURS = {"found": FOUND, "missed": REFERENCE, "false": PREDICTION}


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
    predictions = {model: read_mask(path, name).array for model, path in prediction_files(layout, case, models).items()}
    return CaseImages(name, read_image(case), read_lesions(case, cohort.rule).array, predictions)


def prediction_files(layout: StudyLayout, case: Case, models: Sequence[str]) -> dict[str, Path]:
    """The prediction of each network for a case, made by the model that did not see it."""
    assert case.fold is not None, "cases of a study have folds"
    return {model: layout.run(model, case.fold).predictions / f"{case.name}.nii.gz" for model in models}


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
