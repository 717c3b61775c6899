"""Losses: values worked out by hand, every lesion alike where it is promised, no lesion lost in a coarse output."""

import math

import pytest
import torch
from monai.losses import DiceCELoss

from metaseg_nb.preprocessing.case_store import UNKNOWN
from metaseg_nb.training.losses import LOSSES, build_loss, lesion_dice, lesions_of

SURE = 50.0  # a logit whose probability is 1 in single precision
each_loss = pytest.mark.parametrize("name", LOSSES)


def cubes(*cubes, size=32, patches=1):
    """Labels with cubes given by patch, corner and edge."""
    labels = torch.zeros(patches, 1, size, size, size)
    for patch, corner, edge in cubes:
        labels[patch, 0][tuple(slice(start, start + edge) for start in corner)] = 1
    return labels


def sure_of(mask):
    return SURE * (2 * mask - 1)


def lesion_loss(logits, labels):
    return lesion_dice(logits, labels, lesions_of(labels)).item()


SMALL, LARGE = cubes((0, (3, 3, 3), 2)), cubes((0, (16, 16, 16), 8))  # 8 and 512 voxels
BOTH = SMALL + LARGE


@each_loss
def test_a_perfect_prediction_costs_nothing_and_a_missed_lesion_much(name):
    loss = build_loss(name)
    assert loss(sure_of(BOTH), BOTH).item() == pytest.approx(0, abs=1e-4)
    assert loss(sure_of(SMALL), BOTH).item() > 0.3


def test_of_two_lesions_the_small_one_missed_costs_as_much_as_the_large_one():
    assert lesion_loss(sure_of(LARGE), BOTH) == pytest.approx(1 / 2, abs=1e-4)
    assert lesion_loss(sure_of(SMALL), BOTH) == pytest.approx(1 / 2, abs=1e-4)


def test_over_all_voxels_the_small_one_hardly_counts():
    # Dice 1 - 2 * 512 / (512 + 520); cross-entropy 50 at 8 of 32³ voxels
    expected = 1 - 1024 / 1032 + SURE * 8 / 32**3
    assert build_loss("dice_ce")(sure_of(LARGE), BOTH).item() == pytest.approx(expected, rel=1e-3)


def test_blob_is_twice_the_loss_over_voxels_and_once_the_one_over_lesions():
    expected = 2 * (1 - 1024 / 1032 + SURE * 8 / 32**3) + 1 / 2
    assert build_loss("blob")(sure_of(LARGE), BOTH).item() == pytest.approx(expected, rel=1e-3)


def test_half_a_lesion_and_voxels_outside_by_hand():
    # 6 voxels outside; of the small lesion 4 of 8: 2 * 4 / (4 + 6 + 8); of the large one all: 2 * 512 / (512 + 6 + 512)
    prediction = LARGE.clone()
    prediction[0, 0, 3, 3:5, 3:5] = 1
    prediction[0, 0, 30, 30, 10:16] = 1
    expected = 1 - (8 / 18 + 1024 / 1030) / 2
    assert lesion_loss(sure_of(prediction), BOTH) == pytest.approx(expected, abs=1e-4)


def test_every_lesion_of_a_batch_is_alike_and_knows_only_its_own_patch():
    # three lesions in the first patch, found; one in the second, missed; five voxels outside in a third without lesion
    labels = cubes((0, (1, 1, 1), 3), (0, (10, 10, 10), 4), (0, (20, 20, 20), 5), (1, (4, 4, 4), 6), patches=3)
    prediction = labels.clone()
    prediction[1] = 0
    prediction[2, 0, 0, 0, :5] = 1
    assert lesion_loss(sure_of(prediction), labels) == pytest.approx(1 / 4, abs=1e-4)


def test_lesions_that_touch_at_a_corner_are_one():
    labels = cubes((0, (2, 2, 2), 2), (0, (4, 4, 4), 2), (0, (9, 9, 9), 1))
    found = lesions_of(labels)
    assert found.sizes == [16, 1]
    assert found.voxels[-1] == (9 * 32 + 9) * 32 + 9
    assert found.patches.tolist() == [0, 0]


@each_loss
@pytest.mark.parametrize("labels", [cubes(), BOTH, torch.ones(1, 1, 32, 32, 32)], ids=["empty", "two lesions", "full"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_loss_and_gradient_are_finite_whatever_the_label_and_the_precision(name, labels, dtype):
    for scale in (0.0, 5.0, 1e3):
        torch.manual_seed(0)
        logits = (scale * torch.randn(labels.shape)).to(dtype).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            loss = build_loss(name)(logits, labels.to(torch.uint8))
        loss.backward()
        assert loss.dtype == torch.float32
        assert torch.isfinite(loss)
        assert torch.isfinite(logits.grad).all()


@each_loss
def test_an_empty_label_asks_for_nothing_predicted(name):
    logits = torch.zeros(1, 1, 32, 32, 32, requires_grad=True)
    build_loss(name)(logits, cubes()).backward()
    assert (logits.grad >= 0).all()
    assert build_loss(name)(-2 * logits.detach() - SURE, cubes()).item() == pytest.approx(0, abs=1e-4)


def test_tversky_by_hand():
    # 512 right, 8 missed, 27 false: 1 - 512 / (512 + 0.3 * 27 + 0.7 * 8)
    prediction = LARGE + cubes((0, (28, 28, 28), 3))
    expected = 1 - 512 / (512 + 0.3 * 27 + 0.7 * 8)
    assert build_loss("tversky")(sure_of(prediction), BOTH).item() == pytest.approx(expected, rel=1e-3)


def test_focal_loss_by_hand():
    # logit 0 everywhere: Dice 1 - 2 * 260 / (32³ / 2 + 520), focal (1 / 2)² * log 2
    expected = 1 - 520 / (32**3 / 2 + 520) + 0.25 * math.log(2)
    assert build_loss("dice_focal")(torch.zeros_like(BOTH), BOTH).item() == pytest.approx(expected, rel=1e-4)


def test_dice_is_of_the_whole_batch_so_that_an_empty_patch_does_not_count_as_missed():
    labels = cubes((0, (16, 16, 16), 8), patches=2)
    logits = torch.where(labels > 0, SURE, -8.0)
    probability = torch.sigmoid(logits)
    dice = 2 * 512 / (probability.sum() + 512)
    cross_entropy = math.log1p(math.exp(-8)) * (1 - 512 / labels.numel())
    assert build_loss("dice_ce")(logits, labels).item() == pytest.approx(1 - dice.item() + cross_entropy, rel=1e-3)


def test_of_several_outputs_each_counts_half_as_much_as_the_one_before():
    right, wrong = sure_of(BOTH), sure_of(torch.zeros_like(BOTH))
    loss = build_loss("dice_ce")
    one = loss(wrong, BOTH).item()
    assert loss([right, right, right], BOTH).item() == pytest.approx(0, abs=1e-4)
    for place, share in enumerate((4 / 7, 2 / 7, 1 / 7)):
        outputs = [right] * 3
        outputs[place] = wrong
        assert loss(outputs, BOTH).item() == pytest.approx(share * one, rel=1e-3)


def test_one_output_alone_and_in_a_list_are_the_same_loss_as_monais():
    logits = torch.randn(BOTH.shape, generator=torch.Generator().manual_seed(0))
    expected = DiceCELoss(sigmoid=True, batch=True)(logits, BOTH).item()
    assert build_loss("dice_ce")(logits, BOTH).item() == pytest.approx(expected)
    assert build_loss("dice_ce")([logits], BOTH).item() == pytest.approx(expected)


@each_loss
@pytest.mark.parametrize("corner", [(0, 0, 0), (9, 9, 9), (10, 9, 12)])
def test_a_lesion_of_one_voxel_is_not_lost_in_an_output_eight_times_as_coarse(name, corner):
    labels = cubes((0, corner, 1))
    coarse = torch.full((1, 1, 4, 4, 4), -4.0, requires_grad=True)
    build_loss(name)([sure_of(labels), coarse], labels).backward()
    gradient = coarse.grad[0, 0]
    over_it = tuple(place // 8 for place in corner)
    assert gradient[over_it] == gradient.min()  # nowhere is it asked more to say lesion
    assert gradient[over_it] < 0.99 * gradient.median()


@each_loss
def test_unknown_voxels_count_for_nothing_whatever_is_predicted_there(name):
    known = cubes((0, (4, 4, 4), 6), patches=2)
    logits = torch.randn(known.shape, generator=torch.Generator().manual_seed(0))
    partly = known.clone()
    partly[1] = UNKNOWN
    partly[0, :, 20:] = UNKNOWN
    loss = build_loss(name)
    other = torch.where(partly == UNKNOWN, -logits, logits)
    assert loss(logits, partly).item() == pytest.approx(loss(other, partly).item())
    moved = logits.clone().requires_grad_()
    loss(moved, partly).backward()
    assert moved.grad[partly == UNKNOWN].abs().max() == 0
    assert moved.grad[partly != UNKNOWN].abs().max() > 0


@each_loss
def test_what_is_known_of_a_patch_costs_what_a_patch_of_it_alone_costs(name):
    whole = cubes((0, (4, 4, 4), 6))
    logits = torch.randn(whole.shape, generator=torch.Generator().manual_seed(1))
    partly = whole.clone()
    partly[..., 16:] = UNKNOWN
    loss = build_loss(name)
    assert loss(logits, partly).item() == pytest.approx(loss(logits[..., :16], whole[..., :16]).item(), rel=1e-5)


@each_loss
def test_a_batch_of_which_nothing_is_known_costs_nothing(name):
    logits = torch.randn(1, 1, 8, 8, 8, requires_grad=True)
    cost = build_loss(name)(logits, torch.full((1, 1, 8, 8, 8), UNKNOWN, dtype=torch.uint8))
    cost.backward()
    assert cost.item() == 0
    assert logits.grad.abs().max() == 0
