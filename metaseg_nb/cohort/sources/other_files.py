"""What lies in a folder or behind a name where NIfTI files or lists are expected."""

import os
import zlib
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path

from metaseg_nb.cohort.file_kinds import GZIP, Kind, head_of, is_gzip, kind_of
from metaseg_nb.cohort.sources.naming import is_volume

# Files of a folder that are looked at.
LOOKED_AT = 200


def other_files(folder: Path) -> tuple[str, str]:
    """Name the kinds of image files in a folder without NIfTI, with an example each, and the way to NIfTI.

    Both are empty where nothing is known, or NIfTI files are there.
    """
    kinds: dict[str, tuple[Kind, Path]] = {}
    for path in islice(_files(folder), LOOKED_AT):
        if is_volume(path):
            return "", ""
        if kind := file_kind(path):
            kinds.setdefault(kind.name, (kind, path))
    found = " and ".join(f"{name} ({path.relative_to(folder)})" for name, (_, path) in kinds.items())
    return found, "; ".join(dict.fromkeys(kind.fix for kind, _ in kinds.values()))


def file_kind(path: Path) -> Kind | None:
    """The kind of a file that is neither NIfTI nor text; None where that is unknown."""
    with suppress(OSError, EOFError, zlib.error):
        return kind_of(head_of(path)) or (GZIP if is_gzip(path) else None)
    return None


def _files(folder: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(folder):
        folders.sort()
        yield from (path for name in sorted(names) if (path := Path(place, name)).is_file())
