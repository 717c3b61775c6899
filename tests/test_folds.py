"""Folds: no patient in two sets, nobody left out, alike, and the same whoever asks."""

from collections import Counter, defaultdict
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest

import metaseg_nb
from metaseg_nb.cohort.cases import Case, Cohort
from metaseg_nb.cohort.folds import assign_folds, budget_table, nested_subset, split
from metaseg_nb.cohort.problems import CohortError
from metaseg_nb.layout import NOTEBOOKS

PRIMARIES = ("breast", "lung", "melanoma", "renal")


def make_cohort(seed):
    """Random cohort with one to three cases a patient, its lesion counts, and a number of folds."""
    rng = np.random.default_rng(seed)
    cases, n_lesions = [], {}
    for patient in range(rng.integers(12, 60)):
        primary = PRIMARIES[rng.choice(4, p=[0.2, 0.5, 0.2, 0.1])]
        for scan in range(rng.integers(1, 4)):
            name = f"p{patient}_{scan}"
            cases.append(Case(name, (Path(f"{name}.nii.gz"),), None, patient=f"p{patient}", primary=primary))
            n_lesions[name] = int(rng.poisson(3))
    order = rng.permutation(len(cases))
    return Cohort("random", "", [cases[i] for i in order], seed=seed), burden_of(n_lesions), int(rng.integers(2, 7))


def burden_of(n_lesions):
    """Lesions of 9 mm³ each."""
    counts = pd.Series(n_lesions)
    return pd.DataFrame({"n_lesions": counts, "lesion_volume_mm3": 9.0 * counts})


def patients(cases):
    return {case.patient for case in cases}


def fold_of_patient(cohort):
    return {case.patient: case.fold for case in cohort.cases}


def shown_in_01(cell, **names):
    """Names after a cell of notebook 01."""
    (source,) = [each.source for each in nbformat.read(NOTEBOOKS / "01_explore_data.ipynb", 4).cells if each.id == cell]
    names |= {"ms": metaseg_nb, "display": str, "Markdown": str}
    exec(source, names)
    return names


cohorts = pytest.mark.parametrize("seed", range(25))


@cohorts
def test_each_patient_is_in_one_fold_and_folds_are_of_one_size(seed):
    cohort, burden, n_folds = make_cohort(seed)
    dealt = assign_folds(cohort, burden, n_folds)
    folds = defaultdict(set)
    for case in dealt.cases:
        folds[case.patient].add(case.fold)
    assert {len(of) for of in folds.values()} == {1}
    sizes = Counter(fold_of_patient(dealt).values())
    assert sorted(sizes) == list(range(n_folds))
    assert max(sizes.values()) - min(sizes.values()) <= 1
    assert [replace(case, fold=None, n_lesions=None) for case in dealt.cases] == cohort.cases
    assert {case.name: case.n_lesions for case in dealt.cases} == burden["n_lesions"].to_dict()


@cohorts
def test_each_primary_is_spread_evenly(seed):
    cohort, burden, n_folds = make_cohort(seed)
    dealt = assign_folds(cohort, burden, n_folds)
    primary_of = {case.patient: case.primary for case in dealt.cases}
    for primary in PRIMARIES:
        in_fold = Counter(fold for patient, fold in fold_of_patient(dealt).items() if primary_of[patient] == primary)
        counts = [in_fold[fold] for fold in range(n_folds)]
        assert max(counts) - min(counts) <= 1


def test_lesions_are_spread_more_evenly_than_by_chance():
    def spread(cohort, burden, n_folds):
        sums = [
            sum(burden.loc[case.name, "n_lesions"] for case in cohort.cases if case.fold == fold)
            for fold in range(n_folds)
        ]
        return np.std(sums)

    dealt, by_chance = [], []
    for seed in range(25):
        cohort, burden, n_folds = make_cohort(seed)
        found = assign_folds(cohort, burden, n_folds)
        dealt.append(spread(found, burden, n_folds))
        names = sorted(patients(cohort.cases))
        fold_of = dict(zip(names, np.random.default_rng(seed).permutation(len(names)) % n_folds, strict=True))
        drawn = replace(cohort, cases=[replace(case, fold=fold_of[case.patient]) for case in cohort.cases])
        by_chance.append(spread(drawn, burden, n_folds))

    assert np.mean(dealt) < 0.5 * np.mean(by_chance)


@cohorts
def test_folds_and_sets_do_not_depend_on_the_order_of_the_list(seed):
    cohort, burden, n_folds = make_cohort(seed)
    turned = replace(cohort, cases=cohort.cases[::-1])
    first, second = (assign_folds(c, burden, n_folds) for c in (cohort, turned))
    assert fold_of_patient(first) == fold_of_patient(second)
    for fold in range(n_folds):
        assert patients(split(first, fold).selection) == patients(split(second, fold).selection)


def test_a_patient_with_two_primaries_does_not_make_folds_depend_on_the_order():
    cohort, burden, n_folds = make_cohort(3)
    twice = next(patient for patient, n in Counter(c.patient for c in cohort.cases).items() if n > 1)
    changed = next(case for case in cohort.cases if case.patient == twice)
    cases = [replace(c, primary="thyroid") if c is changed else c for c in cohort.cases]
    first, second = (assign_folds(replace(cohort, cases=c), burden, n_folds) for c in (cases, cases[::-1]))
    assert fold_of_patient(first) == fold_of_patient(second)


def test_another_seed_deals_otherwise_and_the_same_seed_alike():
    cohort, burden, n_folds = make_cohort(1)
    dealt = [fold_of_patient(assign_folds(replace(cohort, seed=s), burden, n_folds)) for s in (1, 1, 2)]
    assert dealt[0] == dealt[1] != dealt[2]


@cohorts
def test_the_three_sets_are_disjoint_by_patient_and_complete(seed):
    cohort, burden, n_folds = make_cohort(seed)
    dealt = assign_folds(cohort, burden, n_folds)
    tested = []
    for fold in range(n_folds):
        parts = split(dealt, fold)
        sets = [patients(part) for part in (parts.training, parts.selection, parts.test)]
        assert sum(len(s) for s in sets) == len(set.union(*sets)) == len(patients(cohort.cases))
        assert len(parts.training) + len(parts.selection) + len(parts.test) == len(cohort.cases)
        assert {case.fold for case in parts.test} == {fold}
        assert fold not in {case.fold for case in parts.training + parts.selection}
        assert len(sets[1]) == max(2, round(0.1 * (len(sets[0]) + len(sets[1]))))
        assert sets[0]
        assert parts == split(dealt, fold)
        tested += parts.test
    assert sorted(case.name for case in tested) == sorted(case.name for case in cohort.cases)


def test_selection_sets_differ_between_folds_and_seeds():
    cohort, burden, _ = make_cohort(0)
    dealt = assign_folds(cohort, burden, 5)
    chosen = {frozenset(patients(split(dealt, fold).selection)) for fold in range(5)}
    assert len(chosen) > 1
    other_seed = frozenset(patients(split(replace(dealt, seed=dealt.seed + 1), 0).selection))
    assert other_seed != patients(split(dealt, 0).selection)


def small(folds, patient_names=None):
    names = patient_names or [f"p{i}" for i in range(len(folds))]
    cases = [
        Case(f"c{i}", (Path(f"c{i}.nii.gz"),), None, patient=name, primary="lung", fold=fold)
        for i, (fold, name) in enumerate(zip(folds, names, strict=True))
    ]
    return Cohort("small", "", cases)


@pytest.mark.parametrize(
    ("folds", "advice"),
    [
        ([0, 1], "add patients: the cohort has 2, a study needs 4 or more"),
        ([0, 1, 2], "add patients: the cohort has 3, a study needs 4 or more"),
        ([0, 0, 1, 1], "set `n_folds` higher"),
        ([0, 0, 0, 1, 1], "set `n_folds` higher"),
    ],
)
def test_the_advice_of_a_cohort_that_is_too_small_can_help(folds, advice):
    with pytest.raises(CohortError) as error:
        split(small(folds), 0)
    assert advice in error.value.problems[0].fix


def test_two_patients_in_five_folds_are_not_sent_to_two_folds():
    cohort = small([None, None])
    with pytest.raises(CohortError, match="add patients: the cohort has 2"):
        assign_folds(cohort, burden_of({"c0": 1, "c1": 1}), 5)


def test_folds_that_are_given_are_kept():
    cohort = small([1, 1, 0, 2, 0, 2, 1])
    kept = assign_folds(cohort, burden_of({case.name: 2 for case in cohort.cases}), 3)
    assert [case.fold for case in kept.cases] == [1, 1, 0, 2, 0, 2, 1]


@pytest.mark.parametrize(
    ("cohort", "n_folds", "named"),
    [
        (small([0, None, 1, None]), 2, ["case c1,", "case c3,", "no fold"]),
        (small([0, 1, 1, 0, 0, 1], ["a", "b", "a", "c", "d", "d"]), 2, ["patient a in", "patient d in", "[0, 1]"]),
        (small([0, 1, 2, 2]), 5, ["folds [0, 1, 2]", "folds 0 to 4", "n_folds"]),
        (small([0, 1, 2]), 2, ["folds [0, 1, 2]", "folds 0 to 1"]),
        (small([1, 2, 3]), 3, ["folds [1, 2, 3]", "folds 0 to 2"]),
        (small([None] * 4), 5, ["4 patients", "folds 0 to 4"]),
        (small([None] * 6, ["a", "a", "a", "b", "b", "b"]), 3, ["2 patients", "folds 0 to 2"]),
    ],
    ids=["some given", "leak", "fewer than asked", "more than asked", "from 1", "too few", "many cases, few patients"],
)
def test_folds_that_cannot_be_used_are_refused_by_name(cohort, n_folds, named):
    with pytest.raises(CohortError) as error:
        assign_folds(cohort, burden_of({case.name: 1 for case in cohort.cases}), n_folds)
    for words in named:
        assert words in str(error.value)


@pytest.mark.parametrize(("folds", "n_folds", "n"), [([1, 2, 1, 2], 5, 2), ([0, 0, 0, 0], 5, 2), ([0, 1, 2, 2], 5, 3)])
def test_the_advice_about_given_folds_helps(folds, n_folds, n):
    with pytest.raises(CohortError) as error:
        assign_folds(small(folds), burden_of({f"c{i}": 1 for i in range(len(folds))}), n_folds)
    assert error.value.problems[0].fix == (
        f'set `n_folds` in the study file to {n}; if the list gives the folds, number them from 0, or remove "fold"'
    )


def test_a_fold_that_is_not_there_is_named():
    with pytest.raises(CohortError, match=r"no fold 5; expected one of \[0, 1\]"):
        split(small([0, 0, 0, 1, 1, 1]), 5)


def test_somebody_must_be_left_to_train_on():
    cohort = small([0, 0, 0, 1, 1])
    assert len(split(cohort, 1).training) == 1
    with pytest.raises(
        CohortError, match="2 patients outside fold 0; expected more patients than the 2 of the selection set"
    ):
        split(cohort, 0)


def test_the_balance_of_folds_counts_patients_once_and_cases_and_lesions_all():
    cohort = small([0, 0, 1], ["a", "a", "b"])
    facts = pd.DataFrame(
        {
            "case": ["c0", "c1", "c2"],
            "patient": ["a", "a", "b"],
            "primary": ["lung", "lung", "breast"],
            "n_lesions": [2, 3, 4],
            "lesion_volume_mm3": [1000.0, 2500.0, 200.0],
        }
    )
    facts["site"] = "unknown"
    table = shown_in_01("c26b", study_cohort=cohort, labelled=facts)["balance"]
    assert table.loc[0].to_dict() == {
        "patients": 1,
        "cases": 2,
        "lesions": 5,
        "lesion_volume_cm3": 3.5,
        "breast": 0,
        "lung": 1,
    }
    assert table.loc[1, ["patients", "cases", "lesions", "lesion_volume_cm3", "breast", "lung"]].tolist() == [
        1,
        1,
        4,
        0.2,
        1,
        0,
    ]


@cohorts
def test_selection_patients_have_lesions_and_are_spread_from_few_to_many(seed):
    cohort, burden, n_folds = make_cohort(seed)
    dealt = assign_folds(cohort, burden, n_folds)
    for fold in range(n_folds):
        burden = Counter()
        for case in dealt.cases:
            if case.fold != fold:
                burden[case.patient] += case.n_lesions
        with_lesions = sorted(n for n in burden.values() if n)
        drawn = sorted(burden[patient] for patient in patients(split(dealt, fold).selection))
        for n, group in zip(drawn, np.array_split(with_lesions, len(drawn)), strict=True):
            assert 0 < group[0] <= n <= group[-1]


def test_patients_without_lesion_are_selected_when_there_are_no_others():
    cohort, burden, _ = make_cohort(2)
    dealt = assign_folds(cohort, 0 * burden, 3)
    assert len(patients(split(dealt, 0).selection)) >= 2


@cohorts
def test_a_smaller_budget_is_inside_a_larger_one_and_spreads_over_primaries_and_burden(seed):
    cohort, burden, n_folds = make_cohort(seed)
    training = split(assign_folds(cohort, burden, n_folds), 0).training
    n = len(patients(training))
    parts = [patients(nested_subset(training, share, seed)) for share in (0.25, 0.5, 1.0) if round(share * n) >= 2]
    assert all(small < large for small, large in pairwise(parts))
    assert parts[-1] == patients(training)
    half = nested_subset(training, 0.5, seed)
    assert patients(half) == patients(nested_subset(training[::-1], 0.5, seed)), "whatever the order of the list"
    assert len(patients(half)) == round(0.5 * n)
    assert {case for case in training if case.patient in patients(half)} == set(half), "all cases of a patient or none"
    share_of = {p: [len({c.patient for c in part if c.primary == p}) for part in (training, half)] for p in PRIMARIES}
    assert all(abs(whole / 2 - part) <= 2.5 for whole, part in share_of.values())


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5, 0.75])
@pytest.mark.parametrize("n", [40, 176, 200])
def test_seeds_draw_other_patients_with_as_many_in_common_as_by_chance(n, share):
    rng = np.random.default_rng(n)
    cases = [
        Case(f"c{i}", (Path(f"c{i}"),), None, f"p{i}", PRIMARIES[i % 4 if i % 3 else 0], 0, int(rng.poisson(4)))
        for i in range(n)
    ]
    subsets = [patients(nested_subset(cases, share, seed)) for seed in range(200)]
    k = round(share * n)
    assert {len(subset) for subset in subsets} == {k}
    assert len({frozenset(subset) for subset in subsets}) == 200
    common = [len(first & second) for first, second in pairwise(subsets)]
    chance, spread = k**2 / n, k * (n - k) / n / (n - 1) ** 0.5  # hypergeometric: k of n patients, drawn twice
    assert abs(np.mean(common) - chance) < 4 * spread / len(common) ** 0.5
    assert max(common) <= chance + 5 * spread
    taken = Counter(patient for subset in subsets for patient in subset)
    assert np.ptp([taken[case.patient] for case in cases]) < 200 * 9 * (share * (1 - share) / 200) ** 0.5


def test_one_patient_is_no_budget():
    cohort, burden, _ = make_cohort(4)
    training = split(assign_folds(cohort, burden, 5), 0).training
    with pytest.raises(CohortError, match="that is 1; expected at least 2 patients"):
        nested_subset(training, 1 / len(patients(training)), 0)


def test_the_table_of_budgets_counts_patients_and_lesions_over_the_folds():
    cohort, burden, _ = make_cohort(4)
    dealt = assign_folds(cohort, burden, 5)
    table = budget_table(dealt, [1.0, 0.01, 0.5], 0).set_index(["share", "fold"])
    assert [*table.index] == [(share, fold) for share in (0.01, 0.5, 1.0) for fold in range(5)]
    assert table.loc[0.01].isna().all(axis=None) and table.loc[0.5].notna().all(axis=None)
    lesions = [sum(case.n_lesions for case in split(dealt, fold).training) for fold in range(5)]
    assert table.loc[1.0, "lesions"].tolist() == lesions
    ends = shown_in_01("c28", study_cohort=dealt, annotation_shares=[1.0, 0.01, 0.5], seed=0)["ends"]
    assert {*ends.loc[0.01]} == {"too few"}
    assert ends.loc[1.0, "lesions"] == f"{min(lesions)} to {max(lesions)}"
