"""Random changes to patches: image and label are moved alike, everything allowed occurs, nothing else does."""

import itertools

import numpy as np
import pytest
import torch

from metaseg_nb.training import augmentation
from metaseg_nb.training.augmentation import (
    augment_strongly,
    bias_field,
    change_intensity,
    draw_change,
    move,
    move_patches,
)

SIZE = 32
CHANCES = [name for name in vars(augmentation) if name.endswith("_CHANCE")]
MOVING = ["TURN_CHANCE", "ZOOM_CHANCE", "BEND_CHANCE"]
LOOKS = [name for name in CHANCES if name not in MOVING]


def changed(image, label, change):
    """Image (C, P, P, P) and label (P, P, P) with a change done to them."""
    images, labels = (
        torch.from_numpy(image.astype(np.float16))[None],
        torch.tensor(label, dtype=torch.uint8)[None, None],
    )
    (brightened,) = change_intensity(move_patches(images, [change]), [change])
    return brightened.numpy(), move_patches(labels, [change])[0, 0].numpy()


def noise(channels=1, size=SIZE):
    """Numbers that half precision holds exactly."""
    return np.random.default_rng(1).integers(0, 1024, (channels, *(size,) * 3)).astype(np.float32)


def marked():
    """An image and a label with one voxel marked in both, at a place that no turn or flip leaves alone."""
    image, label = np.zeros((1, *(SIZE,) * 3), np.float32), np.zeros((SIZE,) * 3, np.uint8)
    image[0, 3, 10, 20] = label[3, 10, 20] = 1
    return image, label


# The study's augmentation


@pytest.mark.parametrize("seed", range(40))
def test_image_and_label_are_moved_alike(tiny_training, seed):
    settings = tiny_training(flip_probability=0.5, rotate_probability=0.8)
    image = noise(2)
    moved, label = changed(image, image[1] % 5 == 0, draw_change(settings, 2, np.random.default_rng(seed)))
    assert np.array_equal(label, moved[1] % 5 == 0)


def test_every_orientation_that_flips_and_quarter_turns_give_occurs_and_no_other(tiny_training):
    settings, rng = tiny_training(flip_probability=0.5, rotate_probability=0.5), np.random.default_rng(0)
    image = noise(size=4)
    flips = [np.flip(image, axes) for n in range(4) for axes in itertools.combinations((1, 2, 3), n)]
    turns = [np.rot90(flip, k, axes) for flip in flips for axes in ((1, 2), (1, 3), (2, 3)) for k in range(4)]
    seen = {changed(image, image[0] > 0, draw_change(settings, 1, rng))[0].tobytes() for _ in range(1000)}
    assert seen == {np.ascontiguousarray(turn).tobytes() for turn in turns}
    assert len(seen) == 8 * 4  # three swaps of axes or none, with eight flips each


@pytest.mark.parametrize(("probabilities", "n"), [((0.5, 0.0), 8), ((0.0, 0.5), 10)])
def test_flips_and_turns_each_have_their_own_probability(tiny_training, probabilities, n):
    flip, rotate = probabilities
    settings, rng = tiny_training(flip_probability=flip, rotate_probability=rotate), np.random.default_rng(0)
    labels = [changed(*marked(), draw_change(settings, 1, rng))[1] for _ in range(300)]
    assert len({tuple(np.argwhere(label)[0].tolist()) for label in labels}) == n


def test_turns_are_as_frequent_as_each_other(tiny_training):
    settings, rng = tiny_training(rotate_probability=1.0), np.random.default_rng(0)
    image = noise(size=4)
    seen = [changed(image, image[0] > 0, draw_change(settings, 1, rng))[0].tobytes() for _ in range(1800)]
    counts = [
        seen.count(np.ascontiguousarray(np.rot90(image, k, axes)).tobytes())
        for axes in ((1, 2), (1, 3), (2, 3))
        for k in (1, 2, 3)
    ]
    assert sum(counts) == 1800
    assert min(counts) > 140  # 200 each on average, with a deviation of 13
    assert max(counts) < 260


def test_with_nothing_random_a_patch_stays_as_it_is(tiny_training):
    image, label = noise(2), marked()[1]
    for seed in range(5):
        same_image, same_label = changed(image, label, draw_change(tiny_training(), 2, np.random.default_rng(seed)))
        assert np.array_equal(same_image, image)
        assert np.array_equal(same_label, label)


def test_intensity_changes_by_as_much_as_was_allowed_each_sequence_by_itself(tiny_training):
    settings, rng = tiny_training(intensity_scale=0.2, intensity_shift=0.1), np.random.default_rng(0)
    image, label = np.zeros((2, 4, 4, 4), np.float32), np.zeros((4, 4, 4), np.uint8)
    image[:, 1:] = 1
    patches = np.array([changed(image, label, draw_change(settings, 2, rng))[0] for _ in range(200)])
    shifts, scales = patches[:, :, 0, 0, 0], patches[:, :, 1, 0, 0] - patches[:, :, 0, 0, 0]
    assert -0.1 <= shifts.min() < -0.09 < 0.09 < shifts.max() <= 0.1
    assert 0.8 <= scales.min() < 0.82 < 1.18 < scales.max() <= 1.2
    for values in (shifts, scales):
        assert abs(np.corrcoef(values.T)[0, 1]) < 0.25


# Strong augmentation


@pytest.fixture
def only(monkeypatch):
    """Let these happen always, and nothing else."""

    def allow(*names):
        for name in CHANCES:
            monkeypatch.setattr(augmentation, name, float(name in names))

    return allow


@pytest.fixture(scope="module")
def batch():
    """Four smooth patches of two sequences, dark at the border, whose label is where the first one is bright."""
    torch.manual_seed(0)
    knots = torch.zeros(4, 2, 5, 5, 5)
    knots[:, :, 1:4, 1:4, 1:4] = 0.5 + torch.rand(4, 2, 3, 3, 3)
    images = torch.nn.functional.interpolate(knots, (SIZE,) * 3, mode="trilinear", align_corners=True)
    return images, (images[:, :1] > 0.6).to(torch.uint8)


def differs(first, second):
    return (first - second).abs().mean() > 1e-4


def test_strong_augmentation_keeps_shapes_and_types_and_leaves_what_it_was_given(batch):
    before = [tensor.clone() for tensor in batch]
    images, labels = augment_strongly(*batch, seed=3)
    assert (images.shape, images.dtype, type(images)) == (batch[0].shape, torch.float32, torch.Tensor)
    assert (labels.shape, labels.dtype, type(labels)) == (batch[1].shape, torch.uint8, torch.Tensor)
    assert all(torch.equal(tensor, same) for tensor, same in zip(batch, before, strict=True))


def test_without_any_chance_nothing_happens(only, batch):
    only()
    images, labels = augment_strongly(*batch, seed=0)
    assert torch.equal(images, batch[0])
    assert torch.equal(labels, batch[1])


@pytest.mark.parametrize("name", CHANCES)
def test_each_change_does_something_that_depends_on_the_seed_alone(only, batch, name):
    only(name)
    first = augment_strongly(*batch, seed=5)
    torch.manual_seed(99)
    np.random.default_rng().random()
    for one, again in zip(first, augment_strongly(*batch, seed=5), strict=True):
        assert torch.equal(one, again)
    assert differs(first[0], augment_strongly(*batch, seed=6)[0])
    assert differs(first[0], batch[0])
    assert first[0].isfinite().all()


@pytest.mark.parametrize("name", LOOKS)
def test_what_changes_the_look_leaves_labels_alone(only, batch, name):
    only(name)
    assert torch.equal(augment_strongly(*batch, seed=5)[1], batch[1])


@pytest.mark.parametrize("name", MOVING)
def test_what_moves_the_image_moves_its_label_alike_and_keeps_it_binary(only, batch, name):
    only(name)
    images, labels = augment_strongly(*batch, seed=5)
    assert labels.unique().tolist() == [0, 1]
    # label and image differ by half a voxel, over which the first sequence seldom changes by 0.1
    certain = ((images[:, :1] - 0.6).abs() > 0.1) * 1.0
    bright = images[:, :1] > 0.6
    assert (certain * (bright != labels)).mean() < 0.0005
    assert (certain * (bright != batch[1])).mean() > 0.003


def test_a_patch_is_zoomed_by_what_was_drawn(only):
    only("ZOOM_CHANCE")
    label = torch.zeros(1, SIZE, SIZE, SIZE, dtype=torch.uint8)
    label[:, 10:22, 10:22, 10:22] = 1
    moved = [move(label.float(), label, np.random.default_rng(seed))[1] for seed in range(60)]
    edges = np.array([np.ptp(np.argwhere(patch[0].numpy()), axis=0) + 1 for patch in moved])
    assert (edges == edges[:, :1]).all(), "not alike along all axes"
    # the edge of 12 becomes 12 / 1.4 to 12 / 0.7
    assert 8 <= edges.min() <= 10
    assert 15 <= edges.max() <= 18


def test_what_comes_from_beyond_the_patch_is_zero(only):
    only("TURN_CHANCE")
    ones = torch.ones(1, SIZE, SIZE, SIZE)
    image, label = move(ones, ones.to(torch.uint8), np.random.default_rng(0))
    assert image[0, 0, 0, 0] == label[0, 0, 0, 0] == 0
    assert image[0, 16, 16, 16] == pytest.approx(1)
    assert label[0, 16, 16, 16] == 1


def test_noise_has_up_to_a_tenth_of_the_variance_the_same_share_in_all_sequences(only, batch):
    only("NOISE_CHANCE")
    shares = []
    for seed in range(10):
        added = augment_strongly(*batch, seed=seed)[0] - batch[0]
        assert abs(np.corrcoef(added.flatten(1))).max(where=~np.eye(4, dtype=bool), initial=0) < 0.05
        shares += (added.var(dim=(2, 3, 4)) / batch[0].var(dim=(2, 3, 4))).tolist()
    shares = np.array(shares)
    np.testing.assert_allclose(shares[:, 0], shares[:, 1], rtol=0.05)
    assert 0 <= shares.min() < 0.02 < 0.08 < shares.max() < 0.105


def test_a_bias_field_is_smooth_and_near_one():
    fields = torch.stack([bias_field((SIZE,) * 3, np.random.default_rng(seed), "cpu") for seed in range(20)])
    assert 0.4 < fields.min() < 0.9
    assert 1.1 < fields.max() < 2.5
    assert fields.diff(dim=1).abs().max() < 0.15
    assert (fields.std(dim=(1, 2, 3)) > 0.005).all()


def test_gamma_keeps_mean_and_deviation(only, batch):
    only("GAMMA_CHANCE")
    images, _ = augment_strongly(*batch, seed=5)
    for image, before in zip(images, batch[0], strict=True):
        assert image.mean() == pytest.approx(before.mean().item(), abs=1e-4)
        assert image.std() == pytest.approx(before.std().item(), rel=1e-3)


def test_an_empty_patch_survives_everything(only):
    only(*CHANCES)
    zeros = torch.zeros(2, 1, SIZE, SIZE, SIZE)
    images, labels = augment_strongly(zeros, zeros.to(torch.uint8), seed=0)
    assert images.isfinite().all()
    assert not labels.any()
