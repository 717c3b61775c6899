"""The cohort of one or several datalists: each case once, with what all of its entries say."""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from metaseg_nb.cohort.cases import Case, Cohort
from metaseg_nb.cohort.problems import Problem
from metaseg_nb.cohort.sources.case_names import well_named
from metaseg_nb.cohort.sources.entries import NUMBERS, TEXTS, Entry, read_entries
from metaseg_nb.cohort.sources.list_folds import folds_of_lists
from metaseg_nb.cohort.sources.naming import as_named, name_of, primary_of
from metaseg_nb.cohort.sources.strict import tidy


def read_lists(
    paths: Sequence[Path], image_root: Path | None = None, exclude: Sequence[str] = ()
) -> tuple[Cohort, list[Problem]]:
    """Read datalists as one cohort; nothing but the JSON files is opened.

    Paths are relative to their list, or to ``image_root`` if there is one. Absolute
    paths stay as they are; where nothing is there, their last parts are looked for below ``image_root``.
    Cases are the same when their first image is. An entry's ``case`` is its name, otherwise its path names it
    (`name_of`); a primary that is not listed is told by the path, a patient stays empty (`with_patients`).

    With two or more lists that name validation cases these are the folds, see
    `folds_of_lists`; cases that ``exclude`` names are not held against them.

    Returns
    -------
    cohort : Cohort
        In the order of the lists.
    problems : list of Problem
        Lists and entries that cannot be read, repeated or contradictory entries, training entries without label.
    """
    lists = [read_entries(path) for path in paths]
    problems = [problem for datalist in lists for problem in datalist.problems]
    groups: dict[str, list[Entry]] = {}
    for entry in (entry for datalist in lists for entry in datalist.entries):
        groups.setdefault(os.path.realpath(_located(entry.images[0], entry, image_root)), []).append(entry)
    every = [_case(group, image_root) for group in groups.values()]
    held: dict[str, list[Entry]] = {}
    for case, group in zip(every, groups.values(), strict=True):
        held.setdefault(case.name, group)
        problems += _entry_problems(case.name, group)
    cases, found = well_named(every, 'give the entry another name: "case"')
    problems += found
    labelled = [case for case in cases if case.label is not None]
    validating = [datalist for datalist in lists if datalist.validates]
    if len(validating) > 1:
        of_cases = {case.name: held[case.name] for case in labelled if case.name not in exclude}
        folds, wrong = folds_of_lists(validating, of_cases)
        problems += wrong
        unread = any(problem.case not in exclude for problem in found)
        # a list that could not be read whole may hold other cases
        folds = {} if unread or any(datalist.problems for datalist in lists) else folds
        labelled = [replace(case, fold=folds.get(case.name)) for case in labelled]
    first = lists[0]
    unlabelled = [case for case in cases if case.label is None]
    return Cohort(first.name, first.description, labelled, unlabelled, first.rule, first.seed), problems


def _located(listed: str, entry: Entry, image_root: Path | None) -> Path:
    path = Path(os.path.expanduser(listed))
    if not path.is_absolute():
        return as_named((image_root or entry.datalist.parent) / path)
    # os.path: what may not be looked at is not there
    if image_root is not None and not os.path.exists(path):
        tails = (image_root.joinpath(*path.parts[i:]) for i in range(1, len(path.parts)))
        path = next((tail for tail in tails if os.path.exists(tail)), path)
    return as_named(path)


def _name(group: list[Entry]) -> str:
    return _first(group, "case") or tidy(name_of(_listed(group)))


def _listed(group: list[Entry]) -> Path:
    return Path(os.path.normpath(group[0].images[0]))


def _first(group: Iterable[Entry], fact: str) -> Any:
    return next((entry.given[fact] for entry in group if fact in entry.given), None)


def _case(group: list[Entry], image_root: Path | None) -> Case:
    entry = group[0]
    label = next((entry for entry in group if entry.label and entry.part != "testing"), None)
    return Case(
        name=_name(group),
        images=tuple(_located(image, entry, image_root) for image in entry.images),
        label=None if label is None else _located(label.label, label, image_root),
        patient=_first(group, "patient") or "",
        primary=_first(group, "primary") or tidy(primary_of(_listed(group))),
        fold=_first(group, "fold"),
        n_lesions=_first(group, "n_lesions"),
        scanner=_first(group, "scanner") or "unknown",
        date=_first(group, "date") or "unknown",
    )


def _entry_problems(name: str, group: list[Entry]) -> list[Problem]:
    """What the entries of one case have wrong: repeated, contradictory, without label, or with one that is not used."""
    problems = []
    for datalist, times in Counter(entry.datalist for entry in group).items():
        if times > 1:
            parts = dict.fromkeys(entry.part for entry in group if entry.datalist == datalist)
            found = f"listed {times} times, in {' and '.join(parts)}"
            problems.append(
                Problem(name, str(datalist), found, "each case once in a list", "remove the repeated entries")
            )
    return problems + _contradictions(name, group) + _label_problems(name, group)


def _contradictions(name: str, group: list[Entry]) -> list[Problem]:
    said = {fact: {str(entry.given[fact]) for entry in group if fact in entry.given} for fact in (*TEXTS, *NUMBERS)}
    said["label"] = {os.path.normpath(entry.label) for entry in group if entry.label}
    said["image"] = {", ".join(map(os.path.normpath, entry.images)) for entry in group}
    return [
        Problem(
            name,
            str(group[-1].datalist),
            f"{fact} {' and '.join(sorted(values))}",
            "the same in all entries of a case",
            f'correct "{fact}"',
        )
        for fact, values in said.items()
        if len(values) > 1
    ]


def _label_problems(name: str, group: list[Entry]) -> list[Problem]:
    path = str(group[0].datalist)
    wanted = [entry for entry in group if entry.part != "testing"]
    if wanted and not any(entry.label for entry in wanted):
        fix = 'add "label", or move the case to the list "testing"'
        return [Problem(name, path, f"no label in {wanted[0].part}", "a label in training and validation", fix)]
    if not wanted and any(entry.label for entry in group):
        fix = 'move the case to "training" if its label is to be used'
        return [Problem(name, path, "a label, which is not read", "no label in testing", fix, "note")]
    return []
