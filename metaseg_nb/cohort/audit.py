"""The audit: leakage between and inside datalists, in one table."""

import json
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from metaseg_nb.cohort.audit_checks import Comparison, Finding, comparisons, counted, findings
from metaseg_nb.cohort.audit_entries import listed_entries
from metaseg_nb.cohort.problems import Problem, grouped

# "doubt": perhaps leakage.
FINDING_SEVERITIES = ("leakage", "doubt", "problem", "note")
# The checks, the worst first: why a finding matters, and what to do.
CHECKS = pd.read_csv(Path(__file__).with_name("audit_checks.csv"), index_col="check")
FINDING_COLUMNS = ("severity", "check", "list", "with_list", "found", "n_entries", "n_cases", "why", "fix", "cases")


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
    lists : list of str
        Names of the lists with entries.
    unread : list of Problem
        What could not be read, and was not compared.
    """

    answer: str
    findings: pd.DataFrame
    shared: pd.DataFrame
    lists: list[str]
    unread: list[Problem]

    @property
    def leaks(self) -> bool:
        """Whether leakage was found."""
        return bool((self.findings["severity"] == "leakage").any())

    @property
    def clean(self) -> bool:
        """Whether everything was read, and neither leakage nor a doubt was found."""
        return not self.unread and not self.findings["severity"].isin(["leakage", "doubt"]).any()

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
            counts = "Evaluated entries and cases, and how many of these cases are training cases of ..."
            blocks.append(f"{counts}\n{self.shared.to_string()}")
        for (severity, check), rows in self.findings.groupby(["severity", "check"], sort=False):
            advice = f"{rows['why'].iloc[0]} What to do: {rows['fix'].iloc[0]}"
            heading = f"{str(severity).upper()}: {check}\n{_wrapped(advice, '  ')}"
            blocks.append("\n".join([heading, *(_wrapped(found, "  - ") for found in rows["found"])]))
        return "\n\n".join(blocks)


def audit(lists: Iterable[str | Path], image_root: Path | None = None) -> Audit:
    """Look for leakage between and inside datalists; no image needs to exist.

    A list that only evaluates must be scored by a model of another list: a case
    that it shares with a list that trains is leakage. A list that trains and
    evaluates stands alone: a case or a patient in its training and in its
    evaluation, or in two of its folds, is leakage. What may be one case or one patient
    is a doubt. Everything else that weakens a result is a problem or a note.

    Parameters
    ----------
    lists : iterable of path
        Decathlon or MONAI lists (JSON), see `listed_entries`.
    image_root : path, optional
        Where relative paths begin; without it, in the folder of each list.
    """
    entries, unread = listed_entries(lists, image_root)
    pairs = list(comparisons(entries))
    found = list(findings(entries, pairs))
    found.sort(key=lambda each: (FINDING_SEVERITIES.index(each.severity), CHECKS.index.get_loc(each.check)))
    answer = _answer(entries, pairs, found) + ("; not everything could be read" if unread else "")
    rows = [
        (*told, len(of), of["case"].nunique(), *CHECKS.loc[told[1]], list(dict.fromkeys(of["name"])))
        for *told, of in found
    ]
    table = pd.DataFrame(rows, columns=FINDING_COLUMNS)
    return Audit(answer, table, _shared(entries, pairs), entries["list"].unique().tolist(), unread)


def _shared(entries: pd.DataFrame, pairs: Sequence[Comparison]) -> pd.DataFrame:
    rows = {}
    for name, scored in entries[entries["scored"]].groupby("list", sort=False):
        rows[name] = {"n_entries": len(scored), "n_cases": scored["case"].nunique()}
        own = [pair.leaked["case"] for pair in pairs if pair.list == name == pair.trained]
        for other, training in entries[entries["trains"]].groupby("list", sort=False):
            shared = pd.concat(own) if other == name else scored.loc[scored["case"].isin(training["case"]), "case"]
            rows[name][other] = shared.nunique()
    return pd.DataFrame.from_dict(rows, orient="index")


def _answer(entries: pd.DataFrame, pairs: Sequence[Comparison], found: Sequence[Finding]) -> str:
    of = grouped((each.severity, each) for each in found)
    n_evaluated = len(set().union(*(pair.evaluation.index for pair in pairs)))
    if of["leakage"]:
        leaks = grouped(((leak.check, leak.list == leak.with_list, leak.with_list), leak) for leak in of["leakage"])
        return "LEAKAGE: " + "; ".join(_leak(pairs, place, leaks[place]) for place in sorted(leaks))
    if of["doubt"]:
        elsewhere = [doubt.found for doubt in of["doubt"] if doubt.check == "trained on elsewhere"]
        alike = [doubt.entries for doubt in of["doubt"] if doubt.check != "trained on elsewhere"]
        if alike:
            n, may_be = pd.concat(alike)["scored"].groupby(level=0).first().sum(), "may be training cases"
            elsewhere.insert(0, f"{n} of {n_evaluated} evaluation entries {may_be}, or of patients in training")
        answer = f"MAY BE LEAKAGE: {'; '.join(elsewhere)}"
    elif pairs:
        own = any(each.check == "trained on in other folds" for each in of["note"])
        where = ", if the model of its own fold scores each case" if own else ""
        answer = f"No leakage found{where}: {n_evaluated} evaluation entries compared with their training cases"
    elif len(set(entries["list"])) == 1:
        problems = [f"Problem: {each.found}." for each in of["problem"]]
        return " ".join(["One list without folds: there is nothing to compare.", *problems])
    else:
        answer = "Nothing was compared"
    return f"{answer}; {counted(len(of['problem']), 'problem')}, {counted(len(of['note']), 'note')}"


def _leak(pairs: Sequence[Comparison], place: tuple[str, bool, str], leaks: Sequence[Finding]) -> str:
    """Leaks of one kind into one list, as one sentence."""
    check, within, trained = place
    compared = [pair for pair in pairs if pair.trained == trained and (pair.list == trained) == within]
    n_evaluated, n_leaked = sum(len(pair.evaluation) for pair in compared), sum(len(leak.entries) for leak in leaks)
    what = "are training cases" if check == "trained on" else "are of patients in training"
    return f"{n_leaked} of {n_evaluated} evaluation entries {what} of {trained}{' itself' if within else ''}"


def _wrapped(text: str, first: str) -> str:
    wrapper = textwrap.TextWrapper(110, first, " " * len(first), break_long_words=False, break_on_hyphens=False)
    return wrapper.fill(text)
