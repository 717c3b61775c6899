"""The head is found whatever the value of the background: above, below or amid the head's own."""

import numpy as np
import pytest

from metaseg_nb.cohort.cases import Case, LesionRule
from metaseg_nb.cohort.checks import image_problems
from metaseg_nb.cohort.examination import examine
from metaseg_nb.cohort.head import background_mask, find_head, head_mask, is_magnitude, with_dark_background
from metaseg_nb.cohort.volumes import Volume, read_volume
from metaseg_nb.parameters import resolve
from metaseg_nb.preprocessing.steps import image_recipe, prepare_image
from metaseg_nb.settings import Preprocess

RAS = np.array([[0, 1], [1, 1], [2, 1]])
SETTINGS = Preprocess.check({**resolve("02_preprocess_n4", "demo"), "spacing_mm": 2.0})
REAL = ["met_00110", "tcga_fg6692", "ms_patient26", "gli_00001"]


def ball(shape=(60, 64, 52)):
    places = [(index - (n - 1) / 2) / (0.4 * n) for index, n in zip(np.indices(shape), shape, strict=True)]
    return sum(place**2 for place in places) < 1


def stripped():
    """A skull-stripped brain: three tissues with noise, background 0."""
    rng, inside = np.random.default_rng(0), ball()
    tissue = np.array([60.0, 250.0, 350.0])[rng.choice(3, inside.shape, p=[0.15, 0.4, 0.45])]
    return np.where(inside, tissue + rng.normal(0, 15, inside.shape), 0).astype(np.float32), inside


def z_scored(array, inside, way):
    """As others' preprocessing leaves it: scored over the volume, or in the mask with the background at 0 or lowest."""
    if way == "volume":
        return ((array - array.mean()) / array.std()).astype(np.float32)
    scores = (array - array[inside].mean()) / array[inside].std()
    return np.where(inside, scores, 0 if way == "mask, 0" else scores[inside].min()).astype(np.float32)


WAYS = ("volume", "mask, 0", "mask, lowest")


def dice(first, second):
    return 2 * (first & second).sum() / (first.sum() + second.sum())


def with_head(array):
    return array, head_mask(array)


def test_the_head_on_the_image_is_where_it_contains_voxels():
    array, inside = stripped()
    array, inside = array[:59, :63], inside[:59, :63]  # not a multiple of the coarse grid
    head = find_head(array, (1.0, 1.0, 0.7))
    assert head.step.tolist() == [2, 2, 2]
    found, voxels = head.on_image(array.shape), np.indices(array.shape).reshape(3, -1).T
    assert (found.ravel() == head.contains(voxels)).all()
    assert dice(found, inside) > 0.95


def prepared(array, edges_mm=(1.0, 1.0, 1.0), **settings):
    recipe = image_recipe(SETTINGS.model_copy(update=settings), 1)
    return prepare_image([Volume(array, np.diag([*edges_mm, 1.0]), RAS)], recipe)


@pytest.mark.parametrize("value", [0.0, -0.7, -1024.0, 200.0, 5000.0])
def test_the_head_is_what_differs_from_the_background_whatever_its_value(value):
    array, inside = stripped()
    assert np.array_equal(head_mask(np.where(inside, array, np.float32(value))), inside)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("scaling", ["percentiles", "z_score"])
def test_a_z_scored_brain_is_prepared_as_the_original_is(way, scaling):
    array, inside = stripped()
    scored = z_scored(array, inside, way)
    assert dice(head_mask(scored), inside) > 0.999
    assert not is_magnitude(*with_head(scored))
    settings = {"intensity_scaling": scaling, "bias_correction": "n4", "spacing_mm": 1.0}
    original, found = prepared(array, **settings | {"bias_correction": "none"}), prepared(scored, **settings)
    assert found.grid == original.grid
    assert dice(found.head, original.head) > 0.999, "of the darkest voxel nobody can tell"
    in_both = found.head & original.head
    np.testing.assert_allclose(found.array[0][in_both], original.array[0][in_both], atol=0.01)
    assert found.array[0][~found.head].max() <= np.percentile(found.array[0][found.head], 2), "the background is dark"
    assert float(found.corrections[0].field_range) == 1


@pytest.mark.parametrize("way", WAYS)
def test_a_z_scored_image_is_named_as_what_it_is_and_its_lesions_lie_inside(way, write_nifti):
    array, inside = stripped()
    label = np.zeros(array.shape, np.uint8)
    label[28:33, 30:34, 24:29] = 1
    image = write_nifti("image.nii.gz", z_scored(array, inside, way))
    case = Case("scored", (image,), write_nifti("label.nii.gz", label), "p", "lung")
    (problem,) = examine(case, LesionRule()).problems
    assert problem.severity == "warning"
    assert "normalised or shifted" in problem.found
    assert "does not correct its bias field" in problem.fix


def test_a_scanners_own_image_has_a_background_near_0_and_nothing_to_be_told():
    array, inside = stripped()
    noise = np.random.default_rng(1).normal(0, 8, array.shape).astype(np.float32)
    assert is_magnitude(*with_head(array))
    assert is_magnitude(*with_head(np.abs(array + noise)))
    assert is_magnitude(*with_head(array + noise)), "air may scatter around 0"
    assert is_magnitude(*with_head(np.where(inside, array, -1024))), "padding says nothing of the head"
    case = Case("c", ("image.nii.gz",), None, "p", "lung")
    assert image_problems(case, "image.nii.gz", np.where(inside, np.maximum(array, 1), 0)) == []


def test_noisy_air_is_no_head_even_where_some_of_it_was_set_to_one_value():
    """As when a scanner masks air, an image is turned into another frame, or only what is not 0 is z-scored."""
    rng, (array, inside) = np.random.default_rng(2), stripped()
    noisy = np.abs(array + rng.normal(0, 8, array.shape)) + 1
    noisy[:12] = noisy[-12:] = noisy[:, :8] = 0
    inside = inside & (noisy > 0)
    bright = inside & (array > 150)
    for value in (0.0, -1024.0, 250.0):
        head = head_mask(np.where(noisy > 0, noisy, value).astype(np.float32))
        assert head[bright].mean() > 0.99
        assert not head[~inside].any()


def test_a_background_amid_the_values_becomes_the_darkest_and_others_stay():
    array, inside = stripped()
    assert with_dark_background(array) is array
    scored = z_scored(array, inside, "mask, 0")
    dark = with_dark_background(scored)
    assert np.array_equal(background_mask(scored), ~inside)
    assert np.array_equal(dark[inside], scored[inside])
    assert (dark[~inside] == scored.min()).all()


def test_an_image_of_one_value_has_no_head():
    assert not head_mask(np.full((9, 9, 9), -3, np.float32)).any()


@pytest.mark.parametrize(("name", "way"), zip(REAL, [*WAYS, "volume"], strict=True))
def test_real_brains_are_found_again_after_z_scoring(shared_data, name, way):
    image = read_volume(shared_data / f"real_t1c/images/{name}.nii.gz", name)
    step = 2 if min(image.spacing_mm) <= 1 else 1  # every other voxel, for speed
    array, spacing_mm = image.array[::step, ::step, ::step], tuple(step * edge for edge in image.spacing_mm)
    inside = array != 0
    original, stored = find_head(array, spacing_mm), prepared(array, spacing_mm)
    scored = z_scored(array, inside, way)
    assert dice(head_mask(scored), inside) > 0.98
    assert dice(find_head(scored, spacing_mm).mask, original.mask) > 0.98
    again = prepared(scored, spacing_mm)
    assert again.grid == stored.grid
    lit = [float((one.array[0][one.head] > 0).mean()) for one in (stored, again)]
    assert lit[1] > 0.98
    assert lit[1] == pytest.approx(lit[0], abs=0.01)


@pytest.mark.parametrize("way", ["volume", "nonzero"])
def test_a_real_head_with_skull_is_found_again_after_z_scoring(shared_data, way):
    image = read_volume(shared_data / "real_t1c/images/thick_brain1.nii.gz", "thick_brain1")
    inside = image.array != 0
    scored = z_scored(image.array, inside, "volume" if way == "volume" else "mask, 0")
    assert dice(head_mask(scored), head_mask(image.array)) > 0.98
    assert not is_magnitude(*with_head(scored))
    assert is_magnitude(*with_head(image.array))


def test_a_case_is_looked_at_with_a_dark_background(write_nifti):
    array, inside = stripped()
    case = Case("scored", (write_nifti("image.nii.gz", z_scored(array, inside, "mask, 0")),), None, "p", "lung")
    grey = examine(case, LesionRule()).grey_slice
    middle = inside[:, :, inside.shape[2] // 2]
    assert grey[~middle].max() == 0
    assert np.median(grey[middle]) > 60
