"""What a split may be confounded with: the primary cancer, and patients that go by two names."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import combinations
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
    pairs = comparisons(lists)
    for (one, other), twins in _twins(lists).items():
        across = [pair for pair in pairs if any(_parted(twin, pair) for twin in twins.values())]
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
    twins: dict[tuple[Path, Path], dict[str, tuple[Entry, Entry]]] = defaultdict(dict)
    for name in sorted(named):
        for folders in combinations(sorted(named[name]), 2):
            two = tuple(named[name][folder] for folder in folders)
            one, other = (folder.name for folder in folders)
            if one != other and _resemble(one, other) and any(entry.patient is None for entry in two):
                twins[folders][name] = two
    return twins


def _resemble(one: str, other: str) -> bool:
    """Tell whether one name has all words of the other, or begins with it and no number goes on."""
    words = [re.findall(r"[^\W_]+", name.lower().removesuffix("_nii")) for name in (one, other)]
    short, long = sorted(words, key=lambda of: len("".join(of)))
    begin, whole = "".join(short), "".join(long)
    begins = len(begin) >= 4 and whole.startswith(begin) and not whole[len(begin) :][:1].isdigit()
    return begins or (len(short) > 0 and set(short) <= set(long))


def _parted(twin: tuple[Entry, Entry], pair: Comparison) -> bool:
    trained, evaluated = cases_of(pair.training), cases_of(pair.evaluation)
    one, other = (entry.case for entry in twin)
    return (one in trained and other in evaluated) or (other in trained and one in evaluated)


def _where(pair: Comparison) -> str:
    one, other = pair.evaluated.name, pair.trained.name
    return one if one == other else f"{one} against {other}"


def _primaries(entries: Iterable[Entry]) -> set[str]:
    return {entry.primary for entry in entries if entry.primary is not None}


def _of_primary(entries: Iterable[Entry], primary: str) -> list[Entry]:
    return [entry for entry in entries if entry.primary == primary]
