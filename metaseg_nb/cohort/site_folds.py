"""Folds that are sites: each site is tested by networks that were trained on the others."""

from collections import defaultdict
from collections.abc import Iterable

from metaseg_nb.cohort.cases import Case, Cohort
from metaseg_nb.cohort.problems import CohortError, broken, refusal


def fold_of_sites(cohort: Cohort, n_folds: int) -> dict[str, int]:
    """Fold of each patient, if the sites, in the order of their names, are the folds.

    Raises
    ------
    CohortError
        Cases without site; patients of two sites; fewer than two sites, or another number of them than of folds.
    """
    if without := [case for case in cohort.all_cases if case.site == "unknown"]:
        raise CohortError(broken("site of each", case, "datalist", "no site") for case in without)
    cases_of = defaultdict(list)
    for case in cohort.all_cases:
        cases_of[case.patient].append(case)
    problems = [
        broken("one site", of[0], "datalist", f"patient {patient} with {' and '.join(own)}")
        for patient, of in cases_of.items()
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


def require_whole_sites(cases: Iterable[Case]) -> None:
    """Refuse folds that a cohort came with, and that mix sites or divide one; there are as many folds as sites."""
    pairs = sorted({(case.fold or 0, case.site) for case in cases})
    if len(pairs) > len({fold for fold, _ in pairs}):
        found = ", ".join(f"site {site} in fold {fold}" for fold, site in pairs)
        raise refusal("folds of sites", "-", "datalist", found)
