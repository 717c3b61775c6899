"""Fingerprints: one image rescaled is one image, one brain moved is perhaps one patient, and two brains are two."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from metaseg_nb.cohort.cases import Case
from metaseg_nb.cohort.fingerprint import (
    LIKE_ANATOMY,
    anatomy_of,
    look_alikes,
    problems_between,
    same_voxels,
    sampled_ranks,
)
from metaseg_nb.cohort.head import find_head
from metaseg_nb.cohort.volumes import read_volume

SHAPE, SPACING_MM = (64, 76, 60), (3.0, 3.0, 3.0)


def brain(seed, half_axes_mm=(68, 85, 64), turn=None, shift_mm=(0, 0, 0), spacing_mm=SPACING_MM):
    """A brain in a field of view of 192 x 228 x 180 mm: an ellipsoid with structure of about 8 mm in it, air 0."""
    shape = np.round(np.multiply(SHAPE, SPACING_MM) / spacing_mm).astype(int)
    places_mm = (np.indices(shape).reshape(3, -1).T - (shape - 1) / 2) * spacing_mm - shift_mm
    places_mm = places_mm if turn is None else places_mm @ turn
    inside = (np.linalg.norm(places_mm / half_axes_mm, axis=1) < 1).reshape(shape)
    texture = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(SHAPE), 8 / 3 / 1.5)
    voxels = places_mm / SPACING_MM + (np.array(SHAPE) - 1) / 2
    values = ndimage.map_coordinates(texture / texture.std(), voxels.T, order=1, mode="nearest").reshape(shape)
    return np.where(inside, 500 + 80 * values, 0).astype(np.float32)


def noisy(array, seed, deviation=15):
    noise = np.random.default_rng(seed).standard_normal(array.shape)
    return np.where(array > 0, array + deviation * noise, np.abs(deviation * noise)).astype(np.float32)


def turned(degrees):
    """A turn about each axis in turn."""
    return nib.eulerangles.euler2mat(*np.deg2rad(degrees))


HEAD = noisy(brain(0), 0)
STRIPPED = np.where(brain(0) > 0, HEAD, 0)
MEAN, DEVIATION = STRIPPED[STRIPPED > 0].mean(), STRIPPED[STRIPPED > 0].std()


@pytest.mark.parametrize(
    ("array", "other"),
    [
        (HEAD, 0.37 * HEAD - 12),
        (HEAD, ((HEAD - HEAD.mean()) / HEAD.std()).astype(np.float32)),
        (HEAD.round(), (HEAD.round() / HEAD.max()).astype(np.float32)),
        (HEAD, (1000 * HEAD / HEAD.max()).astype(np.int16)),
        (HEAD, (255 * np.clip(HEAD / np.percentile(HEAD, 99.5), 0, 1)).astype(np.uint8)),
        (STRIPPED, np.where(STRIPPED > 0, (STRIPPED - MEAN) / DEVIATION, 0).astype(np.float32)),
        (STRIPPED, np.where(STRIPPED > 0, (STRIPPED - MEAN) / DEVIATION, -9)),
        (HEAD, np.where(STRIPPED > 0, (HEAD - MEAN) / DEVIATION, 0)),
        (HEAD, np.where(STRIPPED > 0, HEAD, np.nan)),
        (HEAD, HEAD**1.5),
    ],
    ids=["scale and offset", "z-score", "0 to 1", "int16", "clipped uint8", "in the brain", "other background",
         "stripped and z-scored", "NaN around it", "gamma"],
)  # fmt: skip
def test_one_image_rescaled_is_known_again(array, other):
    assert same_voxels([sampled_ranks(array), sampled_ranks(other)], ["64x76x60"] * 2) == [(0, 1)]


def test_other_noise_another_brain_and_no_image_are_other_images():
    arrays = [HEAD, noisy(brain(0), 1), noisy(brain(1), 0), np.full(SHAPE, 7.0), np.full(SHAPE, 7.0)]
    ranks = [*map(sampled_ranks, arrays), None]
    assert same_voxels(ranks, ["64x76x60"] * 6) == []


def test_images_of_other_shapes_are_not_compared_voxel_by_voxel():
    assert same_voxels([sampled_ranks(HEAD)] * 3, ["64x76x60", "60x76x64", "64x76x60"]) == [(0, 2)]


def anatomy(array, spacing_mm=SPACING_MM):
    return anatomy_of(array, find_head(array, spacing_mm))


MOVED = {
    "shifted by 15 mm": brain(0, shift_mm=(15, -15, 12)),
    "turned by 15 degrees": brain(0, turn=turned((15, -15, 10))),
    "noisy": noisy(brain(0), 5, 40),
    "rescaled": (brain(0) / 900).astype(np.float32),
    "all of it": noisy(brain(0, turn=turned((-12, 8, 14)), shift_mm=(-10, 15, 5)), 3) * 0.01,
}


@pytest.mark.parametrize("way", MOVED)
def test_one_brain_is_known_again_where_it_was_moved(way):
    ((_, _, correlation),) = look_alikes([anatomy(HEAD), anatomy(MOVED[way])])
    assert correlation > 0.8


@pytest.mark.parametrize("spacing_mm", [(2.0, 2.0, 2.0), (1.5, 1.5, 5.0)])
def test_one_brain_is_known_again_on_another_grid(spacing_mm):
    moved = brain(0, turn=turned((5, 10, -5)), shift_mm=(5, 0, 10), spacing_mm=spacing_mm)
    ((one, other, _),) = look_alikes([None, anatomy(HEAD), anatomy(moved, spacing_mm)])
    assert (one, other) == (1, 2)


@pytest.mark.parametrize("degrees", [20, 40, 50, 85])
def test_a_brain_that_is_as_wide_as_high_may_be_turned_by_any_angle(degrees):
    round_brain = {"half_axes_mm": (66, 85, 65)}
    one, other = brain(0, **round_brain), brain(0, **round_brain, turn=turned((0, degrees, 0)))
    assert len(look_alikes([anatomy(one), anatomy(other)])) == 1


def test_brains_of_two_patients_are_two():
    """Ten of one outline, so that they differ inside only."""
    assert look_alikes([anatomy(noisy(brain(seed), seed)) for seed in range(10)]) == []


@pytest.mark.parametrize(
    ("skulls", "named"),
    [
        (["stripped"] * 3, []),
        (["in the image", "unknown (brain not covered)", None], []),
        (["stripped", "in the image", "stripped", None], ["c1"]),
        (["in the image", "in the image", "stripped", "in the image", "stripped"], ["c2"]),
    ],
)
def test_heads_with_skull_among_brains_without_are_named_and_the_other_way_round(skulls, named):
    cases = [Case(f"c{n}", (Path("i.nii"),), None, f"p{n}", "lung") for n in range(len(skulls))]
    facts = [{} if skull is None else {"skull": skull} for skull in skulls]
    found = [*problems_between(cases, facts, [None] * len(cases), [None] * len(cases))]
    assert [problem.case for problem in found] == named
    assert all("brain: deepbet" in problem.fix for problem in found)
    if len(skulls) == 5:
        assert found[0].found == "a head with its skull in 3 images; a brain without its skull in c2, c4"


def test_a_small_piece_shows_no_anatomy():
    piece = brain(0)
    piece[:, :, 33:] = piece[:, :, :27] = 0
    assert anatomy(piece) is None
    assert look_alikes([None, anatomy(HEAD), None]) == []


def test_other_series_of_a_real_patient_are_known_again_and_other_patients_are_not(shared_data):
    """The stripped 1 mm image of a patient and her 5.5 mm one, as it came from the scanner, in its brain mask."""
    images = shared_data / "real_t1c/images"
    volumes = [read_volume(images / f"{name}.nii.gz", name) for name in ("tcga_fg6692", "met_00110", "ms_patient26")]
    raw, mask = (read_volume(shared_data / f"raw_sequences/{name}.nii.gz", name) for name in ("t1c", "brain_mask_t1c"))
    arrays = [*((v.array, v.spacing_mm) for v in volumes), (raw.array * mask.array, raw.spacing_mm)]
    ((one, other, correlation),) = look_alikes([anatomy(*each) for each in arrays])
    assert (one, other) == (0, 3)
    assert correlation > LIKE_ANATOMY
