"""Checks of datalists: cases and patients in two parts or in none, primaries and names that a split depends on."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import combinations
from pathlib import Path

from metaseg_nb.cohort.leakage.comparison import ALL_LISTS, Comparison, Finding, cases_of, counted, names_of, with_cases
from metaseg_nb.cohort.leakage.split_lists import SplitEntry, SplitList
from metaseg_nb.cohort.problems import shortened

# Letters and digits from which a name that begins like another resembles it.
SHORTEST_BEGINNING = 4
SAME_AS = {
    "moved": "without an image at its path, listed alike in another folder",
    "copy": "with the same files as another entry, under another name",
}


def trained_on(lists: list[SplitList], pairs: list[Comparison]) -> Iterator[Finding]:
    """Cases that are scored by a model that was trained on them."""
    for pair in pairs:
        if entries := pair.trained_on:
            found = (
                f"{len(entries)} of {counted(pair.evaluation, 'entry')} ({len(cases_of(entries))} of "
                f"{counted(cases_of(pair.evaluation), 'case')}) of {pair.part} of {pair.evaluated.name} "
                f"in the training of {pair.model}: {names_of(entries)}"
            )
            yield Finding("leakage", "trained on", *pair.names, found, entries)


def patient_trained_on(lists: list[SplitList], pairs: list[Comparison]) -> Iterator[Finding]:
    """Patients who are scored on one image by a model that was trained on another."""
    for pair in pairs:
        patients, same = {entry.patient for entry in pair.training} - {None}, cases_of(pair.trained_on)
        entries = [entry for entry in pair.evaluation if entry.case not in same and entry.patient in patients]
        if entries:
            named = shortened(entry.patient for entry in entries)
            found = f"{len(entries)} of {pair.scored} are other images of patients in the training of {pair.model}"
            yield Finding("leakage", "patient trained on", *pair.names, f"{found}: patient {named}", entries)


def trained_on_elsewhere(lists: list[SplitList], pairs: list[Comparison]) -> Iterator[Finding]:
    """Cases that lists with training of their own score, and that a list that only trains holds: perhaps the cohort."""
    evaluated = [entry for each in lists if each.training for entry in each.evaluation]
    for trained in (datalist for datalist in lists if datalist.training and not datalist.evaluation):
        if shared := with_cases(evaluated, cases_of(trained.training)):
            found = (
                f"{trained.name} also trains on {counted(cases_of(shared), 'evaluated case')}; it was taken as the "
                "list of the whole cohort: if a network was trained on it, this is leakage"
            )
            yield Finding("doubt", "trained on elsewhere", ALL_LISTS, trained.name, found, shared)


def nothing_to_compare(lists: list[SplitList], pairs: list[Comparison]) -> Iterator[Finding]:
    """Lists that only train or only evaluate, without the other side."""
    if not pairs:
        side = "evaluates anything" if any(datalist.training for datalist in lists) else "trains on anything"
        severity = "note" if len(lists) == 1 else "problem"
        yield Finding(severity, "nothing to compare", ALL_LISTS, "", f"no list {side}", [])


def evaluated_twice(lists: list[SplitList], pairs: list[Comparison]) -> Iterator[Finding]:
    """Cases that two parts score, within a list or between lists."""
    parts = [(datalist, part) for datalist in lists for part in datalist.evaluated_parts]
    for (one, part), (other, other_part) in combinations(parts, 2):
        if one is other and {part, other_part} <= set(one.folds):
            continue  # a case in two folds is trained on, which is worse
        first, second = cases_of(one.of(part)), cases_of(other.of(other_part))
        if entries := with_cases([*one.of(part), *other.of(other_part)], first & second):
            # one test set in every split's file, or a fold that has a file of its own as well
            same_set = first == second and not part == other_part == "validation"
            found = (
                f"{counted(first & second, 'case')} in {part} of {one.name} and in {other_part} of {other.name}"
                f"{', the same set' if same_set else ''}: {names_of(entries)}"
            )
            severity = "note" if same_set else "problem"
            yield Finding(severity, "evaluated twice", one.name, other.name, found, entries)


def repeated(lists: list[SplitList], pairs: list[Comparison]) -> Iterator[Finding]:
    """Cases that a part lists more than once."""
    for datalist in lists:
        for part in dict.fromkeys(entry.part for entry in datalist.entries):
            times = Counter(entry.case for entry in datalist.of(part))
            if entries := [entry for entry in datalist.of(part) if times[entry.case] > 1]:
                names = shortened(f"{entry.name} {times[entry.case]} times" for entry in entries)
                found = (
                    f"{counted(datalist.of(part), 'entry')} of {part} of {datalist.name} are {counted(times, 'case')}"
                )
                yield Finding("problem", "repeated", datalist.name, "", f"{found}: {names}", entries)


def never_evaluated(lists: list[SplitList], pairs: list[Comparison]) -> Iterator[Finding]:
    """Cases that are listed but not scored: by the lists that only evaluate, or without such lists by any list."""
    judges = [datalist for datalist in lists if not datalist.training] or [each for each in lists if each.evaluation]
    everything = [entry for datalist in lists for entry in datalist.entries]
    evaluated = cases_of(entry for datalist in judges for entry in datalist.evaluation)
    entries = [entry for entry in everything if entry.case not in evaluated]
    if judges and entries:
        found = (
            f"{len(cases_of(entries))} of {counted(cases_of(everything), 'case')} not evaluated by "
            f"{', '.join(datalist.name for datalist in judges)}: {names_of(entries)}"
        )
        # a single split leaves its training cases out, as it must
        severity = "problem" if sum(len(datalist.folds) or 1 for datalist in judges) > 1 else "note"
        yield Finding(severity, "never evaluated", ALL_LISTS, "", found, entries)


def primary_not_trained_on(lists: list[SplitList], pairs: list[Comparison]) -> Iterator[Finding]:
    """Primaries that are scored by a model that was trained on none of them."""
    for pair in pairs:
        for primary, entries in _without(pair.evaluation, pair.training):
            n, part = counted(cases_of(entries), "case"), f"{pair.part} of {pair.evaluated.name}"
            found = f"{n} of {primary} in {part}, none in the training of {pair.model}"
            yield Finding("problem", "primary not trained on", *pair.names, found, entries)


def primary_not_evaluated(lists: list[SplitList], pairs: list[Comparison]) -> Iterator[Finding]:
    """Primaries that a list trains on and does not evaluate, nor, where it evaluates nothing, the other lists."""
    elsewhere = {entry.primary for each in lists if each.training for entry in each.evaluation}
    others = [entry for each in lists if not each.training for entry in each.evaluation]
    for trained in (datalist for datalist in lists if datalist.training):
        evaluation = trained.evaluation or others
        for primary, entries in _without(trained.training, evaluation) if evaluation else ():
            n = counted(cases_of(entries), "case")
            found = f"{n} of {primary} in the training of {trained.name}, none in what is evaluated with it"
            # one fold without a rare primary is no harm when another fold has it
            severity = "note" if primary in elsewhere else "problem"
            yield Finding(severity, "primary not evaluated", trained.name, "", found, entries)


def possibly_same_patients(lists: list[SplitList], pairs: list[Comparison]) -> Iterator[Finding]:
    """Cases of one name under folders whose names resemble each other, where the lists do not name both patients."""
    named: dict[str, dict[Path, SplitEntry]] = defaultdict(dict)
    for entry in {entry.case: entry for datalist in lists for entry in datalist.entries}.values():
        named[Path(entry.name).name][entry.above] = entry
    twins: dict[tuple[Path, Path], dict[str, tuple[SplitEntry, SplitEntry]]] = defaultdict(dict)
    for name, of in sorted(named.items()):
        for one, other in combinations(sorted(of), 2):
            unnamed = of[one].patient is None or of[other].patient is None
            if unnamed and one.name != other.name and _resemble(one.name, other.name):
                twins[one, other][name] = (of[one], of[other])
    sides = [(pair, cases_of(pair.training), cases_of(pair.evaluation)) for pair in pairs]
    for (one, other), two in twins.items():
        cases = [ab for a, b in two.values() for ab in ((a.case, b.case), (b.case, a.case))]
        across = [pair for pair, trained, scored in sides if any(a in trained and b in scored for a, b in cases)]
        where = shortened(" against ".join(dict.fromkeys(pair.names)) for pair in across)
        found = f"{counted(two, 'case name')} in {one.name} as in {other.name}: {shortened(two)}; " + (
            f"one trained on, the other evaluated, in {where}" if across else "on one side"
        )
        severity, entries = "doubt" if across else "note", [entry for both in two.values() for entry in both]
        yield Finding(severity, "possibly the same patients", ALL_LISTS, "", found, entries)


def taken_for_the_same(lists: list[SplitList], pairs: list[Comparison]) -> Iterator[Finding]:
    """Entries that count as cases of another folder or name, see `split_lists`."""
    for datalist in lists:
        for same_as, what in SAME_AS.items():
            if entries := [entry for entry in datalist.entries if entry.same_as == same_as]:
                found = f"{len(entries)} of {counted(datalist.entries, 'entry')} of {datalist.name} {what}"
                yield Finding("note", "taken for the same", datalist.name, "", f"{found}: {names_of(entries)}", entries)


def _without(entries: Iterable[SplitEntry], others: Iterable[SplitEntry]) -> list[tuple[str, list[SplitEntry]]]:
    """The primaries of entries that none of the others has, each with its entries."""
    missing = {entry.primary for entry in entries} - {entry.primary for entry in others} - {None}
    return [(primary, [entry for entry in entries if entry.primary == primary]) for primary in sorted(missing)]


def _resemble(one: str, other: str) -> bool:
    """Tell whether a name has all words of another, or begins with it and does not go on with a number."""
    for (words, start), (more, whole) in ((_words(one), _words(other)), (_words(other), _words(one))):
        begins = len(start) >= SHORTEST_BEGINNING and whole.startswith(start) and not whole[len(start) :][:1].isdigit()
        if begins or (words and words <= more):
            return True
    return False


@cache
def _words(name: str) -> tuple[frozenset[str], str]:
    words = re.findall(r"[^\W_]+", name.lower().removesuffix("_nii"))
    return frozenset(words), "".join(words)
