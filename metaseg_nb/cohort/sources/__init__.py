"""Read a cohort from datalists or a folder. Only file names, JSON and CSV are read, never an image."""

import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from difflib import get_close_matches
from glob import glob
from pathlib import Path
from typing import Annotated

import pandas as pd
from pydantic import AfterValidator, BaseModel

from metaseg_nb.cohort.cases import Case, Cohort
from metaseg_nb.cohort.problems import CohortError, Problem, broken, numbered, refusal, unused
from metaseg_nb.cohort.sources.dates import with_days
from metaseg_nb.cohort.sources.folders import read_folder
from metaseg_nb.cohort.sources.lists import PATH, Id, Text, read_keys, read_lists
from metaseg_nb.cohort.sources.one_patient import patient_reader, with_patients
from metaseg_nb.cohort.sources.spelling import loosely, misspelt, read_csv, shown, tidy, unwritable

APART = "`image_root` only with datalists, `image_files`, `label_file` and `brain_file` only with a folder of cases"


def _days(text: str | None) -> str | None:
    if text is not None and not re.fullmatch(r"\d{1,5}([.,]0{1,2})?", text):  # 1.000 may be a thousand
        raise ValueError("whole days since the patient's first date, such as 0 or 92")
    return text and re.split("[.,]", text)[0]  # a spreadsheet's 92.0


class PatientRow(BaseModel):
    """The columns of the patients table that are read."""

    case: Id = None
    patient: Id = None
    primary: Text = None
    site: Text = None
    scanner: Text = None
    date: Text = None
    day: Annotated[Text, AfterValidator(_days)] = None


def read_cohort(
    source: str,
    *,
    base: Path,
    image_root: str = "",
    image_files: Sequence[str] = (),
    label_file: str = "",
    brain_file: str = "",
    missing: str = "refuse",
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
        Folder that the paths in lists start from, if the images have moved.
    image_files : sequence of str
        Glob patterns of the image in a case's folder, one for each sequence; the
        first is the contrast-enhanced T1. Empty: the usual names. With ``{patient}`` in each pattern the files of all
        patients lie in one folder.
    label_file : str
        Glob pattern of the mask in a case's folder.
    brain_file : str
        Glob pattern of the mask of its brain; with ``{patient}`` of that in any folder. Empty: there is none.
    missing : str
        "refuse": every case has all sequences; "zero": it may lack others than the first.
    patients_table : str
        CSV that overrides patient, primary, site, scanner, date and day (`add_patients`).
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
        or ``patient_pattern`` is not valid.
    """
    for name, value in (("cohort", source), ("image_root", image_root), ("patients_table", patients_table)):
        if unwritable(value):
            raise CohortError.one("-", name, f"the path {shown(value)}", PATH, f"correct `{name}`")
    patient_of = patient_reader(patient_pattern)
    exclude, confirmed = ([*map(tidy, names)] for names in (exclude, confirmed))
    try:
        if lists := lists_of(source, base):
            root = base / os.path.expanduser(image_root) if image_root else None
            patterns = {"image_files": image_files, "label_file": label_file, "brain_file": brain_file}
            problems = unused(source, patterns, APART)
            if root and not root.is_dir():
                problems.append(broken("image root", "-", root, "no such folder"))
            cohort, found = read_lists(lists, root, exclude)
        else:
            problems = unused(source, {"image_root": image_root}, APART)
            cohort, found = read_folder(base / os.path.expanduser(source), image_files, label_file, brain_file, missing)
        problems += found
        lacking = [case for case in cohort.all_cases if case.lacking and missing == "refuse"]
        problems += [broken("all sequences", of, of.image, f"no {numbered(of.lacking)}") for of in lacking]
        # a case may be left out because it could not be read
        known = {case.name for case in cohort.all_cases} | {problem.case for problem in problems} - {"-"}
        if patients_table:
            table = base / os.path.expanduser(patients_table)
            cohort, found = add_patients(cohort, table, lambda case: patient_of(case)[0] or case.name)
            problems += found
    except OSError as error:
        raise refusal("access", "-", shown(str(error.filename)), f"no access ({error.strerror})") from error
    primary, site = _one_spelling(), _one_spelling()
    cohort = cohort.changed(lambda case: None if case.name in exclude else case)
    cohort = cohort.changed(lambda case: replace(case, primary=primary(case.primary), site=site(case.site)))
    cohort, found = with_patients(cohort, patient_pattern, source)
    cohort, dated = with_days(cohort, source)
    problems = [p for p in [*problems, *found, *dated] if p.case == "-" or p.case not in exclude]
    for parameter, names in (("exclude", exclude), ("confirmed", confirmed)):
        for name in [name for name in names if name not in known]:
            problems.append(broken("known name", name, parameter, "no such case", _near(name, known)))
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
        raise refusal("cohort", "-", "cohort", "nothing", "set `cohort` in the study file")
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
            raise refusal("cohort", "-", base / pattern, "no such file or folder")
        paths |= dict.fromkeys(files)
    return list(paths)


def _by_number(path: Path) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", str(path))]


def no_cases(source: str | Path, problems: Iterable[Problem]) -> CohortError:
    """Build the error of a source without labelled cases: what is wrong with it, or that nothing is."""
    problems = list(problems)
    if not any(problem.severity == "error" for problem in problems):
        problems.append(broken("labelled cases", "-", source, "no labelled cases"))
    return CohortError(problems)


def add_patients(cohort: Cohort, path: Path, patient_of: Callable[[Case], str]) -> tuple[Cohort, list[Problem]]:
    """Override patient, primary, site, scanner, date and day of cases by a table; empty cells override nothing.

    Rows are found by the column ``case``, or by ``patient`` without one; other columns are not read.
    Separators are commas, semicolons or tabs; capitals in column names make no difference.

    Parameters
    ----------
    cohort : Cohort
    path : Path
    patient_of : callable
        Tells the patient of a case that the table does not name.

    Returns
    -------
    cohort : Cohort
        As it was, if the table cannot be used.
    problems : list of Problem
        A table that cannot be used, rows that do not fit its header, contradictory rows (none of them
        counts), rows that match no case, cases without row.
    """
    try:
        table, problems = read_csv(path)
        key = _key(list(table.columns), path)
    except CohortError as error:
        return cohort, error.problems
    rows = []
    for line, row in table.loc[:, ~table.columns.duplicated()].to_dict("index").items():
        read, wrong = read_keys(PatientRow, row, f"line {line}", path)
        problems += list(wrong.values())[:1]
        known = read.model_dump(exclude_none=True) if read else {}
        if key in known:
            rows.append(known)
        elif known:
            found = f"no {key}, but {', '.join(known.values())}"
            problems.append(broken("key in each row", f"line {line}", path, found, key=key))
    frame = pd.DataFrame(rows, columns=list(PatientRow.model_fields), dtype=object)
    facts = frame.melt(id_vars=key, var_name="fact").dropna().drop_duplicates()
    differ = facts.duplicated([key, "fact"], keep=False)
    for (name, column), values in facts[differ].groupby([key, "fact"], sort=False)["value"]:
        problems.append(broken("one row", name, path, f"{column} {' and '.join(values)}", key=key))
    agreed = {
        name: dict(zip(of["fact"], of["value"], strict=True))
        for name, of in facts[~facts[key].isin(facts.loc[differ, key])].groupby(key)
    }
    keys = {case.name: case.name if key == "case" else patient_of(case) for case in cohort.all_cases}
    without = {name: own for name, own in keys.items() if own not in set(frame[key])}
    for name in [name for name in dict.fromkeys(frame[key]) if name not in keys.values()]:
        near = _near(name, without.values())  # a misspelt row leaves a case without one
        problems.append(broken("row matches", name, path, f"a row that matches no {key}", near, key=key))
    names_patients, labelled = key == "case" and "patient" in table.columns, {case.name for case in cohort.labelled}
    nobodys = set(frame[frame["patient"].isna()]["case"]) - set(frame.dropna(subset="patient")["case"])
    for name, own in keys.items():
        needs_patient = names_patients and name in labelled
        if own in without.values() or (needs_patient and own in nobodys):
            found = f"no row for {own}" if own in without.values() else "a row without a patient"
            problems.append(broken("patient for each" if needs_patient else "row for each", name, path, found))
    agreed = {name: facts | ({"day": int(facts["day"])} if "day" in facts else {}) for name, facts in agreed.items()}
    return cohort.changed(lambda case: replace(case, **agreed.get(keys[case.name], {}))), problems


def _one_spelling() -> Callable[[str], str]:
    """Make a function that gives names that differ in capitals and separators only the spelling of the first."""
    first: dict[tuple, str] = {}
    return lambda name: first.setdefault(loosely(name), name)


def _key(columns: Sequence[str], path: Path) -> str:
    """The column that rows are found by."""
    read = [column for column in columns if column in PatientRow.model_fields]
    if wrong := misspelt(columns, list(PatientRow.model_fields)):
        found = f"the column {' and '.join(wrong)}, which is not read"
        raise refusal("columns", "-", path, found, f"rename it to {' and '.join(wrong.values())}")
    # a row needs a key and a fact; each column once
    if not {"case", "patient"} & {*read} or len(read) < 2 or len({*read}) < len(read):
        raise refusal("columns", "-", path, f"columns {', '.join(columns)}")
    return "case" if "case" in read else "patient"


def _near(name: str, known: Iterable[str]) -> str:
    near = get_close_matches(name, sorted(known), n=1)
    return f"write {near[0]}, if that is meant" if near else ""
