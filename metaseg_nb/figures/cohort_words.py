"""Sentences that notebooks 01 and 04 make from the tables of 01."""

from collections.abc import Sequence

import pandas as pd

from metaseg_nb.cohort.cases import Case
from metaseg_nb.cohort.lesions import SCORED_FACTS, UNSCORED_MM3
from metaseg_nb.cohort.problems import STOPPING, CohortError, Problem, problem_table
from metaseg_nb.files import escaped

# Lesions under this diameter are hard to see.
TINY_MM = 5


def describe_counts(lesions: pd.DataFrame) -> str:
    """How many lesions the masks hold and how many are scored, for both notebooks; ``lesions`` is 01's table.

    Raises
    ------
    CohortError
        The table was written before it said what each lesion is scored as.
    """
    if not {*SCORED_FACTS} <= {*lesions}:
        found, expected = "no columns of what is scored", f"{', '.join(SCORED_FACTS)}"
        raise CohortError.one("-", "lesions.csv", found, expected, "run 01 again")
    scored = lesions[lesions["scored_lesion"] > 0].drop_duplicates(["case", "scored_lesion"])
    left_out = int((lesions["scored_lesion"] == 0).sum())
    tiny, tiny_scored = ((of < TINY_MM).sum() for of in (lesions["diameter_mm"], scored["scored_diameter_mm"]))
    joined = len(lesions) - left_out - len(scored)
    return (
        f"**Two counts of lesions.** Separate lesions in the masks: {len(lesions)} ({tiny} under {TINY_MM} mm); "
        f"notebook 01 and the folds count these. Scored lesions, as in BraTS-METS: {len(scored)} "
        f"({tiny_scored} under {TINY_MM} mm); notebook 04 and all its classes count these. Lesions with at most two "
        f"voxels between them are scored as one (joined to another: {joined}), and lesions of {UNSCORED_MM3:g} mm³ "
        f"or less are not scored (left out: {left_out})."
    )


def describe_problems(cases: Sequence[Case], problems: Sequence[Problem], leakage: str) -> str:
    """How many errors, warnings and notes in how many cases; ``leakage`` is what an audit of the lists answers."""
    names, parts = {case.name for case in cases}, []
    for severity, of in problem_table(problems).groupby("severity", sort=False):
        plural = "s" if len(of) > 1 else ""
        what = f" ({escaped(of['found'].iloc[0])})" if len({*of["found"]}) == 1 else ""
        parts.append(f"{len(of)} {severity}{plural} in {len({*of['case']} & names)} of {len(names)} cases{what}")
    begins = "Wrong" if any(problem.severity in STOPPING for problem in problems) else "To look at"
    wrong = f"**{begins}: {', '.join(parts)}.**" if parts else "Nothing was found to be wrong."
    return f"{wrong} {escaped(leakage)}".strip()
