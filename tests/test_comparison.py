"""Is a difference real: tests against published values, ties and identical networks, too few patients, stability."""

from itertools import product

import numpy as np
import pandas as pd
import pytest

from metaseg_nb.evaluation.comparison import (
    critical_difference,
    pairwise,
    patient_scores,
    rank_biserial,
    rank_distribution,
    rank_test,
    signed_rank_p,
)


def table(n=20, shifts=(0.3, 0.0, 0.0), seed=0, noise=0.1):
    """Scores of networks a, b, c on n patients that differ from each other more than networks do."""
    rng = np.random.default_rng(seed)
    patients = rng.uniform(0.2, 0.6, n)
    columns = {name: patients + shift + rng.normal(0, noise, n) for name, shift in zip("abc", shifts, strict=True)}
    return pd.DataFrame(columns, index=[f"p{i}" for i in range(n)])


def test_a_patients_cases_are_averaged_first():
    rows = [("a", "p", 0.2), ("a", "p", 0.6), ("a", "q", 1.0), ("b", "p", 0.0), ("b", "q", 0.5)]
    metrics = pd.DataFrame(rows, columns=["model", "patient", "dice"])
    scores = patient_scores(metrics, ["b", "a"])
    assert list(scores.columns) == ["b", "a"]
    assert scores["a"].tolist() == pytest.approx([0.4, 1.0])
    assert scores["b"].tolist() == [0.0, 0.5]


@pytest.mark.parametrize(("k", "q"), [(2, 1.960), (3, 2.343), (4, 2.569), (5, 2.728), (10, 3.164)])
def test_critical_values_are_those_of_demsar_2006(k, q):
    """Table 5(a) of JMLR 7:1-30."""
    assert critical_difference(k, 14) == pytest.approx(q * np.sqrt(k * (k + 1) / (6 * 14)), abs=2e-3)


def test_friedman_of_demsars_example():
    """Table 6 there: four algorithms on 14 data sets, mean ranks 3.143, 2.000, 2.893, 1.964, chi-square 9.28."""
    # one .975 is given a hair more: the ranks in print tell it from the other, its three digits do not
    rows = """.763 .768 .771 .798  .599 .591 .590 .569  .954 .971 .968 .967  .628 .661 .654 .657  .882 .888 .886 .898
        .936 .931 .916 .931  .661 .668 .609 .685  .583 .583 .563 .625  .775 .838 .866 .875  1.0 1.0 1.0 1.0
        .940 .962 .965 .962  .619 .666 .614 .669  .972 .981 .9751 .975  .957 .978 .946 .970"""
    names = ["C4.5", "C4.5+m", "C4.5+cf", "C4.5+m+cf"]
    scores = pd.DataFrame(np.array(rows.split(), float).reshape(14, 4), columns=names)
    found, _ = rank_test(scores)
    assert found["mean_rank"][names].tolist() == pytest.approx([3.143, 2.0, 2.893, 1.964], abs=1e-3)
    uncorrected = 12 * 14 / (4 * 5) * ((found["mean_rank"] ** 2).sum() - 4 * 5**2 / 4)
    assert uncorrected == pytest.approx(9.28, abs=0.01)
    # ties in one data set or another: 1 - sum(t³ - t) / (n (k³ - k)), one of four and one of two or three alike
    tied = sum((scores.T[row].value_counts() ** 3 - scores.T[row].value_counts()).sum() for row in scores.index)
    assert found["friedman"].tolist() == pytest.approx([uncorrected / (1 - tied / (14 * (4**3 - 4)))] * 4)
    assert found["critical_difference"].tolist() == pytest.approx([1.25] * 4, abs=0.01)


def test_nemenyi_separates_what_differs_by_more_than_the_critical_difference():
    found, nemenyi = rank_test(table(n=40, shifts=(0.5, 0.0, 0.0)))
    assert (found["p"] < 1e-6).all()
    assert found.index[0] == "a"
    apart = (nemenyi < 0.05).loc["a"]
    assert apart[["b", "c"]].all() and not apart["a"]
    assert nemenyi.loc["b", "c"] > 0.05
    gaps = np.abs(found.loc["a", "mean_rank"] - found.loc[["b", "c"], "mean_rank"])
    assert (gaps > found["critical_difference"].iloc[0]).all()


def test_identical_networks_do_not_differ():
    same = table()[["a"]].assign(b=lambda t: t["a"], c=lambda t: t["a"])
    found, nemenyi = rank_test(same)
    assert found[["friedman", "p"]].to_numpy().tolist() == [[0, 1]] * 3
    assert found["mean_rank"].tolist() == [2, 2, 2]
    assert (nemenyi == 1).all(axis=None)
    pairs = pairwise(same, 200, 0)
    assert pairs[["difference", "rank_biserial"]].eq(0).all(axis=None)
    assert pairs[["low", "high"]].isna().all(axis=None), "no difference in 20 patients is no proof that none has one"
    assert pairs[["p", "p_holm"]].eq(1).all(axis=None)
    assert rank_distribution(same, 50, 0).to_numpy() == pytest.approx(1 / 3), "none leads: ranks are shared"


def test_pairs_by_hand():
    first = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3]
    second = [0.8, 0.6, 0.4, 0.2, 0.0, 0.4, 0.4]  # differences 0.1, 0.2, 0.3, 0.4, 0.5, 0, -0.1
    pair = pairwise(pd.DataFrame({"x": first, "y": second}), 500, 0).iloc[0]
    assert (pair["first"], pair["second"], pair["patients"]) == ("x", "y", 7)
    assert pair["difference"] == pytest.approx(1.4 / 7)
    # of the ranks 1.5, 3, 4, 5, 6 and 1.5 all but the last speak for the first
    assert pair["rank_biserial"] == pytest.approx((19.5 - 1.5) / 21)
    assert pair["low"] < pair["difference"] < pair["high"]


def test_signed_rank_by_hand_and_where_there_are_too_few():
    # 6 equal signs: both tails of 1 in 2⁶
    assert signed_rank_p(np.arange(1.0, 7)) == pytest.approx(2 / 2**6)
    assert np.isnan(signed_rank_p(np.arange(1.0, 6)))
    assert signed_rank_p(np.zeros(8)) == 1
    values = np.random.default_rng(0).normal(0.2, 1, 30)
    assert signed_rank_p(values) == signed_rank_p(-values)


def test_patients_alike_in_both_are_not_thrown_away():
    """Pratt: small differences weigh less against large ones the more patients show none."""
    differences = np.array([0.1, -0.2, 0.3, 0.4, 0.5, -0.6, 0.7])
    with_ties = np.concatenate([differences, np.zeros(6)])
    assert signed_rank_p(with_ties) != pytest.approx(signed_rank_p(differences), abs=1e-6)
    # 13 are ranked, 6 of them zeros: ranks 7 to 13 are left, of which 8 and 12 speak for the second
    sums = [np.dot(signs, np.arange(7, 14)) for signs in product((0, 1), repeat=7)]
    at_least_as_far = [abs(total - 35) >= abs(8 + 12 - 35) for total in sums]
    assert signed_rank_p(with_ties) == pytest.approx(np.mean(at_least_as_far))


def test_rank_biserial_reaches_its_ends():
    assert rank_biserial(np.array([0.1, 2.0, 0.3])) == 1
    assert rank_biserial(np.array([-0.1, -2.0])) == -1
    assert rank_biserial(np.array([1.0, -1.0, 0.0])) == 0
    assert rank_biserial(np.zeros(4)) == 0


def test_holm_by_hand():
    """The smallest of three p-values counts thrice, the next twice, and none is below the one before."""
    found = pairwise(table(n=30, shifts=(0.06, 0.0, 0.01)), 100, 0).sort_values("p")
    expected = np.maximum.accumulate(found["p"] * [3, 2, 1]).clip(upper=1)
    assert found["p_holm"].tolist() == pytest.approx(expected.tolist())


def test_too_few_patients_give_no_p():
    few = table(n=5)
    found, nemenyi = rank_test(few)
    assert found[["friedman", "p", "critical_difference"]].isna().all(axis=None)
    assert nemenyi.isna().all(axis=None), "p = 1 would be a test's result"
    pairs = pairwise(few, 200, 0)
    assert pairs[["p", "p_holm"]].isna().all(axis=None)
    assert pairs[["difference", "low", "high"]].notna().all(axis=None)
    assert pairwise(few.iloc[:1], 200, 0)[["low", "high"]].isna().all(axis=None)


def test_one_network_has_no_pairs_and_two_no_friedman():
    assert len(pairwise(table()[["a"]], 200, 0)) == 0
    ranks, nemenyi = rank_test(table()[["a", "b"]])
    assert ranks["p"].isna().all() and nemenyi.isna().all(axis=None)
    assert rank_distribution(table()[["a"]], 50, 0).to_numpy().tolist() == [[1]]


def test_the_ranking_stays_where_networks_differ_and_not_where_they_do_not():
    clear = rank_distribution(table(n=40, shifts=(0.6, 0.3, 0.0)), 500, 0)
    assert list(clear.index) == ["a", "b", "c"]
    np.testing.assert_array_equal(clear.to_numpy(), np.eye(3))
    unclear = rank_distribution(table(shifts=(0.0, 0.0, 0.0)), 2000, 0)
    assert unclear.to_numpy().sum(axis=1) == pytest.approx(np.ones(3))
    assert unclear.iloc[0, 0] < 0.95
    pd.testing.assert_frame_equal(unclear, rank_distribution(table(shifts=(0.0, 0.0, 0.0)), 2000, 0))


def test_false_alarms_are_as_rare_as_promised(monkeypatch):
    monkeypatch.setattr("gc.collect", lambda: 0)  # multipletests calls it each time: half a second
    alarms = [(pairwise(table(seed=s, shifts=(0, 0, 0)), 100, 0)["p_holm"] < 0.05).any() for s in range(150)]
    assert np.mean(alarms) < 0.1
