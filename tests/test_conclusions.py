"""Conclusions of cross-validation: their numbers are those of the tables, and "inconclusive" is one of them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from mets_2026_pairs import COUNTS

from metaseg_nb import layout
from metaseg_nb.cohort.cases import Case, Cohort
from metaseg_nb.evaluation import conclusions
from metaseg_nb.evaluation.comparison import (
    limits_of_agreement,
    make_leaderboard,
    means,
    pairwise,
    patient_scores,
    patient_volumes,
    rank_distribution,
    rank_test,
)
from metaseg_nb.evaluation.conclusions import claim_table, network_kinds
from metaseg_nb.evaluation.intervals import bootstrap_interval, estimate
from metaseg_nb.evaluation.scoring import METRICS
from metaseg_nb.evaluation.strata import all_strata
from metaseg_nb.settings import ALL
from metaseg_nb.training import networks

BASELINE = "intensity_threshold"
RESAMPLING = (500, 0)


def metrics_of(dice, **columns):
    """A row per (model, patient); ``dice`` maps a model to its patients' values."""
    rows = [(model, f"p{i}", value) for model, values in dice.items() for i, value in enumerate(values)]
    table = pd.DataFrame(rows, columns=["model", "patient", "dice"])
    counts = {"n_truth": 2, "n_detected": 1, "n_missed": 1, "n_false": 0} | columns
    return table.assign(case=table["patient"], **dict.fromkeys([*METRICS, *COUNTS], 0.5), **counts)


SIX = {"segresnet": [0.5, 0.7, 0.9, 0.6, 0.7, 0.8], "unet": [0.4, 0.0, 0.8, 0.6, 0.2, 0.7]}
KINDS = {"unet": "convolutional", "segresnet": "convolutional", "unetr": "transformer"}


def which(dice):
    metrics = metrics_of(dice)
    scores = patient_scores(metrics, [model for model in dice if model != BASELINE])
    tested = rank_test(scores)[0], pairwise(scores, *RESAMPLING)
    return conclusions.which_network(make_leaderboard(metrics, *RESAMPLING), metrics, "tiny", *tested, *RESAMPLING)


def difference(first, second):
    gap = np.subtract(first, second)
    return estimate(gap.mean(), *bootstrap_interval(gap, *RESAMPLING), "+.2f")


def test_the_answer_holds_the_leaderboards_numbers():
    low, high = bootstrap_interval(SIX["segresnet"], *RESAMPLING)
    assert which(SIX | {BASELINE: [0.75] * 6}) == (
        "**Which network?** SegResNet has the highest mean Dice: "
        f"**0.70 (95 % interval {low:.2f} to {high:.2f})**, 6 patients of the cohort *tiny*, 0 with Dice 0. "
        f"Next: U-Net 0.45; mean difference per patient {difference(*SIX.values())}: inconclusive. "
        "For comparison: Intensity threshold 0.75; mean difference per patient "
        f"{difference(SIX['segresnet'], [0.75] * 6)}: inconclusive."
    )


@pytest.mark.parametrize(
    ("baseline", "found"),
    [([0.95] * 6, "SegResNet is worse."), ([0.7] * 6, "inconclusive."), ([0.3] * 6, "is better.")],
)
def test_the_best_network_is_compared_with_the_floor(baseline, found):
    assert which(SIX | {BASELINE: baseline}).endswith(found)


def test_networks_are_compared_by_their_paired_difference_not_by_two_intervals():
    """Patients differ far more than networks: the intervals of the means overlap, and one is better in each patient."""
    dice = {"segresnet": np.linspace(0.2, 0.93, 6), "unet": np.linspace(0.19, 0.9, 6)}
    board = make_leaderboard(metrics_of(dice), *RESAMPLING)
    assert board.loc[1, "dice_high"] > board.loc[0, "dice_low"]
    assert which(dice).endswith(f"{difference(*dice.values())}: SegResNet is better.")
    assert which({"segresnet": [0.1, 0.6, 0.9] * 2, "unet": [0.2, 0.5, 0.6] * 2}).endswith(": inconclusive.")


def test_a_network_is_better_only_where_the_corrected_tests_agree():
    """One pair alone differs (p = 0.03); among four networks it must pass Friedman's test and Holm's correction."""
    pair = {"segresnet": [0.52, 0.63, 0.74, 0.55, 0.66, 0.77], "unet": [0.51, 0.61, 0.71, 0.51, 0.61, 0.71]}
    assert which(pair).endswith("SegResNet is better.")
    others = {"attention_unet": [0.9, 0.1, 0.9, 0.1, 0.9, 0.1], "unetr": [0.1, 0.9, 0.1, 0.9, 0.1, 0.9]}
    assert which(pair | others).endswith(": inconclusive.")
    scores = pd.DataFrame(pair | others)
    assert "inconclusive, no pair differs" in sure(scores)


def test_a_network_that_is_worse_by_ranks_is_not_called_better():
    """U-Net is better by 0.01 to 0.02 in 80 patients and fails in 20: better by ranks, worse in the mean."""
    gain = np.concatenate([-np.linspace(0.01, 0.02, 80), np.linspace(0.1, 0.3, 20)])
    dice = {"segresnet": np.full(100, 0.5) + gain, "unet": np.full(100, 0.5)}
    pair = pairwise(pd.DataFrame(dice), *RESAMPLING).iloc[0]
    # mean (20 · 0.2 - 80 · 0.015) / 100; of the ranks 1 to 100, 81 to 100 are for the first
    assert (pair["difference"], pair["low"] > 0, pair["p_holm"] < 0.05) == (pytest.approx(0.028), True, True)
    assert pair["rank_biserial"] == pytest.approx((1810 - 3240) / 5050)
    assert which(dice).endswith(": inconclusive (SegResNet is better in the mean, worse by ranks).")
    assert "1 of 1 pairs differ (SegResNet and U-Net, in the mean the other way)" in sure(pd.DataFrame(dice))


def test_networks_of_equal_dice_share_the_lead():
    text = which({"segresnet": [0.0] * 6, "unet": [0.0] * 6})
    assert "SegResNet and U-Net share the highest mean Dice: **0.00" in text


def test_training_sets_are_counted_and_a_selection_set_without_any_overlap_is_named():
    """Two folds of three and six patients: without the fold's own and two of the selection set, four and one."""
    cases = [Case(f"c{i}", (Path("i"),), Path("m"), f"p{i}", "lung", fold=int(i > 2), n_lesions=1) for i in range(9)]
    cases.append(replace(cases[0], name="again"))  # a second case of p0
    runs = pd.DataFrame({"model": ["unet", "unetr"] * 2, "fold": [0, 0, 1, 1], "selection_dice": [0.0, 0.1, 0.3, 0.4]})
    text = conclusions.training_sets(Cohort("tiny", "", cases), runs)
    assert text == "**On how many patients?** Each fold was trained on 1 to 4 patients.", "one network has Dice 0.1"
    cohort = Cohort("tiny", "", cases[:6])
    assert conclusions.training_sets(cohort, runs).endswith("Each fold was trained on 1 patient.")
    runs.loc[1, "selection_dice"] = 0.0
    text = conclusions.training_sets(cohort, runs)
    empty = "In fold 0 every network has Dice 0.00 on the selection set (threshold 0.50). Nothing about these networks"
    assert f"{empty} can be concluded from that, and what was chosen on it means nothing." in text


def sure(scores):
    tested = rank_test(scores)[0], pairwise(scores, *RESAMPLING), rank_distribution(scores, *RESAMPLING)
    return conclusions.how_sure(*tested)


def test_one_network_alone_is_compared_with_nothing():
    text = which({"unet": SIX["unet"]})
    assert text.startswith("**Which network?** U-Net, the only network, has this mean Dice: **0.45 (")
    assert "1 with Dice 0" in text and "Next" not in text and "For comparison" not in text
    assert sure(pd.DataFrame({"unet": SIX["unet"]})) == "**How sure?** There is only one network to compare."


def test_one_patient_has_no_interval_and_no_test():
    text = which({"unet": [0.8], "unetr": [0.5], BASELINE: [0.3]})
    assert "0.80 (no interval: too few, or all equal)" in text and "nan" not in text
    assert text.count("inconclusive") == 2
    said = sure(pd.DataFrame({"unet": [0.8], "unetr": [0.5]}))
    assert said == "**How sure?** Inconclusive: 1 patient, 6 are needed for a test."


def lesion_table(rows):
    return pd.DataFrame(rows, columns=["model", "patient", "diameter_class", "detected", "dice"]).assign(weight=1.0)


def test_the_worst_class_of_each_network_is_named():
    rows = [("unet", p, "<5 mm", p == "c", 0.5) for p in "abc"] + [("unet", p, ">20 mm", True, 0.5) for p in "ab"]
    rows += [("unet", "a", "5-10 mm", False, 0.0)]  # one patient shows little of a class
    rows += [("segresnet", p, "<5 mm", p != "c", 0.5) for p in "abc"]
    table = all_strata(lesion_table(rows), ["unet", "segresnet"], *RESAMPLING)
    assert conclusions.worst_classes(table, ["unet", "segresnet"]).endswith(
        "<5 mm (3 lesions in 3 patients): U-Net 0.33 (95 % interval 0.00 to 1.00), "
        "SegResNet 0.67 (95 % interval 0.00 to 1.00)."
    )
    none = all_strata(lesion_table([]), ["unet"], *RESAMPLING)
    assert conclusions.worst_classes(none, ["unet"]).endswith("There is no reference lesion in this cohort.")


def test_how_sure_names_the_pairs_that_differ():
    rng = np.random.default_rng(0)
    scores = pd.DataFrame({"unet": rng.uniform(0.6, 0.8, 20)})
    scores = scores.assign(segresnet=scores["unet"] + rng.normal(0, 0.01, 20), unetr=scores["unet"] - 0.2)
    text = sure(scores)
    assert "2 of 3 pairs differ (U-Net and UNETR, SegResNet and UNETR)" in text
    assert "Friedman p < 0.001" in text
    share = rank_distribution(scores, *RESAMPLING).iloc[0, 0]
    assert f"ranks first in {100 * share:.0f} % of the resamples" in text


def test_equal_networks_are_inconclusive_and_none_leads():
    same = pd.DataFrame(dict.fromkeys(("unet", "segresnet", "unetr"), np.linspace(0.3, 0.8, 20)))
    assert "Friedman p = 1; inconclusive, no pair differs" in sure(same)
    assert "U-Net ranks first in 33 % of the resamples" in sure(same)


# --- the study's claims ---


def lesions_of(n_patients, inferior=0.4, superior=0.8, small=True, models=("unet", "unetr")):
    """Each patient has a small lesion in the inferior third and a large one in the superior third."""
    rows = []
    for model in models:
        for i in range(n_patients):
            jitter = 0.01 * i / n_patients
            rows.append((model, f"p{i}", "inferior", "<5 mm", small and i % 2 == 0, inferior + jitter))
            rows.append((model, f"p{i}", "superior", ">20 mm", True, superior + jitter))
    columns = ["model", "patient", "third", "diameter_class", "detected", "dice"]
    return pd.DataFrame(rows, columns=columns).assign(weight=1.0)


def claims_of(metrics, lesions, kinds=KINDS):
    return claim_table(metrics, lesions, {m: kinds[m] for m in metrics["model"].unique()}, *RESAMPLING)


def together(metrics, lesions):
    claims = claims_of(metrics, lesions)
    return claims[claims["model"] == ALL]


def patients(unet, unetr, n=8, **counts):
    return metrics_of({"unet": unet + 0.01 * np.arange(n), "unetr": unetr + 0.01 * np.arange(n)}, **counts)


def test_claims_are_supported_where_the_data_say_so():
    metrics = patients(0.7, 0.5, n_missed=2, n_false=1)
    claims = together(metrics, lesions_of(8))
    assert claims["verdict"].tolist() == ["supported"] * 4
    assert claims["difference"].tolist() == pytest.approx([0.4, 0.5, 1.0, 0.2])
    assert claims["counted"].iloc[0] == "8 against 8 lesions in 8 patients"
    assert conclusions.is_the_transformer_better(claims) == (
        "**Is the transformer better?** **No.** Dice of convolutional networks minus transformers: "
        "+0.20 (95 % interval +0.20 to +0.20), 8 patients."
    )


def test_what_would_help_the_transformer_was_not_studied_is_said_to_be_so():
    runs = pd.DataFrame({"model": ["unet", "unetr"], "network": ["unet", "unetr"]})
    said = conclusions.what_would_help_the_transformer(runs, pd.DataFrame(index=range(6)), *RESAMPLING)
    assert said == (
        "**What would help the transformer?** Smaller tokens: not studied here (add `swin_unetr` to `models`: its "
        "tokens have 2 voxels, those of UNETR 16). Pretraining: not studied here (notebook 06, arm `pretraining_25`). "
        "A convolutional stem: not part of this workbook."
    )
    assert all((layout.PARAMS / f"{name}.yaml").is_file() for name in ("models/swin_unetr", "arms/pretraining_25"))
    # what it says of the networks
    embeddings = [
        networks.build_network("unetr", 0.1, 64).vit.patch_embedding.patch_embeddings,
        networks.build_network("swin_unetr", 0.25, 64).swinViT.patch_embed.proj,
    ]
    assert [(type(one), one.kernel_size[0], one.stride[0]) for one in embeddings] == [
        (torch.nn.Conv3d, 16, 16),
        (torch.nn.Conv3d, 2, 2),
    ]


@pytest.mark.parametrize(
    ("gain", "said"),
    [
        (0.1, "+0.10 (95 % interval +0.10 to +0.10): smaller are better,"),
        (-0.1, "-0.10 (95 % interval -0.10 to -0.10): smaller are worse,"),
    ],
)
def test_two_transformers_answer_for_the_size_of_tokens(gain, said):
    unetr = np.linspace(0.2, 0.8, 8)
    scores = pd.DataFrame({"mine": unetr, "swin_unetr": unetr + gain + np.linspace(-0.001, 0.001, 8)})
    runs = pd.DataFrame({"model": ["mine", "swin_unetr"] * 2, "network": ["unetr", "swin_unetr"] * 2})
    text = conclusions.what_would_help_the_transformer(runs, scores, *RESAMPLING)
    start = "Smaller tokens: Dice with 2 voxels (Swin UNETR) minus 16 (UNETR) "
    assert f"{start}{said} but these differ in more. Pretraining" in text


def test_claims_are_contradicted_where_the_data_say_the_opposite():
    metrics = patients(0.5, 0.7, n_missed=1, n_false=4)
    lesions = lesions_of(8, inferior=0.8, superior=0.4)
    lesions["detected"] = lesions["diameter_class"] == "<5 mm"
    claims = together(metrics, lesions)
    assert claims["verdict"].tolist() == ["contradicted"] * 4
    assert "**Yes.**" in conclusions.is_the_transformer_better(claims)


def test_claims_are_inconclusive_where_the_interval_holds_zero():
    metrics = metrics_of({"unet": [0.5, 0.6] * 4, "unetr": [0.6, 0.5] * 4}, n_missed=1, n_false=[0, 2] * 8)
    lesions = lesions_of(8, inferior=0.5, superior=0.5).assign(detected=[True, False, False, True] * 8)
    lesions["dice"] = [0.2, 0.8, 0.8, 0.2] * 8
    claims = together(metrics, lesions)
    assert claims["verdict"].tolist() == ["inconclusive"] * 4
    assert "**Inconclusive.**" in conclusions.is_the_transformer_better(claims)


def test_too_few_patients_or_networks_of_one_kind_are_inconclusive():
    assert together(patients(0.7, 0.5, n=5), lesions_of(5))["verdict"].tolist() == ["inconclusive"] * 4
    one_kind = patients(0.7, 0.5).replace({"unetr": "segresnet"})
    claims = together(one_kind, lesions_of(8))
    assert claims["verdict"].iloc[3] == "inconclusive"
    assert "Not compared: networks of one kind" in conclusions.is_the_transformer_better(claims)
    none = together(patients(0.7, 0.5), lesions_of(8).iloc[:0])
    assert none["verdict"].iloc[0] == "inconclusive" and np.isnan(none["difference"].iloc[0])


def test_each_network_stands_beside_all_together():
    """U-Net has more missed than false lesions, UNETR the other way round: their mean shows neither."""
    n, counts = 8, {"unet": (4, 1), "segresnet": (4, 1), "unetr": (0, 6)}
    tables = [
        metrics_of({model: dice + 0.01 * np.arange(n)}, n_missed=missed, n_false=false)
        for (model, (missed, false)), dice in zip(counts.items(), (0.7, 0.4, 0.5), strict=True)
    ]
    claims = claims_of(pd.concat(tables), lesions_of(n, models=counts))
    assert claims["model"].value_counts().to_dict() == {ALL: 4, "unet": 4, "segresnet": 4, "unetr": 3}
    missed = claims[claims["claim"].str.startswith("Missed lesions are more")].set_index("model")["verdict"]
    assert missed[[*counts]].tolist() == ["supported", "supported", "contradicted"]
    kind = claims[claims["claim"].str.startswith("Convolutional")].set_index("model")["difference"]
    assert kind[["unet", "segresnet"]].tolist() == pytest.approx([0.2, -0.1])


def test_a_kind_is_that_of_the_network_in_the_parameter_file_not_of_a_name():
    runs = pd.DataFrame({"model": ["our_unetr", "ours"], "fold": 0, "network": ["unet", "swin_unetr"]})
    assert network_kinds(runs) == {"our_unetr": "convolutional", "ours": "transformer"}


# --- volumes, mistakes ---


def test_limits_of_agreement_by_hand():
    metrics = metrics_of({"unet": [0.5, 0.5, 0.5]})
    metrics = metrics.assign(volume_truth_mm3=[1000.0, 2000.0, 3000.0], volume_prediction_mm3=[2000.0, 2000.0, 2000.0])
    volumes = patient_volumes(metrics)
    assert volumes[["difference", "mean"]].to_numpy().tolist() == [[1, 1.5], [0, 2], [-1, 2.5]]
    row = limits_of_agreement(volumes, ["unet"], *RESAMPLING).iloc[0]
    assert row[["patients", "bias_cm3", "lower_cm3", "upper_cm3"]].tolist() == pytest.approx([3, 0, -1.96, 1.96])
    # √(3 / 3) sd times t(0.975) of 2 degrees of freedom, 4.303 in a printed table
    assert row["limit_error_cm3"] == pytest.approx(4.303, abs=1e-3)
    assert (row["low"], row["high"]) == bootstrap_interval([1, 0, -1], *RESAMPLING)


def test_limits_of_agreement_are_as_uncertain_as_bland_and_altman_say():
    """Their example of 1999, 85 people, in mmHg: bias -16.29, sd 19.61, limits -54.7 and 22.1, each ± 1.99 · 3.64.

    They take 1.71 sd / √n for the standard error of a limit, which is rounded to √3 sd / √n here, as in 1986.
    """
    gap = np.random.default_rng(0).normal(size=85)
    gap = 19.61 * (gap - gap.mean()) / gap.std(ddof=1)
    volumes = pd.DataFrame({"model": "unet", "patient": range(85), "difference": gap - 16.29})
    row = limits_of_agreement(volumes, ["unet"], *RESAMPLING).iloc[0]
    assert row[["lower_cm3", "upper_cm3"]].tolist() == pytest.approx([-54.7, 22.1], abs=0.05)
    assert row["limit_error_cm3"] == pytest.approx(1.99 * 3.64 * np.sqrt(3) / 1.71, abs=0.02)


def test_limits_hold_the_volumes_of_about_95_of_100_patients():
    error = np.random.default_rng(0).normal(300, 500, 400)
    metrics = metrics_of({"unet": [0.5] * 400}).assign(volume_truth_mm3=9000.0)
    volumes = patient_volumes(metrics.assign(volume_prediction_mm3=9000 + error))
    row = limits_of_agreement(volumes, ["unet"], *RESAMPLING).iloc[0]
    inside = volumes["difference"].between(row["lower_cm3"], row["upper_cm3"])
    assert 0.92 < inside.mean() < 0.98


def test_means_by_hand():
    counts = pd.DataFrame({"model": "unet", "patient": ["a", "b"], "missed": [3, 1], "difference": [3, 0]})
    row = means(counts.set_index(["model", "patient"]), ["unet"], *RESAMPLING).iloc[0]
    assert row[["patients", "missed", "difference"]].tolist() == [2, 2, 1.5]
    assert row[["difference_low", "difference_high", "missed_low", "missed_high"]].tolist() == [0, 3, 1, 3]
