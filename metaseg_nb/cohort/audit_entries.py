"""The entries of datalists in one table, for comparing what a list trains on with what it evaluates.

Unlike a cohort, such lists may repeat and contradict themselves: nothing is refused that can be read.
"""

import os
from collections.abc import Hashable, Iterable, Sequence
from pathlib import Path, PurePath
from typing import Any

import pandas as pd

from metaseg_nb.cohort.audit_likeness import with_signs
from metaseg_nb.cohort.file_kinds import GZIP_MAGIC
from metaseg_nb.cohort.problems import Problem
from metaseg_nb.cohort.sources.lists import Entry, read_entries
from metaseg_nb.cohort.sources.naming import is_kind, primary_of
from metaseg_nb.cohort.sources.spelling import identity, located, spelled_path, stem

COLUMNS = (
    *("list", "part", "trains", "scored", "case", "name", "image", "listed", "exists", "files", "label", "label_file"),
    *("label_content", "listed_name", "patient", "primary", "same_as", "folder", "short_name"),
)
# Read from the middle of a file that is not packed, where a volume has anatomy.
BLOCK_BYTES = 2**16

Row = dict[str, Any]


def listed_entries(paths: Iterable[str | Path], image_root: Path | None = None) -> tuple[pd.DataFrame, list[Problem]]:
    """Read datalists that are to be compared; no image needs to exist.

    Decathlon and MONAI lists are read, with any of ``training``, ``validation`` and ``testing`` (or Decathlon's
    ``test``), with or without a ``fold`` in the training entries. A file given twice is read once.

    Two entries are one case when their image paths lead to the same file (`located`, with ``image_root``), however
    they are spelled (`identity`); when they name the same sequences in any order; or when their files are copies of
    each other (`content_key`). A list may lie apart from its images, though: an entry whose image does not exist
    is also taken for the case that another list writes the same way.

    Returns
    -------
    entries : DataFrame
        A row per entry. ``list`` is the list's file name, with folders where two are named alike. ``part`` is
        "training", "validation", "testing", "fold 0" and so on (the fold's model is scored on it), or "unlabelled"
        (without a label in a list that gives labels: it cannot be scored); ``trains`` and ``scored`` say what is done
        with it. ``case`` is the identity: the file of the first sequence, links followed. ``name`` is the path as
        listed without suffix, or its folder where the file's name is only a kind of image; ``short_name`` is its last
        part, below ``folder``. ``image`` is where the list has the first sequence, ``listed`` its path as listed.
        ``files`` are the identities of all sequences, ``label`` that of the mask, ``label_content`` its `content_key`.
        ``patient`` is None where the list does not name it, ``primary`` where it is not in the path either.
        ``same_as`` is "moved" or "copy" where the case is that of another entry for this reason. And the columns of
        `with_signs`.
    problems : list of Problem
        What cannot be read: a file is missing or not JSON, has no entries or a list under another name, an entry has
        no image or a fold that is no whole number.
    """
    read = [read_entries(path) for path in {Path(path).resolve(): Path(path) for path in paths}.values()]
    rows = []
    for name, datalist in zip(_list_names([datalist.path for datalist in read]), read, strict=True):
        gives_labels = any(entry.label is not None for entry in datalist.entries)
        rows += [{"list": name} | _row(entry, gives_labels, image_root) for entry in datalist.entries]
    _identify(rows)
    entries = pd.DataFrame(rows, columns=COLUMNS, dtype=object).astype({"trains": bool, "scored": bool})
    return with_signs(entries), [problem for datalist in read for problem in datalist.problems]


def content_key(path: Path) -> tuple[int, bytes] | None:
    """A key that only copies of a file share; None where the file cannot be read or is blank.

    Of a packed file the checksum and size of its content, which are its last eight bytes (RFC 1952): packing it
    again does not change them. Of another its size and its middle.
    """
    try:
        with path.open("rb") as file:
            packed = file.read(2) == GZIP_MAGIC
            size = os.fstat(file.fileno()).st_size
            n_bytes = 8 if packed else min(BLOCK_BYTES, size)
            file.seek(size - n_bytes if packed else (size - n_bytes) // 2)
            block = file.read(n_bytes)
    except (OSError, ValueError):
        return None
    # all bytes alike: an empty file, the empty block that may end a packed one, or background
    return None if len(set(block)) < 2 else (0 if packed else size, block)


def _list_names(paths: Sequence[Path]) -> list[str]:
    """The shortest ends of paths that differ."""
    parts = [path.resolve().parts for path in paths]
    depth = 1
    while len({p[-depth:] for p in parts}) < len(paths):
        depth += 1
    return ["/".join(p[-depth:]) for p in parts]


def _row(listed: Entry, gives_labels: bool, image_root: Path | None) -> Row:
    # links of the folder first: a step up from a symbolic link leads elsewhere
    folder = listed.datalist.parent.resolve()
    images = [located(image, folder, image_root) for image in listed.image if image]
    label_file = located(listed.label, folder, image_root) if listed.label else None
    path, part = spelled_path(listed.first), listed.part
    if part == "training" and listed.fold is not None:
        part = f"fold {listed.fold}"
    if part == "testing" and gives_labels and listed.label is None:
        part = "unlabelled"
    primary = listed.primary or primary_of(PurePath(path))
    name = stem(path)
    return {
        "part": part,
        "trains": part.startswith(("training", "fold ")),
        "scored": part not in ("training", "unlabelled"),
        "case": identity(images[0]),
        "name": os.path.dirname(name) if is_kind(os.path.basename(name)) else name,
        "image": images[0],
        "listed": path,
        "exists": os.path.exists(images[0]),
        "files": frozenset(identity(image) for image in images),
        "label": label_file and identity(label_file),
        "label_file": label_file,
        "label_content": label_file and content_key(label_file),
        "listed_name": listed.case,
        "patient": listed.patient,
        "primary": None if primary == "unknown" else primary,
    }


def _identify(rows: list[Row]) -> None:
    """Give each entry the case of the first entry that is the same, see `listed_entries`."""
    first: dict[Hashable, Row] = {}
    for row in sorted(rows, key=lambda row: not row["exists"]):
        content, as_listed = content_key(row["image"]), stem(row["listed"])
        signs = [row["case"], row["files"], *([content] if content else []), as_listed]
        known = next((first[sign] for sign in (signs[:-1] if row["exists"] else signs) if sign in first), row)
        for sign in signs:
            first.setdefault(sign, known)
        image = row["image"] if row["exists"] else known["image"]
        is_copy = row["exists"] and row["case"] != known["case"]
        row["same_as"] = "moved" if image != row["image"] else "copy" if is_copy else ""
        row |= {"case": known["case"], "image": image}
        row["folder"] = image.parent.parent if is_kind(stem(image.name)) else image.parent
        row["short_name"] = os.path.basename(row["name"])
