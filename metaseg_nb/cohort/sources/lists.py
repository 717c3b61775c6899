"""The cohort and the folds of one or several datalists: each case once, from all of its entries."""

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from metaseg_nb.cohort.cases import Case, Cohort
from metaseg_nb.cohort.problems import Problem
from metaseg_nb.cohort.sources.case_files import well_named
from metaseg_nb.cohort.sources.entries import NUMBERS, TEXTS, Datalist, Entry, read_entries
from metaseg_nb.cohort.sources.naming import name_of, primary_of
from metaseg_nb.cohort.sources.spelling import located, spelled_path, tidy

ONE_LIST = "each case once, in the validation list of one fold"
REPAIR = "correct the lists, or give one list of all cases and let the folds be made here"


def read_lists(
    paths: Sequence[Path], image_root: Path | None = None, exclude: Sequence[str] = ()
) -> tuple[Cohort, list[Problem]]:
    """Read datalists as one cohort; nothing but the JSON files is opened.

    Files are found by `located`. Cases are the same when their first image is. An entry's ``case`` is
    its name, otherwise its path names it (`name_of`); a primary that is not listed is read from the path, a patient
    stays empty (`with_patients`).

    With two or more lists that name validation cases these are the folds, see
    `folds_of_lists`; cases in ``exclude`` are not held against them.

    Returns
    -------
    cohort : Cohort
        In the order of the lists.
    problems : list of Problem
        Lists and entries that cannot be read, repeated or contradictory entries, training entries without label.
    """
    lists = [read_entries(path) for path in paths]
    groups: dict[str, list[Entry]] = {}
    for entry in (entry for datalist in lists for entry in datalist.entries):
        image = located(entry.images[0], entry.datalist.parent, image_root)
        groups.setdefault(os.path.realpath(image), []).append(entry)
    every = [(_case(group, image_root), group) for group in groups.values()]
    cases, found = well_named([case for case, _ in every], 'give the entry another name: "case"')
    unread = [problem for datalist in lists for problem in datalist.problems]
    problems = [*unread, *(problem for case, group in every for problem in _entry_problems(case.name, group)), *found]
    labelled = [case for case in cases if case.label is not None]
    validating = [datalist for datalist in lists if datalist.validates]
    if len(validating) > 1:
        first_of = {case.name: group for case, group in reversed(every)}
        of_cases = {case.name: first_of[case.name] for case in labelled if case.name not in exclude}
        folds, wrong = folds_of_lists(validating, of_cases)
        problems += wrong
        # a list that could not be read whole may hold other cases
        whole = not unread and all(problem.case in exclude for problem in found)
        labelled = [replace(case, fold=folds.get(case.name) if whole else None) for case in labelled]
    first = lists[0]
    unlabelled = [case for case in cases if case.label is None]
    return Cohort(first.name, first.description, labelled, unlabelled, first.rule, first.seed), problems


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
        Every case that no list validates on, or more than one; lists whose names have no number or the same one.
    """
    held = {name: [entry.datalist for entry in of if entry.part == "validation"] for name, of in cases.items()}
    numbers = {datalist.path: _number(datalist.path) for datalist in lists}
    problems = _number_problems(numbers) + [_breach(name, of) for name, of in held.items() if len(set(of)) != 1]
    if problems or any(len(of) > 1 for of in held.values()):
        return {}, problems
    order = {path: i for i, path in enumerate(sorted(numbers, key=numbers.get))}
    return {name: order[path] for name, (path,) in held.items()}, []


def _number(path: Path) -> int | None:
    numbers = re.findall(r"\d+", path.stem)
    return int(numbers[-1]) if numbers else None


def _number_problems(numbers: Mapping[Path, int | None]) -> list[Problem]:
    times = Counter(numbers.values())
    expected, fix = "a number of its own in each list's name", "name them split_0.json, split_1.json and so on"
    wrong = {path: number for path, number in numbers.items() if number is None or times[number] > 1}
    if wrong or max(times) - min(times) + 1 == len(times):
        return [Problem("-", str(path), f"the number {number}", expected, fix) for path, number in wrong.items()]
    found, folder = f"numbers {', '.join(map(str, sorted(times)))}", str(next(iter(numbers)).parent)
    return [Problem("-", folder, found, "lists numbered without a gap", "find the missing list")]


def _breach(name: str, of: list[Path]) -> Problem:
    if not of:
        return Problem(name, "-", "in no validation list", ONE_LIST, REPAIR)
    found = f"in the validation lists of {' and '.join(path.name for path in dict.fromkeys(of))}"
    return Problem(name, str(of[0]), found, ONE_LIST, REPAIR)


def _case(group: list[Entry], image_root: Path | None) -> Case:
    def first(fact: str, otherwise: Any = None) -> Any:
        return next((entry.given[fact] for entry in group if fact in entry.given), otherwise)

    def at(listed: str, entry: Entry) -> Path:
        return located(listed, entry.datalist.parent, image_root)

    listed = Path(spelled_path(group[0].images[0]))
    labelled = next((entry for entry in group if entry.label and entry.part != "testing"), None)
    return Case(
        name=first("case") or tidy(name_of(listed)),
        images=tuple(at(image, group[0]) for image in group[0].images),
        label=at(labelled.label, labelled) if labelled else None,
        patient=first("patient", ""),
        primary=first("primary") or tidy(primary_of(listed)),
        fold=first("fold"),
        n_lesions=first("n_lesions"),
        scanner=first("scanner", "unknown"),
        date=first("date", "unknown"),
    )


def _entry_problems(name: str, group: list[Entry]) -> list[Problem]:
    """What is wrong with the entries of one case: repeated, contradictory, without label, or with one not read."""
    problems = []
    for datalist, times in Counter(entry.datalist for entry in group).items():
        if times > 1:
            parts = dict.fromkeys(entry.part for entry in group if entry.datalist == datalist)
            found, expected = f"listed {times} times, in {' and '.join(parts)}", "each case once in a list"
            problems.append(Problem(name, str(datalist), found, expected, "remove the repeated entries"))
    given = {fact: {str(entry.given[fact]) for entry in group if fact in entry.given} for fact in (*TEXTS, *NUMBERS)}
    given["label"] = {os.path.normpath(entry.label) for entry in group if entry.label}
    given["image"] = {", ".join(map(os.path.normpath, entry.images)) for entry in group}
    expected = "the same in all entries of a case"
    problems += [
        Problem(name, str(group[-1].datalist), f"{fact} {' and '.join(sorted(values))}", expected, f'correct "{fact}"')
        for fact, values in given.items()
        if len(values) > 1
    ]
    path, labels = str(group[0].datalist), any(entry.label for entry in group)
    wanted = [entry for entry in group if entry.part != "testing"]
    if wanted and not any(entry.label for entry in wanted):
        found, expected = f"no label in {wanted[0].part}", "a label in training and validation"
        fix = 'add "label", or move the case to the list "testing"'
        problems.append(Problem(name, path, found, expected, fix))
    if not wanted and labels:
        fix = 'move the case to "training" if its label is to be used'
        problems.append(Problem(name, path, "a label, which is not read", "no label in testing", fix, "note"))
    return problems
