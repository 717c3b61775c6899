"""Annotating in JupyterLab: look at each lesion that is proposed, correct it, draw what is missing, and go on."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ipyevents import Event

from metaseg_nb.annotation.by_hand import Reading, open_reading, read_progress
from metaseg_nb.annotation.open_cases import CaseTaken, open_elsewhere
from metaseg_nb.cohort.cases import case_named
from metaseg_nb.cohort.head import with_dark_background
from metaseg_nb.cohort.lesions import label_lesions
from metaseg_nb.figures.reviewed import CaseImages, centre_of_largest
from metaseg_nb.layout import StudyLayout
from metaseg_nb.viewer.annotate_panel import KEYS, TOOLS, AnnotatePanel
from metaseg_nb.viewer.drawing import CLICK, LINE, DrawingViewer
from metaseg_nb.viewer.drawn_lesions import drawn_lesions
from metaseg_nb.viewer.mask_editor import MaskEditor

if TYPE_CHECKING:
    from metaseg_nb.annotation.proposals import Prepared, Waiting


class AnnotateApp(AnnotatePanel):
    """Widgets to annotate cases one after the other; ``widget`` is what a cell shows.

    Each change is saved at once. Only one app of a notebook is open: a new one closes the one before.

    Parameters
    ----------
    layout : StudyLayout
    waiting : Waiting
        The cases, in the order in which they are annotated.
    reader : str
        Code of the person who annotates.
    second : bool
        Whether cases that another reader has begun are read again.
    now : callable
        Clock in seconds.
    """

    _open: AnnotateApp | None = None

    def __init__(
        self,
        layout: StudyLayout,
        waiting: Waiting,
        reader: str,
        second: bool = False,
        now: Callable[[], float] = time.monotonic,
    ):
        if AnnotateApp._open is not None:
            AnnotateApp._open.close()
        AnnotateApp._open = self
        self.layout, self.waiting, self.reader, self.second, self._now = layout, waiting, reader, second, now
        self.reading: Reading | None = None
        self._worker, self._ahead = ThreadPoolExecutor(1, "images"), {}
        self.viewer = DrawingViewer(self._drawn, self._active)
        super().__init__(self.viewer.widget)
        self._connect()
        self._use_tool()
        self._list_cases()
        self._guarded(self._open_next)

    def _connect(self) -> None:
        self.events = Event(source=self.widget, watched_events=["keydown"])
        self.events.on_dom_event(self._key)
        for name, button in self.buttons.items():
            button.on_click(lambda _, name=name: self._act(getattr(self, name)))
        self.restore_button.on_click(lambda _: self._act(self.restore))
        self._on(self.cases, self._open_chosen)
        self._on(self.lesions, self._jump)
        self._on(self.level, self._grow)
        self._on(self.tool, self._use_tool)
        self._on(self.size, self._use_tool)
        self._on(self.zoom, lambda: self.viewer.enlarge(self.zoom.value))

    def _on(self, widget: Any, call: Callable[[], None]) -> None:
        """Call when a person changes a widget, and not when `_fill` does."""
        widget.observe(lambda change: None if self._filling else self._act(call), "value")

    # --- what a person does ---

    def _act(self, call: Callable[[], None]) -> None:
        """Do what a person wants, as soon as the last stroke has come from the browser."""
        self._active()
        if AnnotateApp._open is self and not self.viewer.after(partial(self._guarded, call)):
            self._say("Waiting for the last stroke …")

    def _guarded(self, call: Callable[[], None]) -> None:
        """Show an error as a line: in a widget nobody would see it."""
        self._say("")
        try:
            call()
        except Exception as error:
            self._say(f"Not done. {_explained(error)}")
        self._show_title()

    def _active(self) -> None:
        if self.reading:
            self.reading.clock.action()
            self._show_title()

    def _key(self, event: dict) -> None:
        key = event.get("key", "").lower()
        if event.get("repeat") or any(event.get(f"{modifier}Key") for modifier in ("ctrl", "alt", "meta")):
            return
        if key in KEYS:
            self._act(getattr(self, KEYS[key][1]))
        elif tool := next((name for name, (own, *_) in TOOLS.items() if own == key), None):
            self.tool.value = tool

    def smaller(self) -> None:
        """Make the pen smaller."""
        self.size.value -= 2

    def larger(self) -> None:
        """Make the pen larger."""
        self.size.value += 2

    def lower(self) -> None:
        """Lower the level: what grows becomes larger."""
        self.level.value -= self.level.step

    def higher(self) -> None:
        """Raise the level: what grows becomes smaller."""
        self.level.value += self.level.step

    def nearer(self) -> None:
        """Enlarge the image around the crosshair."""
        self.zoom.value += self.zoom.step

    def farther(self) -> None:
        """Make the image smaller."""
        self.zoom.value -= self.zoom.step

    def _use_tool(self) -> None:
        _, value, filled = TOOLS[self.tool.value]
        self.viewer.use(value, filled, 1 if value in (CLICK, LINE) or filled else self.size.value)

    # --- cases ---

    def _list_cases(self) -> None:
        progress, options = read_progress(self.layout), []
        for case in self.waiting.cases:
            readers = progress.get(case.name, {})
            elsewhere = open_elsewhere(self.layout, case.name)
            mark = " " if not readers else "✓" if all(readers.values()) else "…"
            who = f"{elsewhere} has it open" if elsewhere else ", ".join(readers)
            options.append((f"{mark} {case.name:<24} {who}", case.name))
        self._fill(self.cases, self.reading.case if self.reading else None, options)

    def _is_free(self, name: str, readers: Mapping[str, bool]) -> bool:
        """Tell whether this reader still has a case to do, from who has begun or finished it."""
        others = [reader for reader in readers if reader != self.reader]
        return not readers.get(self.reader) and (self.second or not others) and not open_elsewhere(self.layout, name)

    def _open_next(self) -> None:
        names = [case.name for case in self.waiting.cases]
        start, progress = names.index(self.cases.value) if self.cases.value else 0, read_progress(self.layout)
        for name in names[start:] + names[:start]:
            if self._is_free(name, progress.get(name, {})):
                return self._open_case(name)
        self._list_cases()
        self._say("All cases are finished, or others have them.")

    def _open_chosen(self) -> None:
        self._open_case(self.cases.value)

    def _open_case(self, name: str) -> None:
        self._say(f"Opening {name} …")
        try:
            prepared, images = self._made_ahead(name)
            self._close_case()
            case = case_named(self.waiting.cases, name)
            beginning, second, now = prepared.beginning, self.second, self._now
            reading = open_reading(self.layout, case, prepared.image, self.reader, beginning, second, now)
            self._show_case(prepared, images, reading)
            self._make_next(name)
        finally:
            self._list_cases()
        self._say("")

    def _close_case(self, finished: bool = False) -> None:
        """Save and leave the case; where it cannot be saved it stays open, but not where another reader has it now."""
        if self.reading is None:
            return
        try:
            if not np.array_equal(self.mask, self.reading.mask):  # could not be saved before
                self.reading.save(self.mask)
            self.reading.close(finished)
        except CaseTaken:
            self._leave()
            raise
        self._leave()

    def _leave(self) -> None:
        self.reading = None
        self._fill(self.lesions, None, [])
        self.viewer.clear()

    def _images(self, name: str) -> tuple[Prepared, CaseImages]:
        """A case, with all that takes time before it can be shown."""
        prepared = self.waiting.prepared(name)
        image = replace(prepared.image, array=with_dark_background(prepared.image.array))
        images = CaseImages(name, image, prepared.beginning.mask, {})
        _ = images.greys, images.image_file  # found now, and kept
        return prepared, images

    def _make_next(self, name: str) -> None:
        """Make the case after this one ready to be shown, while a person is at work."""
        names = [case.name for case in self.waiting.cases]
        for following in names[names.index(name) + 1 :][:1]:
            self._ahead = {following: self._worker.submit(self._images, following)}

    def _made_ahead(self, name: str) -> tuple[Prepared, CaseImages]:
        made = self._ahead.get(name)
        return made.result() if made and not made.exception() else self._images(name)

    def _show_case(self, prepared: Prepared, images: CaseImages, reading: Reading) -> None:
        self.prepared, self.reading = prepared, reading
        self.editor, self._rows = MaskEditor(prepared, reading.mask), []
        self._old, _ = label_lesions(reading.beginning.mask)
        self._accepted = np.zeros(self.mask.shape, bool)
        self._list_lesions()
        at = self._rows[0].centre if self._rows else centre_of_largest(self.mask)
        self.viewer.show_drawing(images, self.editor.marks, at)

    def _show_title(self) -> None:
        words = "No case is open."
        if self.reading:
            how = {"proposal": "a proposal", "mask": "its mask", "nothing": "an empty image"}
            words = f"{self.reading.case}, reader {self.reader}, begun with {how[self.reading.beginning.how]}"
            words += f", active {self.reading.clock.seconds / 60:.1f} min"
            words += ", finished" if self.reading.finished else ""
        if self.title.value != (shown := f"<b>{escape(words)}</b>"):
            self.title.value = shown

    def finish(self) -> None:
        """Stand by the mask, and open the next case."""
        self._need_seen()
        self._close_case(finished=True)
        self._open_next()

    def finish_empty(self) -> None:
        """Say that there is no lesion, and open the next case."""
        self._need_seen()
        if self.mask.any():
            raise ValueError("The mask is not empty. Remove its lesions first, or press done to stand by them.")
        self.finish()

    def close(self) -> None:
        """Stop the clock and give the case free; the app does nothing any more."""
        self._guarded(self._close_case)
        self._worker.shutdown(wait=False, cancel_futures=True)
        if AnnotateApp._open is self:
            AnnotateApp._open = None
        self._say("This app is closed. Run the cell again.")

    def _need_seen(self) -> None:
        self._need_case()
        if not self.viewer.ready:
            raise ValueError("The case is not shown yet: nobody has looked at it.")

    def _need_case(self) -> Reading:
        if self.reading is None:
            raise ValueError("No case is open. Choose one in the list.")
        return self.reading

    # --- lesions ---

    @property
    def mask(self) -> np.ndarray:
        """The mask of the open case, bool of shape (X, Y, Z)."""
        return self.editor.mask

    def _list_lesions(self, changed: np.ndarray | None = None) -> None:
        """List the lesions, and choose the one that changed; without one the place in the list stays."""
        reading, at = self._need_case(), self.lesions.value or 0
        self._rows = drawn_lesions(self.mask, self._old, self.prepared.probability, reading.image)
        options, chosen = [], min(at, len(self._rows) - 1) if self._rows else None
        for i, row in reversed(list(enumerate(self._rows))):
            done = row.number and self._accepted[row.voxels].all()
            options.insert(0, (f"{'✓' if done else ' '} {row.words}", i))
            if row.number and changed is not None and changed[row.voxels].any():
                chosen = i
        self._fill(self.lesions, chosen, options)

    def _jump(self) -> None:
        if self.lesions.value is not None:
            self.viewer.jump(self._rows[self.lesions.value].centre)

    def _chosen(self) -> tuple[np.ndarray, ...]:
        self._need_case()
        if self.lesions.value is None:
            raise ValueError("There is no lesion in the list.")
        return self._rows[self.lesions.value].voxels

    def accept(self) -> None:
        """Tick the lesion off, and go to the next."""
        self._accepted[self._chosen()] = True
        self.editor.keep_grown()
        self._list_lesions()
        self._fill(self.lesions, min(self.lesions.value + 1, len(self._rows) - 1))
        self.viewer.put(self.editor.marks)
        self._jump()

    def remove(self) -> None:
        """Take the lesion out of the mask, and go to the next."""
        self._edit(partial(self.editor.put, self._chosen(), False))
        self._jump()

    def restore(self) -> None:
        """Put a removed lesion of the beginning back."""
        voxels = self._chosen()
        if self.mask[voxels].all():
            raise ValueError("This lesion is in the mask. Choose a removed one in the list, or press undo.")
        self._edit(partial(self.editor.put, voxels, True))

    # --- the mask ---

    def _drawn(self, voxels: np.ndarray, values: np.ndarray) -> None:
        self._guarded(lambda: self._edit(partial(self.editor.draw, voxels, values, self.level.value)))

    def _grow(self) -> None:
        if self.reading:
            self._edit(partial(self.editor.grow, self.level.value))

    def interpolate(self) -> None:
        """Fill the slices between drawn ones, across the plane of the last stroke."""
        self._need_case()
        self._edit(self.editor.fill_between)

    def undo(self) -> None:
        """Take the last change of the mask back."""
        self._need_case()
        self._edit(self.editor.undo)

    def _edit(self, step: Callable[[], None]) -> None:
        """Change the mask, show it, and save it where it changed."""
        reading, before = self._need_case(), self.mask
        try:
            step()
        finally:
            self._list_lesions(self.mask != before)
            self.viewer.put(self.editor.marks)
            if not np.array_equal(self.mask, reading.mask):
                reading.save(self.mask)


def _explained(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename:  # of a file with a temporary name
        folder = Path(error.filename).parent
        return f"{error.strerror}: {folder}. Nothing can be saved there. Mend that, then go on: the mask is still here."
    return str(error) if isinstance(error, ValueError | OSError) else repr(error)
