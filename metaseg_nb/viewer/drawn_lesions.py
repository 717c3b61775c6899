"""The list of lesions beside a drawing: what each is, how large, and how sure the networks are."""

from dataclasses import dataclass

import numpy as np

from metaseg_nb.cohort.lesions import find_lesions
from metaseg_nb.cohort.volumes import Volume

HEADER = f"{'':4}{'mm³':>8}{'mm':>6}{'highest':>9}{'mean':>6}  state"


@dataclass(frozen=True)
class DrawnLesion:
    """A lesion of a drawing, or one of its beginning that was removed.

    Parameters
    ----------
    number : int
        1..n; 0 where it was removed.
    state : str
        "kept", "edited", "added" or "removed".
    voxels : tuple of 3 ndarrays of int
        Its voxels, as an index.
    volume_mm3, diameter_mm : float
    highest, mean : float
        Probability of the networks.
    """

    number: int
    state: str
    voxels: tuple[np.ndarray, ...]
    volume_mm3: float
    diameter_mm: float
    highest: float
    mean: float

    @property
    def words(self) -> str:
        """Its line below `HEADER`."""
        size = f"{self.number or '-':>2}{self.volume_mm3:>8.0f}{self.diameter_mm:>6.1f}"
        return f"{size}{self.highest:>9.2f}{self.mean:>6.2f}  {self.state}"

    @property
    def centre(self) -> tuple[int, int, int]:
        """Its voxel that is nearest to its centre of mass."""
        voxels = np.transpose(self.voxels)
        x, y, z = voxels[((voxels - voxels.mean(axis=0)) ** 2).sum(axis=1).argmin()].tolist()
        return x, y, z


def drawn_lesions(mask: np.ndarray, old: np.ndarray, probability: np.ndarray, image: Volume) -> list[DrawnLesion]:
    """List the lesions of a mask, the longest first, and then those of its beginning of which nothing is left.

    Parameters
    ----------
    mask : ndarray of bool, shape (X, Y, Z)
    old : ndarray of int, shape (X, Y, Z)
        From `label_lesions` of the beginning.
    probability : ndarray of float, shape (X, Y, Z)
    image : Volume
    """
    sizes = np.bincount(old[old > 0], minlength=1)
    drawn = sorted(_described(mask, probability, image), key=lambda row: -row[2])
    lesions = [
        DrawnLesion(number, _state(old[voxels], sizes), voxels, *facts)
        for number, (voxels, *facts) in enumerate(drawn, start=1)
    ]
    gone = sizes > 0
    gone[old[mask]] = False
    gone = _described(gone[old], probability, image) if gone.any() else []
    return lesions + [DrawnLesion(0, "removed", voxels, *facts) for voxels, *facts in gone]


def _described(mask: np.ndarray, probability: np.ndarray, image: Volume) -> list[tuple]:
    """Of each lesion its voxels, volume, diameter, and highest and mean probability."""
    lesions, rows = find_lesions(mask, image.spacing_mm), []
    for fact in lesions.table.itertuples():
        voxels = tuple(lesions.voxels(int(fact.lesion)).T)
        seen = probability[voxels]
        rows.append((voxels, fact.volume_mm3, fact.diameter_mm, float(seen.max()), float(seen.mean())))
    return rows


def _state(old: np.ndarray, sizes: np.ndarray) -> str:
    """What became of a lesion, by the numbers of the beginning's lesions in its voxels."""
    if not old.any():
        return "added"
    return "kept" if (old == old[0]).all() and len(old) == sizes[old[0]] else "edited"
