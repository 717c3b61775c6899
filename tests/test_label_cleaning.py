"""Label cleaning: each rule does what it says, counts it, and does nothing that was not asked for."""

import nibabel as nib
import numpy as np
import pytest

from metaseg_nb.cohort.cases import LesionRule
from metaseg_nb.cohort.head import find_head
from metaseg_nb.cohort.volumes import Volume
from metaseg_nb.preprocessing.steps import clean_label, remove_specks

AS_DRAWN = {"fill_holes": False, "min_lesion_mm3": 0.0, "outside_head": "flag"}
SHAPE, SPACING_MM = (40, 40, 40), (1.0, 1.0, 2.0)
NOTHING_MET = {
    "lesion_values": 1,
    "other_voxels": 0,
    "grey_voxels": 0,
    "filled_voxels": 0,
    "specks": 0,
    "outside_lesions": 0,
}


def label_of(array):
    return Volume(array.astype(np.float32), np.diag([*SPACING_MM, 1.0]), nib.orientations.axcodes2ornt("RAS"))


@pytest.fixture
def drawn():
    """A cube with a cavity that holds 8 voxels, a speck of 2 voxels (4 mm³), and a cube of 27 in the corner."""
    array = np.zeros(SHAPE)
    array[15:21, 15:21, 15:21] = 1
    array[17:19, 17:19, 17:19] = 0
    array[26, 20, 20:22] = 1
    array[:3, :3, :3] = 1
    return array


@pytest.fixture
def head():
    """A bright ball in the middle of the volume."""
    away = np.linalg.norm(np.moveaxis(np.indices(SHAPE), 0, -1) - 19.5, axis=-1)
    return find_head(np.where(away < 16, 100.0, 0.0).astype(np.float32), SPACING_MM)


def test_by_default_the_outline_stays_as_it_was_drawn_and_what_is_outside_is_flagged(drawn, head):
    mask, counts = clean_label(label_of(drawn), LesionRule(), head, AS_DRAWN)
    np.testing.assert_array_equal(mask, drawn > 0)
    assert counts == NOTHING_MET | {"outside_lesions": 1}


def test_lesions_outside_the_head_are_dropped_when_asked_and_only_they(drawn, head):
    mask, counts = clean_label(label_of(drawn), LesionRule(), head, AS_DRAWN | {"outside_head": "drop"})
    expected = drawn > 0
    expected[:3, :3, :3] = False
    np.testing.assert_array_equal(mask, expected)
    assert counts["outside_lesions"] == 1


def test_a_lesion_at_the_rim_of_the_head_is_not_cut(head):
    array = np.zeros(SHAPE)
    array[19, 19, 28:38] = 1  # the head ends at 35
    mask, _ = clean_label(label_of(array), LesionRule(), head, AS_DRAWN | {"outside_head": "drop"})
    np.testing.assert_array_equal(mask, array > 0)


def test_without_a_head_nothing_is_outside(drawn):
    _, counts = clean_label(label_of(drawn), LesionRule(), None, AS_DRAWN | {"outside_head": "drop"})
    assert counts == NOTHING_MET


def test_closed_cavities_are_filled_and_open_ones_are_not(drawn):
    drawn[15, 18, 18] = 0  # a dent
    drawn[26:32, 26:32, 26:32] = 1
    drawn[28, 28, 28:] = 0  # a shaft that opens upwards
    mask, counts = clean_label(label_of(drawn), LesionRule(), None, AS_DRAWN | {"fill_holes": True})
    expected = drawn > 0
    expected[17:19, 17:19, 17:19] = True
    np.testing.assert_array_equal(mask, expected)
    assert counts == NOTHING_MET | {"filled_voxels": 8}


def test_a_lesion_inside_the_cavity_of_another_does_not_open_it():
    mask = np.ones((7, 7, 7), bool)
    mask[1:6, 1:6, 1:6] = False
    mask[3, 3, 3] = True
    filled, _ = clean_label(label_of(np.pad(mask, 2)), LesionRule(), None, AS_DRAWN | {"fill_holes": True})
    assert filled.sum() == 7**3


@pytest.mark.parametrize(("least_mm3", "specks", "voxels"), [(0.0, 0, 0), (4.0, 0, 0), (4.1, 1, 2), (60.0, 2, 29)])
def test_specks_are_smaller_than_the_least_volume(drawn, least_mm3, specks, voxels):
    mask, counts = clean_label(label_of(drawn), LesionRule(), None, AS_DRAWN | {"min_lesion_mm3": least_mm3})
    assert counts["specks"] == specks
    assert mask.sum() == (drawn > 0).sum() - voxels


def test_nothing_is_left_when_all_lesions_are_specks(drawn):
    assert not remove_specks(drawn > 0, SPACING_MM, 1e6).any()


def test_values_are_merged_and_others_become_background(drawn):
    drawn[26, 20, 20] = 3
    drawn[30:32, 30, 30] = 2
    mask, counts = clean_label(label_of(drawn), LesionRule((1, 3), (2,)), None, AS_DRAWN)
    np.testing.assert_array_equal(mask, (drawn == 1) | (drawn == 3))
    assert counts == NOTHING_MET | {"lesion_values": 2, "other_voxels": 2}


def test_a_grey_mask_is_cut_at_the_threshold(drawn):
    drawn *= 255
    drawn[26, 20, 20:22] = (100, 150)
    mask, counts = clean_label(label_of(drawn), LesionRule(threshold=127.0), None, AS_DRAWN)
    np.testing.assert_array_equal(mask, drawn > 127)
    assert counts == NOTHING_MET | {"grey_voxels": 2}


@pytest.mark.parametrize("rule", [LesionRule(), LesionRule(threshold=0.5)])
def test_an_empty_mask_stays_empty(rule, head):
    settings = {"fill_holes": True, "min_lesion_mm3": 5.0, "outside_head": "drop"}
    mask, counts = clean_label(label_of(np.zeros(SHAPE)), rule, head, settings)
    assert not mask.any()
    assert sum(value for rule, value in counts.items() if rule != "lesion_values") == 0


def test_the_label_itself_is_left_alone(drawn, head):
    label = label_of(drawn)
    before = label.array.copy()
    clean_label(label, LesionRule(), head, {"fill_holes": True, "min_lesion_mm3": 5.0, "outside_head": "drop"})
    np.testing.assert_array_equal(label.array, before)
