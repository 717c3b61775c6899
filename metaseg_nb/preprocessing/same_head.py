"""Two dates of one head: where the later image lies, and whether it shows the same head."""

from dataclasses import replace

import numpy as np
from nibabel.affines import apply_affine
from scipy import ndimage

from metaseg_nb.cohort.head import head_mask, with_dark_background
from metaseg_nb.cohort.volumes import Volume
from metaseg_nb.preprocessing.registration import Registration, register

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
