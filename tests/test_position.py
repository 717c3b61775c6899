"""Where lesions lie: thirds, hemispheres, depths and maps, by hand on balls and boxes."""

import numpy as np
import pytest

from metaseg_nb.cohort.lesions import find_lesions
from metaseg_nb.cohort.position import MAP_SHAPE, find_head, lesion_positions, map_of_head, map_of_lesions

SHAPE = (60, 80, 50)


def brain(spacing_mm=(1.0, 1.0, 1.0), seed=0):
    """A bright box with a dark cyst inside and dark furrows from outside, in dim noise; 10 mm of background around."""
    rng = np.random.default_rng(seed)
    array = rng.uniform(0, 10, [round(n / edge) for n, edge in zip((60, 80, 50), spacing_mm, strict=True)])
    places = np.indices(array.shape) * np.reshape(spacing_mm, (3, 1, 1, 1))
    inside = ((places >= 10) & (places < np.reshape([50, 70, 40], (3, 1, 1, 1)))).all(axis=0)
    array[inside] += 100
    cyst = np.linalg.norm(places - np.reshape([30, 40, 25], (3, 1, 1, 1)), axis=0) < 8
    furrow = inside & (np.abs(places[0] - 30) < 2) & (places[2] > 30)
    array[cyst | furrow] -= 95
    return array.astype(np.float32)


@pytest.mark.parametrize("spacing_mm", [(1, 1, 1), (0.5, 1, 2), (1, 1, 5)])
def test_the_head_is_the_box_with_cysts_and_furrows_filled(spacing_mm):
    array = brain(spacing_mm)
    head = find_head(array, spacing_mm)
    assert head.volume_cm3 == pytest.approx(40 * 60 * 30 / 1000, rel=0.1)
    assert head.is_brain
    low, high = (np.array(ends) * spacing_mm for ends in head.box)
    np.testing.assert_allclose(low, [10, 10, 10], atol=5)
    np.testing.assert_allclose(high, [50, 70, 40], atol=5)
    centre = np.round(np.array([[30, 40, 25], [30, 40, 36], [2, 2, 2]]) / spacing_mm).astype(int)
    assert head.contains(centre).tolist() == [True, True, False]


def test_a_head_with_skull_is_no_brain():
    array = np.zeros((180, 200, 180), np.float32)
    array[10:-10, 10:-10, 10:-10] = 100
    assert not find_head(array, (1.0, 1.0, 1.0)).is_brain


@pytest.mark.parametrize("array", [np.zeros((8, 8, 8)), np.full((8, 8, 8), 42.0), np.full((8, 8, 8), np.nan)])
def test_there_is_no_head_where_nothing_stands_out(array):
    assert find_head(array.astype(np.float32), (1.0, 1.0, 1.0)) is None


def test_lesions_are_placed_by_third_hemisphere_and_depth():
    head = find_head(brain(), (1.0, 1.0, 1.0))
    mask = np.zeros(SHAPE, bool)
    mask[14:17, 38:41, 13:16] = True  # left, low, about 5 mm below the left side
    mask[43:46, 38:41, 24:27] = True  # right, middle
    mask[38:41, 38:41, 35:38] = True  # right, high
    lesions = find_lesions(mask, (1.0, 1.0, 1.0))
    positions = lesion_positions(lesions, head).iloc[lesions.table["z"].argsort()]
    assert positions["third"].tolist() == ["inferior", "middle", "superior"]
    assert positions["hemisphere"].tolist() == ["left", "right", "right"]
    np.testing.assert_allclose(positions["depth_mm"], [5, 6, 4], atol=2)


def test_a_map_marks_the_cells_of_a_lesion_and_nothing_else():
    head = find_head(brain(), (1.0, 1.0, 1.0))
    mask = np.zeros(SHAPE, bool)
    mask[10:20, 10:25, 10:15] = True  # the first quarter along X and Y, the first sixth along Z
    cells = np.argwhere(map_of_lesions(mask, head))
    assert cells.min(axis=0).tolist() == [0, 0, 0]
    np.testing.assert_allclose(cells.max(axis=0) + 1, np.array(MAP_SHAPE) / [4, 4, 6], atol=1)
    assert map_of_head(head).mean() > 0.95


def test_maps_have_no_gaps_between_thick_slices_and_miss_no_small_lesion():
    thick, fine = (1.0, 1.0, 5.0), (0.5, 0.5, 0.5)
    mask = np.zeros((60, 80, 10), bool)
    mask[20:40, 20:40, 3:7] = True
    cells = map_of_lesions(mask, find_head(brain(thick), thick))
    along_z = cells.any(axis=(0, 1))
    assert along_z.sum() == np.ptp(np.flatnonzero(along_z)) + 1 > 15
    point = np.zeros((120, 160, 100), bool)
    point[50, 90, 41] = True
    assert map_of_lesions(point, find_head(brain(fine), fine)).sum() == 1
