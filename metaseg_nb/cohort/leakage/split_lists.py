"""Datalists as they come, for comparing what they train on with what they evaluate.

Unlike a cohort, such lists may repeat and contradict themselves: nothing is refused that can be read.
"""

import os
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from metaseg_nb.cohort.leakage.copies import content_key, is_blank
from metaseg_nb.cohort.leakage.spelling import identity, located, spelled_path, without_suffix
from metaseg_nb.cohort.problems import CohortError
from metaseg_nb.cohort.sources.entries import Datalist, read_entries
from metaseg_nb.cohort.sources.entries import Entry as Listed

NOT_SCORED = {"training", "unlabelled"}


@dataclass(frozen=True)
class Entry:
    """One line of a datalist.

    ``case`` is the identity: the file of the first sequence, links followed. ``image``
    is where the list says that file is, ``listed`` how it says so; ``there`` tells whether it is.
    ``files`` are the identities of all sequences, ``label`` is that of the mask (of its first copy), ``label_file``
    where it is, and ``called`` the name that the list gives the case.
    ``part`` is "training", "validation", "testing" ("unlabelled" without a label, in a list
    that gives labels: it cannot be scored), or "fold 0" and so on for a training entry with
    a fold: the fold's model does not train on it but is scored on it.
    ``patient`` and ``primary`` are None where the list does not tell. ``place`` is
    the folder that holds the case alone, or the image where it is one among others.
    """

    case: Path
    image: Path
    listed: str
    there: bool
    files: frozenset[Path]
    label: Path | None
    label_file: Path | None
    called: str | None
    part: str
    patient: str | None
    primary: str | None
    place: Path

    @property
    def name(self) -> str:
        """The place as listed, without suffix."""
        return os.path.dirname(self.listed) if self.place != self.image else without_suffix(self.listed)


@dataclass(frozen=True)
class SplitList:
    """A datalist with all its entries; ``name`` is its file's name, with folders where two are named alike."""

    name: str
    path: Path
    entries: tuple[Entry, ...]

    @property
    def evaluated_parts(self) -> list[str]:
        """The parts that are scored: validation, testing, folds."""
        return sorted({entry.part for entry in self.entries} - NOT_SCORED, key=lambda part: (len(part), part))

    @property
    def folds(self) -> list[str]:
        """The parts that are folds."""
        return [part for part in self.evaluated_parts if part.startswith("fold ")]

    @property
    def training(self) -> list[Entry]:
        """All entries that a model of this list trains on; with folds, at least one model does."""
        parts = {"training", *self.folds}
        return [entry for entry in self.entries if entry.part in parts]

    @property
    def evaluation(self) -> list[Entry]:
        """All entries that are scored."""
        return [entry for entry in self.entries if entry.part not in NOT_SCORED]

    def of(self, part: str) -> list[Entry]:
        """Entries of a part."""
        return [entry for entry in self.entries if entry.part == part]

    def trained_for(self, part: str) -> list[Entry]:
        """Entries that the model trains on that scores a part: all of the training entries but the fold itself."""
        return [entry for entry in self.training if entry.part != part]


def read_lists(paths: Iterable[str | Path]) -> list[SplitList]:
    """Read datalists that are to be compared; no image needs to be there.

    Decathlon and MONAI lists are read, with any of ``training``, ``validation``
    and ``testing`` (or Decathlon's ``test``), with or without a ``fold`` in the
    training entries. A file given twice is read once. Where an entry has no
    ``primary``, the top folder of ``<primary>/<case>/<image>`` stands for it, below
    the folder that all images lie in.

    Two entries are one case when their image paths, relative to the folder of
    their list, lead to the same file, however they are spelled (`spelling`); when they name the
    same sequences in any order; or when their files are copies of each other (`content_key`).
    A list often lies apart from its images, though: an entry whose image is not where the list
    says is also taken for the case that another list writes the same way.

    Raises
    ------
    CohortError
        With everything that cannot be read: a file is missing or not JSON, has
        no entries or a list under another name, an entry has no image or a fold
        that is no whole number.
    """
    paths = list({Path(path).resolve(): Path(path) for path in paths}.values())
    read = [read_entries(path) for path in paths]
    wrong = [problem for datalist in read for problem in datalist.problems]
    if wrong:
        raise CohortError(wrong)
    return split_lists(read)


def split_lists(datalists: Sequence[Datalist]) -> list[SplitList]:
    """Make datalists that were read comparable; what could not be read of them is left out, see `read_lists`."""
    lists = [
        SplitList(name, datalist.path, tuple(_entry(entry, _gives_labels(datalist)) for entry in datalist.entries))
        for name, datalist in zip(_names([each.path for each in datalists]), datalists, strict=True)
    ]
    return _placed(_identified(lists))


def _names(paths: list[Path]) -> list[str]:
    parts = [path.resolve().parts for path in paths]
    depth = 1
    while len({p[-depth:] for p in parts}) < len(paths):
        depth += 1
    return ["/".join(p[-depth:]) for p in parts]


def _gives_labels(datalist: Datalist) -> bool:
    return any(entry.label is not None for entry in datalist.entries)


def _entry(listed: Listed, labels_given: bool) -> Entry:
    # links of the folder first: a step up from a symbolic link leads elsewhere
    folder = listed.datalist.parent.resolve()
    images = [located(folder, image) for image in listed.images]
    files = [identity(image) for image in images]
    label_file = None if listed.label is None else located(folder, listed.label)
    fold, patient, primary = (listed.given.get(key) for key in ("fold", "patient", "primary"))
    return Entry(
        case=files[0],
        image=images[0],
        listed=spelled_path(listed.images[0]),
        there=os.path.exists(images[0]),
        files=frozenset(files),
        label=label_file and identity(label_file),
        label_file=label_file,
        called=listed.given.get("case"),
        part=_part(listed, fold, labels_given),
        patient=patient,
        primary=None if primary == "unknown" else primary,
        place=images[0],
    )


def _part(listed: Listed, fold: int | None, labels_given: bool) -> str:
    if listed.part == "training" and fold is not None:
        return f"fold {fold}"
    return "unlabelled" if labels_given and listed.part == "testing" and listed.label is None else listed.part


def _identified(lists: list[SplitList]) -> list[SplitList]:
    """Find the first entry of each entry's case, see `read_lists`."""
    everything = [entry for datalist in lists for entry in datalist.entries]
    first: dict[Hashable, Entry] = {}
    same, masks = {}, _first_copies(everything)
    for entry in sorted(everything, key=lambda entry: not entry.there):
        own = [entry.case, entry.files, *filter(None, [content_key(entry.image)])]
        listed = without_suffix(entry.listed)
        signs = own if entry.there else [*own, listed]
        known = next((first[sign] for sign in signs if sign in first), entry)
        for sign in [*own, listed]:
            first.setdefault(sign, known)
        image, label = entry.image if entry.there else known.image, masks.get(entry.label, entry.label)
        same[id(entry)] = replace(entry, case=known.case, image=image, label=label)
    return [replace(datalist, entries=tuple(same[id(entry)] for entry in datalist.entries)) for datalist in lists]


def _first_copies(entries: Iterable[Entry]) -> dict[Path, Path]:
    """The first of masks that are copies of each other, by mask; empty ones are alike by chance."""
    files = {entry.label: entry.label_file for entry in entries if entry.label}
    copies = defaultdict(list)
    for label, file in files.items():
        copies[content_key(file)].append(label)
    copies.pop(None, None)
    alike = [labels for labels in copies.values() if len(labels) > 1 and not is_blank(files[labels[0]])]
    return {label: labels[0] for labels in alike for label in labels}


def _placed(lists: list[SplitList]) -> list[SplitList]:
    """Tell place and primary by the folders, which takes all lists to see."""
    images = {entry.image for datalist in lists for entry in datalist.entries}
    if not images:
        return lists
    root = os.path.commonpath([image.parent for image in images])
    in_folder = Counter(image.parent for image in images)
    called = Counter(without_suffix(image.name) for image in images)

    def placed(entry: Entry) -> Entry:
        # <primary>/<case>/image.nii.gz
        alone = in_folder[entry.image.parent] == 1 and called[without_suffix(entry.image.name)] > 1
        folders = entry.image.relative_to(root).parts[:-1]
        by_folder = folders[0].removesuffix("_nii") if len(folders) > 1 else None
        place = entry.image.parent if alone else entry.image
        return replace(entry, primary=entry.primary or by_folder, place=place)

    return [replace(datalist, entries=tuple(map(placed, datalist.entries))) for datalist in lists]
