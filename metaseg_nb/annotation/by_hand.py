"""One reader's work on one case: what the drawing begins with, its active seconds, and what is saved at each stroke."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np

from metaseg_nb.annotation.open_cases import CaseTaken, hold, left_behind, release
from metaseg_nb.annotation.readings import Beginning, beginning_file, kept_record, mask_file, record_file
from metaseg_nb.checksums import checksum, write_record
from metaseg_nb.cohort.cases import Case
from metaseg_nb.cohort.lesions import find_lesions
from metaseg_nb.cohort.problems import refusal
from metaseg_nb.cohort.volumes import Volume, read_mask, write_volume
from metaseg_nb.layout import StudyLayout
from metaseg_nb.settings import READER

# Seconds without an action after which the clock stops.
IDLE_S = 30.0
# Seconds after which an action says again that the case is open here, and for how many seconds.
WORD_S = 10.0


@dataclass
class ActiveClock:
    """Seconds in which a person works: it stops `IDLE_S` after the last action.

    ``now`` gives seconds that only grow.
    """

    now: Callable[[], float] = time.monotonic
    seconds: float = 0.0
    _last: float | None = None

    def action(self) -> None:
        """Count the time since the last action, of a pause its first `IDLE_S`."""
        moment = self.now()
        if self._last is not None:
            self.seconds += min(moment - self._last, IDLE_S)
        self._last = moment

    def stop(self) -> None:
        """Count to this moment, and nothing until the next action."""
        self.action()
        self._last = None


@dataclass
class Reading:
    """One reader's work on one case, from `open_reading`; every `save` is complete on disk.

    Attributes
    ----------
    case, reader : str
    beginning : Beginning
    image : Volume
        First sequence; the mask is written on its grid.
    mask : ndarray of bool, shape (X, Y, Z)
        As it was saved last.
    clock : ActiveClock
    facts : dict
        What its record says whatever is drawn: case and reader, with what it began, when it was ``started``, and the
        ``image_sha256`` of the image's file: a mask is never put on another image.
    finished : bool
        Whether the reader stands by the mask: it is so until the mask changes.
    accepted : list of [x, y, z]
        Voxels at the centres of the lesions that the reader has ticked off.
    record : bytes
        Its record as it was read or written here last; empty before the first. Where another is on disk, another
        notebook has saved the case since.
    """

    layout: StudyLayout
    case: str
    reader: str
    beginning: Beginning
    image: Volume
    mask: np.ndarray
    clock: ActiveClock
    facts: dict[str, Any]
    finished: bool = False
    accepted: list[list[int]] = field(default_factory=list)
    record: bytes = b""
    _last_word: float = -math.inf

    def action(self) -> None:
        """Count an action, and hold the case: at most each `WORD_S`, for that writes a file.

        Raises
        ------
        CaseTaken
            As from `save`.
        """
        self.clock.action()
        if self.clock.now() - self._last_word >= WORD_S:
            self.hold()

    def save(self, mask: np.ndarray, finished: bool = False) -> None:
        """Keep a mask (bool, shape (X, Y, Z)) and its record; ``finished``: the reader stands by it.

        Raises
        ------
        CaseTaken
            Another notebook has the case by now, or has saved it since this one did: nothing is written.
        """
        self.clock.action()
        self.hold()
        self.finished = finished or (self.finished and np.array_equal(mask, self.mask))
        path = mask_file(self.layout, self.reader, self.case)
        write_volume(path, replace(self.image, array=mask.astype(np.uint8)))
        lesions = find_lesions(mask, self.image.spacing_mm)
        facts = {
            **self.facts,
            "saved": _now(),
            "finished": self.finished,
            "seconds": round(self.clock.seconds, 1),
            "accepted": self.accepted,
            **self.beginning.changes(lesions),
            "n_lesions": lesions.n,
            "n_slices": sum(box[2].stop - box[2].start for box in lesions.boxes.values()),
            "volume_mm3": float(mask.sum() * np.prod(self.image.spacing_mm)),
        }
        write_record(record_file(path), facts, [path, beginning_file(path)])
        self.mask, self.record = mask, record_file(path).read_bytes()

    def close(self, finished: bool = False) -> None:
        """Stop the clock, save, and give the case free.

        A case that was only looked at is not begun by that, and one that is finished takes no more minutes.
        """
        self.clock.stop()
        record = record_file(mask_file(self.layout, self.reader, self.case))
        begun = record.is_file() or self.clock.seconds > IDLE_S
        if finished or (begun and not self.finished):
            self.save(self.mask, finished)
        release(self.layout, self.case, self.reader)

    def hold(self) -> None:
        """Hold the case, and keep seconds and ticks, unless another notebook has it, or has saved it since this did."""
        self._last_word = self.clock.now()
        try:
            hold(self.layout, self.case, self.reader, self.clock.seconds, self.accepted)
            record = record_file(mask_file(self.layout, self.reader, self.case))
            if record.is_file() and record.read_bytes() != self.record:
                release(self.layout, self.case, self.reader)
                age_min = (time.time() - record.stat().st_mtime) / 60
                found = f"{self.reader} saved it in another notebook {age_min:.0f} min ago"
                raise CaseTaken(f"case {self.case}: {found}. What to do: run the cell again, and choose the case.")
        except CaseTaken as error:
            raise CaseTaken(f"{error} Nothing that was drawn here meanwhile is saved.") from error


def open_reading(
    layout: StudyLayout,
    case: Case,
    image: Volume,
    reader: str,
    beginning: Beginning,
    second: bool = False,
    now: Callable[[], float] = time.monotonic,
) -> Reading:
    """Begin a reader's work on a case, or go on where it was left.

    Parameters
    ----------
    layout : StudyLayout
    case : Case
    image : Volume
        Its first sequence.
    reader : str
        Code of a person, not a name: it stands in every table.
    beginning : Beginning
        Used where the reader has not saved the case before.
    second : bool
        Whether a case that another reader has begun may be read again, apart from the first reading.
    now : callable
        Clock, see `ActiveClock`.

    Raises
    ------
    ValueError
        The code of the reader cannot be a folder's name.
    CaseTaken
        Another reader has the case open; or began it, and ``second`` is not set.
    CohortError
        The reader drew on another image of this name; or the mask or its record is lost or damaged.
    """
    if not READER.fullmatch(reader):
        expected = "up to 20 letters, digits, - and _, such as R1"
        raise ValueError(f"reader {reader!r}: expected {expected}. Set `reader` in the first cell")
    others = {path.parent.name for path in layout.by_hand.glob(f"*/{case.name}.json")} - {reader}
    if others and not second:
        advice = "take another case, or set `second_reading` to read it again"
        raise CaseTaken(f"case {case.name}: {', '.join(sorted(others))} has begun it. What to do: {advice}.")
    path, image_sha256 = mask_file(layout, reader, case.name), checksum(case.image)
    left = left_behind(layout, case.name, reader)
    hold(layout, case.name, reader, **left)
    try:
        kept, record = kept_record(path, case.name), record_file(path)
        known = record.read_bytes() if kept else b""
        facts = kept or {"case": case.name, "reader": reader, "image_sha256": image_sha256, "started": _now()}
        if facts["image_sha256"] != image_sha256:
            found = "another image than the mask was drawn on"
            raise refusal("image of mask", case, case.image, found, mask=path.name, record=record.name)
        if kept:  # the mask may be one stroke newer than its record, where a process ended between the two
            first, mask = (read_mask(file, case.name).array for file in (beginning_file(path), path))
            beginning = Beginning(kept["begun_with"], first, kept["networks"], kept["by_chance"])
        else:
            mask = beginning.mask
            write_volume(beginning_file(path), replace(image, array=mask.astype(np.uint8)))
    except Exception:
        if not left:  # seconds and ticks stay for the next time
            release(layout, case.name, reader)  # or others would wait for a case that nobody could open
        raise
    facts |= {"begun_with": beginning.how, "networks": beginning.networks, "by_chance": beginning.by_chance}
    clock = ActiveClock(now, max(kept.get("seconds", 0.0), left.get("seconds", 0.0)))
    clock.action()
    finished, accepted = kept.get("finished", False), left.get("accepted", kept.get("accepted", []))
    return Reading(
        layout, case.name, reader, beginning, image, mask, clock, facts, finished, accepted=accepted, record=known
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
