"""From the files that a layout finds for a case to the case, or to what is wrong with its files or its name."""

import os
import zlib
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from metaseg_nb.cohort.cases import Case, Cohort
from metaseg_nb.cohort.file_kinds import GZIP, Kind, head_of, is_gzip, kind_of
from metaseg_nb.cohort.problems import Problem
from metaseg_nb.cohort.sources.naming import is_volume
from metaseg_nb.cohort.sources.spelling import as_named, tidy, unwritable

# File systems end at 255; endings and what programs put in front of a name need room too.
LONGEST_BYTES = 150
USABLE = f"a name of a case: at most {LONGEST_BYTES} bytes, without / and \\ and control characters, no dot in front"
SHOWN_CHARACTERS = 60
# Files of a folder whose kind is looked up.
SHOWN_FILES = 200


@dataclass(frozen=True)
class CaseFiles:
    """The files of one case that a layout finds.

    ``images`` are the files found for each sequence, ``labels`` those found for
    the mask: one each, if all is well. ``others`` are volumes that are neither.
    A case that only is to be predicted has ``labels`` None.
    """

    name: str
    folder: Path
    images: tuple[Sequence[Path], ...]
    labels: Sequence[Path] | None
    others: Sequence[Path] = ()
    primary: str = "unknown"
    scanner: str = "unknown"
    date: str = "unknown"


def cohort_of(folder: Path, description: str, found: Iterable[CaseFiles]) -> tuple[Cohort, list[Problem]]:
    """Collect the cases whose images exist; each thing wrong is a problem of its own."""
    cases, problems = [], []
    for files in found:
        wrong = [Problem(files.name, str(files.folder), *each) for each in _wrong(files)]
        problems += wrong
        if not any(problem.severity == "error" for problem in wrong):
            images = tuple(as_named(image) for (image,) in files.images)
            label = as_named(files.labels[0]) if files.labels else None
            facts = {"primary": tidy(files.primary), "scanner": files.scanner, "date": files.date}
            cases.append(Case(tidy(files.name), images, label, patient="", **facts))
    cases, unnamed = well_named(cases, 'rename it, or give a datalist with a "case" for each entry')
    labelled, unlabelled = ([case for case in cases if (case.label is None) == missing] for missing in (False, True))
    return Cohort(folder.resolve().name, description, labelled, unlabelled), problems + unnamed


def _wrong(files: CaseFiles) -> Iterable[tuple[str, ...]]:
    """Found, expected and what to do, of each thing wrong with the files of a case."""
    if not any(files.images):
        yield _no_image(files)
        return
    for found in [*files.images, files.labels or ()]:
        if len(found) > 1:
            fix = "remove all but one, or narrow `image_files` or `label_file`"
            yield _listed(found), "one file for each sequence and the mask", fix
    firsts = [found[0] for found in files.images if found]
    if len(set(firsts)) < len(firsts):
        found = f"{_listed(firsts)} for {len(firsts)} sequences"
        yield found, "another file for each sequence", "narrow the patterns of `image_files`"
    if missing := len(files.images) - len(firsts):
        volumes = [path for found in [*files.images, files.labels or (), files.others] for path in found]
        found = f"none for {missing} of {len(files.images)}: {_listed(volumes)}"
        yield found, "a file for each sequence", "complete the case, or `exclude` it"
    if files.labels is not None and not files.labels:
        fix = "nothing, if it is to be predicted only; otherwise add its mask, under a name that `label_file` matches"
        yield "an image alone", "an image and its mask", fix, "warning"


def _no_image(files: CaseFiles) -> tuple[str, str, str]:
    if files.labels:
        fix = "add the image, under a name that `image_files` matches"
        return f"a mask without an image: {_listed(files.labels)}", "an image", fix
    if files.others:
        fix = "give patterns in `image_files` and `label_file` that match these names"
        return f"other volumes: {_listed(files.others)}", "an image of a known name", fix
    found, fix = other_files(files.folder)
    found, fix = (found, fix) if found else ("nothing: no NIfTI file", "fill it, remove it or `exclude` it")
    return found, "an image in the folder of a case", fix


def _listed(paths: Sequence[Path]) -> str:
    return " and ".join(path.name for path in paths)


def unusable(name: str) -> bool:
    """Tell whether a name cannot name a folder; blanks, quotes, ``%``, ``#`` and letters of all scripts can."""
    if not name or name.startswith(".") or any(separator in name for separator in "/\\") or unwritable(name):
        return True
    return len(name.encode()) > LONGEST_BYTES


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
        if unusable(case.name):
            problems.append(Problem(shown(case.name), str(case.image), f"the name {shown(case.name)!r}", USABLE, fix))
            continue
        first = kept.setdefault(tidy(case.name.casefold()), case)
        if first is not case:
            found = f"the name of {first.image} too" + (f", as {first.name}" if first.name != case.name else "")
            problems.append(Problem(case.name, str(case.image), found, "a name of its own for each case", fix))
    return list(kept.values()), problems


def other_files(folder: Path) -> tuple[str, str]:
    """Name the kinds of image files in a folder without NIfTI, with an example each, and the way to NIfTI.

    Both are empty where no kind is known, or NIfTI files exist.
    """
    kinds: dict[tuple[str, str], Path] = {}
    paths = (Path(place, name) for place, _, names in os.walk(folder) for name in sorted(names))
    for path in islice(filter(Path.is_file, paths), SHOWN_FILES):
        if is_volume(path):
            return "", ""
        if kind := file_kind(path):
            kinds.setdefault((kind.name, kind.fix), path)
    found = " and ".join(f"{name} ({path.relative_to(folder)})" for (name, _), path in kinds.items())
    return found, "; ".join(dict.fromkeys(fix for _, fix in kinds))


def file_kind(path: Path) -> Kind | None:
    """The kind of a file that is neither NIfTI nor text; None where that is unknown."""
    with suppress(OSError, EOFError, zlib.error):
        return kind_of(head_of(path)) or (GZIP if is_gzip(path) else None)
    return None
