"""Files that one notebook writes and another reads: unchanged, or an error. And the settings behind a cohort."""

import json
from pathlib import Path
from typing import Any

import pandas as pd

from metaseg_nb.checksums import FILES, changed_files, read_record
from metaseg_nb.cohort.problems import CohortError, Problem
from metaseg_nb.files import DamagedFile, read_table
from metaseg_nb.layout import StudyLayout
from metaseg_nb.settings import Explore


def read_written(layout: StudyLayout, table: Path) -> pd.DataFrame:
    """Read a table that 01, 04, 05 or 06 wrote; see `require_written`."""
    require_written(layout, table)
    return read_table(table)


def require_written(layout: StudyLayout, *files: Path) -> dict[str, Any]:
    """Compare files of one folder with the record that their notebook wrote last.

    Parameters
    ----------
    layout : StudyLayout
    *files : path
        In the folder of the study, of its cross-validation, annotation budget or gallery.

    Returns
    -------
    dict
        What else the record says.

    Raises
    ------
    CohortError
        With every file that is lost, or not as it was written; names the notebook and the command that writes it.
    """
    notebook, record = _writer(layout, files[0].parent)
    expected = f"the file as notebook {notebook[:2]} wrote it"
    fix = f"run notebook {notebook[:2]} (`python -m metaseg_nb run {notebook} --study {layout.study}`)"

    def refusal(found: dict[Path, str]) -> CohortError:
        return CohortError(Problem("-", str(path), what, expected, fix) for path, what in found.items())

    if lost := [path for path in dict.fromkeys([*files, record]) if not path.is_file()]:
        raise refusal(dict.fromkeys(lost, "no such file"))
    try:
        facts = read_record(record)
    except DamagedFile as error:
        raise refusal({record: error.found}) from error
    names = {file: file.relative_to(record.parent).as_posix() for file in files if file != record}
    checksums = facts.pop(FILES)
    changed = changed_files(record, {FILES: {name: checksums.get(name) for name in names.values()}})
    if changed:
        raise refusal({file: changed[name] for file, name in names.items() if name in changed})
    return facts


def require_same_settings(layout: StudyLayout, settings: Explore) -> None:
    """Refuse to replace the cohort of a study by another; with the same settings, its files may have changed.

    Raises
    ------
    CohortError
        Names each setting that differs from those that ``dataset.json`` was made with.
    """
    try:
        kept = json.loads(layout.dataset.read_bytes()).get("settings", {})
    except (OSError, ValueError, AttributeError):  # no cohort yet, or a damaged one, which is written anew
        return
    new = cohort_settings(settings)
    differ = [f"`{name}` {kept[name]!r}, now {new.get(name)!r}" for name in kept if kept[name] != new.get(name)]
    if differ or not kept:
        fix = "set `study` to another name, or set these parameters back; to replace this cohort, delete the file first"
        found = f"a cohort made with {'; '.join(differ)}" if differ else "a cohort without its settings (version 0.1)"
        expected = "a new study, or the settings that this study was made with"
        raise CohortError.one("-", layout.dataset, found, expected, fix)


def cohort_settings(settings: Explore) -> dict[str, Any]:
    """The settings of notebook 01 that decide what a cohort and its folds are."""
    others = {"study", "workers", "confirmed", "annotation_shares"}
    return settings.model_dump(exclude=others | ({"synthetic_patients"} if settings.cohort != "synthetic" else set()))


def _writer(layout: StudyLayout, folder: Path) -> tuple[str, Path]:
    """Notebook that writes the tables of a folder, and its record."""
    return {
        layout.root: ("01_explore_data", layout.dataset),
        layout.cross_validation: ("04_cross_validation", layout.comparison),
        layout.annotation_budget: ("06_annotation_budget", layout.budget_record),
        layout.gallery: ("05_qualitative_review", layout.gallery_record),
    }[folder]
