"""Problems of the input, all in one form: case, file, found, expected, what to do."""

import csv
from collections import defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from string import Template
from typing import TypeVar

import pandas as pd

from metaseg_nb.cohort.cases import Case

Key = TypeVar("Key", bound=Hashable)
Item = TypeVar("Item")
Result = TypeVar("Result")
SEVERITIES = ("error", "doubt", "warning", "note")
# A study stops for these.
STOPPING = ("error", "doubt")
# Named in a summary, and in the message of an error.
SHOWN_NAMES, SHOWN_PROBLEMS = 3, 50
# What lists, folders, files and cases are checked by: how severe it is to break a rule, what is expected, and what to
# do. ${word} stands for what depends on the case at hand.
with Path(__file__).with_name("rules.csv").open(encoding="utf-8", newline="") as table:
    RULES = {row["rule"]: row for row in csv.DictReader(table)}


@dataclass(frozen=True)
class Problem:
    """One thing wrong with one case.

    ``severity`` is "error" (the case cannot be used as it is), "doubt" (it cannot be used
    until a person has looked at it and named the case in ``confirmed``), "warning" (it can
    be used, but somebody should look) or "note" (good to know). ``expected`` has the same
    words for all problems of a kind.
    """

    case: str
    file: str
    found: str
    expected: str
    fix: str
    severity: str = "error"
    patient: str = ""  # said where a case is named by a code, and not by its patient

    def __str__(self) -> str:
        case = f"{self.case} of {self.patient}" if self.patient not in ("", self.case) else self.case
        return f"case {case}, file {self.file}: found {self.found}; expected {self.expected}. What to do: {self.fix}."


class CohortError(ValueError):
    """Raised once, with every problem that was found (attribute ``problems``)."""

    def __init__(self, problems: Iterable[Problem]):
        self.problems = list(problems)
        lines = [f"- {problem}" for problem in self.problems[:SHOWN_PROBLEMS]]
        if len(self.problems) > SHOWN_PROBLEMS:
            lines.append(f"- and {len(self.problems) - SHOWN_PROBLEMS} more")
        super().__init__("\n".join([f"{len(self.problems)} problem(s) in the input:", *lines]))

    def __reduce__(self) -> tuple:
        # worker processes send their errors back pickled
        return CohortError, (self.problems,)

    @classmethod
    def one(cls, case: str, file: str | Path, found: str, expected: str, fix: str) -> "CohortError":
        """Build the error for a single problem."""
        return cls([Problem(case, str(file), found, expected, fix)])


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


def problem_table(problems: Iterable[Problem]) -> pd.DataFrame:
    """Tabulate problems, errors first; columns as the fields of `Problem`."""
    columns = ["severity", "case", "file", "found", "expected", "fix"]
    table = pd.DataFrame([asdict(problem) for problem in problems], columns=columns)
    return table.sort_values(["severity", "case"], ignore_index=True, key=_ranked)


def problem_summary(problems: Iterable[Problem]) -> pd.DataFrame:
    """Sum problems up by kind, errors first, most cases first.

    Returns
    -------
    DataFrame
        ``severity``, ``expected``, ``cases`` (how many), ``which`` (the first few), ``found``
        (of the first), ``fix``.
    """
    table = problem_table(problems)
    kinds = table.groupby(["severity", "expected"], sort=False).agg(
        cases=("case", "nunique"), which=("case", shortened), found=("found", "first"), fix=("fix", "first")
    )
    kinds = kinds.reset_index().astype({"cases": int})
    return kinds.sort_values(["severity", "cases"], ascending=[True, False], key=_ranked, ignore_index=True)


def settled(problems: Iterable[Problem], confirmed: Collection[str]) -> list[Problem]:
    """Turn each doubt about a case that is named in ``confirmed`` into a note."""
    return [
        replace(problem, severity="note") if problem.severity == "doubt" and problem.case in confirmed else problem
        for problem in problems
    ]


def require_no_errors(problems: Iterable[Problem]) -> None:
    """Raise `CohortError` with all errors and doubts, if there are any.

    Files are named without their folders: the page that shows this may be shared.
    """
    errors = [problem for problem in problems if problem.severity in STOPPING]
    if errors:
        raise CohortError(replace(problem, file=Path(problem.file).name) for problem in errors)


def grouped(pairs: Iterable[tuple[Key, Item]]) -> defaultdict[Key, list[Item]]:
    """The items of each key, in their order; none of a key that does not occur."""
    groups = defaultdict(list)
    for key, item in pairs:
        groups[key].append(item)
    return groups


def of_each(function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """Results of a function for each item; where it raises `CohortError`, one holds the problems of all items."""
    results, problems = [], []
    for item in items:
        try:
            results.append(function(item))
        except CohortError as error:
            problems += error.problems
    if problems:
        raise CohortError(problems)
    return results


def unused(file: str | Path, parameters: Mapping[str, object], expected: str) -> list[Problem]:
    """Errors of the parameters that are set and mean nothing for a source."""
    values = {name: value for name, value in parameters.items() if value}
    found = {name: f"`{name}` set to {value!r}" for name, value in values.items()}
    return [Problem("-", str(file), found[name], expected, f"leave `{name}` empty") for name in values]


def numbered(numbers: Iterable[int]) -> str:
    """Sequences by their numbers: "sequence 2", "sequences 2, 3 and 4"."""
    *before, last = map(str, numbers)
    return f"sequences {', '.join(before)} and {last}" if before else f"sequence {last}"


def shortened(names: Iterable[str], shown: int = SHOWN_NAMES) -> str:
    """Different names, the first few."""
    names = list(dict.fromkeys(names))
    return ", ".join(names[:shown]) + (f" and {len(names) - shown} more" if len(names) > shown else "")


def _ranked(column: pd.Series) -> pd.Series:
    return column.map(SEVERITIES.index) if column.name == "severity" else column
