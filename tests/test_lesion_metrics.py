"""Lesion metrics: by hand, by their properties, and against the BraTS 2023 METS code."""

import json

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.metrics.utils import get_edge_surface_distance
from scipy import ndimage
from scipy.spatial.distance import pdist

from metaseg_nb.cohort import lesions
from metaseg_nb.cohort.lesions import find_lesions, scored_as
from metaseg_nb.evaluation.lesion_metrics import LESION_COLUMNS, lesion_metrics
from metaseg_nb.evaluation.voxel_metrics import mask_pair, surface_area_hd95_mm

CUBE = (1.0, 1.0, 1.0)
SPACING_MM = (0.8, 1.1, 2.5)


def empty(shape=(24, 20, 16)):
    return np.zeros(shape, bool)


def boxes(*corners, size=3, shape=(24, 20, 16)):
    mask = empty(shape)
    for x, y, z in corners:
        mask[x : x + size, y : y + size, z : z + size] = True
    return mask


def blobs(seed, share, shape=(48, 40, 30)):
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).random(shape), 1.2)
    return noise > np.quantile(noise, 1 - share)


def straightforward(truth, prediction, spacing_mm):
    """The rules once more, on whole arrays and with scipy only: counts and Dice sum."""
    eighteen, all26 = ndimage.generate_binary_structure(3, 2), np.ones((3, 3, 3))
    joined, n_joined = ndimage.label(ndimage.binary_dilation(truth, eighteen), all26)
    predicted, n_predicted = ndimage.label(prediction, all26)
    claimed, dices = set(), []
    for number in range(1, n_joined + 1):
        lesion = truth & (joined == number)
        parts = set(predicted[ndimage.binary_dilation(lesion, eighteen)]) - {0}
        claimed |= parts
        found = np.isin(predicted, list(parts))
        if lesion.sum() * np.prod(spacing_mm) > 2:
            dices.append(2 * (lesion & found).sum() / (lesion.sum() + found.sum()))
    n_false = n_predicted - len(claimed)
    return len(dices), n_predicted, n_false, sum(dices) / (len(dices) + n_false)


@pytest.mark.parametrize("region, values", [("ET", [3]), ("TC", [1, 3]), ("WT", [1, 2, 3])])
def test_equal_to_brats_2023_mets(shared_data, region, values):
    """Results of rachitsaluja/BraTS-2023-Metrics ("BraTS-MET") on six real mask pairs."""
    folder = shared_data / "metric_vectors" / "mask_pairs"
    vectors = json.loads((folder / "brats2023_expected.json").read_text())
    for name, files in vectors["pairs"].items():
        prediction, truth = (np.isin(nib.load(folder / file).dataobj, values) for file in files)
        expected = vectors["results"][name]["BraTS-MET"][region]
        ours, lesions = lesion_metrics(truth, prediction, CUBE)
        counts = tuple(ours[count] for count in ("n_detected", "n_false", "n_missed"))
        assert counts == (expected["Num_TP"], expected["Num_FP"], expected["Num_FN"]), name
        assert ours["lesion_dice"] == pytest.approx(expected["LesionWise_Score_Dice"], abs=1e-6), name
        assert ours["lesion_hd95_mm"] == pytest.approx(expected["LesionWise_Score_HD95"], abs=1e-6), name
        assert ours["n_truth"] == len(lesions) == ours["n_detected"] + ours["n_missed"]
        hd95_mm = surface_area_hd95_mm(*mask_pair(truth, prediction, CUBE)[:2], CUBE)
        assert hd95_mm == pytest.approx(expected["Legacy_HD95"], rel=1e-6), name


@pytest.mark.parametrize("seed", range(4))
def test_equal_to_the_rules_written_straightforwardly(seed):
    truth, prediction = blobs(seed, 0.02), blobs(seed, 0.015) & blobs(seed + 50, 0.9) | blobs(seed + 9, 0.004)
    ours, _ = lesion_metrics(truth, prediction, SPACING_MM)
    n_truth, n_prediction, n_false, dice = straightforward(truth, prediction, SPACING_MM)
    assert (ours["n_truth"], ours["n_prediction"], ours["n_false"]) == (n_truth, n_prediction, n_false)
    assert ours["lesion_dice"] == pytest.approx(dice)
    assert n_truth > 10 and n_false > 0


@pytest.mark.parametrize("spacing_mm", [CUBE, SPACING_MM])
def test_surface_area_hd95_uses_the_surface_of_monai(spacing_mm):
    """MONAI's sub-voxel surface with its areas, and the percentile counted out."""
    truth, prediction = blobs(3, 0.05), blobs(3, 0.05) & blobs(7, 0.8)
    edges, distances, areas = get_edge_surface_distance(
        torch.from_numpy(prediction), torch.from_numpy(truth), spacing=spacing_mm, use_subvoxels=True, symmetric=True
    )
    directed = []
    for edge, distance, area in zip(edges, distances, areas, strict=True):
        distance, area = distance.numpy(), area[edge].numpy().astype(float)
        candidates = np.unique(distance)
        within = [area[distance <= limit].sum() >= 0.95 * area.sum() for limit in candidates]
        directed.append(candidates[np.argmax(within)])
    assert surface_area_hd95_mm(truth, prediction, spacing_mm) == pytest.approx(max(directed), rel=1e-5)


def test_surface_area_hd95_by_hand():
    truth, prediction = empty(), empty()
    truth[5, 5, 5] = True
    for axis, edge in enumerate(SPACING_MM):
        prediction[:] = np.roll(truth, 3, axis=axis)
        # The far corners of one voxel are 3 voxels from the near corners of the other.
        assert surface_area_hd95_mm(truth, prediction, SPACING_MM) == pytest.approx(3 * edge, rel=1e-6)
    assert surface_area_hd95_mm(truth, empty(), SPACING_MM) == surface_area_hd95_mm(empty(), truth, SPACING_MM) == 374
    assert surface_area_hd95_mm(empty(), empty(), SPACING_MM) == 0


def test_found_missed_and_false_by_hand():
    truth = boxes((2, 2, 2), (12, 2, 2))
    prediction = boxes((2, 2, 3), (12, 12, 10))
    summary, lesions = lesion_metrics(truth, prediction, SPACING_MM)
    assert summary == {
        "n_truth": 2,
        "n_prediction": 2,
        "n_detected": 1,
        "n_missed": 1,
        "n_false": 1,
        "lesion_dice": pytest.approx((2 / 3) / 3),
        "lesion_hd95_mm": pytest.approx((2.5 + 374 + 374) / 3),
        "lesion_sensitivity": 0.5,
        "lesion_precision": 0.5,
    }
    assert list(lesions.columns) == LESION_COLUMNS
    assert lesions["lesion"].tolist() == [1, 2]
    assert lesions["detected"].tolist() == [True, False]
    assert lesions["dice"].tolist() == pytest.approx([2 / 3, 0])
    assert lesions["hd95_mm"].tolist() == pytest.approx([2.5, 374])
    assert lesions["volume_mm3"].tolist() == pytest.approx([27 * 0.8 * 1.1 * 2.5] * 2)
    assert lesions["diameter_mm"].tolist() == pytest.approx([3 * np.linalg.norm(SPACING_MM)] * 2)
    assert lesions[["x", "y", "z"]].to_numpy().tolist() == [[3, 3, 3], [13, 3, 3]]


def test_dilation_joins_reference_lesions_two_voxels_apart():
    apart = [lesion_metrics(boxes((2, 2, 2), (x, 2, 2)), empty(), CUBE)[0]["n_truth"] for x in (6, 7, 8)]
    assert apart == [1, 1, 2]  # gaps of 1, 2 and 3 voxels


def test_a_neighbour_one_voxel_away_is_a_match_without_overlap():
    truth = boxes((5, 5, 5))
    summaries = [lesion_metrics(truth, boxes((x, 5, 5)), CUBE)[0] for x in (8, 9)]
    assert [summary["n_detected"] for summary in summaries] == [1, 0]
    assert [summary["lesion_dice"] for summary in summaries] == [0, 0]
    assert summaries[0]["lesion_hd95_mm"] < 374 == summaries[1]["lesion_hd95_mm"]


def test_parts_are_scored_together_and_a_bridge_counts_for_both():
    truth = boxes((2, 2, 2), size=5)
    parts = truth.copy()
    parts[4] = False
    summary, _ = lesion_metrics(truth, parts, CUBE)
    assert (summary["n_prediction"], summary["n_detected"], summary["n_false"]) == (2, 1, 0)
    assert summary["lesion_dice"] == pytest.approx(2 * 100 / 225)
    bridge = empty()
    bridge[2:15, 2:5, 2:5] = True
    summary, lesions = lesion_metrics(boxes((2, 2, 2), (12, 2, 2)), bridge, CUBE)
    assert summary["n_detected"] == 2
    assert lesions["dice"].tolist() == pytest.approx([2 * 27 / (27 + 117)] * 2)


@pytest.mark.parametrize("edge_mm", [1.0, 1.0000001])
def test_two_cubic_millimetres_are_ignored_but_not_false(edge_mm):
    truth = boxes((2, 2, 2))
    truth[12, 12, 12:14] = True
    prediction = truth.copy()
    summary, lesions = lesion_metrics(truth, prediction, (edge_mm,) * 3)
    assert (summary["n_truth"], summary["n_prediction"], summary["n_false"]) == (1, 2, 0)
    assert lesions["lesion"].tolist() == [1] and summary["lesion_dice"] == 1
    assert lesion_metrics(truth, prediction, (edge_mm, edge_mm, 1.1))[0]["n_truth"] == 2


def test_lesion_metrics_vector(shared_data):
    """Its false-discovery rate is ours; its recall of 2/3 cannot be: dilation joins its three lesions into one."""
    folder = shared_data / "metric_vectors" / "lesion_metrics"
    truth, prediction = (np.asarray(nib.load(folder / f"{name}.nii.gz").dataobj) for name in ("truth", "pred"))
    summary, lesions = lesion_metrics(truth, prediction, CUBE)
    assert summary["n_prediction"] == 3
    assert 1 - summary["lesion_precision"] == pytest.approx(1 / 3)
    assert (summary["n_truth"], summary["n_detected"], summary["n_false"]) == (1, 1, 1)
    assert lesions["volume_mm3"].tolist() == [10]
    assert lesions["dice"].tolist() == pytest.approx([2 * 3 / (10 + 3)])


@pytest.mark.parametrize(
    "truth, prediction, ratio, hd95_mm",
    [(empty(), empty(), 1, 0), (empty(), boxes((2, 2, 2)), 0, 374), (boxes((2, 2, 2)), empty(), 0, 374)],
)
def test_empty_masks(truth, prediction, ratio, hd95_mm):
    summary, lesions = lesion_metrics(truth, prediction, SPACING_MM)
    ratios = [summary[name] for name in ("lesion_dice", "lesion_sensitivity", "lesion_precision")]
    assert ratios == [ratio] * 3
    assert summary["lesion_hd95_mm"] == hd95_mm
    assert len(lesions) == summary["n_truth"] and list(lesions.columns) == LESION_COLUMNS


def test_identical_masks_agree():
    truth = blobs(1, 0.02)
    summary, lesions = lesion_metrics(truth, truth, SPACING_MM)
    assert lesions["dice"].max() <= 1 and summary["lesion_sensitivity"] == 1 and summary["n_false"] == 0
    summary, lesions = lesion_metrics(boxes((2, 2, 2), (12, 9, 9)), boxes((2, 2, 2), (12, 9, 9)), SPACING_MM)
    assert (summary["lesion_dice"], summary["lesion_hd95_mm"]) == (1, 0)


def test_place_moves_centroids_only():
    truth, prediction = blobs(4, 0.02), blobs(5, 0.02) | blobs(4, 0.01)
    summary, lesions = lesion_metrics(truth, prediction, SPACING_MM)
    wider = [np.asfortranarray(np.pad(mask, ((3, 9), (1, 4), (7, 1)))) for mask in (truth, prediction)]
    moved_summary, moved = lesion_metrics(*wider, SPACING_MM)
    assert moved_summary == pytest.approx(summary)
    moved[["x", "y", "z"]] -= [3, 1, 7]
    np.testing.assert_allclose(moved.to_numpy(float), lesions.to_numpy(float))


def test_lesions_that_touch_the_border_are_kept():
    truth = boxes((0, 0, 0), (21, 17, 13))
    summary, _ = lesion_metrics(truth, truth, CUBE)
    assert (summary["n_truth"], summary["n_detected"], summary["lesion_dice"]) == (2, 2, 1)


@pytest.mark.parametrize("few", [0, 10**6])
def test_diameters_are_the_largest_distance_between_any_two_corners(few, monkeypatch):
    """With the convex hull and without it."""
    monkeypatch.setattr(lesions, "FEW", few)
    labels, n = lesions.label_lesions(blobs(0, 0.03))
    assert n > 20
    for lesion in range(1, n + 1):
        voxels = np.argwhere(labels == lesion)
        corners = (voxels[:, None] + np.argwhere(np.ones((2, 2, 2)))).reshape(-1, 3) * SPACING_MM
        expected = pdist(np.unique(corners, axis=0)).max()
        assert lesions.largest_diameter_mm(voxels, SPACING_MM) == pytest.approx(expected)


def test_wrong_shapes_are_named():
    with pytest.raises(ValueError, match="found shapes"):
        lesion_metrics(empty(), empty((4, 5, 6)), CUBE)


@pytest.mark.parametrize("shape", [(9, 8, 7), (1, 6, 5), (1, 1, 1)])
def test_dilation_is_that_of_18_neighbours(shape):
    mask = np.random.default_rng(0).random(shape) < 0.1
    expected = ndimage.binary_dilation(mask, ndimage.generate_binary_structure(3, 2))
    np.testing.assert_array_equal(lesions.dilate_by_one(mask), expected)


def test_what_a_lesion_is_scored_as_by_hand():
    """Of one voxel a mm³: two that are two voxels apart are joined, one three voxels away is not, and one is small."""
    mask = np.zeros((30, 12, 12), bool)
    mask[2:4, 2:4, 2:4] = mask[6:8, 2:4, 2:4] = True  # voxels 4 and 5 lie between
    mask[11:13, 2:4, 2:4] = True  # 8, 9 and 10 lie between
    mask[20, 9, 9] = mask[21, 9, 9] = True  # 2 mm³
    found = scored_as(find_lesions(mask, (1.0, 1.0, 1.0)))
    first, second, third, small = found["scored_lesion"]
    assert first == second > 0 and third > 0 and third != first and small == 0
    # corner to corner: of 6 x 2 x 2 mm, of 2 x 2 x 2 mm
    assert found["scored_diameter_mm"].tolist()[:3] == pytest.approx([44**0.5, 44**0.5, 12**0.5])
    assert scored_as(find_lesions(np.zeros((4, 4, 4), bool), (1.0, 1.0, 1.0))).empty


def test_notebook_01_counts_as_scored_what_is_scored():
    rng = np.random.default_rng(0)
    for density in (0.002, 0.01, 0.03):
        mask = rng.random((24, 22, 20)) < density
        mask |= np.roll(mask, 1, axis=2)
        _, scored = lesion_metrics(mask, mask, (1.0, 1.5, 1.0))
        found = (
            scored_as(find_lesions(mask, (1.0, 1.5, 1.0))).query("scored_lesion > 0").drop_duplicates("scored_lesion")
        )
        assert len(found) == len(scored) > 0
        assert sorted(found["scored_diameter_mm"]) == pytest.approx(sorted(scored["diameter_mm"]))
