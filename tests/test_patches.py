"""Training patches: a step's batch can be had again, nothing is left out, lesions are shown, image and label agree."""

from collections import Counter

import numpy as np
import pytest
import torch

from metaseg_nb.training.augmentation import augment
from metaseg_nb.training.patches import PatchBatches, cut, draw_patch

SIZE = 32
ALL_RANDOM = {"flip_probability": 0.5, "rotate_probability": 0.5, "intensity_scale": 0.1, "intensity_shift": 0.1}


def same(first, second):
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.fixture
def cases(store_blobs):
    return [store_blobs(f"case{i}", seed=i) for i in range(4)]


@pytest.fixture
def numbered(store):
    """Make cases whose voxels say which case it is."""
    return lambda n: [store(f"case{i}", np.full((40, 36, 33), i + 1.0), np.ones((40, 36, 33))) for i in range(n)]


@pytest.fixture
def one_sided(store):
    """A long case with its only lesion at one end and its head at the other: no patch holds both."""
    image, label = np.zeros((120, 40, 40)), np.zeros((120, 40, 40))
    image[80:] = 0.5
    label[2, 20, 20] = 1
    return store("one_sided", image, label)


def test_a_batch_depends_on_seed_fold_and_step_alone(cases, tiny_training):
    settings = tiny_training(epochs=3, **ALL_RANDOM)
    batches = PatchBatches(cases, settings)
    in_order = [batches[step] for step in range(len(batches))]
    other = PatchBatches(cases, settings)
    np.random.default_rng(0).random()
    torch.manual_seed(99)
    for step in reversed(range(len(batches))):
        assert same(other[step], in_order[step])
    for step in range(1, len(batches)):
        assert not same(in_order[step], in_order[0])
    for change in ({"seed": 1}, {"fold": 1}):
        changed = PatchBatches(cases, tiny_training(epochs=3, **ALL_RANDOM, **change))
        assert not any(same(changed[step], in_order[step]) for step in range(len(batches)))


def test_what_comes_later_does_not_change_what_came_before(cases, tiny_training):
    short, long = (PatchBatches(cases, tiny_training(epochs=epochs, **ALL_RANDOM)) for epochs in (2, 9))
    assert all(same(short[step], long[step]) for step in range(len(short)))


def test_a_batch_is_what_networks_and_loss_take(cases, tiny_training):
    images, labels = PatchBatches(cases, tiny_training(patches_per_case=3))[0]
    assert images.shape == labels.shape == (2 * 3, 1, SIZE, SIZE, SIZE)
    assert images.dtype == labels.dtype == torch.float32
    assert set(labels.unique().tolist()) == {0, 1}


@pytest.mark.parametrize("batch_size", [1, 2, 3, 6])
def test_each_epoch_visits_every_case_once_in_a_new_order(numbered, tiny_training, batch_size):
    batches = PatchBatches(numbered(6), tiny_training(epochs=4, batch_size=batch_size))
    assert len(batches) == 4 * 6 // batch_size
    seen = [value for images, _ in map(batches.__getitem__, range(len(batches))) for value in images.amax((1, 2, 3, 4))]
    epochs = [tuple(int(value) for value in seen[start : start + 6]) for start in range(0, 24, 6)]
    assert all(sorted(epoch) == [1, 2, 3, 4, 5, 6] for epoch in epochs)
    assert len(set(epochs)) == 4


@pytest.mark.parametrize(("n", "batch_size", "steps"), [(5, 2, 3), (5, 4, 2), (2, 3, 1)])
def test_where_the_count_does_not_divide_no_case_is_left_out_and_batches_stay_alike(
    numbered, tiny_training, n, batch_size, steps
):
    batches = PatchBatches(numbered(n), tiny_training(epochs=1, batch_size=batch_size))
    assert len(batches) == steps
    seen = [int(value) for step in range(steps) for value in batches[step][0].amax((1, 2, 3, 4))]
    assert len(seen) == steps * batch_size
    assert set(seen) == set(range(1, n + 1))
    assert max(Counter(seen).values()) <= 2


@pytest.mark.parametrize(
    ("share", "patches", "expected"),
    [(0.0, 4, 0), (0.25, 4, 10), (0.5, 4, 20), (1.0, 4, 40), (0.5, 2, 10), (0.5, 1, 5), (0.5, 3, 15), (0.1, 2, 2)],
)
def test_lesion_share_is_the_share_of_patches_with_lesion(one_sided, tiny_training, share, patches, expected):
    settings = tiny_training(lesion_share=share, patches_per_case=patches, batch_size=1, epochs=10)
    batches = PatchBatches([one_sided], settings)
    found = sum(int(batches[step][1].amax((1, 2, 3, 4)).sum()) for step in range(10))
    assert found == expected


def test_a_lesion_patch_holds_lesion_wherever_it_lies(store_blobs):
    corners = [(0, 0, 0), (39, 43, 35), (0, 43, 17), (20, 22, 18)]  # three of them single voxels at the very border
    for corner in corners:
        case = store_blobs(f"at{corner}", corners=[corner], edge=1)
        for seed in range(30):
            image, label = draw_patch(case, SIZE, True, np.random.default_rng(seed))
            assert label.sum() == 1
            assert image[0][label > 0] == pytest.approx(case.image[0][corner])


def test_each_voxel_of_each_lesion_can_be_the_one_that_is_shown(store):
    label = np.zeros((96, 96, 96))
    label[40:44, 48, 48] = 1
    label[70, 48, 48] = 1
    case = store("two", np.ones(label.shape), label)
    places, rng = [], np.random.default_rng(0)
    for _ in range(200):
        where = np.argwhere(draw_patch(case, SIZE, True, rng)[1])
        places.append(where[0])
        assert ((where >= 8) & (where <= 24)).all(axis=1).any(), "no lesion voxel in the inner half"
    assert np.ptp(places, axis=0).min() >= 16, "the lesion always stands at one place of the patch"


def test_without_lesions_patches_come_from_the_head(store):
    image = np.zeros((64, 64, 64))
    image[16:48, 16:48, 16:48] = 0.5
    case = store("healthy", image, np.zeros(image.shape))
    rng, centres = np.random.default_rng(0), 0
    for wants_lesion in (True, False) * 20:
        patch, label = draw_patch(case, SIZE, wants_lesion, rng)
        assert not label.any()
        centres += patch[0, SIZE // 2, SIZE // 2, SIZE // 2] > 0
    assert centres == 40


def test_an_image_without_any_head_still_gives_patches(store):
    case = store("black", np.zeros((40, 40, 40)), np.zeros((40, 40, 40)))
    image, label = draw_patch(case, SIZE, False, np.random.default_rng(0))
    assert image.shape == (1, *label.shape) == (1, *(SIZE,) * 3)


def test_a_volume_smaller_than_the_patch_is_centred_in_zeros(store):
    image = np.random.default_rng(0).uniform(0.1, 1, (20, 40, 31)).astype(np.float16).astype(np.float32)
    label = image > 0.9
    case = store("small", image, label)
    for wants_lesion in (True, False):
        (patch,), patch_label = draw_patch(case, SIZE, wants_lesion, np.random.default_rng(3))
        # 32 - 20 = 12 voxels to spare along x, 6 before; along z 1 to spare, before or after
        assert not patch[:6].any()
        assert not patch[26:].any()
        inner = patch[6:26]
        start = next(y for y in range(9) if np.array_equal(inner[:, :, 1:], image[:, y : y + SIZE]))
        assert np.array_equal(patch_label[6:26, :, 1:], label[:, start : start + SIZE])
        assert not inner[:, :, 0].any()


@pytest.mark.parametrize("start", [(0, 0, 0), (2, 4, 6), (-3, 2, 5), (7, -7, 10)])
def test_cut_keeps_every_voxel_at_its_place(start):
    array = np.random.default_rng(0).random((10, 12, 14))
    patch = cut(array, np.array(start), 8, np.float64)
    for index in np.ndindex(8, 8, 8):
        source = np.array(index) + start
        inside = (source >= 0).all() and (source < array.shape).all()
        assert patch[index] == (array[tuple(source)] if inside else 0)
    several = cut(np.stack([array, -array]), np.array(start), 8, np.float32)
    assert several.dtype == np.float32
    np.testing.assert_allclose(several, [patch, -patch], rtol=1e-6)


def test_patches_are_copies_and_leave_the_case_store_as_it_is(cases):
    before = np.array(cases[0].image)
    image, _ = draw_patch(cases[0], SIZE, True, np.random.default_rng(0))
    image[:] = -1
    assert np.array_equal(cases[0].image, before)


def marked():
    """An image and a label with one voxel marked in both, at a place that no turn or flip leaves alone."""
    image, label = np.zeros((1, *(SIZE,) * 3), np.float32), np.zeros((SIZE,) * 3, np.uint8)
    image[0, 3, 10, 20] = label[3, 10, 20] = 1
    return image, label


def test_image_and_label_are_moved_alike(tiny_training):
    settings = tiny_training(flip_probability=1.0, rotate_probability=1.0, intensity_scale=0.1, intensity_shift=0.1)
    places, rng = set(), np.random.default_rng(0)
    for _ in range(100):
        image, label = augment(*marked(), settings, rng)
        place = tuple(np.argwhere(label)[0].tolist())
        assert label.sum() == 1
        assert tuple(np.argwhere(image[0] == image.max())[0].tolist()) == place
        places.add(place)
    assert (3, 10, 20) not in places
    # three planes, three turns each; a half turn undoes two of the three flips
    assert len(places) == 9


@pytest.mark.parametrize(("probabilities", "n"), [((0.5, 0.0), 8), ((0.0, 0.5), 10)])
def test_every_flip_and_every_quarter_turn_occurs(tiny_training, probabilities, n):
    flip, rotate = probabilities
    settings = tiny_training(flip_probability=flip, rotate_probability=rotate)
    rng = np.random.default_rng(0)
    places = {tuple(np.argwhere(augment(*marked(), settings, rng)[1])[0].tolist()) for _ in range(300)}
    assert len(places) == n


def test_with_nothing_random_a_patch_stays_as_it_is(tiny_training):
    image, label = np.random.default_rng(1).random((2, *(SIZE,) * 3)).astype(np.float32), marked()[1]
    for seed in range(5):
        same_image, same_label = augment(image, label, tiny_training(), np.random.default_rng(seed))
        assert np.array_equal(same_image, image)
        assert np.array_equal(same_label, label)
        assert (same_image.dtype, same_label.dtype) == (np.float32, np.uint8)


def test_intensity_changes_by_as_much_as_was_allowed_and_labels_not_at_all(tiny_training):
    settings = tiny_training(intensity_scale=0.2, intensity_shift=0.1)
    image, label = np.zeros((1, *(SIZE,) * 3), np.float32), marked()[1]
    image[0, 1:] = 1
    shifts, scales, rng = [], [], np.random.default_rng(0)
    for _ in range(200):
        changed, same_label = augment(image, label, settings, rng)
        shifts.append(changed[0, 0, 0, 0])
        scales.append(changed[0, 1, 0, 0] - changed[0, 0, 0, 0])
        assert changed.dtype == np.float32
        assert np.array_equal(same_label, label)
    assert -0.1 <= min(shifts) < -0.09 < 0.09 < max(shifts) <= 0.1
    assert 0.8 <= min(scales) < 0.82 < 1.18 < max(scales) <= 1.2


def test_sequences_are_moved_alike_and_change_in_intensity_each_by_itself(tiny_training):
    settings = tiny_training(flip_probability=0.5, rotate_probability=0.5, intensity_scale=0.2, intensity_shift=0.1)
    first = np.random.default_rng(1).random((SIZE,) * 3).astype(np.float32)
    image, rng = np.stack([first, first]), np.random.default_rng(0)
    for _ in range(10):
        one, other = augment(image, marked()[1], settings, rng)[0]
        scale, shift = np.polyfit(one.ravel(), other.ravel(), 1)
        np.testing.assert_allclose(scale * one + shift, other, atol=1e-4)
        assert abs(scale - 1) > 1e-3


def test_a_batch_has_the_sequences_of_its_cases(store, tiny_training):
    images = np.random.default_rng(0).random((3, 40, 36, 33))
    cases = [store(f"case{i}", images, images[0] > 0.99) for i in range(2)]
    batches = PatchBatches(cases, tiny_training())
    assert batches.channels == 3
    image, label = batches[0]
    assert image.shape == (2, 3, SIZE, SIZE, SIZE)
    assert label.shape == (2, 1, SIZE, SIZE, SIZE)


@pytest.mark.parametrize("first", [0, 1, 5, 12])
def test_a_loader_that_starts_late_gives_what_the_whole_one_gives_from_there(cases, tiny_training, first):
    batches = PatchBatches(cases, tiny_training(epochs=6, **ALL_RANDOM))
    late = list(batches.loader(first))
    assert len(late) == len(batches) - first == 12 - first
    assert all(same(batch, batches[first + i]) for i, batch in enumerate(late))


def test_worker_processes_change_nothing(cases, tiny_training):
    alone, helped = (list(PatchBatches(cases, tiny_training(loader_workers=n, **ALL_RANDOM)).loader(1)) for n in (0, 2))
    assert len(alone) == len(helped) == 3
    assert all(same(a, b) for a, b in zip(alone, helped, strict=True))


def test_reading_batches_leaves_the_random_state_of_dropout_alone(cases, tiny_training):
    # or a run that is taken up again would go on with other random numbers
    torch.manual_seed(5)
    before = torch.get_rng_state()
    list(PatchBatches(cases, tiny_training(**ALL_RANDOM)).loader(0))
    assert torch.equal(torch.get_rng_state(), before)
