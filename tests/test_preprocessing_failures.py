"""Bad cases: each is named with its file and what to do, the others go on, and what can be handled soundly is."""

import errno
import os
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from metaseg_nb.cohort.cases import Cohort, LesionRule
from metaseg_nb.cohort.checks import image_problems
from metaseg_nb.cohort.problems import CohortError
from metaseg_nb.cohort.volumes import read_volume, write_volume
from metaseg_nb.files import MACHINE
from metaseg_nb.parameters import resolve
from metaseg_nb.preprocessing import steps
from metaseg_nb.preprocessing.case_store import open_case
from metaseg_nb.preprocessing.prepare import prepare_case, prepare_cohort
from metaseg_nb.preprocessing.steps import read_images
from metaseg_nb.settings import Preprocess


@pytest.fixture
def settings():
    values = {**resolve("02_preprocess_n4", "demo"), "spacing_mm": 2.0, "bias_correction": "none", "workers": 1}
    return Preprocess.check(values)


def rewrite(path, change, dtype=np.float32, affine=None):
    image = nib.load(path)
    array = change(np.asarray(image.dataobj).astype(float)).astype(dtype)
    nib.save(nib.Nifti1Image(array, image.affine if affine is None else affine), path)


def set_spacing(path, edge):
    """Write a header whose voxels have an edge of this length, by hand: libraries would refuse."""
    image = nib.load(path)
    affine = image.affine.copy()
    affine[:3, 2] *= edge
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), None, image.header), path)
    raw = nib.load(path)
    raw.header["pixdim"][3] = edge
    raw.header.set_sform(affine, code=1)
    raw.header["qform_code"] = 0
    nib.save(nib.Nifti1Image(np.asarray(raw.dataobj), affine, raw.header), path)


def constant(case):
    rewrite(case.image, lambda array: np.full(array.shape, 7))


def not_a_number(case):
    def change(array):
        array[3, 4, 5] = np.nan
        return array

    rewrite(case.image, change)


def one_slice(case):
    for path in (case.image, case.label):
        rewrite(path, lambda array: array[:, :, :1])


def time_points(case):
    rewrite(case.image, lambda array: np.stack([array] * 3, axis=-1))


def overflowed(case):
    def change(array):
        array *= 200  # up to 22000
        array[10:14, 10:14, 8:12] = 40_000
        return np.rint(array).astype(np.int64).astype(np.int16)  # wraps

    rewrite(case.image, change, np.int16)


def zero_spacing(case):
    set_spacing(case.image, 0.0)


def sheared(case):
    affine = np.diag([1.0, 1.0, 1.0, 1.0])
    affine[1, 2] = 0.3
    for path in (case.image, case.label):
        rewrite(path, lambda array: array, affine=affine)


def no_file(case):
    case.image.unlink()


def truncated(case):
    case.image.write_bytes(case.image.read_bytes()[:500])


def other_grid(case):
    rewrite(case.label, lambda array: array[:, :, :-2], np.uint8)


def unknown_value(case):
    rewrite(case.label, lambda array: array * 7, np.uint8)


BAD = {
    constant: "the value 7 in every voxel",
    not_a_number: "1 NaN or infinite voxels",
    one_slice: "shape (24, 24, 1)",
    time_points: "4D, shape (24, 24, 20, 3)",
    overflowed: "64 voxels with values down to -25536 among bright voxels",
    zero_spacing: "affine",
    sheared: "off a right angle",
    no_file: "no such file",
    truncated: "unreadable",
    other_grid: "shape (24, 24, 18)",
    unknown_value: "label values 7",
}


@pytest.mark.parametrize("spoil", BAD, ids=lambda spoil: spoil.__name__)
def test_a_bad_case_is_named_with_its_file_and_what_to_do(write_case, settings, tmp_path, spoil):
    case = write_case("bad")
    spoil(case)
    with pytest.raises(CohortError) as error:
        prepare_case(case, tmp_path / "cases", settings, LesionRule())
    (problem,) = error.value.problems
    assert problem.case == "bad"
    assert problem.file in map(str, case.files)
    assert BAD[spoil] in problem.found
    assert problem.expected
    assert problem.fix
    assert not (tmp_path / "cases/bad/label.json").exists()


@pytest.mark.parametrize("workers", [1, 2])
def test_bad_cases_do_not_stop_the_others(write_case, settings, tmp_path, workers):
    good = [write_case(name) for name in ("first", "last")]
    bad = [write_case(spoil.__name__) for spoil in BAD]
    for case, spoil in zip(bad, BAD, strict=True):
        spoil(case)
    cohort = Cohort("mixed", "", [good[0], *bad], [replace(good[1], label=None)])
    prepared = prepare_cohort(cohort, tmp_path / "cases", settings.model_copy(update={"workers": workers}))
    assert prepared.table["case"].tolist() == ["first", "last"]
    assert [problem.case for problem in prepared.problems] == [case.name for case in bad]
    assert open_case(tmp_path / "cases", "first").label.any()


def test_what_a_library_refuses_in_one_case_is_a_problem_of_that_case(write_case, settings, tmp_path, monkeypatch):
    def refuse(volume, *_, **__):
        if volume.array.max() > 150:
            raise RuntimeError("itk::ERROR: something about this image")
        return volume.array

    monkeypatch.setattr(steps, "correct_bias", refuse)
    good, bad = write_case("good"), write_case("bad")
    rewrite(bad.image, lambda array: 2 * array)
    prepared = prepare_cohort(Cohort("two", "", [bad, good]), tmp_path / "cases", settings)
    assert prepared.table["case"].tolist() == ["good"]
    assert "RuntimeError: itk::ERROR" in prepared.problems[0].found


def test_a_mistake_of_the_program_is_none_of_the_case(write_case, settings, tmp_path, monkeypatch):
    def mistake(*_, **__):
        raise TypeError("wrong argument")

    monkeypatch.setattr(steps, "correct_bias", mistake)
    with pytest.raises(TypeError):
        prepare_cohort(Cohort("one", "", [write_case("a")]), tmp_path / "cases", settings)


def test_a_full_disk_stops_at_the_first_case_and_is_no_fault_of_its_image(write_case, settings, tmp_path):
    cases, folder = [write_case(name) for name in "ab"], tmp_path / "cases"
    (folder / "a").mkdir(parents=True)
    # takes nothing: every write fails as on a full disk
    (folder / "a" / f".{os.getpid()}@{MACHINE}_image.npy").symlink_to("/dev/full")
    with pytest.raises(OSError, match="no disk space is left to write this file") as error:
        prepare_cohort(Cohort("full", "", cases), folder, settings)
    assert error.value.errno == errno.ENOSPC
    assert error.value.filename == str(folder / "a/image.npy")
    assert not (folder / "b").exists()
    assert prepare_cohort(Cohort("room again", "", cases), folder, settings).problems == []


def test_an_image_that_may_not_be_read_does_not_stop_the_others(write_case, settings, tmp_path, monkeypatch):
    good, bad = write_case("good"), write_case("bad")

    def forbidden(case):
        if case.name == "bad":
            raise PermissionError(errno.EACCES, "Permission denied", str(bad.image))
        return read_images(case)

    monkeypatch.setattr(steps, "read_images", forbidden)
    prepared = prepare_cohort(Cohort("two", "", [bad, good]), tmp_path / "cases", settings)
    assert prepared.table["case"].tolist() == ["good"]
    assert "Permission denied" in prepared.problems[0].found


def test_a_case_with_fewer_sequences_than_the_others_is_named(write_case, settings, tmp_path):
    cases = [write_case(name) for name in "abc"]
    cases[:2] = [replace(case, images=(case.image, case.image)) for case in cases[:2]]
    prepared = prepare_cohort(Cohort("mixed", "", cases), tmp_path / "cases", settings)
    assert [(problem.case, problem.found) for problem in prepared.problems] == [("c", "1 sequence(s)")]
    assert prepared.table["case"].tolist() == ["a", "b"]


# What is handled


def test_an_empty_mask_is_a_patient_without_lesion(write_case, settings, tmp_path):
    case = write_case("healthy")
    rewrite(case.label, lambda array: 0 * array, np.uint8)
    row = prepare_case(case, tmp_path / "cases", settings, LesionRule())
    stored = open_case(tmp_path / "cases", "healthy")
    assert (row["lesions"], row["lesion_volume_mm3"], row["stored_volume_mm3"]) == (0, 0, 0)
    assert not stored.label.any()
    assert len(stored.lesion_voxels) == len(stored.lesion_boxes) == 0
    assert len(stored.head_voxels)


def test_an_oblique_volume_keeps_its_own_axes(write_case, settings, tmp_path):
    """The study grid is laid along the volume's axes: turned in space, the same voxels give the same arrays."""
    angle = np.deg2rad(20)
    turn = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    for name, rotation in (("straight", None), ("oblique", turn)):
        prepare_case(write_case(name, turn=rotation), tmp_path / "cases", settings, LesionRule())
    straight, oblique = (open_case(tmp_path / "cases", name) for name in ("straight", "oblique"))
    np.testing.assert_allclose(straight.image, oblique.image, atol=2e-3)
    np.testing.assert_array_equal(straight.label, oblique.label)
    turned = np.array(oblique.image_facts["native_affine"])[:3, :3]
    np.testing.assert_allclose(turned, turn, atol=1e-6)


def test_mirrored_axes_are_no_negative_spacing(write_case, settings, tmp_path):
    case = write_case("mirrored")
    for path in (case.image, case.label):
        image = nib.load(path)
        affine = image.affine @ np.diag([1, 1, -1, 1.0])
        affine[2, 3] = 0
        rewrite(path, lambda array: array, affine=affine)
    prepare_case(case, tmp_path / "cases", settings, LesionRule())
    assert open_case(tmp_path / "cases", "mirrored").grid.spacing_mm == (2.0, 2.0, 2.0)


# int16 overflow


def noisy_head(brightest, seed=0):
    away = np.linalg.norm(np.moveaxis(np.indices((20, 20, 20)), 0, -1) - 9.5, axis=-1)
    rng = np.random.default_rng(seed)
    return brightest * (away < 8) * rng.uniform(0.4, 0.9, away.shape) + rng.uniform(0, 50, away.shape)


def as_int16(array):
    return np.rint(array).astype(np.int64).astype(np.int16).astype(np.float32)


def overflows(case, array):
    problems = image_problems(case, "image.nii.gz", array)
    return [problem for problem in problems if problem.expected == "no int16 overflow"]


def test_wrapped_values_inside_the_head_are_found(write_case):
    image = noisy_head(36_000)
    image[9:12, 9:12, 9:12] = 50_000
    (problem,) = overflows(write_case("a"), as_int16(image))
    assert problem.severity == "error"
    assert "27 voxels with values down to -15536" in problem.found


@pytest.mark.parametrize(
    "image",
    [
        noisy_head(36_000),
        noisy_head(100) - 60,  # centred on its mean
        np.where(noisy_head(30_000) > 60, noisy_head(30_000), -32_768),  # padded
        np.random.default_rng(0).normal(0, 8_000, (20, 20, 20)).clip(-32_000, 32_000),  # noise around 0
        noisy_head(60_000),  # stored as float
    ],
    ids=["bright", "centred", "padded", "noise", "float"],
)
def test_no_other_image_is_taken_for_wrapped(write_case, image):
    assert not overflows(write_case("a"), image.astype(np.float32))


def test_a_real_volume_is_not_taken_for_wrapped(shared_data, write_case):
    for path in sorted((shared_data / "real_t1c/images").glob("*.nii.gz")):
        assert not overflows(write_case("a"), read_volume(path, path.name).array)


@pytest.mark.parametrize("codes", [(0, 0), (1, 0), (2, 1)], ids=["no place", "sform", "two places"])
def test_a_mask_of_a_stored_case_has_the_place_of_its_image_in_every_program(write_case, settings, tmp_path, codes):
    case = write_case("a")
    image = nib.load(case.image)
    placed = nib.Nifti1Image(np.asarray(image.dataobj), None)
    placed.set_sform(image.affine, codes[0])
    placed.set_qform(image.affine @ np.diag([1, -1, 1, 1]), codes[1])
    nib.save(placed, case.image)
    alone = replace(case, label=None)
    prepare_case(alone, tmp_path / "cases", settings, LesionRule())
    mask, stored = tmp_path / "mask.nii.gz", open_case(tmp_path / "cases", "a")
    write_volume(mask, stored.on_native(np.ones(stored.native.shape, np.uint8)))
    assert np.array_equal(nib.load(mask).affine, nib.load(case.image).affine)
    there, here = (sitk.ReadImage(str(path)) for path in (case.image, mask))
    for corner in ((0, 0, 0), (23, 23, 19)):
        expected = there.TransformIndexToPhysicalPoint(corner)
        assert here.TransformIndexToPhysicalPoint(corner) == pytest.approx(expected)
