"""The cohort and the folds of one or several datalists: each case once, from all of its entries."""

import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from metaseg_nb.cohort.cases import Case, Cohort
from metaseg_nb.cohort.problems import Problem, broken
from metaseg_nb.cohort.sources.entries import Entry, read_entries
from metaseg_nb.cohort.sources.naming import name_of, primary_of
from metaseg_nb.cohort.sources.spelling import located, spelled_path, tidy, well_named


def read_lists(
    paths: Sequence[Path], image_root: Path | None = None, exclude: Sequence[str] = ()
) -> tuple[Cohort, list[Problem]]:
    """Read datalists as one cohort; nothing but the JSON files is opened.

    Files are found by `located`. Cases are the same when their first image is. An entry's ``case`` is
    its name, otherwise its path names it (`name_of`); a primary that is not listed is read from the path, a patient
    stays empty (`with_patients`). Where others have a fold, an entry with ``reader`` and without a fold was labelled by
    hand later: it is only for training.

    Two or more lists that name validation cases are the folds: each case is tested in the fold of the one list that
    validates on it, and folds are numbered in the order of the lists. Cases in ``exclude`` are not held against them.

    Returns
    -------
    cohort : Cohort
        In the order of the lists.
    problems : list of Problem
        Lists and entries that cannot be read, repeated or contradictory entries, training entries without label;
        cases that no list validates on, or more than one.
    """
    lists = [read_entries(path) for path in paths]
    groups: dict[str, list[Entry]] = defaultdict(list)
    for entry in (entry for datalist in lists for entry in datalist.entries):
        groups[os.path.realpath(located(entry.first, entry.datalist.parent, image_root))].append(entry)
    every = [(_case(group, image_root), group) for group in groups.values()]
    cases, unnamed = well_named([case for case, _ in every], 'give the entry another name: "case"')
    problems = [problem for datalist in lists for problem in datalist.problems]
    whole = not problems and all(problem.case in exclude for problem in unnamed)
    problems += [problem for case, group in every for problem in _entry_problems(case.name, group)] + unnamed
    # a list in which nothing can be read may be one of validation
    folds = [each.path for each in lists if not each.entries or any(e.part == "validation" for e in each.entries)]
    if len(folds) > 1:
        tested = [case for case in cases if case.label and case.name not in exclude]
        in_lists = {
            id(case): [entry.datalist for entry in group if entry.part == "validation"] for case, group in every
        }
        fold_of, found = _folds(folds, {case.name: in_lists[id(case)] for case in tested})
        problems += found
        fold_of = fold_of if whole else {}  # a list that could not be read whole may hold other cases
        cases = [replace(case, fold=fold_of.get(case.name)) if case.label else case for case in cases]
    first = lists[0]
    facts = {"rule": first.rule, "seed": first.seed, "folds_by": first.folds_by}
    return Cohort.of(first.name, first.description, cases, **facts), problems


def _folds(lists: Sequence[Path], validated: Mapping[str, list[Path]]) -> tuple[dict[str, int], list[Problem]]:
    """Fold of each case, from the lists that validate on it; none where anything is wrong."""
    problems = []
    for name, of in validated.items():
        if len(set(of)) != 1:
            held = f"in the validation lists of {' and '.join(path.name for path in dict.fromkeys(of))}"
            found = held if of else "in no validation list"
            problems.append(broken("one validation list", name, of[0] if of else "-", found))
    if problems or any(len(of) > 1 for of in validated.values()):
        return {}, problems
    return {name: lists.index(path) for name, (path,) in validated.items()}, []


def _case(group: Sequence[Entry], image_root: Path | None) -> Case:
    given = {key: value for entry in reversed(group) for key, value in entry.given.items()}  # the first entry counts
    listed = Path(spelled_path(group[0].first))
    name = given.pop("case", None) or tidy(name_of(listed))
    images = tuple(located(image, group[0].datalist.parent, image_root) for image in group[0].image if image)
    lacking = tuple(number for number, image in enumerate(group[0].image, 1) if image is None)
    labels = [(entry.label, entry.datalist.parent) for entry in group if entry.label and entry.part != "testing"]
    brains = [(entry.brain, entry.datalist.parent) for entry in group if entry.brain]
    label, brain = (located(*of[0], image_root) if of else None for of in (labels, brains))
    given = {"patient": "", "primary": tidy(primary_of(listed)), **given}
    return Case(name, images, label, brain=brain, lacking=lacking, **given)


def _entry_problems(name: str, group: Sequence[Entry]) -> Iterator[Problem]:
    """What is wrong with the entries of one case: repeated, contradictory, without label, or with one not read."""
    for datalist, times in Counter(entry.datalist for entry in group).items():
        if times > 1:
            parts = dict.fromkeys(entry.part for entry in group if entry.datalist == datalist)
            yield broken("once in a list", name, datalist, f"listed {times} times, in {' and '.join(parts)}")
    given: dict[str, set[str]] = defaultdict(set)
    for entry in group:
        paths = {"label": [entry.label], "brain": [entry.brain], "image": entry.image}
        listed = {
            key: ", ".join(os.path.normpath(path) if path else "null" for path in of)
            for key, of in paths.items()
            if any(of)
        }
        for key, value in (entry.given | listed).items():
            given[key].add(str(value))
    for key, values in given.items():
        if len(values) > 1:
            found = f"{key} {' and '.join(sorted(values))}"
            yield broken("same in entries", name, group[-1].datalist, found, key=key)
    wanted = [entry for entry in group if entry.part != "testing"]
    labelled = any(entry.label for entry in wanted or group)
    if wanted and not labelled:
        yield broken("label in training", name, group[0].datalist, f"no label in {wanted[0].part}")
    if labelled and not wanted:
        yield broken("no label in testing", name, group[0].datalist, "a label in testing, which is not read")
