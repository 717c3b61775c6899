"""The open case of `AnnotateApp`: its lesions and its mask, and what a person does to them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from metaseg_nb.annotation.by_hand import Reading
from metaseg_nb.figures.reviewed import CaseImages
from metaseg_nb.viewer.annotate_panel import AnnotatePanel
from metaseg_nb.viewer.drawing import DrawingViewer
from metaseg_nb.viewer.drawn_lesions import LesionList
from metaseg_nb.viewer.mask_editor import MaskEditor

if TYPE_CHECKING:
    from metaseg_nb.annotation.proposals import Prepared


class OpenCase:
    """A case that is shown and drawn on; each change of its mask is saved at once.

    Parameters
    ----------
    panel : AnnotatePanel
    viewer : DrawingViewer
    prepared : Prepared
    images : CaseImages
    reading : Reading
    """

    def __init__(
        self, panel: AnnotatePanel, viewer: DrawingViewer, prepared: Prepared, images: CaseImages, reading: Reading
    ):
        self.panel, self.viewer, self.reading = panel, viewer, reading
        self.editor, self.rows = MaskEditor(prepared, reading.mask), []
        self._lesions = LesionList(reading.beginning.mask, prepared.probability, reading.image)
        self._accepted = np.zeros(self.mask.shape, bool)
        self._list_lesions()
        middle = [size // 2 for size in self.mask.shape]
        viewer.show_drawing(images, self.editor.marks, self.rows[0].centre if self.rows else middle)

    @property
    def mask(self) -> np.ndarray:
        """The mask, bool of shape (X, Y, Z)."""
        return self.editor.mask

    def close(self, finished: bool) -> None:
        """Save and leave the case."""
        if not np.array_equal(self.mask, self.reading.mask):  # could not be saved before
            self.reading.save(self.mask)
        self.reading.close(finished)

    # --- lesions ---

    def jump(self) -> None:
        """Go to the lesion that is chosen."""
        if self.panel.lesions.value is not None:
            self.viewer.jump(self.rows[self.panel.lesions.value].centre)

    def accept(self) -> None:
        """Tick the lesion off, and go to the next."""
        self._accepted[self._chosen()] = True
        self.editor.keep_grown()
        self._list_lesions(step=1)
        self.viewer.put(self.editor.marks)
        self.jump()

    def remove(self) -> None:
        """Take the lesion out of the mask, and go to the next."""
        self._edit(partial(self.editor.put, self._chosen(), False))
        self.jump()

    def restore(self) -> None:
        """Put a removed lesion of the beginning back."""
        voxels = self._chosen()
        if self.mask[voxels].all():
            raise ValueError("This lesion is in the mask. Choose a removed one in the list, or press undo.")
        self._edit(partial(self.editor.put, voxels, True))

    def _chosen(self) -> tuple[np.ndarray, ...]:
        if self.panel.lesions.value is None:
            raise ValueError("There is no lesion in the list.")
        return self.rows[self.panel.lesions.value].voxels

    def _list_lesions(self, changed: np.ndarray | None = None, step: int = 0) -> None:
        """List the lesions, and choose the one that changed; without one the place in the list stays, or moves on."""
        chosen = (self.panel.lesions.value or 0) + step
        self.rows, options = self._lesions.rows(self.mask), []
        changes = [] if changed is None else [i for i, row in enumerate(self.rows) if changed[row.voxels].any()]
        if drawn := [i for i in changes if self.rows[i].number]:
            chosen = drawn[0]
        for i, row in enumerate(self.rows):
            done = row.number and self._accepted[row.voxels].all()
            options.append((f"{'✓' if done else ' '} {row.words}", i))
        self.panel._fill(self.panel.lesions, min(chosen, len(options) - 1) if options else None, options)

    # --- the mask ---

    def draw(self, voxels: np.ndarray, values: np.ndarray) -> None:
        """Take a stroke."""
        self._edit(partial(self.editor.draw, voxels, values, self.panel.level.value))

    def grow(self) -> None:
        """Let what was pointed at last grow to the level."""
        self._edit(partial(self.editor.grow, self.panel.level.value))

    def interpolate(self) -> None:
        """Fill the slices between drawn ones, across the plane of the last stroke."""
        self._edit(self.editor.fill_between)

    def undo(self) -> None:
        """Take the last change of the mask back."""
        self._edit(self.editor.undo)

    def _edit(self, step: Callable[[], None]) -> None:
        """Change the mask, show it, and save it where it changed."""
        before = self.mask
        try:
            step()
        finally:
            self._list_lesions(self.mask != before)
            self.viewer.put(self.editor.marks)
            if not np.array_equal(self.mask, self.reading.mask):
                self.reading.save(self.mask)
