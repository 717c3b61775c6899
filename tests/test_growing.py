"""Regions grown from a click or a line hold the lesion pointed at, and nothing else."""

import numpy as np
import pytest

from metaseg_nb.annotation.growing import grow, grow_along, interpolated
from metaseg_nb.cohort.volumes import Volume

SHAPE, SPACING_MM = (60, 50, 24), (0.5, 0.5, 2.0)


def ball(middle, radius_mm):
    """Voxels whose middle is within a radius of a voxel."""
    places = np.indices(SHAPE).T * SPACING_MM
    return (np.linalg.norm(places - np.array(middle) * SPACING_MM, axis=-1) <= radius_mm).T


def head_with(*lesions, noise=0.0, probability=None):
    """An image of brightness 100 with lesions of 200, and what a network sees in it."""
    image = np.full(SHAPE, 100.0, np.float32)
    for lesion in lesions:
        image[lesion] = 200
    image += noise * np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    volume = Volume(image, np.diag([*SPACING_MM, 1.0]), np.array([[0, 1], [1, 1], [2, 1]]))
    return volume, np.zeros(SHAPE, np.float32) if probability is None else probability


def dice(first, second):
    return 2 * (first & second).sum() / (first.sum() + second.sum())


LESION, OTHER = ball((20, 20, 10), 4), ball((44, 20, 10), 4)


def test_a_click_gives_the_lesion_voxel_by_voxel_and_no_other():
    assert np.array_equal(grow(*head_with(LESION, OTHER), (22, 19, 10), 0.5), LESION)


def test_a_click_beside_a_small_lesion_finds_it():
    small = ball((20, 20, 10), 0.6)  # five voxels of one slice
    assert small.sum() == 5
    assert np.array_equal(grow(*head_with(small), (22, 20, 10), 0.5), small)


@pytest.mark.parametrize("seed", [(20, 20, 10), (17, 22, 11)])
def test_noise_of_a_fifth_of_the_contrast_changes_little(seed):
    assert dice(grow(*head_with(LESION, OTHER, noise=20), seed, 0.5), LESION) > 0.85


def test_a_click_on_plain_tissue_gives_nothing():
    assert not grow(*head_with(LESION), (50, 40, 3), 0.5).any()


def test_a_lower_level_gives_a_larger_region():
    image = head_with()
    soft = (
        100 + 100 * np.exp(-((np.linalg.norm((np.indices(SHAPE).T - (20, 20, 10)) * SPACING_MM, axis=-1) / 4) ** 2)).T
    )
    image[0].array[:] = soft
    sizes = [grow(*image, (20, 20, 10), level).sum() for level in (0.9, 0.7, 0.5, 0.3)]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[-1] / 4


def test_what_the_network_sees_keeps_a_region_out_of_a_vessel():
    vessel = np.zeros(SHAPE, bool)
    vessel[20:50, 20, 10] = True
    seen = np.where(LESION, 0.8, 0.0).astype(np.float32)
    alone = grow(*head_with(LESION, vessel), (20, 20, 10), 0.6)
    helped = grow(*head_with(LESION, vessel, probability=seen), (20, 20, 10), 0.6)
    assert (alone & ~LESION).sum() > 10
    assert np.array_equal(helped, LESION)


def test_no_region_reaches_farther_than_fifteen_millimetres():
    image = head_with(np.ones(SHAPE, bool))
    image[0].array[:, :, 12:] = 0
    assert not grow(*image, (3, 3, 3), 0.5)[40:].any()


def test_a_line_along_the_diameter_gives_the_lesion_and_stays_near_it():
    touching = ball((30, 20, 10), 3)
    grown = grow_along(*head_with(LESION, touching), (12, 20, 10), (28, 20, 10), 0.5)
    assert dice(grown, LESION) > 0.9
    assert not grown[34:].any()


def test_a_line_across_a_lesion_that_enhances_at_its_rim_gives_all_of_it():
    image = head_with(LESION)
    image[0].array[ball((20, 20, 10), 1.9)] = 60
    assert dice(grow_along(*image, (12, 20, 10), (28, 20, 10), 0.5), LESION) > 0.9


def test_a_line_fills_a_rim_that_is_open_above_and_below():
    image = head_with(LESION)
    image[0].array[18:23, 18:23] = 60  # a dark rod through all slices
    grown = grow_along(*image, (12, 20, 10), (28, 20, 10), 0.5)
    assert grown[18:23, 18:23, 10].all()
    assert dice(grown, LESION) > 0.9


def test_a_line_on_what_no_rule_finds_is_kept_itself():
    grown = grow_along(*head_with(), (10, 10, 5), (14, 10, 5), 0.5)
    assert np.argwhere(grown).tolist() == [[x, 10, 5] for x in range(10, 15)]


@pytest.mark.parametrize("axis", range(3))
def test_slices_between_two_alike_are_the_same(axis):
    drawn = np.zeros((12, 12, 12), bool)
    drawn[3:8, 4:9, 2] = drawn[3:8, 4:9, 6] = True
    expected = np.zeros_like(drawn)
    expected[3:8, 4:9, 2:7] = True
    drawn, expected = (np.moveaxis(mask, 2, axis) for mask in (drawn, expected))
    assert np.array_equal(interpolated(drawn, axis), expected)


def test_slices_between_a_large_and_a_small_one_shrink_steadily():
    drawn = np.zeros((30, 30, 9), bool)
    x, y = np.indices((30, 30)) - 15
    drawn[..., 0], drawn[..., 8] = (x**2 + y**2 <= radius**2 for radius in (10, 2))
    areas = interpolated(drawn, 2).sum(axis=(0, 1))
    radii = np.sqrt(areas / np.pi)
    assert np.allclose(radii, np.linspace(10, 2, 9), atol=0.6)


def test_lesions_that_are_not_behind_one_another_are_left_apart():
    drawn = np.zeros((20, 20, 9), bool)
    drawn[2:5, 2:5, 1] = drawn[12:15, 12:15, 6] = True
    assert np.array_equal(interpolated(drawn, 2), drawn)


def test_three_drawn_slices_are_joined_one_after_the_other():
    drawn = np.zeros((12, 12, 12), bool)
    drawn[3:8, 3:8, [1, 5, 9]] = True
    assert interpolated(drawn, 2)[5, 5, 1:10].all()
