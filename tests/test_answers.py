"""The sentences of cross-validation: their numbers are the tables', and they say when nothing can be said."""

from dataclasses import replace
from itertools import pairwise as neighbours
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from metaseg_nb.cohort.cases import Case, Cohort
from metaseg_nb.evaluation import answers
from metaseg_nb.evaluation.agreement import limits_of_agreement, missed_and_false, volumes_cm3
from metaseg_nb.evaluation.claims import ALL, claim_table, claims_by_network, study_claims
from metaseg_nb.evaluation.comparison import pairwise, rank_distribution, rank_test
from metaseg_nb.evaluation.intervals import bootstrap_interval
from metaseg_nb.evaluation.leaderboard import MEANS, make_leaderboard
from metaseg_nb.evaluation.strata import stratified

COHORT = Cohort("tiny", "made by hand", [])
FLOOR = "intensity_threshold"
RESAMPLING = (500, 0)


def metrics_of(dice, **columns):
    """A row per (model, patient); ``dice`` maps a model to its patients' values."""
    rows = [(model, f"p{i}", value) for model, values in dice.items() for i, value in enumerate(values)]
    table = pd.DataFrame(rows, columns=["model", "patient", "dice"])
    counts = {"n_truth": 2, "n_detected": 1, "n_missed": 1, "n_false": 0} | columns
    return table.assign(case=table["patient"], **dict.fromkeys(MEANS, 0.5), **counts)


THREE = {"segresnet": [0.5, 0.7, 0.9], "unet": [0.4, 0.0, 0.8]}


def test_the_answer_holds_the_leaderboards_numbers():
    metrics = metrics_of(THREE | {FLOOR: [0.75, 0.75, 0.75]})
    text = answers.answer(make_leaderboard(metrics, *RESAMPLING), metrics, COHORT, *RESAMPLING)
    low, high = bootstrap_interval([0.5, 0.7, 0.9], *RESAMPLING)
    lead = "**No network is better than the intensity threshold.** SegResNet has the highest mean Dice: 0.70 "
    assert text.startswith(f"{lead}(95 % interval {low:.2f} to {high:.2f}, 2 networks, n = 3 patients of the cohort")
    assert "*tiny*, 0 of them with Dice 0). The intensity threshold reaches 0.75" in text
    # patient by patient 0.5, 0.7 and 0.9 against 0.75
    low, high = bootstrap_interval([-0.25, -0.05, 0.15], *RESAMPLING)
    between = f"patient by patient: -0.05 (95 % interval {low:+.2f} to {high:+.2f})"
    assert f"reaches 0.75; SegResNet minus threshold, {between}." in text


@pytest.mark.parametrize(
    ("floor", "lead"),
    [
        ([0.75, 0.75, 0.75], "**No network is better than the intensity threshold.** SegResNet has"),
        ([0.6, 0.6, 0.89], "**No network is surely better than the intensity threshold.** SegResNet has"),
        ([0.4, 0.6, 0.8], "**SegResNet has the highest mean Dice: 0.70** ("),  # better in every patient
    ],
)
def test_the_first_words_say_whether_a_network_is_better_than_the_floor(floor, lead):
    metrics = metrics_of(THREE | {FLOOR: floor})
    text = answers.answer(make_leaderboard(metrics, *RESAMPLING), metrics, COHORT, *RESAMPLING)
    assert text.startswith(lead)
    assert f"The intensity threshold reaches {np.mean(floor):.2f}; SegResNet minus threshold" in text


def test_networks_are_compared_by_their_paired_difference_not_by_two_intervals():
    """Patients differ far more than networks: the intervals of the means overlap, and one is better in each patient."""
    metrics = metrics_of({"segresnet": [0.21, 0.52, 0.93], "unet": [0.2, 0.5, 0.9]})
    board = make_leaderboard(metrics, *RESAMPLING)
    assert board.loc[1, "dice_high"] > board.loc[0, "dice_low"]
    text = answers.answer(board, metrics, COHORT, *RESAMPLING)
    assert text.endswith("SegResNet minus U-Net, patient by patient: +0.02 (95 % interval +0.01 to +0.03).")
    metrics = metrics_of({"segresnet": [0.1, 0.6, 0.9], "unet": [0.2, 0.5, 0.6]})
    text = answers.answer(make_leaderboard(metrics, *RESAMPLING), metrics, COHORT, *RESAMPLING)
    low, high = bootstrap_interval([-0.1, 0.1, 0.3], *RESAMPLING)
    assert f"patient by patient: +0.10 (95 % interval {low:+.2f} to {high:+.2f}). So it is not known which" in text


def test_networks_of_equal_dice_share_the_lead():
    metrics = metrics_of({"segresnet": [0.0, 0.0], "unet": [0.0, 0.0]})
    text = answers.answer(make_leaderboard(metrics, *RESAMPLING), metrics, COHORT, *RESAMPLING)
    assert text.startswith("**SegResNet and U-Net share the highest mean Dice: 0.00** (")


def test_the_answer_says_on_how_few_patients_was_trained():
    """Two folds of three and six patients: without the fold's own and two of the selection set, four and one."""
    cases = [Case(f"c{i}", (Path("i"),), Path("m"), f"p{i}", "lung", fold=int(i > 2), n_lesions=1) for i in range(9)]
    cases.append(replace(cases[0], name="again"))  # a second case of p0
    said = answers.training_sets(Cohort("tiny", "", cases))
    assert said == "Smallest training set: 1 patient (fold 1); largest: 4."
    assert answers.training_sets(Cohort("tiny", "", cases[:6])) == "Each fold trained on 1 patient."


def test_one_network_alone_is_compared_with_nothing():
    metrics = metrics_of({"unet": THREE["unet"]})
    text = answers.answer(make_leaderboard(metrics, *RESAMPLING), metrics, COHORT, *RESAMPLING)
    assert text.startswith("**U-Net, the only network, has a mean Dice of 0.40** (")
    assert ", 1 network, n = 3 patients" in text
    assert "1 of them with Dice 0" in text
    assert "Next is" not in text and "threshold" not in text
    scores = pd.DataFrame({"unet": THREE["unet"]})
    said = answers.how_sure(rank_test(scores), pairwise(scores, *RESAMPLING), rank_distribution(scores, *RESAMPLING))
    assert said == "**How sure**: one network is compared with no other."


def test_one_patient_has_no_interval_and_no_test():
    metrics = metrics_of({"unet": [0.8], "unetr": [0.5], FLOOR: [0.3]})
    text = answers.answer(make_leaderboard(metrics, *RESAMPLING), metrics, COHORT, *RESAMPLING)
    assert "0.80 (one patient: no interval, 2 networks, n = 1 patient of" in text
    assert "surely" in text and "nan" not in text
    scores = pd.DataFrame({"unet": [0.8], "unetr": [0.5]})
    said = answers.how_sure(rank_test(scores), pairwise(scores, *RESAMPLING), rank_distribution(scores, *RESAMPLING))
    assert said == "**How sure**: fewer than 6 patients (1) are too few to test a difference."


def lesion_table(rows):
    return pd.DataFrame(rows, columns=["model", "patient", "diameter_class", "detected", "dice"])


def test_the_worst_class_is_that_of_the_leading_network():
    rows = [("unet", p, "<5 mm", p == "c", 0.5) for p in "abc"] + [("unet", p, ">20 mm", True, 0.5) for p in "ab"]
    rows += [("unet", "a", "5-10 mm", False, 0.0)]  # one patient says little of a class
    board = pd.DataFrame({"model": [FLOOR, "unet", "segresnet"], "false_per_patient": [40.0, 1.0, 2.5]})
    table = stratified(lesion_table(rows), "diameter_class", board["model"].tolist(), *RESAMPLING)
    assert answers.worst_class(table, board) == (
        "**U-Net misses most among lesions of <5 mm: it detects 33 % of them** "
        "(95 % interval 0 to 100, n = 3 lesions in 3 patients)."
    )
    better = [("segresnet", p, "<5 mm", p != "c", 0.5) for p in "abc"] + [(FLOOR, "a", "<5 mm", True, 0.5)]
    table = stratified(lesion_table(rows + better), "diameter_class", board["model"].tolist(), *RESAMPLING)
    assert answers.worst_class(table, board).endswith(
        "SegResNet finds most of these, 67 % (95 % interval 0 to 100), with 2.5 false lesions per patient against 1.0."
    ), "a threshold is no network"
    worse = [("segresnet", p, "<5 mm", False, 0.0) for p in "abc"]
    table = stratified(lesion_table(rows + worse), "diameter_class", board["model"].tolist(), *RESAMPLING)
    assert answers.worst_class(table, board).endswith("No other network finds more of these.")
    none = stratified(lesion_table([]), "diameter_class", ["unet"], *RESAMPLING)
    assert answers.worst_class(none, board) == "There is no reference lesion in this cohort."
    found = stratified(lesion_table(rows[3:5]), "diameter_class", ["unet"], *RESAMPLING)
    assert answers.worst_class(found, board) == "U-Net detects all of 2 lesions."


def test_how_sure_names_the_pairs_that_differ():
    rng = np.random.default_rng(0)
    scores = pd.DataFrame({"unet": rng.uniform(0.6, 0.8, 20)})
    scores = scores.assign(segresnet=scores["unet"] + rng.normal(0, 0.01, 20), unetr=scores["unet"] - 0.2)
    tested = rank_test(scores), pairwise(scores, *RESAMPLING), rank_distribution(scores, *RESAMPLING)
    said = answers.how_sure(*tested)
    assert "2 of 3 pairs differ (U-Net and UNETR, SegResNet and UNETR)" in said
    assert "Friedman p < 0.001" in said
    assert f"leads in {100 * tested[2].iloc[0, 0]:.0f} % of the resamples" in said
    same = scores.assign(segresnet=scores["unet"], unetr=scores["unet"])
    tested = rank_test(same), pairwise(same, *RESAMPLING), rank_distribution(same, *RESAMPLING)
    assert "Friedman p = 1; no pair of networks differs" in answers.how_sure(*tested)


@pytest.mark.parametrize(("p", "text"), [(0.0004, "< 0.001"), (0.0123, "= 0.012"), (1.0, "= 1")])
def test_p_values_are_read_with_two_digits(p, text):
    assert answers.p_value(p) == text


# --- the study's claims ---


def lesions_of(n_patients, inferior=0.4, superior=0.8, small=True, models=("unet", "unetr")):
    """Each patient has a small lesion in the inferior third and a large one in the superior third."""
    rows = []
    for model in models:
        for i in range(n_patients):
            jitter = 0.01 * i / n_patients
            rows.append((model, f"p{i}", "inferior", "<5 mm", small and i % 2 == 0, inferior + jitter))
            rows.append((model, f"p{i}", "superior", ">20 mm", True, superior + jitter))
    return pd.DataFrame(rows, columns=["model", "patient", "third", "diameter_class", "detected", "dice"])


def verdicts(metrics, lesions):
    return [claim.verdict for claim in study_claims(metrics, lesions, *RESAMPLING)]


def patients(unet, unetr, n=8, **counts):
    return metrics_of({"unet": unet + 0.01 * np.arange(n), "unetr": unetr + 0.01 * np.arange(n)}, **counts)


def test_claims_hold_where_the_data_say_so():
    metrics = patients(0.7, 0.5, n_missed=2, n_false=1)
    claims = study_claims(metrics, lesions_of(8), *RESAMPLING)
    assert [claim.verdict for claim in claims] == ["holds here"] * 4
    assert [claim.difference for claim in claims] == pytest.approx([0.4, 0.5, 1.0, 0.2])
    assert claims[0].counted == "8 against 8 lesions in 8 patients"
    assert str(claims[3]).endswith("transformers: +0.20 (95 % interval +0.20 to +0.20; 8 patients).")


def test_claims_are_contradicted_where_the_data_say_the_opposite():
    metrics = patients(0.5, 0.7, n_missed=1, n_false=4)
    lesions = lesions_of(8, inferior=0.8, superior=0.4)
    lesions["detected"] = lesions["diameter_class"] == "<5 mm"
    assert verdicts(metrics, lesions) == ["is contradicted here"] * 4


def test_claims_are_not_settled_where_the_interval_holds_zero():
    metrics = metrics_of({"unet": [0.5, 0.6] * 4, "unetr": [0.6, 0.5] * 4}, n_missed=1, n_false=[0, 2] * 8)
    lesions = lesions_of(8, inferior=0.5, superior=0.5).assign(detected=[True, False, False, True] * 8)
    lesions["dice"] = [0.2, 0.8, 0.8, 0.2] * 8
    assert verdicts(metrics, lesions) == ["is not settled here"] * 4


def test_nothing_is_claimed_of_too_few_patients_or_networks_of_one_kind():
    assert verdicts(patients(0.7, 0.5, n=5), lesions_of(5)) == ["cannot be said"] * 4
    one_kind = patients(0.7, 0.5).replace({"unetr": "segresnet"})
    last = study_claims(one_kind, lesions_of(8), *RESAMPLING)[3]
    assert last.verdict == "cannot be said"
    assert "networks of one kind" in str(last) and "nan" not in str(last)
    none = lesions_of(8).iloc[:0]
    first = study_claims(patients(0.7, 0.5), none, *RESAMPLING)[0]
    assert first.verdict == "cannot be said" and "nan" not in str(first)


def test_each_network_answers_for_itself_beside_all_together():
    """U-Net misses more than it invents, UNETR the other way round: their mean says nothing of either."""
    n, counts = 8, {"unet": (4, 1), "segresnet": (4, 1), "unetr": (0, 6)}
    tables = [
        metrics_of({model: dice + 0.01 * np.arange(n)}, n_missed=missed, n_false=false)
        for (model, (missed, false)), dice in zip(counts.items(), (0.7, 0.4, 0.5), strict=True)
    ]
    metrics, lesions = pd.concat(tables), lesions_of(n, models=counts)
    claims = claims_by_network(metrics, lesions, list(counts), *RESAMPLING)
    assert claims[ALL] == study_claims(metrics, lesions, *RESAMPLING)
    assert {model: own[2].verdict for model, own in claims.items() if model != ALL} == {
        "unet": "holds here",
        "segresnet": "holds here",
        "unetr": "is contradicted here",
    }
    assert [claims[model][3].difference for model in ("unet", "segresnet")] == pytest.approx([0.2, -0.1])
    assert len(claims["unetr"]) == 3, "no transformer is compared with itself"
    said = answers.describe_claims(claims).split("\n")
    assert [line[:3] for line in said] == ["1. ", "2. ", "3. ", "4. "]
    assert said[0].endswith("Each network alone says the same.")
    assert said[2].endswith("One by one: holds with U-Net, SegResNet; is contradicted with UNETR.")
    assert said[3].endswith("One by one: holds with U-Net; is contradicted with SegResNet.")
    table = claim_table(claims)
    assert table["model"].value_counts().to_dict() == {ALL: 4, "unet": 4, "segresnet": 4, "unetr": 3}
    assert table["verdict"].iloc[2] == claims[ALL][2].verdict


def test_a_network_alone_is_not_said_twice():
    claims = claims_by_network(
        patients(0.7, 0.5).query("model == 'unet'"), lesions_of(8, models=["unet"]), ["unet"], 200, 0
    )
    assert "alone" not in answers.describe_claims(claims) and "One by one" not in answers.describe_claims(claims)


def test_the_price_of_detection_is_said_of_every_row():
    metrics = metrics_of({"unet": [0.8, 0.8, 0.8], FLOOR: [0.3, 0.3, 0.3]}, n_false=[0, 1, 2, 40, 50, 60])
    said = answers.describe_price(make_leaderboard(metrics, *RESAMPLING))
    assert said.startswith("Detection has its price, false lesions per patient (n = 3): U-Net 1.0 (95 % interval")
    assert "Intensity threshold 50.0 (95 % interval" in said


# --- volumes, mistakes ---


def test_limits_of_agreement_by_hand():
    metrics = metrics_of({"unet": [0.5, 0.5, 0.5]})
    metrics = metrics.assign(volume_truth_mm3=[1000.0, 2000.0, 3000.0], volume_prediction_mm3=[2000.0, 2000.0, 2000.0])
    assert volumes_cm3(metrics, "unet")["difference"].tolist() == [1, 0, -1]
    row = limits_of_agreement(metrics, ["unet"], *RESAMPLING).iloc[0]
    assert row[["patients", "bias_cm3", "lower_cm3", "upper_cm3"]].tolist() == pytest.approx([3, 0, -1.96, 1.96])
    assert row["limit_error_cm3"] == pytest.approx(1.96)  # √(3 / 3) of 1.96 sd
    assert (row["low"], row["high"]) == bootstrap_interval([1, 0, -1], *RESAMPLING)


def test_limits_hold_the_volumes_of_about_95_of_100_patients():
    error = np.random.default_rng(0).normal(300, 500, 400)
    metrics = metrics_of({"unet": [0.5] * 400}).assign(volume_truth_mm3=9000.0)
    metrics = metrics.assign(volume_prediction_mm3=9000 + error)
    row = limits_of_agreement(metrics, ["unet"], *RESAMPLING).iloc[0]
    inside = volumes_cm3(metrics, "unet")["difference"].between(row["lower_cm3"], row["upper_cm3"])
    assert 0.92 < inside.mean() < 0.98


def test_missed_and_false_by_hand():
    metrics = metrics_of({"unet": [0.5, 0.5]}, n_missed=[3, 1], n_false=[0, 1])
    row = missed_and_false(metrics, ["unet"], *RESAMPLING).iloc[0]
    assert row[["patients", "missed", "false", "difference"]].tolist() == [2, 2, 0.5, 1.5]
    assert row[["difference_low", "difference_high", "missed_low", "missed_high"]].tolist() == [0, 3, 1, 3]
    said = answers.describe_missed(pd.DataFrame([row]))
    assert said == (
        "Lesions per patient (n = 2):\n\n- U-Net 2.0 missed, 0.5 false (difference +1.5, 95 % interval +0.0 to +3.0)"
    )


def test_flags_are_said_as_their_interval_allows():
    base = {"model": "unet", "patients": 9, "failures": 4, "ece": 0.1, "average_precision": 0.4, "auroc": 0.7}
    base |= {"ece_low": 0.05, "ece_high": 0.21, "average_precision_low": 0.3, "average_precision_high": 0.55}
    bounds = [(0.6, 0.9), (0.3, 0.9), (0.1, 0.4)]
    rows = [pd.DataFrame([base | {"auroc_low": low, "auroc_high": high}]) for low, high in bounds]
    words = [answers.describe_flags(row) for row in rows]
    assert "average precision of detection 0.40 (95 % interval 0.30 to 0.55)" in words[0]
    assert "calibration error 0.10 (95 % interval 0.05 to 0.21)" in words[0]
    assert "failures are flagged by" in words[0]
    assert "failures are not reliably flagged by" in words[1]
    assert "failures are flagged the wrong way by" in words[2]
    assert all(a != b for a, b in neighbours(words))
    nothing = pd.DataFrame([base | {"failures": 0, "auroc": np.nan, "auroc_low": np.nan, "auroc_high": np.nan}])
    assert "cannot be flagged: 0 of 9 patients below Dice 0.5" in answers.describe_flags(nothing)
