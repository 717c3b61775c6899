"""Read a cohort from a datalist, several lists or a folder, with its patients table and without excluded cases."""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from difflib import get_close_matches
from glob import glob
from pathlib import Path

from metaseg_nb.cohort.cases import Cohort
from metaseg_nb.cohort.problems import CohortError, Problem, unused
from metaseg_nb.cohort.sources.case_files import shown
from metaseg_nb.cohort.sources.folders import read_folder
from metaseg_nb.cohort.sources.lists import read_lists
from metaseg_nb.cohort.sources.one_patient import patient_reader, with_patients
from metaseg_nb.cohort.sources.patients_table import add_patients
from metaseg_nb.cohort.sources.spelling import loosely, tidy, unwritable

WANTED = "a datalist (JSON), a glob of datalists, or a folder"
APART = "`image_root` with lists only, `image_files` and `label_file` with folders of cases only"


@contextmanager
def _accessible() -> Iterator[None]:
    """Turn what the file system refuses into an error of the cohort."""
    try:
        yield
    except OSError as error:
        found, fix = f"no access ({error.strerror})", "correct the path, or allow reading"
        raise CohortError.one("-", shown(str(error.filename)), found, "files and folders to read", fix) from error


@_accessible()
def read_cohort(
    source: str,
    *,
    base: Path,
    image_root: str = "",
    image_files: Sequence[str] = (),
    label_file: str = "",
    patients_table: str = "",
    patient_pattern: str = "",
    exclude: Sequence[str] = (),
    confirmed: Sequence[str] = (),
) -> tuple[Cohort, list[Problem]]:
    """Read a cohort from lists or from a folder.

    Parameters
    ----------
    source : str
        A datalist (JSON); several, as a glob or separated by commas, whose validation lists are
        the folds (`read_lists`); or a folder of a usual layout (`read_folder`).
    base : Path
        Folder that ``source``, ``image_root`` and ``patients_table`` are relative to.
    image_root : str
        Folder that the paths in lists are below, where they have moved.
    image_files : sequence of str
        Glob patterns of the image in a case's folder, one for each sequence; the
        first is the contrast-enhanced T1. Empty: the usual names. With ``{patient}`` in each pattern the files of all
        patients lie in one folder.
    label_file : str
        Glob pattern of the mask in a case's folder.
    patients_table : str
        CSV that overrides patient, primary, scanner and date (`add_patients`).
    patient_pattern : str
        Regular expression with the group ``patient``, searched in the names of cases whose patient no list or
        table names (`with_patients`).
    exclude : sequence of str
        Names of cases to leave out; what is wrong with them is left out too.
    confirmed : sequence of str
        Names of cases that a person has checked; like those of ``exclude`` they have to exist.

    Returns
    -------
    cohort : Cohort
        The cases that can be examined, each once.
    problems : list of Problem
        Everything else that was found.

    Raises
    ------
    CohortError
        With all problems, if there is no labelled case; or ``source`` does not exist or has no known layout,
        or ``patient_pattern`` is none.
    """
    for name, value in (("cohort", source), ("image_root", image_root), ("patients_table", patients_table)):
        if unwritable(value):
            raise CohortError.one("-", name, shown(value), "a path without control characters", f"correct `{name}`")
    patient_of = patient_reader(patient_pattern)
    exclude, confirmed = ([tidy(name) for name in names] for names in (exclude, confirmed))
    if lists := lists_of(source, base):
        root = base / os.path.expanduser(image_root) if image_root else None
        problems = unused(source, {"image_files": image_files, "label_file": label_file}, APART)
        if root and not root.is_dir():
            fix = "correct `image_root`"
            problems.append(Problem("-", str(root), "no such folder", "the folder of the images", fix))
        cohort, found = read_lists(lists, root, exclude)
    else:
        problems = unused(source, {"image_root": image_root}, APART)
        cohort, found = read_folder(base / os.path.expanduser(source), image_files, label_file)
    problems += found
    # a case may be left out because it could not be read
    known = {case.name for case in cohort.all_cases} | {problem.case for problem in problems} - {"-"}
    if patients_table:
        table = base / os.path.expanduser(patients_table)
        cohort, found = add_patients(cohort, table, lambda case: patient_of(case)[0] or case.name)
        problems += found
    first: dict[tuple, str] = {}  # one spelling for primaries that differ in capitals and separators only
    cohort = cohort.changed(lambda case: None if case.name in exclude else case)
    cohort = cohort.changed(lambda case: replace(case, primary=first.setdefault(loosely(case.primary), case.primary)))
    cohort, found = with_patients(cohort, patient_pattern, source)
    problems = [p for p in [*problems, *found] if p.case == "-" or p.case not in exclude]
    for parameter, names in (("exclude", exclude), ("confirmed", confirmed)):
        problems += [_unknown(name, known, parameter) for name in names if name not in known]
    if not cohort.cases:
        raise no_cases(source, problems)
    return cohort, problems


def lists_of(source: str, base: Path) -> list[Path]:
    """The datalists that a ``source`` means, in the order of their numbers; none if it is a folder.

    Raises
    ------
    CohortError
        ``source`` is empty, or no file matches it.
    """
    if not source.strip():
        raise CohortError.one("-", "cohort", "nothing", WANTED, "set `cohort` in the study file")
    as_it_is = base / os.path.expanduser(source)
    if as_it_is.is_dir():
        return []
    if as_it_is.is_file():
        return [as_it_is]
    paths: dict[Path, None] = {}
    for pattern in map(str.strip, source.split(",")):
        matching = [base / found for found in glob(os.path.expanduser(pattern), root_dir=base, recursive=True)]
        files = sorted(filter(Path.is_file, matching), key=_by_number)
        if not files:
            fix = "correct `cohort` in the study file"
            raise CohortError.one("-", base / pattern, "no such file or folder", WANTED, fix)
        paths |= dict.fromkeys(files)
    return list(paths)


def no_cases(source: str | Path, problems: Iterable[Problem]) -> CohortError:
    """Build the error of a source without labelled cases: what is wrong with it, or that nothing is."""
    problems = list(problems)
    if not any(problem.severity == "error" for problem in problems):
        fix = "add the images that have a mask"
        problems.append(Problem("-", str(source), "no labelled cases", "cases with an image and a label", fix))
    return CohortError(problems)


def _by_number(path: Path) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", str(path))]


def _unknown(name: str, known: Iterable[str], parameter: str) -> Problem:
    near = get_close_matches(name, sorted(known), n=1)
    fix = f"did you mean {near[0]}?" if near else "correct or remove the name"
    return Problem(name, parameter, "no such case", "names of cases of this cohort", fix)
