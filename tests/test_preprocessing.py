"""Preprocessing: the bias field goes, places and lesions stay, the case store holds what was put in."""

import hashlib
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from metaseg_nb.cohort.cases import Cohort, LesionRule
from metaseg_nb.cohort.head import head_mask
from metaseg_nb.cohort.lesions import label_lesions
from metaseg_nb.cohort.problems import CohortError
from metaseg_nb.cohort.volumes import Volume
from metaseg_nb.preprocessing.bias import correct_bias, shrink_factors
from metaseg_nb.preprocessing.case_store import is_stored, open_case, open_cases, store_case
from metaseg_nb.preprocessing.grid import CROP_MARGIN_MM, Grid, resample, resample_mask, study_grid
from metaseg_nb.preprocessing.intensity import to_unit_range
from metaseg_nb.preprocessing.prepare import prepare_case, prepare_cohort, recipe
from metaseg_nb.settings import Preprocess, resolve

RAS = nib.orientations.axcodes2ornt("RAS")
NATIVE = {"cubes": ((1.0, 1.0, 1.0), (24, 24, 20)), "thick": ((0.8, 0.8, 6.5), (32, 30, 8))}
natives = pytest.mark.parametrize(("spacing_mm", "shape"), NATIVE.values(), ids=NATIVE)
study_spacings = pytest.mark.parametrize("new_mm", [1.0, 2.0, 3.0])


def whole_grid(native, spacing_mm):
    return study_grid(np.ones(native.shape, bool), native, spacing_mm)


def places_mm(grid):
    axes = [o + np.arange(n) * s for o, n, s in zip(grid.origin_mm, grid.shape, grid.spacing_mm, strict=True)]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)


def nearest_voxel(grid, point_mm):
    return tuple(np.round((np.array(point_mm) - grid.origin_mm) / grid.spacing_mm).astype(int))


def dice(first, second):
    return 2 * (first & second).sum() / (first.sum() + second.sum())


# Bias field


@pytest.mark.parametrize(
    ("spacing_mm", "shrink", "factors"),
    [
        ((1.0, 1.0, 1.0), 4, [4, 4, 4]),
        ((0.5, 0.5, 2.0), 4, [4, 4, 1]),
        ((0.8, 0.8, 6.5), 4, [4, 4, 1]),
        ((1.0, 2.0, 1.0), 4, [4, 2, 4]),
        ((0.9, 0.9, 1.0), 1, [1, 1, 1]),
    ],
)
def test_thick_slices_are_shrunk_less(spacing_mm, shrink, factors):
    assert shrink_factors(spacing_mm, shrink) == factors


@pytest.fixture(scope="module")
def ball():
    """Uniform ball with a little noise, seen through a field that changes by more than half across it."""
    shape = (24, 24, 20)
    x, y, z = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij")
    inside = x**2 + y**2 + z**2 < 0.8**2
    tissue = np.where(inside, 100.0, 3.0) + np.random.default_rng(0).normal(0, 1, shape)
    image = tissue * np.exp(0.4 * x - 0.3 * y**2 + 0.2 * z)
    return Volume(image.astype(np.float32), np.diag([2.0, 2.0, 2.0, 1.0]), RAS), inside


def variation(array, inside):
    return array[inside].std() / array[inside].mean()


def test_correction_evens_out_a_known_field(ball):
    volume, inside = ball
    before = variation(volume.array, inside)
    assert before > 0.15
    corrected = correct_bias(volume, levels=4, iterations=50, shrink=2)
    assert variation(corrected, inside) < before / 2
    assert corrected.shape == volume.array.shape
    assert corrected.dtype == np.float32
    assert corrected[inside].mean() == pytest.approx(volume.array[inside].mean(), rel=0.2)


def test_no_levels_leave_the_image_as_it_is(ball):
    volume, _ = ball
    np.testing.assert_array_equal(correct_bias(volume, levels=0, iterations=50, shrink=2), volume.array)


def test_the_head_is_what_is_brighter_than_air(ball):
    volume, inside = ball
    assert dice(head_mask(volume.array), inside) > 0.95


# Intensity


def test_percentiles_become_0_and_1_and_the_rest_is_clipped():
    array = np.arange(101, dtype=np.float32).reshape(101, 1, 1)
    everything = np.ones(array.shape, bool)
    np.testing.assert_allclose(to_unit_range(array, everything, (0, 100)).ravel(), np.arange(101) / 100, atol=1e-6)
    found = to_unit_range(array, everything, (10, 60)).ravel()
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[[0, 10, 35, 60, 100]], [0, 0, 0.5, 1, 1], atol=1e-6)


def test_only_the_head_sets_the_scale():
    array = np.array([0, 100, 200, 9000], np.float32).reshape(4, 1, 1)
    mask = np.array([False, True, True, False]).reshape(4, 1, 1)
    assert to_unit_range(array, mask, (0, 100)).ravel().tolist() == [0, 0, 1, 1]
    nothing = np.zeros_like(mask)
    np.testing.assert_allclose(to_unit_range(array, nothing, (0, 100)).ravel() * 9000, array.ravel(), rtol=1e-5)


def test_an_image_without_contrast_is_refused():
    with pytest.raises(ValueError, match=r"\(0, 100\) are both 7: the image has no contrast"):
        to_unit_range(np.full((3, 3, 3), 7, np.float32), np.zeros((3, 3, 3), bool), (0, 100))


# Grid


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


@natives
@study_spacings
def test_a_point_keeps_its_place(spacing_mm, shape, new_mm):
    native = Grid(spacing_mm, shape)
    grid = whole_grid(native, new_mm)
    extent = np.array(shape) * spacing_mm
    point = 0.45 * extent
    width = np.maximum(0.1 * extent, 0.7 * np.array(spacing_mm))
    spot = np.exp(-(((places_mm(native) - point) / width) ** 2).sum(axis=-1) / 2).astype(np.float32)

    def centre(array, on):
        return (places_mm(on) * array[..., None]).sum(axis=(0, 1, 2)) / array.sum()

    there = resample(spot, native, grid)
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


def test_the_same_grid_changes_nothing():
    native = Grid((0.8, 0.8, 6.5), (12, 11, 10))
    array = np.random.default_rng(0).uniform(size=native.shape).astype(np.float32)
    np.testing.assert_allclose(resample(array, native, native), array, atol=1e-6)


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


# Masks


@natives
@study_spacings
@pytest.mark.parametrize("seed", range(3))
def test_no_lesion_is_lost_even_of_one_voxel(spacing_mm, shape, new_mm, seed):
    native = Grid(spacing_mm, shape)
    grid = whole_grid(native, new_mm)
    mask = np.zeros(shape, bool)
    mask[tuple(np.random.default_rng(seed).integers(0, shape, (40, 3)).T)] = True
    found = resample_mask(mask, native, grid)
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
        assert resample_mask(mask, native, grid)[nearest_voxel(grid, voxel * spacing_mm)]


@pytest.mark.parametrize(
    ("spacing_mm", "shape"),
    [((1.0, 1.0, 1.0), (26, 26, 26)), ((0.8, 0.8, 6.5), (34, 34, 5)), ((0.5, 0.5, 3.0), (52, 52, 9))],
    ids=["1 mm", "thick", "fine plane"],
)
@study_spacings
def test_the_volume_of_larger_lesions_is_kept_on_average(spacing_mm, shape, new_mm):
    native = Grid(spacing_mm, shape)
    grid = whole_grid(native, new_mm)
    middle, rng = places_mm(native).mean(axis=(0, 1, 2)), np.random.default_rng(0)
    before = after = 0.0
    for diameter_mm in np.linspace(8, 16, 25):
        away = np.linalg.norm(places_mm(native) - middle - rng.uniform(-2, 2, 3), axis=-1)
        mask = away <= diameter_mm / 2
        before += mask.sum() * np.prod(spacing_mm)
        after += resample_mask(mask, native, grid).sum() * new_mm**3
    assert after / before == pytest.approx(1, abs=0.1)


def test_a_voxel_is_lesion_when_half_of_it_is():
    native, coarse = Grid((1.0, 1.0, 1.0), (8, 8, 8)), Grid((2.0, 2.0, 2.0), (4, 4, 4), (0.5, 0.5, 0.5))
    mask = np.zeros(native.shape, bool)
    mask[0:4, 0:4, 0:4] = True  # eight whole voxels
    mask[4:5, 0:2, 0:2] = True  # half of one
    mask[4:5, 2:4, 2:3] = True  # a quarter of one
    expected = np.zeros(coarse.shape, bool)
    expected[0:2, 0:2, 0:2] = expected[2, 0, 0] = True
    np.testing.assert_array_equal(resample_mask(mask, native, coarse), expected)


def test_an_empty_mask_stays_empty():
    native = Grid((1.0, 1.0, 1.0), (8, 8, 8))
    assert not resample_mask(np.zeros(native.shape, bool), native, whole_grid(native, 3.0)).any()


# Case store

GRID = Grid((1.0, 1.0, 1.0), (6, 5, 4), (0.5, 1.0, -2.0))
WAY = {"spacing_mm": 1.0, "intensity_percentiles": [0.0, 100.0]}
FILES = [[1000, 1]]


@pytest.fixture
def arrays():
    image = np.random.default_rng(0).uniform(size=GRID.shape).astype(np.float32)
    return image, image > 0.7


def test_what_is_stored_is_there_again_and_is_not_loaded(tmp_path, arrays):
    image, label = arrays
    native = Grid((0.8, 0.8, 6.5), (32, 30, 8))
    store_case(tmp_path, "c", image, label, native, GRID, WAY, FILES)
    stored = open_case(tmp_path, "c")
    assert (stored.name, stored.native, stored.grid, stored.recipe) == ("c", native, GRID, WAY)
    assert stored.has_label
    for array, expected, dtype in (
        (stored.image, image, np.float32),
        (stored.label, label, np.uint8),
        (stored.lesion_voxels, np.argwhere(label), np.int32),
    ):
        assert isinstance(array, np.memmap)
        assert array.dtype == dtype
        np.testing.assert_array_equal(array, expected)


def test_a_case_without_label_has_none_not_even_an_old_one(tmp_path, arrays):
    image, label = arrays
    store_case(tmp_path, "c", image, label, GRID, GRID, WAY, FILES)
    assert not store_case(tmp_path, "c", image, None, GRID, GRID, WAY, FILES).has_label


def test_a_case_counts_when_it_is_whole_and_made_the_same_way(tmp_path, arrays):
    assert not is_stored(tmp_path, "c", WAY, FILES)
    store_case(tmp_path, "c", *arrays, GRID, GRID, WAY, FILES)
    assert is_stored(tmp_path, "c", WAY, FILES)
    assert not is_stored(tmp_path, "c", {**WAY, "spacing_mm": 2.0}, FILES)
    assert not is_stored(tmp_path, "c", WAY, [[1000, 2]])
    (tmp_path / "c/case.json").unlink()
    assert not is_stored(tmp_path, "c", WAY, FILES)
    with pytest.raises(CohortError, match="run notebook 02"):
        open_case(tmp_path, "c")


def test_a_case_whose_replacement_was_interrupted_does_not_count(tmp_path, arrays, monkeypatch):
    store_case(tmp_path, "c", *arrays, GRID, GRID, WAY, FILES)

    def full_disk(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(np, "save", full_disk)
    with pytest.raises(OSError, match="no space"):
        store_case(tmp_path, "c", *arrays, GRID, GRID, WAY, FILES)
    assert not is_stored(tmp_path, "c", WAY, FILES)


def test_every_case_that_is_missing_or_made_otherwise_is_named(tmp_path, arrays, write_case):
    cases = [write_case(name) for name in "abcd"]
    for name, way in (("a", WAY), ("c", {**WAY, "spacing_mm": 2.0})):
        store_case(tmp_path / "cases", name, *arrays, GRID, GRID, way, FILES)
    with pytest.raises(CohortError) as error:
        open_cases(tmp_path / "cases", cases)
    assert [problem.case for problem in error.value.problems] == ["b", "d", "c"]
    assert [stored.name for stored in open_cases(tmp_path / "cases", cases[:1])] == ["a"]


# Whole cohorts


@pytest.fixture
def settings():
    values = {**resolve("02_preprocess_n4", "demo"), "spacing_mm": 2.0, "n4_levels": 0, "workers": 1}
    return Preprocess.check(values)


@pytest.fixture
def cohort(write_case):
    cases = [write_case("a"), write_case("b", seed=1, axes="LPS", spacing_mm=(0.8, 0.8, 3.0))]
    return Cohort("tiny", "", cases, [write_case("new", seed=2, labelled=False)])


def content(folder):
    return {path: hashlib.sha256(path.read_bytes()).digest() for path in folder.rglob("*") if path.is_file()}


def test_a_cohort_is_brought_to_one_grid_and_its_files_are_left_alone(cohort, settings, tmp_path):
    before = content(tmp_path)
    rows = prepare_cohort(cohort, tmp_path / "cases", settings)
    assert [row["case"] for row in rows] == ["a", "b", "new"]
    assert content(tmp_path).items() >= before.items()
    *labelled, new = open_cases(tmp_path / "cases", [*cohort.cases, *cohort.unlabelled])
    for stored, row in zip(labelled, rows, strict=False):
        assert stored.grid.spacing_mm == (2.0, 2.0, 2.0)
        assert stored.image.shape == stored.label.shape == stored.grid.shape
        assert stored.image.min() >= 0
        assert stored.image.max() <= 1
        assert label_lesions(stored.label > 0)[1] == 2
        assert row["stored_volume_mm3"] == stored.label.sum() * 8
    assert rows[0]["lesion_volume_mm3"] == 61
    assert rows[1]["lesion_volume_mm3"] == pytest.approx(61 * 0.8 * 0.8 * 3, rel=1e-5)
    assert not new.has_label


def test_the_image_is_stored_where_its_lesion_is(write_case, settings, tmp_path):
    """A lesion that is bright in the file is bright under the stored label, whatever the file's axes."""
    case = write_case("bright", axes="SPL", spacing_mm=(0.9, 1.0, 2.0), shape=(40, 40, 20))
    image, label = nib.load(case.image), nib.load(case.label)
    brighter = image.get_fdata() + 400 * label.get_fdata()
    nib.save(nib.Nifti1Image(brighter.astype(np.float32), image.affine), case.image)
    scale = {"intensity_percentiles": [0.0, 100.0], "spacing_mm": 1.0}
    prepare_cohort(Cohort("one", "", [case]), tmp_path / "cases", settings.model_copy(update=scale))
    stored = open_case(tmp_path / "cases", "bright")
    bright = stored.image > 0.5
    assert dice(bright, stored.label.astype(bool)) > 0.7


def test_what_is_done_is_not_done_again(cohort, settings, tmp_path):
    prepare_cohort(cohort, tmp_path / "cases", settings)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "cases").rglob("*")}
    rows = prepare_cohort(cohort, tmp_path / "cases", settings.model_copy(update={"study": "other"}))
    assert [row["seconds"] for row in rows] == [0, 0, 0]
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "cases").rglob("*")} == before


def test_other_settings_do_all_cases_again(cohort, settings, tmp_path):
    prepare_cohort(cohort, tmp_path / "cases", settings)
    rows = prepare_cohort(cohort, tmp_path / "cases", settings.model_copy(update={"spacing_mm": 3.0}))
    assert all(row["seconds"] > 0 for row in rows)
    assert {stored.grid.spacing_mm for stored in open_cases(tmp_path / "cases", cohort.cases)} == {(3.0, 3.0, 3.0)}
    relabelled = prepare_cohort(
        replace(cohort, rule=LesionRule((1, 2))), tmp_path / "cases", settings.model_copy(update={"spacing_mm": 3.0})
    )
    assert all(row["seconds"] > 0 for row in relabelled)


def test_all_headers_are_looked_at_before_the_first_case_is_worked_on(cohort, settings, write_case, tmp_path):
    gone, smaller, flat = (write_case(name) for name in ("gone", "smaller", "flat"))
    gone.image.unlink()
    smaller = replace(smaller, label=write_case("other", shape=(24, 24, 18)).label)
    nib.save(nib.Nifti1Image(np.zeros((8, 8, 8, 2), np.float32), np.eye(4)), flat.image)
    bad = replace(cohort, cases=[*cohort.cases, gone, smaller], unlabelled=[replace(flat, label=None)])
    with pytest.raises(CohortError) as error:
        prepare_cohort(bad, tmp_path / "cases", settings)
    assert [problem.case for problem in error.value.problems] == ["gone", "smaller", "flat"]
    assert not (tmp_path / "cases").exists()


def test_an_image_without_contrast_is_named(write_case, settings, tmp_path):
    case = write_case("grey")
    nib.save(nib.Nifti1Image(np.full((24, 24, 20), 7, np.float32), nib.load(case.image).affine), case.image)
    with pytest.raises(CohortError, match="no contrast") as error:
        prepare_case(case, tmp_path / "cases", recipe(settings), LesionRule())
    assert [(p.case, p.file) for p in error.value.problems] == [("grey", str(case.image))]
    assert not is_stored(tmp_path / "cases", "grey", recipe(settings), FILES)


def test_worker_processes_do_the_same_and_say_the_same(cohort, settings, write_case, tmp_path):
    two = settings.model_copy(update={"workers": 2})
    assert recipe(two) == recipe(settings)
    grey = write_case("grey")
    nib.save(nib.Nifti1Image(np.full((24, 24, 20), 7, np.float32), nib.load(grey.image).affine), grey.image)
    with pytest.raises(CohortError) as alone:
        prepare_case(grey, tmp_path / "alone", recipe(settings), LesionRule())
    with pytest.raises(CohortError) as together:
        prepare_cohort(replace(cohort, cases=[cohort.cases[0], grey], unlabelled=[]), tmp_path / "cases", two)
    assert str(together.value) == str(alone.value)
    assert together.value.problems == alone.value.problems
    prepare_case(cohort.cases[0], tmp_path / "alone", recipe(settings), LesionRule())
    by_worker, here = (open_case(tmp_path / folder, "a") for folder in ("cases", "alone"))
    np.testing.assert_array_equal(by_worker.image, here.image)


def test_a_corrected_mask_is_prepared_again(write_case, settings, tmp_path):
    case = write_case("corrected")
    kept = prepare_case(case, tmp_path / "cases", recipe(settings), LesionRule())
    assert prepare_case(case, tmp_path / "cases", recipe(settings), LesionRule())["seconds"] == 0
    label = nib.load(case.label)
    nib.save(nib.Nifti1Image(np.zeros(label.shape, np.uint8), label.affine), case.label)
    again = prepare_case(case, tmp_path / "cases", recipe(settings), LesionRule())
    assert kept["stored_volume_mm3"] > 0 == again["stored_volume_mm3"]
    assert not open_case(tmp_path / "cases", "corrected").label.any()


def test_a_second_run_reports_the_same_volumes_as_the_first(write_case, settings, tmp_path):
    labelled, unlabelled = write_case("labelled"), write_case("unlabelled", seed=1, labelled=False)
    for case in (labelled, unlabelled):
        first, again = (prepare_case(case, tmp_path / "cases", recipe(settings), LesionRule()) for _ in range(2))
        assert first["seconds"] > 0 == again["seconds"]
        assert first | {"seconds": 0} == again
    assert first["lesion_volume_mm3"] is None
