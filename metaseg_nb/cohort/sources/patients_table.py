"""The patients table: a CSV that overrides what lists and folders hold about patients."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path

from metaseg_nb.cohort.cases import Case, Cohort
from metaseg_nb.cohort.problems import CohortError, Problem
from metaseg_nb.cohort.sources.spelling import fact, means_unknown, misspelt
from metaseg_nb.cohort.sources.text_files import Table, read_csv

FACTS = ("patient", "primary", "scanner", "date")
WANTED = "a column `case` or `patient`, and any of patient, primary, scanner, date"
AMBIGUOUS = (
    'an id, or nothing; NA, unknown, "-" and the like may mean "not known"',
    "leave it empty if it is not known, or change the id",
)


def add_patients(cohort: Cohort, path: Path, patient_of: Callable[[Case], str]) -> tuple[Cohort, list[Problem]]:
    """Override patient, primary, scanner and date of cases by a table; empty cells override nothing.

    Rows are found by the column ``case``, or by ``patient`` without one; other columns are not read.
    Separators are commas, semicolons or tabs, capitals in column names are small ones.

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
        key = _key(table)
    except CohortError as error:
        return cohort, error.problems
    # the different values of each fact, by case or patient
    rows: dict[str, dict[str, dict[str, None]]] = defaultdict(lambda: defaultdict(dict))
    for line, row in table.rows:
        try:
            for column, value in _facts(row, key, line, path).items():
                rows[row[key]][column] |= {value: None} if value else {}
        except CohortError as error:
            problems += error.problems
    problems += [
        Problem(name, str(path), f"{column} {' and '.join(values)}", f"one row a {key}", "correct the table")
        for name, facts in rows.items()
        for column, values in facts.items()
        if len(values) > 1
    ]
    contradictory = {problem.case for problem in problems}
    agreed = {
        name: {column: next(iter(values)) for column, values in facts.items() if values}
        for name, facts in rows.items()
        if name not in contradictory
    }
    keys = {case.name: case.name if key == "case" else patient_of(case) for case in cohort.all_cases}
    problems += _unmatched(rows, keys, key, path)
    return cohort.changed(lambda case: replace(case, **agreed.get(keys[case.name], {}))), problems


def _key(table: Table) -> str:
    """The column that rows are found by."""
    read = [column for column in table.columns if column in ("case", *FACTS)]
    if wrong := misspelt(table.columns, ("case", *FACTS)):
        found = f"the column {' and '.join(wrong)}, which is not read"
        raise CohortError.one("-", table.path, found, WANTED, f"rename it to {' and '.join(wrong.values())}")
    # a row needs a key and a fact; each column once
    if not {"case", "patient"} & {*read} or len(read) < 2 or len({*read}) < len(read):
        found = f"columns {', '.join(table.columns)}"
        raise CohortError.one("-", table.path, found, WANTED, "rename or add the columns")
    return "case" if "case" in read else "patient"


def _facts(row: Mapping[str, str], key: str, line: int, path: Path) -> dict[str, str | None]:
    """The facts of a row; empty for a row without facts and key."""

    def refusal(found: str, expected: str, fix: str) -> CohortError:
        return CohortError.one(f"line {line}", path, found, expected, fix)

    for column in {key, "patient"} & {*row}:
        if means_unknown(row[column]):
            raise refusal(f"{column} {row[column]!r}", *AMBIGUOUS)
    try:
        facts = {column: fact(row[column]) for column in FACTS if column in row and column != key}
    except ValueError as error:
        raise refusal(str(error), "text of one line", "correct the cell") from error
    if row[key]:
        return facts
    if values := [*filter(None, facts.values())]:
        raise refusal(f"no {key}, but {', '.join(values)}", f"a {key} in each row", "complete or remove the row")
    return {}


def _unmatched(rows: Iterable[str], keys: Mapping[str, str], key: str, path: Path) -> list[Problem]:
    known = set(keys.values())
    without = sorted(known - {*rows})  # a misspelt row leaves one of these
    problems = []
    for row in [row for row in rows if row not in known]:
        near = get_close_matches(row, without, n=1)
        fix = f"did you mean {near[0]}?" if near else "nothing, if it belongs to another cohort"
        found, expected = f"a row that matches no {key}", f"{key}s of this cohort"
        problems.append(Problem(row, str(path), found, expected, fix, "warning"))
    fix = "add a row; without one the patient comes from the list or folder"
    without = [(name, value) for name, value in keys.items() if value not in rows]
    return problems + [
        Problem(name, str(path), f"no row of {value}", "a row for each case", fix, "warning") for name, value in without
    ]
