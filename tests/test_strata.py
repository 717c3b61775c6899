"""For which lesions: classes by hand, positions of the right lesion, intervals over patients."""

import numpy as np
import pandas as pd
import pytest

from metaseg_nb.cohort.lesions import DIAMETER_NAMES
from metaseg_nb.evaluation.intervals import share
from metaseg_nb.evaluation.strata import COUNT_NAMES, STRATA, all_strata, classified, per_patient


def lesions_by_hand():
    rows = [
        ("unet", "a", "<5 mm", False, 0.0),
        ("unet", "a", "<5 mm", False, 0.0),
        ("unet", "b", "<5 mm", True, 0.4),
        ("unet", "c", "<5 mm", True, 0.8),
        ("unet", "c", "5-10 mm", True, 0.7),
        ("unet", "a", ">20 mm", True, 0.9),
        ("unet", "b", ">20 mm", True, 0.5),
        ("segresnet", "a", "<5 mm", True, 0.6),
    ]
    return pd.DataFrame(rows, columns=["model", "patient", "diameter_class", "detected", "dice"]).assign(weight=1.0)


def test_classes_by_hand():
    table = all_strata(lesions_by_hand(), ["unet", "segresnet"], 5000, 0)
    assert table["model"].tolist() == ["unet"] * 4 + ["segresnet"] * 4
    assert table["class"].tolist() == list(DIAMETER_NAMES) * 2
    unet = table[table["model"] == "unet"].set_index("class")
    assert unet["n_lesions"].tolist() == [4, 1, 0, 2]
    assert unet["n_patients"].tolist() == [3, 1, 0, 2]
    assert unet["sensitivity"].tolist() == pytest.approx([0.5, 1, np.nan, 1], nan_ok=True)
    assert unet["dice"].tolist() == pytest.approx([0.3, 0.7, np.nan, 0.7], nan_ok=True)
    # two of patient a's, one of b's and c's each: a alone gives 0, b and c alone give 1
    assert unet.loc["<5 mm", ["low", "high"]].tolist() == [0, 1]
    _, low, high = share([0, 0.4, 0.8], [2, 1, 1], 5000, 0)
    assert unet.loc["<5 mm", ["dice_low", "dice_high"]].tolist() == [low, high]
    assert unet.loc["5-10 mm", ["low", "high"]].isna().all(), "one patient says nothing of how patients differ"


def test_each_patient_counts_alike_however_many_cases_there_are():
    """p has two cases with two lesions each, one found in all; q has one case with two, both found."""
    rows = [
        ("p1", "p", True),
        ("p1", "p", False),
        ("p2", "p", False),
        ("p2", "p", False),
        ("q", "q", True),
        ("q", "q", True),
    ]
    lesions = pd.DataFrame(rows, columns=["case", "patient", "detected"])
    lesions = lesions.assign(model="unet", diameter_class="<5 mm", dice=lesions["detected"] * 0.5)
    metrics = pd.DataFrame({"model": "unet", "case": ["p1", "p2", "q"], "patient": ["p", "p", "q"]})
    row = all_strata(per_patient(lesions, metrics), ["unet"], 200, 0).iloc[0]
    assert (row["n_lesions"], row["n_patients"]) == (6, 2)
    # of p's two lesions a case half of one, of q's two both
    assert row["sensitivity"] == pytest.approx((1 / 2 + 2) / (2 + 2))
    assert row["dice"] == pytest.approx((1 / 2 + 2) / (2 + 2) / 2)
    # a second case without lesions halves what the first says
    metrics = pd.concat([metrics, pd.DataFrame([{"model": "unet", "case": "q2", "patient": "q"}])])
    row = all_strata(per_patient(lesions, metrics), ["unet"], 200, 0).iloc[0]
    assert row["sensitivity"] == pytest.approx((1 / 2 + 1) / (2 + 1))


def placed():
    """Two patients; ``a`` has two cases, whose lesions count together."""
    lesions = pd.DataFrame(
        {
            "model": "unet",
            "case": ["a1", "a1", "a2", "b", "lost"],
            "patient": ["a", "a", "a", "b", "lost"],
            "primary": ["lung", "lung", "lung", "skin", "skin"],
            "x": [10.4, 50.0, 10.0, 20.0, 1.0],
            "y": [10.0, 50.0, 10.0, 20.0, 1.0],
            "z": [10.0, 50.0, 10.0, 20.0, 1.0],
            "detected": [True, False, True, True, False],
            "dice": [0.8, 0.0, 0.6, 0.4, 0.0],
            "diameter_class": ["<5 mm", "<5 mm", "5-10 mm", ">20 mm", "<5 mm"],
        }
    )
    positions = pd.DataFrame(
        {
            "case": ["a1", "a1", "a2", "b"],
            "x": [49.0, 10.0, 10.0, 90.0],
            "y": [50.0, 10.0, 10.0, 20.0],
            "z": [50.0, 10.0, 10.0, 20.0],
            "third": ["superior", "inferior", "middle", "middle"],
            "depth_mm": [25.0, 9.9, 10.0, 20.0],
        }
    )
    return lesions, positions


def cases_of_placed():
    """All cases of `placed`, as metrics have them."""
    return pd.DataFrame({"case": ["a1", "a2", "b", "lost"], "patient": ["a", "a", "b", "lost"]})


def test_every_lesion_has_the_position_of_the_nearest_of_its_own_case():
    found = classified(*placed(), cases_of_placed())
    assert found["third"].tolist()[:4] == ["inferior", "superior", "middle", "middle"]
    assert found["depth_mm"].tolist()[:4] == [9.9, 25.0, 10.0, 20.0]
    assert found["depth_class"].tolist()[:4] == ["<10 mm", ">20 mm", "10-20 mm", ">20 mm"]
    assert found.iloc[4][["third", "depth_mm", "depth_class"]].isna().all(), "a case that 01 could not place"


def test_a_patients_lesions_are_counted_over_cases_and_by_network():
    lesions, positions = placed()
    both = pd.concat([lesions, lesions.assign(model="unetr")], ignore_index=True)
    found = classified(both, positions, cases_of_placed())
    assert found["count_class"].tolist() == ["2-4", "2-4", "2-4", "1", "1"] * 2


def test_a_case_without_lesions_counts_in_the_number_of_a_patients_lesions():
    """Six lesions at one date and none at another are three a date, and not six."""
    lesions, positions = placed()
    six, cases = pd.concat([lesions.iloc[:1]] * 6, ignore_index=True), cases_of_placed()
    assert set(classified(six, positions, cases)["count_class"]) == {"2-4"}
    assert set(classified(six, positions, cases[cases["case"] == "a1"])["count_class"]) == {"5-10"}


@pytest.mark.parametrize(("n", "name"), [(1, "1"), (2, "2-4"), (4, "2-4"), (5, "5-10"), (10, "5-10"), (11, ">10")])
def test_classes_of_lesion_counts(n, name):
    lesions, positions = placed()
    many = pd.concat([lesions.iloc[:1]] * n, ignore_index=True)
    assert set(classified(many, positions, cases_of_placed()[:1])["count_class"]) == {name}
    assert name in COUNT_NAMES


def test_all_strata_have_all_lesions_that_can_be_placed():
    found = all_strata(classified(*placed(), cases_of_placed()).assign(weight=1.0), ["unet"], 200, 0)
    assert found.groupby("stratum")["n_lesions"].sum().to_dict() == {
        "diameter_class": 5,
        "primary": 5,
        "count_class": 5,
        "third": 4,
        "depth_class": 4,
    }
    assert found[found["stratum"] == "primary"]["class"].tolist() == ["lung", "skin"]


def test_lesions_are_told_apart_by_site_and_scanner_where_these_are_known():
    placed_lesions = classified(*placed(), cases_of_placed()).assign(
        weight=1.0, site=["Bern"] * 4 + ["Chur"], scanner=["Skyra", "Aera", "Aera"] + ["unknown"] * 2
    )
    found = all_strata(placed_lesions, ["unet"], 200, 0)
    scanners = found[found["stratum"] == "scanner"].set_index("class")["n_lesions"]
    assert scanners.to_dict() == {"Aera": 2, "unknown": 2, "Skyra": 1}
    sites = found[found["stratum"] == "site"].set_index("class")
    # in Bern two of patient a's three lesions are found, of Dice 0.8 and 0.6, and b's only one, of Dice 0.4
    shown = ["n_lesions", "n_patients", "sensitivity", "low", "high", "dice", "dice_low", "dice_high"]
    assert sites.loc["Bern", shown].tolist() == pytest.approx([4, 2, 3 / 4, 2 / 3, 1, 1.8 / 4, 0.4, 1.4 / 3])
    assert sites.loc["Chur", shown].tolist() == pytest.approx([1, 1, 0, *[np.nan] * 2, 0, *[np.nan] * 2], nan_ok=True)
    nowhere = all_strata(placed_lesions.assign(site="unknown"), ["unet"], 200, 0)
    assert "site" not in set(nowhere["stratum"])


def test_without_lesions_there_are_classes_of_none():
    lesions, positions = placed()
    empty = classified(lesions.iloc[:0], positions, cases_of_placed())
    found = all_strata(empty.assign(weight=1.0), ["unet"], 200, 0)
    assert set(found["stratum"]) == set(STRATA) - {"primary", "site", "scanner"}
    assert found["n_lesions"].sum() == 0
    assert found[["sensitivity", "low", "dice"]].isna().all(axis=None)
