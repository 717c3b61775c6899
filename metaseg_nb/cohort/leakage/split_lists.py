"""Datalists as they come, for comparing what they train on with what they evaluate.

Unlike a cohort, such lists may repeat and contradict themselves: nothing is refused that can be read.
"""

import os
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

from metaseg_nb.cohort.leakage.copies import content_key, is_blank
from metaseg_nb.cohort.problems import Problem
from metaseg_nb.cohort.sources.entries import Datalist, read_entries
from metaseg_nb.cohort.sources.entries import Entry as Listed
from metaseg_nb.cohort.sources.naming import is_kind, primary_of
from metaseg_nb.cohort.sources.spelling import identity, located, spelled_path, stem

NOT_SCORED = {"training", "unlabelled"}


@dataclass(frozen=True)
class SplitEntry:
    """One line of a datalist.

    ``case`` is the identity: the file of the first sequence, links followed. ``image``
    is where the list has that file, ``listed`` the path as listed, and ``exists`` whether the file exists.
    ``files`` are the identities of all sequences, ``label`` is that of the mask (of its first copy), ``label_file``
    its place, and ``listed_name`` the name that the list gives the case.
    ``part`` is "training", "validation", "testing" ("unlabelled" without a label, in a list
    that gives labels: it cannot be scored), or "fold 0" and so on for a training entry with
    a fold: the fold's model does not train on it but is scored on it.
    ``patient`` is None where the list does not name it, ``primary`` where it is not in the path either.
    ``same_as`` is "moved" or "copy" where the case is that of another entry for this reason, see `split_lists`.
    """

    case: Path
    image: Path
    listed: str
    exists: bool
    files: frozenset[Path]
    label: Path | None
    label_file: Path | None
    listed_name: str | None
    part: str
    patient: str | None
    primary: str | None
    same_as: str = ""

    @property
    def name(self) -> str:
        """The path as listed without suffix, or its folder where the file's name is only a kind of image."""
        path = stem(self.listed)
        return os.path.dirname(path) if is_kind(os.path.basename(path)) else path

    @property
    def above(self) -> Path:
        """The folder above the last folder or file of `name`."""
        return self.image.parent.parent if is_kind(stem(self.image.name)) else self.image.parent


@dataclass(frozen=True)
class SplitList:
    """A datalist with all its entries; ``name`` is its file's name, with folders where two are named alike."""

    name: str
    path: Path
    entries: tuple[SplitEntry, ...]

    @property
    def evaluated_parts(self) -> list[str]:
        """The parts that are scored: validation, testing, folds."""
        return sorted({entry.part for entry in self.entries} - NOT_SCORED, key=lambda part: (len(part), part))

    @property
    def folds(self) -> list[str]:
        """The parts that are folds."""
        return [part for part in self.evaluated_parts if part.startswith("fold ")]

    @property
    def training(self) -> list[SplitEntry]:
        """All entries that a model of this list trains on; with folds, at least one model does."""
        return self.of("training", *self.folds)

    @property
    def evaluation(self) -> list[SplitEntry]:
        """All entries that are scored."""
        return [entry for entry in self.entries if entry.part not in NOT_SCORED]

    def of(self, *parts: str) -> list[SplitEntry]:
        """Entries of parts."""
        return [entry for entry in self.entries if entry.part in parts]

    def trained_for(self, part: str) -> list[SplitEntry]:
        """Entries that the model trains on that scores a part: all of the training entries but the fold itself."""
        return [entry for entry in self.training if entry.part != part]


def split_lists(paths: Iterable[str | Path], image_root: Path | None = None) -> tuple[list[SplitList], list[Problem]]:
    """Read datalists that are to be compared; no image needs to exist.

    Decathlon and MONAI lists are read, with any of ``training``, ``validation``
    and ``testing`` (or Decathlon's ``test``), with or without a ``fold`` in the
    training entries. A file given twice is read once. Where an entry has no
    ``primary``, it is read from the path (`primary_of`).

    Two entries are one case when their image paths lead to the same file (`located`, with ``image_root``), however
    they are spelled (`identity`); when they name the same sequences in any order; or when their files are copies of
    each other (`content_key`). A list may lie apart from its images, though: an entry whose image does not exist
    is also taken for the case that another list writes the same way.

    Returns
    -------
    lists : list of SplitList
        What could be read.
    problems : list of Problem
        What cannot be read: a file is missing or not JSON, has no entries or a list under another name, an entry has
        no image or a fold that is no whole number.
    """
    read = [read_entries(path) for path in {Path(path).resolve(): Path(path) for path in paths}.values()]
    names = _names([datalist.path for datalist in read])
    lists = [SplitList(name, of.path, _entries(of, image_root)) for name, of in zip(names, read, strict=True)]
    return _identified(lists), [problem for datalist in read for problem in datalist.problems]


def _names(paths: Sequence[Path]) -> list[str]:
    parts = [path.resolve().parts for path in paths]
    depth = 1
    while len({p[-depth:] for p in parts}) < len(paths):
        depth += 1
    return ["/".join(p[-depth:]) for p in parts]


def _entries(datalist: Datalist, image_root: Path | None) -> tuple[SplitEntry, ...]:
    gives_labels = any(entry.label is not None for entry in datalist.entries)
    # links of the folder first: a step up from a symbolic link leads elsewhere
    folder = datalist.path.parent.resolve()
    return tuple(_entry(entry, gives_labels, folder, image_root) for entry in datalist.entries)


def _entry(listed: Listed, gives_labels: bool, folder: Path, image_root: Path | None) -> SplitEntry:
    images = [located(image, folder, image_root) for image in listed.images]
    files = [identity(image) for image in images]
    label_file = located(listed.label, folder, image_root) if listed.label else None
    part, fold, path = listed.part, listed.given.get("fold"), spelled_path(listed.images[0])
    primary = listed.given.get("primary") or primary_of(PurePath(path))
    if part == "training" and fold is not None:
        part = f"fold {fold}"
    if part == "testing" and gives_labels and listed.label is None:
        part = "unlabelled"
    return SplitEntry(
        case=files[0],
        image=images[0],
        listed=path,
        exists=os.path.exists(images[0]),
        files=frozenset(files),
        label=label_file and identity(label_file),
        label_file=label_file,
        listed_name=listed.given.get("case"),
        part=part,
        patient=listed.given.get("patient"),
        primary=None if primary == "unknown" else primary,
    )


def _identified(lists: list[SplitList]) -> list[SplitList]:
    """Give each entry the case of the first entry that is the same, see `split_lists`."""
    everything = [entry for datalist in lists for entry in datalist.entries]
    first: dict[Hashable, SplitEntry] = {}
    same, masks = {}, _first_copies(everything)
    for entry in sorted(everything, key=lambda entry: not entry.exists):
        own = [entry.case, entry.files, *filter(None, [content_key(entry.image)])]
        signs = own if entry.exists else [*own, stem(entry.listed)]
        known = next((first[sign] for sign in signs if sign in first), entry)
        for sign in [*own, stem(entry.listed)]:
            first.setdefault(sign, known)
        image, label = entry.image if entry.exists else known.image, masks.get(entry.label, entry.label)
        same_as = "moved" if image != entry.image else "copy" if entry.exists and entry.case != known.case else ""
        same[id(entry)] = replace(entry, case=known.case, image=image, label=label, same_as=same_as)
    return [replace(datalist, entries=tuple(same[id(entry)] for entry in datalist.entries)) for datalist in lists]


def _first_copies(entries: Iterable[SplitEntry]) -> dict[Path, Path]:
    """The first of masks that are copies of each other, by mask; empty ones are alike by chance."""
    files = {entry.label: entry.label_file for entry in entries if entry.label}
    copies = defaultdict(list)
    for label, file in files.items():
        copies[content_key(file)].append(label)
    copies.pop(None, None)
    alike = [labels for labels in copies.values() if len(labels) > 1 and not is_blank(files[labels[0]])]
    return {label: labels[0] for labels in alike for label in labels}
