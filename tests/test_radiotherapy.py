"""DICOM in and out: series and structure sets as they come, contours to masks and back."""

import copy
import json
import locale
import os
import pickle
import re
import shutil
import subprocess
import tarfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pydicom
import pytest
import SimpleITK as sitk
import yaml
from conftest import tiny_file
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)
from scipy import ndimage
from scipy.spatial.transform import Rotation

from metaseg_nb.__main__ import main
from metaseg_nb.annotation.by_hand import Beginning, open_reading
from metaseg_nb.cohort.cases import Case
from metaseg_nb.cohort.problems import CohortError
from metaseg_nb.cohort.volumes import read_volume
from metaseg_nb.layout import PARAMS, StudyLayout
from metaseg_nb.radiotherapy import exporting
from metaseg_nb.radiotherapy.contours import even_odd, plane_distance, rasterise, trace
from metaseg_nb.radiotherapy.dicom_folder import describe_dicom, read_dicom
from metaseg_nb.radiotherapy.examinations import Choice
from metaseg_nb.radiotherapy.importing import import_dicom
from metaseg_nb.radiotherapy.round_trip import write_series
from metaseg_nb.radiotherapy.series import NO_SCAN, read_pixels
from metaseg_nb.radiotherapy.structure_sets import is_named, read_structure_set, write_segmentation, write_structure_set

SHAPE = (24, 20, 12)
AXIAL = np.array([[-0.8, 0, 0, 10], [0, -0.9, 0, 12], [0, 0, 2.0, -9], [0, 0, 0, 1]])


def turned(affine, *degrees):
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()
    return matrix @ affine


OBLIQUE = turned(AXIAL, 12, -20, 7)
# columns run to the back, rows down, slices from left to right
SAGITTAL = np.array([[0, 0, 1.5, -10], [-0.8, 0, 0, 12], [0, -0.8, 0, 30], [0, 0, 0, 1.0]])


def codes(kind, names):
    return {name: f"{kind}_{number:04d}" for number, name in enumerate(names, 1)}


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 900, SHAPE)


@pytest.fixture
def mask():
    mask = np.zeros(SHAPE, dtype=bool)
    mask[4:9, 5:11, 3:7] = True
    mask[6, 7, 4:6] = False  # a hole
    mask[15:18, 12:14, 8] = True
    return mask


@pytest.fixture
def published_plans(shared_data):
    """Structure sets that others published."""
    return shared_data / "radiotherapy"


def referenced_series(data):
    """The series that a structure set says it was drawn on."""
    return data.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence[0].RTReferencedSeriesSequence[0]


def a_patient(folder, image, mask=None, affine=AXIAL, patient="P1", **tags):
    """An MR series and, with a mask, a structure set of it."""
    write_series(folder / "mr", image, affine, patient, **tags)
    if mask is not None:
        (found,) = (found for found in read_dicom(folder / "mr").series if found.is_volume)
        write_structure_set(folder / "rs.dcm", {"GTV": mask}, found, "unet")
    return folder


def imported(folder, target, exclude=(), **choice):
    """The cases of an import by code: image, mask or None, problems of all."""
    datalist, problems, _ = import_dicom(folder, target / "imported", Choice(**choice), codes, exclude=exclude)
    cases = {}
    for place in sorted(path for path in datalist.parent.iterdir() if path.is_dir()):
        label = place / "label.nii.gz"
        cases[place.name] = nib.load(place / "image.nii.gz"), nib.load(label) if label.is_file() else None
    return cases, problems


def change(path, **tags):
    data = pydicom.dcmread(path)
    for name, value in tags.items():
        setattr(data, name, value)
    data.save_as(path, enforce_file_format=True)


# Contours


@settings(max_examples=60, deadline=None)
@given(arrays(bool, st.tuples(*[st.integers(1, 9)] * 3)), st.sampled_from([AXIAL, OBLIQUE, SAGITTAL]))
def test_a_mask_comes_back_from_its_contours_voxel_by_voxel(mask, affine):
    made = rasterise([np.round(points, 4) for _, points in trace(mask, affine)], mask.shape, affine)
    assert np.array_equal(made.mask, mask)


def test_a_contour_inside_another_is_a_hole_and_a_keyhole_is_one_too():
    outer = np.array([[0.5, 0.5], [8.5, 0.5], [8.5, 8.5], [0.5, 8.5]])
    inner = np.array([[3.5, 3.5], [5.5, 3.5], [5.5, 5.5], [3.5, 5.5]])
    keyhole = np.concatenate([outer, outer[:1], inner, inner[:1]])
    for outlines in ([outer, inner], [keyhole]):
        mask = even_odd(outlines, (10, 10))
        assert mask.sum() == 64 - 4
        assert not mask[4:6, 4:6].any()


def square(k, low=2.5, high=6.5):
    return np.array([[low, low, k], [high, low, k], [high, high, k], [low, high, k]])


def test_what_contours_cannot_be_drawn_is_counted():
    contours = [square(3), square(3), square(3)[:2], np.array([[1.0, 1, 3], [9, 1, 3], [9, 9, 7], [1, 9, 7]])]
    contours += [square(30), square(5, -4, 3.5)]
    made = rasterise(contours, (10, 10, 8), np.eye(4))
    assert made.counts == {"points": 1, "copies": 1, "across": 1, "outside": 1, "cut": 1}
    assert made.mask[:, :, 3].sum() == 16
    assert made.mask[:, :, 5].sum() == 16  # 0 to 3 of both axes


def test_a_plane_between_two_slices_is_drawn_on_the_nearest_and_its_distance_told():
    made = rasterise([square(2.4), square(3.4, 3.5, 5.5)], (10, 10, 8), np.diag([1, 1, 2.0, 1]))
    # k of the second is 1.7 and of the first 1.2, on slices 2 mm apart
    assert [made.mask[:, :, k].sum() for k in (1, 2)] == [16, 4]
    assert made.off_slice_mm == pytest.approx(0.6)


@pytest.mark.parametrize("shift", [0.5, 0.495, 0.505])
@pytest.mark.parametrize("noise", [0.0, 0.002, 0.01])
def test_planes_half_way_between_slices_leave_no_slice_out(shift, noise):
    rounded = np.random.default_rng(3).uniform(-noise, noise, 5)
    made = rasterise([square(k + shift + rounded[k]) for k in range(5)], (10, 10, 8), np.eye(4))
    assert [int(made.mask[:, :, k].sum()) for k in range(8)] == [0, 16, 16, 16, 16, 16, 0, 0]
    assert made.off_slice_mm == pytest.approx(0.5, abs=0.02)


def test_slices_between_planes_that_are_further_apart_take_the_nearest_plane():
    made = rasterise([square(0), square(3), square(6)], (10, 10, 8), np.eye(4), every=3.0)
    assert [int(made.mask[:, :, k].sum()) for k in range(8)] == [16] * 8
    assert plane_distance([square(0), square(3), square(9)], np.eye(4)) == 3
    assert plane_distance([square(0), square(1), square(9)], np.eye(4)) == 1


# Series


@pytest.mark.parametrize("affine", [AXIAL, OBLIQUE, SAGITTAL])
def test_a_series_is_read_on_its_own_grid_whatever_its_files_are_called(tmp_path, image, affine):
    write_series(tmp_path / "mr", image, affine, "P1")
    for number, path in enumerate(sorted((tmp_path / "mr").iterdir(), key=lambda path: hash(path.name))):
        path.rename(tmp_path / f"{number}.{'IMA' if number % 2 else 'x'}")
    (found,) = read_dicom(tmp_path).series
    assert np.array_equal(read_pixels(found.frames), image)
    np.testing.assert_allclose(found.affine_ras, affine, atol=1e-6)


@pytest.mark.parametrize("files", ["many", "one"])
@pytest.mark.parametrize("form", ["JPEG", "JPEG2000", RLELossless, JPEGLSLossless])
def test_a_compressed_series_is_read_with_the_slope_of_each_slice(tmp_path, image, form, files):
    write_series(tmp_path / "mr", image, AXIAL, "P1", PixelRepresentation=0)
    for k, path in enumerate(slices_of(tmp_path)):
        change(path, RescaleSlope=k + 1, RescaleIntercept=-k)
    if files == "one":
        in_one_file(tmp_path)
    spoken = locale.setlocale(locale.LC_ALL)
    for path in tmp_path.rglob("*.dcm"):
        compress(path, form)
    locale.setlocale(locale.LC_ALL, spoken)  # ITK's writer of compressed files changes it
    (found,) = read_dicom(tmp_path).series
    assert np.array_equal(read_pixels(found.frames), image * (np.arange(12) + 1) - np.arange(12))
    assert locale.setlocale(locale.LC_ALL) == spoken


def compress(path, form):
    """Compress the pixels of a file; pydicom writes no JPEG."""
    data = pydicom.dcmread(path)
    if form in (RLELossless, JPEGLSLossless):
        data.compress(form, generate_instance_uid=False)
    else:
        writer, packed = sitk.ImageFileWriter(), path.with_suffix(".packed")
        writer.UseCompressionOn()
        writer.SetCompressor(form)
        writer.SetFileName(str(packed))
        writer.SetImageIO("GDCMImageIO")
        writer.Execute(sitk.GetImageFromArray(data.pixel_array))
        data["PixelData"] = pydicom.dcmread(packed)["PixelData"]
        data.file_meta.TransferSyntaxUID = pydicom.dcmread(packed).file_meta.TransferSyntaxUID
        packed.unlink()
    assert data.file_meta.TransferSyntaxUID.is_compressed
    data.save_as(path, enforce_file_format=True)


def in_one_file(folder):
    """Put the slices of a series into an enhanced file with a frame each, in another order."""
    slices = [pydicom.dcmread(path) for path in sorted((folder / "mr").iterdir())]
    data = slices[0]
    shared, frames = pydicom.Dataset(), []
    measures, turn = pydicom.Dataset(), pydicom.Dataset()
    measures.PixelSpacing, measures.SliceThickness = data.PixelSpacing, data.SliceThickness
    turn.ImageOrientationPatient = data.ImageOrientationPatient
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [turn]
    order = np.random.default_rng(1).permutation(len(slices))
    for number in order:
        frame, place = pydicom.Dataset(), pydicom.Dataset()
        place.ImagePositionPatient = slices[number].ImagePositionPatient
        frame.PlanePositionSequence = [place]
        if "RescaleSlope" in slices[number]:
            values = pydicom.Dataset()
            values.RescaleSlope, values.RescaleIntercept = slices[number].RescaleSlope, slices[number].RescaleIntercept
            frame.PixelValueTransformationSequence = [values]
        frames.append(frame)
    data.SharedFunctionalGroupsSequence, data.PerFrameFunctionalGroupsSequence = [shared], frames
    data.NumberOfFrames = len(frames)
    data.PixelData = b"".join(slices[number].PixelData for number in order)
    of_slices = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness")
    for name in (*of_slices, "RescaleSlope", "RescaleIntercept"):
        data.pop(name, None)
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.4.1"
    shutil.rmtree(folder / "mr")
    data.save_as(folder / "multi.dcm", enforce_file_format=True)


def test_a_deflated_series_is_read_and_one_cut_off_is_named(tmp_path, image):
    write_series(tmp_path / "mr", image, AXIAL, "P1")
    for path in slices_of(tmp_path):
        data = pydicom.dcmread(path)
        data.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
        data.save_as(path, enforce_file_format=True)
    (found,) = read_dicom(tmp_path).series
    assert np.array_equal(read_pixels(found.frames), image)
    cut_off(tmp_path)
    ((_, problem),) = read_dicom(tmp_path).unread
    assert (problem.file, problem.found) == ("mr/0005.dcm (file 6 of 12)", "a file that cannot be read (error)")


def test_an_enhanced_multi_frame_series_is_read(tmp_path, image):
    write_series(tmp_path / "mr", image, OBLIQUE, "P1")
    in_one_file(tmp_path)
    (found,) = read_dicom(tmp_path).series
    assert np.array_equal(read_pixels(found.frames), image)
    np.testing.assert_allclose(found.affine_ras, OBLIQUE, atol=1e-6)


def slices_of(folder):
    return sorted((folder / "mr").iterdir())


def without_one(folder):
    slices_of(folder)[5].unlink()


def unevenly(folder):
    path = slices_of(folder)[5]
    x, y, z = pydicom.dcmread(path).ImagePositionPatient
    change(path, ImagePositionPatient=[x, y, z + 0.6])


def doubled_with_other_content(folder):
    path = folder / "again.dcm"
    shutil.copy(slices_of(folder)[5], path)
    data = pydicom.dcmread(path)
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4"
    data.PixelData = data.PixelData[::-1]
    data.save_as(path, enforce_file_format=True)


def doubled_and_damaged(folder):
    shutil.copy(slices_of(folder)[5], folder / "again.dcm")
    change(folder / "again.dcm", SOPInstanceUID="1.2.3.4", BitsStored=99)


def tilted(folder):
    for number, path in enumerate(slices_of(folder)):
        x, y, z = pydicom.dcmread(path).ImagePositionPatient
        change(path, ImagePositionPatient=[x, y + 0.2 * number, z])


def of_two_sizes(folder):
    change(slices_of(folder)[5], Rows=10, PixelData=b"\0\0" * 240)


def in_two_orientations(folder):
    change(slices_of(folder)[5], ImageOrientationPatient=[0, 1, 0, 1, 0, 0])


def cut_off(folder):
    path = slices_of(folder)[5]
    path.write_bytes(path.read_bytes()[:-200])


def without_a_whole_position(folder):
    change(slices_of(folder)[5], ImagePositionPatient=[1.0, 2.0])


def without_voxel_edges(folder):
    for path in slices_of(folder):
        change(path, PixelSpacing=None, Rows=None)


def of_flat_voxels(folder):
    for path in slices_of(folder):
        change(path, PixelSpacing=[0, 0])


def with_skewed_axes(folder):
    for path in slices_of(folder):
        change(path, ImageOrientationPatient=[1, 0, 0, 0.5, 0.86, 0])


def inverted_in_part(folder):
    for path in slices_of(folder)[5:]:
        change(path, PhotometricInterpretation="MONOCHROME1")


def one_slice(folder):
    for path in slices_of(folder)[1:]:
        path.unlink()


def the_same_slice_twice(folder):
    one_slice(folder)
    shutil.copy(slices_of(folder)[0], folder / "mr/again.dcm")
    change(folder / "mr/again.dcm", SOPInstanceUID="1.2.3.4")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (without_one, ["missing or uneven slices", "4.00 mm between z = -1.00 and 3.00 mm", "a slice every 2.00 mm"]),
        (unevenly, ["missing or uneven slices", "2.60 mm between z = -1.00 and 1.60 mm"]),
        (doubled_with_other_content, ["13 slices at 12 positions, with different content"]),
        (doubled_and_damaged, ["a slice that is there twice, file again.dcm (file 1 of 27): pixels that cannot be"]),
        (tilted, ["gantry tilt of 5.7 degrees"]),
        (of_two_sizes, ["slices of several Rows"]),
        (in_two_orientations, ["slices of several Image Orientation (Patient)"]),
        (cut_off, ["1 of 12 slices cut off, with fewer bytes of pixels", "mr/0005.dcm (file 6 of 26)"]),
        (without_a_whole_position, ["1 of 12 slices without Image Position (Patient)"]),
        (without_voxel_edges, ["12 of 12 slices without Pixel Spacing, Rows"]),
        (of_flat_voxels, ["voxels with an edge of 0 mm"]),
        (with_skewed_axes, ["not perpendicular"]),
        (inverted_in_part, ["slices of several Photometric Interpretation"]),
        (one_slice, ["one slice alone"]),
        (the_same_slice_twice, ["one slice alone"]),
    ],
)
def test_a_series_that_is_no_volume_is_an_error_that_says_why(tmp_path, image, mask, damage, words):
    a_patient(tmp_path / "export", image, mask)
    a_patient(tmp_path / "export" / "other", image, mask, patient="P2")
    damage(tmp_path / "export")
    cases, problems = imported(tmp_path / "export", tmp_path)
    assert list(cases) == ["examination_0002"]  # the other patient's
    (problem,) = (problem for problem in problems if problem.severity == "error")
    assert problem.case == "examination_0001"
    for word in words:
        assert word in problem.found + problem.expected
    shutil.rmtree(tmp_path / "export" / "other")
    with pytest.raises(CohortError, match="examination_0001"):
        imported(tmp_path / "export", tmp_path / "alone")


def test_what_is_no_scan_is_left_aside_and_listed(tmp_path, image, mask):
    a_patient(tmp_path, image, mask)
    about = {"ct": {"Modality": "CT"}} | {kind: {"ImageType": ["DERIVED", "PRIMARY", kind]} for kind in NO_SCAN}
    for number, (name, tags) in enumerate(about.items(), 3):
        own = {"SeriesInstanceUID": f"1.2.{number}", "SeriesDescription": f"{name} of it"}
        write_series(tmp_path / name, image[:, :, :2], AXIAL, "P1", **own, **tags)
    listed = describe_dicom(read_dicom(tmp_path))
    assert "ct of it (series 1, 2 slices, 2020)" in listed
    assert "not used: CT, not MR" in listed
    for kind in NO_SCAN:
        assert re.search(rf"{kind} of it .*not used: {kind.lower()}\n", listed)
    assert "P1" not in listed
    cases, problems = imported(tmp_path, tmp_path / "here")
    assert np.array_equal(np.asarray(cases["examination_0001"][0].dataobj), image)
    assert not [problem for problem in problems if problem.severity == "error"]


def test_copies_of_files_count_once(tmp_path, image, mask):
    a_patient(tmp_path, image, mask)
    shutil.copytree(tmp_path / "mr", tmp_path / "mr again")
    cases, problems = imported(tmp_path, tmp_path / "here")
    assert np.array_equal(np.asarray(cases["examination_0001"][0].dataobj), image)
    assert not problems


def test_a_slice_that_is_there_twice_is_taken_once_and_said_also_by_a_worker(tmp_path, image, mask):
    a_patient(tmp_path / "export", image, mask)
    shutil.copy(slices_of(tmp_path / "export")[5], tmp_path / "export/again.dcm")
    change(tmp_path / "export/again.dcm", SOPInstanceUID="1.2.3.4")
    cases, (problem,) = imported(tmp_path / "export", tmp_path)
    assert np.array_equal(np.asarray(cases["examination_0001"][0].dataobj), image)
    assert (problem.severity, problem.found) == ("note", "1 slices twice, with the same content")
    (series,) = read_dicom(tmp_path / "export").series
    (mended,) = pickle.loads(pickle.dumps(series)).mended
    assert str(mended) == str(series.mended[0])


@pytest.mark.parametrize(
    ("slope", "intercept", "voxel", "kind"),
    [
        (None, None, 500, "int"),
        ("2", None, 1000, "int"),
        (None, "-3", 497, "int"),
        ("0.5", "-3", 247, "int"),
        ("1e30", "0", 5e32, "float32"),
    ],
)
def test_grey_values_are_rescaled_and_none_is_wrapped(tmp_path, image, mask, slope, intercept, voxel, kind):
    a_patient(tmp_path, np.where(image % 2, image + 1, image), mask)
    for path in slices_of(tmp_path):
        change(path, RescaleSlope=slope, RescaleIntercept=intercept)
    (found,) = read_dicom(tmp_path / "mr").series
    read = read_pixels(found.frames)
    assert read[np.where(image % 2, image + 1, image) == 500] == pytest.approx(voxel)
    assert kind in str(read.dtype)


@pytest.mark.parametrize("colours", ["RGB", "MONOCHROME1"])
def test_images_in_colours_or_from_white_to_black_are_no_scan(tmp_path, image, mask, colours):
    a_patient(tmp_path, image, mask)
    n = 3 if colours == "RGB" else 1
    write_series(tmp_path / "sc", image, AXIAL, "P1", SeriesInstanceUID="1.2.3", SamplesPerPixel=n, PixelData=b"")
    for path in (tmp_path / "sc").iterdir():
        grey = (image[:, :, int(path.stem)].T // 8).astype(np.uint8)
        change(path, PhotometricInterpretation=colours, BitsAllocated=8, PixelData=np.repeat(grey, n).tobytes())
    assert f"not used: in colours, or from white to black ({colours})" in describe_dicom(read_dicom(tmp_path))
    cases, _ = imported(tmp_path, tmp_path / "here")
    assert np.array_equal(np.asarray(cases["examination_0001"][0].dataobj), image)


@pytest.mark.parametrize("again", [False, True])
def test_slices_that_are_cut_off_are_named_before_pixels_are_read(tmp_path, image, mask, again):
    folder = a_patient(tmp_path / "export" / "Hans", image, mask, PatientName="MUELLER^HANS")
    whole = slices_of(folder)[5]
    path = shutil.copy(whole, folder / "mr/Mueller.dcm") if again else whole
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CohortError) as error:
        imported(tmp_path / "export", tmp_path)
    (problem,) = (problem for problem in error.value.problems if "cut off" in problem.found)
    place = "…/mr/….dcm (file 13 of 14)" if again else "…/mr/0005.dcm (file 6 of 13)"
    assert problem.found.endswith(f"fewer bytes of pixels than their headers say: {place}")
    assert problem.fix == "copy these files again from the export"
    listed = describe_dicom(read_dicom(tmp_path / "export"))
    assert f"cannot be used: found 1 of {13 if again else 12} slices cut off" in listed
    assert not any(name in str(error.value) + listed for name in ("Hans", "Mueller"))


def test_pixels_that_cannot_be_decoded_name_their_file_and_compression_only_where_there_is_one(tmp_path, image, mask):
    for syntax, fix in ((JPEGLosslessSV1, ", without compression"), (ExplicitVRLittleEndian, "")):
        a_patient(tmp_path / "export", image, mask)
        damaged = pydicom.dcmread(slices_of(tmp_path / "export")[5])
        damaged.file_meta.TransferSyntaxUID, damaged.BitsStored = syntax, 99
        if syntax.is_compressed:
            damaged.PixelData = pydicom.encaps.encapsulate([b"no picture"])
        damaged.save_as(slices_of(tmp_path / "export")[5], enforce_file_format=True)
        with pytest.raises(CohortError) as error:
            imported(tmp_path / "export", tmp_path)
        (problem,) = error.value.problems
        assert problem.found.startswith("slice 6 of 12, file mr/0005.dcm (file 6 of 13): pixels that cannot be decoded")
        assert problem.fix == f"copy the file again from the export, or export the series again{fix}"


# Files


def empty(path):
    path.write_bytes(b"")


def of_noughts(path):
    path.write_bytes(bytes(path.stat().st_size))


def without_uid(path):
    change(path, SOPInstanceUID=None)


def cut_before_the_geometry(path):
    path.write_bytes(path.read_bytes()[:800])


def cut_before_the_pixels(path):
    path.write_bytes(path.read_bytes()[:1100])


def a_link_to_nothing(path):
    path.unlink()
    path.symlink_to("nowhere")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (empty, "an empty file"),
        (of_noughts, "called DICOM, and does not begin as one"),
        (without_uid, "a DICOM file without SOPInstanceUID"),
        (cut_before_the_geometry, "a DICOM file without StudyInstanceUID, SeriesInstanceUID"),
        (cut_before_the_pixels, "an MR image that ends before its pixels"),
        (a_link_to_nothing, "cannot be read (No such file or directory)"),
    ],
)
def test_the_last_slice_is_never_lost_in_silence(tmp_path, image, mask, damage, words):
    a_patient(tmp_path / "export" / "Hans", image, mask, PatientName="MUELLER^HANS")
    place = slices_of(tmp_path / "export" / "Hans")[-1]
    path = place.rename(place.with_name("Mueller_12.dcm"))
    damage(path)
    _, problems = imported(tmp_path / "export", tmp_path)
    (problem,) = (problem for problem in problems if problem.severity == "error")
    assert words in problem.found
    assert "Mueller" not in problem.file
    assert problem.file.endswith("_12.dcm (file 12 of 13)")
    listed = describe_dicom(read_dicom(tmp_path / "export"))
    assert words in listed
    assert not any(name in listed for name in ("Mueller", "Hans", str(tmp_path)))
    with pytest.raises(ValueError, match=re.escape(words)):
        exporting.one_series(tmp_path / "export")


def test_many_files_of_one_kind_and_folder_are_one_problem(tmp_path, image, mask):
    a_patient(tmp_path / "a", image, mask)
    write_series(tmp_path / "b", image, AXIAL, "P2")
    for path in (tmp_path / "b").iterdir():
        path.write_bytes(path.read_bytes().replace(b"0.80000000", b"0,80000000"))
    (_, problem), *others = read_dicom(tmp_path).unread
    assert not others
    assert problem.file == "b/0000.dcm (file 14 of 25) and 11 more"


def test_a_damaged_file_is_named_by_its_place_also_where_nothing_can_be_imported(tmp_path, image):
    for patient in ("Anna Meier", "Hans Mueller"):
        write_series(tmp_path / "export" / patient / "MR", image, AXIAL, patient)
    empty(tmp_path / "export/Hans Mueller/MR/0005.dcm")
    (tmp_path / "export/Anna Meier.txt").write_text("a note")  # sorted before the folder of that name
    with pytest.raises(CohortError) as error:
        imported(tmp_path / "export", tmp_path)
    (problem,) = (problem for problem in error.value.problems if problem.found == "an empty file")
    assert problem.file == "patient_0002/MR/0005.dcm (file 19 of 25)"
    found = "find -L . ! -type d | LC_ALL=C sort | sed -n 19p"  # as docs/radiotherapy.md says
    shown = subprocess.run(found, shell=True, cwd=tmp_path / "export", capture_output=True, text=True, check=True)
    assert shown.stdout == "./Hans Mueller/MR/0005.dcm\n"
    listed = describe_dicom(read_dicom(tmp_path / "export"))
    assert "file patient 2/MR/0005.dcm (file 19 of 25): found an empty file" in listed


def test_what_lies_beside_an_export_is_left_aside(tmp_path, image, mask):
    a_patient(tmp_path / "export", image, mask)
    for name, content in {
        "notes.txt": b"text",
        "report.pdf": b"%PDF" + bytes(500),
        ".DS_Store": b"",
        "._0001.dcm": b"\0\5\x16\7" + bytes(200),
        "other.bin": b"\x08\0" + bytes(range(256)),
    }.items():
        (tmp_path / "export" / name).write_bytes(content)
    index, meta = pydicom.Dataset(), pydicom.dataset.FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = "1.2.840.10008.1.3.10", "1.2.3"
    meta.TransferSyntaxUID, index.file_meta, index.FileSetID = "1.2.840.10008.1.2.1", meta, "DISC"
    index.save_as(tmp_path / "export" / "dicomdir.dcm", enforce_file_format=True)
    os.mkfifo(tmp_path / "export" / "pipe")
    cases, problems = imported(tmp_path / "export", tmp_path)
    assert list(cases) == ["examination_0001"]
    assert not problems


def test_links_are_followed_and_no_folder_is_read_twice(tmp_path, image, mask):
    a_patient(tmp_path / "export/1", image, mask)
    a_patient(tmp_path / "elsewhere", image, mask, patient="P2")
    (tmp_path / "export/2").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "export/loop").symlink_to(tmp_path / "export")
    cases, problems = imported(tmp_path / "export", tmp_path)
    assert len(cases) == 2
    assert not problems


def test_a_folder_that_cannot_be_opened_is_said(tmp_path, image, mask, monkeypatch):
    a_patient(tmp_path / "export", image, mask)
    scan = os.scandir

    def refuse(place):
        if str(place).endswith("/mr"):
            raise PermissionError(13, "Permission denied", str(place))
        return scan(place)

    monkeypatch.setattr(os, "scandir", refuse)
    (_, problem), *_ = read_dicom(tmp_path / "export").unread
    assert problem.found == "a folder that cannot be read (Permission denied)"
    assert problem.file == "mr"


# Who is who


def change_all(folder, **tags):
    for path in folder.rglob("*.dcm"):
        change(path, **tags)


@pytest.mark.parametrize("other", ["P2", "p-01"])
def test_one_uid_under_two_patient_ids_is_an_error(tmp_path, image, mask, other):
    """Anonymised exports may give equal UIDs to several patients, or several IDs to one."""
    a_patient(tmp_path / "export/1", image, mask, patient="P1")
    a_patient(tmp_path / "export/2", image[::-1], mask[::-1], patient="P1")
    change_all(tmp_path / "export/2", PatientID=other)
    cases, problems = imported(tmp_path / "export", tmp_path)
    assert np.array_equal(np.asarray(cases["examination_0002"][0].dataobj), image[::-1])
    wrong = [problem for problem in problems if problem.severity in ("error", "doubt")]
    assert [problem.case for problem in wrong] == ["examination_0001", "examination_0002"]
    assert all("one UID under Patient IDs patient_0001, patient_0002" in problem.found for problem in wrong)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"PatientID": "4711"}, {"PatientID": "04711"}),
        ({"PatientID": "Anna-1"}, {"PatientID": "ANNA 1"}),
        (
            {"PatientID": "A", "PatientName": "Doe^Jane", "PatientBirthDate": "19500101"},
            {"PatientID": "B", "PatientName": "DOE^JANE", "PatientBirthDate": "19500101"},
        ),
    ],
)
def test_two_ids_that_may_be_one_person_are_a_doubt(tmp_path, image, mask, first, second):
    for number, tags in enumerate((first, second)):
        a_patient(tmp_path / "export" / str(number), image, mask, patient=f"P{number}")
        change_all(tmp_path / "export" / str(number), **tags)
    _, problems = imported(tmp_path / "export", tmp_path)
    doubts = [problem for problem in problems if problem.severity == "doubt"]
    assert [problem.case for problem in doubts] == ["examination_0001", "examination_0002"]


def test_a_placeholder_for_all_names_is_no_doubt(tmp_path, image, mask):
    for number in range(4):
        a_patient(tmp_path / "export" / str(number), image, mask, patient=f"P{number}")
    change_all(tmp_path / "export", PatientName="ANON", PatientBirthDate="19000101")
    assert not imported(tmp_path / "export", tmp_path)[1]


def test_files_without_patient_id_are_an_error(tmp_path, image, mask):
    for number in range(2):
        a_patient(tmp_path / "export" / str(number), image, mask, patient=f"P{number}")
    a_patient(tmp_path / "export/named", image, mask, patient="P3")
    for number in range(2):
        change_all(tmp_path / "export" / str(number), PatientID="")
    cases, problems = imported(tmp_path / "export", tmp_path)
    assert len(cases) == 1
    assert [problem.found for problem in problems] == ["26 files without Patient ID"] * 2


def test_a_structure_set_under_another_id_or_drawn_on_a_ct_says_so(tmp_path, image, mask):
    a_patient(tmp_path / "1", image, mask, patient="P1")
    change(tmp_path / "1/rs.dcm", PatientID="P9", StudyInstanceUID="1.2.9")
    a_patient(tmp_path / "2", image, mask, patient="P2", FrameOfReferenceUID="1.2.5")
    change_all(tmp_path / "2/mr", Modality="CT")
    write_series(tmp_path / "2/registered", image, AXIAL, "P2", SeriesInstanceUID="1.2.6")
    with pytest.raises(CohortError) as error:
        imported(tmp_path, tmp_path / "here")
    found = {problem.case: problem for problem in error.value.problems if problem.severity == "error"}
    assert str(found["patient_0003"]).startswith("case patient_0003, file RESEARCH USE: found a structure set")
    assert str(found["examination_0002"]).startswith("case examination_0002 of patient_0002, file RESEARCH USE: found")
    for case in ("patient_0003", "examination_0002"):
        assert found[case].found == "a structure set that fits no MR series of its patient"
        assert "under the same Patient ID; or copy contours of a CT to the MR" in found[case].fix


def test_a_case_or_patient_with_errors_can_be_left_out(tmp_path, image, mask):
    a_patient(tmp_path / "export/1", image, mask, patient="P1")
    without_one(a_patient(tmp_path / "export/2", image, mask, patient="P2"))
    a_patient(tmp_path / "export/3", image, mask, patient="P3")
    shutil.rmtree(tmp_path / "export/3/mr")
    assert len(imported(tmp_path / "export", tmp_path)[1]) == 3
    for exclude in (["examination_0002", "patient_0003"], ["patient_0002", "patient_0003"]):
        cases, problems = imported(tmp_path / "export", tmp_path, exclude=exclude)
        assert not problems
        assert list(cases) == ["examination_0001"]
    *_, unknown = import_dicom(tmp_path / "export", tmp_path / "imported", Choice(), codes, exclude=[*exclude, "P7"])
    assert unknown == ["P7"]


def test_two_dates_of_birth_under_one_id_are_a_doubt(tmp_path, image, mask):
    for name, born in (("Doe^Jane", "19500101"), ("Roe^John", "19610202")):
        person = {"PatientName": name, "PatientBirthDate": born, "StudyInstanceUID": f"1.2.{born}"}
        own = {"SeriesInstanceUID": f"1.3.{born}", "FrameOfReferenceUID": f"1.4.{born}"}
        a_patient(tmp_path / "export" / born, image, mask, patient="ANON", **person, **own)
    _, problems = imported(tmp_path / "export", tmp_path)
    doubts = {problem.found for problem in problems if problem.severity == "doubt"}
    assert doubts == {"2 dates of birth under one Patient ID: patient_0001"}


# Structure sets


def test_organs_at_risk_are_kept_beside_the_lesions_by_their_patterns(tmp_path, image, mask):
    a_patient(tmp_path / "export", image, patient="P1", PatientName="Meier^Anna")
    (found,) = read_dicom(tmp_path / "export/mr").series
    regions = {name: np.zeros_like(mask) for name in ("Brainstem Meier", "Brainstem_PRV", "Cochlea_L", "Cochlea_R")}
    for k, region in enumerate(regions.values()):
        region[2 + k : 6 + k, 3:6, 4:7] = True  # they overlap
    write_structure_set(tmp_path / "export/rs.dcm", {"GTV Meier": mask, **regions}, found, "unet")
    cases, problems = imported(tmp_path / "export", tmp_path)
    folder = tmp_path / "imported" / next(iter(cases))
    record = json.loads((folder / "source.json").read_text())
    assert record["organs"] == ["brain stem", "cochlea"]
    assert "Meier" not in json.dumps(record), "a region may be named after the patient"
    bits = np.asarray(nib.load(folder / "organs.nii.gz").dataobj)
    assert np.array_equal(bits & 1 > 0, regions["Brainstem Meier"])
    assert np.array_equal(bits & 2 > 0, regions["Cochlea_L"] | regions["Cochlea_R"])
    assert not problems


def test_an_organ_outside_the_image_is_told(tmp_path, image, mask):
    a_patient(tmp_path / "export", image, mask, patient="P1")
    data = pydicom.dcmread(tmp_path / "export/rs.dcm")
    data.StructureSetROISequence.append(copy.deepcopy(data.StructureSetROISequence[0]))
    data.StructureSetROISequence[1].ROINumber, data.StructureSetROISequence[1].ROIName = 2, "Chiasm"
    data.ROIContourSequence.append(copy.deepcopy(data.ROIContourSequence[0]))
    data.ROIContourSequence[1].ReferencedROINumber = 2
    data.save_as(tmp_path / "export/rs.dcm")
    move_contours(tmp_path / "export/rs.dcm", 2, -500)
    _, (problem,) = imported(tmp_path / "export", tmp_path)
    assert (problem.file, problem.severity) == ("Chiasm", "warning")
    assert "above or below the image" in problem.found


def test_an_export_becomes_cases_with_codes_and_nothing_of_the_patient(tmp_path, image, mask):
    tags = {"PatientName": "Mueller^Hans", "StudyDate": "20210304", "StationName": "MR_BERN_2"}
    tags |= {"Manufacturer": "SIEMENS", "MagneticFieldStrength": "1.494"}
    a_patient(tmp_path / "export", image, mask, patient="MUELLER", **tags)
    before = {path: path.read_bytes() for path in (tmp_path / "export").rglob("*.dcm")}
    cases, problems = imported(tmp_path / "export", tmp_path)
    ((_, label),) = cases.values()
    assert np.array_equal(np.asarray(label.dataobj) > 0, mask)
    np.testing.assert_allclose(label.affine, AXIAL, atol=1e-5)
    assert not problems
    assert {path: path.read_bytes() for path in before} == before
    texts = [path.read_text() for path in (tmp_path / "imported").rglob("*.json")]
    assert '"date": "2021"' in "".join(texts)
    assert '"site": "Siemens 1.5 T"' in "".join(texts)
    uid = pydicom.dcmread(next(iter(before)), stop_before_pixels=True).StudyInstanceUID
    for name in ("MUELLER", "Hans", "0304", "BERN", uid):
        assert name not in "".join(texts)
    assert b"MUELLER" not in b"".join(path.read_bytes() for path in (tmp_path / "imported").rglob("*.nii*"))


def test_an_imported_case_is_not_written_again_unless_its_files_or_the_choice_change(tmp_path, image, mask):
    a_patient(tmp_path / "export", image, mask)
    imported(tmp_path / "export", tmp_path)
    label = tmp_path / "imported/examination_0001/label.nii.gz"
    written = label.stat().st_mtime_ns
    imported(tmp_path / "export", tmp_path)
    assert label.stat().st_mtime_ns == written
    (found,) = read_dicom(tmp_path / "export" / "mr").series
    write_structure_set(tmp_path / "export/rs.dcm", {"GTV": np.roll(mask, 1, axis=0)}, found, "unet")
    cases, _ = imported(tmp_path / "export", tmp_path)
    assert np.array_equal(np.asarray(cases["examination_0001"][1].dataobj) > 0, np.roll(mask, 1, axis=0))
    with pytest.raises(CohortError, match="found regions GTV; expected regions named like TV"):
        imported(tmp_path / "export", tmp_path, roi_names=("TV",))
    assert not label.exists()


def test_of_several_structure_sets_the_newest_is_taken_and_said(tmp_path, image, mask):
    a_patient(tmp_path, image, mask)
    (found,) = read_dicom(tmp_path / "mr").series
    write_structure_set(tmp_path / "old.dcm", {"GTV": ~mask}, found, "unet")
    change(tmp_path / "old.dcm", StructureSetDate="20200101", StructureSetLabel="OLD")
    cases, problems = imported(tmp_path, tmp_path / "here")
    assert np.array_equal(np.asarray(cases["examination_0001"][1].dataobj) > 0, mask)
    (problem,) = problems
    assert problem.severity == "warning"
    assert "2 structure sets: OLD (1 regions, 2020), RESEARCH USE (1 regions, 20" in problem.found


def test_predictions_beside_the_planned_contours_are_no_reference(tmp_path, image, mask):
    a_patient(tmp_path, image, mask)
    (found,) = read_dicom(tmp_path / "mr").series
    write_structure_set(tmp_path / "auto.dcm", {"GTV_auto_01": ~mask}, found, "unet")
    change(tmp_path / "auto.dcm", StructureSetDate="20990101")
    cases, problems = imported(tmp_path, tmp_path / "here")
    assert np.array_equal(np.asarray(cases["examination_0001"][1].dataobj) > 0, mask)
    (problem,) = problems
    assert problem.severity == "warning"
    assert "1 structure set(s) of predictions, left aside" in problem.found


def test_predictions_among_planned_contours_are_no_reference(tmp_path, image, mask):
    a_patient(tmp_path, image, mask)
    (found,) = read_dicom(tmp_path / "mr").series
    regions = {"GTV 1": mask, "GTV_auto_01": ~mask, "GTV2_3mm": ~mask}
    write_structure_set(tmp_path / "rs.dcm", regions, found, "unet")
    cases, problems = imported(tmp_path, tmp_path / "here")
    assert np.array_equal(np.asarray(cases["examination_0001"][1].dataobj) > 0, mask)
    (problem,) = problems
    assert (problem.severity, problem.found) == ("warning", "GTV_auto_01, left aside")


def test_a_structure_set_of_another_series_in_the_same_frame_of_reference_fits(tmp_path, image, mask):
    a_patient(tmp_path, image, mask)
    data = pydicom.dcmread(tmp_path / "rs.dcm")
    data.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence[0].RTReferencedSeriesSequence[
        0
    ].SeriesInstanceUID = "1.2.9"
    del data.FrameOfReferenceUID  # some systems name it in the regions only
    for region in data.ROIContourSequence:
        for contour in region.ContourSequence:
            points = np.array(contour.ContourData, dtype=float).reshape(-1, 3) + np.array([0, 0, 0.9])
            contour.ContourData = [f"{value:.3f}" for value in points.ravel()]
            del contour.ContourImageSequence
    data.save_as(tmp_path / "rs.dcm")
    cases, problems = imported(tmp_path, tmp_path / "here")
    assert np.array_equal(np.asarray(cases["examination_0001"][1].dataobj) > 0, mask)
    (problem,) = problems
    assert "0.90 mm beside their slice" in problem.found


def test_a_structure_set_that_fits_nothing_is_an_error(tmp_path, image, mask):
    a_patient(tmp_path / "a", image, mask)
    data = pydicom.dcmread(tmp_path / "a" / "rs.dcm")
    data.FrameOfReferenceUID = data.ReferencedFrameOfReferenceSequence[0].FrameOfReferenceUID = "1.2.9"
    data.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence[0].RTReferencedSeriesSequence[
        0
    ].SeriesInstanceUID = "1.2.8"
    data.StructureSetROISequence[0].ReferencedFrameOfReferenceUID = "1.2.9"
    data.save_as(tmp_path / "a" / "rs.dcm")
    with pytest.raises(CohortError, match="a structure set that fits no MR series of its patient;"):
        imported(tmp_path / "a", tmp_path)


def test_names_of_regions_choose_the_targets_and_stay_with_their_lesions(tmp_path, image, mask):
    write_series(tmp_path / "mr", image, AXIAL, "P1")
    (found,) = read_dicom(tmp_path).series
    first, second = mask.copy(), mask.copy()
    first[12:], second[:12] = False, False
    grown = ndimage.binary_dilation(mask)
    regions = {
        "1 GTV": first,
        "2 GTV rechts übe": second,
        "1 PTV +1.0 mm": grown,
        "1 GTV +2.0 mm": grown,
        "Brainstem": ~mask,
    }
    write_structure_set(tmp_path / "rs.dcm", regions, found, "unet")
    cases, _ = imported(tmp_path, tmp_path / "here")
    assert np.array_equal(np.asarray(cases["examination_0001"][1].dataobj) > 0, mask)
    record = (tmp_path / "here/imported/examination_0001/source.json").read_text()
    assert '"1 GTV"' in record
    assert "PTV" not in record.split('"regions"')[1]


def test_two_regions_of_one_name_are_both_lesions(tmp_path, image, mask):
    """Some systems cut names at 16 characters."""
    a_patient(tmp_path, image)
    (found,) = read_dicom(tmp_path).series
    first, second = mask.copy(), mask.copy()
    first[12:], second[:12] = False, False
    write_structure_set(tmp_path / "rs.dcm", {"GTV": first, "GTV two": second}, found, "unet")
    data = pydicom.dcmread(tmp_path / "rs.dcm")
    data.StructureSetROISequence[1].ROIName = "GTV"
    data.save_as(tmp_path / "rs.dcm")
    cases, _ = imported(tmp_path, tmp_path / "here")
    assert np.array_equal(np.asarray(cases["examination_0001"][1].dataobj) > 0, mask)


def shortened_to(n):
    return lambda path: path.write_bytes(path.read_bytes()[:n])


def without_contours(path):
    data = pydicom.dcmread(path)
    data.ROIContourSequence = []
    data.save_as(path)


def without_regions(path):
    data = pydicom.dcmread(path)
    data.StructureSetROISequence, data.ROIContourSequence = [], []
    data.save_as(path)


def with_contours_of_no_region(path):
    data = pydicom.dcmread(path)
    data.ROIContourSequence[0].ReferencedROINumber = 77
    data.save_as(path)


def with_a_number_twice(path):
    data = pydicom.dcmread(path)
    data.StructureSetROISequence.append(data.StructureSetROISequence[0])
    data.save_as(path)


@pytest.mark.parametrize(
    ("damage", "severity", "words"),
    [
        (shortened_to(1500), "error", "without regions or contours, or cut off before them"),
        (shortened_to(3000), "error", "a structure set that cannot be read"),
        (without_regions, "error", "without regions or contours"),
        (with_contours_of_no_region, "error", "nobody can tell the region"),
        (with_a_number_twice, "error", "nobody can tell the region"),
        (without_contours, "doubt", "no voxel in GTV"),
    ],
)
def test_contours_are_never_lost_in_silence(tmp_path, image, mask, damage, severity, words):
    a_patient(tmp_path / "export/1", image, mask, patient="P1")
    a_patient(tmp_path / "export/2", image, mask, patient="P2")
    damage(tmp_path / "export/2/rs.dcm")
    _, problems = imported(tmp_path / "export", tmp_path)
    (problem,) = (problem for problem in problems if problem.severity in ("error", "doubt"))
    assert (problem.case, problem.severity) == ("examination_0002", severity)
    assert words in problem.found


def test_contours_of_a_region_may_be_in_several_items_and_of_the_newer_closed_type(tmp_path, image, mask):
    a_patient(tmp_path, image, mask)
    data = pydicom.dcmread(tmp_path / "rs.dcm")
    (drawn,) = data.ROIContourSequence
    for contour in drawn.ContourSequence:
        contour.ContourGeometricType = "CLOSEDPLANAR_XOR"
    rest = pydicom.Dataset()
    rest.ReferencedROINumber, rest.ContourSequence = 1, drawn.ContourSequence[2:]
    drawn.ContourSequence = drawn.ContourSequence[:2]
    data.ROIContourSequence.append(rest)
    data.save_as(tmp_path / "rs.dcm")
    cases, _ = imported(tmp_path, tmp_path / "here")
    assert np.array_equal(np.asarray(cases["examination_0001"][1].dataobj) > 0, mask)


@pytest.mark.parametrize(
    ("name", "pattern", "fits"),
    [
        ("GTV [1]", "gtv [1]", True),
        ("GTV 1", "GTV [1]", False),
        ("GTV 7", "GTV [0-9]", True),
        ("GTV -", "GTV [0-9]", False),
        (" Läsion ", "la\u0308sion", True),
        ("GTV_12", "gtv_?", False),
        ("Met_L_front", "*met*", True),
    ],
)
def test_names_are_matched_letter_by_letter_but_for_stars(name, pattern, fits):
    assert is_named(name, [pattern]) == fits


MARGINS = ["GTV1_3mm", "GTV 3 mm", "GTV2_10_MM", "GTV_2.5mm ring", "GTV-1mm", "GTV + 3"]
LESIONS = ["GTV commissure", "GTV Kommissur 2", "GTV2 Kommissur", "GTV comm ant", "GTV_1", "Stammhirn GTV3"]


def test_by_default_a_number_of_millimetres_is_a_margin_and_other_names_with_mm_are_lesions():
    defaults = yaml.safe_load((PARAMS / "defaults.yaml").read_text())
    patterns = [Choice().roi_names_without, defaults["roi_names_without"]]
    files = [*(PARAMS / "studies").glob("*.yaml"), *Path(__file__).with_name("studies").glob("*.yaml")]
    patterns += filter(None, (yaml.safe_load(file.read_text()).get("roi_names_without") for file in files))
    assert len(patterns) > 5
    for without in patterns:
        assert [name for name in MARGINS + LESIONS if is_named(name, without)] == MARGINS


def test_a_damaged_series_is_replaced_by_no_other_and_one_that_nobody_wants_is_a_note(tmp_path, image, mask):
    a_patient(tmp_path, image, mask)
    other = tmp_path / "dwi/mr"
    write_series(other, image, AXIAL, "P1", SeriesInstanceUID="1.2.3", SeriesDescription="dwi", ContrastBolusAgent="NO")
    without_one(tmp_path / "dwi")
    _, (problem,) = imported(tmp_path, tmp_path / "here")
    assert (problem.severity, problem.file) == ("note", "dwi")
    without_one(tmp_path)
    with pytest.raises(CohortError, match="t1 contrast"):
        imported(tmp_path, tmp_path / "here")
    with pytest.raises(ValueError, match=r"t1 contrast .*missing or uneven slices"):
        exporting.one_series(tmp_path)


def test_an_import_that_is_damaged_or_of_changed_files_is_made_again(tmp_path, image, mask):
    a_patient(tmp_path / "export", image, mask)
    imported(tmp_path / "export", tmp_path)
    folder = tmp_path / "imported/examination_0001"
    whole = {path: path.read_bytes() for path in folder.iterdir()}
    for path in whole:
        path.write_bytes(path.read_bytes()[:-10])
        imported(tmp_path / "export", tmp_path)
        assert {path: path.read_bytes() for path in folder.iterdir()} == whole
    for path in slices_of(tmp_path / "export"):  # another voxel size under the same UIDs
        change(path, PixelSpacing=[1, 1])
    cases, _ = imported(tmp_path / "export", tmp_path)
    assert cases["examination_0001"][0].header.get_zooms() == (1, 1, 2)
    for path in slices_of(tmp_path / "export"):  # other pixels in a file of equal size and time
        times = path.stat().st_atime_ns, path.stat().st_mtime_ns
        change(path, PixelData=bytes(len(pydicom.dcmread(path).PixelData)))
        os.utime(path, ns=times)
    cases, _ = imported(tmp_path / "export", tmp_path)
    assert not np.asarray(cases["examination_0001"][0].dataobj).any()


def test_regions_without_contours_or_with_points_only_are_said(tmp_path, image, mask):
    a_patient(tmp_path, image, mask)
    data = pydicom.dcmread(tmp_path / "rs.dcm")
    for number, name in ((2, "GTV empty"), (3, "GTV mark")):
        region = pydicom.Dataset()
        region.ROINumber, region.ROIName = number, name
        data.StructureSetROISequence.append(region)
    drawn, contour = pydicom.Dataset(), pydicom.Dataset()
    contour.ContourGeometricType, contour.NumberOfContourPoints, contour.ContourData = "POINT", 1, [1.0, 2.0, 3.0]
    drawn.ReferencedROINumber, drawn.ContourSequence = 3, [contour]
    data.ROIContourSequence.append(drawn)
    data.save_as(tmp_path / "rs.dcm")
    cases, problems = imported(tmp_path, tmp_path / "here")
    assert np.array_equal(np.asarray(cases["examination_0001"][1].dataobj) > 0, mask)
    found = {problem.file: problem.found for problem in problems}
    assert found["GTV empty"] == "no contours"
    assert "1 contours of one or two points" in [problem.found for problem in problems if problem.file == "GTV mark"]


def test_two_series_that_fit_are_an_error_and_a_pattern_chooses(tmp_path, image, mask):
    write_series(tmp_path / "mr", image, AXIAL, "P1")
    write_series(
        tmp_path / "t2",
        image[::-1],
        AXIAL,
        "P1",
        SeriesInstanceUID="1.2.3",
        SeriesDescription="t2",
        ContrastBolusAgent="",
    )
    write_series(tmp_path / "late", image + 1, AXIAL, "P1", SeriesInstanceUID="1.2.4", SeriesDescription="t1 late")
    (series,) = (found for found in read_dicom(tmp_path / "mr").series)
    write_structure_set(tmp_path / "rs.dcm", {"GTV": mask}, series, "unet")
    data = pydicom.dcmread(tmp_path / "rs.dcm")
    referenced_series(data).SeriesInstanceUID = "1.2.9"
    data.save_as(tmp_path / "rs.dcm")
    with pytest.raises(CohortError, match="2 series that fit"):
        imported(tmp_path, tmp_path / "here")
    cases, _ = imported(tmp_path, tmp_path / "there", series="t1 late")
    assert np.array_equal(np.asarray(cases["examination_0001"][0].dataobj), image + 1)


def test_two_series_of_one_description_are_told_apart_in_one_error_without_the_day(tmp_path, image):
    for number, (time, slices) in enumerate((("101502.5", 12), ("103100", 10)), 4):
        tags = {"SeriesInstanceUID": f"1.2.{number}", "SeriesNumber": number, "SeriesTime": time}
        write_series(tmp_path / str(number), image[:, :, :slices], AXIAL, "P1", StudyDate="20210304", **tags)
    with pytest.raises(CohortError) as error:
        imported(tmp_path, tmp_path / "here")
    (problem,) = error.value.problems
    for words in ("(series 4, 12 slices, 2021, 10:15)", "(series 5, 10 slices, 2021, 10:31)"):
        assert words in problem.found
    assert "leave all but one out of the export" in problem.fix
    assert "0304" not in str(problem)


@pytest.mark.parametrize(
    ("choice", "of_regions"), [({"roi_names": ["TV"]}, "regions GTV"), ({}, "contours above or below the image")]
)
def test_all_that_is_wrong_with_a_damaged_series_and_its_regions_is_said_at_once(
    tmp_path, image, mask, choice, of_regions
):
    folder = a_patient(tmp_path / "export", image, mask)
    doubled_with_other_content(folder)
    tilted(folder)
    slices_of(folder)[8].unlink()
    slices_of(folder)[2].write_bytes(slices_of(folder)[2].read_bytes()[:-200])
    move_contours(folder / "rs.dcm", 1, 500)
    with pytest.raises(CohortError) as error:
        imported(tmp_path / "export", tmp_path, **choice)
    expected = ["1 of 12 slices cut off", "with different content at one position"]
    expected += ["missing or uneven slices: 4.00 mm between z = 5.00 and 9.00 mm", "gantry tilt of 5.7 degrees"]
    found = [problem.found for problem in error.value.problems]
    for words in (*expected, of_regions):
        assert any(words in text for text in found), words


def test_all_files_that_cannot_be_decoded_are_said_beside_what_is_wrong_with_regions(tmp_path, image, mask):
    folder = a_patient(tmp_path / "export", image, mask)
    for k in (1, 5, 6, 9):
        change(slices_of(folder)[k], BitsStored=99)
    move_contours(folder / "rs.dcm", 1, 500)
    with pytest.raises(CohortError) as error:
        imported(tmp_path / "export", tmp_path)
    pixels, *others = [problem.found for problem in error.value.problems]
    assert pixels.count("pixels that cannot be decoded") == 3
    assert pixels.startswith("slice 2 of 12, file mr/0001.dcm") and pixels.endswith(" and 1 more")
    assert any("contours above or below the image" in text for text in others)


def move_contours(path, number, mm):
    """Move the contours of a region along z."""
    data = pydicom.dcmread(path)
    for contour in data.ROIContourSequence[number - 1].ContourSequence:
        contour.ContourData[2::3] = [float(z) + mm for z in contour.ContourData[2::3]]
    data.save_as(path)


def test_problems_of_all_patients_are_said_at_once(tmp_path, image, mask):
    for number, damage in enumerate((without_one, tilted, of_two_sizes), 1):
        damage(a_patient(tmp_path / "export" / str(number), image, mask, patient=f"P{number}"))
    with pytest.raises(CohortError) as error:
        imported(tmp_path / "export", tmp_path)
    assert {problem.case for problem in error.value.problems} == {
        "examination_0001",
        "examination_0002",
        "examination_0003",
    }


def test_a_published_structure_set_becomes_the_published_mask(published_plans, tmp_path):
    cases, problems = imported(published_plans / "mr_rtstruct_nifti", tmp_path)
    ((image, label),) = cases.values()
    published = published_plans / "mr_rtstruct_nifti/STS_008"
    for mine, theirs in ((image, "MR_T1_image.nii.gz"), (label, "MR_T1_mask.nii.gz")):
        theirs = nib.load(published / theirs)
        assert np.array_equal(np.asarray(mine.dataobj), np.asarray(theirs.dataobj))
        np.testing.assert_allclose(mine.affine, theirs.affine, atol=1e-5)
    assert not problems


def test_a_gamma_knife_plan_drawn_on_another_series_fits_by_frame_of_reference(published_plans, tmp_path):
    plan = published_plans / "vs_gammaknife_t1c_rtstruct"
    with tarfile.open(plan / "t1c_dicom_slices_020-045.tar.xz") as slices:
        slices.extractall(tmp_path / "export", filter="data")
    shutil.copy(plan / "RTSTRUCT_GammaPlan.dcm", tmp_path / "export")
    cases, problems = imported(tmp_path / "export", tmp_path)
    ((_, label),) = cases.values()
    assert (np.asarray(label.dataobj) > 0).sum() == 13307
    (problem,) = problems
    assert "0.66 mm beside their slice" in problem.found


def test_the_contours_of_a_plan_of_five_metastases_have_the_published_volumes(published_plans):
    structures = read_structure_set(published_plans / "met_rtss_brainlab/RS_5mets_scrubbed.dcm")
    assert len(structures.regions) == 35
    published = nib.load(published_plans / "met_rtss_brainlab/gtv_labels_1mm.nii.gz")
    labels, affine = np.asarray(published.dataobj), np.diag([-1, -1, 1, 1]) @ published.affine
    polygons = {"1 GTV": 1066.1, "2 GTV": 2154.6, "3 GTV": 162.7, "4 GTV": 179.7, "5 GTV": 116.4}  # mm³, published
    for number, name in enumerate(polygons, 1):
        (region,) = (region for region in structures.regions if region.name == name)
        mask = rasterise(region.contours, labels.shape, affine).mask
        assert np.count_nonzero(mask != (labels == number)) <= 5  # centres of voxels that lie on a contour
        assert mask.sum() == pytest.approx(polygons[name], rel=0.05)


def test_shapes_with_holes_have_their_analytic_volumes(published_plans):
    structures = read_structure_set(published_plans / "rtss_analytic_holes/primitives_planar.dcm")
    analytic = {"sphere": 268.083, "cube": 216, "cylinder": 226.195, "ellipsoid": 376.991, "torus": 473.741}
    analytic |= {"hollow_sphere": 234.572, "straw": 452.389}
    for region in structures.regions:
        volume = rasterise(region.contours, (512, 512, 200), np.eye(4)).mask.sum() / 1000
        assert volume == pytest.approx(analytic[region.name], rel=0.03), region.name


# Out


@pytest.mark.parametrize("affine", [AXIAL, OBLIQUE, SAGITTAL])
def test_masks_go_out_and_come_back_voxel_by_voxel_and_others_read_them(tmp_path, image, mask, affine):
    too_long = {"StudyID": "STUDY-5678901234567", "AccessionNumber": "12345678901234567"}
    write_series(tmp_path / "mr", image, affine, "P1", PatientName="A^B", **too_long)
    (found,) = read_dicom(tmp_path).series
    noise = np.random.default_rng(3).random(SHAPE) < 0.4
    regions = {"GTV_auto_01": mask, "GTV_auto_02": noise}
    write_structure_set(tmp_path / "rs.dcm", regions, found, "unet")
    for region in read_structure_set(tmp_path / "rs.dcm").regions:
        made = rasterise(region.contours, found.shape, found.affine)
        assert np.array_equal(made.mask, regions[region.name])
    data = pydicom.dcmread(tmp_path / "rs.dcm")
    scan = pydicom.dcmread(found.frames["file"][0], stop_before_pixels=True)
    for name in ("PatientID", "PatientName", "StudyInstanceUID", "FrameOfReferenceUID"):
        assert data[name].value == scan[name].value
    assert data.RTROIObservationsSequence[0].RTROIInterpretedType == "GTV"
    contours = [one for region in data.ROIContourSequence for one in region.ContourSequence]
    assert max(len(str(number)) for one in contours for number in one.ContourData) <= 16
    write_segmentation(tmp_path / "seg.dcm", regions, found, "unet")
    assert sitk.ReadImage(str(tmp_path / "seg.dcm")).GetSize()[:2] == SHAPE[:2]
    for name in ("rs.dcm", "seg.dcm"):
        data = pydicom.dcmread(tmp_path / name)
        assert (data.StudyID, data.AccessionNumber) == ("STUDY-5678901234", "1234567890123456")
        if shutil.which("dciodvfy"):
            checked = subprocess.run(["dciodvfy", tmp_path / name], capture_output=True, text=True)
            assert "Error" not in checked.stderr


@pytest.mark.skipif(not shutil.which("plastimatch"), reason="Debian's plastimatch is not installed")
@pytest.mark.parametrize("affine", [AXIAL, OBLIQUE, SAGITTAL])
def test_plastimatch_makes_the_same_masks_of_our_contours(tmp_path, image, mask, affine):
    write_series(tmp_path / "mr", image, affine, "P1")
    (found,) = read_dicom(tmp_path).series
    regions = {"GTV_auto_01": mask, "GTV_auto_02": np.random.default_rng(3).random(SHAPE) < 0.4}
    write_structure_set(tmp_path / "rs.dcm", regions, found, "unet")
    files = {"--input": "rs.dcm", "--referenced-ct": "mr", "--output-prefix": "masks"}
    command = [part for option, name in files.items() for part in (option, tmp_path / name)]
    subprocess.run(["plastimatch", "convert", *command, "--prefix-format", "nii"], check=True, capture_output=True)
    for name, mask_of in regions.items():
        theirs = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / f"masks/{name}.nii"))).T
        assert np.array_equal(theirs > 0, mask_of), name


@pytest.mark.parametrize("files", ["one", "many"])
def test_a_structure_set_names_the_slice_of_each_contour_and_says_that_it_is_for_research(tmp_path, image, mask, files):
    write_series(tmp_path / "mr", image, OBLIQUE, "P1")
    if files == "one":
        in_one_file(tmp_path)
    (found,) = read_dicom(tmp_path).series
    normal, along = np.cross(*(OBLIQUE[:3, axis] * [-1, -1, 1] for axis in (0, 1))), {}
    for path in tmp_path.rglob("*.dcm"):
        data = pydicom.dcmread(path)
        for number, frame in enumerate(data.get("PerFrameFunctionalGroupsSequence", []), 1):
            along[data.SOPInstanceUID, number] = frame.PlanePositionSequence[0].ImagePositionPatient @ normal
        if files == "many":
            along[data.SOPInstanceUID, None] = data.ImagePositionPatient @ normal
    write_structure_set(tmp_path / "rs.dcm", {"GTV_auto_01": mask, "GTV_auto_02": mask}, found, "unet")
    data = pydicom.dcmread(tmp_path / "rs.dcm")
    assert (data.StructureSetLabel, data.StructureSetName) == ("RESEARCH USE", "research use only: not for treatment")
    assert [list(region.ROIDisplayColor) for region in data.ROIContourSequence] == [[255, 64, 64], [64, 200, 255]]
    for region in data.ROIContourSequence:
        assert len(region.ContourSequence) == 5, "one a slice and lesion: a hole is joined to its outline"
        for contour in region.ContourSequence:
            (drawn_on,) = contour.ContourImageSequence
            place = along[drawn_on.ReferencedSOPInstanceUID, drawn_on.get("ReferencedFrameNumber")]
            np.testing.assert_allclose(np.reshape(contour.ContourData, (-1, 3)) @ normal, place, atol=1e-3)


@pytest.mark.parametrize("affine", [AXIAL, OBLIQUE, SAGITTAL])
def test_a_prediction_whose_regions_were_renamed_is_imported_voxel_by_voxel(tmp_path, image, mask, affine):
    write_series(tmp_path / "export/mr", image, affine, "P1")
    (found,) = read_dicom(tmp_path / "export").series
    nib.save(nib.Nifti1Image(mask.astype(np.uint8), found.affine_ras), tmp_path / "unet.nii.gz")
    exporting.write_regions(tmp_path / "export/rs.dcm", exporting.Drawn(tmp_path / "unet.nii.gz", "unet"), found, False)
    data = pydicom.dcmread(tmp_path / "export/rs.dcm")
    for region in data.StructureSetROISequence:
        region.ROIName = region.ROIName.replace("GTV_auto_", "GTV_")
    data.save_as(tmp_path / "export/rs.dcm")
    cases, problems = imported(tmp_path / "export", tmp_path)
    assert np.array_equal(np.asarray(cases["examination_0001"][1].dataobj) > 0, mask)
    np.testing.assert_allclose(cases["examination_0001"][1].affine, affine, atol=1e-5)
    assert not problems


@pytest.mark.parametrize("files", ["one", "many"])
def test_a_segmentation_lies_where_its_masks_lie(tmp_path, image, mask, files):
    """Frames of a file stand in any order."""
    write_series(tmp_path / "mr", image, OBLIQUE, "P1")
    if files == "one":
        in_one_file(tmp_path)
    (found,) = read_dicom(tmp_path).series
    mask[:, :, 6:] = False  # one end alone
    assert mask.any()
    write_segmentation(tmp_path / "seg.dcm", {"GTV_auto_01": mask}, found, "unet")
    data, back = pydicom.dcmread(tmp_path / "seg.dcm"), np.zeros_like(mask)
    pixels = data.pixel_array.reshape(-1, SHAPE[1], SHAPE[0])
    for frame, drawn in zip(data.PerFrameFunctionalGroupsSequence, pixels, strict=True):
        place = [*frame.PlanePositionSequence[0].ImagePositionPatient, 1.0]
        back[:, :, round((np.linalg.inv(found.affine) @ place)[2])] |= drawn.T > 0
    assert np.array_equal(back, mask)


def test_images_of_which_no_segmentation_can_be_made_are_told_without_their_values(tmp_path, image, mask):
    write_series(tmp_path / "mr", image, AXIAL, "P1")
    for path in slices_of(tmp_path):
        change(path, PatientSex="MANNLICH")
    (found,) = read_dicom(tmp_path).series
    with pytest.raises(
        ValueError, match=r"highdicom makes no segmentation \(ValueError\), perhaps .* without --seg"
    ) as error:
        write_segmentation(tmp_path / "seg.dcm", {"GTV_auto_01": mask}, found, "unet")
    assert "MANNLICH" not in str(error.value)


def test_regions_in_the_frame_of_reference_of_a_ct_are_not_drawn_on_the_mr(tmp_path, image, mask):
    """A plan on a CT with a fused MR lists both frames of reference."""
    a_patient(tmp_path, image, mask)
    data = pydicom.dcmread(tmp_path / "rs.dcm")
    other = copy.deepcopy(data.ReferencedFrameOfReferenceSequence[0])
    other.FrameOfReferenceUID = "1.2.9"
    data.ReferencedFrameOfReferenceSequence.append(other)
    data.save_as(tmp_path / "rs.dcm")
    cases, problems = imported(tmp_path, tmp_path / "here")
    assert np.array_equal(np.asarray(cases["examination_0001"][1].dataobj) > 0, mask)
    assert not problems
    data.StructureSetROISequence[0].ReferencedFrameOfReferenceUID = "1.2.9"
    data.save_as(tmp_path / "rs.dcm")
    with pytest.raises(
        CohortError, match="found GTV in another frame of reference, as of a CT; expected regions in the"
    ):
        imported(tmp_path, tmp_path / "here")


def test_contours_on_every_second_slice_of_their_own_series_are_a_doubt(tmp_path, image, mask):
    lesion = np.zeros_like(mask)
    lesion[8:14, 8:14, 2:9:2] = True
    a_patient(tmp_path, image, lesion)
    _, (problem,) = imported(tmp_path, tmp_path / "here")
    assert (problem.file, problem.found, problem.severity) == ("GTV", "contours on every 2 slices only", "doubt")
    lesion[:, :, 3] = True
    a_patient(tmp_path, image, lesion)
    assert not imported(tmp_path, tmp_path / "there")[1]


def test_a_newer_set_without_lesions_does_not_replace_the_one_with_lesions(tmp_path, image, mask):
    a_patient(tmp_path, image, mask)
    change(tmp_path / "rs.dcm", StructureSetDate="20200101", StructureSetLabel="PLAN")
    (found,) = read_dicom(tmp_path / "mr").series
    write_structure_set(tmp_path / "newer.dcm", {"GTV_AUTO_01": ~mask, "BODY": ~mask}, found, "unet")
    cases, (problem,) = imported(tmp_path, tmp_path / "here")
    assert np.array_equal(np.asarray(cases["examination_0001"][1].dataobj) > 0, mask)
    assert "nothing, if the newest with lesions, PLAN (1 regions, 2020), is meant" in problem.fix


def test_names_in_labels_and_descriptions_stay_out_of_what_is_imported(tmp_path, image, mask):
    a_patient(tmp_path / "export", image, mask, patient="MUELLER", PatientName="Mueller^Hans")
    (found,) = read_dicom(tmp_path / "export/mr").series
    regions = {"GTV_corr_01": mask, "GTV_auto_02": ~mask}
    write_structure_set(tmp_path / "export/rs.dcm", regions, found, "unet")
    change(tmp_path / "export/rs.dcm", StructureSetLabel="MUELLER HANS")
    _, problems = imported(tmp_path / "export", tmp_path)
    assert ["left aside" in problem.found for problem in problems] == [True, False]
    assert problems[1].found == "GTV_corr_01, which began as a proposal of networks"
    (record,) = (tmp_path / "imported").rglob("source.json")
    assert "left aside" in record.read_text()
    assert not {"MUELLER", "HANS", "Mueller"} & set(re.findall(r"\w+", record.read_text()))


@pytest.mark.parametrize("seg", [False, True])
def test_a_dicom_series_is_predicted_as_regions_from_large_to_small(tmp_path, monkeypatch, image, mask, seg):
    a_patient(tmp_path, image, affine=OBLIQUE)

    def fake(checkpoint, images, output, probability):
        nib.save(nib.Nifti1Image(mask.astype(np.uint8), nib.load(images[0]).affine), output)
        return iter([f"{output}: 9 mm³ predicted as lesion by a fake"])

    monkeypatch.setattr("metaseg_nb.inference.predict.predict", fake)
    (line,) = exporting.predict_dicom(tmp_path / "unet", [tmp_path / "mr"], tmp_path / "out.dcm", None, seg)
    assert line == f"{tmp_path / 'out.dcm'}: 2 lesions; 9 mm³ predicted as lesion by a fake"
    (series,) = (found for found in read_dicom(tmp_path / "mr").series)
    if not seg:
        regions = read_structure_set(tmp_path / "out.dcm").regions
        made = [rasterise(region.contours, series.shape, series.affine).mask for region in regions]
        assert [region.name for region in regions] == ["GTV_auto_01", "GTV_auto_02"]
        assert made[0].sum() > made[1].sum()
        assert np.array_equal(made[0] | made[1], mask)
    next(exporting.predict_dicom(tmp_path / "unet", [tmp_path / "mr"], tmp_path / "out.dcm", None, seg))  # its own
    write = write_segmentation if seg else write_structure_set
    write(tmp_path / "hand.dcm", {"GTV_hand_01": mask}, series, "08_annotate", "R1")
    change(tmp_path / "out.dcm", SeriesDescription="planned")
    (tmp_path / "cut.dcm").write_bytes((tmp_path / "hand.dcm").read_bytes()[:518])
    for name in ("hand.dcm", "out.dcm", "cut.dcm"):
        before = (tmp_path / name).read_bytes()
        with pytest.raises(ValueError, match="a file that `predict` did not write"):
            next(exporting.predict_dicom(tmp_path / "unet", [tmp_path / "mr"], tmp_path / name, None, seg))
        assert (tmp_path / name).read_bytes() == before
    mask[:] = False
    (line,) = exporting.predict_dicom(tmp_path / "unet", [tmp_path / "mr"], tmp_path / "none.dcm", None, seg)
    assert "no lesion, so no file is written" in line
    assert not (tmp_path / "none.dcm").exists()


@pytest.fixture
def drawn(tmp_path, monkeypatch, image, mask):
    """A study of one DICOM case, and what draws in it as notebook 08 does: reader, mask, whether it is finished."""
    monkeypatch.setenv("METASEG_HOME", str(tmp_path))
    a_patient(tmp_path / "export", image, mask, affine=OBLIQUE)
    layout = StudyLayout("clinic")
    imported(tmp_path / "export", layout.root)
    (tmp_path / "clinic.yaml").write_text(tiny_file(f"study: clinic\ncohort: {tmp_path / 'export'}\n"))
    case = Case("examination_0001", (layout.imported / "examination_0001/image.nii.gz",), None, "p", "")

    def draw(reader, mask, finished=True, proposal=None):
        volume = read_volume(case.image, case.name)

        def upright(mask):
            image = nib.as_closest_canonical(nib.Nifti1Image(mask.astype(np.uint8), nib.load(case.image).affine))
            return np.asarray(image.dataobj) > 0

        beginning = Beginning("nothing", np.zeros(volume.shape, bool))
        if proposal is not None:
            beginning = Beginning("proposal", upright(proposal), ["unet/fold0"])
        reading = open_reading(layout, case, volume, reader, beginning, True)
        reading.save(upright(mask), finished)
        reading.close()

    return draw


@pytest.mark.parametrize("seg", [False, True])
def test_what_a_reader_drew_goes_out_as_regions_of_that_reader(tmp_path, drawn, mask, seg):
    drawn("R1", mask)
    drawn("R2", ~mask)
    (tmp_path / "runs/clinic/annotations_by_hand/R2/examination_0001.nii.gz").write_bytes(b"damaged")
    study, written = str(tmp_path / "clinic.yaml"), "runs/clinic/radiotherapy/by_hand/R1/examination_0001.dcm"
    ((line, _),) = exporting.export_study(study, None, "R1", seg)
    assert line == f"{tmp_path / written}: 2 lesions"
    data = pydicom.dcmread(tmp_path / written)
    if seg:
        assert {one.SegmentAlgorithmType for one in data.SegmentSequence} == {"SEMIAUTOMATIC"}
        assert data.ContentCreatorName.family_name == "R1"
        return
    (series,) = read_dicom(tmp_path / "export/mr").series
    regions = read_structure_set(tmp_path / written).regions
    made = [rasterise(region.contours, series.shape, series.affine).mask for region in regions]
    assert [region.name for region in regions] == ["GTV_hand_01", "GTV_hand_02"]
    assert np.array_equal(made[0] | made[1], mask)
    assert {one.ROIGenerationAlgorithm for one in data.StructureSetROISequence} == {"SEMIAUTOMATIC"}
    assert {one.ROIInterpreter.family_name for one in data.RTROIObservationsSequence} == {"R1"}
    assert not any(region.is_predicted for region in regions), "what a person drew is a reference"


@pytest.mark.parametrize(("changed", "name"), [(False, "GTV_auto_"), (True, "GTV_corr_")])
def test_what_began_as_a_proposal_says_so_in_its_name(tmp_path, drawn, mask, changed, name):
    proposal = mask.copy()
    if changed:
        proposal[:, :, :6] = False
    drawn("R1", mask, proposal=proposal)
    ((line, _),) = exporting.export_study(str(tmp_path / "clinic.yaml"), None, "R1", False)
    regions = read_structure_set(Path(line.split(": ")[0])).regions
    assert [region.name for region in regions] == [f"{name}01", f"{name}02"]


def test_an_earlier_export_does_not_stay_where_a_mask_is_changed_or_empty(tmp_path, drawn, mask):
    study = str(tmp_path / "clinic.yaml")
    for reader in ("R1", "R2"):
        drawn(reader, mask)
        assert len(list(exporting.export_study(study, None, reader, False))) == 1
    drawn("R1", np.zeros_like(mask))
    ((line, _),) = exporting.export_study(study, None, "R1", False)
    assert "no lesion, so no file is written" in line
    (left,) = (tmp_path / "runs/clinic/radiotherapy").rglob("*.dcm")
    assert left.parent.name == "R2"


def test_a_case_that_cannot_be_exported_any_more_keeps_its_earlier_file_and_says_why(tmp_path, drawn, mask, capsys):
    study = str(tmp_path / "clinic.yaml")
    drawn("R1", mask)
    assert main(["export", "--study", study, "--reader", "R1"]) == 0
    (earlier,) = (tmp_path / "runs/clinic/radiotherapy").rglob("*.dcm")
    key = pd.DataFrame(columns=["kind", "name", "code"])
    header = pydicom.dcmread(slices_of(tmp_path / "export")[0])
    key.loc[0] = "examination", f"P1 {header.StudyInstanceUID}", "examination_0001"
    (tmp_path / "keys").mkdir(exist_ok=True)
    key.to_csv(tmp_path / "keys/clinic.csv", index=False)
    without_one(tmp_path / "export")
    kept = f"Nothing is written; {earlier}, of an earlier export, stays and may be outdated"
    for words in ("case examination_0001, file t1 contrast (synthetic) (", "found missing or uneven slices", kept):
        assert main(["export", "--study", study, "--reader", "R1"]) == 1
        assert words in capsys.readouterr().out
        assert earlier.is_file()
    change_all(tmp_path / "export/mr", StudyInstanceUID="1.2.3")
    assert main(["export", "--study", study, "--reader", "R1"]) == 1
    assert "found that its series is no longer in this folder" in capsys.readouterr().out
    assert earlier.is_file()


def test_an_earlier_export_goes_where_a_case_has_no_finished_mask_any_more(tmp_path, drawn, mask):
    study = str(tmp_path / "clinic.yaml")
    drawn("R1", mask)
    list(exporting.export_study(study, None, "R1", False))
    (earlier,) = (tmp_path / "runs/clinic/radiotherapy").rglob("*.dcm")
    other = earlier.rename(earlier.with_name("examination_0002.dcm"))
    assert [done for _, done in exporting.export_study(study, None, "R1", False)] == [True]
    assert earlier.is_file()
    assert not other.exists()


def test_a_series_without_frame_of_reference_gets_no_structure_set(tmp_path, image, mask):
    write_series(tmp_path / "mr", image, AXIAL, "P1", FrameOfReferenceUID="")
    (found,) = read_dicom(tmp_path).series
    nib.save(nib.Nifti1Image(mask.astype(np.uint8), found.affine_ras), tmp_path / "mask.nii.gz")
    with pytest.raises(ValueError, match="found no Frame of Reference UID; expected one"):
        exporting.write_regions(tmp_path / "rs.dcm", exporting.Drawn(tmp_path / "mask.nii.gz", "unet"), found, False)
    assert not (tmp_path / "rs.dcm").exists()


def test_masks_by_hand_that_cannot_go_out_are_told(tmp_path, drawn, mask):
    study = str(tmp_path / "clinic.yaml")
    drawn("R1", mask, finished=False)
    with pytest.raises(ValueError, match="found no finished mask of reader R1"):
        next(exporting.export_study(study, None, "R1", False))
    drawn("R1", np.zeros_like(mask))
    assert "no lesion, so no file is written" in next(exporting.export_study(study, None, "R1", False))[0]
    image = tmp_path / "runs/clinic/imported/examination_0001/image.nii.gz"
    image.write_bytes(image.read_bytes() + b"\0")
    with pytest.raises(CohortError, match="found another image; expected the image that the mask was drawn on"):
        next(exporting.export_study(study, None, "R1", False))
    for model, reader in (("unet", "R1"), (None, None)):
        with pytest.raises(ValueError, match="expected one: a network, or who drew in notebook 08"):
            next(exporting.export_study(study, model, reader, False))


def test_a_mask_without_its_record_is_named_and_not_left_out_of_an_export(tmp_path, drawn, mask):
    drawn("R1", mask)
    (tmp_path / "runs/clinic/annotations_by_hand/R1/lost.nii.gz").touch()
    with pytest.raises(
        CohortError, match=r"case lost, .*found a mask without its record; expected lost.json beside it"
    ):
        next(exporting.export_study(str(tmp_path / "clinic.yaml"), None, "R1", False))


def test_what_is_wrong_with_a_series_to_predict_names_its_folder(tmp_path, monkeypatch, image):
    a_patient(tmp_path, image)

    def fake(checkpoint, images, output, probability):
        raise CohortError.one(images[0].name, images[0], "1 sequence(s)", "3, as in training", "give them")

    monkeypatch.setattr("metaseg_nb.inference.predict.predict", fake)
    expected = rf"case t1 contrast .*, file {tmp_path / 'mr'}: found 1 sequence"
    with pytest.raises(CohortError, match=expected):
        next(exporting.predict_dicom(tmp_path / "unet", [tmp_path / "mr"], tmp_path / "out.dcm", None, False))


def test_a_prediction_is_not_written_among_the_images_it_was_made_from(tmp_path, image):
    write_series(tmp_path / "mr", image, AXIAL, "P1")
    before = {path: path.read_bytes() for path in slices_of(tmp_path)}
    for name in ("0003.dcm", "new.dcm"):
        with pytest.raises(ValueError, match="found a place in the folder of the images"):
            next(exporting.predict_dicom(tmp_path / "unet", [tmp_path / "mr"], tmp_path / "mr" / name, None, False))
    assert {path: path.read_bytes() for path in slices_of(tmp_path)} == before


def test_two_series_to_predict_are_an_error_that_names_them(tmp_path, image):
    write_series(tmp_path / "in/a", image, AXIAL, "P1")
    write_series(tmp_path / "in/b", image, AXIAL, "P2", SeriesDescription="t1 late")
    with pytest.raises(ValueError, match=r"t1 contrast \(synthetic\) \(.*\), t1 late \(.*\); expected one MR series"):
        next(exporting.predict_dicom(tmp_path / "unet", [tmp_path / "in"], tmp_path / "out.dcm", None, False))
