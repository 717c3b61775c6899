"""NIfTI files of every kind: read as SimpleITK reads them, written back at their place, or refused with the reason."""

import gzip
import struct
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from metaseg_nb.cohort import nifti_files
from metaseg_nb.cohort.cases import Case, LesionRule
from metaseg_nb.cohort.checks import header_problems
from metaseg_nb.cohort.examination import examine
from metaseg_nb.cohort.nifti_files import free_memory, open_nifti
from metaseg_nb.cohort.problems import CohortError
from metaseg_nb.cohort.volumes import read_volume, write_volume

SHAPE = (6, 7, 8)
AFFINE = np.array([[0, -1.5, 0, 10], [2, 0, 0, -20], [0, 0, 3, 5], [0, 0, 0, 1.0]])
FIELDS = {"dim0": 40, "datatype": 70, "pixdim": 76, "slope": 112, "units": 123, "qform_code": 252, "sform_code": 254}
FIELDS |= {"quaternion": 256, "sform_x": 280}


@pytest.fixture
def array():
    return np.random.default_rng(0).integers(0, 1000, SHAPE).astype(np.int16)


@pytest.fixture
def write(tmp_path, array):
    """Write an image with both forms at one place; ``fields`` are written into its header as they are given."""

    def save(name="image.nii", values=None, kind=nib.Nifti1Image, sform=1, qform=1, **fields):
        image = kind(array if values is None else values, None)
        image.set_qform(AFFINE, qform)
        image.set_sform(AFFINE, sform)
        raw = bytearray(image.to_bytes())
        for field, content in fields.items():
            raw[FIELDS[field] : FIELDS[field] + len(content)] = content
        path = tmp_path / name
        path.write_bytes(gzip.compress(bytes(raw)) if name.endswith(".gz") else bytes(raw))
        return path

    return save


def refused(path):
    with pytest.raises(CohortError) as error:
        read_volume(path, "case_7")
    (problem,) = error.value.problems
    assert (problem.case, problem.file) == ("case_7", str(path))
    return problem


def said(path):
    case = Case("a", (path,), None, "a", "unknown")
    return [problem.found for problem in header_problems(case, str(path), open_nifti(path, "a"))]


def corners_in_itk(path):
    image = sitk.ReadImage(str(path))
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in SHAPE])).reshape(3, -1).T
    return np.array([image.TransformIndexToPhysicalPoint(corner.tolist()) for corner in corners])


def corners_here(path):
    """In the frame of ITK, whose first two axes grow the other way."""
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in SHAPE])).reshape(3, -1).T
    return nib.affines.apply_affine(open_nifti(path, "a").affine, corners) * [-1, -1, 1]


# Damage


@pytest.mark.parametrize("place", [0.4, 0.6, 0.9])
def test_a_flipped_bit_in_a_gzip_file_is_found_by_its_checksum(tmp_path, array, place):
    whole = gzip.compress(nib.Nifti1Image(array, AFFINE).to_bytes(), compresslevel=0)  # unpacks without an error
    hurt = bytearray(whole)
    hurt[int(place * len(hurt))] ^= 1
    path = tmp_path / "image.nii.gz"
    path.write_bytes(hurt)
    assert "CRC check failed" in refused(path).found
    path.write_bytes(whole)
    np.testing.assert_array_equal(np.sort(read_volume(path, "a").array, None), np.sort(array, None))


@pytest.mark.parametrize("cut", [1, 4, 8, 9, 100])
def test_a_gzip_file_without_its_end_is_refused(write, cut):
    path = write("image.nii.gz")
    path.write_bytes(path.read_bytes()[:-cut])
    assert "unreadable" in refused(path).found


def test_gzip_files_in_several_members_or_padded_with_zeros_are_whole(write, tmp_path):
    raw, path = write("image.nii").read_bytes(), tmp_path / "members.nii.gz"
    path.write_bytes(b"".join(gzip.compress(raw[i : i + 200]) for i in range(0, len(raw), 200)) + bytes(64))
    expected = read_volume(tmp_path / "image.nii", "a")
    np.testing.assert_array_equal(read_volume(path, "a").array, expected.array)


def test_garbage_behind_a_gzip_file_is_damage(write):
    path = write("image.nii.gz")
    path.write_bytes(path.read_bytes() + b"garbage")
    assert "unreadable" in refused(path).found


@pytest.mark.parametrize("name", ["image.nii", "image.nii.gz"])
def test_a_file_with_more_slices_than_its_header_says_is_refused(write, name):
    n = np.int16(SHAPE[2] - 2).tobytes()
    assert "more voxels than the shape (6, 7, 6)" in refused(write(name, dim0=struct.pack("<3h", 3, 6, 7) + n)).found


def test_a_few_bytes_behind_the_voxels_are_padding(write, array):
    path = write("image.nii")
    before = read_volume(path, "a").array
    path.write_bytes(path.read_bytes() + bytes(16))
    np.testing.assert_array_equal(read_volume(path, "a").array, before)


def test_a_file_shorter_than_its_header_says_is_refused_by_its_header(write):
    path = write("image.nii")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CohortError, match=r"1023 bytes, but a header with shape \(6, 7, 8\), which takes 1024 bytes"):
        open_nifti(path, "a")


# Size


@pytest.mark.parametrize("name", ["image.nii", "image.nii.gz"])
def test_a_header_that_claims_more_than_the_file_can_hold_is_refused_unread(write, name):
    path = write(name, dim0=struct.pack("<4h", 3, 30000, 30000, 30000))
    assert "but a header with shape (30000, 30000, 30000)" in refused(path).found


def test_a_volume_larger_than_the_memory_is_refused_unread(tmp_path, monkeypatch):
    path = tmp_path / "zeros.nii.gz"
    nib.save(nib.Nifti1Image(np.zeros((100, 100, 100), np.int16), np.eye(4)), path)
    monkeypatch.setattr(nifti_files, "free_memory", lambda: 17_999_999)
    with pytest.raises(CohortError, match=r"takes 0.018 GB of memory; 0.018 GB are free"):
        open_nifti(path, "a")
    monkeypatch.setattr(nifti_files, "free_memory", lambda: 18_000_000)
    assert read_volume(path, "a").array.shape == (100, 100, 100)


def test_memory_that_runs_out_on_reading_is_a_problem_of_the_case(write, monkeypatch):
    def full(*_, **__):
        raise MemoryError("no room")

    path = write()
    monkeypatch.setattr(np, "asanyarray", full)
    problem = refused(path)
    assert "MemoryError" in problem.found
    assert "free memory" in problem.fix


def test_the_limit_of_a_job_counts_without_the_pages_of_files(tmp_path):
    job = tmp_path / "groups/slurm/job_1"
    (job / "task_0").mkdir(parents=True)
    (job / "memory.max").write_text("3000\n")
    (job / "memory.stat").write_text("anon 1000\nfile 1900\n")
    (job / "task_0/memory.max").write_text("max\n")
    process = tmp_path / "cgroup"
    process.write_text("0::/slurm/job_1/task_0\n")
    assert free_memory(tmp_path / "groups", process) == 2000
    assert free_memory(tmp_path / "none", tmp_path / "nothing") > 10**8


# Other kinds


def saved_by_itk(ending):
    def save(folder):
        path = folder / f"image{ending}"
        sitk.WriteImage(sitk.GetImageFromArray(np.ones((6, 6, 6), np.uint16)), str(path))
        return path

    return save


def saved_by_nibabel(kind, name, **more):
    def save(folder):
        kind(np.ones((6, 6, 6), np.int16), np.diag([-1.0, 1, 1, 1]), **more).to_filename(folder / name)
        return folder / name

    return save


def of_bytes(name, content):
    def save(folder):
        (folder / name).write_bytes(content)
        return folder / name

    return save


def dicom(name, uid=b"", start=bytes(128) + b"DICM"):
    return of_bytes(name, start + b"\2\0\0\0UL\4\0" + bytes(8) + uid + bytes(500))


def dicom_folder(folder):
    (folder / "series").mkdir()
    (folder / "series/.DS_Store").write_bytes(b"\0\0\0\1Bud1")
    dicom("series/1.dcm")(folder)
    return folder / "series"


STRUCTURE_SET, SEGMENTATION = b"1.2.840.10008.5.1.4.1.1.481.3", b"1.2.840.10008.5.1.4.1.1.66.4"
KINDS = {
    "dicom": (dicom("slice.dcm"), "a DICOM file", "dcm2niix"),
    "dicom by SimpleITK": (saved_by_itk(".dcm"), "a DICOM file", "dcm2niix"),
    "dicom named nifti": (dicom("image.nii"), "a DICOM file", "dcm2niix"),
    "dicom without preamble": (dicom("slice", start=b"\x08\0\5\0CS\n\0ISO_IR 100"), "a DICOM file", "dcm2niix"),
    "structure set": (dicom("rs.dcm", STRUCTURE_SET), "a DICOM structure set (RTSTRUCT)", "plastimatch"),
    "segmentation": (dicom("seg.dcm", SEGMENTATION), "a DICOM segmentation (SEG)", "3D Slicer"),
    "folder of dicom": (dicom_folder, "a folder of DICOM files", "dcm2niix"),
    "folder": (lambda folder: folder, "a folder", ".nii"),
    "nrrd": (saved_by_itk(".nrrd"), "an NRRD file", "SimpleITK"),
    "mha": (saved_by_itk(".mha"), "a MetaImage file", "SimpleITK"),
    "mhd": (saved_by_itk(".mhd"), "a MetaImage file", "SimpleITK"),
    "mgh": (saved_by_nibabel(nib.MGHImage, "image.mgh"), "no NIfTI header", "export it again"),
    "analyze header": (saved_by_nibabel(nib.AnalyzeImage, "image.hdr"), "half of a pair", "if it is Analyze"),
    "analyze voxels": (saved_by_nibabel(nib.AnalyzeImage, "image.img"), "half of a pair", "if it is Analyze"),
    "pair": (saved_by_nibabel(nib.Nifti1Pair, "image.hdr"), "half of a pair", "one NIfTI file"),
    "pair, NIfTI-2": (saved_by_nibabel(nib.Nifti2Pair, "image.hdr"), "half of a pair", "one NIfTI file"),
    "zip": (of_bytes("image.zip", b"PK\3\4" + bytes(600)), "an archive", "unpack"),
    "packed twice": (of_bytes("a.nii.gz", gzip.compress(gzip.compress(b"n"))), "compressed twice", "unpack"),
    "companion": (of_bytes("._a.nii.gz", b"\0\5\x16\7" + bytes(600)), "a macOS companion file", "without ._"),
    "page": (of_bytes("image.nii.gz", b"<!DOCTYPE html><p>Log in"), "a web page", "log in"),
    "lfs": (
        of_bytes("image.nii.gz", b"version https://git-lfs.github.com/spec/v1"),
        "a pointer instead of the file",
        "git lfs pull",
    ),
    "words": (of_bytes("image.nii", b"see the other folder"), "no NIfTI header", "export it again"),
    "plain as gz": (lambda folder: renamed(folder, "nii", "nii.gz"), "a file named .gz that is not gzip", "to .nii"),
    "gz as plain": (lambda folder: renamed(folder, "nii.gz", "nii"), "a gzip file named .nii", "to .nii.gz"),
}


def renamed(folder, ending, other):
    nib.save(nib.Nifti1Image(np.ones((6, 6, 6), np.int16), np.eye(4)), folder / f"in.{ending}")
    return (folder / f"in.{ending}").rename(folder / f"out.{other}")


@pytest.mark.parametrize(("save", "found", "fix"), KINDS.values(), ids=KINDS)
def test_a_file_of_another_kind_is_named_with_the_way_on(tmp_path, write_case, save, found, fix):
    path = save(tmp_path)
    problem = refused(path)
    assert found in problem.found
    assert fix in problem.fix
    case = write_case("a")
    assert found in "".join(p.found for p in examine(replace(case, images=(path,)), LesionRule()).problems)
    assert found in "".join(p.found for p in examine(replace(case, label=path), LesionRule()).problems)


def test_a_link_to_a_file_without_an_ending_counts_by_its_own_name(write, tmp_path):
    target = write("image.nii.gz").rename(tmp_path / "5d41402abc4b2a76")
    link = tmp_path / "linked.nii.gz"
    link.symlink_to(target)
    np.testing.assert_array_equal(read_volume(link, "a").array, read_volume(target, "a").array)


# Numbers

DTYPES = ["u1", "i1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale", [None, (0.5, -3.0)], ids=["plain", "scaled"])
def test_every_type_of_number_is_read_as_by_simpleitk(tmp_path, array, order, dtype, scale):
    values = (array % 120).astype(order + dtype)
    header = nib.Nifti1Header(endianness=order)
    header.set_data_dtype(values.dtype)
    image = nib.Nifti1Image(values, np.eye(4), header)
    image.header.set_slope_inter(*(scale or (1.0, 0.0)))
    raw = bytearray(image.to_bytes())
    if scale:  # the numbers as they are stored, whatever nibabel makes of them
        raw[352:] = values.tobytes(order="F")
        raw[112:120] = struct.pack(f"{order}2f", *scale)
    path = tmp_path / "image.nii"
    path.write_bytes(raw)
    read, in_itk = read_volume(path, "a").array, sitk.GetArrayFromImage(sitk.ReadImage(str(path))).T
    np.testing.assert_allclose(read, in_itk, rtol=1e-6)
    slope, inter = scale or (1.0, 0.0)
    np.testing.assert_allclose(read, (array % 120) * slope + inter, rtol=1e-6)


@pytest.mark.parametrize("slope", [0.0, np.nan])
def test_a_slope_that_is_none_scales_nothing(write, array, slope):
    path = write(slope=struct.pack("<2f", slope, 0.0))
    np.testing.assert_array_equal(np.sort(read_volume(path, "a").array, None), np.sort(array, None))


@pytest.mark.parametrize("scale", [(np.inf, 0.0), (-np.inf, 2.0), (0.0, 7.0), (1e-30, 0.0)])
def test_a_scale_without_a_meaning_is_refused(write, scale):
    with pytest.raises(CohortError, match="a scale that programs read differently"):
        read_volume(write(slope=struct.pack("<2f", *scale)), "a")


NOT_NUMBERS = {
    "complex64": (np.complex64(3 + 4j), "complex numbers", "magnitude"),
    "complex128": (np.complex128(3 + 4j), "complex numbers", "magnitude"),
    "RGB": (np.zeros((), [("R", "u1"), ("G", "u1"), ("B", "u1")]), "colours", "values"),
    "RGBA": (np.zeros((), [("R", "u1"), ("G", "u1"), ("B", "u1"), ("A", "u1")]), "colours", "values"),
}


@pytest.mark.parametrize(("value", "found", "fix"), NOT_NUMBERS.values(), ids=NOT_NUMBERS)
def test_what_is_no_volume_of_numbers_is_refused(write, value, found, fix):
    problem = refused(write(values=np.full(SHAPE, value)))
    assert found in problem.found
    assert fix in problem.fix


@pytest.mark.parametrize(("code", "found"), [(1, "unreadable"), (0, "unreadable")])
def test_a_data_type_that_nobody_reads_is_refused(write, code, found):
    assert found in refused(write(values=np.zeros((6, 7, 200), np.int16), datatype=struct.pack("<h", code))).found


@pytest.mark.parametrize("more", [(1,), (1, 1), (1, 1, 1)])
def test_one_time_point_is_a_volume(write, array, more):
    read = read_volume(write(values=array.reshape(*SHAPE, *more)), "a")
    np.testing.assert_array_equal(np.sort(read.array, None), np.sort(array, None))
    assert read.array.ndim == 3


@pytest.mark.parametrize("shape", [(6, 7), (6, 7, 8, 2), (6, 7, 8, 1, 3)])
def test_what_is_not_one_volume_is_refused(write, shape):
    problem = refused(write(values=np.zeros(shape, np.int16)))
    assert (problem.found, problem.expected) == (f"{len(shape)}D, shape {shape}", "one 3D volume")


# Places


@pytest.mark.parametrize("unit", ["unknown", "mm", "meter", "micron"])
@pytest.mark.parametrize("codes", [(1, 1), (0, 1), (1, 0)])
def test_lengths_are_read_in_the_units_of_the_file(tmp_path, array, unit, codes):
    factor = {"meter": 1e-3, "micron": 1e3}.get(unit, 1.0)
    image = nib.Nifti1Image(array, None)
    image.set_qform(np.diag([factor, factor, factor, 1.0]) @ AFFINE, codes[0])
    image.set_sform(np.diag([factor, factor, factor, 1.0]) @ AFFINE, codes[1])
    image.header.set_xyzt_units(unit)
    path = tmp_path / "image.nii.gz"
    nib.save(image, path)
    volume = read_volume(path, "a")
    assert volume.spacing_mm == pytest.approx((1.5, 2, 3), rel=1e-6)
    np.testing.assert_allclose(corners_here(path), corners_in_itk(path), atol=1e-3)
    assert said(path) == []
    write_volume(tmp_path / "mask.nii.gz", replace(volume, array=(volume.array > 500).astype(np.uint8)))
    np.testing.assert_allclose(corners_in_itk(tmp_path / "mask.nii.gz"), corners_in_itk(path), atol=1e-3)
    np.testing.assert_allclose(nib.load(tmp_path / "mask.nii.gz").affine, nib.load(path).affine, rtol=1e-6)


def shifted(millimetres):
    return struct.pack("<3f", *(AFFINE[:3, 3] + millimetres))


PLACES = {
    "sform": ({"qform": 0}, []),
    "qform": ({"sform": 0}, []),
    "both": ({}, []),
    "no place": ({"sform": 0, "qform": 0}, ["sform and qform codes of 0"]),
    "qform elsewhere": ({"quaternion": bytes(12) + shifted(5.0)}, ["sform and qform up to"]),
    "sform to a template": ({"sform": 4, "quaternion": bytes(12) + shifted(5.0)}, ["sform and qform up to"]),
    "other edges": ({"qform": 0, "pixdim": struct.pack("<4f", 1, 1, 1, 1)}, ["voxel edges (pixdim 1x1x1) up to"]),
    "negative edge": ({"qform": 0, "pixdim": struct.pack("<4f", 1, -2, 1.5, 3)}, ["(pixdim -2x1.5x3) up to"]),
    "no rotation": ({"quaternion": struct.pack("<3f", 0.9, 0.9, 0.9)}, ["sform and qform without a valid position"]),
}


@pytest.mark.parametrize(("header", "found"), PLACES.values(), ids=PLACES)
def test_a_mask_lies_on_its_image_in_every_program_and_disagreement_is_said(write, tmp_path, header, found):
    path = write(**header)
    mask = tmp_path / "mask.nii.gz"
    volume = read_volume(path, "a")
    marked = np.zeros(volume.array.shape, np.uint8)
    marked[1, 2, 3] = 1
    write_volume(mask, replace(volume, array=marked))
    np.testing.assert_allclose(corners_in_itk(mask), corners_in_itk(path), atol=1e-4)
    before, after = nib.load(path), nib.load(mask)
    np.testing.assert_array_equal(after.affine, before.affine)
    for field in ("pixdim", "sform_code", "qform_code", "xyzt_units", "srow_x", "quatern_b", "qoffset_x"):
        np.testing.assert_array_equal(after.header[field], before.header[field])
    assert after.get_data_dtype() == np.uint8
    # the marked voxel is the one of the image
    native = tuple(np.argwhere(np.asarray(after.dataobj))[0])
    assert np.asarray(before.dataobj)[native] == volume.array[1, 2, 3]
    texts = said(path)
    assert len(texts) == len(found)
    assert all(words in text for words, text in zip(found, texts, strict=True))
    if not found:
        np.testing.assert_allclose(corners_here(path), corners_in_itk(path), atol=1e-3)


def test_the_place_of_a_nifti_2_file_is_kept_too(write, tmp_path):
    path = write(kind=nib.Nifti2Image, sform=3, qform=2)
    volume = read_volume(path, "a")
    write_volume(tmp_path / "mask.nii", replace(volume, array=(volume.array > 500).astype(np.uint8)))
    before, after = nib.load(path), nib.load(tmp_path / "mask.nii")
    np.testing.assert_allclose(after.affine, before.affine, rtol=1e-6)
    assert (after.header["sform_code"], after.header["qform_code"]) == (3, 2)


BROKEN = {
    "unknown code": {"sform_code": struct.pack("<h", 77)},
    "negative code": {"qform_code": struct.pack("<h", -1)},
    "no edge": {"sform": 0, "pixdim": struct.pack("<4f", 1, 0, 1.5, 3)},
    "negative edge of a qform": {"sform": 0, "pixdim": struct.pack("<4f", 1, -2, 1.5, 3)},
    "flat": {"qform": 0, "sform_code": struct.pack("<h", 1), "quaternion": bytes(72)},
    "not a number": {"pixdim": struct.pack("<4f", 1, np.nan, 1.5, 3), "sform": 0},
    "endless": {"quaternion": bytes(24) + struct.pack("<f", np.inf)},
    "an origin of nowhere": {"sform_x": struct.pack("<4f", 0, -1.5, 0, 1e30)},
    "an origin of nowhere by the qform": {"sform": 0, "quaternion": bytes(12) + struct.pack("<f", -1e30)},
    "endless edge": {"sform": 0, "pixdim": struct.pack("<4f", 1, np.inf, 1.5, 3)},
    "huge edge": {"sform": 0, "pixdim": struct.pack("<4f", 1, 2, 1e30, 3)},
    "tiny edge": {"sform": 0, "pixdim": struct.pack("<4f", 1, 2, 1e-30, 3)},
    "no rotation": {"sform": 0, "quaternion": struct.pack("<3f", 0.9, 0.9, 0.9)},
    "shift without scale": {"slope": struct.pack("<2f", 0, -1)},
    "tiny scale": {"slope": struct.pack("<2f", 1e-30, 0)},
}


@pytest.mark.parametrize("header", BROKEN.values(), ids=BROKEN)
def test_a_header_without_a_sound_place_is_refused(write, header):
    refused(write(**header))


@pytest.mark.parametrize(("origin_mm", "sound"), [(9e5, True), (1.1e6, False)])
def test_an_image_lies_within_a_kilometre_of_the_origin(write, origin_mm, sound):
    path = write(sform_x=struct.pack("<4f", 0, -1.5, 0, origin_mm))
    if sound:
        assert open_nifti(path, "a").affine[0, 3] == np.float32(origin_mm)
    else:
        assert "within a kilometre" in refused(path).expected
