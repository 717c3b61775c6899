"""Registration in time: where each date's head lies against the first date, and whether it is the same head."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from nibabel.affines import apply_affine

from metaseg_nb.cohort.cases import Case
from metaseg_nb.cohort.head import head_mask, with_dark_background
from metaseg_nb.cohort.volumes import Volume, read_volume
from metaseg_nb.preprocessing.registration import register

# Dice of two heads on each other. Of synthetic patients, two dates had 0.97 or more, and two patients 0.92 or less.
SAME_HEAD = 0.94
# Of each head every so many voxels are looked at.
EVERY = 50


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
        headers say); ``alike`` (Dice of the two heads, 1 for the first date); ``matrix`` (from the first date's world
        to this one's, 16 numbers row by row); ``problem``: why this date cannot be followed, "" where nothing speaks
        against it.
    """
    first, *others = (_dark(read_volume(case.image, case.name)) for case in cases)
    rows = [(0.0, 0.0, 1.0, np.eye(4).ravel().tolist(), "")]
    for other in others:
        found = register(first, other)
        alike = heads_alike(first, other, found.matrix)
        problem = found.failure or (f"the heads differ (Dice {alike:.2f})" if alike < SAME_HEAD else "")
        problem = problem and f"{problem}; possibly another patient"
        rows.append((found.moved_mm, found.degrees, alike, found.matrix.ravel().tolist(), problem))
    dates = pd.DataFrame(rows, columns=["moved_mm", "degrees", "alike", "matrix", "problem"])
    names, days = [case.name for case in cases], [case.day for case in cases]
    return dates.assign(patient=cases[0].patient, case=names, day=days)


def heads_alike(first: Volume, other: Volume, matrix: np.ndarray) -> float:
    """Dice of two heads where both images show something; ``matrix`` leads from the first's world to the other's."""
    head, its = (head_mask(volume.array) for volume in (first, other))
    both = np.linalg.inv(other.affine) @ matrix @ first.affine
    shares = [_inside(head, its, both), _inside(its, head, np.linalg.inv(both))]
    return sum(n for n, _ in shares) / max(1, sum(of for _, of in shares))


def _inside(head: np.ndarray, other: np.ndarray, to_other: np.ndarray) -> tuple[int, int]:
    """How many voxels of a head lie in the other one, and of how many that lie in its image."""
    places = apply_affine(to_other, np.argwhere(head)[::EVERY]).round().astype(int)
    shown = places[((places >= 0) & (places < other.shape)).all(axis=1)]
    return int(other[tuple(shown.T)].sum()), len(shown)


def _dark(volume: Volume) -> Volume:
    return replace(volume, array=with_dark_background(volume.array))
