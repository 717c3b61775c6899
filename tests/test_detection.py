"""Detection over thresholds: FROC, average precision, ROC; against picai_eval and by hand."""

import json
from dataclasses import replace

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from mets_2026_pairs import COUNTS as METS_2026

from metaseg_nb.cohort.cases import LesionRule
from metaseg_nb.cohort.problems import CohortError
from metaseg_nb.cohort.volumes import read_lesions, read_volume
from metaseg_nb.evaluation.calibration import area_under_roc, probability_bins
from metaseg_nb.evaluation.comparison import make_leaderboard
from metaseg_nb.evaluation.detection import (
    FALSE_RATES,
    FROC_THRESHOLDS,
    average_precision,
    detections_by_threshold,
    froc,
    froc_points,
    operating_points,
)
from metaseg_nb.evaluation.lesion_metrics import detection_counts, lesion_metrics
from metaseg_nb.evaluation.scoring import METRICS, score_probability
from metaseg_nb.inference.decision import Decision

CUBE = (1.0, 1.0, 1.0)


@pytest.fixture(scope="module")
def picai(shared_data):
    """Ten detection maps with their labels, and picai_eval's results for them."""
    folder = shared_data / "metric_vectors" / "picai_eval"
    maps = {}
    for case in range(10):
        files = (folder / "test-maps" / f"case-{case}_{kind}.nii.gz" for kind in ("detection_map", "label"))
        maps[f"case-{case}"] = tuple(np.asarray(nib.load(file).dataobj) for file in files)
    return maps, json.loads((folder / "output-expected" / "metrics-full-expected.json").read_text())


def candidates(expected, threshold):
    """Cases of picai_eval's results as a table: its candidates are lesion or not, with a confidence."""
    rows = []
    for case, results in expected["lesion_results"].items():
        found = [is_lesion for is_lesion, confidence, _ in results if confidence >= threshold]
        n_truth = sum(is_lesion for is_lesion, _, _ in results)
        rows.append((case, threshold, n_truth, sum(found), len(found) - sum(found)))
    return pd.DataFrame(rows, columns=["patient", "threshold", "n_truth", "n_detected", "n_false"])


def test_curves_are_those_of_picai_eval(picai):
    maps, expected = picai
    detections = pd.concat([candidates(expected, threshold) for threshold in (1.0, 2.0)]).assign(model="picai")
    curve = froc(detections)
    assert curve["n_truth"].tolist() == [expected["num_lesions"]] * 2
    assert curve["threshold"].tolist() == expected["thresholds"][:2]
    assert curve["sensitivity"].tolist() == pytest.approx(expected["lesion_TPR"][:2])
    assert curve["false_per_patient"].tolist() == pytest.approx(expected["lesion_FPR"][:2], abs=1e-7)
    assert average_precision(detections, 100, 0)[0] == pytest.approx(expected["AP"])
    scores, targets = (np.array([expected[name][case] for case in maps]) for name in ("case_pred", "case_target"))
    assert scores.tolist() == [confidence.max() for confidence, _ in maps.values()]
    assert area_under_roc(scores, targets, 100, 0)[0] == pytest.approx(expected["auroc"])


# Where BraTS-METS says something else than picai_eval, which wants an overlap (IoU) of 0.1, one to one:
# in cases 5 and 9 a candidate overlaps a lesion by 3 voxels only; in 7 and 8 one candidate covers two lesions.
TOUCHED = {"case-5": (0, -1), "case-7": (1, 0), "case-8": (1, 0), "case-9": (1, -1)}


def test_maps_are_counted_as_picai_eval_counts_them_but_for_the_rule_of_touching(picai):
    maps, expected = picai
    theirs = candidates(expected, 1.0).set_index("patient")
    for case, (confidence, label) in maps.items():
        ours = detections_by_threshold(label > 0, confidence, CUBE, (1.0,)).iloc[0]
        assert ours["n_truth"] == theirs.loc[case, "n_truth"], case
        more_detected, more_false = TOUCHED.get(case, (0, 0))
        assert ours["n_detected"] == theirs.loc[case, "n_detected"] + more_detected, case
        assert ours["n_false"] == theirs.loc[case, "n_false"] + more_false, case


def test_counting_alone_counts_as_lesion_metrics_does():
    rng = np.random.default_rng(0)
    for _ in range(6):
        truth, prediction = rng.random((2, 14, 13, 12)) < 0.01
        prediction |= np.roll(truth, 1, axis=0) & (rng.random(truth.shape) < 0.7)
        for spacing_mm in ((1.0, 2.0, 1.5), (1.0, 1.0, 0.9)):
            full, _ = lesion_metrics(truth, prediction, spacing_mm)
            counts = detection_counts(truth, prediction, spacing_mm)
            assert counts == {name: full[name] for name in counts}


def test_each_threshold_by_hand():
    truth, confidence = np.zeros((20, 8, 8), bool), np.zeros((20, 8, 8))
    truth[2:4, 2:4, 2:4] = truth[14:16, 2:4, 2:4] = True
    confidence[2, 2, 2], confidence[14, 2, 2], confidence[8, 6, 6] = 0.9, 0.3, 0.6
    table = detections_by_threshold(truth, confidence, CUBE, (0.2, 0.3, 0.5, 0.9, 0.95))
    assert table["n_truth"].tolist() == [2] * 5
    assert table["n_detected"].tolist() == [2, 2, 1, 1, 0]  # a voxel that reaches the threshold counts
    assert table["n_false"].tolist() == [1, 1, 1, 0, 0]


def two_cases_of_a_patient():
    """Patient p has two cases (3 and 1 lesions), q one with 2 lesions; at 0.5 and 0.9."""
    rows = [("p1", "p", 0.5, 3, 2, 1), ("p2", "p", 0.5, 1, 0, 4), ("q", "q", 0.5, 2, 1, 1)]
    rows += [("p1", "p", 0.9, 3, 1, 0), ("p2", "p", 0.9, 1, 0, 0), ("q", "q", 0.9, 2, 1, 0)]
    columns = ["case", "patient", "threshold", "n_truth", "n_detected", "n_false"]
    return pd.DataFrame(rows, columns=columns).assign(model="unet")


def test_froc_averages_a_patients_cases_and_pools_lesions():
    curve = froc(two_cases_of_a_patient())
    assert curve["threshold"].tolist() == [0.9, 0.5]
    # p: 2 lesions, 1 and 1/2 of them found, 5/2 and 0 false; q: 2 lesions, 1 found, 1 and 0 false
    assert curve["sensitivity"].tolist() == [1.5 / 4, 2 / 4]
    assert curve["false_per_patient"].tolist() == [0, 3.5 / 2]
    found = average_precision(two_cases_of_a_patient(), 100, 0)[0]
    assert found == pytest.approx(1.5 / 4 + 0.5 / 4 * 2 / 5.5)
    points = froc_points(two_cases_of_a_patient(), ["unet"], 200, 0)
    assert points["lesions"].unique().tolist() == [6], "all lesions that there are"
    assert points.set_index("false_per_patient").loc[[1, 2], "sensitivity"].tolist() == [1.5 / 4, 2 / 4]


def test_a_threshold_has_its_place_on_the_curve_also_with_two_cases_a_patient():
    """The leaderboard's row of a threshold, the dot in the figure, and the curve there are one point."""
    detections = two_cases_of_a_patient()
    curve = froc(detections).set_index("threshold")
    for threshold, cases in detections.groupby("threshold"):
        cases = cases.assign(model="unet", dice=0.5, **dict.fromkeys([*METRICS, *METS_2026], 0.5), n_missed=0)
        row = make_leaderboard(cases, 200, 0).iloc[0]
        assert row["false_per_patient"] == pytest.approx(curve.loc[threshold, "false_per_patient"])
        assert row["lesion_sensitivity"] == pytest.approx(curve.loc[threshold, "sensitivity"])


def test_average_precision_counts_no_gain_twice():
    counts = {"n_truth": 20, "n_detected": [10, 8, 10, 20], "n_false": [0, 2, 10, 60]}
    table = pd.DataFrame({"patient": "p", "threshold": [0.9, 0.8, 0.7, 0.6], **counts})
    assert average_precision(table, 100, 0)[0] == pytest.approx(0.5 + 0.5 * 0.25)


def two_patients(found=(2, 0)):
    """At 0.9 nothing false; at 0.5 all that is found, with 1 and 3 false lesions; of 2 and 4 lesions."""
    rows = [("unet", "p", 0.9, 2, 1, 0), ("unet", "q", 0.9, 4, 0, 0)]
    rows += [("unet", "p", 0.5, 2, found[0], 1), ("unet", "q", 0.5, 4, found[1], 3)]
    return pd.DataFrame(rows, columns=["model", "patient", "threshold", "n_truth", "n_detected", "n_false"])


def test_froc_is_read_at_the_usual_rates():
    points = froc_points(two_patients((2, 3)), ["unet"], 4000, 0).set_index("false_per_patient")
    assert list(points.index) == list(FALSE_RATES)
    assert points[["patients", "lesions"]].drop_duplicates().to_numpy().tolist() == [[2, 6]]
    assert points.loc[[0.125, 1], "sensitivity"].tolist() == pytest.approx([1 / 6] * 2)
    assert points.loc[[2, 8], "sensitivity"].tolist() == pytest.approx([5 / 6] * 2)
    # only p: 1/2 at no false lesion; only q: 0 there, and three false lesions a patient that 2 does not buy
    assert points.loc[0.125, ["low", "high"]].tolist() == [0, 1 / 2]
    assert points.loc[2, ["low", "high"]].tolist() == [0, 1]
    assert points.loc[4, ["low", "high"]].tolist() == [3 / 4, 1]


def test_what_no_threshold_allows_is_not_reached():
    points = froc_points(two_patients().query("threshold == 0.5"), ["unet"], 200, 0)
    assert points.set_index("false_per_patient").loc[[1, 2], "sensitivity"].tolist() == pytest.approx([0, 2 / 6])


def test_a_point_that_is_the_same_in_all_resamples_has_no_interval():
    """0 to 0 would say that no other patients could do better."""
    points = froc_points(two_patients().query("threshold == 0.5"), ["unet"], 200, 0).set_index("false_per_patient")
    assert points.loc[0.125, ["sensitivity", "low", "high"]].tolist() == pytest.approx([0, np.nan, np.nan], nan_ok=True)
    assert points.loc[4, "low"] < points.loc[4, "high"]
    all_found = froc_points(two_patients((2, 4)), ["unet"], 200, 0).set_index("false_per_patient").loc[8]
    assert all_found[["sensitivity", "low", "high"]].tolist() == pytest.approx([1, np.nan, np.nan], nan_ok=True)


def test_average_precision_has_the_interval_of_its_resamples():
    table = two_patients((2, 3))
    found, low, high = average_precision(table, 4000, 0)
    ends = [average_precision(table[table["patient"] == patient], 100, 0)[0] for patient in "pq"]
    assert (low, high) == pytest.approx((min(ends), max(ends)))
    assert low < found < high


def test_resamples_without_lesions_are_passed_over_and_one_patient_has_no_interval():
    table = two_patients((2, 0)).assign(n_truth=lambda t: t["n_truth"].where(t["patient"] == "p", 0))
    assert np.isfinite(average_precision(table, 500, 0)).all(), "q has no lesion: a resample of q alone says nothing"
    one = table.query("patient == 'p'")
    assert froc_points(one, ["unet"], 100, 0)[["low", "high"]].isna().all(axis=None)
    assert np.isnan(average_precision(one, 100, 0)[1:]).all()


def test_area_under_roc_by_hand():
    def area(score, positive):
        return area_under_roc(np.array(score), np.array(positive), 200, 0)[0]

    assert area([0.9, 0.8, 0.1], [1, 1, 0]) == 1
    assert area([0.5, 0.5], [1, 0]) == 0.5
    assert area([3, 1, 2], [1, 0, 1]) == 1
    assert area([1, 2, 3, 4], [1, 0, 1, 0]) == 0.25
    assert np.isnan(area([1.0, 2.0], [1, 1]))
    # resamples hold negatives and positives in other shares, or no negative
    assert area_under_roc(np.arange(10), np.arange(10) >= 5, 2000, 0) == (1, 1, 1)


@pytest.mark.parametrize("failures", [1, 4, 16, 19])
def test_an_area_of_few_positives_or_negatives_has_no_interval(failures):
    """Random scores: with one positive of 20 patients, the interval left 0.5 out in 55 % of cohorts."""
    random = np.random.default_rng(0).random(20)
    found, low, high = area_under_roc(random, np.arange(20) < failures, 200, 0)
    assert 0 <= found <= 1 and np.isnan([low, high]).all()


def test_random_scores_seldom_tell_five_failures_from_others():
    scores = np.random.default_rng(0).random((300, 100))
    areas = np.array([area_under_roc(of, np.arange(100) < 5, 300, 0) for of in scores])
    assert np.mean((areas[:, 1] > 0.5) | (areas[:, 2] < 0.5)) < 0.06, "10 % with percentiles for 100 patients"


def test_what_an_operating_point_finds_and_costs_by_hand():
    """The two cases of a patient are averaged: 3 lesions, of which 2.5 and 1.5 are found."""
    rows = [("p", "sensitive", 2, 2, 3), ("p", "sensitive", 4, 3, 1), ("q", "sensitive", 1, 1, 0)]
    rows += [("p", "specific", 2, 1, 0), ("p", "specific", 4, 2, 0), ("q", "specific", 1, 0, 0)]
    found = pd.DataFrame(rows, columns=["patient", "operating_point", "n_truth", "n_detected", "n_false"])
    table = operating_points(found.assign(model="unet"), ["unet"], 500, 0).set_index("operating_point")
    assert table["patients"].tolist() == [2, 2]
    assert table["sensitivity"].to_dict() == pytest.approx({"sensitive": 3.5 / 4, "specific": 1.5 / 4})
    assert table["false_per_patient"].to_dict() == pytest.approx({"sensitive": 1.0, "specific": 0.0})
    assert table.loc["sensitive", ["false_per_patient_low", "false_per_patient_high"]].tolist() == [0, 2]
    assert table.loc["sensitive", ["sensitivity_low", "sensitivity_high"]].tolist() == pytest.approx([2.5 / 3, 1])


def test_an_operating_points_share_of_lesions_is_that_of_the_leaderboard_also_where_all_are_found():
    """Then all resamples are equal, but the share is not certain: three of three patients say little."""
    counts = {"n_truth": [2, 4, 0, 1], "n_detected": [2, 4, 0, 1], "n_false": [3, 0, 0, 1]}
    found = pd.DataFrame({"model": "unet", "patient": list("abcd"), "case": list("abcd"), **counts})
    row = operating_points(found.assign(operating_point="balanced"), ["unet"], 500, 0).iloc[0]
    assert row["sensitivity"] == row["sensitivity_high"] == 1
    assert row["sensitivity_low"] == pytest.approx(0.025 ** (1 / 3)), "Clopper and Pearson"
    board = make_leaderboard(found.assign(dice=0.5, **dict.fromkeys([*METRICS, *METS_2026], 0.5)), 500, 0).iloc[0]
    columns = ["false_per_patient", "false_per_patient_low", "false_per_patient_high"]
    assert row[columns].tolist() == board[columns].tolist()
    assert row["sensitivity_low"] == board["lesion_sensitivity_low"]


def test_bins_by_hand():
    probability = np.array([0.0, 0.04, 0.05, 0.51, 0.99, 1.0]).reshape(1, 2, 3)
    truth = np.array([0, 1, 0, 1, 1, 1]).reshape(1, 2, 3) > 0
    table = probability_bins(probability, truth).set_index("bin")
    assert table.loc[[0, 1, 10, 19], "n_voxels"].tolist() == [2, 1, 1, 2]
    assert table["n_voxels"].sum() == 6
    assert table.loc[[0, 1, 10, 19], "n_lesion"].tolist() == [1, 0, 1, 2]
    assert table.loc[19, "probability_sum"] == pytest.approx(1.99)


@pytest.fixture
def scored(write_case, store):
    """A case of two lesions on disk, and stored as it is there."""

    def score(probability_of):
        case = replace(write_case("case"), fold=1)
        image, truth = read_volume(case.image, ""), read_lesions(case, LesionRule()).array > 0
        stored = store("case", image.array, truth)
        decisions = {"sensitive": Decision(0.5, 0.5, 0.0), "specific": Decision(0.5, 0.9, 0.0)}
        return score_probability(case, stored, probability_of(truth), decisions, LesionRule())

    return score


def test_a_case_gives_its_tables_under_its_name(scored):
    detections, points, calibration = scored(lambda truth: np.where(truth, 0.7, 0.0))
    for table in (detections, points, calibration):
        assert set(table["case"]) == {"case"}
        assert set(table["patient"]) == {"patient_case"}
        assert set(table["fold"]) == {1}
    assert detections["threshold"].tolist() == list(FROC_THRESHOLDS)
    found = detections.set_index("threshold")
    assert found["n_truth"].unique().tolist() == [1]  # the other lesion has but one voxel
    assert found.loc[[0.05, 0.65, 0.75, 0.99], "n_detected"].tolist() == [1, 1, 0, 0]
    points = points.set_index("operating_point")
    assert points["n_detected"].to_dict() == {"sensitive": 1, "specific": 0}
    assert points.loc["specific", ["threshold", "peak", "min_lesion_mm3"]].tolist() == [0.5, 0.9, 0.0]
    assert calibration.set_index("bin").loc[[14, 0], "n_lesion"].tolist() == [3 * 4 * 5 + 1, 0]


@pytest.mark.parametrize("wrong", [np.nan, 1.5, -0.1])
def test_probabilities_that_are_none_are_named(scored, wrong):
    with pytest.raises(CohortError, match=r"case case, file probability: found probabilities from .*expected finite"):
        scored(lambda truth: np.where(truth, wrong, 0.0))
