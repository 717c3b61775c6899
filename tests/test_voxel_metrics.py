"""Voxel metrics: by hand, by their properties, and against MONAI and panoptica."""

import json

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.metrics import (
    compute_confusion_matrix_metric,
    compute_dice,
    compute_hausdorff_distance,
    compute_surface_dice,
    get_confusion_matrix,
)
from scipy import ndimage

from metaseg_nb.evaluation.voxel_metrics import surface_area_hd95_mm, surface_distances_mm, voxel_metrics

SPACING_MM = (0.8, 1.1, 2.5)
RATIOS = ("dice", "nsd_1mm", "nsd_2mm", "precision", "recall")


def blobs(seed, shape=(31, 27, 19), share=0.08):
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).random(shape), 2)
    return noise > np.quantile(noise, 1 - share)


def moved(mask, seed):
    """The mask shifted a little, with part of another one added: an imperfect prediction."""
    return np.roll(mask, (1, 1, 0), axis=(0, 1, 2)) | (blobs(seed + 100, mask.shape, 0.01))


def bars():
    """Two bars along z, 4 and 3 voxels long, two of them shared."""
    truth, prediction = np.zeros((2, 5, 5, 8), bool)
    truth[2, 2, 1:5] = True
    prediction[2, 2, 3:6] = True
    return truth, prediction


def test_bars_by_hand():
    metrics = voxel_metrics(*bars(), (1.0, 1.0, 2.0))
    assert metrics["dice"] == pytest.approx(2 * 2 / (4 + 3))
    assert metrics["precision"] == pytest.approx(2 / 3)
    assert metrics["recall"] == pytest.approx(2 / 4)
    assert (metrics["volume_truth_mm3"], metrics["volume_prediction_mm3"]) == (8.0, 6.0)
    # Distances in mm: truth to prediction 4, 2, 0, 0; prediction to truth 0, 0, 2.
    assert metrics["hd95_mm"] == pytest.approx(max(np.percentile([4, 2, 0, 0], 95), np.percentile([0, 0, 2], 95)))
    assert metrics["hd95_mm"] == pytest.approx(2 + 0.85 * 2)
    assert metrics["nsd_1mm"] == pytest.approx(4 / 7)
    assert metrics["nsd_2mm"] == pytest.approx(6 / 7)
    # Pooled: 0, 0, 0, 0, 2, 2, 4; position 5.7.
    assert metrics["pooled_hd95_mm"] == pytest.approx(2 + 0.7 * 2)


def test_spacing_of_each_axis_is_its_own():
    truth, prediction = np.zeros((2, 9, 9, 9), bool)
    truth[4, 4, 4] = True
    for axis, edge in enumerate(SPACING_MM):
        prediction[:] = np.roll(truth, 3, axis=axis)
        assert voxel_metrics(truth, prediction, SPACING_MM)["hd95_mm"] == pytest.approx(3 * edge, rel=1e-6)


@pytest.mark.parametrize("edge_mm", [0.1, 0.2, 1 / 3, 0.7])
def test_a_distance_equal_to_the_tolerance_is_within_it(edge_mm):
    truth, prediction = np.zeros((2, 3, 3, 30), bool)
    truth[1, 1, 2] = prediction[1, 1, 2 + round(1 / edge_mm)] = True
    spacing_mm = (1.0, 1.0, 1 / round(1 / edge_mm))
    assert voxel_metrics(truth, prediction, spacing_mm)["nsd_1mm"] == 1


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), SPACING_MM, (0.78, 0.78, 6.5)])
def test_equal_to_monai(seed, spacing_mm):
    truth = blobs(seed)
    prediction = moved(truth, seed)
    ours = voxel_metrics(truth, prediction, spacing_mm)
    y, y_pred = (torch.from_numpy(mask)[None, None].float() for mask in (truth, prediction))
    confusion = get_confusion_matrix(y_pred, y)
    monai = {
        "dice": compute_dice(y_pred, y),
        "hd95_mm": compute_hausdorff_distance(y_pred, y, include_background=True, percentile=95, spacing=spacing_mm),
        "precision": compute_confusion_matrix_metric("precision", confusion),
        "recall": compute_confusion_matrix_metric("recall", confusion),
    }
    for tolerance in (1.0, 2.0):
        nsd = compute_surface_dice(y_pred, y, [tolerance], include_background=True, spacing=spacing_mm)
        monai[f"nsd_{tolerance:.0f}mm"] = nsd
    assert {name: ours[name] for name in monai} == pytest.approx({n: v.item() for n, v in monai.items()}, rel=2e-6)


@pytest.mark.parametrize("region, values", [("et", [3]), ("tc", [1, 3]), ("wt", [1, 2, 3])])
def test_pooled_hd95_is_that_of_panoptica(shared_data, region, values):
    """Values of the BraTS 2024+ evaluation (panoptica) on real mask pairs."""
    folder = shared_data / "metric_vectors" / "mask_pairs"
    pairs = json.loads((folder / "brats2023_expected.json").read_text())["pairs"]
    expected = json.loads((folder / "panoptica_expected.json").read_text())
    for name, files in pairs.items():
        prediction, truth = (np.isin(nib.load(folder / file).dataobj, values) for file in files)
        if truth.any():
            pooled, dice = expected[name][region]["global_bin_hd95"], expected[name][region]["global_bin_dsc"]
            ours = voxel_metrics(truth, prediction, (1.0, 1.0, 1.0))
            assert ours["pooled_hd95_mm"] == pytest.approx(pooled, abs=1e-6)
            assert ours["dice"] == pytest.approx(dice, abs=1e-12)


def test_lesion_metrics_vector(shared_data):
    """Voxel values of the pair in DIAGNijmegen's lesion metrics tests."""
    folder = shared_data / "metric_vectors" / "lesion_metrics"
    truth, prediction = (np.asarray(nib.load(folder / f"{name}.nii.gz").dataobj) for name in ("truth", "pred"))
    metrics = voxel_metrics(truth, prediction, (1.0, 1.0, 1.0))
    assert metrics["dice"] == pytest.approx(2 * 3 / (10 + 4))
    assert (metrics["precision"], metrics["recall"]) == (3 / 4, 3 / 10)


def test_identical_masks_agree():
    metrics = voxel_metrics(blobs(1), blobs(1), SPACING_MM)
    assert [metrics[name] for name in RATIOS] == [1] * 5
    assert metrics["hd95_mm"] == 0


@pytest.mark.parametrize("seed", range(3))
def test_the_pooled_percentile_has_its_own_name(seed):
    truth, prediction = blobs(seed), moved(blobs(seed), seed)
    metrics = voxel_metrics(truth, prediction, SPACING_MM)
    assert metrics["pooled_hd95_mm"] < metrics["hd95_mm"]


def test_a_transform_of_crowded_surfaces_gives_the_distances_of_the_tree(monkeypatch):
    truth, prediction = blobs(1), moved(blobs(1), 1)
    few, area = surface_distances_mm(truth, prediction, SPACING_MM), surface_area_hd95_mm(truth, prediction, SPACING_MM)
    monkeypatch.setattr("metaseg_nb.evaluation.voxel_metrics.CROWD", 0)
    many = surface_distances_mm(truth, prediction, SPACING_MM)
    for ours, transformed in zip(few, many, strict=True):
        np.testing.assert_allclose(ours, transformed, rtol=1e-6)
    assert surface_area_hd95_mm(truth, prediction, SPACING_MM) == pytest.approx(area, rel=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_swapping_masks_swaps_precision_and_recall_only(seed):
    truth, prediction = blobs(seed), moved(blobs(seed), seed)
    there, back = voxel_metrics(truth, prediction, SPACING_MM), voxel_metrics(prediction, truth, SPACING_MM)
    assert [there[n] for n in ("dice", "hd95_mm", "nsd_1mm")] == [back[n] for n in ("dice", "hd95_mm", "nsd_1mm")]
    assert (there["precision"], there["recall"]) == (back["recall"], back["precision"])


def test_place_surroundings_and_memory_order_do_not_matter():
    truth, prediction = blobs(2), moved(blobs(2), 2)
    metrics = voxel_metrics(truth, prediction, SPACING_MM)
    wider = [np.pad(mask, ((3, 9), (0, 4), (7, 1))) for mask in (truth, prediction)]
    assert voxel_metrics(*wider, SPACING_MM) == metrics
    assert voxel_metrics(*(np.asfortranarray(mask) for mask in (truth, prediction)), SPACING_MM) == metrics
    flipped = voxel_metrics(truth[::-1, :, ::-1], prediction[::-1, :, ::-1], SPACING_MM)
    assert flipped == pytest.approx(metrics, rel=1e-6)


def test_both_masks_empty():
    empty = np.zeros((4, 5, 6), bool)
    metrics = voxel_metrics(empty, empty, SPACING_MM)
    assert [metrics[name] for name in RATIOS] == [1] * 5
    assert (metrics["hd95_mm"], metrics["pooled_hd95_mm"]) == (0, 0)


@pytest.mark.parametrize("order", [1, -1])
def test_one_mask_empty(order):
    masks = [np.zeros((4, 5, 6), bool), np.ones((4, 5, 6), bool)][::order]
    metrics = voxel_metrics(*masks, SPACING_MM)
    assert [metrics[name] for name in RATIOS] == [0] * 5
    assert (metrics["hd95_mm"], metrics["pooled_hd95_mm"]) == (374, 374)


def test_full_masks_agree():
    full = np.ones((4, 5, 6), bool)
    assert voxel_metrics(full, full, SPACING_MM)["hd95_mm"] == 0


def test_wrong_inputs_are_named():
    mask = np.zeros((4, 5, 6), bool)
    with pytest.raises(ValueError, match=r"found shapes \(4, 5, 6\) of the truth and \(4, 5, 7\) of the prediction"):
        voxel_metrics(mask, np.zeros((4, 5, 7), bool), SPACING_MM)
    with pytest.raises(ValueError, match="truth: found values 0, 255; expected 0 and 1"):
        voxel_metrics(np.where(np.arange(6) > 3, 255, mask), mask, SPACING_MM)
    with pytest.raises(ValueError, match=r"found shapes \(5, 6\) of the truth .* expected one 3D shape"):
        voxel_metrics(mask[0], mask[0], SPACING_MM)
    for spacing_mm in ((1.0, 1.0), (1.0, 0.0, 1.0), (1.0, float("nan"), 1.0)):
        with pytest.raises(ValueError, match="spacing_mm: found"):
            voxel_metrics(mask, mask, spacing_mm)
