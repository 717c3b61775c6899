"""One spelling for names, ids, values and paths that people write differently; text files are read strictly."""

import csv
import io
import json
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pandas as pd

from metaseg_nb.cohort.cases import Case
from metaseg_nb.cohort.problems import RULES, CohortError, Problem, broken, refusal

SUFFIXES = (".nii.gz", ".nii")
SUFFIX = re.compile(r"\.nii(\.gz)?$", re.IGNORECASE)
# Two ways to do without accents. These letters are whole in Unicode; other accents can be taken off.
WHOLE_LETTERS = {"ł": "l", "đ": "d", "ı": "i", "æ": "ae", "œ": "oe"}
BARE = str.maketrans({**WHOLE_LETTERS, "ø": "o"})
WRITTEN_OUT = str.maketrans({**WHOLE_LETTERS, "ä": "ae", "ö": "oe", "ü": "ue", "ø": "oe", "å": "aa"})
# How programs write that a value is not known.
MISSING = {
    *("na", "n/a", "n.a.", "n.a", "nan", "none", "null", "nil", "<na>", "tbd", "tba", "unk", "unknown", "not known"),
    *("missing", "not available", "not given", "unbekannt", "k.a.", "k.a", "#n/a"),
    *("#nv", "#n/d", "#není_k_dispozici"),
}
# An error of a spreadsheet in any language: #REF!, #WERT!, #NOM?, #¡VALOR!
SPREADSHEET_ERROR = re.compile(r"#[¡¿]?[^\W\d][\w/]*[!?]")
# What spreadsheets make of the ids 7 and 100000.
SPREADSHEET_NUMBER = re.compile(r"\d+[.,]0+|\d+([.,]\d+)?[eE]\+\d\d?")
# A number of which a spreadsheet kept six digits: other ids may look like it.
ROUNDED = re.compile(r"\d[.,]\d{5,}[eE]\+\d+|\d[.,]\d+[eE]\+10|\d([.,]\d+)?[eE]\+(1[1-9]|[2-9]\d)")
# How a spreadsheet keeps leading zeros: ="007" or '007
KEPT_AS_TEXT = re.compile(r"""="(.*)"|'(\d.*)""")
# Unicode's categories of control characters, halves of characters, and breaks of lines and paragraphs.
UNWRITABLE = {"Cc", "Cs", "Zl", "Zp"}
# Other names of the keys that are read, in small letters alone.
SYNONYMS = {
    "patient": r"(patient|pat|subject|subj|participant)s?(id|name|number|no|nr|key|code)?|pid|mrn",
    "case": r"cases?(id|name)?",
}
# File systems end at 255; endings and what programs put in front of a name need room too.
LONGEST_BYTES = 150
USABLE = RULES["usable name"]["expected"]
SHOWN_CHARACTERS = 60
# The first line in which Excel keeps the separator of a CSV.
SEPARATOR_LINE = re.compile(r'\s*"?sep= *([,;|\t]) *"?[,;|\t]*(?=[\r\n]|$)', re.IGNORECASE)
WORKBOOK = "an Excel workbook or another program's file"
FIRST_BYTES = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16", b"PK": WORKBOOK, b"\xd0\xcf": WORKBOOK}


def tidy(text: str) -> str:
    """One spelling for names that look alike: composed letters (Unicode NFC), no blanks around."""
    return unicodedata.normalize("NFC", text).strip()


def loosely(name: str) -> tuple[str | int, ...]:
    """Words and numbers of a name, without capitals, separators, leading zeros and a spreadsheet's ``7.0``."""
    if number := SPREADSHEET_NUMBER.fullmatch(tidy(name)):
        return (int(float(number[0].replace(",", "."))),)
    words = re.findall(r"\d+|[^\W\d_]+", tidy(name).casefold())
    return tuple(int(word) if word.isdecimal() else word for word in words) or (name,)


def as_words(name: str) -> tuple[str | int, ...]:
    """Words and numbers as `loosely` gives them, also without accents, wide letters and escaped blanks."""
    return loosely(plain(unicodedata.normalize("NFKC", unquote(tidy(name)))))


def plain(text: str, letters: Mapping[int, str] = WRITTEN_OUT) -> str:
    """Composed text in small letters without accents."""
    if text.isascii():
        return text.lower()
    taken_apart = unicodedata.normalize("NFKD", text.casefold().translate(letters))
    return "".join(letter for letter in taken_apart if not unicodedata.combining(letter))


def unwritable(text: str) -> bool:
    """Tell whether a text holds control characters, line breaks or halves of characters."""
    return any(unicodedata.category(character) in UNWRITABLE for character in text)


def means_unknown(text: str) -> bool:
    """Tell whether a text that is not empty means "not known": a word for it, or no letter and no digit."""
    text = text.strip()
    is_word = text.lower() in MISSING or SPREADSHEET_ERROR.fullmatch(text)
    return bool(text) and bool(is_word or not any(map(str.isalnum, text)))


def fact(value: Any) -> str | None:
    """Text of a value that may be left out; None for null, blank, "unknown", NA, - and the like.

    Raises
    ------
    ValueError
        The value is neither text nor a number, is a number that a spreadsheet has rounded, or holds characters that no
        table can show.
    """
    if isinstance(value, bool | list | dict) or unwritable(str(value)):
        raise ValueError(f"text of one line, or a number; not {value!r:.80}")
    if value is None:
        return None
    text = tidy(str(int(value) if isinstance(value, float) and value.is_integer() else value))
    if ROUNDED.fullmatch(text):
        raise ValueError(f"all digits of a number, in a column of text; not {text}, which a spreadsheet has rounded")
    return None if not text or means_unknown(text) else text


def misspelt(keys: Collection[str], known: Sequence[str]) -> dict[str, str]:
    """Keys that mean a known one, such as ``PatientID``, where the known one is missing."""
    letters = {key: re.sub(r"[^a-z]", "", key.lower()) for key in keys if key not in known}
    meant = {name: SYNONYMS.get(name, name.replace("_", "")) for name in known if name not in keys}
    return {key: name for key, text in letters.items() for name, words in meant.items() if re.fullmatch(words, text)}


def usable(name: str) -> bool:
    """Tell whether a name can name a folder; blanks, quotes, ``%``, ``#`` and letters of all scripts can."""
    characters = name and name[0] != "." and not set(name) & {"/", "\\"} and not unwritable(name)
    return bool(characters) and len(name.encode()) <= LONGEST_BYTES


def shown(name: str) -> str:
    """Return a name that messages can hold: cut, and with what cannot be printed spelled out."""
    text = "".join(ascii(character)[1:-1] if unwritable(character) else character for character in name)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}..."


def well_named(cases: Iterable[Case], fix: str) -> tuple[list[Case], list[Problem]]:
    """Leave out cases whose names cannot be used, or are those of an earlier case.

    Names that differ in capitals or in the way accents are stored are one name on many file systems.
    ``fix`` tells how to give another name. Returns the cases, and a problem for each that is left out.
    """
    kept: dict[str, Case] = {}
    problems = []
    for case in cases:
        if not usable(case.name):
            name = shown(case.name)
            problems.append(broken("usable name", name, case.image, f"the name {name!r}", fix))
            continue
        first = kept.setdefault(tidy(case.name.casefold()), case)
        if first is not case:
            found = f"the same name as {first.image}" + (f", {first.name}" if first.name != case.name else "")
            problems.append(broken("own name", case, case.image, found, fix))
    return list(kept.values()), problems


def stem(path: str | Path) -> str:
    """Leave off ``.nii`` and ``.nii.gz``, and nothing else: names may have dots."""
    return SUFFIX.sub("", str(path))


def as_named(path: Path) -> Path:
    """Absolute path of a file under the name that it was given: a link may lead to a file without suffix."""
    # realpath: unlike resolve, it ends where a link leads to itself
    return Path(os.path.realpath(path.parent), path.name)


def spelled_path(path: str) -> str:
    """Bring a path to one spelling: `tidy`, with "/", without detours; a drive becomes a top folder."""
    path = os.path.expanduser(tidy(path).replace("\\", "/"))
    path = re.sub("^[A-Za-z]:(?=/)", lambda drive: "/" + drive[0].lower(), path)
    return os.path.normpath(re.sub("^/+", "/", path))


def located(listed: str, folder: Path, image_root: Path | None = None) -> Path:
    """Find the file that a list in ``folder`` means; it need not exist.

    A relative path begins at ``image_root``, or at ``folder`` without one. An absolute path that does not exist is
    looked for below ``image_root``, with as many of its last parts as exist there. A path that does not
    exist as it is written is tried as `spelled_path` writes it, and packed or unpacked.
    """
    spelled = spelled_path(listed)
    ways: list[str | Path] = [os.path.expanduser(listed), spelled, *(stem(spelled) + suffix for suffix in SUFFIXES)]
    if image_root is not None and os.path.isabs(spelled):
        parts = Path(spelled).parts
        ways += [image_root.joinpath(*parts[i:]) for i in range(1, len(parts))]
    paths = [(image_root or folder) / way for way in ways]
    # os.path: a file that may not be accessed does not exist
    return as_named(next((path for path in paths if os.path.exists(path)), paths[1]))


def identity(path: Path) -> Path:
    """One path for all spellings of a file, links followed; a file and its packed copy are one image."""
    return Path(stem(tidy(os.path.realpath(path))))


def read_text(path: Path) -> str:
    """Read a text file in UTF-8; a `CohortError` where it cannot be read, or is in another encoding."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise refusal("readable", "-", path, f"no access ({error.strerror})") from error
    try:
        start, text = content.find(b"\0"), content.decode("utf-8")
    except UnicodeDecodeError as error:
        start = error.start
    if start < 0:
        return text.lstrip("\ufeff")
    guess = "UTF-16, perhaps" if content[start] == 0 else "another encoding, perhaps Windows-1252"
    kind, line = FIRST_BYTES.get(content[:2], guess), content[:start].count(b"\n") + 1
    fix = "save the table as CSV UTF-8, and name that file" if kind == WORKBOOK else ""
    raise refusal("UTF-8", "-", path, f"not UTF-8 but {kind} (line {line}, byte 0x{content[start]:02x})", fix)


def read_json(path: Path) -> Any:
    """Read JSON in which no object has two equal keys; a `CohortError` where it is none.

    NaN, which data frames write for a missing value, is null.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        times = Counter(key for key, _ in pairs)
        for key in [key for key, n in times.items() if n > 1]:
            raise refusal("each key once", "-", path, f'the key "{key}" more than once in one object')
        return dict(pairs)

    text = read_text(path)
    try:
        return json.loads(text, object_pairs_hook=unique, parse_constant=lambda _: None)
    except CohortError:
        raise
    except (ValueError, RecursionError) as error:
        raise refusal("JSON", "-", path, f"not JSON ({error})") from error


def _as_typed(cell: str) -> str:
    kept = KEPT_AS_TEXT.fullmatch(tidy(cell))
    return tidy(kept[1] or kept[2] or "" if kept else cell)


def read_csv(path: Path) -> tuple[pd.DataFrame, list[Problem]]:
    """Read a table separated by commas, semicolons or tabs, or by what a first line ``sep=;`` of Excel says.

    Empty lines are left out, and empty columns without a name.

    Returns
    -------
    table : DataFrame
        Text; columns in small letters. The index is the line of each row.
    problems : list of Problem
        Rows that have more or fewer cells than the header; they are left out.

    Raises
    ------
    CohortError
        The file does not exist, is no CSV in UTF-8, or is empty.
    """
    if not path.is_file():
        raise refusal("table", "-", path, "no such file")
    text = read_text(path)
    first = SEPARATOR_LINE.match(text)
    # the lines stay, by which rows are named
    text = re.sub(r"[^\r\n]", "", first[0]) + text[first.end() :] if first else text
    header = io.StringIO(text.lstrip(), newline="").readline()
    separator = first[1] if first else max(",;\t", key=re.sub('"[^"]*"', "", header).count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        lines = [(reader.line_num, [_as_typed(cell) for cell in cells]) for cells in reader]
    except csv.Error as error:
        raise refusal("whole table", "-", path, f"a damaged table (line {reader.line_num}: {error})") from error
    rows = [(line, cells) for line, cells in lines if any(cells)]
    if not rows:
        raise refusal("rows", "-", path, "an empty table")
    names = [column.lower() for column in rows.pop(0)[1]]
    whole = {line: cells for line, cells in rows if len(cells) == len(names)}
    found = {line: f"{len(cells)} cells: {', '.join(cells):.80}" for line, cells in rows if line not in whole}
    problems = [broken("cells", f"line {n}", path, what, name=path.name, n=len(names)) for n, what in found.items()]
    table = pd.DataFrame(list(whole.values()), index=list(whole), columns=names, dtype=object)
    return table.loc[:, (table.columns != "") | (table != "").any().to_numpy()], problems
