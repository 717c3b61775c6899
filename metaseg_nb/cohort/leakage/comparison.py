"""Which entries must not share a case with which, and what was found."""

from collections.abc import Iterable, Sized
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from metaseg_nb.cohort.leakage.split_lists import SplitEntry, SplitList
from metaseg_nb.cohort.problems import shortened

ALL_LISTS = "all lists"
# "doubt": perhaps leakage.
SEVERITIES = ("leakage", "doubt", "problem", "note")


@dataclass(frozen=True)
class Finding:
    """One thing found: how severe (as in `SEVERITIES`), by which check, in which lists and entries."""

    severity: str
    check: str
    datalist: str
    with_list: str
    found: str
    entries: list[SplitEntry]


@dataclass(frozen=True, eq=False)
class Comparison:
    """Entries that are scored, and those that the model that scores them was trained on."""

    evaluated: SplitList
    part: str
    trained: SplitList
    evaluation: list[SplitEntry]
    training: list[SplitEntry]

    @cached_property
    def trained_on(self) -> list[SplitEntry]:
        """Evaluated entries whose case is trained on."""
        return with_cases(self.evaluation, cases_of(self.training))

    @property
    def names(self) -> tuple[str, str]:
        """The names of the two lists."""
        return self.evaluated.name, self.trained.name

    @property
    def scored(self) -> str:
        """What is scored, in words."""
        return f"{counted(self.evaluation, 'entry')} of {self.part} of {self.evaluated.name}"

    @property
    def model(self) -> str:
        """The list that is trained on, in words, with which of its folds is meant."""
        if not self.trained.folds:
            return self.trained.name
        if self.evaluated is self.trained and self.part in self.trained.folds:
            return f"another fold of {self.trained.name}"
        return f"{self.trained.name}, whichever of its folds is left out"


def comparisons(lists: list[SplitList]) -> list[Comparison]:
    """Pair what is scored with what its model was trained on.

    A list that trains and evaluates stands alone: each of its evaluated parts
    against its training, a fold against the other folds. A list that only evaluates
    must be scored by a model of another list, so it is compared with each list that
    trains; of a list with folds, with the model that saw the fewest of its cases.
    """
    pairs = []
    for evaluated in lists:
        for part in evaluated.evaluated_parts:
            scored = evaluated.of(part)
            for trained in [evaluated] if evaluated.training else [other for other in lists if other.training]:
                folds = [part] if trained is evaluated else trained.folds or [part]
                models = [Comparison(evaluated, part, trained, scored, trained.trained_for(fold)) for fold in folds]
                pairs.append(min(models, key=lambda model: len(model.trained_on)))
    return pairs


def cases_of(entries: Iterable[SplitEntry]) -> set[Path]:
    """Unique cases of entries."""
    return {entry.case for entry in entries}


def with_cases(entries: Iterable[SplitEntry], cases: set[Path]) -> list[SplitEntry]:
    """Entries of some cases."""
    return [entry for entry in entries if entry.case in cases]


def names_of(entries: Iterable[SplitEntry]) -> str:
    """Names of the entries' cases, the first few."""
    return shortened(entry.name for entry in entries)


def counted(things: Sized, noun: str) -> str:
    """A number with its noun, "1 case" or "2 cases"."""
    n = len(things)
    return f"{n} {noun if n == 1 else noun.removesuffix('y') + 'ies' if noun.endswith('y') else noun + 's'}"
