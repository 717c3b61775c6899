"""Reading and writing NIfTI: every grid comes back as it was, and every damaged file is named."""

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from metaseg_nb.cohort.cases import Case
from metaseg_nb.cohort.checks import examine_headers
from metaseg_nb.cohort.problems import CohortError
from metaseg_nb.cohort.volumes import describe_grid, open_nifti, read_volume, same_grid, write_volume

SHAPE = (24, 22, 20)
THICK_MM = (0.8, 1.1, 6.5)
GRIDS = {
    "RAS": {},
    "LAS": {"axes": "LAS", "spacing_mm": THICK_MM},
    "LPS": {"axes": "LPS", "spacing_mm": THICK_MM},
    "RSA": {"axes": "RSA", "spacing_mm": THICK_MM},
    "SPL": {"axes": "SPL", "spacing_mm": (0.5, 0.6, 0.7)},
    "oblique": {
        "axes": "LPS",
        "spacing_mm": THICK_MM,
        "turn": Rotation.from_euler("xyz", [12, -17, 8], True).as_matrix(),
    },
}


@pytest.fixture
def array():
    return np.random.default_rng(1).uniform(0, 1000, SHAPE).astype(np.float32)


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
@pytest.mark.parametrize("ending", ["nii", "nii.gz"])
def test_a_file_that_is_read_and_written_is_the_same_file(write_nifti, tmp_path, array, grid, ending):
    source = write_nifti(f"in.{ending}", array, **grid)
    write_volume(tmp_path / f"out.{ending}", read_volume(source, "c"))
    before, after = nib.load(source), nib.load(tmp_path / f"out.{ending}")
    assert after.shape == before.shape
    np.testing.assert_allclose(after.affine, before.affine, atol=1e-4)
    np.testing.assert_array_equal(after.get_fdata(), before.get_fdata())


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_a_volume_that_no_file_holds_gets_both_forms_alike(write_nifti, tmp_path, array, grid):
    source = write_nifti("in.nii.gz", array, **grid)
    write_volume(tmp_path / "out.nii.gz", replace(read_volume(source, "c"), place=None))
    written = nib.load(tmp_path / "out.nii.gz")
    for form, code in (written.get_qform(coded=True), written.get_sform(coded=True)):
        assert code == 1
        np.testing.assert_allclose(form, nib.load(source).affine, atol=1e-3)


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_spacing_is_along_the_patients_axes_whatever_the_files_order(write_nifti, array, grid):
    volume = read_volume(write_nifti("in.nii.gz", array, **grid), "c")
    assert volume.array.shape == SHAPE
    assert volume.spacing_mm == pytest.approx(grid.get("spacing_mm", (1, 1, 1)), abs=1e-5)
    assert volume.native_axes == grid.get("axes", "RAS")


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_a_voxel_stays_at_its_place_in_the_world(write_nifti, grid):
    array = np.zeros(SHAPE, np.float32)
    array[3, 17, 11] = 1
    source = write_nifti("in.nii.gz", array, **grid)
    image, volume = nib.load(source), read_volume(source, "c")
    assert np.argwhere(volume.array).tolist() == [[3, 17, 11]]
    in_file = nib.affines.apply_affine(image.affine, np.argwhere(image.get_fdata())[0])
    np.testing.assert_allclose(nib.affines.apply_affine(volume.affine, [3, 17, 11]), in_file, atol=1e-4)
    if "turn" not in grid:
        expected = np.array([-12.0, 7, 30]) + np.array([3, 17, 11]) * volume.spacing_mm
        np.testing.assert_allclose(in_file, expected, atol=1e-4)


def test_slope_and_intercept_of_the_file_are_applied(tmp_path):
    image = nib.Nifti1Image(np.full(SHAPE, 3, np.int16), np.eye(4))
    image.header.set_slope_inter(2.0, 10.0)
    nib.save(image, tmp_path / "scaled.nii.gz")
    assert np.unique(read_volume(tmp_path / "scaled.nii.gz", "c").array).tolist() == [16.0]


@pytest.mark.parametrize(
    ("other", "same"),
    [
        ({}, True),
        ({"origin_mm": (-12.004, 7.0, 30.0)}, True),
        ({"origin_mm": (-11.0, 7.0, 30.0)}, False),
        ({"spacing_mm": (1.0, 1.0, 1.001)}, False),
        ({"axes": "LAS"}, True),
    ],
    ids=["same", "rounded", "one voxel off", "spacing", "flipped axis"],
)
def test_same_grid_means_every_corner_at_one_place(write_nifti, array, other, same):
    first, second = nib.load(write_nifti("a.nii.gz", array)), nib.load(write_nifti("b.nii.gz", array, **other))
    assert same_grid(first, second) is same
    assert same_grid(second, first) is same


def test_grids_that_differ_by_little_are_not_described_alike(write_nifti, array):
    image = write_nifti("a.nii.gz", array)
    label = write_nifti("b.nii.gz", array, origin_mm=(-12.02, 7.0, 30.0))
    first, second = open_nifti(image, "c"), open_nifti(label, "c")
    assert describe_grid(second, first) == f"{describe_grid(second)}, up to 0.02 mm away"
    problems = examine_headers(Case("c", (image,), label, "p", "lung"))[1]
    assert any(problem.found.startswith("up to 0.02 mm away from the image: shape") for problem in problems)


def test_same_grid_is_false_for_another_shape(write_nifti, array):
    first, second = write_nifti("a.nii.gz", array), write_nifti("b.nii.gz", array[:-1])
    assert not same_grid(read_volume(first, "c"), read_volume(second, "c"))


def test_axes_in_another_order_are_the_same_grid(write_nifti, array):
    first, second = write_nifti("a.nii.gz", array), write_nifti("b.nii.gz", array, axes="SPL")
    assert same_grid(nib.load(first), nib.load(second))
    assert same_grid(read_volume(first, "c"), read_volume(second, "c"))


def damage_header(path, offset, content):
    raw = bytearray(path.read_bytes())
    raw[offset : offset + len(content)] = content
    path.write_bytes(bytes(raw))


def without_slices(write, array):
    path = write("bad.nii.gz", array)
    path.write_bytes(path.read_bytes()[:-4000])
    return path


def flipped_byte(write, array):
    path = write("bad.nii.gz", array)
    middle = path.stat().st_size // 2
    damage_header(path, middle, bytes([path.read_bytes()[middle] ^ 0xFF]))
    return path


def text(ending):
    def write_text(write, array):
        path = write(f"bad.{ending}", array)
        path.write_text("see the other folder\n" * 100)
        return path

    return write_text


def header(offset, content):
    def write_header(write, array):
        path = write("bad.nii", array)
        damage_header(path, offset, content)
        return path

    return write_header


def nifti2(write, array):
    path = write("bad.nii", array)
    nib.save(nib.Nifti2Image(array, np.eye(4)), path)
    damage_header(path, 168, bytes(8))
    return path


def voxels_of_a_pair(write, array):
    path = write("bad.nii", array).with_suffix(".img")
    nib.save(nib.Nifti1Pair(array, np.eye(4)), path)
    return path


def empty(write, array):
    path = write("bad.nii.gz", array)
    path.write_bytes(b"")
    return path


def missing(write, array):
    path = write("bad.nii.gz", array)
    path.unlink()
    return path


def with_value(value):
    def write_value(write, array):
        array = array.copy()
        array[4, 5, 6] = value
        return write("bad.nii.gz", array)

    return write_value


def four_dimensional(write, array):
    path = write("bad.nii.gz", array)
    nib.save(nib.Nifti1Image(np.stack([array, array], axis=-1), np.eye(4)), path)
    return path


FAULTS = {
    "missing": (missing, "no such file"),
    "empty": (empty, "0 bytes"),
    "truncated": (without_slices, "unreadable"),
    "damaged": (flipped_byte, "unreadable"),
    "text as .nii.gz": (text("nii.gz"), "a file named .gz that is not gzip"),
    "text as .nii": (text("nii"), "unreadable"),
    "unknown data type": (header(70, b"\x09\x27"), "unreadable"),
    "negative size": (header(42, b"\xff\xff"), "shape (-1, 22, 20)"),
    "size 0": (header(42, b"\x00\x00"), "shape (0, 22, 20)"),
    "affine of zeros": (header(280, bytes(48)), "affine [[0.0, 0.0, 0.0, 0.0]"),
    "voxels in the header": (header(108, bytes(4)), "voxels from byte 0 on (vox_offset)"),
    "voxels in the longer header": (nifti2, "voxels from byte 0 on (vox_offset)"),
    "voxels at byte 348": (header(108, np.float32(348).tobytes()), "vox offset 348"),
    "the .img of a pair": (voxels_of_a_pair, "half of a pair (.hdr and .img)"),
    "4D": (four_dimensional, "4D, shape (24, 22, 20, 2)"),
    "NaN": (with_value(np.nan), "1 NaN or infinite voxels"),
    "infinite": (with_value(-np.inf), "1 NaN or infinite voxels"),
}


@pytest.mark.parametrize(("fault", "found"), FAULTS.values(), ids=FAULTS)
def test_a_bad_file_is_named_with_its_case_and_what_is_wrong(write_nifti, array, fault, found):
    path = fault(write_nifti, array)
    with pytest.raises(CohortError) as error:
        read_volume(path, "case_7")
    assert len(error.value.problems) == 1
    problem = error.value.problems[0]
    assert (problem.case, problem.file) == ("case_7", str(path))
    assert found in problem.found
    assert str(problem) in str(error.value)


def test_a_path_to_nothing_is_to_be_corrected_wherever_it_stands(tmp_path):
    with pytest.raises(CohortError) as error:  # in a list, or on the command line
        open_nifti(tmp_path / "gone.nii.gz", "c")
    assert [problem.fix for problem in error.value.problems] == ["correct the path"]


def test_headers_alone_tell_4d_from_3d(write_nifti, array):
    path = four_dimensional(write_nifti, array)
    with pytest.raises(CohortError, match="4D"):
        open_nifti(path, "c")


@pytest.mark.parametrize("there", [False, True], ids=["new", "replaced"])
def test_an_interrupted_write_leaves_what_was_there(write_nifti, tmp_path, array, monkeypatch, there):
    volume = read_volume(write_nifti("in.nii.gz", array), "c")
    folder = tmp_path / "out"
    if there:
        write_volume(folder / "mask.nii.gz", volume)
    before = {path.name: path.read_bytes() for path in folder.glob("*")}

    def stop_half_way(image, path):
        path.write_bytes(b"\x1f\x8b half a file")
        raise KeyboardInterrupt

    monkeypatch.setattr(nib, "save", stop_half_way)
    with pytest.raises(KeyboardInterrupt):
        write_volume(folder / "mask.nii.gz", volume)
    assert {path.name: path.read_bytes() for path in folder.glob("*")} == before
