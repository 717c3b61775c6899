"""A folder as a cohort: its layout is recognised by file names, or given by patterns."""

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path

from metaseg_nb.cohort.cases import Case, Cohort
from metaseg_nb.cohort.file_kinds import file_kind
from metaseg_nb.cohort.problems import CohortError, Problem, broken, refusal, shortened, unused
from metaseg_nb.cohort.sources.layouts import LAYOUTS, PATIENT, CaseFiles, Found, by_patient, read_patterns
from metaseg_nb.cohort.sources.naming import in_any_capitals, is_volume, primary_of, spelled_out, volumes_in
from metaseg_nb.cohort.sources.spelling import as_named, tidy, unwritable, well_named

# Without suffix: .nii and .nii.gz. The last are those of BraTS, in all its years.
USUAL_IMAGES = ("image", "t1c", "*[-_]t1c", "*[-_]t1ce")
USUAL_LABELS = ("label", "mask", "seg", "*[-_]seg")
# Named in an error; files of a folder whose kind is looked up.
SHOWN_ENTRIES, SHOWN_FILES = 8, 200


def read_folder(
    folder: Path, image_files: Sequence[str] = (), label_file: str = "", brain_file: str = "", missing: str = "refuse"
) -> tuple[Cohort, list[Problem]]:
    """Read a folder of one of these layouts; no image is opened.

    - any folder, by patterns with ``{patient}``: ``{patient}_T1KM.nii.gz``, ``{patient}_GTV.nii.gz``;
    - one of `LAYOUTS`, by the names of its folders;
    - a folder for each case, ``<case>/`` or ``<primary>/<case>/``: its image and mask are the files that
      ``image_files`` and ``label_file`` match, or ``image``, ``t1c``, ``*-t1c``, ``*_t1ce`` and
      ``label``, ``mask``, ``seg``, ``*-seg``, ``*_seg``, as in BraTS. Capitals in names of files make no difference.

    ``brain_file`` matches the mask of the brain in a case's folder; or in all of the folder with ``{patient}``, which
    stands for the name of the case.

    With ``missing`` "zero" a case may lack sequences other than the first.

    An image without mask makes an unlabelled case and a warning. A mask without
    image, two files where one is meant and an empty folder are errors, and the case is left out.

    Raises
    ------
    CohortError
        The layout is not known, or a pattern is not valid.
    """
    given, brain_files = [*image_files, *filter(None, [label_file])], [*filter(None, [brain_file])]
    with_patient = any(PATIENT in pattern for pattern in given)
    wrong = [pattern for pattern in [*given, *brain_files] if not _is_pattern(pattern)]
    if with_patient:
        wrong += [pattern for pattern in [*(image_files or [""]), label_file, *brain_files] if PATIENT not in pattern]
    if wrong:
        raise refusal("patterns", "-", folder, f"{wrong[0]!r}")
    known = [layout for layout in LAYOUTS if any(any(folder.glob(mark)) for mark in layout.marks)]
    standard = known[0] if known and not with_patient else None
    cases, problems = [], []
    if standard and not standard.takes_patterns:
        expected = f"no file patterns: the file names of {standard.name} are fixed"
        problems += unused(folder, {"image_files": list(image_files), "label_file": label_file}, expected)
        image_files, label_file = standard.images, standard.label
    flat = partial(read_patterns, brain_file=brain_file)
    read = standard.read if standard else flat if with_patient else _case_folders
    found = read(folder, image_files, label_file)
    if not standard and not any(any(files.images) for files in found.files):
        raise _unknown_layout(folder, image_files)
    problems += found.problems
    for files in _with_brains(found.files, folder, brain_file):
        problems += (wrong := list(_wrong(files, missing)))
        if not any(problem.severity == "error" for problem in wrong):
            images = tuple(as_named(found[0]) for found in files.images if found)
            lacking = tuple(number for number, found in enumerate(files.images, 1) if not found)
            label, brain = (as_named(masks[0]) if masks else None for masks in (files.labels, files.brains))
            facts = {"patient": "", "primary": "unknown", **files.facts}
            cases.append(Case(tidy(files.name), images, label, brain=brain, lacking=lacking, **facts))
    cases, unnamed = well_named(cases, 'rename it, or give a datalist with a "case" for each entry')
    cohort = Cohort.of(folder.resolve().name, found.description, cases)
    if standard and not cohort.cases and (others := other_files(folder))[0]:
        problems.append(broken("NIfTI files", "-", folder, *others))
    return cohort, problems + unnamed


def _with_brains(files: Sequence[CaseFiles], folder: Path, brain_file: str) -> Sequence[CaseFiles]:
    if not brain_file:
        return files
    named = by_patient(folder, brain_file) if PATIENT in brain_file else None
    return [replace(of, brains=_matching(of.folder, [brain_file]) if named is None else named[of.name]) for of in files]


def _is_pattern(pattern: str) -> bool:
    with suppress(ValueError, NotImplementedError):  # pathlib's for "", absolute ones, and those such as "**x"
        any(Path(os.devnull).glob(pattern))
        return not unwritable(pattern)
    return False


def _case_folders(folder: Path, image_files: Sequence[str], label_file: str) -> Found:
    """The files in each folder of a case."""
    sequences = [[pattern] for pattern in image_files] or [USUAL_IMAGES]
    labels = [label_file] if label_file else USUAL_LABELS
    places: list[Path] = []
    for first in _subfolders(folder):
        is_case = volumes_in(first) or any(_matching(first, patterns) for patterns in [*sequences, labels])
        places += [first] if is_case else _subfolders(first) or [first]
    files = []
    for place in places:
        masks = _matching(place, labels)
        images = tuple([path for path in _matching(place, patterns) if path not in masks] for patterns in sequences)
        own = place.relative_to(folder)
        facts = {"primary": tidy(primary_of(own / "image"))}
        files.append(CaseFiles("_".join(own.parts), place, images, masks, volumes_in(place), facts))
    return Found(files)


def _subfolders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith((".", "__")))


def _matching(folder: Path, patterns: Sequence[str]) -> list[Path]:
    """The volumes below a folder that any pattern matches, whatever the capitals."""
    spelled = map(in_any_capitals, spelled_out(patterns))
    return sorted({path for pattern in spelled for path in folder.glob(pattern) if is_volume(path)})


def _wrong(files: CaseFiles, missing: str) -> Iterator[Problem]:
    """What is wrong with the files of a case."""
    images, labels, brains = [*files.images], files.labels or (), files.brains or ()
    if not any(images):
        volumes = list(dict.fromkeys([*labels, *files.volumes]))
        found, fix = (_listed(volumes), "") if volumes else other_files(files.folder)
        found = f"a mask without an image: {_listed(volumes)}" if labels else found
        yield broken("image in each folder", files.name, files.folder, found or "no NIfTI file", fix)
        return
    firsts = {path for found in images for path in found[:1]}
    needed = len(images) if missing == "refuse" or not images[0] else sum(map(bool, images))
    if len(firsts) < needed or any(len(found) > 1 for found in [*images, labels, brains]):
        found = f"images {', '.join(_listed(found) or 'none' for found in images)}; mask {_listed(labels) or 'none'}"
        found += f"; mask of the brain {_listed(brains)}" if brains else ""
        alike = any(len({str(path).casefold() for path in paths}) < len(paths) for paths in [*images, labels, brains])
        found += "; capitals make no difference" if alike else ""
        yield broken("one file each", files.name, files.folder, found)
    if files.labels is not None and not files.labels:
        yield broken("mask of image", files.name, files.folder, "an image without a mask")
    if files.brains is not None and not files.brains:
        yield broken("mask of brain", files.name, files.folder, "an image without a mask of its brain")


def _listed(paths: Sequence[Path]) -> str:
    return " and ".join(path.name for path in paths)


def other_files(folder: Path) -> tuple[str, str]:
    """Name the kinds of image files in a folder without NIfTI, with an example each, and how to convert them.

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


def _unknown_layout(folder: Path, image_files: Sequence[str]) -> CohortError:
    entries = sorted(path.name + "/" * path.is_dir() for path in folder.iterdir() if not path.name.startswith("."))
    found = f"a folder with {shortened(entries, SHOWN_ENTRIES)}" if entries else "an empty folder"
    names = ", ".join(image_files) or f"{', '.join(USUAL_IMAGES)} (.nii or .nii.gz)"
    others, conversion = other_files(folder)
    fix = f"{conversion}; then give the folder of the NIfTI files" if others else ""
    found = ": ".join(filter(None, [found, others]))
    volumes = islice(filter(is_volume, sorted(folder.rglob("*"))), SHOWN_FILES)
    if image_files and (unmatched := [str(path.relative_to(folder)) for path in volumes]):
        return refusal("patterns that match", "-", folder, f"only {shortened(unmatched, SHOWN_ENTRIES)}", names=names)
    known = ", ".join(f"{' or '.join(layout.marks)} ({layout.name})" for layout in LAYOUTS)
    return refusal("known layout", "-", folder, found, fix, known=known, names=names)
