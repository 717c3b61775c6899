"""Two dates of one head: where the other image lies, and the mask of the earlier date as one more sequence.

With `earlier_mask` the channel of that sequence is 1 in the earlier lesions and 0 elsewhere. Where there is no earlier
mask, or the dates cannot be registered, the sequence is missing: its channel is 0. Networks learn with the masks of the
reference. What they predict follows the masks that they predicted for the earlier date (`seen_after`): the reference of
a test case is never shown.
"""

from collections import Counter
from dataclasses import replace

import numpy as np
from nibabel.affines import apply_affine
from scipy import ndimage

from metaseg_nb.cohort.cases import Case, Cohort
from metaseg_nb.cohort.head import head_mask, with_dark_background
from metaseg_nb.cohort.volumes import Volume, read_volume
from metaseg_nb.preprocessing.grid import Grid, resample
from metaseg_nb.preprocessing.registration import Registration, along_axes, register
from metaseg_nb.preprocessing.stored_case import StoredCase

# Correlation of the structure of two heads. Two dates of one head had 0.85 or more (26 synthetic pairs, and 0.98 of a
# real one), two heads 0.66 or less (4 synthetic pairs).
SAME_HEAD = 0.8
# Structure between these widths: brains differ there, and bias fields do not matter. Of the head every so many voxels.
FINE_MM, COARSE_MM, EVERY = 3.0, 10.0, 50
# Of fewer voxels a correlation says nothing.
FEWEST = 100


def register_dates(first: Volume, other: Volume) -> tuple[Registration | None, float, str]:
    """Register another date's image to the first's, after z-scoring too.

    Returns
    -------
    registration : Registration or None
        None if there is none.
    alike : float
        `heads_alike`; NaN without a registration.
    problem : str
        Why it cannot be used; "" where nothing speaks against it.
    """
    first, other = (replace(volume, array=with_dark_background(volume.array)) for volume in (first, other))
    try:
        found = register(first, other)
    except (ValueError, RuntimeError) as error:
        return None, np.nan, f"not registered: {error}"
    alike = heads_alike(first, other, found.matrix)
    unlike = "" if alike >= SAME_HEAD else f"another head (correlation {alike:.2f}, at least {SAME_HEAD})"
    return found, alike, found.failure or unlike


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


def earlier_dates(cohort: Cohort) -> dict[str, Case]:
    """Of each case the one of the same patient at the last date before it that has a mask; by the case's name.

    Of two cases of one date nobody knows which to take: neither is.
    """
    dated = [(case.day, case) for case in cohort.all_cases if case.day is not None]
    of_date, last, found = Counter((case.patient, day) for day, case in dated), {}, {}
    for day, case in sorted(dated, key=lambda pair: pair[0]):
        if case.patient in last:
            found[case.name] = last[case.patient]
        if case.label and of_date[case.patient, day] == 1:
            last[case.patient] = case
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
