"""The patients table: a CSV that knows better than lists and folders whose case it is."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path

import pandas as pd

from metaseg_nb.cohort.cases import Cohort
from metaseg_nb.cohort.problems import CohortError, Problem

FACTS = ("patient", "primary", "scanner", "date")
COLUMNS = "a column `case` or `patient`, and any of patient, primary, scanner, date"


def add_patients(cohort: Cohort, path: Path) -> tuple[Cohort, list[Problem]]:
    """Override patient, primary, scanner and date of cases by a table; empty cells override nothing.

    Rows are found by the column ``case``, or by ``patient`` where there is none; other columns are not read.
    Separators are commas or semicolons, capitals in column names are small ones.

    Returns
    -------
    cohort : Cohort
        As it was, if the table cannot be used.
    problems : list of Problem
        A table that cannot be used, contradictory rows (none of them counts), rows of nobody,
        cases without row.
    """
    try:
        table = _table(path)
    except CohortError as error:
        return cohort, error.problems
    key = "case" if "case" in table else "patient"
    rows, problems = _rows(table, key, path)
    cases = [*cohort.cases, *cohort.unlabelled]
    keys = {case.name: case.name if key == "case" else case.patient for case in cases}
    problems += _unmatched(rows, keys, table[key], path)
    cases, unlabelled = (
        [replace(case, **rows.get(keys[case.name], {})) for case in part] for part in (cohort.cases, cohort.unlabelled)
    )
    return replace(cohort, cases=cases, unlabelled=unlabelled), problems


def _table(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise CohortError.one("-", path, "no such file", "a CSV", "correct `patients_table` in the study file")
    try:
        header = path.read_text(encoding="utf-8-sig").partition("\n")[0]
        separator = ";" if header.count(";") > header.count(",") else ","
        table = pd.read_csv(path, sep=separator, dtype=str, encoding="utf-8-sig", index_col=False).fillna("")
    except (UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        fix = "save the table as CSV in UTF-8"
        raise CohortError.one("-", path, f"no table ({error})", "a CSV in UTF-8", fix) from error
    table.columns = table.columns.str.strip().str.lower()
    read = [column for column in table if column in ("case", *FACTS)]
    # a row needs a key and something to say; each column once
    if not {"case", "patient"} & {*read} or len(read) < 2 or len({*read}) < len(read):
        found = f"columns {', '.join(table.columns)}"
        raise CohortError.one("-", path, found, COLUMNS, "rename or add the columns")
    return table.apply(lambda column: column.str.strip())


def _rows(table: pd.DataFrame, key: str, path: Path) -> tuple[dict[str, dict[str, str]], list[Problem]]:
    """What is said of each case or patient, and who is spoken of in two ways."""
    facts = [fact for fact in FACTS if fact in table and fact != key]
    rows, problems = {}, []
    for name, of in table[table[key] != ""].groupby(key, sort=False):
        said = {fact: list(dict.fromkeys(value for value in of[fact] if value)) for fact in facts}
        twice = {fact: values for fact, values in said.items() if len(values) > 1}
        rows[name] = {} if twice else {fact: values[0] for fact, values in said.items() if values}
        problems += [
            Problem(name, str(path), f"{fact} {' and '.join(values)}", f"one row a {key}", "correct the table")
            for fact, values in twice.items()
        ]
    return rows, problems


def _unmatched(rows: Iterable[str], keys: Mapping[str, str], listed: pd.Series, path: Path) -> list[Problem]:
    known = set(keys.values())
    what = f"{listed.name}s of this cohort"
    problems = []
    for row in rows:
        if row not in known:
            near = get_close_matches(row, sorted(known), n=1)
            fix = f"did you mean {near[0]}?" if near else "nothing, if it is of another cohort"
            problems.append(Problem(row, str(path), "a row of nobody", what, fix, "warning"))
    fix = "add a row; until then the lists and folders say whose it is"
    problems += [
        Problem(name, str(path), f"no row of {key}", "a row for each case", fix, "warning")
        for name, key in keys.items()
        if key not in rows
    ]
    return problems
