"""The open case of `AnnotateApp`: its mask, the list of its lesions, and what a person does to them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from metaseg_nb.annotation.by_hand import Reading
from metaseg_nb.annotation.growing import grow, grow_along, interpolated
from metaseg_nb.annotation.readings import Beginning
from metaseg_nb.cohort.lesions import Lesions, find_lesions
from metaseg_nb.figures.reviewed import CaseImages
from metaseg_nb.viewer.niivue import CLICK, LESION, LINE, PENDING, DrawingViewer

if TYPE_CHECKING:
    from metaseg_nb.annotation.proposals import Prepared
    from metaseg_nb.viewer.panel import AnnotatePanel

UNDO = 50
AXIAL = 2
# Of the list of lesions.
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
    """Lists the lesions of a drawing beside those that it began with, which are found when it is made.

    Parameters
    ----------
    beginning : Beginning
    probability : ndarray of float, shape (X, Y, Z)
        Of the networks; zeros where they take no part.
    spacing_mm : tuple of 3 floats
    """

    def __init__(self, beginning: Beginning, probability: np.ndarray, spacing_mm: tuple[float, float, float]):
        self._probability = probability if probability.any() else np.full(probability.shape, np.nan, np.float32)
        self.beginning, self._before = beginning, find_lesions(beginning.mask, spacing_mm)
        self._first = self._rows(self._before)

    def rows(self, mask: np.ndarray) -> list[DrawnLesion]:
        """The lesions of a mask, the longest first, and then those of its beginning of which nothing is left."""
        unchanged = mask is self.beginning.mask
        return self._first if unchanged else self._rows(find_lesions(mask, self._before.spacing_mm))

    def _rows(self, lesions: Lesions) -> list[DrawnLesion]:
        found = self.beginning.states(lesions)
        states = {lesion: state for state in ("kept", "edited", "added") for lesion in found[state]}
        longest = lesions.table.sort_values("diameter_mm", ascending=False, kind="stable")["lesion"]
        rows = [self._row(lesions, lesion, i, states[lesion]) for i, lesion in enumerate(longest, start=1)]
        return rows + [self._row(self._before, lesion, 0, "removed") for lesion in sorted(found["removed"])]

    def _row(self, lesions: Lesions, lesion: int, number: int, state: str) -> DrawnLesion:
        voxels = tuple(lesions.voxels(lesion).T)
        fact, seen = lesions.table.loc[lesion - 1], self._probability[voxels]
        sizes = float(fact["volume_mm3"]), float(fact["diameter_mm"])
        return DrawnLesion(number, state, voxels, *sizes, float(seen.max()), float(seen.mean()))


class OpenCase:
    """A case that is shown and drawn on; each change of its mask is saved at once, and can be undone.

    Parameters
    ----------
    panel : AnnotatePanel
    viewer : DrawingViewer
    prepared : Prepared
        Regions grow by its image and probability.
    images : CaseImages
    lesions : LesionList
        Of what a new reading begins with.
    reading : Reading

    Attributes
    ----------
    mask : ndarray of bool, shape (X, Y, Z)
        Replaced at each step, and never changed in place.
    rows : list of DrawnLesion
        As they stand in the list.
    """

    def __init__(
        self,
        panel: AnnotatePanel,
        viewer: DrawingViewer,
        prepared: Prepared,
        images: CaseImages,
        lesions: LesionList,
        reading: Reading,
    ):
        self.panel, self.viewer, self.prepared, self.reading, self._images = panel, viewer, prepared, reading, images
        self.mask, self.rows = reading.mask, []
        self._axis, self._undo = AXIAL, deque(maxlen=UNDO)
        # what was clicked last, as long as it follows the level: the mask without it, and how it grows
        self._growing: tuple[np.ndarray, Callable[[float], np.ndarray]] | None = None
        if reading.beginning is not lesions.beginning:  # it was begun before
            lesions = LesionList(reading.beginning, prepared.probability, reading.image.spacing_mm)
        self._lesions = lesions
        self._accepted = np.zeros(self.mask.shape, bool)
        for row in self._lesions.rows(self.mask) if reading.accepted else []:
            self._accepted[row.voxels] = list(row.centre) in reading.accepted
        self._list_lesions()

    def show(self) -> None:
        """Show the image and the drawing, at the first lesion."""
        middle = [size // 2 for size in self.mask.shape]
        self.viewer.show_drawing(self._images, self._marks(), self.rows[0].centre if self.rows else middle)

    def close(self, finished: bool) -> None:
        """Save and leave the case."""
        self._save()  # could not be saved before
        self.reading.close(finished)

    # --- lesions ---

    def jump(self) -> None:
        """Go to the lesion that is chosen."""
        if self.panel.lesions.value is not None:
            self.viewer.jump(self.rows[self.panel.lesions.value].centre)

    def accept(self) -> None:
        """Tick the lesion off, and go to the next."""
        self._accepted[self._chosen()] = True
        self._growing = None
        self._list_lesions(step=1)
        self.viewer.put(self._marks())
        self.jump()
        self.reading.hold()  # keeps the tick

    def following(self) -> None:
        """Go to the next lesion, from the last to the first."""
        self._chosen()
        self._growing = None
        self.panel._fill(self.panel.lesions, (self.panel.lesions.value + 1) % len(self.rows))
        self.viewer.put(self._marks())
        self.jump()

    def remove(self) -> None:
        """Take the lesion out of the mask, and go to the next."""
        self._put(self._chosen(), False)
        self.jump()

    def restore(self) -> None:
        """Put a removed lesion of the beginning back."""
        voxels = self._chosen()
        if self.mask[voxels].all():
            raise ValueError("This lesion is in the mask. Choose a removed one in the list, or press undo.")
        self._put(voxels, True)

    def _chosen(self) -> tuple[np.ndarray, ...]:
        if self.panel.lesions.value is None:
            raise ValueError("There is no lesion in the list.")
        return self.rows[self.panel.lesions.value].voxels

    def _list_lesions(self, changed: np.ndarray | None = None, step: int = 0) -> None:
        """List the lesions, and choose the one that changed; without one the place in the list stays, or moves on."""
        chosen = (self.panel.lesions.value or 0) + step
        self.rows = self._lesions.rows(self.mask)
        changes = [] if changed is None else [i for i, row in enumerate(self.rows) if changed[row.voxels].any()]
        if drawn := [i for i in changes if self.rows[i].number]:
            chosen = drawn[0]
        ticked = [bool(row.number and self._accepted[row.voxels].all()) for row in self.rows]
        options = [(f"{'✓' if ticked[i] else ' '} {row.words}", i) for i, row in enumerate(self.rows)]
        self.reading.accepted = [list(row.centre) for row, done in zip(self.rows, ticked, strict=True) if done]
        self.panel._fill(self.panel.lesions, min(chosen, len(options) - 1) if options else None, options)

    # --- the mask ---

    def draw(self, voxels: np.ndarray, values: np.ndarray) -> None:
        """Take a stroke: it points at something that grows, or changes the mask.

        Parameters
        ----------
        voxels : ndarray of int, shape (N, 3)
        values : ndarray of int, shape (N,)
            What they were drawn with: `CLICK`, `LINE`, `LESION`, or 0 for the eraser.
        """
        flat = [axis for axis in (AXIAL, 1, 0) if np.ptp(voxels[:, axis]) == 0]
        self._axis = flat[0] if flat else AXIAL  # across the plane of the stroke
        for value, begin in ((CLICK, self._click), (LINE, self._line)):
            if (pointed := voxels[values == value]).size:
                self._undo.append(np.packbits(self.mask))
                self._growing = self.mask, begin(pointed)
                return self.grow()
        mask = self.mask.copy()
        mask[tuple(voxels.T)] = values > 0
        self._change(mask)

    def grow(self) -> None:
        """Let what was pointed at last grow to the level.

        Raises
        ------
        ValueError
            Nothing grows there.
        """
        if self._growing:
            before, region_at = self._growing
            region = np.zeros_like(before)
            try:
                region = region_at(self.panel.level.value)
            finally:  # the point or the line is no part of the mask
                self._show(before | region)
            if not region.any():
                raise ValueError("Nothing grows here. Lower the level, or draw.")

    def interpolate(self) -> None:
        """Fill the slices between drawn ones, across the plane of the last stroke."""
        self._change(self.mask | interpolated(self.mask, self._axis))

    def undo(self) -> None:
        """Take the last change of the mask back.

        Raises
        ------
        ValueError
            There is none.
        """
        if not self._undo:
            raise ValueError("There is nothing to undo.")
        before = np.unpackbits(self._undo.pop(), count=self.mask.size).astype(bool)
        self._growing = None
        self._show(before.reshape(self.mask.shape))

    def _put(self, voxels: tuple[np.ndarray, ...], inside: bool) -> None:
        mask = self.mask.copy()
        mask[voxels] = inside
        self._change(mask)

    def _change(self, mask: np.ndarray) -> None:
        """Put another mask in place of the one now, which can be undone."""
        self._growing = None
        if not np.array_equal(mask, self.mask):
            self._undo.append(np.packbits(self.mask))
        self._show(mask)

    def _show(self, mask: np.ndarray) -> None:
        """Show another mask, and save it."""
        changed, self.mask = mask != self.mask, mask
        self._list_lesions(changed)
        self.viewer.put(self._marks())
        self._save()

    def _save(self) -> None:
        if not np.array_equal(self.mask, self.reading.mask):
            self.reading.save(self.mask)

    def _marks(self) -> np.ndarray:
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
