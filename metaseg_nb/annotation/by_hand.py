"""Masks drawn by hand: kept with who drew them, when, from what, and the active minutes they took."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from metaseg_nb.annotation.open_cases import CaseTaken, hold, release
from metaseg_nb.checksums import changed_files, checksum, read_record, write_record
from metaseg_nb.cohort.cases import Case
from metaseg_nb.cohort.lesions import find_lesions, label_lesions
from metaseg_nb.cohort.problems import CohortError, Problem
from metaseg_nb.cohort.volumes import Volume, read_mask, write_volume
from metaseg_nb.files import DamagedFile
from metaseg_nb.layout import StudyLayout
from metaseg_nb.settings import READER

# Seconds without an action after which the clock stops.
IDLE_S = 30.0
# What a drawing begins with: what networks propose, the mask that the case has, or an empty image.
PROPOSAL, MASK, NOTHING = "proposal", "mask", "nothing"
COUNTS = ["voxels_added", "voxels_removed", "lesions_kept", "lesions_edited", "lesions_added", "lesions_removed"]
OF_MASK = ["n_lesions", "n_slices", "volume_mm3"]
COLUMNS = [
    "case",
    "reader",
    "begun_with",
    "by_chance",
    "image_sha256",
    "started",
    "saved",
    "finished",
    "seconds",
    *COUNTS,
    *OF_MASK,
    "mask",
]
AS_SAVED = (
    "the file as notebook 08 saved it",
    "open the case in 08 again, look at it, and press done; if the file is lost, restore it",
)


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


@dataclass(frozen=True)
class Beginning:
    """What a drawing begins with.

    Attributes
    ----------
    how : str
        `PROPOSAL`, `MASK` or `NOTHING`.
    mask : ndarray of bool, shape (X, Y, Z)
        On the image's grid, RAS.
    networks : list of str
        Checkpoints that proposed it.
    by_chance : bool
        Whether chance decided between a proposal and nothing: only such cases show what a proposal saves.
    """

    how: str
    mask: np.ndarray
    networks: list[str] = field(default_factory=list)
    by_chance: bool = False


def changes(before: np.ndarray, after: np.ndarray) -> dict[str, int]:
    """Count what a reader changed of a mask.

    Parameters
    ----------
    before, after : ndarray of bool, shape (X, Y, Z)

    Returns
    -------
    dict
        ``voxels_added``, ``voxels_removed``; 26-connected lesions ``lesions_kept`` (voxel by voxel), ``lesions_edited``
        (of ``after``: share a voxel with one before, and differ), ``lesions_added`` (of ``after``: share none),
        ``lesions_removed`` (of ``before``: nothing is left).
    """
    (old, n_old), (new, n_new) = label_lesions(before), label_lesions(after)
    pairs = np.unique(old[before & after] * np.int64(n_new + 1) + new[before & after])
    touching = {divmod(int(pair), n_new + 1) for pair in pairs}
    changed = {int(label) for label in np.unique(new[after & ~before])}
    cut = set(np.unique(old[before & ~after]).tolist())
    changed |= {b for a, b in touching if a in cut}
    of_before, of_after = {a for a, _ in touching}, {b for _, b in touching}
    return {
        "voxels_added": int((after & ~before).sum()),
        "voxels_removed": int((before & ~after).sum()),
        "lesions_kept": len(of_after - changed),
        "lesions_edited": len(of_after & changed),
        "lesions_added": n_new - len(of_after),
        "lesions_removed": n_old - len(of_before),
    }


@dataclass
class Reading:
    """One reader's work on one case, from `open_reading`; every `save` is complete on disk.

    Attributes
    ----------
    case, reader : str
    beginning : Beginning
    image : Volume
        First sequence; the mask is written on its grid.
    image_sha256 : str
        Of its file: a mask is never put on another image.
    mask : ndarray of bool, shape (X, Y, Z)
        As it was saved last.
    clock : ActiveClock
    started : str
        ISO time in UTC.
    finished : bool
        Whether the reader stands by the mask: it is so until the mask changes.
    """

    layout: StudyLayout
    case: str
    reader: str
    beginning: Beginning
    image: Volume
    image_sha256: str
    mask: np.ndarray
    clock: ActiveClock
    started: str
    finished: bool = False

    def save(self, mask: np.ndarray, finished: bool = False) -> None:
        """Keep a mask (bool, shape (X, Y, Z)) and its record; ``finished``: the reader stands by it.

        Raises
        ------
        CaseTaken
            Another reader took the case over meanwhile.
        """
        self.clock.action()
        hold(self.layout, self.case, self.reader)
        self.finished = finished or (self.finished and np.array_equal(mask, self.mask))
        path = mask_file(self.layout, self.reader, self.case)
        write_volume(path, replace(self.image, array=mask.astype(np.uint8)))
        lesions = find_lesions(mask, self.image.spacing_mm)
        facts = {
            "case": self.case,
            "reader": self.reader,
            "begun_with": self.beginning.how,
            "networks": self.beginning.networks,
            "by_chance": self.beginning.by_chance,
            "image_sha256": self.image_sha256,
            "started": self.started,
            "saved": _now(),
            "finished": self.finished,
            "seconds": round(self.clock.seconds, 1),
            **changes(self.beginning.mask, mask),
            "n_lesions": lesions.n,
            "n_slices": sum(box[2].stop - box[2].start for box in lesions.boxes.values()),
            "volume_mm3": float(mask.sum() * np.prod(self.image.spacing_mm)),
        }
        write_record(_record(path), facts, [path, _beginning(path)])
        self.mask = mask

    def close(self, finished: bool = False) -> None:
        """Stop the clock, save, and give the case free.

        A case that was only looked at is not begun by that, and one that is finished takes no more minutes.
        """
        self.clock.stop()
        begun = _record(mask_file(self.layout, self.reader, self.case)).is_file() or self.clock.seconds > IDLE_S
        if finished or (begun and not self.finished):
            self.save(self.mask, finished)
        release(self.layout, self.case)


def mask_file(layout: StudyLayout, reader: str, case: str) -> Path:
    """Where a reader's mask of a case is; its record ``<case>.json`` lies beside it."""
    return layout.by_hand / reader / f"{case}.nii.gz"


def read_readings(layout: StudyLayout) -> pd.DataFrame:
    """Read what all readers did, a row per reader and case, in the order in which they began.

    Returns
    -------
    DataFrame
        What `Reading.save` writes: ``case``, ``reader``, ``begun_with``, ``by_chance``, ``started``, ``saved``,
        ``finished``, ``seconds``, the counts of `changes`, ``n_lesions``, ``n_slices``, ``volume_mm3``; and
        ``mask``, its file.

    Raises
    ------
    CohortError
        With every mask that is not as it was saved; or with every record that cannot be used.
    """
    rows, problems = [], []
    for path, record in _records(layout):
        rows.append(record | {"mask": path.with_suffix(".nii.gz")})
        for name, found in changed_files(path, record).items():
            problems.append(Problem(record["case"], str(path.parent / name), found, *AS_SAVED))
    if problems:
        raise CohortError(problems)
    return pd.DataFrame(rows, columns=COLUMNS).sort_values(["started", "reader", "case"], ignore_index=True)


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
    others = sorted(path.parent.name for path in layout.by_hand.glob(f"*/{case.name}.json"))
    if not second and (others := [other for other in others if other != reader]):
        advice = "take another case, or set `second_reading` to read it again"
        raise CaseTaken(f"case {case.name}: {', '.join(others)} has begun it. What to do: {advice}.")
    path, record = mask_file(layout, reader, case.name), _record(mask_file(layout, reader, case.name))
    kept = _read(record) if record.is_file() else {}
    if path.is_file() and not kept:
        fix = "restore the record; or, to begin anew, move the mask to another folder"
        raise CohortError.one(case.name, path, "a mask without its record", f"{record.name} beside it", fix)
    image_sha256 = checksum(case.image)
    if kept and kept["image_sha256"] != image_sha256:
        fix = f"restore the image; or, to begin anew, move {path.name} and {record.name} to another folder"
        raise CohortError.one(case.name, case.image, "another image than the mask was drawn on", "the same", fix)
    hold(layout, case.name, reader)
    try:
        return _reading(layout, case.name, reader, image, image_sha256, beginning, kept, now)
    except Exception:
        release(layout, case.name)  # or others would wait for a case that nobody could open
        raise


def _reading(
    layout: StudyLayout,
    case: str,
    reader: str,
    image: Volume,
    image_sha256: str,
    beginning: Beginning,
    kept: dict[str, Any],
    now: Callable[[], float],
) -> Reading:
    """The work as a record keeps it; without one it begins."""
    path, clock = mask_file(layout, reader, case), ActiveClock(now, kept.get("seconds", 0.0))
    if not kept:
        write_volume(_beginning(path), replace(image, array=beginning.mask.astype(np.uint8)))
        mask, started, finished = beginning.mask, _now(), False
    else:  # the mask may be one stroke newer than its record, where a process ended between the two
        first, mask = (read_mask(file, case).array for file in (_beginning(path), path))
        beginning = Beginning(kept["begun_with"], first, kept["networks"], kept["by_chance"])
        started, finished = kept["started"], kept["finished"]
    clock.action()
    return Reading(layout, case, reader, beginning, image, image_sha256, mask, clock, started, finished)


def read_progress(layout: StudyLayout) -> dict[str, dict[str, bool]]:
    """Who has begun which case: by case and reader, whether it is finished. Masks are not read.

    Raises
    ------
    CohortError
        With every record that cannot be used.
    """
    progress: dict[str, dict[str, bool]] = {}
    for _, record in _records(layout):
        progress.setdefault(record["case"], {})[record["reader"]] = record["finished"]
    return progress


def _records(layout: StudyLayout) -> list[tuple[Path, dict[str, Any]]]:
    """All records, with their files."""
    records, problems = [], []
    for path in sorted(layout.by_hand.glob("*/*.json")):
        try:
            records.append((path, _read(path)))
        except CohortError as error:
            problems += error.problems
    if problems:
        raise CohortError(problems)
    return records


def _read(path: Path) -> dict[str, Any]:
    try:
        record = read_record(path)
    except DamagedFile as error:
        fix = "restore a copy of it. Without it this mask must be begun anew: move both to another folder"
        raise CohortError.one(path.stem, path, error.found, "the record as notebook 08 wrote it", fix) from error
    if (record["reader"], record["case"]) != (path.parent.name, path.stem):
        found = f"the record of {record['reader']}, case {record['case']}"
        raise CohortError.one(path.stem, path, found, "the record of its folder and name", "move the copy elsewhere")
    return record


def _record(mask: Path) -> Path:
    return mask.with_name(mask.name.removesuffix(".nii.gz") + ".json")


def _beginning(mask: Path) -> Path:
    return mask.parent / "beginnings" / mask.name


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
