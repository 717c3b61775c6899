"""Records that show whether they, and the files that they list, are still as they were written.

A record is a JSON file. Its key ``files`` holds the SHA-256 of each such file, ``sha256`` that of its own content.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from metaseg_nb.files import DamagedFile, write_json

FILES, OWN = "files", "sha256"


def checksum(path: Path) -> str:
    """SHA-256 of a file, hexadecimal; a gigabyte a second, where a disk gives as much."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_record(path: Path, content: Mapping[str, Any], files: Iterable[Path] = ()) -> None:
    """Write a record of files beside or below it; last, because it states that they are complete.

    Parameters
    ----------
    path : path
    content : mapping
        What JSON can hold.
    files : iterable of path
        Their checksums are kept with the content.
    """
    of_files = {file.relative_to(path.parent).as_posix(): checksum(file) for file in files}
    content = json.loads(json.dumps({**content, FILES: of_files}, allow_nan=False))
    write_json(path, {**content, OWN: _checksum_of(content)})


def read_record(path: Path) -> dict[str, Any]:
    """Read what `write_record` wrote; its files are not compared.

    Raises
    ------
    FileNotFoundError
    DamagedFile
        It is no record, or another content than was written.
    """
    try:
        content = json.loads(path.read_bytes())
        if not isinstance(content, dict):
            raise ValueError("no JSON object")
    except ValueError as error:
        raise DamagedFile(path, f"not complete JSON ({error})") from error
    if content.pop(OWN, None) != _checksum_of(content):
        raise DamagedFile(path, "content that has changed since it was written")
    return content


def changed_files(path: Path, record: Mapping[str, Any]) -> dict[str, str]:
    """What is wrong with the files of a record, by name; empty where all is well. ``path`` is the record's file."""
    wrong = {}
    for name, wanted in record[FILES].items():
        file = path.parent / name
        if not file.is_file():
            wrong[name] = "no such file"
        elif checksum(file) != wanted:
            wrong[name] = "content that has changed since it was written"
    return wrong


def damage(path: Path) -> dict[str, str]:
    """What is wrong with a record, or else with its files, by name; empty where all is well.

    Raises
    ------
    FileNotFoundError
        There is no record.
    """
    try:
        return changed_files(path, read_record(path))
    except DamagedFile as error:
        return {path.name: error.found}


def is_made_from(path: Path, facts: Mapping[str, Any]) -> bool:
    """Tell whether a record and its files are there as they were written, and the record holds these facts."""
    return path.is_file() and not damage(path) and facts.items() <= read_record(path).items()


def _checksum_of(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
