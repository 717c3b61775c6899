"""Folds and smaller annotation budgets, made by patient and balanced by primary cancer and number of lesions."""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import pandas as pd

from metaseg_nb.cohort.cases import Case, Cohort
from metaseg_nb.cohort.problems import CohortError, broken, grouped, refusal

SELECTION_SHARE = 0.1
SELECTION_MINIMUM = 2
# With fewer patients nobody is left to train on.
SMALLEST_COHORT = SELECTION_MINIMUM + 2
# Patients of a budget: fewer are not enough to train on.
LEAST_PATIENTS = 2
# Parts of a primary's patients, from few to many lesions, of which a budget takes equal shares.
LESION_STRATA = 3
COUNTED = ("training patients", "selection patients", "lesions", "primaries")


@dataclass(frozen=True)
class Split:
    """The three sets of a fold; no patient is in two of them."""

    training: list[Case]
    selection: list[Case]
    test: list[Case]


def assign_folds(cohort: Cohort, burden: pd.DataFrame, n_folds: int, by: str = "patient") -> Cohort:
    """Divide the patients into folds that are alike in size, primary cancer and lesion burden; or each site is a fold.

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
    by : str
        "patient", or "site": the sites, in the order of their names, are the folds.

    Raises
    ------
    CohortError
        Fewer patients than folds need, only some cases come with a fold, a patient comes in two folds. By site: a case
        without site, a patient of two sites, fewer than two sites, as many as there are no folds.
    """
    cases = [replace(case, n_lesions=int(burden.loc[case.name, "n_lesions"])) for case in cohort.cases]
    without = [case.name for case in cases if case.fold is None]
    by_site = _fold_of_sites(cohort, n_folds) if by == "site" else {}
    if len(without) == len(cases):
        fold_of = by_site or _deal(cohort, burden, n_folds)
        cases = [replace(case, fold=fold_of[case.patient]) for case in cases]
    elif without:
        raise CohortError(broken("all or none", name, "datalist", "no fold") for name in without)
    folds_of = {patient: _folds(of) for patient, of in _by_patient(cases).items()}
    if leaks := [f"patient {patient} in folds {folds}" for patient, folds in folds_of.items() if len(folds) > 1]:
        raise CohortError(broken("one fold", "-", "datalist", leak) for leak in leaks)
    folds, fix = _folds(cases), _more_patients(len(folds_of))
    if folds != list(range(n_folds)):
        found, words = f"folds {folds} with {len(folds_of)} patients", {"last": n_folds - 1, "n": max(2, len(folds))}
        raise refusal("folds", "-", "datalist", found, fix, **words)
    pairs = sorted({(case.fold or 0, case.site) for case in cases}) if by == "site" else []
    if len(pairs) > n_folds:  # the list came with folds that mix sites or divide one
        found = ", ".join(f"site {site} in fold {fold}" for fold, site in pairs)
        raise refusal("folds of sites", "-", "datalist", found)
    return replace(cohort, cases=cases, folds_by=by)


def keep_folds(cohort: Cohort, dealt: Cohort, facts: pd.DataFrame) -> Cohort:
    """Give a cohort with masks drawn by hand the folds that it has without them.

    Parameters
    ----------
    cohort : Cohort
        With corrected masks, new cases of patients who are tested, and cases that are only for training.
    dealt : Cohort
        The same cohort as it came, from `assign_folds`. A new case of one of its patients gets that patient's fold.
    facts : DataFrame
        ``n_lesions`` of each labelled case of ``cohort``; the index is its name.
    """
    fold_of = {case.patient: case.fold for case in dealt.cases}
    came_with = {case.name: case.burden for case in dealt.cases}

    def counted(case: Case) -> Case:
        return replace(case, n_lesions=int(facts.loc[case.name, "n_lesions"]))

    def kept(case: Case) -> Case:
        before = came_with.get(case.name, 0) if case.reader else None
        return replace(counted(case), fold=fold_of[case.patient], n_lesions_before=before)

    later = [counted(case) for case in cohort.training_only]
    return replace(cohort, cases=[kept(case) for case in cohort.cases], training_only=later, folds_by=dealt.folds_by)


def _deal(cohort: Cohort, burden: pd.DataFrame, n_folds: int) -> dict[str, int]:
    """Fold of each patient."""
    facts = [(case.name, case.patient, case.primary) for case in cohort.cases]
    table = pd.DataFrame(facts, columns=["case", "patient", "primary"])
    table = table.join(burden[["n_lesions", "lesion_volume_mm3"]], on="case")
    patients = table.groupby("patient").agg({"primary": "min", "n_lesions": "sum", "lesion_volume_mm3": "sum"})
    patients["tie"] = np.random.default_rng(cohort.seed).permutation(len(patients))
    order = {"primary": True, "n_lesions": False, "lesion_volume_mm3": False, "tie": True}
    patients = patients.sort_values(list(order), ascending=list(order.values()))
    fold_of: dict[str, int] = {}
    holds = np.zeros((n_folds, 3))  # patients, lesions, volume of each fold
    for _, group in patients.groupby("primary", sort=False):
        free: set[int] = set()
        for patient, n_lesions, volume_mm3 in group[["n_lesions", "lesion_volume_mm3"]].itertuples():
            free = free or set(range(n_folds))
            fold = min(free, key=lambda fold: (*holds[fold], fold))
            free.remove(fold)
            fold_of[patient] = fold
            holds[fold] += 1, n_lesions, volume_mm3
    return fold_of


def _fold_of_sites(cohort: Cohort, n_folds: int) -> dict[str, int]:
    """Fold of each patient, if the sites, in the order of their names, are the folds."""
    if without := [case for case in cohort.all_cases if case.site == "unknown"]:
        raise CohortError(broken("site of each", case, "datalist", "no site") for case in without)
    problems = [
        broken("one site", of[0], "datalist", f"patient {patient} with {' and '.join(own)}")
        for patient, of in _by_patient(cohort.all_cases).items()
        if len(own := sorted({case.site for case in of})) > 1
    ]
    sites = sorted({case.site for case in cohort.cases})
    if len(sites) < 2:
        problems.append(broken("two sites", "-", "datalist", f"only the site {sites[0]}"))
    elif len(sites) != n_folds:
        found = f"{n_folds} folds for {len(sites)} sites: {', '.join(sites)}"
        problems.append(broken("fold for each site", "-", "n_folds", found, n=len(sites)))
    if problems:
        raise CohortError(problems)
    return {case.patient: sites.index(case.site) for case in cohort.cases}


def split(cohort: Cohort, fold: int) -> Split:
    """Training, selection and test set of a fold.

    The fold's patients are the test set. A tenth of the other patients, never
    fewer than two, are the selection set: drawn by (seed, fold), spread from
    few to many lesions. Patients without lesion are not drawn as long as there
    are others: predicting nothing scores 1 on them, and a set this small would
    then choose the network that finds nothing. Cases that are only for training are in
    the training set, whatever the fold, and do not change the other two sets. If the folds are
    sites, no case of the fold's site is in its training set.

    Raises
    ------
    CohortError
        No such fold, no patient is left for training, or a patient is tested and has a case that is only for training.
    """
    tested = {case.patient: case.fold for case in cohort.cases}
    if leaks := [case for case in cohort.training_only if case.patient in tested]:
        found = {case: f"no fold, and patient {case.patient} in fold {tested[case.patient]}" for case in leaks}
        raise CohortError(broken("patient in one fold", case, "dataset.json", found[case]) for case in leaks)
    folds = _folds(cohort.cases)
    if fold not in folds:
        raise refusal("known fold", "-", "dataset.json", f"no fold {fold}", folds=folds)
    outside = [case for case in cohort.cases if case.fold != fold]
    others = _lesions_of_patients(outside)
    n_selection = max(SELECTION_MINIMUM, round(SELECTION_SHARE * len(others)))
    if len(others) <= n_selection:
        found, fix = f"{len(others)} patients outside fold {fold}", _more_patients(len(tested))
        fix = fix or ("set `folds_by: patient`" if cohort.folds_by == "site" else "")
        raise refusal("selection set", "-", "dataset.json", found, fix, n=n_selection)
    order = sorted(others, key=lambda patient: (others[patient], patient))
    with_lesions = [patient for patient in order if others[patient]]
    groups = np.array_split(with_lesions if len(with_lesions) > n_selection else order, n_selection)
    rng = np.random.default_rng([cohort.seed, fold])
    selection = {str(rng.choice(group)) for group in groups}
    unseen = {case.site for case in cohort.cases if case.fold == fold} if cohort.folds_by == "site" else set()
    later = [case for case in cohort.training_only if case.site not in unseen]
    return Split(
        training=[*(case for case in outside if case.patient not in selection), *later],
        selection=[case for case in outside if case.patient in selection],
        test=[case for case in cohort.cases if case.fold == fold],
    )


def _more_patients(n: int) -> str:
    """What to do about a cohort that is too small for a study; empty if it is not."""
    too_few = n < SMALLEST_COHORT
    return f"add patients: the cohort has {n}, a study needs {SMALLEST_COHORT} or more" if too_few else ""


def _folds(cases: Iterable[Case]) -> list[int]:
    return sorted({case.fold for case in cases if case.fold is not None})


def _by_patient(cases: Iterable[Case]) -> dict[str, list[Case]]:
    return grouped((case.patient, case) for case in cases)


def _lesions_of_patients(cases: Iterable[Case]) -> dict[str, int]:
    return {patient: sum(case.burden for case in of) for patient, of in _by_patient(cases).items()}


def nested_subset(cases: Sequence[Case], share: float, seed: int) -> list[Case]:
    """The cases of a share of the patients; a smaller share's patients are among a larger one's.

    Patients of one primary with about as many lesions are a stratum. Each stratum has an order of its own, drawn from
    the seed, and every share takes about that share of it. So every part covers all primaries and lesion counts evenly,
    and two seeds have as many patients in common as chance gives them.

    Parameters
    ----------
    cases : sequence of Case
        Cases of a part of a fold, with their numbers of lesions.
    share : float
        In (0, 1]; rounded to whole patients.
    seed : int

    Raises
    ------
    CohortError
        Fewer than two patients would remain.
    """
    lesions, by_patient = _lesions_of_patients(cases), _by_patient(cases)
    ordered = sorted(by_patient, key=lambda patient: (lesions[patient], patient))
    strata = grouped((min(case.primary for case in by_patient[patient]), patient) for patient in ordered)
    rng, place = np.random.default_rng(seed), {}
    for _, of_primary in sorted(strata.items()):
        for alike in np.array_split(of_primary, LESION_STRATA):
            # where in the stratum's order, from 0 to 1; a start drawn for each stratum lets small ones come first too
            place |= zip(alike.tolist(), (rng.permutation(len(alike)) + rng.random()) / len(alike), strict=True)
    n = round(share * len(place))
    if n < min(LEAST_PATIENTS, len(place)):  # all of one patient is no smaller budget
        found = f"{100 * share:g} % of {len(place)} training patients, that is {n}"
        raise refusal("budget", "-", "dataset.json", found, n=LEAST_PATIENTS)
    chosen = set(sorted(place, key=place.__getitem__)[:n])
    return [case for case in cases if case.patient in chosen]


def budget_of(parts: Split, share: float, seed: int) -> Split:
    """What a physician annotates of a fold: a share of the training patients, and of the selection set.

    Of the selection set these are never fewer than two patients, unless the share is 0. See `nested_subset`.
    """
    if not share:
        return replace(parts, training=[], selection=[])
    least = SELECTION_MINIMUM / len({case.patient for case in parts.selection})
    selection = nested_subset(parts.selection, max(share, least), seed)
    return replace(parts, training=nested_subset(parts.training, share, seed), selection=selection)


def budget_table(cohort: Cohort, shares: Sequence[float], seed: int) -> pd.DataFrame:
    """Patients of each budget, and lesions and primaries to train on; a row per share and fold.

    The counts of a budget of fewer than two patients are missing.
    """
    parts, rows = [split(cohort, fold) for fold in range(cohort.n_folds)], []
    for share, (fold, part) in product(sorted(shares), enumerate(parts)):
        counts: list[int | None] = [None] * len(COUNTED)
        with suppress(CohortError):
            budget = budget_of(part, share, seed)
            patients = [len({case.patient for case in of}) for of in (budget.training, budget.selection)]
            n_lesions = sum(case.n_lesions or 0 for case in budget.training)
            counts = [*patients, n_lesions, len({case.primary for case in budget.training})]
        rows.append((share, fold, *counts))
    return pd.DataFrame(rows, columns=["share", "fold", *COUNTED]).astype(dict.fromkeys(COUNTED, "Int64"))
