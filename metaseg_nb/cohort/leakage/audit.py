"""The audit: all checks, in one table that a supervisor can read."""

import json
import textwrap
from dataclasses import dataclass
from itertools import groupby

import pandas as pd

from metaseg_nb.cohort.leakage.comparison import SEVERITIES, Finding, cases_of, comparisons, counted
from metaseg_nb.cohort.leakage.confounding import possibly_same_patients, primary_not_evaluated, primary_not_trained_on
from metaseg_nb.cohort.leakage.likeness import may_be_the_same
from metaseg_nb.cohort.leakage.sharing import (
    evaluated_twice,
    never_evaluated,
    nothing_to_compare,
    patient_trained_on,
    repeated,
    taken_for_the_same,
    trained_on,
    trained_on_elsewhere,
)
from metaseg_nb.cohort.leakage.split_lists import SplitList

CHECKS = (
    trained_on,
    patient_trained_on,
    may_be_the_same,
    trained_on_elsewhere,
    nothing_to_compare,
    evaluated_twice,
    repeated,
    never_evaluated,
    primary_not_trained_on,
    primary_not_evaluated,
    possibly_same_patients,
    taken_for_the_same,
)
# why it matters, and what to do
ADVICE = {
    "trained on": (
        "The network has seen these cases in training: their scores say how well it remembers them, not how well it "
        "does on new patients.",
        "Score only cases that the network was not trained on, or train it again without them. If these two lists "
        "never meet (each has a partner), audit each with its partner alone.",
    ),
    "patient trained on": (
        "Other images of these patients are in training, and images of one patient are alike: the scores are too good.",
        "Keep all cases of a patient in one part, or in one fold.",
    ),
    "may be the same": (
        "These entries are written as differently as one case in two lists often is, or share a file. If they are the "
        "same, the scores are too good.",
        'Look at the images. Write one path for one image, and give each entry its "patient".',
    ),
    "trained on elsewhere": (
        "A list that only trains is either the whole cohort, which others split, or what a network was trained on.",
        "If it is the whole cohort, audit the other lists without it. If a network was trained on it, score only cases "
        "that are not in it.",
    ),
    "nothing to compare": (
        "Leakage shows only between what is trained on and what is evaluated.",
        "Give the list that the network was trained on and the lists that it is scored on together.",
    ),
    "evaluated twice": (
        'The claim "each case is scored once" does not hold: these cases weigh more in the result, and the parts are '
        "not independent of each other.",
        "Deal the cases anew, each into one fold.",
    ),
    "repeated": (
        "A case that is listed several times counts several times, in a mean as in training.",
        "List each case once.",
    ),
    "never evaluated": (
        "The result says nothing of these cases; it is a result of the others only.",
        "Deal all cases into folds, or report how many were scored and how they were chosen.",
    ),
    "primary not trained on": (
        "The primary is confounded with the split: the score mixes how good the network is with how different a "
        "primary is that it never saw.",
        "Stratify the split by primary, or report this primary apart, as an external test.",
    ),
    "primary not evaluated": (
        "The primary is confounded with the split: nothing is known of how the network does on this primary.",
        "Stratify the split by primary, or say that the result does not hold for this primary.",
    ),
    "possibly the same patients": (
        "Cases of one name in folders of similar names may be one patient imaged twice. If so, a split by case can put "
        "the patient into training and into evaluation.",
        'Ask whoever named the cases, and give the entries of one patient the same "patient".',
    ),
    "taken for the same": (
        "No image is where these entries say, and a list of another folder names them alike; or their files are "
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
        One line: is there leakage, how much.
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
        """Is anything leakage."""
        return bool((self.findings["severity"] == "leakage").any())

    @property
    def clean(self) -> bool:
        """Is nothing leakage, and nothing perhaps leakage."""
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
        From one call of `read_lists`, which tells the same case in two lists.
    """
    found = [finding for check in CHECKS for finding in check(lists)]
    found.sort(key=lambda finding: SEVERITIES.index(finding.severity))
    return Audit(_answer(lists, found), _table(found), _shared(lists))


def _table(findings: list[Finding]) -> pd.DataFrame:
    rows = [
        {
            "severity": finding.severity,
            "check": finding.check,
            "list": finding.datalist,
            "with_list": finding.with_list,
            "found": finding.found,
            "n_entries": len(finding.entries),
            "n_cases": len(cases_of(finding.entries)),
            "why": ADVICE[finding.check][0],
            "fix": ADVICE[finding.check][1],
            "cases": list(dict.fromkeys(entry.name for entry in finding.entries)),
        }
        for finding in findings
    ]
    columns = ["severity", "check", "list", "with_list", "found", "n_entries", "n_cases", "why", "fix", "cases"]
    return pd.DataFrame(rows, columns=columns)


def _shared(lists: list[SplitList]) -> pd.DataFrame:
    trained = [datalist for datalist in lists if datalist.training]
    evaluated = [datalist for datalist in lists if datalist.evaluation]
    rows = {
        one.name: {"n_entries": len(one.evaluation), "n_cases": len(cases_of(one.evaluation))}
        | {other.name: len(_shared_cases(one, other)) for other in trained}
        for one in evaluated
    }
    return pd.DataFrame.from_dict(rows, orient="index")


def _shared_cases(evaluated: SplitList, trained: SplitList) -> set:
    if evaluated is not trained:
        return cases_of(evaluated.evaluation) & cases_of(trained.training)
    own = [cases_of(trained.of(part)) & cases_of(trained.trained_for(part)) for part in trained.evaluated_parts]
    return set().union(*own)


def _answer(lists: list[SplitList], findings: list[Finding]) -> str:
    leaks = [finding for finding in findings if finding.severity == "leakage"]
    if leaks:
        groups = groupby(sorted(leaks, key=_place), key=_place)
        return "LEAKAGE: " + "; ".join(_leak(lists, list(group)) for _, group in groups)
    pairs = comparisons(lists)
    evaluated = {id(entry) for pair in pairs for entry in pair.evaluation}
    if doubts := [finding for finding in findings if finding.severity == "doubt"]:
        elsewhere = [doubt.found for doubt in doubts if doubt.check == "trained on elsewhere"]
        alike = {id(entry) for doubt in doubts if doubt.check != "trained on elsewhere" for entry in doubt.entries}
        may_be = "evaluation entries may be training cases, or of patients in training"
        said = [f"{len(alike & evaluated)} of {len(evaluated)} {may_be}"] if alike else []
        answer = f"MAY BE LEAKAGE: {'; '.join([*said, *elsewhere])}"
    elif pairs:
        answer = f"No leakage found: {len(evaluated)} evaluation entries compared with their training cases"
    elif len(lists) == 1:
        problems = [f"Problem: {each.found}." for each in findings if each.severity == "problem"]
        return " ".join(["One list without folds: there is nothing to compare.", *problems])
    else:
        answer = "Nothing was compared"
    others = [counted([each for each in findings if each.severity == kind], kind) for kind in ("problem", "note")]
    return f"{answer}; {', '.join(others)}"


def _place(finding: Finding) -> tuple[str, bool, str]:
    return finding.check, finding.datalist == finding.with_list, finding.with_list


def _leak(lists: list[SplitList], leaks: list[Finding]) -> str:
    """Leaks of one kind into one list, as one sentence."""
    check, within, trained = _place(leaks[0])
    pairs = [pair for pair in comparisons(lists) if pair.trained.name == trained]
    n_evaluated = sum(len(pair.evaluation) for pair in pairs if (pair.evaluated is pair.trained) == within)
    what = "are training cases" if check == "trained on" else "are of patients in training"
    n_leaked = sum(len(leak.entries) for leak in leaks)
    return f"{n_leaked} of {n_evaluated} evaluation entries {what} of {trained}{' itself' if within else ''}"


def _wrapped(text: str, first: str) -> str:
    whole = {"break_long_words": False, "break_on_hyphens": False}
    return textwrap.fill(text, 110, initial_indent=first, subsequent_indent=" " * len(first), **whole)
