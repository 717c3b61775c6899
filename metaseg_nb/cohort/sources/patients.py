"""The patients table: a CSV that knows better than lists and folders whose case it is."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path

from metaseg_nb.cohort.cases import Case, Cohort
from metaseg_nb.cohort.problems import CohortError, Problem
from metaseg_nb.cohort.sources.strict import Table, fact, means_unknown, misspelt, read_csv

FACTS = ("patient", "primary", "scanner", "date")
COLUMNS = "a column `case` or `patient`, and any of patient, primary, scanner, date"
AMBIGUOUS = (
    'an id, or nothing; NA, unknown, "-" and the like may mean "not known"',
    "leave it empty if it is not known, or change the id",
)
# What the rows say of a case or patient: fact by fact, the different values.
Said = dict[str, dict[str, list[str]]]


def add_patients(cohort: Cohort, path: Path, whose: Callable[[Case], str]) -> tuple[Cohort, list[Problem]]:
    """Override patient, primary, scanner and date of cases by a table; empty cells override nothing.

    Rows are found by the column ``case``, or by ``patient`` where there is none; other columns are not read.
    Separators are commas, semicolons or tabs, capitals in column names are small ones.

    Parameters
    ----------
    cohort : Cohort
    path : Path
    whose : callable
        Tells the patient of a case that the table does not name.

    Returns
    -------
    cohort : Cohort
        As it was, if the table cannot be used.
    problems : list of Problem
        A table that cannot be used, rows that do not fit its header, contradictory rows (none of them
        counts), rows of nobody, cases without row.
    """
    try:
        table, problems = read_csv(path)
        key = _key(table)
    except CohortError as error:
        return cohort, error.problems
    said, found = _said(table, key)
    rows, twice = _agreed(said, key, path)
    keys = {case.name: case.name if key == "case" else whose(case) for case in cohort.all_cases}
    problems += found + twice + _unmatched(said, keys, key, path)
    return cohort.changed(lambda case: replace(case, **rows.get(keys[case.name], {}))), problems


def _key(table: Table) -> str:
    """The column that rows are found by."""
    read = [column for column in table.columns if column in ("case", *FACTS)]
    if wrong := misspelt(table.columns, ("case", *FACTS)):
        found = f"the column {' and '.join(wrong)}, which is not read"
        fix = f"rename it to {' and '.join(wrong.values())}"
        raise CohortError.one("-", table.path, found, COLUMNS, fix)
    # a row needs a key and something to say; each column once
    if not {"case", "patient"} & {*read} or len(read) < 2 or len({*read}) < len(read):
        found = f"columns {', '.join(table.columns)}"
        raise CohortError.one("-", table.path, found, COLUMNS, "rename or add the columns")
    return "case" if "case" in read else "patient"


def _said(table: Table, key: str) -> tuple[Said, list[Problem]]:
    """What the rows say of each case or patient; a row that cannot be understood is a problem with its line."""
    facts = [column for column in FACTS if column in table.columns and column != key]
    said: Said = defaultdict(lambda: {column: [] for column in facts})
    problems = []
    for line, row in table.rows:
        if wrong := _row_problem(row, key, facts):
            found, expected, fix = wrong
            problems.append(Problem(f"line {line}", str(table.path), found, expected, fix))
            continue
        if row[key]:
            of = said[row[key]]
            for column in facts:
                value = fact(row[column])
                of[column] += [value] if value and value not in of[column] else []
    return dict(said), problems


def _row_problem(row: Mapping[str, str], key: str, facts: Iterable[str]) -> tuple[str, str, str] | None:
    for column in {key, "patient"} & {*row}:
        if means_unknown(row[column]):
            return f"{column} {row[column]!r}", *AMBIGUOUS
    try:
        values = [fact(row[column]) for column in facts]
    except ValueError as error:
        return str(error), "text of one line", "correct the cell"
    if not row[key] and any(values):
        return f"no {key}, but {', '.join(filter(None, values))}", f"a {key} in each row", "complete or remove the row"
    return None


def _agreed(said: Said, key: str, path: Path) -> tuple[dict[str, dict[str, str]], list[Problem]]:
    """The facts of each case or patient, and who is spoken of in two ways."""
    rows, problems = {}, []
    for name, facts in said.items():
        twice = {column: values for column, values in facts.items() if len(values) > 1}
        rows[name] = {} if twice else {column: values[0] for column, values in facts.items() if values}
        problems += [
            Problem(name, str(path), f"{column} {' and '.join(values)}", f"one row a {key}", "correct the table")
            for column, values in twice.items()
        ]
    return rows, problems


def _unmatched(rows: Iterable[str], keys: Mapping[str, str], key: str, path: Path) -> list[Problem]:
    known = set(keys.values())
    without = sorted(known - {*rows})  # a misspelt row leaves one of these
    what = f"{key}s of this cohort"
    problems = []
    for row in rows:
        if row not in known:
            near = get_close_matches(row, without, n=1)
            fix = f"did you mean {near[0]}?" if near else "nothing, if it is of another cohort"
            problems.append(Problem(row, str(path), "a row of nobody", what, fix, "warning"))
    fix = "add a row; until then the lists and folders say whose it is"
    problems += [
        Problem(name, str(path), f"no row of {value}", "a row for each case", fix, "warning")
        for name, value in keys.items()
        if value not in rows
    ]
    return problems
