"""What is wrong with an input, said once and alike: case, file, found, expected, what to do."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd


@dataclass(frozen=True)
class Problem:
    """One thing wrong with one case.

    ``severity`` is "error" (the case cannot be used as it is) or "warning"
    (it can, but somebody should look).
    """

    case: str
    file: str
    found: str
    expected: str
    fix: str
    severity: str = "error"

    def __str__(self) -> str:
        return (
            f"case {self.case}, file {self.file}: found {self.found}; expected {self.expected}. What to do: {self.fix}."
        )


class CohortError(ValueError):
    """Raised once, with every problem that was found (attribute ``problems``)."""

    def __init__(self, problems: Iterable[Problem]):
        self.problems = list(problems)
        lines = "\n".join(f"- {problem}" for problem in self.problems)
        super().__init__(f"{len(self.problems)} problem(s) in the input:\n{lines}")

    def __reduce__(self) -> tuple:
        # worker processes send their errors back pickled
        return CohortError, (self.problems,)

    @classmethod
    def one(cls, case: str, file: str | Path, found: str, expected: str, fix: str) -> "CohortError":
        """Build the error for a single problem."""
        return cls([Problem(case, str(file), found, expected, fix)])


def problem_table(problems: Iterable[Problem]) -> pd.DataFrame:
    """Tabulate problems, errors first; columns as the fields of `Problem`."""
    columns = ["severity", "case", "file", "found", "expected", "fix"]
    table = pd.DataFrame([asdict(problem) for problem in problems], columns=columns)
    return table.sort_values(["severity", "case"], ignore_index=True)
