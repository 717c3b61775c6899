"""Preprocessing: the bias field goes, whole cohorts come to one grid, and a change redoes what it touches."""

import hashlib
import os
import shutil
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from metaseg_nb.checksums import read_record, write_record
from metaseg_nb.cohort.cases import Case, Cohort, LesionRule
from metaseg_nb.cohort.lesions import label_lesions
from metaseg_nb.cohort.problems import CohortError
from metaseg_nb.cohort.volumes import Volume
from metaseg_nb.files import MACHINE
from metaseg_nb.layout import StudyLayout
from metaseg_nb.parameters import resolve
from metaseg_nb.preprocessing import prepare, steps
from metaseg_nb.preprocessing.bias import correct_bias, shrink_factors
from metaseg_nb.preprocessing.case_store import open_case, open_cases
from metaseg_nb.preprocessing.prepare import prepare_case, prepare_cohort, refuse_other_settings
from metaseg_nb.preprocessing.steps import (
    NOT_VOXELS,
    image_recipe,
    label_recipe,
    prepare_image,
    read_images,
    require_sequences,
)
from metaseg_nb.preprocessing.stored_case import record_correction
from metaseg_nb.settings import Preprocess

RAS = nib.orientations.axcodes2ornt("RAS")


# Bias field


@pytest.mark.parametrize(
    ("spacing_mm", "fit_spacing_mm", "factors"),
    [
        ((1.0, 1.0, 1.0), 4, [4, 4, 4]),
        ((0.5, 0.5, 2.0), 2, [4, 4, 1]),
        ((0.8, 0.8, 6.5), 4, [5, 5, 1]),
        ((1.0, 2.0, 1.0), 4, [4, 2, 4]),
        ((0.9, 0.9, 1.0), 1, [1, 1, 1]),
    ],
)
def test_thick_slices_are_shrunk_less(spacing_mm, fit_spacing_mm, factors):
    assert shrink_factors(spacing_mm, fit_spacing_mm) == factors


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
    corrected = correct_bias(volume, "n4", levels=4, iterations=50, fit_spacing_mm=4.0)
    assert variation(corrected, inside) < before / 2
    assert corrected.shape == volume.array.shape
    assert corrected.dtype == np.float32
    assert corrected[inside].mean() == pytest.approx(volume.array[inside].mean(), rel=0.2)


def test_a_correction_that_is_switched_off_leaves_the_image_as_it_is(ball):
    volume, _ = ball
    same = correct_bias(volume, "none", levels=4, iterations=50, fit_spacing_mm=4.0)
    np.testing.assert_array_equal(same, volume.array)


def test_what_is_kept_of_a_correction_tells_how_strong_it_was(ball):
    volume, inside = ball
    x = np.linspace(-1, 1, volume.array.shape[0])[:, None, None]
    truth = np.broadcast_to(3 * np.exp(0.4 * x), volume.array.shape)
    positive = np.maximum(volume.array, 0)
    record = record_correction(replace(volume, array=positive), positive / truth, positive / 200, inside)
    low, high = np.percentile(truth[inside], (1, 99))
    assert float(record.field_range) == pytest.approx(high / low, rel=1e-5)
    known = np.isfinite(record.field)
    expected = np.broadcast_to(truth[:, :, 0] / np.median(truth[inside]), record.field.shape)
    np.testing.assert_allclose(record.field[known], expected[known], rtol=1e-3)
    np.testing.assert_allclose((record.after * record.field)[known], record.before[known], rtol=1e-3)
    for shares, edges, values in (
        (record.raw, record.raw_edges, positive),
        (record.prepared, record.prepared_edges, positive / 200),
    ):
        assert shares.sum() == pytest.approx(1, abs=0.01)
        assert edges[[0, -1]] == pytest.approx(np.percentile(values[inside], (0.1, 99.9)))


# Whole cohorts


@pytest.fixture
def settings():
    values = {**resolve("02_preprocess_n4", "demo"), "spacing_mm": 2.0, "bias_correction": "none", "workers": 1}
    return Preprocess.check(values)


@pytest.fixture
def cohort(write_case):
    cases = [write_case("a"), write_case("b", seed=1, axes="LPS", spacing_mm=(0.8, 0.8, 3.0))]
    return Cohort("tiny", "", cases, [write_case("new", seed=2, labelled=False)])


@pytest.fixture
def counted(monkeypatch):
    """Names of the parts that are made, in order."""
    made = []
    for part in ("image", "label"):
        make = getattr(prepare, f"_make_{part}")

        def noted(case, *rest, make=make, part=part):
            made.append((case.name, part))
            return make(case, *rest)

        monkeypatch.setattr(prepare, f"_make_{part}", noted)
    return made


def content(folder):
    return {path: hashlib.sha256(path.read_bytes()).digest() for path in folder.rglob("*") if path.is_file()}


def change(settings, **values):
    return settings.model_copy(update=values)


def test_a_cohort_is_brought_to_one_grid_and_its_files_are_left_alone(cohort, settings, tmp_path):
    before = content(tmp_path)
    prepared = prepare_cohort(cohort, tmp_path / "cases", settings)
    rows = prepared.table.to_dict("records")
    assert prepared.problems == []
    assert [row["case"] for row in rows] == ["a", "b", "new"]
    assert content(tmp_path).items() >= before.items()
    *labelled, new = open_cases(tmp_path / "cases", [*cohort.cases, *cohort.unlabelled])
    for stored, row in zip(labelled, rows, strict=False):
        assert stored.grid.spacing_mm == (2.0, 2.0, 2.0)
        assert stored.image.shape == (1, *stored.label.shape) == (1, *stored.grid.shape)
        assert stored.image.min() >= 0
        assert stored.image.max() <= 1
        assert label_lesions(stored.label > 0)[1] == 2 == row["lesions"] == row["stored_lesions"]
        assert row["stored_volume_mm3"] == stored.label.sum() * 8
        # half a voxel of rounding, and a whole one for the speck that is kept
        assert row["stored_volume_mm3"] == pytest.approx(row["lesion_volume_mm3"], abs=12)
        assert row["lost_lesions"] == 0
        assert row["disk_mb"] == pytest.approx(sum(p.stat().st_size for p in stored.folder.iterdir()) / 1e6)
    assert rows[0]["lesion_volume_mm3"] == 61
    assert rows[1]["lesion_volume_mm3"] == pytest.approx(61 * 0.8 * 0.8 * 3, rel=1e-5)
    assert not new.has_label


def test_patches_are_centred_in_the_head(cohort, settings, tmp_path):
    prepare_cohort(cohort, tmp_path / "cases", settings)
    stored = open_case(tmp_path / "cases", "a")
    values = stored.image[0][tuple(stored.head_voxels.T)]
    assert (values > 0).mean() > 0.9
    outside = np.ones(stored.grid.shape, bool)
    outside[tuple(stored.head_voxels.T)] = False
    assert (stored.image[0][outside] > 0.3).mean() < 0.1


def test_a_second_run_does_nothing_and_says_the_same(cohort, settings, tmp_path):
    first = prepare_cohort(cohort, tmp_path / "cases", settings)
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "cases").rglob("*")}
    again = prepare_cohort(cohort, tmp_path / "cases", settings)
    assert (first.table["seconds"] > 0).all()
    pd.testing.assert_frame_equal(again.table, first.table)
    assert (first.made, again.made) == (["a", "b", "new"], [])
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "cases").rglob("*")} == times
    assert np.isnan(first.table["lesion_volume_mm3"].iloc[-1])


@pytest.mark.parametrize(
    ("changed", "parts"),
    [
        ({"workers": 2, "study": "other"}, []),
        ({"fill_holes": True}, ["label"]),
        ({"min_lesion_mm3": 3.0}, ["label"]),
        ({"outside_head": "drop"}, ["label"]),
        ({"spacing_mm": 3.0}, ["image", "label"]),
        ({"intensity_scaling": "z_score"}, ["image", "label"]),
        ({"interpolation": "cubic"}, ["image", "label"]),
    ],
)
def test_changed_settings_redo_what_they_change(cohort, settings, tmp_path, counted, changed, parts):
    case, folder = cohort.cases[0], tmp_path / "cases"
    prepare_case(case, folder, settings, LesionRule())
    counted.clear()
    prepare_case(case, folder, change(settings, **changed), LesionRule())
    assert counted == [("a", part) for part in parts]


def test_another_rule_of_lesion_values_redoes_labels_alone(cohort, settings, tmp_path, counted):
    case, folder = cohort.cases[0], tmp_path / "cases"
    for rule in (LesionRule(), LesionRule((1, 2)), LesionRule(threshold=0.5), LesionRule(threshold=0.5)):
        prepare_case(case, folder, settings, rule)
    assert counted == [("a", "image"), ("a", "label"), ("a", "label"), ("a", "label")]


def test_a_case_that_lost_its_mask_keeps_its_image(write_case, settings, tmp_path, counted):
    case, folder = write_case("a"), tmp_path / "cases"
    prepare_case(case, folder, settings, LesionRule())
    row = prepare_case(replace(case, label=None), folder, settings, LesionRule())
    assert row["lesion_volume_mm3"] is None
    assert not open_case(folder, "a").has_label
    assert len(counted) == 2


def test_a_killed_case_is_done_again_and_no_other(cohort, settings, tmp_path, counted):
    folder = tmp_path / "cases"
    prepare_cohort(cohort, folder, settings)
    (folder / "b/label.json").unlink()  # killed between the label's arrays and its last file
    (folder / "new/image.json").unlink()
    counted.clear()
    prepare_cohort(cohort, folder, settings)
    assert counted == [("b", "label"), ("new", "image")]


@pytest.mark.parametrize(
    ("damaged", "parts"),
    [
        *[(name, ["image", "label"]) for name in ("image.npy", "correction.npz", "image.json")],
        *[(name, ["label"]) for name in ("label.npy", "lesion_boxes.npy", "label.json")],
    ],
)
@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(bytes(path.stat().st_size))])
def test_what_is_damaged_is_made_again_and_no_more(cohort, settings, tmp_path, counted, damaged, parts, damage):
    folder = tmp_path / "cases"
    prepare_cohort(cohort, folder, settings)
    before, half_written = content(folder), folder / f"a/.999999999@{MACHINE}_image.npy"
    damage(folder / "a" / damaged)
    half_written.touch()
    counted.clear()
    assert prepare_cohort(cohort, folder, settings).problems == []
    assert counted == [("a", part) for part in parts]
    assert not half_written.exists()
    again = content(folder)
    assert before.keys() == again.keys()
    assert {path for path in before if before[path] != again[path]} <= {folder / f"a/{part}.time" for part in parts}


@pytest.mark.parametrize(("slice_mm", "slices"), [(1.0, 15), (5.0, 3)])
@pytest.mark.parametrize("spacing_mm", [1.0, 2.0, 3.0])
def test_slices_are_those_of_the_image_whatever_the_study_grid(
    write_nifti, settings, tmp_path, spacing_mm, slice_mm, slices
):
    x, y, z = np.indices((50, 50, round(45 / slice_mm)))
    from_middle = np.sqrt((x - 24.5) ** 2 + (y - 24.5) ** 2 + ((z - (z.max() // 2)) * slice_mm) ** 2)
    image, speck = 100.0 * (from_middle < 22) + (from_middle < 7), (x == 12) & (y == 24) & (z == z.max() // 2)
    mask, edges = (from_middle < 7.5) | speck, (1.0, 1.0, slice_mm)
    files = [
        write_nifti(f"{n}.nii.gz", a, edges, "PIR") for n, a in (("i", image.astype(np.float32)), ("m", mask * 1.0))
    ]
    case = Case("ball", (files[0],), files[1], "p", "lung")
    prepare_case(case, tmp_path / "cases", change(settings, spacing_mm=spacing_mm), LesionRule())
    stored = open_case(tmp_path / "cases", "ball")
    assert stored.grid.spacing_mm[2] == spacing_mm
    assert stored.slices == [slices, 1]


def test_a_corrected_mask_is_prepared_again(write_case, settings, tmp_path, counted):
    case, folder = write_case("corrected"), tmp_path / "cases"
    kept = prepare_case(case, folder, settings, LesionRule())
    label = nib.load(case.label)
    nib.save(nib.Nifti1Image(np.zeros(label.shape, np.uint8), label.affine), case.label)
    again = prepare_case(case, folder, settings, LesionRule())
    assert kept["stored_volume_mm3"] > 0 == again["stored_volume_mm3"]
    assert not open_case(folder, "corrected").label.any()
    assert counted == [("corrected", part) for part in ("image", "label", "label")]


def test_a_label_that_was_touched_is_not_prepared_again_and_one_of_the_same_size_and_time_is(
    write_case, settings, tmp_path, counted
):
    case, folder = write_case("a"), tmp_path / "cases"
    prepare_case(case, folder, settings, LesionRule())
    counted.clear()
    os.utime(case.label, (1, 1))
    prepare_case(case, folder, settings, LesionRule())
    assert counted == []
    content = bytearray(case.label.read_bytes())
    content[4] ^= 1  # the time in the gzip header
    case.label.write_bytes(content)
    os.utime(case.label, (1, 1))
    prepare_case(case, folder, settings, LesionRule())
    assert counted == [("a", "label")]
    assert open_cases(folder, [case])


# Cases that networks were trained on


@pytest.fixture
def study(cohort, settings, tmp_path):
    layout = StudyLayout("tiny", tmp_path)
    prepare_cohort(cohort, layout.case_store, settings)
    return layout


def trained_network(layout, arm=""):
    run = layout.run("unet", 1, arm)
    run.root.mkdir(parents=True)
    run.best_checkpoint.touch()


@pytest.mark.parametrize("arm", ["", "boxes"])
def test_other_settings_are_refused_once_a_network_is_trained(study, cohort, settings, arm):
    other = change(settings, spacing_mm=1.5, fill_holes=True)
    refuse_other_settings(study, cohort, other)
    trained_network(study, arm)
    refuse_other_settings(study, cohort, change(settings, workers=2))
    with pytest.raises(
        CohortError, match=r"spacing_mm 2\.0, fill_holes False; expected spacing_mm 1\.5.*`study`.*delete"
    ):
        refuse_other_settings(study, cohort, other)


def test_what_is_damaged_or_deleted_is_never_refused(study, cohort, settings):
    trained_network(study)
    (study.case_store / "a/image.json").write_text("half")
    shutil.rmtree(study.case_store / "b")
    refuse_other_settings(study, cohort, settings)
    shutil.rmtree(study.case_store)
    refuse_other_settings(study, cohort, change(settings, spacing_mm=1.0))


def test_a_label_whose_slices_an_earlier_version_did_not_count_is_made_again_and_stays_the_same(
    write_case, settings, tmp_path, counted
):
    case, folder = write_case("a"), tmp_path / "cases"
    prepare_case(case, folder, settings, LesionRule())
    before, record = open_case(folder, "a"), folder / "a/label.json"
    facts = read_record(record)
    write_record(record, {key: facts[key] for key in facts if key not in ("slices", "files")}, folder.glob("a/l*.npy"))
    with pytest.raises(CohortError, match="run notebook 02 again: it counts them"):
        _ = open_case(folder, "a").slices
    counted.clear()
    prepare_case(case, folder, settings, LesionRule())
    assert counted == [("a", "label")]
    after = open_case(folder, "a")
    assert (after.slices, after.identity) == ([5, 1], before.identity)


def test_a_new_version_of_the_workbook_is_refused_too(study, cohort, settings, monkeypatch):
    trained_network(study)
    monkeypatch.setattr(steps, "VERSION", steps.VERSION + 1)
    with pytest.raises(CohortError, match="version"):
        refuse_other_settings(study, cohort, settings)


def test_cleaning_changes_what_is_learned_from_and_is_counted(write_case, settings, tmp_path):
    case, folder = write_case("a"), tmp_path / "cases"
    drawn = prepare_case(case, folder, settings, LesionRule())
    cleaned = prepare_case(case, folder, change(settings, min_lesion_mm3=3.0), LesionRule())
    assert (drawn["specks"], cleaned["specks"]) == (0, 1)
    assert drawn["cleaned_volume_mm3"] == drawn["lesion_volume_mm3"] == cleaned["lesion_volume_mm3"] == 61
    assert cleaned["cleaned_volume_mm3"] == 60
    assert label_lesions(open_case(folder, "a").label > 0)[1] == 1


def test_worker_processes_do_the_same(cohort, settings, tmp_path):
    assert prepare_cohort(cohort, tmp_path / "cases", change(settings, workers=2)).problems == []
    prepare_case(cohort.cases[0], tmp_path / "alone", settings, LesionRule())
    by_worker, here = (open_case(tmp_path / folder, "a") for folder in ("cases", "alone"))
    np.testing.assert_array_equal(by_worker.image, here.image)


# Several sequences


@pytest.fixture
def two_sequences(write_case):
    """The first case's image, and beside it another one that is twice as bright and upside down."""
    case = write_case("two")
    first = nib.load(case.image)
    other = case.image.with_name("flair.nii.gz")
    nib.save(nib.Nifti1Image(2 * first.get_fdata()[:, :, ::-1].astype(np.float32), first.affine), other)
    return replace(case, images=(case.image, other))


def test_several_sequences_are_stacked_each_prepared_by_itself(two_sequences, settings, tmp_path):
    prepare_case(two_sequences, tmp_path / "cases", settings, LesionRule())
    stored = open_case(tmp_path / "cases", "two")
    assert stored.channels == 2
    assert stored.image.shape == (2, *stored.label.shape)
    np.testing.assert_allclose(stored.image[1], stored.image[0][:, :, ::-1], atol=2e-3)
    prepare_case(replace(two_sequences, images=two_sequences.images[:1]), tmp_path / "one", settings, LesionRule())
    np.testing.assert_array_equal(open_case(tmp_path / "one", "two").image[0], stored.image[0])
    assert len(stored.image_facts["field_ranges"]) == 2


def test_the_head_of_the_first_sequence_decides_the_crop(two_sequences, settings, tmp_path):
    other = nib.load(two_sequences.images[1])
    values = other.get_fdata()
    values[:10] = 0
    nib.save(nib.Nifti1Image(values.astype(np.float32), other.affine), two_sequences.images[1])
    settings, grids = change(settings, spacing_mm=1.0), []
    for files in (two_sequences.images, two_sequences.images[:1]):
        prepare_case(replace(two_sequences, images=files), tmp_path / f"{len(files)}", settings, LesionRule())
        stored = open_case(tmp_path / f"{len(files)}", "two")
        grids.append((stored.grid, stored.head_voxels.tolist()))
    assert grids[0] == grids[1]


def test_an_image_is_prepared_with_as_many_sequences_as_the_recipe_says(two_sequences, settings):
    recipe = image_recipe(settings, 2)
    require_sequences([two_sequences], recipe)
    with pytest.raises(CohortError, match=r"1 sequence\(s\); expected 2"):
        require_sequences([replace(two_sequences, images=two_sequences.images[:1])], recipe)
    assert prepare_image(read_images(two_sequences), recipe).array.shape[0] == 2


def test_a_head_smaller_than_a_voxel_of_the_study_grid_still_gives_patches_a_place(write_nifti, settings):
    array = np.random.default_rng(0).uniform(0, 1, (16, 16, 16)).astype(np.float32)
    array[7:9, 7:9, 7:9] += 100
    case = Case("small", (write_nifti("small.nii.gz", array),), None, "p", "unknown")
    recipe = image_recipe(change(settings, bias_correction="none", spacing_mm=8.0), 1)
    assert prepare_image(read_images(case), recipe).head.any()


def test_the_recipe_of_an_image_says_nothing_of_labels(settings):
    settings = change(settings, brain="deepbet", register_sequences="all", missing="zero", earlier_mask=True)
    of_image, of_label = image_recipe(settings, 2), label_recipe(settings, LesionRule())
    assert not of_image.keys() & of_label.keys()
    assert of_image.keys() | of_label.keys() | NOT_VOXELS == {
        *Preprocess.model_fields, "lesions", "sequences", "version",
    }  # fmt: skip


@pytest.mark.parametrize("scaling", ["percentiles", "min_max"])
@pytest.mark.parametrize("interpolation", ["linear", "cubic"])
def test_networks_see_values_between_0_and_1(cohort, settings, tmp_path, scaling, interpolation):
    settings = change(settings, intensity_scaling=scaling, interpolation=interpolation)
    prepare_cohort(cohort, tmp_path / "cases", settings)
    for stored in open_cases(tmp_path / "cases", cohort.cases):
        assert 0 <= stored.image.min() < 0.1
        assert 0.5 < stored.image.max() <= 1
