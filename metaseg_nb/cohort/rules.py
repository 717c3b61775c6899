"""The rules that lists, folders, files and cases are checked by.

All stand in ``rules.csv``: how severe it is to break one, what is expected, and what to do: the words of `Problem`.
``${word}`` stands for what depends on the case at hand.
"""

import csv
from pathlib import Path
from string import Template

from metaseg_nb.cohort.cases import Case
from metaseg_nb.cohort.problems import CohortError, Problem

with Path(__file__).with_name("rules.csv").open(encoding="utf-8", newline="") as table:
    RULES = {row["rule"]: row for row in csv.DictReader(table)}


def broken(rule: str, case: Case | str, file: str | Path | None, found: str, fix: str = "", **words: object) -> Problem:
    """Make the problem of a case that breaks a rule, or of an entry, a line or (``-``) a whole file.

    ``fix`` takes the place of what is usually to be done; ``words`` are those that the rule leaves open.
    """
    row, name = RULES[rule], case.name if isinstance(case, Case) else case
    expected, usual = (Template(row[column]).substitute(words) for column in ("expected", "fix"))
    return Problem(name, str(file), found, expected, fix or usual, row["severity"])


def refusal(rule: str, case: Case | str, file: str | Path, found: str, fix: str = "", **words: object) -> CohortError:
    """Make the error of one rule that is broken; see `broken`."""
    return CohortError([broken(rule, case, file, found, fix, **words)])
