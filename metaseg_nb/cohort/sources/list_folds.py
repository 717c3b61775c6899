"""Folds that several lists make: the validation cases of each are a fold, if they are a partition."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from metaseg_nb.cohort.problems import Problem
from metaseg_nb.cohort.sources.entries import Datalist, Entry

ONE_LIST = "each case once, in the validation list of one fold"
REPAIR = "correct the lists, or give one list of all cases and let the folds be made here"


def folds_of_lists(lists: Sequence[Datalist], cases: Mapping[str, list[Entry]]) -> tuple[dict[str, int], list[Problem]]:
    """Give each case the fold of the one list that validates on it.

    Parameters
    ----------
    lists : sequence of Datalist
        All that name validation cases. The last number in a file's name orders them:
        lists 0 to 4 are folds 0 to 4, and so are lists 1 to 5.
    cases : mapping of name to entries
        The labelled cases, each with its entries in all lists.

    Returns
    -------
    folds : dict
        Fold by name; empty if a case is not in one validation list, once.
    problems : list of Problem
        Every case that no list validates on, or more than one (one that a list repeats is
        named where entries are read); lists whose names have no number or the same one.
    """
    held = {name: [entry.datalist for entry in of if entry.part == "validation"] for name, of in cases.items()}
    problems = _number_problems(lists) + [_breach(name, of) for name, of in held.items() if len(set(of)) != 1]
    if problems or any(len(of) > 1 for of in held.values()):
        return {}, problems
    order = {path: i for i, path in enumerate(sorted((datalist.path for datalist in lists), key=_number))}
    return {name: order[path] for name, (path,) in held.items()}, []


def _number(path: Path) -> int | None:
    numbers = re.findall(r"\d+", path.stem)
    return int(numbers[-1]) if numbers else None


def _number_problems(lists: Sequence[Datalist]) -> list[Problem]:
    numbers = [_number(datalist.path) for datalist in lists]
    fix = "name them split_0.json, split_1.json and so on"
    if None not in numbers and len(set(numbers)) == len(numbers):
        gap = max(numbers) - min(numbers) + 1 != len(numbers)
        found = f"numbers {', '.join(map(str, sorted(numbers)))}"
        folder = str(lists[0].path.parent)
        return [Problem("-", folder, found, "lists numbered without a gap", "find the missing list")] if gap else []
    return [
        Problem("-", str(datalist.path), f"the number {number}", "a number of its own in each list's name", fix)
        for datalist, number in zip(lists, numbers, strict=True)
        if number is None or numbers.count(number) > 1
    ]


def _breach(name: str, of: list[Path]) -> Problem:
    if not of:
        return Problem(name, "-", "in no validation list", ONE_LIST, REPAIR)
    found = f"in the validation lists of {' and '.join(path.name for path in dict.fromkeys(of))}"
    return Problem(name, str(of[0]), found, ONE_LIST, REPAIR)
