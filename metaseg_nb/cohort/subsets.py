"""Smaller annotation budgets: nested, stratified parts of the training patients."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from metaseg_nb.cohort.cases import Case, Cohort
from metaseg_nb.cohort.folds import split
from metaseg_nb.cohort.problems import CohortError

# Fewer are not enough to train on.
LEAST_PATIENTS = 2


def nested_subset(cases: Sequence[Case], share: float, seed: int) -> list[Case]:
    """The cases of a share of the patients; a smaller share's patients are among a larger one's.

    Patients are sorted by primary and number of lesions, and taken in an order that halves the gaps again and again
    (van der Corput's sequence, shifted by the seed). So every part covers all primaries and lesion counts evenly.

    Parameters
    ----------
    cases : sequence of Case
        Training cases, with their numbers of lesions.
    share : float
        In (0, 1]; rounded to whole patients.
    seed : int

    Raises
    ------
    CohortError
        Fewer than two patients would remain.
    """
    order = _spread_order(cases, seed)
    n = round(share * len(order))
    if n < min(LEAST_PATIENTS, len(order)):  # all of one patient is no smaller budget
        found, expected = f"{100 * share:g} % of {len(order)} training patients, which is {n}", "patients to train on"
        fix = "take a larger share, or more patients"
        raise CohortError.one("-", "dataset.json", found, f"at least {LEAST_PATIENTS} {expected}", fix)
    chosen = set(order[:n])
    return [case for case in cases if case.patient in chosen]


def budget_table(cohort: Cohort, shares: Sequence[float], seed: int) -> pd.DataFrame:
    """Training patients and lesions of each budget, smallest and largest number over the folds; a row per share.

    A budget of fewer than two patients in a fold is "too few".
    """
    parts = [split(cohort, fold).training for fold in range(cohort.n_folds)]
    return pd.DataFrame([{"share": f"{100 * share:g} %"} | _budget(parts, share, seed) for share in sorted(shares)])


def _budget(parts: Sequence[Sequence[Case]], share: float, seed: int) -> dict[str, str]:
    try:
        subsets = [nested_subset(part, share, seed) for part in parts]
    except CohortError:
        return dict.fromkeys(("training patients", "lesions", "primaries"), "too few")
    counts = {
        "training patients": [len({case.patient for case in subset}) for subset in subsets],
        "lesions": [sum(case.n_lesions for case in subset) for subset in subsets],
        "primaries": [len({case.primary for case in subset}) for subset in subsets],
    }
    return {name: " to ".join(map(str, sorted({min(values), max(values)}))) for name, values in counts.items()}


def _spread_order(cases: Sequence[Case], seed: int) -> list[str]:
    """Patients in the order in which growing budgets take them in."""
    patients: dict[str, tuple[str, int]] = {}
    for case in cases:
        primary, n_lesions = patients.get(case.patient, (case.primary, 0))
        patients[case.patient] = min(primary, case.primary), n_lesions + (case.n_lesions or 0)
    line = sorted(patients, key=lambda patient: (*patients[patient], patient))
    bits = max(1, (len(line) - 1).bit_length())
    shift = int(np.random.default_rng(seed).integers(2**bits))
    # reversed binary digits: 0, 1/2, 1/4, 3/4, 1/8 ... of the line
    return [line[i] for i in sorted(range(len(line)), key=lambda i: f"{i ^ shift:0{bits}b}"[::-1])]
