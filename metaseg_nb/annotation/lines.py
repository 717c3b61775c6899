"""Lesions of which only a line is drawn, along the longest axial diameter: the mask is grown from it on the image."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from metaseg_nb.annotation.growing import BEYOND_LINE, BRIGHT, grow_along
from metaseg_nb.cohort.cases import Cohort
from metaseg_nb.cohort.diameters import longest_axial_line
from metaseg_nb.cohort.lesions import Lesions, find_lesions
from metaseg_nb.cohort.volumes import Volume
from metaseg_nb.layout import StudyLayout
from metaseg_nb.preprocessing.case_store import open_cases

# A region reaches as far as the image is half as bright as on the line; 08 begins with this level too.
LEVEL = 0.5
# Part of an annotation's identity.
RULE_OF_LINES = {"lines": [LEVEL, BEYOND_LINE, BRIGHT]}
RAS = np.array([[0, 1], [1, 1], [2, 1]])


def grown_regions(lesions: Lesions, image: np.ndarray) -> Iterator[np.ndarray]:
    """The region of each lesion, in their order: grown from its line, without the help of a network.

    Parameters
    ----------
    lesions : Lesions
    image : ndarray, shape (X, Y, Z)

    Yields
    ------
    ndarray of bool, shape (X, Y, Z)
    """
    volume = Volume(np.asarray(image, np.float32), np.diag([*lesions.spacing_mm, 1.0]), RAS)
    no_network = np.zeros(image.shape, np.float32)
    for lesion in lesions.boxes:
        start, end = longest_axial_line(lesions.voxels(lesion), lesions.spacing_mm)
        yield grow_along(volume, no_network, start, end, LEVEL)


def line_errors(layout: StudyLayout, cohort: Cohort) -> pd.DataFrame:
    """How like the full masks those are that grow from lines, on the study grid.

    Returns
    -------
    DataFrame
        A row per lesion of each labelled case: ``case``, ``patient``, ``lesion`` (from 1), ``diameter_mm``, ``dice``.
    """
    rows = []
    for case, stored in zip(cohort.labelled, open_cases(layout.case_store, cohort.labelled), strict=True):
        lesions = find_lesions(stored.label > 0, stored.grid.spacing_mm)
        regions = grown_regions(lesions, stored.image[0])
        for lesion, region in zip(lesions.table.itertuples(), regions, strict=True):
            own = lesions.labels == lesion.lesion
            dice = 2 * (own & region).sum() / (own.sum() + region.sum())
            rows.append((case.name, case.patient, lesion.lesion, lesion.diameter_mm, dice))
    return pd.DataFrame(rows, columns=["case", "patient", "lesion", "diameter_mm", "dice"])
