"""The list of lesions beside a drawing: what each is, how large, and how sure the networks are."""

from dataclasses import dataclass, replace

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
        Probability of the networks; NaN where they take no part.
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
        highest, mean = ("–" if np.isnan(value) else f"{value:.2f}" for value in (self.highest, self.mean))
        return f"{size}{highest:>9}{mean:>6}  {self.state}"

    @property
    def centre(self) -> tuple[int, int, int]:
        """Its voxel that is nearest to its centre of mass."""
        voxels = np.transpose(self.voxels)
        x, y, z = voxels[((voxels - voxels.mean(axis=0)) ** 2).sum(axis=1).argmin()].tolist()
        return x, y, z


class LesionList:
    """Lists the lesions of a drawing beside those that it began with.

    Parameters
    ----------
    before : ndarray of bool, shape (X, Y, Z)
        The mask that the drawing began with.
    probability : ndarray of float, shape (X, Y, Z)
        Of the networks; zeros where they take no part.
    image : Volume
    """

    def __init__(self, before: np.ndarray, probability: np.ndarray, image: Volume):
        self._probability = probability if probability.any() else np.full(probability.shape, np.nan, np.float32)
        self._spacing_mm = image.spacing_mm
        self._mask, (self._before, self._old) = before, self._described(before)

    def rows(self, mask: np.ndarray) -> list[DrawnLesion]:
        """The lesions of a mask, the longest first, and then those of its beginning of which nothing is left."""
        drawn = self._before if mask is self._mask else self._described(mask)[0]  # a new case is shown sooner
        drawn = sorted(drawn, key=lambda row: -row.diameter_mm)
        rows = [replace(row, number=i, state=self._state(row.voxels)) for i, row in enumerate(drawn, start=1)]
        left = set(self._old[mask].tolist())
        return rows + [replace(row, number=0) for row in self._before if row.number not in left]

    def _described(self, mask: np.ndarray) -> tuple[list[DrawnLesion], np.ndarray]:
        """Each lesion of a mask, with its number among them; and these numbers, as an array."""
        lesions, rows = find_lesions(mask, self._spacing_mm), []
        for fact in lesions.table.itertuples():
            voxels = tuple(lesions.voxels(int(fact.lesion)).T)
            seen = self._probability[voxels]
            facts = fact.volume_mm3, fact.diameter_mm, float(seen.max()), float(seen.mean())
            rows.append(DrawnLesion(int(fact.lesion), "removed", voxels, *facts))
        return rows, lesions.labels

    def _state(self, voxels: tuple[np.ndarray, ...]) -> str:
        """What became of the beginning's lesions in these voxels."""
        old = self._old[voxels]
        if not old.any():
            return "added"
        one = (old == old[0]).all() and len(old) == len(self._before[old[0] - 1].voxels[0])
        return "kept" if one else "edited"
