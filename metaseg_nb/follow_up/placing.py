"""Registration in time: where each date's head lies against the first date, and whether it is the same head."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from nibabel.affines import apply_affine
from scipy import ndimage

from metaseg_nb.cohort.cases import Case
from metaseg_nb.cohort.head import head_mask, with_dark_background
from metaseg_nb.cohort.volumes import Volume, read_volume
from metaseg_nb.preprocessing.registration import register

# Correlation of the structure of two heads. Two dates of one head had 0.88 or more (12 synthetic pairs, and 0.98 of a
# real one), two heads 0.66 or less (4 synthetic pairs).
SAME_HEAD = 0.8
# Structure between these widths: brains differ there, and bias fields do not matter. Of the head every so many voxels.
FINE_MM, COARSE_MM, EVERY = 3.0, 10.0, 50
# Of fewer voxels a correlation says nothing.
FEWEST = 100
PERHAPS = "possibly another patient, another sequence, or after surgery"


def place_dates(cases: Sequence[Case]) -> pd.DataFrame:
    """Register the first sequence of each date of a patient to that of the first date, rigidly.

    Parameters
    ----------
    cases : sequence of Case
        In the order of their dates.

    Returns
    -------
    DataFrame
        A row per case: ``patient``, ``case``, ``day``; ``moved_mm``, ``degrees`` (how the head lies elsewhere than the
        headers say); ``alike`` (correlation of the two heads' structure, 1 for the first date); ``matrix`` (from the
        first date's world to this one's, 16 numbers row by row); ``problem``: why this date cannot be followed, ""
        where nothing speaks against it. A date that cannot be registered has ``matrix`` 1, and ``alike`` NaN.
    """
    first, *others = (_dark(read_volume(case.image, case.name)) for case in cases)
    rows = [(0.0, 0.0, 1.0, np.eye(4).ravel().tolist(), "")]
    for other in others:
        try:
            found = register(first, other)
        except (ValueError, RuntimeError) as error:
            rows.append((np.nan, np.nan, np.nan, np.eye(4).ravel().tolist(), f"not registered: {error}"))
            continue
        alike = heads_alike(first, other, found.matrix)
        unlike = "" if alike >= SAME_HEAD else f"another head (correlation {alike:.2f}, at least {SAME_HEAD})"
        problem = found.failure or unlike
        problem = problem and f"{problem}; {PERHAPS}"
        rows.append((found.moved_mm, found.degrees, alike, found.matrix.ravel().tolist(), problem))
    if len(others) > 1 and all(row[-1] for row in rows[1:]):
        rows[1:] = [(*row[:-1], f"{row[-1]}; the first date, or all others") for row in rows[1:]]
    dates = pd.DataFrame(rows, columns=["moved_mm", "degrees", "alike", "matrix", "problem"])
    names, days = [case.name for case in cases], [case.day for case in cases]
    return dates.assign(patient=cases[0].patient, case=names, day=days)


def heads_alike(first: Volume, other: Volume, matrix: np.ndarray) -> float:
    """Correlation of the structure of two images in the first's head, where both show it; of like contrasts.

    0 where they show too little of it, or one has no structure.
    ``matrix`` leads from the first's world to the other's.
    """
    voxels = np.argwhere(head_mask(first.array))[::EVERY]
    places = apply_affine(np.linalg.inv(other.affine) @ matrix @ first.affine, voxels)
    shown = ((places >= 0) & (places <= np.array(other.shape) - 1)).all(axis=1)
    its = ndimage.map_coordinates(_structure(other), places[shown].T, order=1)
    own = _structure(first)[tuple(voxels[shown].T)]
    return float(np.corrcoef(own, its)[0, 1]) if len(its) >= FEWEST and own.std() and its.std() else 0.0


def _structure(volume: Volume) -> np.ndarray:
    """What is wider than `FINE_MM` and narrower than `COARSE_MM`."""
    array, edges = volume.array.astype(np.float32), np.array(volume.spacing_mm)
    fine, coarse = (ndimage.gaussian_filter(array, width / edges) for width in (FINE_MM, COARSE_MM))
    return fine - coarse


def _dark(volume: Volume) -> Volume:
    return replace(volume, array=with_dark_background(volume.array))
