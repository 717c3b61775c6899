"""What notebook 01 found, in sentences made from its tables."""

from collections.abc import Sequence

import pandas as pd

from metaseg_nb.cohort.cases import Case
from metaseg_nb.cohort.lesions import SCORED_FACTS, UNSCORED_MM3
from metaseg_nb.cohort.position import THIRDS
from metaseg_nb.cohort.problems import SEVERITIES, STOPPING, CohortError, Problem
from metaseg_nb.evaluation.answers import counted
from metaseg_nb.markdown import escaped

# Lesions under these diameters are counted: hard to see, and small.
TINY_MM, SMALL_MM = 5, 10


def describe_cohort(cases: pd.DataFrame, lesions: pd.DataFrame) -> str:
    """Patients, lesions per patient and sizes; ``cases`` are the labelled ones that could be read."""
    if cases.empty:
        return "**No mask could be read.**"
    per_patient = cases.groupby("patient").agg(n=("n_lesions", "sum"), largest=("largest_diameter_mm", "max"))
    n, diameter = per_patient["n"].astype(float), lesions["diameter_mm"]
    text = f"**{counted(len(n), 'patient')}, {counted(len(lesions), 'lesion')}**: "
    text += f"{n.mean():.1f} ± {n.std():.1f} per patient (mean ± sd, at most {n.max():.0f})"
    if len(lesions):
        text += f"; largest diameter {diameter.mean():.0f} ± {diameter.std():.0f} mm, median volume "
        text += f"{lesions['volume_mm3'].median() / 1000:.2g} cm³, "
        text += f"{counted((diameter < TINY_MM).sum(), 'lesion')} under {TINY_MM} mm"
    only_small = ((n > 0) & (per_patient["largest"] < SMALL_MM)).sum()
    return text + f"; patients without lesion: {(n == 0).sum()}, with lesions under {SMALL_MM} mm only: {only_small}."


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
    names = {case.name for case in cases}
    parts = []
    for severity in SEVERITIES:
        of = [problem for problem in problems if problem.severity == severity]
        if of:
            plural = "s" if len(of) > 1 else ""
            n_cases = len({problem.case for problem in of} & names)
            what = f" ({escaped(of[0].found)})" if len({problem.found for problem in of}) == 1 else ""
            parts.append(f"{len(of)} {severity}{plural} in {n_cases} of {len(names)} cases{what}")
    stops = any(problem.severity in STOPPING for problem in problems)
    begins = "Wrong" if stops else "To look at"
    wrong = f"**{begins}: {', '.join(parts)}.**" if parts else "Nothing was found to be wrong."
    return f"{wrong} {escaped(leakage)}".strip()


def describe_positions(cases: pd.DataFrame, lesions: pd.DataFrame) -> str:
    """Where most lesions lie, and how many images are measured by the head instead of the brain."""
    if lesions["third"].isna().all():
        return "No lesion could be placed."
    placed = lesions.dropna(subset="third")
    thirds = placed["third"].value_counts()
    shares = ", ".join(f"{thirds.get(third, 0)} in the {third} third" for third in THIRDS)
    left = int((placed["hemisphere"] == "left").sum())
    heads = int((cases["skull"] == "in the image").sum())
    text = f"Of {len(placed)} lesions {shares}; {left} left, {len(placed) - left} right; median depth "
    text += f"{placed['depth_mm'].median():.0f} mm."
    text += f" In {heads} images the skull is there: positions are in the head." if heads else ""
    parts = int(cases["skull"].fillna("").str.startswith("unknown").sum())
    return text + (f" {parts} images do not cover the brain: positions are in the part they show." if parts else "")
