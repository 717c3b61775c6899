"""The audit: all checks, in one table that a supervisor can read."""

import json
import textwrap
from dataclasses import dataclass
from itertools import groupby

import pandas as pd

from metaseg_nb.cohort.leakage import checks
from metaseg_nb.cohort.leakage.comparison import SEVERITIES, Comparison, Finding, cases_of, comparisons, counted
from metaseg_nb.cohort.leakage.likeness import may_be_the_same
from metaseg_nb.cohort.leakage.split_lists import SplitList

CHECKS = (
    *(checks.trained_on, checks.patient_trained_on, may_be_the_same, checks.trained_on_elsewhere),
    *(checks.nothing_to_compare, checks.evaluated_twice, checks.repeated, checks.never_evaluated),
    *(checks.primary_not_trained_on, checks.primary_not_evaluated, checks.possibly_same_patients),
    checks.taken_for_the_same,
)
# Why it matters, and what to do.
ADVICE = {
    "trained on": (
        "The network was trained on these cases: their scores are too good, and do not hold for new patients.",
        "Score only cases that the network was not trained on, or train it again without them. If these two lists "
        "do not belong together (each has a partner), audit each with its partner alone.",
    ),
    "patient trained on": (
        "Other images of these patients are in training, and images of one patient are alike: the scores are too good.",
        "Keep all cases of a patient in one part, or in one fold.",
    ),
    "may be the same": (
        "One case in two lists is often written as differently as these entries, or they share a file. If they are the "
        "same, the scores are too good.",
        'Look at the images. Write one path for one image, and give each entry its "patient".',
    ),
    "trained on elsewhere": (
        "A list that only trains is either the whole cohort, or what a network was trained on.",
        "If it is the whole cohort, audit the other lists without it. If a network was trained on it, score only cases "
        "that are not in it.",
    ),
    "nothing to compare": (
        "Leakage is found by comparing training cases with evaluation cases.",
        "Give the list that the network was trained on and the lists that it is scored on together.",
    ),
    "evaluated twice": (
        "These cases weigh more in the result, and the parts are not independent of each other.",
        "Make new folds, each case in one of them.",
    ),
    "repeated": ("A case that is listed several times counts several times.", "List each case once."),
    "never evaluated": (
        "The result does not hold for these cases.",
        "Put all cases into folds, or report how many were scored and how they were chosen.",
    ),
    "primary not trained on": (
        "The split depends on the primary: the score depends on the network and on the new primary.",
        "Stratify the split by primary, or report this primary apart, as an external test.",
    ),
    "primary not evaluated": (
        "The split depends on the primary: the quality of the network on this primary is not known.",
        "Stratify the split by primary, or report that the result does not hold for this primary.",
    ),
    "possibly the same patients": (
        "Cases of one name in folders of similar names may be two images of one patient. A split by case can put "
        "one into training and one into evaluation.",
        'Ask whoever named the cases, and give the entries of one patient the same "patient".',
    ),
    "taken for the same": (
        "These images do not exist, and a list of another folder names them alike; or their files are "
        "copies of another entry's. They count as one case.",
        "If they are other images, put each list where its paths lead to its images.",
    ),
}


@dataclass(frozen=True, eq=False)
class Audit:
    """What an audit of datalists found.

    Attributes
    ----------
    answer : str
        One line: whether leakage was found, and how much.
    findings : DataFrame
        A row per finding, the worst first: ``severity`` ("leakage", "doubt": perhaps leakage,
        "problem", "note"), ``check``, ``list``, ``with_list``, ``found``, ``n_entries`` and
        ``n_cases`` concerned, ``why`` it matters, ``fix`` (what to do), ``cases``
        (all their names).
    shared : DataFrame
        A row per list that evaluates: ``n_entries`` and ``n_cases`` evaluated, then
        for each list that trains how many of these cases are in its training. A list
        with folds is compared with itself fold by fold, with other lists as a whole.
        Only what `findings` call leakage is wrong: the validation list of one
        split is naturally in the training list of another.
    """

    answer: str
    findings: pd.DataFrame
    shared: pd.DataFrame

    @property
    def leaks(self) -> bool:
        """Whether leakage was found."""
        return bool((self.findings["severity"] == "leakage").any())

    @property
    def clean(self) -> bool:
        """Whether neither leakage nor a doubt was found."""
        return not self.findings["severity"].isin(["leakage", "doubt"]).any()

    def summary(self) -> pd.DataFrame:
        """A row per check: ``severity``, ``check``, how many ``times``, the first ``found``, ``why``, ``fix``."""
        checks = self.findings.groupby(["severity", "check"], sort=False)
        firsts = {name: (name, "first") for name in ("found", "why", "fix")}
        return checks.agg(times=("found", "size"), **firsts).reset_index()

    def as_json(self) -> str:
        """The audit as JSON text."""
        content = {
            "answer": self.answer,
            "leaks": self.leaks,
            "clean": self.clean,
            "findings": self.findings.to_dict("records"),
            "shared": self.shared.to_dict("index"),
        }
        return json.dumps(content, indent=1)

    def as_text(self) -> str:
        """The audit for a terminal: the answer, the matrix, the findings check by check."""
        blocks = [self.answer]
        if not self.shared.empty:
            blocks.append(
                "Evaluated entries and cases, and how many of these cases are training cases of ...\n"
                + self.shared.to_string()
            )
        for (severity, check), rows in self.findings.groupby(["severity", "check"], sort=False):
            why, fix = ADVICE[check]
            heading = f"{severity.upper()}: {check}\n" + _wrapped(f"{why} What to do: {fix}", "  ")
            blocks.append("\n".join([heading, *(_wrapped(found, "  - ") for found in rows["found"])]))
        return "\n\n".join(blocks)


def audit(lists: list[SplitList]) -> Audit:
    """Look for leakage between and inside datalists.

    A list that only evaluates must be scored by a model of another list: a case
    that it shares with a list that trains is leakage. A list that trains and
    evaluates stands alone: a case or a patient in its training and in its
    evaluation, or in two of its folds, is leakage. What may be one case or one patient
    is a doubt. All else that makes a result less than it claims to be is a problem or a note.

    Parameters
    ----------
    lists : list of SplitList
        From one call of `split_lists`, which finds the same case in two lists.
    """
    pairs = comparisons(lists)
    found = [finding for check in CHECKS for finding in check(lists, pairs)]
    found.sort(key=lambda finding: SEVERITIES.index(finding.severity))
    return Audit(_answer(lists, pairs, found), _table(found), _shared(lists, pairs))


def _table(findings: list[Finding]) -> pd.DataFrame:
    columns = ["severity", "check", "list", "with_list", "found", "n_entries", "n_cases", "why", "fix", "cases"]
    rows = []
    for each in findings:
        names = list(dict.fromkeys(entry.name for entry in each.entries))
        counts = len(each.entries), len(cases_of(each.entries))
        told = each.severity, each.check, each.datalist, each.with_list, each.found
        rows.append([*told, *counts, *ADVICE[each.check], names])
    return pd.DataFrame(rows, columns=columns)


def _shared(lists: list[SplitList], pairs: list[Comparison]) -> pd.DataFrame:
    rows = {}
    for one in (datalist for datalist in lists if datalist.evaluation):
        cases = cases_of(one.evaluation)
        rows[one.name] = {"n_entries": len(one.evaluation), "n_cases": len(cases)}
        own = [cases_of(pair.trained_on) for pair in pairs if pair.evaluated is one is pair.trained]
        for other in (datalist for datalist in lists if datalist.training):
            shared = set().union(*own) if other is one else cases & cases_of(other.training)
            rows[one.name][other.name] = len(shared)
    return pd.DataFrame.from_dict(rows, orient="index")


def _answer(lists: list[SplitList], pairs: list[Comparison], findings: list[Finding]) -> str:
    of = {kind: [finding for finding in findings if finding.severity == kind] for kind in SEVERITIES}
    if of["leakage"]:
        groups = groupby(sorted(of["leakage"], key=_place), key=_place)
        return "LEAKAGE: " + "; ".join(_leak(pairs, place, list(leaks)) for place, leaks in groups)
    evaluated = {id(entry) for pair in pairs for entry in pair.evaluation}
    if of["doubt"]:
        elsewhere = [doubt.found for doubt in of["doubt"] if doubt.check == "trained on elsewhere"]
        alike = {id(each) for doubt in of["doubt"] if doubt.check != "trained on elsewhere" for each in doubt.entries}
        may_be = "evaluation entries may be training cases, or of patients in training"
        counts = [f"{len(alike & evaluated)} of {len(evaluated)} {may_be}"] if alike else []
        answer = f"MAY BE LEAKAGE: {'; '.join([*counts, *elsewhere])}"
    elif pairs:
        answer = f"No leakage found: {len(evaluated)} evaluation entries compared with their training cases"
    elif len(lists) == 1:
        problems = [f"Problem: {each.found}." for each in of["problem"]]
        return " ".join(["One list without folds: there is nothing to compare.", *problems])
    else:
        answer = "Nothing was compared"
    return f"{answer}; {counted(of['problem'], 'problem')}, {counted(of['note'], 'note')}"


def _place(finding: Finding) -> tuple[str, bool, str]:
    return finding.check, finding.datalist == finding.with_list, finding.with_list


def _leak(pairs: list[Comparison], place: tuple[str, bool, str], leaks: list[Finding]) -> str:
    """Leaks of one kind into one list, as one sentence."""
    check, within, trained = place
    compared = [pair for pair in pairs if pair.trained.name == trained and (pair.evaluated is pair.trained) == within]
    n_evaluated, n_leaked = sum(len(pair.evaluation) for pair in compared), sum(len(leak.entries) for leak in leaks)
    what = "are training cases" if check == "trained on" else "are of patients in training"
    return f"{n_leaked} of {n_evaluated} evaluation entries {what} of {trained}{' itself' if within else ''}"


def _wrapped(text: str, first: str) -> str:
    whole = {"break_long_words": False, "break_on_hyphens": False}
    return textwrap.fill(text, 110, initial_indent=first, subsequent_indent=" " * len(first), **whole)
