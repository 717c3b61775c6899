"""Masks drawn by hand, as files: `<reader>/<case>.nii.gz`, its record beside it, and what the drawing began with."""

from pathlib import Path
from typing import Any

import pandas as pd

from metaseg_nb.checksums import changed_files, read_record
from metaseg_nb.cohort.problems import CohortError, Problem, of_each
from metaseg_nb.files import DamagedFile
from metaseg_nb.layout import StudyLayout

# Of each reading; what else is in a record is not in the table.
COLUMNS = ["case", "reader", "begun_with", "by_chance", "image_sha256", "started", "saved", "finished", "seconds"]
COLUMNS += ["voxels_added", "voxels_removed", "lesions_kept", "lesions_edited", "lesions_added", "lesions_removed"]
COLUMNS += ["n_lesions", "n_slices", "volume_mm3", "mask"]
AS_SAVED = (
    "the file as notebook 08 saved it",
    "open the case in 08 again, look at it, and press done; if the file is lost, restore it",
)


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
        fix = "restore the record; or, to begin anew, move the mask to another folder"
        raise CohortError.one(case, mask, "a mask without its record", f"{record.name} beside it", fix)
    return {}


def read_readings(layout: StudyLayout) -> pd.DataFrame:
    """Read what all readers did, a row per reader and case, in the order in which they began.

    Returns
    -------
    DataFrame
        `COLUMNS`: what `Reading.save` writes, and ``mask``, its file.

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
    paths = sorted(layout.by_hand.glob("*/*.json"))
    return list(zip(paths, of_each(_read, paths), strict=True))


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
