"""Calibration and uncertainty: diagrams by hand, error of a perfect and of a boastful network, failures flagged."""

import numpy as np
import pandas as pd
import pytest

from metaseg_nb.evaluation.calibration import (
    calibration_error,
    flags_of_failures,
    patient_uncertainty,
    probability_bins,
    probability_scores,
    reliability,
)


def error(calibration):
    return calibration_error(calibration, 100, 0)[0]


def bins(probability, truth, patient="p", model="unet"):
    shape = (len(probability), 1, 1)
    table = probability_bins(np.reshape(probability, shape), np.reshape(truth, shape).astype(bool))
    return table.assign(patient=patient, case=patient, model=model)


def test_the_diagram_by_hand():
    table = pd.concat([bins([0.7, 0.72, 0.01, 0.0], [1, 0, 0, 1]), bins([0.7, 0.22], [1, 0], "q")])
    diagram = reliability(table)
    assert diagram["bin"].tolist() == [4, 14], "the lowest bin, and bins without voxels, are left out"
    assert diagram["n_voxels"].tolist() == [1, 3]
    assert diagram["probability"].tolist() == pytest.approx([0.22, (0.7 + 0.72 + 0.7) / 3])
    assert diagram["observed"].tolist() == pytest.approx([0, 2 / 3])
    gap = abs(2.12 / 3 - 2 / 3)
    assert error(table) == pytest.approx((0.22 + 3 * gap) / 4)


def test_a_patient_with_two_cases_counts_once():
    once = pd.concat([bins([0.7, 0.72, 0.01], [1, 0, 0]), bins([0.7, 0.22], [1, 0], "q")])
    twice = pd.concat([once, bins([0.7, 0.72, 0.01], [1, 0, 0]).assign(case="p later")])
    pd.testing.assert_frame_equal(reliability(twice), reliability(once))
    assert error(twice) == error(once)


def test_a_network_that_means_what_it_says_has_almost_no_error():
    rng = np.random.default_rng(0)
    probability = rng.uniform(0, 1, 200_000)
    honest = bins(probability, rng.random(200_000) < probability)
    boastful = bins(probability, rng.random(200_000) < probability**2)
    assert error(honest) < 0.01
    assert error(boastful) > 0.1


def test_doubtless_voxels_hide_no_error():
    wrong = bins([0.9] * 10, [0] * 10)
    diluted = bins([0.9] * 10 + [0.0] * 10_000, [0] * 10_010)
    assert error(diluted) == error(wrong)
    assert np.isnan(error(bins([0.0, 0.01], [0, 0])))


def test_the_error_has_the_interval_of_its_resamples():
    both_ways, boastful = bins([0.9, 0.3], [0, 1], "p"), bins([0.9, 0.9, 0.9], [1, 0, 0], "q")
    both = pd.concat([both_ways, boastful])
    # |3.6 - 1| and |0.3 - 1| of 5 voxels; p alone |0.9 - 0| and |0.3 - 1| of 2; q alone |2.7 - 1| of 3
    assert error(both) == pytest.approx(3.3 / 5)
    assert calibration_error(both, 500, 0)[1:] == pytest.approx((1.7 / 3, 1.6 / 2))
    assert np.isnan(calibration_error(both_ways, 500, 0)[1:]).all()


def test_uncertainty_by_hand():
    table = pd.concat([bins([0.5, 0.5], [1, 0], "half"), bins([0.9, 0.0], [1, 0], "sure"), bins([0.0], [1], "blind")])
    scores = pd.DataFrame({"unet": {"half": 0.5, "sure": 0.9, "blind": 0.0}})
    unsure = patient_uncertainty(table, scores).set_index("patient")["uncertainty"]
    assert unsure["half"] == pytest.approx(1)
    assert unsure["sure"] == pytest.approx(-0.9 * np.log2(0.9) - 0.1 * np.log2(0.1))
    assert unsure["blind"] == 0, "what is ruled out everywhere is not doubted"


def patients(confident_when_right):
    """Ten patients, half of them failures; who is unsure is the network's choice."""
    tables, dice = [], {}
    for i in range(10):
        fails = i % 2 == 0
        unsure = fails if confident_when_right else not fails
        tables.append(bins([0.55 + i / 1000 if unsure else 0.95] * 4, [1] * 4, f"p{i}"))
        dice[f"p{i}"] = 0.1 if fails else 0.9
    return pd.concat(tables), pd.Series(dice)


def scored(table, dice):
    """Of a network that finds one lesion of two."""
    detections = pd.DataFrame({"model": "unet", "patient": ["p0"], "threshold": 0.5, "n_truth": 2})
    uncertain = patient_uncertainty(table, pd.DataFrame({"unet": dice}))
    found = probability_scores(detections.assign(n_detected=1, n_false=0), table, ["unet"], 200, 0)
    return found.merge(flags_of_failures(uncertain, "uncertainty", ["unet"], 200, 0), on="model").iloc[0]


def test_failures_are_flagged_by_doubt_and_not_by_confidence():
    found = scored(*patients(True))
    assert (found["patients"], found["failures"], found["auroc"]) == (10, 5, 1)
    assert found["auroc_low"] == found["auroc_high"] == 1
    low = found["auroc_low"]
    assert found["answer"] == f"higher in failures, area under the ROC curve 1.00 (95 % interval {low:.2f} to 1.00)"
    other = scored(*patients(False))
    assert other["auroc"] == 0 and other["answer"].startswith("lower in failures, area under the ROC curve 0.00 (")


def test_without_a_failure_there_is_nothing_to_flag():
    table, dice = patients(True)
    found = scored(table, dice * 0 + 0.9)
    assert (found["failures"], found["answer"]) == (0, "no failures")
    assert found[["auroc", "auroc_low", "auroc_high"]].isna().all()


def test_few_failures_or_successes_tell_nothing():
    """A network that is right in all but four, or wrong in all but one, and unsure in the failures alone."""
    for n_failures, answer in (
        (1, "too few failures to tell"),
        (4, "too few failures to tell"),
        (9, "too few successes"),
    ):
        unsure = (np.arange(10) < n_failures).astype(float)
        table = pd.DataFrame({"model": "unet", "patient": range(10), "dice": 0.9 - 0.8 * unsure, "uncertainty": unsure})
        (row,) = flags_of_failures(table, "uncertainty", ["unet"], 200, 0).itertuples()
        assert (row.failures, row.auroc) == (n_failures, 1)
        assert np.isnan([row.auroc_low, row.auroc_high]).all() and row.answer.startswith(answer)


def test_a_score_that_says_nothing_of_failures_is_not_clearly_different():
    table = pd.DataFrame(
        {"model": "unet", "patient": range(12), "dice": [0.2, 0.8] * 6, "uncertainty": [1, 1, 0, 0] * 3}
    )
    answer = flags_of_failures(table, "uncertainty", ["unet"], 200, 0)["answer"].item()
    assert answer.startswith("not clearly different, area under the ROC curve 0.50 (95 % interval 0.")


def test_each_network_has_its_row_and_each_patient_an_uncertainty():
    table, dice = patients(True)
    found = scored(table, dice)
    assert (found["model"], found["average_precision"]) == ("unet", 0.5)
    assert found["ece_low"] <= found["ece"] <= found["ece_high"]
    uncertain = patient_uncertainty(table, pd.DataFrame({"unet": dice}))
    assert uncertain["patient"].tolist() == [f"p{i}" for i in range(10)]
    assert uncertain["dice"].tolist() == dice.tolist()
