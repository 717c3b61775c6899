"""The rule of BraTS-METS 2026: by hand, by its properties, and against the official package's values."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from mets_2026_pairs import CUBE, NOT_TURNED, THICK, at_random, boxes, by_hand, from_files
from scipy import ndimage

from metaseg_nb.evaluation.lesion_metrics import mets_2026

# Made by tests/expected/make_mets_2026.py with brats-evaluation 0.0.10.
EXPECTED = json.loads((Path(__file__).parent / "expected" / "mets_2026.json").read_text(encoding="utf-8"))
OFFICIAL = {
    "large_found_2026": "large_instance_tp",
    "large_missed_2026": "large_instance_fn",
    "f1_large_2026": "large_instance_f1",
    "small_found_2026": "small_instance_tp",
    "small_missed_2026": "small_instance_fn",
    "f1_small_2026": "small_instance_f1",
    "lesion_dice_2026": "lesionwise_dsc_mean",
    "lesion_nsd_2026": "lesionwise_nsd_mean",
    "lesion_hd95_mm_2026": "lesionwise_hd95_mean",
}
MADE = by_hand() | at_random()


def as_official(name, pair, expected):
    """Compare with the official values, and return how many there were."""
    truth, prediction, spacing_mm = pair
    assert [truth.sum(), prediction.sum()] == expected["voxels"], f"{name}: not the pair that was scored"
    found = mets_2026(truth, prediction, tuple(float(np.float32(edge)) for edge in spacing_mm))  # as a file holds it
    assert np.isfinite(list(found.values())).all(), name
    there = {ours: expected[theirs] for ours, theirs in OFFICIAL.items() if expected[theirs] is not None}
    assert {ours: found[ours] for ours in there} == pytest.approx(there, abs=1e-6), name
    false = found["large_false_2026"] + found["small_false_2026"]
    for size in ("all", "large", "small"):  # the package counts every false lesion in both sizes
        assert expected[f"{size}_instance_fp"] in (false, None), name
    for size in ("large", "small"):
        if expected[f"{size}_instance_tp"] is None:
            assert found[f"{size}_found_2026"] == found[f"{size}_missed_2026"] == 0, name
            assert found[f"f1_{size}_2026"] == float(false == 0), name
    return len(there)


@pytest.mark.parametrize("name", MADE)
def test_equal_to_the_official_package(name):
    as_official(name, MADE[name], EXPECTED["made"][name])


@pytest.mark.parametrize("name", NOT_TURNED)
def test_the_official_package_takes_voxel_edges_in_the_wrong_order(name):
    """Its distances are those of voxels with X and Z exchanged; no matter where voxels are cubes, as in BraTS."""
    truth, prediction, spacing_mm = MADE[name]
    as_official(name, (truth, prediction, spacing_mm[::-1]), EXPECTED["not turned"][name])
    assert EXPECTED["not turned"][name] != EXPECTED["made"][name]


def test_equal_to_the_official_package_on_real_lesions(shared_data):
    folder = shared_data / "metric_vectors" / "mask_pairs"
    vectors = json.loads((folder / "brats2023_expected.json").read_text())
    pairs = from_files(folder, vectors, lambda path: np.asarray(nib.load(path).dataobj))
    assert pairs.keys() == EXPECTED["files"].keys()
    assert sum(as_official(name, pair, EXPECTED["files"][name]) for name, pair in pairs.items()) > 50


def counts(truth, prediction, spacing_mm=CUBE):
    found = mets_2026(truth, prediction, spacing_mm)
    return {
        size: tuple(found[f"{size}_{what}_2026"] for what in ("found", "missed", "false"))
        for size in ("large", "small")
    }


def test_found_missed_and_false_by_size_by_hand():
    truth = boxes(((2, 2, 2), 4), ((12, 2, 2), 4), ((22, 2, 2), 2))
    prediction = boxes(((2, 2, 3), 4), ((22, 2, 2), 2), ((30, 2, 2), 2), ((2, 20, 2), 3), ((30, 20, 2), 2))
    assert counts(truth, prediction) == {"large": (1, 1, 1), "small": (1, 0, 2)}
    found = mets_2026(truth, prediction, CUBE)
    assert found["f1_large_2026"] == pytest.approx(2 / (2 + 1 + 3))
    assert found["f1_small_2026"] == pytest.approx(2 / (2 + 0 + 3))
    assert found["lesion_dice_2026"] == pytest.approx(2 * 48 / 128 / 5)
    assert found["lesion_hd95_mm_2026"] == pytest.approx((1 + 4 * 373) / 5)


@pytest.mark.parametrize(("spacing_mm", "sizes"), [(CUBE, ("small", "large")), ((1.0, 1.0, 1.1), ("large", "large"))])
def test_a_false_lesion_of_20_mm3_is_large(spacing_mm, sizes):
    for voxels, size in zip((19, 20), sizes, strict=True):
        assert counts(boxes(), boxes(((4, 4, 4), (voxels, 1, 1))), spacing_mm)[size] == (0, 0, 1)


def test_of_many_parts_one_is_the_partner_and_the_others_are_false():
    slabs = boxes(*[((x, 4, 4), (1, 6, 6)) for x in (4, 6, 8)])
    assert counts(boxes(((4, 4, 4), 6)), slabs) == {"large": (1, 0, 2), "small": (0, 0, 0)}


def test_a_prediction_over_two_lesions_finds_one():
    truth = boxes(((4, 4, 4), 4), ((9, 4, 4), 5))
    assert counts(truth, boxes(((4, 4, 4), (10, 5, 5)))) == {"large": (1, 1, 0), "small": (0, 0, 0)}


@pytest.mark.parametrize("seed", range(8))
def test_the_choice_of_partners_has_the_largest_sum_of_dice(seed):
    """All ways are tried, for two rows of bars; a voxel has 27 mm³, so that all lesions are large."""
    rows = np.random.default_rng(seed).random((2, 34)) > 0.2
    truth, prediction = boxes(), boxes()
    truth[4, :, 4], prediction[4, :, 4] = rows
    (lesions, n), (parts, m) = (ndimage.label(row) for row in rows)
    both, either = (
        np.array([[one(lesions == i, parts == j).sum() for j in range(1, m + 1)] for i in range(1, n + 1)])
        for one in (np.logical_and, lambda a, b: np.r_[a[a], b[b]])
    )
    dice = 2 * both / either

    def best(lesion, free):
        if lesion == n:
            return 0.0
        taken = [dice[lesion, part] + best(lesion + 1, free - {part}) for part in free if dice[lesion, part]]
        return max([best(lesion + 1, free), *taken])

    found = mets_2026(truth, prediction, (3.0, 3.0, 3.0))
    counted = n + found["large_false_2026"]
    assert found["large_found_2026"] + found["large_missed_2026"] == n > 3
    assert found["lesion_dice_2026"] * counted == pytest.approx(best(0, {*range(m)}))


def test_place_changes_nothing():
    truth, prediction, spacing_mm = MADE["random 1"]
    wider = [np.asfortranarray(np.pad(mask, ((3, 9), (1, 4), (7, 1)))) for mask in (truth, prediction)]
    assert mets_2026(*wider, spacing_mm) == pytest.approx(mets_2026(truth, prediction, spacing_mm))


@pytest.mark.parametrize("name", ["both empty", "truth empty", "prediction empty"])
def test_empty_masks_have_the_best_or_the_worst_values(name):
    found = mets_2026(*MADE[name][:2], THICK)
    perfect = float(name == "both empty")
    names = ["f1_large_2026", "f1_small_2026", "lesion_dice_2026", "lesion_nsd_2026"]
    assert [found[one] for one in names] == [perfect] * 4
    assert found["lesion_hd95_mm_2026"] == (0 if perfect else 373)


def test_masks_that_are_not_masks_are_errors():
    with pytest.raises(ValueError, match="found shapes"):
        mets_2026(boxes(), boxes()[1:], CUBE)
    with pytest.raises(ValueError, match="found values"):
        mets_2026(boxes(), boxes() * 2 + 2, CUBE)
