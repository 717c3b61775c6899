"""The mask of a patient's earlier date as one more sequence of the later one (`earlier_mask`).

Its channel is 1 in the earlier lesions and 0 elsewhere. Where there is no earlier mask, or the dates cannot be
registered, the sequence is missing: its channel is 0. Networks learn with the masks of the reference. What they predict
follows the masks that they predicted for the earlier date (`seen_after`): the reference of a test case is never shown.
"""

from collections import Counter, defaultdict

import numpy as np

from metaseg_nb.cohort.cases import Case, Cohort
from metaseg_nb.cohort.volumes import Volume, read_volume
from metaseg_nb.preprocessing.grid import Grid, resample
from metaseg_nb.preprocessing.registration import along_axes
from metaseg_nb.preprocessing.same_head import register_dates
from metaseg_nb.preprocessing.stored_case import StoredCase


def earlier_dates(cohort: Cohort) -> dict[str, Case]:
    """Of each case the one of the same patient at the last date before it that has a mask; by the case's name.

    Of two cases of one date nobody knows which to take: neither is.
    """
    of_patient = defaultdict(list)
    for case in cohort.all_cases:
        if case.day is not None:
            of_patient[case.patient].append(case)
    found = {}
    for cases in of_patient.values():
        for case in cases:
            days = Counter(other.day for other in cases)
            before = [other for other in cases if other.label and other.day < case.day and days[other.day] == 1]
            if before:
                found[case.name] = max(before, key=lambda other: other.day)
    return found


def place_of(earlier: Case, first: Volume) -> tuple[np.ndarray | None, float, str]:
    """Where the earlier date's image lies, as `resample` takes it, for the first sequence of the later date.

    Also how alike the two heads are (`heads_alike`), and why the place cannot be used: then it is None.
    """
    other = read_volume(earlier.image, earlier.name)
    found, alike, problem = register_dates(first, other)
    return along_axes(found.matrix, first, other) if found and not problem else None, alike, problem


def carried(mask: Volume, place: np.ndarray, grid: Grid) -> np.ndarray:
    """A mask of the earlier date on the study grid of the later one: float32, 0 to 1, shape (X, Y, Z)."""
    own = Grid(mask.spacing_mm, mask.array.shape)
    return resample((mask.array > 0).astype(np.float32), own, grid, "linear", place).clip(0, 1)


def seen_after(stored: StoredCase, mask: Volume | None) -> np.ndarray:
    """The image of a follow-up after this mask of its earlier date: (C, X, Y, Z); without one, of a first visit."""
    image = stored.scans
    if mask and stored.earlier:
        image[-1] = carried(mask, np.array(stored.earlier["place"]), stored.grid)
    return image
