"""What a notebook wrote for later steps of its study: read only where it is as it was written."""

from pathlib import Path
from typing import Any

import pandas as pd

from metaseg_nb.checksums import FILES, changed_files, read_record
from metaseg_nb.cohort.problems import CohortError, Problem
from metaseg_nb.files import DamagedFile, read_table
from metaseg_nb.layout import StudyLayout


def read_written(layout: StudyLayout, table: Path) -> pd.DataFrame:
    """Read a table that 01, 04 or 05 wrote; see `require_written`."""
    require_written(layout, table)
    return read_table(table)


def require_written(layout: StudyLayout, *files: Path) -> dict[str, Any]:
    """Compare files of one folder with the record that their notebook wrote last.

    Parameters
    ----------
    layout : StudyLayout
    *files : path
        In the folder of the study, of its cross-validation or of its gallery.

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


def _writer(layout: StudyLayout, folder: Path) -> tuple[str, Path]:
    """Notebook that writes the tables of a folder, and its record."""
    return {
        layout.root: ("01_explore_data", layout.dataset),
        layout.cross_validation: ("04_cross_validation", layout.comparison),
        layout.gallery: ("05_qualitative_review", layout.gallery_record),
    }[folder]
