"""Training patches: a step's batch can be had again, nothing is left out, each way of sampling shows what it says."""

from collections import Counter

import numpy as np
import pytest
import torch

from metaseg_nb.training.patches import PatchBatches, cut, place_patch

SIZE = 32
SAMPLINGS = ("voxel", "lesion", "roi")
CPU = torch.device("cpu")
ALL_RANDOM = {"flip_probability": 0.5, "rotate_probability": 0.5, "intensity_scale": 0.1, "intensity_shift": 0.1}


def same(first, second):
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def draw(case, sampling, wants_lesion, n, seed=0):
    """Images of the first sequence, labels and first voxels of n patches."""
    rng = np.random.default_rng(seed)
    starts = [place_patch(case, SIZE, sampling, wants_lesion, rng) for _ in range(n)]
    image, label = (np.stack([cut(array, start, SIZE) for start in starts]) for array in (case.image[0], case.label))
    return image.astype(np.float32), label, np.array(starts)


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


def test_cases_of_a_batch_are_drawn_and_changed_each_by_itself(store_blobs, tiny_training):
    alike = [store_blobs(name) for name in ("one", "other")]
    for images, _ in PatchBatches(alike, tiny_training(epochs=5, **ALL_RANDOM)).loader(0, CPU):
        assert not torch.equal(*images)
    settings = tiny_training(lesion_share=1.0, batch_size=2, epochs=5)
    assert any(not torch.equal(*labels) for _, labels in PatchBatches(alike, settings).loader(0, CPU))


def test_what_comes_later_does_not_change_what_came_before(cases, tiny_training):
    short, long = (PatchBatches(cases, tiny_training(epochs=epochs, **ALL_RANDOM)) for epochs in (2, 9))
    assert all(same(short[step], long[step]) for step in range(len(short)))


def test_a_batch_is_what_networks_and_loss_take(cases, tiny_training):
    images, labels = PatchBatches(cases, tiny_training(patches_per_case=3))[0]
    assert images.shape == labels.shape == (2 * 3, 1, SIZE, SIZE, SIZE)
    assert (images.dtype, labels.dtype) == (torch.float32, torch.uint8)
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


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_a_lesion_patch_holds_lesion_wherever_it_lies(store_blobs, sampling):
    corners = [(0, 0, 0), (39, 43, 35), (0, 43, 17), (20, 22, 18)]  # three of them single voxels at the very border
    for corner in corners:
        case = store_blobs(f"at{corner}", corners=[corner], edge=1)
        images, labels, _ = draw(case, sampling, True, 30)
        assert (labels.sum(axis=(1, 2, 3)) == 1).all()
        assert images[labels > 0] == pytest.approx(float(case.image[0][corner]))


def test_voxel_sampling_can_show_each_voxel_of_each_lesion(store):
    label = np.zeros((96, 96, 96))
    label[40:44, 48, 48] = 1
    label[70, 48, 48] = 1
    _, labels, starts = draw(store("two", np.ones(label.shape), label), "voxel", True, 200)
    found = [np.argwhere(patch) for patch in labels]
    assert all(((where >= 8) & (where < 24)).all(axis=1).any() for where in found), "nothing in the inner half"
    places = [where[0] for where in found]
    assert np.ptp(places, axis=0).min() >= 14, "the lesion always stands at one place of the patch"
    assert 0.09 < (starts[:, 0] > 43).mean() < 0.31, "one voxel of five is in the second lesion"


@pytest.fixture
def unequal(store):
    """A lesion of 12³ voxels and, out of a patch's reach, two of 1 voxel."""
    label = np.zeros((160, 48, 48))
    label[20:32, 18:30, 18:30] = 1
    label[88, 24, 24] = label[140, 20, 28] = 1
    return store("unequal", np.ones(label.shape), label)


@pytest.mark.parametrize(("sampling", "expected"), [("voxel", 1728 / 1730), ("lesion", 1 / 3), ("roi", 1 / 3)])
def test_lesions_are_drawn_by_their_voxels_or_each_as_often(unequal, sampling, expected):
    _, labels, _ = draw(unequal, sampling, True, 1200)
    large = (labels.sum(axis=(1, 2, 3)) > 1).mean()
    # within four standard deviations of a draw of 1200
    assert large == pytest.approx(expected, abs=4 * (expected * (1 - expected) / 1200) ** 0.5)


def test_lesion_sampling_has_the_whole_lesion_in_the_inner_half_at_all_its_places(store):
    label = np.zeros((96, 96, 96))
    label[40:44, 45:50, 48:64] = 1  # along z as long as the inner half
    _, labels, _ = draw(store("one", np.ones(label.shape), label), "lesion", True, 300)
    places = np.array([np.argwhere(patch).min(axis=0) for patch in labels])
    assert (labels.sum(axis=(1, 2, 3)) == 4 * 5 * 16).all()
    # 8 to 24 is the inner half: 4 voxels of length begin at 8 to 20, 5 at 8 to 19, 16 at 8
    assert [set(axis) for axis in places.T.tolist()] == [set(range(8, 21)), set(range(8, 20)), {8}]


def test_a_lesion_larger_than_the_inner_half_is_seen_from_end_to_end(store):
    label = np.zeros((96, 96, 96))
    label[30:66, 48, 48] = 1
    _, labels, starts = draw(store("long", np.ones(label.shape), label), "lesion", True, 300)
    assert labels.any(axis=(1, 2, 3)).all()
    # the inner half, 8 voxels on, goes from 30 to 66
    assert set((starts[:, 0] + 8).tolist()) == set(range(30, 51))


def test_roi_patches_keep_their_place_at_the_border_and_are_filled_with_zeros(store):
    image, label = np.full((64, 64, 64), 0.5), np.zeros((64, 64, 64))
    label[1:4, 30:33, 60:63] = 1  # middle voxel (2, 31, 61)
    images, labels, starts = draw(store("corner", image, label), "roi", True, 400)
    # a quarter of the patch to either side of its middle, and not moved into the volume
    expected = [range(middle - 16 - 8, middle - 16 + 9) for middle in (2, 31, 61)]
    assert [set(axis) for axis in starts.T.tolist()] == [set(axis) for axis in expected]
    for patch, patch_label, start in zip(images, labels, starts, strict=True):
        places = np.indices(patch.shape) + start[:, None, None, None]
        inside = ((places >= 0) & (places < 64)).all(axis=0)
        assert np.array_equal(patch, np.where(inside, 0.5, 0))
        assert patch_label.sum() == 27


def test_roi_shows_lesions_alone_and_differs_from_epoch_to_epoch(store_blobs, tiny_training):
    case = store_blobs("one", corners=[(60, 60, 60)], shape=(120, 120, 120))
    settings = tiny_training(sampling="roi", lesion_share=0.0, batch_size=1, patches_per_case=2, epochs=6)
    labels = torch.cat([labels for _, labels in map(PatchBatches([case], settings).__getitem__, range(6))])
    assert labels.amax((1, 2, 3, 4)).tolist() == [1] * 12
    assert len({tuple(np.argwhere(label.numpy())[0].tolist()) for label in labels}) > 6


@pytest.mark.parametrize("sampling", ["voxel", "lesion"])
def test_a_background_patch_is_free_of_lesion_all_over(store, sampling):
    # a rod through the whole head: a patch is free of it only near the two ends of y, wherever its middle lies
    label = np.zeros((64, 110, 64))
    label[:, 54, 32] = 1
    _, labels, starts = draw(store("rod", np.ones(label.shape), label), sampling, False, 200)
    assert not labels.any()
    assert np.unique(starts[:, 1]).size > 20, "background is always the same place"


def test_background_is_judged_by_voxels_where_the_boxes_of_lesions_fill_the_volume(store):
    label = np.zeros((80, 80, 80))
    label[0, 0] = label[0, :, 79] = label[:, 79, 79] = 1  # one lesion along three edges of the volume
    case = store("frame", np.ones(label.shape), label)
    assert case.lesion_boxes.shape == (1, 3, 2)
    _, labels, _ = draw(case, "voxel", False, 100)
    assert not labels.any(axis=(1, 2, 3)).all()
    assert np.mean(labels.any(axis=(1, 2, 3))) < 0.05  # of random places a quarter holds some


def test_where_no_place_is_free_background_has_as_little_lesion_as_can_be_had(store):
    label = np.zeros((48, 32, 32))
    label[16:32] = 1  # a patch holds 16 planes of it, whatever is done,
    label[2:4, 10, 10] = 1  # and of this one all, half or nothing
    _, labels, _ = draw(store("full", np.ones(label.shape), label), "voxel", False, 50)
    assert (labels.sum(axis=(1, 2, 3)) == 16 * 32 * 32).all()


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_without_lesions_patches_come_from_the_head(store, sampling):
    image = np.zeros((96, 96, 96))
    image[32:64, 32:64, 32:64] = 0.5
    case = store("healthy", image, np.zeros(image.shape))
    for wants_lesion in (True, False):
        images, labels, _ = draw(case, sampling, wants_lesion, 20)
        assert not labels.any()
        assert (images[:, SIZE // 2, SIZE // 2, SIZE // 2] > 0).all()


def test_an_image_without_any_head_still_gives_patches(store):
    case = store("black", np.zeros((40, 40, 40)), np.zeros((40, 40, 40)))
    images, _, _ = draw(case, "voxel", False, 1)
    assert not images.any()


@pytest.mark.parametrize("sampling", ["voxel", "lesion"])
def test_a_volume_smaller_than_the_patch_is_centred_in_zeros(store, sampling):
    image = np.random.default_rng(0).uniform(0.1, 1, (20, 40, 31)).astype(np.float16).astype(np.float32)
    label = image > 0.9
    case = store("small", image, label)
    for wants_lesion in (True, False):
        (patch,), (patch_label,), _ = draw(case, sampling, wants_lesion, 1, seed=3)
        # 32 - 20 = 12 voxels to spare along x, 6 before; along z 1 to spare, before or after
        assert not patch[:6].any()
        assert not patch[26:].any()
        inner = patch[6:26]
        start = next(y for y in range(9) if np.array_equal(inner[:, :, 1:], image[:, y : y + SIZE]))
        assert np.array_equal(patch_label[6:26, :, 1:], label[:, start : start + SIZE])
        assert not inner[:, :, 0].any()


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_a_volume_smaller_than_the_patch_gives_batches(store, tiny_training, sampling):
    image = np.full((20, 24, 18), 0.5)
    label = np.zeros(image.shape)
    label[9:11, 12:14, 8:10] = 1
    settings = tiny_training(sampling=sampling, lesion_share=1.0, batch_size=1, **ALL_RANDOM)
    images, labels = PatchBatches([store("small", image, label)], settings)[0]
    assert images.shape == labels.shape == (1, 1, SIZE, SIZE, SIZE)
    assert labels.sum() == 8
    assert images.isfinite().all()


@pytest.mark.parametrize("start", [(0, 0, 0), (2, 4, 6), (-3, 2, 5), (7, -7, 10)])
def test_cut_keeps_every_voxel_at_its_place(start):
    array = np.random.default_rng(0).random((10, 12, 14))
    patch = cut(array, np.array(start), 8)
    for index in np.ndindex(8, 8, 8):
        source = np.array(index) + start
        inside = (source >= 0).all() and (source < array.shape).all()
        assert patch[index] == (array[tuple(source)] if inside else 0)
    assert np.array_equal(cut(np.stack([array, -array]), np.array(start), 8), [patch, -patch])


def test_patches_are_copies_and_leave_the_case_store_as_it_is(cases, tiny_training):
    before = np.array(cases[0].image)
    images, labels = PatchBatches(cases[:1], tiny_training(batch_size=1))[0]
    images[:] = -1
    labels[:] = 7
    assert np.array_equal(cases[0].image, before)
    assert cases[0].label.max() == 1


def test_image_and_label_show_the_same_place_whatever_is_changed(store, tiny_training):
    # each voxel's number says where it is; numbers up to 2048 are exact in half precision
    image = np.random.default_rng(0).integers(0, 2048, (48, 40, 36)).astype(float)
    label = image % 7 == 0
    settings = tiny_training(epochs=40, batch_size=1, flip_probability=0.5, rotate_probability=0.7)
    for images, labels in PatchBatches([store("numbers", image, label)], settings).loader(0, CPU):
        assert torch.equal(labels > 0, images % 7 == 0)


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
    late = list(batches.loader(first, CPU))
    assert len(late) == len(batches) - first == 12 - first
    assert all(same(batch, batches[first + i]) for i, batch in enumerate(late))


def test_reading_batches_leaves_the_random_state_of_dropout_alone(cases, tiny_training):
    # or a run that is taken up again would go on with other random numbers
    torch.manual_seed(5)
    before = torch.get_rng_state()
    list(PatchBatches(cases, tiny_training(**ALL_RANDOM)).loader(0, CPU))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("batch_size", "processes"), [(4, 2), (6, 3), (2, 2)])
@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_processes_share_exactly_the_batch_of_one(cases, tiny_training, sampling, batch_size, processes):
    settings = tiny_training(batch_size=batch_size, patches_per_case=2, sampling=sampling, **ALL_RANDOM)
    shares = [PatchBatches(cases, settings).share(rank, processes) for rank in range(processes)]
    whole = PatchBatches(cases, settings)
    for step in range(len(whole)):
        for part, expected in zip(zip(*(share[step] for share in shares), strict=True), whole[step], strict=True):
            # process r has the cases r, r + processes, ...: two patches each
            pairs = torch.stack([tensor.unflatten(0, (-1, 2)) for tensor in part], dim=1).flatten(0, 2)
            assert torch.equal(pairs, expected)
