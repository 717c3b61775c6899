"""From the files that a layout finds for a case to the case, or to what is wrong with them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from metaseg_nb.cohort.cases import Case, Cohort
from metaseg_nb.cohort.problems import Problem
from metaseg_nb.cohort.sources.case_names import well_named
from metaseg_nb.cohort.sources.naming import as_named
from metaseg_nb.cohort.sources.other_files import other_files
from metaseg_nb.cohort.sources.strict import tidy


@dataclass(frozen=True)
class CaseFiles:
    """What a folder holds for one case.

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
    """Collect the cases whose images are there; each thing wrong is a problem of its own."""
    cases, problems = [], []
    for files in found:
        wrong = _problems(files)
        problems += wrong
        if not any(problem.severity == "error" for problem in wrong):
            cases.append(_case(files))
    cases, wrong = well_named(cases, 'rename it, or give a datalist with a "case" for each entry')
    problems += wrong
    labelled = [case for case in cases if case.label is not None]
    unlabelled = [case for case in cases if case.label is None]
    return Cohort(folder.resolve().name, description, labelled, unlabelled), problems


def _case(files: CaseFiles) -> Case:
    return Case(
        name=tidy(files.name),
        images=tuple(as_named(image) for (image,) in files.images),
        label=as_named(files.labels[0]) if files.labels else None,
        patient="",
        primary=tidy(files.primary),
        scanner=files.scanner,
        date=files.date,
    )


def _problems(files: CaseFiles) -> list[Problem]:
    if not any(files.images):
        return [_no_image(files)]
    missing = [i for i, found in enumerate(files.images) if not found]
    doubled = [found for found in [*files.images, files.labels or ()] if len(found) > 1]
    problems = [_several(files, found) for found in doubled]
    firsts = [found[0] for found in files.images if found]
    if len(set(firsts)) < len(firsts):
        found, fix = f"{_listed(firsts)} for {len(firsts)} sequences", "narrow the patterns of `image_files`"
        problems.append(Problem(files.name, str(files.folder), found, "another file for each sequence", fix))
    if missing:
        found = f"none for {len(missing)} of {len(files.images)}: {_listed(_all_volumes(files))}"
        fix = "complete the case, or `exclude` it"
        problems.append(Problem(files.name, str(files.folder), found, "a file for each sequence", fix))
    if files.labels is not None and not files.labels:
        fix = "nothing, if it is to be predicted only; otherwise put its mask beside it, or set `label_file`"
        problems.append(
            Problem(files.name, str(files.folder), "an image alone", "an image and its mask", fix, "warning")
        )
    return problems


def _no_image(files: CaseFiles) -> Problem:
    path, expected = str(files.folder), "an image"
    if files.labels:
        fix = "add the image, or set `image_files`"
        return Problem(files.name, path, f"a mask without an image: {_listed(files.labels)}", expected, fix)
    if files.others:
        fix = "say with `image_files` and `label_file` which file is what"
        return Problem(files.name, path, f"other volumes: {_listed(files.others)}", f"{expected} of a known name", fix)
    found, fix = other_files(files.folder)
    if not found:
        found, fix = "nothing: no NIfTI file", "fill it, remove it or `exclude` it"
    return Problem(files.name, path, found, f"{expected} in the folder of a case", fix)


def _several(files: CaseFiles, found: Sequence[Path]) -> Problem:
    fix = "remove all but one, or narrow `image_files` or `label_file`"
    return Problem(files.name, str(files.folder), _listed(found), "one file for each sequence and the mask", fix)


def _all_volumes(files: CaseFiles) -> list[Path]:
    return [path for found in [*files.images, files.labels or (), files.others] for path in found]


def _listed(paths: Sequence[Path]) -> str:
    return " and ".join(path.name for path in paths)
