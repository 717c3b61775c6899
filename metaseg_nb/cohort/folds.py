"""Folds without leaks: grouped by patient; the selection set is a part of the training patients."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from metaseg_nb.cohort.cases import Case, Cohort
from metaseg_nb.cohort.problems import CohortError, Problem

SELECTION_SHARE = 0.1
SELECTION_MINIMUM = 2


@dataclass(frozen=True)
class Split:
    """The three sets of a fold; no patient is in two of them."""

    training: list[Case]
    selection: list[Case]
    test: list[Case]


def assign_folds(cohort: Cohort, burden: pd.DataFrame, n_folds: int) -> Cohort:
    """Divide the patients into folds that are alike in size, primary cancer and lesion burden.

    Primary by primary, patients go from many lesions to few (then from large volume to
    small), ``n_folds`` at a time, one into each fold: the heaviest into the fold that has
    the fewest patients, then the fewest lesions, so far. Ties are drawn from the cohort's
    seed. Folds that the cohort already has are kept.

    Parameters
    ----------
    cohort : Cohort
    burden : DataFrame
        ``n_lesions`` and ``lesion_volume_mm3`` of each case; the index is its name.
    n_folds : int

    Raises
    ------
    CohortError
        Fewer patients than folds need, or only some cases come with a fold.
    """
    counted = [replace(case, n_lesions=int(burden.loc[case.name, "n_lesions"])) for case in cohort.cases]
    cohort = replace(cohort, cases=counted)
    given = [case.fold is not None for case in cohort.cases]
    if all(given):
        return _checked(cohort, n_folds)
    if any(given):
        raise CohortError(
            Problem(case.name, "datalist", "no fold", "a fold for all cases or none", 'complete "fold"')
            for case in cohort.cases
            if case.fold is None
        )
    fold_of = _deal(_patient_table(cohort, burden), n_folds)
    cases = [replace(case, fold=fold_of[case.patient]) for case in cohort.cases]
    return _checked(replace(cohort, cases=cases), n_folds)


def _patient_table(cohort: Cohort, burden: pd.DataFrame) -> pd.DataFrame:
    """A row per patient, in the order in which they are given to the folds."""
    rows = [
        {
            "patient": patient,
            "primary": min(case.primary for case in cases),
            "n_lesions": _lesions_of(cases),
            "volume_mm3": burden.loc[[case.name for case in cases], "lesion_volume_mm3"].sum(),
        }
        for patient, cases in sorted(_by_patient(cohort.cases).items())
    ]
    table = pd.DataFrame(rows)
    table["tie"] = np.random.default_rng(cohort.seed).permutation(len(table))
    order = {"primary": True, "n_lesions": False, "volume_mm3": False, "tie": True}
    return table.sort_values(list(order), ascending=list(order.values()), ignore_index=True)


def _deal(patients: pd.DataFrame, n_folds: int) -> dict[str, int]:
    fold_of: dict[str, int] = {}
    holds = np.zeros((n_folds, 3))  # patients, lesions, volume of each fold
    for _, group in patients.groupby("primary", sort=False):
        for place, patient in enumerate(group.itertuples()):
            if place % n_folds == 0:
                free = set(range(n_folds))
            fold = min(free, key=lambda fold: (*holds[fold], fold))
            free.remove(fold)
            fold_of[patient.patient] = fold
            holds[fold] += 1, patient.n_lesions, patient.volume_mm3
    return fold_of


def split(cohort: Cohort, fold: int) -> Split:
    """Training, selection and test set of a fold.

    The fold's patients are the test set. A tenth of the other patients, never
    fewer than two, are the selection set: drawn by (seed, fold), spread from
    few to many lesions. Patients without lesion are not drawn as long as there
    are others: predicting nothing scores 1 on them, and a set this small would
    then choose the network that finds nothing.

    Raises
    ------
    CohortError
        No such fold, or nobody is left to train on.
    """
    folds = sorted({case.fold for case in cohort.cases})
    if fold not in folds:
        raise CohortError.one("-", "dataset.json", f"no fold {fold}", f"one of {folds}", "set `fold` or `n_folds`")
    others = _by_patient(case for case in cohort.cases if case.fold != fold)
    n_selection = _selection_size(len(others))
    if len(others) <= n_selection:
        raise CohortError.one(
            "-",
            "dataset.json",
            f"{len(others)} patients outside fold {fold}",
            f"more than the {n_selection} of the selection set",
            _advice(cohort),
        )
    selection = _draw_selection(others, n_selection, np.random.default_rng([cohort.seed, fold]))
    parts = {"test": [], "selection": [], "training": []}
    for case in cohort.cases:
        part = "test" if case.fold == fold else "selection" if case.patient in selection else "training"
        parts[part].append(case)
    return Split(**parts)


def _selection_size(n_others: int) -> int:
    return max(SELECTION_MINIMUM, round(SELECTION_SHARE * n_others))


def _advice(cohort: Cohort) -> str:
    """How to keep patients for training: more folds, if there are enough patients."""
    n = len({case.patient for case in cohort.cases})
    enough = [k for k in range(2, n + 1) if n - math.ceil(n / k) > _selection_size(n - math.ceil(n / k))]
    if not enough:
        return f"add patients: the cohort has {n}, a study needs {SELECTION_MINIMUM + 2} or more"
    return f'set `n_folds` to {enough[0]} or more; where the list brings its folds, leave out "fold"'


def _draw_selection(patients: Mapping[str, list[Case]], n: int, rng: np.random.Generator) -> set[str]:
    order = sorted(patients, key=lambda patient: (_lesions_of(patients[patient]), patient))
    with_lesions = [patient for patient in order if _lesions_of(patients[patient])]
    pool = with_lesions if len(with_lesions) > n else order
    return {str(rng.choice(group)) for group in np.array_split(pool, n)}


def _by_patient(cases: Iterable[Case]) -> dict[str, list[Case]]:
    patients = defaultdict(list)
    for case in cases:
        patients[case.patient].append(case)
    return dict(patients)


def _lesions_of(cases: Iterable[Case]) -> int:
    return sum(case.n_lesions or 0 for case in cases)


def fold_table(cohort: Cohort, cases: pd.DataFrame) -> pd.DataFrame:
    """Balance of the folds: patients, cases, lesions and patients of each primary cancer, a row per fold.

    Parameters
    ----------
    cohort : Cohort
        With folds.
    cases : DataFrame
        ``case``, ``patient``, ``primary``, ``n_lesions``, ``lesion_volume_mm3`` of each labelled case.
    """
    folds = cases.assign(fold=cases["case"].map({case.name: case.fold for case in cohort.cases}))
    table = folds.groupby("fold").agg(
        patients=("patient", "nunique"),
        cases=("case", "count"),
        lesions=("n_lesions", "sum"),
        lesion_volume_cm3=("lesion_volume_mm3", lambda volumes: round(volumes.sum() / 1000, 1)),
    )
    primaries = folds.drop_duplicates("patient").pivot_table(
        index="fold", columns="primary", values="patient", aggfunc="count", fill_value=0
    )
    return table.join(primaries).astype({"lesions": int})


def require_no_leak(cohort: Cohort) -> None:
    """Raise `CohortError`, naming every patient that is in two folds."""
    folds = defaultdict(set)
    for case in cohort.cases:
        folds[case.patient].add(case.fold)
    leaks = [(patient, sorted(of)) for patient, of in folds.items() if len(of) > 1]
    if leaks:
        raise CohortError(
            Problem("-", "datalist", f"patient {patient} in folds {of}", "each patient in one fold", 'correct "fold"')
            for patient, of in leaks
        )


def _checked(cohort: Cohort, n_folds: int) -> Cohort:
    require_no_leak(cohort)
    folds, n = sorted({case.fold for case in cohort.cases}), len({case.patient for case in cohort.cases})
    if folds != list(range(n_folds)):
        numbered = folds == list(range(len(folds)))
        if len(folds) < 2:
            few = 'leave out "fold" in the list, or give two folds or more'
        elif numbered:
            few = f"set `n_folds` in the study file to what the cohort has, {len(folds)}"
        else:
            renumber = f"number the folds from 0 to {len(folds) - 1} in the list"
            few = renumber + ("" if len(folds) == n_folds else f", and set `n_folds` in the study file to {len(folds)}")
        raise CohortError.one(
            "-",
            "datalist",
            f"folds {folds}, of {n} patients",
            f"folds 0 to {n_folds - 1} with at least one patient each",
            few if n >= SELECTION_MINIMUM + 2 else _advice(cohort),
        )
    return cohort
