"""A mask that a person changes step by step: draws, grows, removes, fills; each step can be undone."""

from collections import deque
from collections.abc import Callable

import numpy as np

from metaseg_nb.annotation.growing import grow, grow_along, interpolated
from metaseg_nb.annotation.proposals import Prepared
from metaseg_nb.viewer.drawing import CLICK, LESION, LINE, PENDING

UNDO = 50
AXIAL = 2


class MaskEditor:
    """A mask and its steps.

    Parameters
    ----------
    prepared : Prepared
        Regions grow by its image and probability.
    mask : ndarray of bool, shape (X, Y, Z)
        Replaced at each step, and never changed in place.
    """

    def __init__(self, prepared: Prepared, mask: np.ndarray):
        self.prepared, self.mask = prepared, mask
        self._axis, self._undo = AXIAL, deque(maxlen=UNDO)
        # what was clicked last, as long as it follows the level: the mask without it, and how it grows
        self._growing: tuple[np.ndarray, Callable[[float], np.ndarray]] | None = None

    def draw(self, voxels: np.ndarray, values: np.ndarray, level: float) -> None:
        """Take a stroke: it points at something that grows, or changes the mask.

        Parameters
        ----------
        voxels : ndarray of int, shape (N, 3)
        values : ndarray of int, shape (N,)
            What they were drawn with: `CLICK`, `LINE`, `LESION`, or 0 for the eraser.
        level : float
            See `grow`.
        """
        self._axis = _axis_of(voxels)
        for value, begin in ((CLICK, self._click), (LINE, self._line)):
            if (pointed := voxels[values == value]).size:
                self._growing = self.mask, begin(pointed)
                self._undo.append(np.packbits(self.mask))
                return self.grow(level)
        mask = self.mask.copy()
        mask[tuple(voxels.T)] = values > 0
        self.change(mask)

    def grow(self, level: float) -> None:
        """Let what was pointed at last grow to a level.

        Raises
        ------
        ValueError
            Nothing grows there.
        """
        if self._growing is None:
            return
        before, region_at = self._growing
        region = region_at(level)
        self.mask = before | region
        if not region.any():
            raise ValueError("Nothing grows here. Lower the level, or draw.")

    def keep_grown(self) -> None:
        """Leave the region as it is: the level no longer changes it."""
        self._growing = None

    def fill_between(self) -> None:
        """Fill the slices between drawn ones, across the plane of the last stroke."""
        self.change(self.mask | interpolated(self.mask, self._axis))

    def put(self, voxels: tuple[np.ndarray, ...], inside: bool) -> None:
        """Put voxels into the mask, or take them out."""
        mask = self.mask.copy()
        mask[voxels] = inside
        self.change(mask)

    def change(self, mask: np.ndarray) -> None:
        """Put another mask in place of the one now, which can be undone."""
        self._growing = None
        if not np.array_equal(mask, self.mask):
            self._undo.append(np.packbits(self.mask))
        self.mask = mask

    def undo(self) -> None:
        """Take the last step back.

        Raises
        ------
        ValueError
            There is none.
        """
        if not self._undo:
            raise ValueError("There is nothing to undo.")
        before = np.unpackbits(self._undo.pop(), count=self.mask.size).astype(bool)
        self._growing, self.mask = None, before.reshape(self.mask.shape)

    @property
    def marks(self) -> np.ndarray:
        """The mask as a drawing, uint8 of shape (X, Y, Z): what follows the level is `PENDING`."""
        marks = self.mask.astype(np.uint8) * LESION
        if self._growing:
            marks[self.mask & ~self._growing[0]] = PENDING
        return marks

    def _click(self, pointed: np.ndarray) -> Callable[[float], np.ndarray]:
        voxel = pointed[len(pointed) // 2].tolist()
        return lambda level: grow(self.prepared.image, self.prepared.probability, voxel, level)

    def _line(self, pointed: np.ndarray) -> Callable[[float], np.ndarray]:
        places = pointed * self.prepared.image.spacing_mm
        start = np.linalg.norm(places - places[0], axis=1).argmax()  # the voxels of a line: its ends are farthest
        end = np.linalg.norm(places - places[start], axis=1).argmax()
        first, last = pointed[start].tolist(), pointed[end].tolist()
        return lambda level: grow_along(self.prepared.image, self.prepared.probability, first, last, level)


def _axis_of(voxels: np.ndarray) -> int:
    """Axis across the plane of a stroke; of a single point the axial one."""
    flat = [axis for axis in (AXIAL, 1, 0) if np.ptp(voxels[:, axis]) == 0]
    return flat[0] if flat else AXIAL
