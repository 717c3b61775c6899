"""One image or patient as lists may spell it: separators, composed letters, blanks, packed files."""

import os
import re
from pathlib import Path

from metaseg_nb.cohort.sources.strict import tidy

SUFFIX = re.compile(r"\.nii(\.gz)?$", re.IGNORECASE)
DRIVE = re.compile(r"[A-Za-z]:(?=/)")


def spelled_path(path: str) -> str:
    """Bring a path to one spelling: `tidy`, with "/", without detours; a drive becomes a top folder."""
    path = os.path.expanduser(tidy(path).replace("\\", "/"))
    path = "/" + path[0].lower() + path[1:] if DRIVE.match(path) else path
    return os.path.normpath(re.sub("^/+", "/", path))


def without_suffix(path: str | Path) -> str:
    """Leave off ``.nii`` and ``.nii.gz``: a file and its packed copy are one image."""
    return SUFFIX.sub("", str(path))


def located(folder: Path, listed: str) -> Path:
    """Find the file that a list in ``folder`` means, as it is spelled or in another way; nothing needs to be there."""
    plain = spelled_path(listed)
    ways = [os.path.normpath(listed), plain, *(without_suffix(plain) + suffix for suffix in (".nii.gz", ".nii"))]
    paths = [Path(os.path.normpath(folder / way)) for way in ways]
    return next((path for path in paths if os.path.exists(path)), paths[1])


def identity(path: Path) -> Path:
    """One path for all spellings of a file, links followed."""
    return Path(without_suffix(tidy(os.path.realpath(path))))
