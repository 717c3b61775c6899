"""Lines along the longest axial diameter, and the masks that grow from them: on the image, not from the full mask."""

import numpy as np
import pytest

from metaseg_nb.annotation.partial import grown_regions
from metaseg_nb.cohort.lesions import find_lesions, longest_axial_line

MM = (1.0, 1.0, 1.0)
SHAPE = (60, 50, 40)


def ball(middle, radius):
    return radius >= np.linalg.norm(np.indices(SHAPE).T - middle, axis=-1).T


def dice(first, second):
    return 2 * (first & second).sum() / (first.sum() + second.sum())


def test_the_line_is_the_longest_on_any_axial_slice():
    # 4 voxels of 2 mm along Y on slice 5; 6 of 1 mm along X on slice 6; along Z it would be longer, and does not count
    mask = np.zeros(SHAPE, bool)
    mask[10, 10:14, 5] = mask[10:16, 10, 6] = mask[10, 10, 5:30] = True
    line = longest_axial_line(np.argwhere(mask), (1.0, 2.0, 1.0))
    assert line.tolist() == [[10, 10, 5], [10, 13, 5]]
    assert longest_axial_line(np.argwhere(mask), MM).tolist() == [[10, 10, 6], [15, 10, 6]]


def test_the_line_is_as_long_as_that_of_all_pairs():
    rng = np.random.default_rng(0)
    for _ in range(20):
        voxels = np.argwhere(rng.random((7, 6, 3)) < 0.2)
        spacing_mm = rng.uniform(0.5, 2, 3)
        pairs = [(a, b) for a in voxels for b in voxels if a[2] == b[2]]
        longest = max(np.linalg.norm((a - b) * spacing_mm) for a, b in pairs)
        start, end = longest_axial_line(voxels, tuple(spacing_mm))
        assert start[2] == end[2]
        assert np.linalg.norm((start - end) * spacing_mm) == pytest.approx(longest)


def test_a_lesion_of_one_voxel_is_that_voxel():
    mask = np.zeros(SHAPE, bool)
    mask[10, 10, 10] = True
    (region,) = grown_regions(find_lesions(mask, MM), mask.astype(float))
    np.testing.assert_array_equal(region, mask)


def test_each_lesion_grows_from_its_own_line():
    first, second = ball((15, 15, 15), 6), ball((40, 30, 20), 4)
    image = 0.3 + 0.5 * (first | second) + 0.05 * np.random.default_rng(0).normal(size=SHAPE)
    regions = list(grown_regions(find_lesions(first | second, MM), image))
    assert [dice(*pair) > 0.97 for pair in zip(regions, (first, second), strict=True)] == [True, True]


def test_a_dark_core_inside_a_bright_rim_belongs_to_the_lesion():
    lesion, core = ball((25, 25, 20), 10), ball((25, 25, 20), 8)
    image = 0.3 + 0.5 * (lesion & ~core) - 0.2 * core
    (region,) = grown_regions(find_lesions(lesion, MM), image)
    assert dice(region, lesion) > 0.97


def test_a_rim_that_is_open_to_the_next_slices_is_filled_too():
    lesion, core = ball((25, 25, 20), 10), ball((25, 25, 20), 8)
    lesion[:, :, :14] = lesion[:, :, 27:] = False  # no rim below and above
    image = 0.3 + 0.5 * (lesion & ~core) - 0.2 * (lesion & core)
    (region,) = grown_regions(find_lesions(lesion, MM), image)
    assert dice(region, lesion) > 0.97


def test_of_the_mask_only_the_ends_of_the_line_are_used():
    lesion = ball((25, 25, 20), 6)
    image = 0.3 + 0.5 * lesion
    only_a_line = np.zeros(SHAPE, bool)
    start, end = longest_axial_line(np.argwhere(lesion), MM)
    only_a_line[start[0] : end[0] + 1, start[1] : end[1] + 1, start[2]] = True
    regions = [next(grown_regions(find_lesions(mask, MM), image)) for mask in (lesion, only_a_line)]
    assert regions[0].sum() > 800
    np.testing.assert_array_equal(*regions)


def test_the_error_of_each_lesion_by_hand(store_blobs):
    """A cube of six voxels, whose line is on the fourth slice: only corners of the first are beyond 1.2 · 3.54."""
    case = store_blobs("c0", [(9, 12, 8), (25, 20, 20)])
    lesions = find_lesions(case.label > 0, case.grid.spacing_mm)
    regions = grown_regions(lesions, case.image[0])
    found = [dice(lesions.labels == lesion, region) for lesion, region in zip((1, 2), regions, strict=True)]
    assert found == pytest.approx([2 * 212 / (212 + 216)] * 2)
