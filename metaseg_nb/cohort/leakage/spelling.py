"""One image or patient as lists may spell it: separators, composed letters, blanks, packed files."""

import os
import re
import unicodedata
from pathlib import Path
from urllib.parse import unquote

from metaseg_nb.cohort.sources.strict import loosely, tidy

SUFFIX = re.compile(r"\.nii(\.gz)?$", re.IGNORECASE)
# Formats that one image may be kept in.
FORMAT = re.compile(r"\.(nii|nrrd|nhdr|mh[ad]|np[yz]|b2nd|hdr|img|mg[hz])(\.gz)?$", re.IGNORECASE)
UMLAUTS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "ø": "oe", "æ": "ae", "å": "aa"})
DRIVE = re.compile(r"[A-Za-z]:(?=/)")


def spelled_path(path: str) -> str:
    """Bring a path to one spelling: `tidy`, with "/", without detours; a drive becomes a top folder."""
    path = os.path.expanduser(tidy(path).replace("\\", "/"))
    path = "/" + path[0].lower() + path[1:] if DRIVE.match(path) else path
    return os.path.normpath(re.sub("^/+", "/", path))


def without_suffix(path: str | Path) -> str:
    """Leave off ``.nii`` and ``.nii.gz``: a file and its packed copy are one image."""
    return SUFFIX.sub("", str(path))


def without_format(path: str) -> str:
    """Leave off the suffix of any format of images."""
    return FORMAT.sub("", path)


def located(folder: Path, listed: str) -> Path:
    """Find the file that a list in ``folder`` means, as it is spelled or in another way; nothing needs to be there."""
    plain = spelled_path(listed)
    ways = [os.path.normpath(listed), plain, *(without_suffix(plain) + suffix for suffix in (".nii.gz", ".nii"))]
    paths = [Path(os.path.normpath(folder / way)) for way in ways]
    return next((path for path in paths if os.path.exists(path)), paths[1])


def identity(path: Path) -> Path:
    """One path for all spellings of a file, links followed."""
    return Path(without_suffix(tidy(os.path.realpath(path))))


def as_words(name: str) -> tuple[str | int, ...]:
    """Words and numbers of a name as `loosely` tells them; accents, wide letters and escaped blanks do not count."""
    name = unicodedata.normalize("NFKC", unquote(tidy(name))).casefold().translate(UMLAUTS)
    return loosely(
        "".join(letter for letter in unicodedata.normalize("NFKD", name) if not unicodedata.combining(letter))
    )
