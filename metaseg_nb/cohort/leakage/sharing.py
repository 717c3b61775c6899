"""Cases and patients that are in two parts of datalists, or in none."""

from collections import Counter
from collections.abc import Iterator
from itertools import combinations

from metaseg_nb.cohort.leakage.comparison import (
    ALL_LISTS,
    Finding,
    cases_of,
    comparisons,
    counted,
    names_of,
    with_cases,
)
from metaseg_nb.cohort.leakage.spelling import identity, located
from metaseg_nb.cohort.leakage.split_lists import SplitList
from metaseg_nb.cohort.problems import shortened


def trained_on(lists: list[SplitList]) -> Iterator[Finding]:
    """Cases that are scored by a model that was trained on them."""
    for pair in comparisons(lists):
        entries = pair.trained_on
        if entries:
            found = (
                f"{len(entries)} of {counted(pair.evaluation, 'entry')} ({len(cases_of(entries))} of "
                f"{counted(cases_of(pair.evaluation), 'case')}) of {pair.part} of {pair.evaluated.name} "
                f"in the training of {pair.model}: {names_of(entries)}"
            )
            yield Finding("leakage", "trained on", pair.evaluated.name, pair.trained.name, found, entries)


def patient_trained_on(lists: list[SplitList]) -> Iterator[Finding]:
    """Patients who are scored on one image by a model that was trained on another."""
    for pair in comparisons(lists):
        patients = {entry.patient for entry in pair.training} - {None}
        others = set(pair.evaluation) - set(pair.trained_on)
        entries = [entry for entry in pair.evaluation if entry in others and entry.patient in patients]
        if entries:
            found = (
                f"{len(entries)} of {counted(pair.evaluation, 'entry')} of {pair.part} of {pair.evaluated.name} "
                f"are other images of patients in the training of {pair.model}: "
                f"patient {shortened(entry.patient for entry in entries)}"
            )
            yield Finding("leakage", "patient trained on", pair.evaluated.name, pair.trained.name, found, entries)


def trained_on_elsewhere(lists: list[SplitList]) -> Iterator[Finding]:
    """Cases that lists with training of their own score, and that a list that only trains holds: perhaps the cohort."""
    judges = [datalist for datalist in lists if datalist.training and datalist.evaluation]
    evaluated = [entry for datalist in judges for entry in datalist.evaluation]
    for trained in (datalist for datalist in lists if datalist.training and not datalist.evaluation):
        shared = with_cases(evaluated, cases_of(trained.training))
        if shared:
            found = (
                f"{trained.name} also trains on {counted(cases_of(shared), 'evaluated case')}; it was taken as the "
                "list of the whole cohort: if a network was trained on it, this is leakage"
            )
            yield Finding("doubt", "trained on elsewhere", ALL_LISTS, trained.name, found, shared)


def nothing_to_compare(lists: list[SplitList]) -> Iterator[Finding]:
    """Lists that only train or only evaluate, and no other side."""
    if not comparisons(lists):
        side = "evaluates anything" if any(datalist.training for datalist in lists) else "trains on anything"
        severity = "note" if len(lists) == 1 else "problem"
        yield Finding(severity, "nothing to compare", ALL_LISTS, "", f"no list {side}", [])


def evaluated_twice(lists: list[SplitList]) -> Iterator[Finding]:
    """Cases that two parts score, within a list or between lists."""
    parts = [(datalist, part) for datalist in lists for part in datalist.evaluated_parts]
    for (one, part), (other, other_part) in combinations(parts, 2):
        if one is other and {part, other_part} <= set(one.folds):
            continue  # a case in two folds is trained on, which is worse
        first, second = cases_of(one.of(part)), cases_of(other.of(other_part))
        entries = with_cases([*one.of(part), *other.of(other_part)], first & second)
        if entries:
            # one test set in every split's file, or a fold that has a file of its own as well
            named_again = first == second and not part == other_part == "validation"
            found = (
                f"{counted(first & second, 'case')} in {part} of {one.name} and in {other_part} of {other.name}"
                f"{', the same set' if named_again else ''}: {names_of(entries)}"
            )
            severity = "note" if named_again else "problem"
            yield Finding(severity, "evaluated twice", one.name, other.name, found, entries)


def repeated(lists: list[SplitList]) -> Iterator[Finding]:
    """Cases that a part lists more than once."""
    for datalist in lists:
        for part in dict.fromkeys(entry.part for entry in datalist.entries):
            times = Counter(entry.case for entry in datalist.of(part))
            entries = [entry for entry in datalist.of(part) if times[entry.case] > 1]
            if entries:
                names = shortened(f"{entry.name} {times[entry.case]} times" for entry in entries)
                found = (
                    f"{counted(datalist.of(part), 'entry')} of {part} of {datalist.name} are "
                    f"{counted(times, 'case')}: {names}"
                )
                yield Finding("problem", "repeated", datalist.name, "", found, entries)


def never_evaluated(lists: list[SplitList]) -> Iterator[Finding]:
    """Cases that are listed but not scored: by the lists that only evaluate or, where there are none, by any list."""
    judges = [datalist for datalist in lists if not datalist.training] or [each for each in lists if each.evaluation]
    everything = [entry for datalist in lists for entry in datalist.entries]
    evaluated = cases_of(entry for datalist in judges for entry in datalist.evaluation)
    entries = with_cases(everything, cases_of(everything) - evaluated)
    if judges and entries:
        found = (
            f"{len(cases_of(entries))} of {counted(cases_of(everything), 'case')} not evaluated by "
            f"{', '.join(datalist.name for datalist in judges)}: {names_of(entries)}"
        )
        # a single split leaves its training cases out, as it must
        severity = "problem" if sum(len(datalist.folds) or 1 for datalist in judges) > 1 else "note"
        yield Finding(severity, "never evaluated", ALL_LISTS, "", found, entries)


def taken_for_the_same(lists: list[SplitList]) -> Iterator[Finding]:
    """Entries that count as cases of another folder or name, see `read_lists`."""
    for datalist in lists:
        folder = datalist.path.parent.resolve()
        moved = [entry for entry in datalist.entries if entry.image != located(folder, entry.listed)]
        copies = [entry for entry in datalist.entries if entry.there and entry.case != identity(entry.image)]
        for entries, what in (
            (moved, "without an image at its path, listed alike in another folder"),
            (copies, "with the same files as another entry, under another name"),
        ):
            if entries:
                found = (
                    f"{len(entries)} of {counted(datalist.entries, 'entry')} of {datalist.name} {what}: "
                    f"{names_of(entries)}"
                )
                yield Finding("note", "taken for the same", datalist.name, "", found, entries)
