"""Names, ids, values and paths in one spelling, however a list, a table or a program writes them."""

import math
import os
import re
import unicodedata
from collections.abc import Collection, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import unquote

SUFFIXES = (".nii.gz", ".nii")
SUFFIX = re.compile(r"\.nii(\.gz)?$", re.IGNORECASE)
DRIVE = re.compile(r"[A-Za-z]:(?=/)")
UMLAUTS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "ø": "oe", "æ": "ae", "å": "aa"})
# How programs write that a value is not known.
MISSING = {
    *("na", "n/a", "n.a.", "n.a", "nan", "none", "null", "nil", "<na>", "tbd", "tba", "unk", "unknown", "not known"),
    *("missing", "not available", "not given", "unbekannt", "k.a.", "k.a", "#n/a", "#ref!", "#value!", "#name?"),
    *("#div/0!", "#num!", "#null!"),
}
# What spreadsheets make of the ids 7 and 100000.
SPREADSHEET_NUMBER = re.compile(r"\d+[.,]0+|\d+([.,]\d+)?[eE]\+\d\d?")
# Unicode's categories of control characters, halves of characters, and breaks of lines and paragraphs.
UNWRITABLE = {"Cc", "Cs", "Zl", "Zp"}
# Other names of the keys that are read.
SYNONYMS = {
    "patient": re.compile(r"(patient|pat|subject|subj|participant)s?(id|name|number|no|nr|key|code)?|pid|mrn"),
    "case": re.compile(r"cases?(id|name)?"),
}


def tidy(text: str) -> str:
    """One spelling for names that look alike: composed letters (Unicode NFC), no blanks around."""
    return unicodedata.normalize("NFC", text).strip()


def loosely(name: str) -> tuple[str | int, ...]:
    """Words and numbers of a name, without capitals, separators, leading zeros and a spreadsheet's ``7.0``."""
    if number := SPREADSHEET_NUMBER.fullmatch(tidy(name)):
        return (int(Decimal(number[0].replace(",", "."))),)
    words = re.findall(r"\d+|[^\W\d_]+", tidy(name).casefold())
    return tuple(int(word) if word.isdecimal() else word for word in words) or (name,)


def as_words(name: str) -> tuple[str | int, ...]:
    """Words and numbers as `loosely` gives them, also without accents, wide letters and escaped blanks."""
    name = unicodedata.normalize("NFKC", unquote(tidy(name))).casefold().translate(UMLAUTS)
    return loosely("".join(c for c in unicodedata.normalize("NFKD", name) if not unicodedata.combining(c)))


def unwritable(text: str) -> bool:
    """Tell whether a text holds control characters, line breaks or halves of characters."""
    return any(unicodedata.category(character) in UNWRITABLE for character in text)


def means_unknown(text: str) -> bool:
    """Tell whether a text that is not empty means "not known": a word for it, or no letter and no digit."""
    text = text.strip()
    return bool(text) and (text.lower() in MISSING or not any(map(str.isalnum, text)))


def fact(value: Any) -> str | None:
    """Text of a value that may be left out; None for null, NaN, blank, "unknown", NA, - and the like.

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
    """Keys that mean a known one, such as ``PatientID``, where the known one is missing."""

    def means(key: str, name: str) -> bool:
        plain = re.sub(r"[^a-z]", "", key.lower())
        return plain == name.replace("_", "") or bool(name in SYNONYMS and SYNONYMS[name].fullmatch(plain))

    missing = [name for name in known if name not in keys]
    return {key: name for key in keys if key not in known for name in missing if means(key, name)}


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
    path = "/" + path[0].lower() + path[1:] if DRIVE.match(path) else path
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
