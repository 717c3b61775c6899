"""Text files that others wrote, read strictly: UTF-8, JSON without equal keys, tables whose rows fit their header."""

import csv
import io
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metaseg_nb.cohort.problems import CohortError, Problem
from metaseg_nb.cohort.sources.spelling import tidy

BYTE_ORDER_MARKS = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16", b"PK": "a workbook of Excel or another zip archive"}


@dataclass(frozen=True)
class Table:
    """A CSV: ``columns`` in small letters, and ``rows`` with their line numbers; each has a cell for each column."""

    path: Path
    columns: list[str]
    rows: list[tuple[int, dict[str, str]]]


def read_text(path: Path) -> str:
    """Read a text file in UTF-8.

    Raises
    ------
    CohortError
        It cannot be read, or is in another encoding.
    """
    try:
        content = path.read_bytes()
        return content.decode("utf-8-sig")
    except OSError as error:
        raise CohortError.one("-", path, f"no access ({error.strerror})", "a file to read", "allow reading") from error
    except UnicodeDecodeError as error:
        kind = BYTE_ORDER_MARKS.get(content[:2], "another encoding, perhaps Windows-1252")
        line = content[: error.start].count(b"\n") + 1
        found = f"not UTF-8 but {kind} (line {line}, byte 0x{content[error.start]:02x})"
        raise CohortError.one("-", path, found, "text in UTF-8", "save the file in UTF-8") from error


def read_json(path: Path) -> Any:
    """Read JSON in which no object has two equal keys.

    Raises
    ------
    CohortError
        The file is no such JSON; all equal keys are named.
    """
    equal: set[str] = set()

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        equal.update(key for key, times in Counter(key for key, _ in pairs).items() if times > 1)
        return dict(pairs)

    text = read_text(path)
    try:
        content = json.loads(text, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise CohortError.one("-", path, f"not JSON ({error})", "JSON", "repair the file") from error
    if equal:
        fix = "join their contents under one key, or rename one"
        found = [f'the key "{key}" more than once in one object' for key in sorted(equal)]
        raise CohortError(Problem("-", str(path), each, "each key once", fix) for each in found)
    return content


def read_csv(path: Path) -> tuple[Table, list[Problem]]:
    """Read a table separated by commas, semicolons or tabs; empty lines are left out.

    Returns
    -------
    table : Table
        Rows that have a cell for each column.
    problems : list of Problem
        Rows that have more or fewer.

    Raises
    ------
    CohortError
        The file does not exist, is no CSV in UTF-8, or is empty.
    """
    if not path.is_file():
        raise CohortError.one("-", path, "no such file", "a CSV", "correct the path")
    text = read_text(path)
    header = text.lstrip().partition("\n")[0]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=header.count), strict=True)
    try:
        lines = [(reader.line_num, [tidy(cell) for cell in cells]) for cells in reader]
    except csv.Error as error:
        found = f"no table (line {reader.line_num}: {error})"
        raise CohortError.one("-", path, found, "a CSV in UTF-8", "repair the line") from error
    lines = [(number, cells) for number, cells in lines if any(cells)]
    if not lines:
        raise CohortError.one("-", path, "an empty table", "a header and a row for each case", "fill the table")
    columns = [column.lower() for column in lines.pop(0)[1]]
    expected = f"as many cells in each row as in the header of {path.name}: {len(columns)}"
    fix = "correct the row; text that holds the separator stands in quotes"
    problems = [
        Problem(f"line {number}", str(path), f"{len(cells)} cells: {', '.join(cells):.80}", expected, fix)
        for number, cells in lines
        if len(cells) != len(columns)
    ]
    rows = [(number, dict(zip(columns, cells, strict=True))) for number, cells in lines if len(cells) == len(columns)]
    return Table(path, columns, rows), problems
