"""Masks drawn by hand, and what their readers did: what they changed, in how many minutes, and how far two agree.

A mask is `<reader>/<case>.nii.gz`; its record is beside it, and what the drawing began with in a folder below.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from metaseg_nb.annotation.open_cases import open_elsewhere
from metaseg_nb.checksums import changed_files, read_record
from metaseg_nb.cohort.datalist import read_written
from metaseg_nb.cohort.lesions import Lesions, label_lesions
from metaseg_nb.cohort.problems import CohortError, Problem, broken, of_each, refusal
from metaseg_nb.cohort.volumes import read_mask
from metaseg_nb.evaluation.intervals import percentiles, times_drawn
from metaseg_nb.evaluation.scoring import score
from metaseg_nb.files import DamagedFile
from metaseg_nb.layout import StudyLayout

# What a drawing begins with: what networks propose, the mask that the case has, or an empty image.
PROPOSAL, MASK, NOTHING = "proposal", "mask", "nothing"
# Of each reading; what else is in a record is not in the table.
READING_COLUMNS = ["case", "reader", "begun_with", "by_chance", "image_sha256", "started", "saved", "finished"]
READING_COLUMNS += ["seconds", "voxels_added", "voxels_removed", "lesions_kept", "lesions_edited", "lesions_added"]
READING_COLUMNS += ["lesions_removed", "n_lesions", "n_slices", "volume_mm3", "mask"]
AGREEMENT = ["case", "reader_1", "reader_2", "dice", "nsd_1mm", "lesions_1", "lesions_2", "lesions_in_both"]
# Median of nine physicians on ten cases of metastases, meningiomas and neuromas: Lu et al. 2021, Neuro-Oncology
# 23(9):1560-1568, doi:10.1093/neuonc/noab071.
PUBLISHED_SAVING = 0.308


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

    @cached_property
    def labels(self) -> np.ndarray:
        """Numbers of its lesions, found once: int of shape (X, Y, Z)."""
        return label_lesions(self.mask)[0]

    def states(self, after: Lesions) -> dict[str, set[int]]:
        """Say what became of its lesions.

        Returns
        -------
        dict
            Numbers of 26-connected lesions: ``kept`` (voxel by voxel), ``edited`` (of ``after``: share a voxel with one
            before, and differ), ``added`` (of ``after``: share none), ``removed`` (of before: nothing is left).
        """
        old, new = self._marked(after)
        both = (old > 0) & (new > 0)
        drawn_from, changed = set(new[both].tolist()), set(new[(old == 0) | np.isin(old, old[new == 0])].tolist())
        return {
            "kept": drawn_from - changed,
            "edited": drawn_from & changed,
            "added": after.boxes.keys() - drawn_from,
            "removed": set(old.tolist()) - set(old[both].tolist()) - {0},
        }

    def changes(self, after: Lesions) -> dict[str, int]:
        """Count what a reader changed: ``voxels_added``, ``voxels_removed``, and ``lesions_kept`` etc. (`states`)."""
        old, new = self._marked(after)
        voxels = {"voxels_added": int((old == 0).sum()), "voxels_removed": int((new == 0).sum())}
        return voxels | {f"lesions_{state}": len(lesions) for state, lesions in self.states(after).items()}

    def _marked(self, after: Lesions) -> tuple[np.ndarray, np.ndarray]:
        """Numbers of the lesions before and after, of each voxel that is in either."""
        marked = np.flatnonzero((self.labels | after.labels) > 0)
        return self.labels.ravel()[marked], after.labels.ravel()[marked]


def mask_file(layout: StudyLayout, reader: str, case: str) -> Path:
    """Where a reader's mask of a case is."""
    return layout.by_hand / reader / f"{case}.nii.gz"


def record_file(mask: Path) -> Path:
    """Where the record of a mask is: who drew it, when, from what, in how many seconds."""
    return mask.with_name(mask.name.removesuffix(".nii.gz") + ".json")


def beginning_file(mask: Path) -> Path:
    """Where the mask is that a drawing began with."""
    return mask.parent / "beginnings" / mask.name


def kept_record(mask: Path, case: str) -> dict[str, Any]:
    """Read the record of a mask; empty where nothing has been drawn yet.

    Raises
    ------
    CohortError
        The record is damaged, or of another mask; or there is a mask without one.
    """
    record = record_file(mask)
    if record.is_file():
        return _read(record)
    if mask.is_file():
        raise CohortError([_without_record(mask)])
    return {}


def read_readings(layout: StudyLayout, reader: str | None = None) -> pd.DataFrame:
    """Read what all readers did, or one of them, a row per reader and case, in the order in which they began.

    Returns
    -------
    DataFrame
        `READING_COLUMNS`: what `Reading.save` writes, and ``mask``, its file.

    Raises
    ------
    CohortError
        With every mask that is not as it was saved, or has no record although nobody draws it now; or with every
        record that cannot be used.
    """
    masks = [mask for mask in _files(layout, reader, ".nii.gz") if not record_file(mask).is_file()]
    lost = [mask for mask in masks if not open_elsewhere(layout, record_file(mask).stem, "")]
    rows, problems = [], [_without_record(mask) for mask in lost]
    for path, record in _records(layout, reader):
        rows.append(record | {"mask": path.with_suffix(".nii.gz")})
        for name, found in changed_files(path, record).items():
            problems.append(broken("mask as saved", record["case"], path.parent / name, found))
    if problems:
        raise CohortError(problems)
    return pd.DataFrame(rows, columns=READING_COLUMNS).sort_values(["started", "reader", "case"], ignore_index=True)


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


def with_minutes(readings: pd.DataFrame) -> pd.DataFrame:
    """The finished readings, with ``minutes`` and ``minutes_per_lesion`` (NaN without lesions).

    Parameters
    ----------
    readings : DataFrame
        From `read_readings`.
    """
    done = readings[readings["finished"].astype(bool)]
    minutes = done["seconds"].astype(float) / 60
    return done.assign(minutes=minutes, minutes_per_lesion=minutes / done["n_lesions"].where(done["n_lesions"] > 0))


def require_counted(layout: StudyLayout) -> None:
    """Refuse tables of notebook 08 that are not as it wrote them, or from before the last mask was finished.

    Raises
    ------
    CohortError
        Says so, and names the command that makes them again.
    """
    counted, now = read_written(layout, layout.by_hand / "readings.csv"), with_minutes(read_readings(layout))
    if set(zip(counted["case"], counted["saved"], strict=True)) != set(zip(now["case"], now["saved"], strict=True)):
        found = "masks finished since they were counted"
        raise refusal("masks counted", "-", layout.by_hand_record, found, study=layout.study)


def saved_by_proposals(done: pd.DataFrame, n_bootstrap: int, seed: int) -> tuple[float, float, float]:
    """Share of the minutes that a proposal saves, with its 95 % interval.

    Only cases count for which chance decided. Cases with and without a proposal are resampled apart; of a case that
    several readers read the minutes are averaged first.

    Parameters
    ----------
    done : DataFrame
        From `with_minutes`.
    n_bootstrap, seed : int

    Returns
    -------
    saved, low, high : float
        1 minus the ratio of the mean minutes; negative where proposals cost time. NaN with fewer than two cases of
        either kind.
    """
    of_cases = done[done["by_chance"].astype(bool)].groupby(["begun_with", "case"])["minutes"].mean()
    kinds = [of_cases[of_cases.index.get_level_values(0) == how].to_numpy(float) for how in (PROPOSAL, NOTHING)]
    if min(map(len, kinds)) < 2:
        return np.nan, np.nan, np.nan
    drawn = [times_drawn(len(of), n_bootstrap, seed + i) @ of / len(of) for i, of in enumerate(kinds)]
    with np.errstate(divide="ignore", invalid="ignore"):
        return 1 - kinds[0].mean() / kinds[1].mean(), *percentiles(1 - drawn[0] / drawn[1], min(map(len, kinds)))


def reader_agreement(done: pd.DataFrame) -> pd.DataFrame:
    """Compare the masks of each two readers of one case.

    Parameters
    ----------
    done : DataFrame
        From `with_minutes`.

    Returns
    -------
    DataFrame
        `AGREEMENT`: a row per case and pair of readers. Two empty masks agree: 1. A lesion is in both where it touches
        one of the other reader, as in `lesion_metrics`.

    Raises
    ------
    CohortError
        A mask cannot be read.
    """
    rows: list[Sequence[object]] = []
    for case, of_case in done.sort_values("reader").groupby("case"):
        for first, second in combinations(of_case.itertuples(), 2):
            masks = [read_mask(one.mask, str(case)) for one in (first, second)]
            found, _ = score(*masks, case=str(case), files=(first.mask, second.mask))
            shared = [found[name] for name in ("dice", "nsd_1mm", "n_truth", "n_prediction", "n_detected")]
            rows.append((case, first.reader, second.reader, *shared))
    return pd.DataFrame(rows, columns=AGREEMENT)


def _files(layout: StudyLayout, reader: str | None, ending: str) -> list[Path]:
    """Files of all readers, or of one; hidden ones are being written."""
    paths = layout.by_hand.glob(f"*/[!.]*{ending}")
    return sorted(path for path in paths if reader in (None, path.parent.name))


def _records(layout: StudyLayout, reader: str | None = None) -> list[tuple[Path, dict[str, Any]]]:
    """All records, with their files."""
    paths = _files(layout, reader, ".json")
    return list(zip(paths, of_each(_read, paths), strict=True))


def _without_record(mask: Path) -> Problem:
    record = record_file(mask)
    return broken("record of mask", record.stem, mask, "a mask without its record", record=record.name)


def _read(path: Path) -> dict[str, Any]:
    try:
        record = read_record(path)
    except DamagedFile as error:
        raise refusal("record as written", path.stem, path, error.found) from error
    if (record["reader"], record["case"]) != (path.parent.name, path.stem):
        raise refusal("record in place", path.stem, path, f"the record of {record['reader']}, case {record['case']}")
    return record
