"""Annotating in JupyterLab: look at each lesion that is proposed, correct it, draw what is missing, and go on."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from ipyevents import Event

from metaseg_nb.annotation.by_hand import Reading, open_reading
from metaseg_nb.annotation.open_cases import CaseTaken, open_elsewhere
from metaseg_nb.annotation.readings import read_progress
from metaseg_nb.cohort.head import with_dark_background
from metaseg_nb.figures.reviewed import CaseImages
from metaseg_nb.layout import StudyLayout
from metaseg_nb.viewer.niivue import CLICK, LINE, DrawingViewer
from metaseg_nb.viewer.open_case import LesionList, OpenCase
from metaseg_nb.viewer.panel import KEYS, SLIDERS, TOOLS, AnnotatePanel

if TYPE_CHECKING:
    from metaseg_nb.annotation.proposals import Prepared, Waiting

BEGUN_WITH = {"proposal": "a proposal", "mask": "its mask", "nothing": "an empty image"}
# Milliseconds between two turns of the wheel that count: a touchpad sends many.
WHEEL_MS = 100


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
        self.opened: OpenCase | None = None
        self._worker, self._ahead = ThreadPoolExecutor(1, "images"), {}
        self.viewer = DrawingViewer(self._drawn, self._active, self._make_next)
        super().__init__(self.viewer.widget)
        self._connect()
        self._use_tool()
        self._list_cases()
        self._guarded(self._open_next)

    def _connect(self) -> None:
        self._keys = Event(source=self.widget, watched_events=["keydown"])
        self._keys.on_dom_event(self._key)
        throttled = {"throttle_or_debounce": "throttle", "wait": WHEEL_MS}
        self._wheel = Event(source=self.level, watched_events=["wheel"], prevent_default_action=True, **throttled)
        self._wheel.on_dom_event(lambda turn: self._move("level", -1 if turn["deltaY"] > 0 else 1))
        for name, button in self.buttons.items():
            button.on_click(lambda _, name=name: self._do(name))
        self._on(lambda: self._open_case(self.cases.value), self.cases)
        self._on(lambda: self.opened and self.opened.jump(), self.lesions)
        self._on(lambda: self.opened and self.opened.grow(), self.level)
        self._on(self._use_tool, self.tool, self.size)
        self._on(lambda: self.viewer.enlarge(self.zoom.value), self.zoom)

    # --- what a person does ---

    def _do(self, name: str) -> None:
        """Call a method of the app, or of the case that is open."""
        self._act(lambda: getattr(self if hasattr(self, name) else self._need_case(), name)())

    def _act(self, call: Callable[[], object]) -> None:
        """Do what a person wants, as soon as the last stroke has come from the browser."""
        self._active()
        if AnnotateApp._open is self and not self.viewer.after(partial(self._guarded, call)):
            self._say("Waiting for the last stroke …")

    def _guarded(self, call: Callable[[], object]) -> None:
        """Show an error as a line: in a widget nobody would see it."""
        self._say("")
        self._tried(call)

    def _tried(self, call: Callable[[], object]) -> None:
        try:
            call()
        except Exception as error:
            self._say(f"Not done. {_explained(error)}")
        self._show_title()

    def _active(self) -> None:
        if self.opened:
            self._tried(self.opened.reading.action)

    def _key(self, event: dict) -> None:
        key = event.get("key", "").lower()
        if event.get("repeat") or any(event.get(f"{modifier}Key") for modifier in ("ctrl", "alt", "meta")):
            return
        if key in KEYS:
            self._do(KEYS[key][1])
        elif key in SLIDERS:
            self._move(*SLIDERS[key][1:])
        elif tool := next((name for name, (own, *_) in TOOLS.items() if own == key), None):
            self.tool.value = tool

    def _use_tool(self) -> None:
        _, value, filled = TOOLS[self.tool.value]
        self.viewer.use(value, filled, 1 if value in (CLICK, LINE) or filled else self.size.value)

    def _drawn(self, voxels: np.ndarray, values: np.ndarray) -> None:
        self._guarded(lambda: self._need_case().draw(voxels, values))

    # --- the list of cases ---

    @property
    def reading(self) -> Reading | None:
        """Of the case that is open."""
        return self.opened.reading if self.opened else None

    def _list_cases(self) -> None:
        progress, options = read_progress(self.layout), []
        for case in self.waiting.cases:
            readers = progress.get(case.name, {})
            elsewhere = open_elsewhere(self.layout, case.name, self.reader)
            mark = " " if not readers else "✓" if all(readers.values()) else "…"
            who = f"{elsewhere['reader']} has it open" if elsewhere else ", ".join(readers)
            options.append((f"{mark} {case.name:<24} {who}", case.name))
        self._fill(self.cases, self.reading.case if self.reading else None, options)

    def _show_title(self) -> None:
        words = "No case is open."
        if self.reading:
            words = f"{self.reading.case}, reader {self.reader}, begun with {BEGUN_WITH[self.reading.beginning.how]}"
            words += f", active {self.reading.clock.seconds / 60:.1f} min"
            words += ", finished" if self.reading.finished else ""
        if self.title.value != (shown := f"<b>{escape(words)}</b>"):
            self.title.value = shown

    def _is_free(self, name: str, readers: Mapping[str, bool]) -> bool:
        """Tell whether this reader still has a case to do, from who has begun or finished it."""
        if readers.get(self.reader) or open_elsewhere(self.layout, name, self.reader):
            return False
        return self.second or not readers.keys() - {self.reader}

    def _open_next(self) -> None:
        names = [case.name for case in self.waiting.cases]
        start, progress = names.index(self.cases.value) if self.cases.value else 0, read_progress(self.layout)
        for name in names[start:] + names[:start]:
            if self._is_free(name, progress.get(name, {})):
                return self._open_case(name)
        self._list_cases()
        self._say("All cases are finished, or others have them.")

    # --- one case after the other ---

    def _open_case(self, name: str) -> None:
        self._say(f"Opening {name} …")
        try:
            prepared, images, lesions = self._made_ahead(name)
            unsaved = self._close_case()
            case, beginning = prepared.case, prepared.beginning
            reading = open_reading(
                self.layout, case, prepared.image, self.reader, beginning, second=self.second, now=self._now
            )
            self.opened = OpenCase(self, self.viewer, prepared, images, lesions, reading)
            self._show_title()  # the image keeps the browser busy
            self.opened.show()
        finally:
            self._list_cases()
        self._say(unsaved)

    def _close_case(self, finished: bool = False) -> str:
        """Save and leave the case; where it cannot be saved it stays open.

        One that another notebook took is left all the same: what is returned says that it is not saved.
        """
        unsaved = ""
        if self.opened:
            try:
                self.opened.close(finished)
            except CaseTaken as error:
                unsaved = f"Not saved. {error}"
            self.opened = None
            self._fill(self.lesions, None, [])
            self.viewer.clear()
        return unsaved

    def _make_next(self) -> None:
        """Make the case after this one ready to be shown, while a person is at work on this one."""
        names = [case.name for case in self.waiting.cases]
        following = names[names.index(self.reading.case) + 1 :] if self.reading else []
        if following and following[0] not in self._ahead:
            self._ahead = {following[0]: self._worker.submit(self._images, following[0])}

    def _made_ahead(self, name: str) -> tuple[Prepared, CaseImages, LesionList]:
        made: Future | None = self._ahead.pop(name, None)
        return made.result() if made and not made.exception() else self._images(name)

    def _images(self, name: str) -> tuple[Prepared, CaseImages, LesionList]:
        """A case, with all that takes time before it can be shown."""
        prepared = self.waiting.prepared(name)
        image = replace(prepared.image, array=with_dark_background(prepared.image.array))
        images = CaseImages(name, image, prepared.beginning.mask, {})
        self.viewer.send(images)
        return prepared, images, LesionList(prepared.beginning, prepared.probability, image.spacing_mm)

    def finish(self) -> None:
        """Stand by the mask, and open the next case."""
        self._need_seen()
        unsaved = self._close_case(finished=True)
        self._open_next()
        if unsaved:
            self._say(unsaved)

    def finish_empty(self) -> None:
        """Say that there is no lesion, and open the next case."""
        if self._need_seen().mask.any():
            raise ValueError("The mask is not empty. Remove its lesions first, or press done to stand by them.")
        self.finish()

    def close(self) -> None:
        """Stop the clock and give the case free; the app does nothing any more."""
        self._guarded(self._close_case)
        self._worker.shutdown(wait=False, cancel_futures=True)
        if AnnotateApp._open is self:
            AnnotateApp._open = None
        self._say("This app is closed. Run the cell again.")

    def _need_case(self) -> OpenCase:
        if self.opened is None:
            raise ValueError("No case is open. Choose one in the list.")
        return self.opened

    def _need_seen(self) -> OpenCase:
        opened = self._need_case()
        if not self.viewer.ready:
            raise ValueError("The case is not shown yet: nobody has looked at it.")
        return opened


def _explained(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename:  # of a file with a temporary name
        folder = Path(error.filename).parent
        return f"{error.strerror}: {folder}. Nothing can be saved there. Mend that, then go on: the mask is still here."
    return str(error) if isinstance(error, ValueError | OSError) else repr(error)
