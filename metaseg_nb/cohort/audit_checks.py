"""The checks of an audit: cases and patients in two parts or in none, primaries and names that a split depends on."""

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations
from typing import NamedTuple

import pandas as pd

from metaseg_nb.cohort.audit_entries import alike_entries
from metaseg_nb.cohort.problems import shortened

ALL_LISTS = "all lists"
# Letters and digits from which a name that begins like another resembles it.
SHORTEST_BEGINNING = 4
SAME_AS = {
    "moved": "without an image at its path, with the same path as an entry in another folder",
    "copy": "with the same files as another entry, under another name",
}


class Comparison(NamedTuple):
    """Entries that are scored, and those that the model that scores them was trained on.

    ``evaluation`` and ``training`` are parts of the table of entries, ``leaked`` those evaluated entries whose case
    is trained on, ``by_any`` those that a model of any fold was trained on. ``model`` says in words what is meant.
    """

    list: str
    part: str
    trained: str
    model: str
    evaluation: pd.DataFrame
    training: pd.DataFrame
    leaked: pd.DataFrame
    by_any: pd.DataFrame


class Finding(NamedTuple):
    """One thing found, in which lists and entries; ``severity`` is one of `audit.FINDING_SEVERITIES`."""

    severity: str
    check: str
    list: str
    with_list: str
    found: str
    entries: pd.DataFrame


def comparisons(entries: pd.DataFrame) -> Iterator[Comparison]:
    """Pair what is scored with what its model was trained on.

    A list that trains and evaluates stands alone: each of its evaluated parts against its training, a fold against
    the other folds. A list that only evaluates must be scored by a model of another list, so it is compared with each
    list that trains; of a list with folds, with the model that saw the fewest of its cases.
    """
    training = dict(list(entries[entries["trains"]].groupby("list", sort=False)))
    for (name, part), scored in entries[entries["scored"]].groupby(["list", "part"], sort=False):
        for trained in [name] if name in training else training:
            known = training[trained]
            folds = sorted(set(known["part"]) - {"training"})
            left_out = folds if folds and trained != name else [part]
            models = [known[known["part"] != fold] for fold in left_out]
            fewest = min(models, key=lambda seen: [len(_also_in(scored, seen, what)) for what in ("case", "patient")])
            model = f"{trained}, whichever of its folds is left out" if folds else trained
            model = f"another fold of {trained}" if trained == name and part in folds else model
            leaked, by_any = (_also_in(scored, seen, "case") for seen in (fewest, pd.concat(models)))
            yield Comparison(name, part, trained, model, scored, fewest, leaked, by_any)


def findings(entries: pd.DataFrame, pairs: Sequence[Comparison]) -> Iterator[Finding]:
    """All that is found in the table of entries."""
    for pair in pairs:
        yield from _leaks(pair)
        for primary, rows in _without(pair.evaluation, pair.training):
            found = f"{_cases(rows)} of {primary} in {pair.part} of {pair.list}, none in the training of {pair.model}"
            yield Finding("problem", "primary not trained on", pair.list, pair.trained, found, rows)
    yield from _one_side_only(entries, pairs)
    yield from _counted_twice(entries)
    yield from _not_evaluated(entries)
    yield from _possibly_same_patients(entries, pairs)
    for (name, same_as), rows in entries[entries["same_as"] != ""].groupby(["list", "same_as"], sort=False):
        n = counted((entries["list"] == name).sum(), "entry")
        found = f"{len(rows)} of {n} of {name} {SAME_AS[same_as]}: {_names(rows)}"
        yield Finding("note", "taken for the same", name, "", found, rows)


def _leaks(pair: Comparison) -> Iterator[Finding]:
    """Cases and patients that are scored by a model that was trained on them, or may be."""
    names = pair.list, pair.trained
    scored = f"{counted(len(pair.evaluation), 'entry')} of {pair.part} of {pair.list}"
    if len(pair.leaked):
        found = f"{len(pair.leaked)} of {scored} ({pair.leaked['case'].nunique()} of {_cases(pair.evaluation)}) "
        found += f"in the training of {pair.model}: {_names(pair.leaked)}"
        yield Finding("leakage", "trained on", *names, found, pair.leaked)
    elif len(pair.by_any):
        found = f"{len(pair.by_any)} of {scored} are training cases of other folds of {pair.trained}: "
        yield Finding("note", "trained on in other folds", *names, found + _names(pair.by_any), pair.by_any)
    others = pair.evaluation.drop(pair.leaked.index)
    known = _also_in(others, pair.training, "patient")
    if len(known):
        found = f"{len(known)} of {scored} are other images of patients in the training of {pair.model}"
        found += f": patient {shortened(known['patient'])}"
        yield Finding("leakage", "patient trained on", *names, found, known)
    for way, alike in alike_entries(others.drop(known.index), pair.training):
        found = f"{len(alike)} of {scored} may be in the training of {pair.model}: {way}, as "
        yield Finding("doubt", "may be the same", *names, found + shortened(alike.values()), others.loc[list(alike)])


def _one_side_only(entries: pd.DataFrame, pairs: Sequence[Comparison]) -> Iterator[Finding]:
    """A list that only trains and holds cases that others score: perhaps the cohort; or lists of one side alone."""
    trains, scores = (set(entries.loc[entries[what], "list"]) for what in ("trains", "scored"))
    evaluated = entries[entries["scored"] & entries["list"].isin(trains)]
    for name, training in entries[entries["trains"] & ~entries["list"].isin(scores)].groupby("list", sort=False):
        rows = _also_in(evaluated, training, "case")
        if len(rows):
            found = (
                f"{name} also trains on {counted(rows['case'].nunique(), 'evaluated case')}; the audit takes "
                "it as the list of the whole cohort: if a network was trained on it, this is leakage"
            )
            yield Finding("doubt", "trained on elsewhere", ALL_LISTS, name, found, rows)
    if not pairs:
        found = f"no list {'evaluates' if trains else 'trains on'} anything"
        severity = "note" if len(trains | scores) == 1 else "problem"
        yield Finding(severity, "nothing to compare", ALL_LISTS, "", found, entries[:0])


def _counted_twice(entries: pd.DataFrame) -> Iterator[Finding]:
    """Cases that two parts score, within a list or between lists; cases that a part lists more than once."""
    parts = list(entries[entries["scored"]].groupby(["list", "part"], sort=False))
    for ((one, part), first), ((other, other_part), second) in combinations(parts, 2):
        rows = pd.concat([_also_in(first, second, "case"), _also_in(second, first, "case")])
        # a case in two folds is trained on, which is worse
        if rows.empty or (one == other and part.startswith("fold ") and other_part.startswith("fold ")):
            continue
        # one test set in every split's file, or a fold that has a file of its own as well
        is_one_set = len(rows) == len(first) + len(second) and not part == other_part == "validation"
        found = f"{_cases(rows)} in {part} of {one} and in {other_part} of {other}"
        found += f"{', the same set' if is_one_set else ''}: {_names(rows)}"
        yield Finding("note" if is_one_set else "problem", "evaluated twice", one, other, found, rows)
    for (name, part), listed in entries.groupby(["list", "part"], sort=False):
        times = listed["case"].map(listed["case"].value_counts())
        rows = listed[times > 1]
        if len(rows):
            names = shortened(rows["name"] + " " + times[times > 1].astype(str) + " times")
            found = f"{counted(len(listed), 'entry')} of {part} of {name} are {_cases(listed)}: {names}"
            yield Finding("problem", "repeated", name, "", found, rows)


def _not_evaluated(entries: pd.DataFrame) -> Iterator[Finding]:
    """Cases and primaries that are listed but not scored.

    Lists that only evaluate score for all lists; without such lists, each list scores for itself.
    """
    evaluated = entries[entries["scored"]]
    is_own = evaluated["list"].isin(entries.loc[entries["trains"], "list"])
    own, external = evaluated[is_own], evaluated[~is_own]
    judged = external if len(external) else own
    rows = entries[~entries["case"].isin(judged["case"])]
    if len(judged) and len(rows):
        judges = ", ".join(judged["list"].unique())
        found = f"{rows['case'].nunique()} of {_cases(entries)} not evaluated by {judges}: {_names(rows)}"
        sets = judged["list"] + judged["part"].where(judged["part"].str.startswith("fold "), "")
        # a single split leaves its training cases out, as it must
        severity = "note" if len(set(sets)) == 1 else "problem"
        yield Finding(severity, "never evaluated", ALL_LISTS, "", found, rows)
    for name, training in entries[entries["trains"]].groupby("list", sort=False):
        scored = own[own["list"] == name]
        scored = scored if len(scored) else external
        for primary, rows in _without(training, scored) if len(scored) else ():
            found = f"{_cases(rows)} of {primary} in the training of {name}, none in what is evaluated with it"
            # one fold without a rare primary is no harm when another fold has it
            severity = "note" if primary in set(own["primary"]) else "problem"
            yield Finding(severity, "primary not evaluated", name, "", found, rows)


def _possibly_same_patients(entries: pd.DataFrame, pairs: Sequence[Comparison]) -> Iterator[Finding]:
    """Cases of one name under folders whose names resemble each other, where the lists do not name both patients."""
    cases = entries.drop_duplicates("case", keep="last")[["case", "short_name", "folder", "patient"]]
    cases = cases.assign(entry=cases.index)
    two = cases.merge(cases, on="short_name", suffixes=("", "_other")).sort_values("short_name", kind="stable")
    two = two[(two["folder"] < two["folder_other"]) & (two["patient"].isna() | two["patient_other"].isna())]
    for (one, other), rows in two.groupby(["folder", "folder_other"], sort=False):
        if not _resemble(one.name, other.name):
            continue
        ways = (rows["case"], rows["case_other"]), (rows["case_other"], rows["case"])
        across = [
            f"{pair.list} against {pair.trained}" if pair.list != pair.trained else pair.list
            for pair in pairs
            if any((a.isin(pair.training["case"]) & b.isin(pair.evaluation["case"])).any() for a, b in ways)
        ]
        found = f"{counted(len(rows), 'case name')} in {one.name} as in {other.name}: {shortened(rows['short_name'])}; "
        found += f"one trained on, the other evaluated, in {shortened(across)}" if across else "on the same side"
        both = entries.loc[rows[["entry", "entry_other"]].to_numpy().ravel()]
        yield Finding("doubt" if across else "note", "possibly the same patients", ALL_LISTS, "", found, both)


def _resemble(one: str, other: str) -> bool:
    """Tell whether a name has all words of another, or begins with it and does not go on with a number."""
    words = [re.findall(r"[^\W_]+", name.lower().removesuffix("_nii")) for name in (one, other)]
    short, long = sorted(words, key=lambda of: len("".join(of)))
    start, whole = "".join(short), "".join(long)
    begins = len(start) >= SHORTEST_BEGINNING and re.match(rf"{start}(?!\d)", whole)
    return one != other and bool(begins or (short and set(short) <= set(long)))


def _also_in(entries: pd.DataFrame, others: pd.DataFrame, what: str) -> pd.DataFrame:
    """The entries whose case or patient one of the others has, too."""
    return entries[entries[what].isin(others[what].dropna())]


def _without(entries: pd.DataFrame, others: pd.DataFrame) -> Iterable[tuple[str, pd.DataFrame]]:
    """The primaries of entries that none of the others has, each with its entries."""
    return entries[~entries["primary"].isin(others["primary"])].groupby("primary")


def counted(n: int, noun: str) -> str:
    """A number with its noun, "1 case" or "2 cases"."""
    return f"{n} {noun if n == 1 else noun.removesuffix('y') + 'ies' if noun.endswith('y') else noun + 's'}"


def _cases(entries: pd.DataFrame) -> str:
    return counted(entries["case"].nunique(), "case")


def _names(entries: pd.DataFrame) -> str:
    return shortened(entries["name"])
