"""Bootstrap intervals: against scipy, coverage, and refusals."""

import numpy as np
import pytest
from scipy import stats

from metaseg_nb.evaluation.intervals import bootstrap_interval, estimate, percentiles, share, times_drawn

# t(0.975) from a printed table, by patients
QUANTILES_OF_T = {6: 2.571, 12: 2.201, 20: 2.093, 54: 2.006}


@pytest.mark.parametrize("n", [12, 54])
def test_close_to_scipy(n):
    """The expanded percentile interval is a percentile interval of a higher level."""
    values = np.random.default_rng(0).beta(5, 2, size=n)
    ours = bootstrap_interval(values, n_resamples=20000)
    level = 1 - 2 * stats.norm.sf(np.sqrt(n / (n - 1)) * QUANTILES_OF_T[n])
    how = {"n_resamples": 20000, "method": "percentile", "confidence_level": level, "rng": 1}
    scipy = stats.bootstrap((values,), np.mean, **how).confidence_interval
    assert ours == pytest.approx((scipy.low, scipy.high), abs=5e-3 if n == 12 else 2e-3)


@pytest.mark.parametrize("n", QUANTILES_OF_T)
def test_the_interval_of_a_normal_mean_is_that_of_students_t(n):
    """Means of resamples have sd s√((n - 1) / n) / √n: of a normal shape, the interval ends at ± t s / √n."""
    sd = 3.0  # s of the patients
    resampled = stats.norm.ppf(np.linspace(0, 1, 2_000_001)[1:-1]) * sd * np.sqrt((n - 1) / n) / np.sqrt(n)
    half = QUANTILES_OF_T[n] * sd / np.sqrt(n)
    assert percentiles(resampled, n) == pytest.approx((-half, half), rel=1e-3)


@pytest.mark.parametrize("n", [6, 12])
def test_few_patients_without_any_effect_are_seldom_called_different(n):
    """5 % is meant; plain percentiles say it in 14 % of cohorts of 6, and 9 % of 12."""
    cohorts = np.random.default_rng(3).normal(0, 1, size=(1500, n))
    intervals = [bootstrap_interval(cohort, n_resamples=500) for cohort in cohorts]
    assert 0.035 < np.mean([not low <= 0 <= high for low, high in intervals]) < 0.085


def test_holds_the_true_mean_about_as_often_as_it_says():
    samples = np.random.default_rng(3).normal(0.7, 0.2, size=(400, 50))
    intervals = [bootstrap_interval(sample, n_resamples=500) for sample in samples]
    held = np.mean([low <= 0.7 <= high for low, high in intervals])
    assert 0.90 <= held <= 0.98


def test_two_values_by_hand():
    # Means of two draws from {0, 1}: 0, 0.5, 0.5, 1 with equal chance.
    assert bootstrap_interval([0, 1]) == (0, 1)


def test_same_seed_same_interval_and_shift():
    values = np.random.default_rng(1).random(30)
    low, high = bootstrap_interval(values)
    assert (low, high) == bootstrap_interval(list(values), seed=0) != bootstrap_interval(values, seed=1)
    assert bootstrap_interval(values + 3) == pytest.approx((low + 3, high + 3))
    assert low < values.mean() < high


@pytest.mark.parametrize("values", [[], [0.7]])
def test_fewer_than_two_values_give_no_interval(values):
    assert np.isnan(bootstrap_interval(values)).all()


@pytest.mark.parametrize("values", [[0.5] * 10, [0.0] * 4, [0.1 + 0.2, 0.3] * 5])
def test_equal_values_have_no_interval(values):
    """Four patients without a false lesion do not show that no patient has one; 0.3 and 0.1 + 0.2 are equal."""
    interval = bootstrap_interval(values)
    assert np.isnan(interval).all()
    assert estimate(values[0], *interval, ".1f") == f"{values[0]:.1f} (no interval: too few, or all equal)"


def test_values_that_are_no_numbers_are_named():
    with pytest.raises(ValueError, match="found 1 NaN or infinite"):
        bootstrap_interval([0.5, float("nan")])


def test_counting_how_often_patients_are_drawn_is_the_same_bootstrap():
    values = np.random.default_rng(2).random(13)
    drawn = times_drawn(13, 500, 4)
    assert set(drawn.sum(axis=1)) == {13}
    assert percentiles(drawn @ values / 13, 13) == pytest.approx(bootstrap_interval(values, 500, 4))


def test_resamples_without_the_statistic_are_passed_over():
    many = 10**9  # with so many patients the ends are the quantiles 0.025 and 0.975
    assert percentiles(np.array([np.nan, 1.0, np.nan, 3.0]), many) == pytest.approx((1.05, 2.95))
    assert np.isnan(percentiles(np.array([np.nan, np.nan]), many)).all()


# shares of all lesions


def test_a_share_by_hand():
    # draws of two patients: (0 of 1) twice, one of each (3 of 4, twice as likely), (3 of 3) twice
    assert share([0, 3], [1, 3]) == (3 / 4, 0, 1)


@pytest.mark.parametrize("seed", range(5))
def test_a_share_holds_the_ratio_and_is_the_same_each_time(seed):
    rng = np.random.default_rng(seed)
    wholes = rng.integers(1, 12, 30)
    parts = rng.binomial(wholes, 0.7)
    _, low, high = share(parts, wholes, seed=seed)
    assert 0 <= low < parts.sum() / wholes.sum() < high <= 1
    assert (low, high) == share(list(parts), list(wholes), seed=seed)[1:]
    assert (low, high) != share(parts, wholes, seed=seed + 1)[1:]


def test_a_share_with_one_lesion_each_is_the_interval_of_the_mean():
    detected = np.random.default_rng(0).integers(0, 2, 25)
    assert share(detected, np.ones(25))[1:] == pytest.approx(bootstrap_interval(detected))


def test_a_share_of_nothing_or_everything_is_no_certainty():
    """None of nine patients: Clopper and Pearson's upper bound is 1 - 0.025^(1/9), which no resample can say."""
    bound = 0.025 ** (1 / 9)
    assert share([0] * 9, [2] * 9)[1:] == pytest.approx((0, 1 - bound))
    assert share([2, 1, 4] * 3, [2, 1, 4] * 3)[1:] == pytest.approx((bound, 1))


@pytest.mark.parametrize(("parts", "wholes"), [([], []), ([1], [2])])
def test_a_share_of_fewer_than_two_patients_is_nothing(parts, wholes):
    assert np.isnan(share(parts, wholes)[1:]).all()
