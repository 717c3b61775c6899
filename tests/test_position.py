"""Where lesions lie: thirds, hemispheres, depths and maps, by hand on balls and boxes."""

import re

import numpy as np
import pytest

from metaseg_nb.cohort.cases import Case, LesionRule
from metaseg_nb.cohort.examination import examine
from metaseg_nb.cohort.head import (
    BRAIN_AT_MOST_CM3,
    MAP_SHAPE,
    REACH_MM,
    find_head,
    map_of_head,
    map_of_lesions,
    reach_of,
)
from metaseg_nb.cohort.lesions import find_lesions, lesion_positions
from metaseg_nb.cohort.volumes import read_volume

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
    assert head.skull == "stripped"
    low, high = (np.array(ends) * spacing_mm for ends in head.box)
    np.testing.assert_allclose(low, [10, 10, 10], atol=5)
    np.testing.assert_allclose(high, [50, 70, 40], atol=5)
    centre = np.round(np.array([[30, 40, 25], [30, 40, 36], [2, 2, 2]]) / spacing_mm).astype(int)
    assert head.contains(centre).tolist() == [True, True, False]


def test_a_head_with_skull_is_no_brain():
    array = np.zeros((180, 200, 180), np.float32)
    array[10:-10, 10:-10, 10:-10] = 100
    assert find_head(array, (1.0, 1.0, 1.0)).skull == "in the image"


def whole_head(spacing_mm=3.0):
    """A head of 160 x 200 x 180 mm with a brain in a dark skull, its neck cut by the volume, in noisy air."""
    shape = (64, 76, 66)
    x, y, z = (np.reshape(spacing_mm, -1) * np.indices(shape).T).T
    centre, rng = (96, 114, 108), np.random.default_rng(0)

    def within(*radii_mm):
        return sum(((axis - c) / r) ** 2 for axis, c, r in zip((x, y, z), centre, radii_mm, strict=True)) < 1

    neck = ((x - 96) ** 2 + (y - 100) ** 2 < 55**2) & (z < 108)
    array = rng.uniform(0, 10, shape)
    array[within(80, 100, 90) | neck] += 300
    array[within(74, 94, 84)] -= 280
    array[within(66, 86, 76)] += 200
    return array.astype(np.float32)


# part of the head, sides it is cut at
PARTS = {
    "all of it": (np.s_[:, :, :], []),
    "neck left out": (np.s_[:, :, 20:], []),
    "slab": (np.s_[:, :, 34:43], ["bottom", "top"]),
    "slab at the vertex": (np.s_[:, :, 50:], ["bottom"]),
    "vertex left out": (np.s_[:, :, :54], ["top"]),
    "lower half": (np.s_[:, :, 20:40], ["bottom", "top"]),
    "sagittal slab": (np.s_[28:37], ["left", "right"]),
    "coronal slab": (np.s_[:, 35:44], ["back", "front"]),
}


def test_a_small_head_with_a_bright_scalp_is_no_brain():
    head = find_head(whole_head(), (2.4, 2.4, 2.4))  # a child's: 1.6 litres
    assert head.volume_cm3 < BRAIN_AT_MOST_CM3
    assert head.skull == "in the image"
    scalp_darkened = whole_head()
    scalp_darkened[scalp_darkened > 290] -= 100
    assert find_head(scalp_darkened, (2.4, 2.4, 2.4)).skull == "stripped"


@pytest.mark.parametrize("part", PARTS)
def test_a_head_is_cut_where_the_image_ends_before_the_brain(part):
    where, sides = PARTS[part]
    head = find_head(np.ascontiguousarray(whole_head()[where]), (3.0, 3.0, 3.0))
    assert head.cut_at == sides
    assert head.skull == ("unknown (brain not covered)" if sides else "in the image")


def test_a_slab_that_was_padded_does_not_cover_the_brain_either():
    array = np.zeros((64, 76, 66), np.float32)
    array[:, :, 34:43] = whole_head()[:, :, 34:43]
    assert find_head(array, (3.0, 3.0, 3.0)).cut_at == ["bottom", "top"]


def test_what_is_not_covered_is_said_once_with_its_size(write_nifti):
    array = np.ascontiguousarray(whole_head()[:, :, 34:43])
    case = Case("slab", (write_nifti("slab.nii.gz", array, (3.0, 3.0, 3.0)),), None, "p", "lung")
    examination = examine(case, LesionRule())
    (problem,) = examination.problems
    assert problem.severity == "warning"
    assert re.fullmatch(
        r"a head of \d+ x \d+ x 27 mm, cut at its bottom and top \(a brain has 110 x 140 x 120 mm or more\)",
        problem.found,
    )
    assert examination.facts["skull"] == "unknown (brain not covered)"
    whole = Case("whole", (write_nifti("whole.nii.gz", whole_head(), (3.0, 3.0, 3.0)),), None, "p", "lung")
    assert examine(whole, LesionRule()).problems == []


@pytest.mark.parametrize(
    ("file", "skull"),
    [
        ("real_t1c/images/met_00110", "stripped"),
        ("real_t1c/images/gli_00001", "stripped"),
        ("real_t1c/images/ms_patient26", "stripped"),
        ("real_t1c/images/tcga_fg6692", "stripped"),
        ("real_t1c/images/thick_brain1", "in the image"),
        ("real_t1c/images/thick_brain2", "in the image"),
        ("raw_sequences/t1c", "in the image"),
        # the vertex is missing, and the cerebellum ends with the image
        ("follow_up/ms_pair/p01_study1_T1W", "unknown (brain not covered)"),
    ],
)
def test_real_images_with_and_without_skull_are_told_apart_and_a_slab_is_not(shared_data, file, skull):
    image = read_volume(shared_data / f"{file}.nii.gz", file)
    assert find_head(image.array, image.spacing_mm).skull == skull
    n, middle = round(25 / image.spacing_mm[2]), image.array.shape[2] // 2
    slab = np.ascontiguousarray(image.array[:, :, middle - n // 2 : middle + n - n // 2])
    assert find_head(slab, image.spacing_mm).skull == "unknown (brain not covered)"


@pytest.mark.parametrize("spacing_mm", [(1, 1, 1), (0.5, 1, 2), (3, 3, 3)])
def test_lesions_are_looked_for_in_the_head_its_holes_and_a_rim_around_it(spacing_mm):
    x, y, z = np.indices([round(90 / edge) for edge in spacing_mm]) * np.reshape(spacing_mm, (3, 1, 1, 1))
    apart = np.sqrt((x - 45) ** 2 + (y - 45) ** 2 + (z - 45) ** 2)
    shell = (apart < 25) & (apart > 15)  # as when Otsu's threshold takes fat only
    reach = reach_of(shell, spacing_mm)
    assert reach[apart < 25 + REACH_MM - max(spacing_mm)].all()
    assert not reach[apart > 25 + REACH_MM + 2 * max(2, *spacing_mm)].any()
    assert not reach_of(shell & False, spacing_mm).any()


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
