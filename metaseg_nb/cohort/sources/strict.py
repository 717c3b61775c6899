"""Text files that others wrote, read strictly: UTF-8, JSON without equal keys, tables whose rows fit their header."""

import csv
import io
import json
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from metaseg_nb.cohort.problems import CohortError, Problem

BYTE_ORDER_MARKS = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16", b"PK": "a workbook of Excel or another zip archive"}
# How programs write that nothing is known.
MISSING = {
    *("na", "n/a", "n.a.", "n.a", "nan", "none", "null", "nil", "<na>", "tbd", "tba", "unk", "unknown", "not known"),
    *("missing", "not available", "not given", "unbekannt", "k.a.", "k.a", "#n/a", "#ref!", "#value!", "#name?"),
    *("#div/0!", "#num!", "#null!"),
}
# What programs make of the ids 7 and 100000.
SPREADSHEET_NUMBER = re.compile(r"\d+[.,]0+|\d+([.,]\d+)?[eE]\+\d\d?")
# Unicode's categories of control characters, halves of characters, and breaks of lines and paragraphs.
UNWRITABLE = {"Cc", "Cs", "Zl", "Zp"}


# What others call the keys that are read.
SYNONYMS = {
    "patient": re.compile(r"(patient|pat|subject|subj|participant)s?(id|name|number|no|nr|key|code)?|pid|mrn"),
    "case": re.compile(r"cases?(id|name)?"),
}


@dataclass(frozen=True)
class Table:
    """A CSV: ``columns`` in small letters, and ``rows`` with their line numbers; each has a cell for each column."""

    path: Path
    columns: list[str]
    rows: list[tuple[int, dict[str, str]]]


def tidy(text: str) -> str:
    """One spelling for names that look alike: composed letters (Unicode NFC), no blanks around."""
    return unicodedata.normalize("NFC", text).strip()


def loosely(name: str) -> tuple[str | int, ...]:
    """Words and numbers of a name; capitals, separators, leading zeros and a spreadsheet's ``7.0`` do not count."""
    if number := SPREADSHEET_NUMBER.fullmatch(tidy(name)):
        return (int(Decimal(number[0].replace(",", "."))),)
    words = re.findall(r"\d+|[^\W\d_]+", tidy(name).casefold())
    return tuple(int(word) if word.isdecimal() else word for word in words) or (name,)


def unwritable(text: str) -> bool:
    """Tell whether a text holds control characters, line breaks or halves of characters."""
    return any(unicodedata.category(character) in UNWRITABLE for character in text)


def means_unknown(text: str) -> bool:
    """Tell whether a text that is not empty says that nothing is known: a word for it, or no letter and no digit."""
    text = text.strip()
    return bool(text) and (text.lower() in MISSING or not any(map(str.isalnum, text)))


def fact(value: Any) -> str | None:
    """Text of a value that may be left out; None where it is: null, NaN, blank, or "unknown", NA, - and the like.

    Raises
    ------
    ValueError
        The value is neither text nor a number, or holds characters that no table can show.
    """
    if isinstance(value, bool | list | dict) or unwritable(str(value)):
        raise ValueError(f"{value!r:.80}")
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return None
    text = tidy(str(int(value) if isinstance(value, float) and value.is_integer() else value))
    return None if not text or means_unknown(text) else text


def misspelt(keys: Collection[str], known: Sequence[str]) -> dict[str, str]:
    """Keys that mean a known one, such as ``PatientID``, where the known one is not there."""
    missing = [name for name in known if name not in keys]
    return {key: name for key in keys if key not in known for name in missing if _means(key, name)}


def _means(key: str, name: str) -> bool:
    plain = re.sub(r"[^a-z]", "", key.lower())
    return plain == name.replace("_", "") or bool(name in SYNONYMS and SYNONYMS[name].fullmatch(plain))


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
        The file is no such JSON; equal keys are all named.
    """
    equal: Counter[str] = Counter()

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        equal.update(key for key, times in Counter(key for key, _ in pairs).items() if times > 1)
        return dict(pairs)

    try:
        content = json.loads(read_text(path), object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        if isinstance(error, CohortError):
            raise
        raise CohortError.one("-", path, f"not JSON ({error})", "JSON", "repair the file") from error
    if equal:
        fix = "join what they hold under one key, or rename one"
        raise CohortError(
            Problem("-", str(path), f'the key "{key}" more than once in one object', "each key once", fix)
            for key in equal
        )
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
        The file is not there, is no CSV in UTF-8, or holds nothing.
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
    columns = [column.lower() for column in lines[0][1]]
    fit = [(number, cells) for number, cells in lines[1:] if len(cells) == len(columns)]
    problems = [
        Problem(
            f"line {number}",
            str(path),
            f"{len(cells)} cells: {', '.join(cells):.80}",
            f"as many cells in each row as in the header of {path.name}: {len(columns)}",
            "correct the row; text that holds the separator stands in quotes",
        )
        for number, cells in lines[1:]
        if len(cells) != len(columns)
    ]
    return Table(path, columns, [(number, dict(zip(columns, cells, strict=True))) for number, cells in fit]), problems
