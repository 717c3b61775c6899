"""Learning curves: numbers by hand, power laws found again, intervals that hold the truth about as often as stated."""

import numpy as np
import pandas as pd
import pytest

from metaseg_nb.annotation.comparison import budget_curves, fit_power_law, power_laws
from metaseg_nb.annotation.results import BudgetResults
from metaseg_nb.evaluation.intervals import bootstrap_interval

FACTS = {"share": 1.0, "annotation": "full", "unannotated": "unused", "recipe": "", "minutes": 60.0}


def results_of(arms, n_truth=4):
    """Results of one network; ``arms`` maps the annotated patients of an arm to Dice, shape (S, P)."""
    rows = [
        {"model": "unet", "arm": f"patients_{n}", "seed": s, "patient": f"p{p}", "dice": dice, "n_truth": n_truth}
        for n, values in arms.items()
        for s, of_seed in enumerate(np.atleast_2d(values))
        for p, dice in enumerate(of_seed)
    ]
    table = pd.DataFrame(rows)
    table["n_detected"] = table["dice"] * n_truth
    table = table.assign(n_missed=n_truth - table["n_detected"], n_false=table["dice"] * 10)
    names = [{"arm": f"patients_{n}", "title": f"{n} patients", "patients": n} | FACTS for n in arms]
    return BudgetResults(table, pd.DataFrame(), pd.DataFrame(names).set_index("arm"))


def law(patients, error):
    """Power laws of one network without any noise, six patients, two seeds."""
    results = results_of({n: np.full((2, 6), 1 - error(n)) for n in patients})
    return laws_of(results)


def laws_of(results):
    """Power laws of one network, a row per measure."""
    return power_laws(results, 300, 0).set_index("measure")


def test_a_power_law_is_found_again():
    table = law([10, 20, 40, 80], lambda n: 0.9 * n**-0.25)
    found = table.loc["dice"]
    assert (found["a"], found["b"], found["refusal"]) == (pytest.approx(0.9), pytest.approx(0.25), "")
    gain = 0.9 * (80**-0.25 - 160**-0.25)
    # without noise every resample is the same
    assert table.loc["dice", ["doubling", "doubling_low", "doubling_high"]].tolist() == pytest.approx([gain] * 3)
    assert table.loc["sensitivity", "doubling"] == pytest.approx(gain), "the missed share follows the same law here"


def test_a_power_law_by_hand():
    # each time twice the patients, errors of 1/2, 1/4, 1/8: a straight line of slope 1 through error 1 at one patient
    # and in a resample the same error each time
    laws, _ = fit_power_law(np.array([2.0, 4.0, 8.0]), np.array([[0.5, 0.25, 0.125], [0.5, 0.5, 0.5]]), 9)
    assert {name: values.round(9).tolist() for name, values in laws.items()} == {
        "a": [1, 0.5],
        "b": [1, 0],
        "doubling": [1 / 16, 0],
    }


@pytest.mark.parametrize(
    ("patients", "error", "why"),
    [
        ([10, 20], lambda n: n**-0.5, "2 budget(s)"),
        ([10], lambda n: 0.5, "1 budget(s)"),
        ([10, 20, 40], lambda n: 0.01 * n**0.5, "does not fall"),
        ([10, 20, 40], lambda n: 0.5, "does not fall"),
    ],
)
def test_what_no_power_law_can_be_said_of_is_refused(patients, error, why):
    assert why in law(patients, error).loc["dice", "refusal"]


def test_a_curve_that_flattens_is_no_power_law_if_that_is_beyond_chance():
    patients, errors = np.array([2.0, 4.0, 8.0]), np.array([0.92, 0.66, 0.70])
    rng = np.random.default_rng(0)
    sure, unsure = (errors + rng.normal(0, sd, (500, 1)) + rng.normal(0, sd / 10, (500, 3)) for sd in (0.03, 0.5))
    refusal = fit_power_law(patients, np.vstack([errors, sure]), 60)[1]
    # by hand: the line through the logarithms has exp(-0.2852 - 0.1366) = 0.656 at 8 patients
    assert refusal.startswith("a power law does not fit: with 8 patients the result differs from it by -0.04 [-0.0")
    # two resamples of 500 below the law: beyond chance with 60 patients, and not with six (0.2 % on each side)
    few_below = np.tile(errors, (501, 1)) * np.where(np.arange(501) == 1, 0.4, 1)[:, None] ** [0, 0, 1]
    few_below[2] = few_below[1]
    assert fit_power_law(patients, few_below, 60)[1] != "" == fit_power_law(patients, few_below, 6)[1]
    assert fit_power_law(patients, np.vstack([errors, np.abs(unsure)]), 60)[1] == ""


def test_budgets_of_the_same_number_of_patients_are_one():
    results = results_of({10: [[0.5] * 6], 20: [[0.6] * 6], 21: [[0.7] * 6]})
    results.arms.loc["patients_21", "patients"] = 20
    assert "2 budget(s)" in laws_of(results).loc["dice", "refusal"]


def test_no_missed_lesion_counts_as_half_of_one():
    found = laws_of(results_of({n: [[1.0] * 5] for n in (2, 4, 8)})).loc["sensitivity"]
    assert found["a"] * 4 ** -found["b"] == pytest.approx(0.5 / 20)


def test_a_cohort_without_lesions_has_no_missed_share():
    results = results_of({n: [[0.5] * 6] for n in (2, 4, 8)}, n_truth=0)
    assert laws_of(results).loc["sensitivity", "refusal"] == "there are no lesions"
    assert budget_curves(results, 300, 0)["sensitivity"].isna().all()


def test_curves_by_hand():
    results = results_of({10: [[0.2, 0.4, 0.9], [0.4, 0.4, 0.7]]})
    row = budget_curves(results, 300, 0).iloc[0]
    assert row[["dice", "sensitivity", "false_per_patient"]].tolist() == pytest.approx([0.5, 0.5, 5.0])
    assert row[["n", "seeds", "patients", "minutes"]].tolist() == [3, 2, 10, 60]
    assert row["dice_low"] < 0.5 < row["dice_high"]
    assert row["false_per_patient_low"] == pytest.approx(10 * row["dice_low"])


def test_sensitivity_is_a_share_of_all_lesions():
    results = results_of({10: [[0.0, 1.0]]})
    results.patients["n_truth"], results.patients["n_detected"] = [9, 1], [0, 1]
    assert budget_curves(results, 300, 0)["sensitivity"].item() == pytest.approx(0.1)


@pytest.mark.parametrize(("dice", "interval"), [(0.0, (0, 0.265)), (1.0, (0.735, 1))])
def test_none_or_all_of_the_lesions_found_is_no_certainty(dice, interval):
    results = results_of({10: [[dice] * 12] * 2})
    row = budget_curves(results, 300, 0).iloc[0]
    # Clopper and Pearson: 0 of 12, 12 of 12
    assert (row["sensitivity_low"], row["sensitivity_high"]) == pytest.approx(interval, abs=0.001)


@pytest.mark.parametrize(("n", "close"), [(40, 0.005), (7, 0.02)])
def test_with_one_seed_the_interval_is_that_of_patients(n, close):
    values = np.random.default_rng(0).uniform(0, 1, n)
    row = budget_curves(results_of({10: values[None]}), 20000, 0).iloc[0]
    assert (row["dice_low"], row["dice_high"]) == pytest.approx(bootstrap_interval(values, 20000), abs=close)


def test_seeds_that_differ_widen_the_interval():
    patients = np.random.default_rng(0).normal(0.5, 0.05, 50)
    rows = [
        budget_curves(results_of({10: patients + seeds}), 2000, 0).iloc[0]
        for seeds in (np.zeros((3, 1)), np.array([[-0.1], [0.0], [0.1]]))
    ]
    narrow, wide = (row["dice_high"] - row["dice_low"] for row in rows)
    assert wide > 3 * narrow


def test_a_mean_of_equal_values_has_no_interval():
    """Six patients of Dice 0 without a false lesion do not show that all others are like them."""
    row = budget_curves(results_of({10: [[0.0] * 6] * 2}), 300, 0).iloc[0]
    assert row[["dice", "false_per_patient"]].tolist() == [0, 0]
    assert row[["dice_low", "dice_high", "false_per_patient_low", "false_per_patient_high"]].isna().all()


def test_one_patient_has_no_interval():
    results = results_of({10: [[0.5], [0.7]]})
    row = budget_curves(results, 300, 0).iloc[0]
    assert row["dice"] == pytest.approx(0.6)
    assert row[["dice_low", "dice_high"]].isna().all()


def simulated(rng, budgets, a, b, n_patients=60, n_seeds=5):
    """Dice of patients who are as hard in every arm, seeds that are better or worse in an arm, and noise."""
    hard = rng.normal(0, 0.10, (1, n_patients))
    return {
        n: 1 - a * n**-b + hard + rng.normal(0, 0.01, (n_seeds, 1)) + rng.normal(0, 0.08, (n_seeds, n_patients))
        for n in budgets
    }


def test_with_noise_a_and_b_are_found_and_intervals_hold_the_truth_about_as_often_as_they_should():
    budgets, a, b, rng = (10, 20, 40, 80), 0.9, 0.3, np.random.default_rng(1)
    truth, found, held = a * (80**-b - 160**-b), [], []
    for _ in range(150):
        row = laws_of(results_of(simulated(rng, budgets, a, b))).loc["dice"]
        held.append(row["doubling_low"] < truth < row["doubling_high"])
        found.append(row[["a", "b", "doubling"]].astype(float))
    assert np.median(found, axis=0) == pytest.approx([a, b, truth], rel=0.05)
    assert 0.86 <= np.mean(held) <= 1
