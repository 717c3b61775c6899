"""What a split may be confounded with: the primary cancer, and patients that go by two names."""

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from metaseg_nb.cohort.leakage.comparison import (
    ALL_LISTS,
    Comparison,
    Finding,
    cases_of,
    comparisons,
    counted,
)
from metaseg_nb.cohort.leakage.split_lists import Entry, SplitList
from metaseg_nb.cohort.problems import shortened

# Letters and digits from which a name that begins like another resembles it.
SHORTEST_BEGINNING = 4


def primary_not_trained_on(lists: list[SplitList]) -> Iterator[Finding]:
    """Primaries that are scored by a model that was trained on none of them."""
    for pair in comparisons(lists):
        for primary in sorted(_primaries(pair.evaluation) - _primaries(pair.training)):
            entries = _of_primary(pair.evaluation, primary)
            found = (
                f"{counted(cases_of(entries), 'case')} of {primary} in {pair.part} of {pair.evaluated.name}, "
                f"none in the training of {pair.model}"
            )
            yield Finding("problem", "primary not trained on", pair.evaluated.name, pair.trained.name, found, entries)


def primary_not_evaluated(lists: list[SplitList]) -> Iterator[Finding]:
    """Primaries that a list trains on and does not evaluate, nor, where it evaluates nothing, the other lists."""
    evaluated_elsewhere = _primaries(entry for each in lists if each.training for entry in each.evaluation)
    for trained in (datalist for datalist in lists if datalist.training):
        evaluation = trained.evaluation or [entry for each in lists if not each.training for entry in each.evaluation]
        missing = _primaries(trained.training) - _primaries(evaluation) if evaluation else set()
        for primary in sorted(missing):
            entries = _of_primary(trained.training, primary)
            found = (
                f"{counted(cases_of(entries), 'case')} of {primary} in the training of {trained.name}, "
                "none in what is evaluated with it"
            )
            # one fold without a rare primary is no harm when another fold has it
            severity = "note" if primary in evaluated_elsewhere else "problem"
            yield Finding(severity, "primary not evaluated", trained.name, "", found, entries)


def possibly_same_patients(lists: list[SplitList]) -> Iterator[Finding]:
    """Cases of one name under folders whose names resemble each other, where the lists do not name both patients."""
    sides = [(pair, cases_of(pair.training), cases_of(pair.evaluation)) for pair in comparisons(lists)]
    for (one, other), twins in _twins(lists).items():
        cases = [(a.case, b.case) for two in twins.values() for a, b in (two, two[::-1])]
        across = [pair for pair, trained, evaluated in sides if any(a in trained and b in evaluated for a, b in cases)]
        found = f"{counted(twins, 'case name')} in {one.name} as in {other.name}: {shortened(twins)}; " + (
            f"one trained on, the other evaluated, in {shortened(map(_where, across))}" if across else "on one side"
        )
        entries = [entry for twin in twins.values() for entry in twin]
        severity = "doubt" if across else "note"
        yield Finding(severity, "possibly the same patients", ALL_LISTS, "", found, entries)


def _twins(lists: list[SplitList]) -> dict[tuple[Path, Path], dict[str, tuple[Entry, Entry]]]:
    """Pairs of folders that resemble each other, the case names that are in both, and the two cases of each name."""
    entries = {entry.case: entry for datalist in lists for entry in datalist.entries}.values()
    named: dict[str, dict[Path, Entry]] = defaultdict(dict)
    for entry in entries:
        named[Path(entry.name).name][entry.place.parent] = entry
    resembling = _resembling({entry.place.parent.name for entry in entries})
    twins: dict[tuple[Path, Path], dict[str, tuple[Entry, Entry]]] = defaultdict(dict)
    for name, of in sorted(named.items()):
        called = defaultdict(list)
        for folder in of:
            called[folder.name].append(folder)
        pairs = {
            tuple(sorted((one, other)))
            for one in of
            for alike in resembling[one.name] & called.keys()
            for other in called[alike]
        }
        for folders in sorted(pairs):
            two = tuple(of[folder] for folder in folders)
            if any(entry.patient is None for entry in two):
                twins[folders][name] = two
    return twins


def _resembling(names: Collection[str]) -> dict[str, set[str]]:
    """For each name the others that have all of its words, or begin with it and do not go on with a number."""
    words = {name: re.findall(r"[^\W_]+", name.lower().removesuffix("_nii")) for name in names}
    having, beginning = defaultdict(set), defaultdict(set)
    for name, of in words.items():
        whole = "".join(of)
        for word in of:
            having[word].add(name)
        for n in range(SHORTEST_BEGINNING, len(whole) + 1):
            if not whole[n : n + 1].isdigit():
                beginning[whole[:n]].add(name)
    alike = {name: set.intersection(*map(having.get, of)) if of else set() for name, of in words.items()}
    return {name: (alike[name] | beginning["".join(of)]) - {name} for name, of in words.items()}


def _where(pair: Comparison) -> str:
    one, other = pair.evaluated.name, pair.trained.name
    return one if one == other else f"{one} against {other}"


def _primaries(entries: Iterable[Entry]) -> set[str]:
    return {entry.primary for entry in entries if entry.primary is not None}


def _of_primary(entries: Iterable[Entry], primary: str) -> list[Entry]:
    return [entry for entry in entries if entry.primary == primary]
