"""The entries of datalists in one table, and those that may be one case or one patient under two names.

Unlike a cohort, such lists may repeat and contradict themselves: nothing is refused that can be read.
"""

import os
import re
import zlib
from collections.abc import Collection, Hashable, Iterable, Iterator, Sequence
from itertools import pairwise, takewhile
from pathlib import Path, PurePath
from typing import Any

import pandas as pd

from metaseg_nb.cohort.file_kinds import GZIP_MAGIC, opened
from metaseg_nb.cohort.problems import Problem, grouped
from metaseg_nb.cohort.sources import lists, naming
from metaseg_nb.cohort.sources.one_patient import time_points
from metaseg_nb.cohort.sources.spelling import as_words, identity, located, spelled_path, stem

ENTRY_COLUMNS = (
    *("list", "part", "trains", "scored", "case", "name", "image", "listed", "exists", "files", "label", "label_file"),
    *("label_content", "listed_name", "patient", "primary", "same_as", "folder", "short_name"),
)
# Read from the middle of a file that is not packed, where a volume has anatomy.
BLOCK_BYTES = 2**16
# Formats that one image may be kept in, and the channel that nnU-Net writes behind the name of a case.
ENDING = re.compile(r"((?<=\d)_000\d)?(\.(nii|nrrd|nhdr|mh[ad]|np[yz]|b2nd|hdr|img|mg[hz])(\.gz)?)?$", re.IGNORECASE)
# Such a number in a name, as in BraTS-MET-00110, is not given twice by chance.
UNIQUE = re.compile(r"\d{4}")
# A name in this many folders of other names does not identify a case.
COMMON = 3
# Of NIfTI-2, the longer one.
HEADER_BYTES = 544

Words = tuple[str | int, ...]  # of a name, from `as_words`
Row = dict[str, Any]
EntryRow = Any  # a row of the table of entries


def listed_entries(paths: Iterable[str | Path], image_root: Path | None = None) -> tuple[pd.DataFrame, list[Problem]]:
    """Read datalists that are to be compared (`read_entries`), each file once; no image needs to exist.

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
        `_with_signs`.
    problems : list of Problem
        What cannot be read.
    """
    read = [lists.read_entries(path) for path in {Path(path).resolve(): Path(path) for path in paths}.values()]
    rows = []
    for name, datalist in zip(_list_names([datalist.path for datalist in read]), read, strict=True):
        gives_labels = any(entry.label is not None for entry in datalist.entries)
        rows += [{"list": name} | _row(entry, gives_labels, image_root) for entry in datalist.entries]
    _identify(rows)
    entries = pd.DataFrame(rows, columns=ENTRY_COLUMNS, dtype=object).astype({"trains": bool, "scored": bool})
    return _with_signs(entries), [problem for datalist in read for problem in datalist.problems]


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


def _row(listed: lists.Entry, gives_labels: bool, image_root: Path | None) -> Row:
    # links of the folder first: a step up from a symbolic link leads elsewhere
    folder = listed.datalist.parent.resolve()
    images = [located(image, folder, image_root) for image in listed.image if image]
    label_file = located(listed.label, folder, image_root) if listed.label else None
    path, part = spelled_path(listed.first), listed.part
    if part == "training" and listed.fold is not None:
        part = f"fold {listed.fold}"
    if part == "testing" and gives_labels and listed.label is None:
        part = "unlabelled"
    primary, name = listed.primary or naming.primary_of(PurePath(path)), stem(path)
    return {
        "part": part,
        "trains": part.startswith(("training", "fold ")),
        "scored": part not in ("training", "unlabelled"),
        "case": identity(images[0]),
        "name": os.path.dirname(name) if naming.is_kind(os.path.basename(name)) else name,
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
        row["folder"] = image.parent.parent if naming.is_kind(stem(image.name)) else image.parent
        row["short_name"] = os.path.basename(row["name"])


def _with_signs(entries: pd.DataFrame) -> pd.DataFrame:
    """Add to each entry what it is recognised by: ``names`` of its path, and of these the ``distinct`` ones.

    ``distinct`` names identify a case; they are True where two cases have such a name never by chance. ``words`` are
    those of the patient, by the list or by the name of the case (BraTS, BIDS); ``time_point`` is a number for all
    names that may be time points of one patient.
    """
    names = entries["listed"].map(lambda path: tuple(map(as_words, _parts(path))))
    cases = entries["listed"].map(lambda path: naming.name_of(PurePath(path)))
    distinct = _distinct(entries["listed"].unique())
    guess = time_points(cases.unique().tolist(), set(cases[entries["patient"].isna()]))
    groups = {name: i for i, group in enumerate(guess.groups if guess else ()) for name in group}
    patients = entries["patient"].fillna(cases.map(naming.convention_patient)).fillna("")
    return entries.assign(
        names=names,
        distinct=names.map(lambda own: {name: distinct[name] for name in own if name in distinct}),
        words=patients.map(lambda patient: tuple(sorted(as_words(patient), key=str)) if patient else ()),
        time_point=cases.map(groups),
    )


def alike_entries(scored: pd.DataFrame, trained: pd.DataFrame) -> Iterator[tuple[str, dict[int, str]]]:
    """Yield each way of being alike, and the index of the scored entries that are alike in this way.

    Each index comes with the two paths as listed. ``scored`` and ``trained`` are from `listed_entries`.
    """
    ways = (
        ("paths that end alike", _path_signs, _paths_alike),
        ("one case by name or folder", _case_signs, _cases_alike),
        ("one patient by name and by path", _person_signs, lambda a, b: bool(a.patient) != bool(b.patient)),
        ("one mask for two images", lambda entry: {entry.label, entry.label_content} - {None}, _masks_alike),
        ("a sequence in common", lambda entry: sorted(entry.files), lambda a, b: True),
        ("patients whose names may mean one person", _patient_signs, _patients_alike),
    )
    remaining, known = list(scored.itertuples()), list(trained.itertuples())
    for way, signs, alike in ways:
        having = grouped((sign, entry) for entry in known for sign in signs(entry))
        pairs = {}
        for one in remaining:
            others = (other for sign in signs(one) for other in having[sign] if alike(one, other))
            if other := next(others, None):
                pairs[one.Index] = f"{one.listed} and {other.listed}"
        remaining = [entry for entry in remaining if entry.Index not in pairs]  # each is reported once
        if pairs:
            yield way, pairs


def _distinct(paths: Collection[str]) -> dict[Words, bool]:
    """Look for names that identify a case: not the usual ones, nor those in many folders."""
    in_folders = (pair for path in paths for pair in pairwise(map(as_words, _parts(path))))
    within = grouped((name, folder) for folder, name in in_folders)
    names = {name for path in paths for name in _parts(path) if not _is_usual(name)}
    names = {name for name in names if len({*within[as_words(name)]}) < COMMON}
    unique = {as_words(name) for name in names if UNIQUE.search(name)}
    return {words: words in unique for words in map(as_words, names)}


def _is_usual(name: str) -> bool:
    return bool(naming.is_kind_or_time(name) or naming.SET.fullmatch(name))


def _parts(path: str) -> list[str]:
    """Folders and file of a path but for those of a split's parts: a case may have been copied into two of them."""
    return [name for name in ENDING.sub("", path, count=1).split("/") if name and not naming.SET.fullmatch(name)]


def _path_signs(entry: EntryRow) -> list[Hashable]:
    # ends that begin with a distinct name: one sign a name would compare all cases of a folder with each other
    return [entry.names, *(entry.names[i:] for i, name in enumerate(entry.names) if name in entry.distinct)]


def _paths_alike(one: EntryRow, other: EntryRow) -> bool:
    """Tell whether two paths end alike, so far that chance is no explanation. Named patients who differ are two.

    They end with the whole of one path, with two names that identify a case, or with one that is not given twice.
    Where both files exist, and are no copies, only the last counts: cohorts number their cases alike.
    """
    if _two_patients(one, other):
        return False
    ends = takewhile(lambda two: two[0] == two[1], zip(reversed(one.names), reversed(other.names), strict=False))
    end = [name for name, _ in ends]
    shared = [name for name in end if name in one.distinct]
    if any(one.distinct[name] for name in shared):
        return True
    if one.exists and other.exists:
        return False
    # sub-01/sub-01_T1w is one name twice
    n = sum(not any(later != name and later[: len(name)] == name for later in shared) for name in shared)
    is_whole = len(end) == min(len(one.names), len(other.names)) or _two_roots(one, other)
    return one.names == other.names or n >= (1 if is_whole else 2)


def _two_roots(one: EntryRow, other: EntryRow) -> bool:
    """Tell whether two absolute paths begin differently and name one case, as on two machines."""
    first, second = PurePath(one.listed), PurePath(other.listed)
    apart = first.is_absolute() and second.is_absolute() and naming.home_of(first) != naming.home_of(second)
    return apart and as_words(naming.name_of(first)) == as_words(naming.name_of(second))


def _case_signs(entry: EntryRow) -> list[Hashable]:
    """The name of the case in the list; and the path without words for what an image is, if an own name remains."""
    *folders, name = ENDING.sub("", str(entry.image), count=1).split("/")
    kept = [folder for folder in folders if not _is_usual(folder)]
    if not _is_usual(name):
        kept.append(name)
    elif not (kept and naming.is_patient(kept[-1]) and not naming.CANCER.fullmatch(kept[-1])):
        kept = []
    signs = ("listed", entry.listed_name and as_words(entry.listed_name)), ("kept", tuple(map(as_words, kept)))
    return [sign for sign in signs if sign[1]]


def _cases_alike(one: EntryRow, other: EntryRow) -> bool:
    """Tell whether cases with a sign in common may be one: a number may be given anew in each primary."""
    is_numbered = bool(one.listed_name) and one.listed_name.isdecimal() and one.primary != other.primary
    return not is_numbered and not _two_patients(one, other)


def _masks_alike(one: EntryRow, other: EntryRow) -> bool:
    """Tell whether masks are one file or copies; those without lesions are alike by chance."""
    if one.label == other.label:
        return True
    try:
        with opened(one.label_file) as file:
            return bool(file.read()[HEADER_BYTES:].strip(b"\0"))
    except (OSError, EOFError, zlib.error):
        return False


def _person_signs(entry: EntryRow) -> list[Words]:
    """The patient as listed, or the names of the path that may be a patient's."""
    names = [as_words(entry.patient)] if entry.patient else entry.distinct
    return [name for name in names if any(isinstance(word, str) for word in name)]


def _patient_signs(entry: EntryRow) -> list[Hashable]:
    """The patient as listed or in a name of BraTS or BIDS; or the time points that the name may belong to."""
    if entry.words:
        return [_number(entry.words)]
    return [] if pd.isna(entry.time_point) else [entry.time_point]


def _patients_alike(one: EntryRow, other: EntryRow) -> bool:
    """Tell whether patients are one by name: words in any order, or a number with and without a word before it."""
    first, second = one.words, other.words
    return first == second or (len(first) != len(second) and _number(first) == _number(second))


def _two_patients(one: EntryRow, other: EntryRow) -> bool:
    return bool(one.patient and other.patient) and not _patients_alike(one, other)


def _number(words: Words) -> Words:
    """The words of a patient's name without a word such as "patient"."""
    return tuple(word for word in words if word not in naming.PATIENT_WORDS.split("|")) or words
