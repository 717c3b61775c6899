"""The study grid: places stay, lesions keep their volume, there and back, and none is lost."""

import numpy as np
import pytest
from scipy import ndimage

from metaseg_nb.cohort.lesions import label_lesions
from metaseg_nb.preprocessing.grid import CROP_MARGIN_MM, Grid, resample, resample_lesions, study_grid

NATIVE = {"cubes": ((1.0, 1.0, 1.0), (24, 24, 20)), "thick": ((0.8, 0.8, 6.5), (32, 30, 8))}
natives = pytest.mark.parametrize(("spacing_mm", "shape"), NATIVE.values(), ids=NATIVE)
study_spacings = pytest.mark.parametrize("new_mm", [1.0, 2.0, 3.0])


def whole_grid(native, spacing_mm):
    return study_grid(np.ones(native.shape, bool), native, spacing_mm)


def places_mm(grid):
    axes = [o + np.arange(n) * s for o, n, s in zip(grid.origin_mm, grid.shape, grid.spacing_mm, strict=True)]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)


def dice(first, second):
    return 2 * (first & second).sum() / (first.sum() + second.sum())


def test_the_study_grid_covers_the_head_and_its_margin_and_no_more_than_the_volume():
    native = Grid((2.0, 2.0, 2.0), (50, 40, 30))
    mask = np.zeros(native.shape, bool)
    mask[20:30, 1:39, 2:4] = True
    grid = study_grid(mask, native, 1.0)
    # head: x from 39 to 59 mm, y from 1 to 77 mm, z from 3 to 7 mm; volume: from -1 to 99, 79 and 59 mm
    low = np.array(grid.origin_mm) - 0.5
    assert low.tolist() == [39 - CROP_MARGIN_MM, -1, -1]
    assert (low + grid.shape).tolist() == [59 + CROP_MARGIN_MM, 79, 7 + CROP_MARGIN_MM]
    assert grid.spacing_mm == (1.0, 1.0, 1.0)


@natives
@study_spacings
def test_without_a_head_all_of_the_volume_is_kept(spacing_mm, shape, new_mm):
    native = Grid(spacing_mm, shape)
    grid = study_grid(np.zeros(shape, bool), native, new_mm)
    missing_mm = np.array(shape) * spacing_mm - np.array(grid.shape) * new_mm
    assert (missing_mm <= 1e-5).all()
    assert (missing_mm > -new_mm).all()


@pytest.mark.parametrize("interpolation", ["linear", "cubic"])
@natives
@study_spacings
def test_a_point_keeps_its_place(spacing_mm, shape, new_mm, interpolation):
    native = Grid(spacing_mm, shape)
    grid = whole_grid(native, new_mm)
    extent = np.array(shape) * spacing_mm
    point = 0.45 * extent
    width = np.maximum(0.1 * extent, 0.7 * np.array(spacing_mm))
    spot = np.exp(-(((places_mm(native) - point) / width) ** 2).sum(axis=-1) / 2).astype(np.float32)

    def centre(array, on):
        return (places_mm(on) * array[..., None]).sum(axis=(0, 1, 2)) / array.sum()

    there = resample(spot, native, grid, interpolation)
    limit = np.maximum(spacing_mm, new_mm) / 2
    assert (np.abs(centre(there, grid) - centre(spot, native)) < 0.1 * limit).all()
    assert (np.abs(places_mm(grid)[np.unravel_index(there.argmax(), grid.shape)] - point) <= limit).all()


@natives
@study_spacings
def test_there_and_back_keeps_a_smooth_shape(spacing_mm, shape, new_mm):
    native = Grid(spacing_mm, shape)
    grid = whole_grid(native, new_mm)
    extent = np.array(shape) * spacing_mm
    distance = np.sqrt((((places_mm(native) - 0.47 * extent) / (0.35 * extent)) ** 2).sum(axis=-1))
    blob = (1 / (1 + np.exp(6 * (distance - 1)))).astype(np.float32)
    back = resample(resample(blob, native, grid), grid, native)
    assert back.shape == shape
    assert dice(back >= 0.5, blob >= 0.5) > 0.9


@pytest.mark.parametrize("interpolation", ["linear", "cubic"])
def test_the_same_grid_changes_nothing(interpolation):
    native = Grid((0.8, 0.8, 6.5), (12, 11, 10))
    array = np.random.default_rng(0).uniform(size=native.shape).astype(np.float32)
    np.testing.assert_allclose(resample(array, native, native, interpolation), array, atol=1e-5)


def test_cubic_interpolation_is_sharper():
    native = Grid((2.0, 2.0, 2.0), (24, 24, 24))
    waves = np.sin(2 * np.pi * places_mm(native)[..., 0] / 8).astype(np.float32)  # four voxels a wave
    finer = whole_grid(native, 1.0)
    truth = np.sin(2 * np.pi * places_mm(finer)[..., 0] / 8)
    linear, cubic = (resample(waves, native, finer, kind)[8:-8] - truth[8:-8] for kind in ("linear", "cubic"))
    assert np.abs(cubic).max() < np.abs(linear).max() / 3


def test_outside_the_volume_there_is_nothing():
    native = Grid((1.0, 1.0, 1.0), (10, 10, 10))
    around = Grid((1.0, 1.0, 1.0), (20, 20, 20), (-5.0, -5.0, -5.0))
    found = resample(np.ones(native.shape, np.float32), native, around)
    expected = np.zeros(around.shape)
    expected[5:15, 5:15, 5:15] = 1
    np.testing.assert_array_equal(found, expected)


def test_coarser_voxels_are_means_not_samples():
    """Stripes of one voxel become grey, not stripes of another width."""
    native = Grid((1.0, 1.0, 1.0), (24, 24, 24))
    stripes = np.broadcast_to((np.arange(24) % 2)[:, None, None], native.shape)
    found = resample(stripes, native, whole_grid(native, 3.0))
    np.testing.assert_allclose(found[2:-2], 0.5, atol=0.1)


# Lesions


@natives
@study_spacings
@pytest.mark.parametrize("seed", range(3))
def test_no_lesion_is_lost_even_of_one_voxel(spacing_mm, shape, new_mm, seed):
    native = Grid(spacing_mm, shape)
    grid = whole_grid(native, new_mm)
    mask = np.zeros(shape, bool)
    mask[tuple(np.random.default_rng(seed).integers(0, shape, (40, 3)).T)] = True
    found = resample_lesions(mask, native, grid)
    labels, n = label_lesions(mask)
    reach = (np.array(spacing_mm) + new_mm) / 2 + 1e-6
    stored = places_mm(grid)[found]
    for lesion in range(1, n + 1):
        apart = np.abs(stored[:, None] - places_mm(native)[labels == lesion]) <= reach
        assert apart.all(axis=-1).any()
    # and nothing is found where no lesion is
    assert (np.abs(stored[:, None] - places_mm(native)[mask]) <= reach).all(axis=-1).any(axis=1).all()


@natives
@study_spacings
def test_a_lone_voxel_lands_where_it_was(spacing_mm, shape, new_mm):
    native = Grid(spacing_mm, shape)
    grid = whole_grid(native, new_mm)
    for voxel in np.random.default_rng(5).integers(0, shape, (20, 3)):
        mask = np.zeros(shape, bool)
        mask[tuple(voxel)] = True
        stored = places_mm(grid)[resample_lesions(mask, native, grid)]
        # in the larger of the two kinds of voxel
        assert (np.abs(stored - voxel * spacing_mm) <= np.maximum(spacing_mm, new_mm) / 2 + 1e-6).all(axis=1).any()


BALL_GRIDS = {
    "1 mm": ((1.0, 1.0, 1.0), (26, 26, 26)),
    "thick": ((0.8, 0.8, 6.5), (34, 34, 5)),
    "fine plane": ((0.5, 0.5, 3.0), (52, 52, 9)),
}
ball_grids = pytest.mark.parametrize(("spacing_mm", "shape"), BALL_GRIDS.values(), ids=BALL_GRIDS)


def ball(grid, centre_mm, radius_mm):
    return np.linalg.norm(places_mm(grid) - centre_mm, axis=-1) <= radius_mm


@ball_grids
@study_spacings
def test_the_volume_of_lesions_is_kept(spacing_mm, shape, new_mm):
    native = Grid(spacing_mm, shape)
    grid = whole_grid(native, new_mm)
    middle, rng = places_mm(native).mean(axis=(0, 1, 2)), np.random.default_rng(0)
    for diameter_mm in np.linspace(8, 16, 9):
        mask = ball(native, middle + rng.uniform(-2, 2, 3), diameter_mm / 2)
        before, after = mask.sum() * np.prod(spacing_mm), resample_lesions(mask, native, grid).sum() * new_mm**3
        assert after == pytest.approx(before, abs=new_mm**3 / 2 + 1e-3)


@pytest.mark.parametrize("spacing_mm", [(0.8, 0.8, 6.5), (0.9, 0.9, 5.0), (0.5, 0.5, 3.0)])
@pytest.mark.parametrize("new_mm", [1.0, 1.5])
def test_lesions_of_3_mm_radius_on_thick_slices_survive_the_way_there_and_back(spacing_mm, new_mm):
    native = Grid(spacing_mm, tuple(2 * int(12 / edge) + 3 for edge in spacing_mm))
    grid, rng = whole_grid(native, new_mm), np.random.default_rng(1)
    volumes, overlaps = [], []
    for _ in range(30):
        # the physician outlines what shows on the slices: a slice counts when the lesion reaches its middle
        centre_mm = places_mm(native).mean(axis=(0, 1, 2)) + rng.uniform(-0.4, 0.4, 3) * spacing_mm
        drawn = ball(native, centre_mm, 3.0)
        stored = resample_lesions(drawn, native, grid)
        back = resample_lesions(stored, grid, native)
        assert drawn.any()
        assert stored.any()
        assert back.any()
        volumes.append([drawn.sum() * np.prod(spacing_mm), stored.sum() * new_mm**3, back.sum() * np.prod(spacing_mm)])
        overlaps.append(dice(drawn, back))
    before, there, and_back = np.mean(volumes, axis=0)
    assert there == pytest.approx(before, rel=0.1)
    assert and_back == pytest.approx(before, rel=0.1)
    assert np.mean(overlaps) > 0.85


def test_a_lesion_found_between_two_slices_is_not_lost_on_the_way_back():
    """Half of it in each slice is below any sensible threshold in both."""
    native, grid = Grid((0.8, 0.8, 6.5), (30, 30, 5)), Grid((1.0, 1.0, 1.0), (24, 24, 32), (0.1, 0.1, -2.75))
    probability = np.where(ball(grid, (12.0, 12.0, 9.75), 3.0), 0.9, 0.05)
    found = resample_lesions(probability, grid, native)
    assert found.sum() * 0.8 * 0.8 * 6.5 == pytest.approx((probability > 0.5).sum(), rel=0.05)
    np.testing.assert_allclose(places_mm(native)[found].mean(axis=0), (12.0, 12.0, 9.75), atol=0.4)


def test_the_fullest_voxels_are_lesion_until_the_volume_is_reached():
    native, coarse = Grid((1.0, 1.0, 1.0), (8, 8, 8)), Grid((2.0, 2.0, 2.0), (4, 4, 4), (0.5, 0.5, 0.5))
    mask = np.zeros(native.shape, bool)
    mask[0:4, 0:4, 0:4] = True  # eight whole voxels
    mask[4:5, 0:2, 0:2] = True  # half of one
    mask[4:5, 2:4, 2:3] = True  # a quarter of one: 70 small voxels make 8.75 large ones
    expected = np.zeros(coarse.shape, bool)
    expected[0:2, 0:2, 0:2] = expected[2, 0, 0] = True
    np.testing.assert_array_equal(resample_lesions(mask, native, coarse), expected)


def test_a_lesion_is_placed_where_it_is_most_probable():
    fine, coarse = Grid((1.0, 1.0, 1.0), (12, 4, 4)), Grid((2.0, 2.0, 2.0), (6, 2, 2), (0.5, 0.5, 0.5))
    probability = np.full(fine.shape, 0.1)
    probability[3:5, :2, :2] = 0.6  # eight small voxels, half in each of two large ones
    probability[5, :2, :2] = 0.4
    assert np.argwhere(resample_lesions(probability, fine, coarse)).tolist() == [[2, 0, 0]]


def test_a_neighbour_takes_no_voxel_of_a_lesion():
    native, coarse = Grid((1.0, 1.0, 1.0), (16, 8, 8)), Grid((4.0, 4.0, 4.0), (4, 2, 2), (1.5, 1.5, 1.5))
    mask = np.zeros(native.shape, bool)
    mask[0:8, 0:4, 0:4] = True  # two large voxels
    mask[9, 0, 0] = True  # a speck beside it, which keeps one
    assert np.argwhere(resample_lesions(mask, native, coarse)).tolist() == [[0, 0, 0], [1, 0, 0], [2, 0, 0]]


def test_on_the_same_grid_lesions_stay_voxel_by_voxel():
    """A network's probabilities: lesions of all shapes, one inside the box of another."""
    grid = Grid((0.8, 0.8, 6.5), (30, 28, 20))
    probability = ndimage.gaussian_filter(np.random.default_rng(0).random(grid.shape), 1.5)
    threshold = float(np.percentile(probability, 88))
    assert label_lesions(probability >= threshold)[1] > 20
    found = resample_lesions(probability, grid, grid, threshold)
    np.testing.assert_array_equal(found, probability >= threshold)


def test_a_lesion_around_the_corner_of_a_grid_is_not_pulled_in():
    native, crop = Grid((1.0, 1.0, 1.0), (20, 20, 6)), Grid((1.0, 1.0, 1.0), (8, 8, 6), (10.0, 10.0, 0.0))
    mask = np.zeros(native.shape, bool)
    mask[5:15, 5, 2] = mask[5, 5:15, 2] = True
    assert not resample_lesions(mask, native, crop).any()


def test_beyond_the_source_nothing_is_lesion():
    study, native = Grid((2.0, 2.0, 2.0), (5, 5, 5), (10.5, 10.5, 10.5)), Grid((1.0, 1.0, 1.0), (30, 30, 30))
    expected = np.zeros(native.shape, bool)
    expected[10:20, 10:20, 10:20] = True  # from 9.5 to 19.5 mm
    np.testing.assert_array_equal(resample_lesions(np.ones(study.shape), study, native), expected)
    outside = np.zeros(native.shape, bool)
    outside[:5] = True
    assert not resample_lesions(outside, native, study).any()


def test_the_threshold_decides_what_is_lesion():
    grid = Grid((1.0, 1.0, 1.0), (6, 6, 6))
    probability = np.zeros(grid.shape)
    probability[1, 2, 3], probability[4, 4, 4] = 0.5, 0.49
    assert np.argwhere(resample_lesions(probability, grid, grid, 0.5)).tolist() == [[1, 2, 3]]
    assert resample_lesions(probability, grid, grid, 0.4).sum() == 2


def test_an_empty_mask_stays_empty():
    native = Grid((1.0, 1.0, 1.0), (8, 8, 8))
    assert not resample_lesions(np.zeros(native.shape, bool), native, whole_grid(native, 3.0)).any()
