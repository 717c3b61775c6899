"""Intensities: hand-computed values on each scale."""

import numpy as np
import pytest

from metaseg_nb.preprocessing.intensity import RANGES, intensity_range, scale_intensity


def column(*values):
    return np.array(values, np.float32).reshape(-1, 1, 1)


def test_percentiles_become_0_and_1_and_the_rest_is_clipped():
    array = column(*range(101))
    everything = np.ones(array.shape, bool)
    found = scale_intensity(array, everything, "percentiles", (10, 60)).ravel()
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[[0, 10, 35, 60, 100]], [0, 0, 0.5, 1, 1], atol=1e-6)


def test_only_the_head_sets_the_percentiles():
    array, head = column(0, 100, 200, 9000), column(0, 1, 1, 0) > 0
    assert scale_intensity(array, head, "percentiles", (0, 100)).ravel().tolist() == [0, 0, 1, 1]
    nothing = np.zeros_like(head)
    np.testing.assert_allclose(
        scale_intensity(array, nothing, "percentiles", (0, 100)).ravel() * 9000, array.ravel(), rtol=1e-5
    )


def test_one_hot_voxel_darkens_the_rest_with_min_max_but_not_with_percentiles():
    array = np.random.default_rng(0).uniform(0, 100, (20, 20, 20)).astype(np.float32)
    hot = array.copy()
    hot[0, 0, 0] = 10_000
    head = np.ones(array.shape, bool)
    for scaling, limit in (("percentiles", 0.001), ("min_max", 0.9)):
        before, after = (scale_intensity(a, head, scaling, (0.5, 99.5))[1:] for a in (array, hot))
        assert (np.abs(before - after).max() < limit) == (scaling == "percentiles")


def test_min_max_is_that_of_the_whole_volume():
    array, head = column(-10, 0, 40, 90), column(0, 1, 1, 0) > 0
    np.testing.assert_allclose(scale_intensity(array, head, "min_max").ravel(), [0, 0.1, 0.5, 1], atol=1e-6)


def test_the_z_score_of_the_head_has_mean_0_and_deviation_1_and_clips_nothing():
    array, head = column(0, 10, 30, 100), column(0, 1, 1, 0) > 0
    assert scale_intensity(array, head, "z_score").ravel().tolist() == [-2, -1, 1, 8]


@pytest.mark.parametrize("scaling", RANGES)
def test_an_image_without_contrast_is_refused(scaling):
    with pytest.raises(ValueError, match="are both 7: the image has no contrast"):
        scale_intensity(np.full((3, 3, 3), 7, np.float32), np.zeros((3, 3, 3), bool), scaling)


def test_half_precision_loses_less_than_a_hundredth_of_the_noise():
    """What the case store keeps; noise of an MR image is a few percent of its range."""
    values = np.linspace(0, 1, 100_001, dtype=np.float32)
    assert np.abs(values.astype(np.float16).astype(np.float32) - values).max() <= 2.0**-12


def test_the_range_to_look_at_follows_from_the_recipe():
    assert intensity_range({"intensity_scaling": "min_max"}) == (0, 1)
    assert intensity_range({"intensity_scaling": "z_score"})[0] < 0
