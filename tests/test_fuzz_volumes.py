"""Random headers and damage: a file is read as SimpleITK reads it, or it is one problem of its case."""

import gzip
import struct

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metaseg_nb.cohort.cases import Case
from metaseg_nb.cohort.checks import header_problems
from metaseg_nb.cohort.nifti_files import open_nifti
from metaseg_nb.cohort.problems import CohortError
from metaseg_nb.cohort.volumes import read_voxels

FIXED = {
    "derandomize": True,
    "deadline": None,
    "database": None,
    "suppress_health_check": [HealthCheck.function_scoped_fixture],
}
SHAPE = (5, 6, 7)
AFFINE = np.array([[0, -1.5, 0, 10], [2, 0, 0, -20], [0, 0, 3, 5], [0, 0, 0, 1.0]])
# Where a header says what matters: sizes, type, edges, offset and scale, unit, codes, quaternion, sform, magic word.
PARTS = [(0, 4), (40, 16), (70, 4), (76, 16), (108, 12), (123, 1), (252, 4), (256, 24), (280, 48), (344, 8)]
NUMBERS = st.sampled_from([0.0, -1.0, 0.5, 1.0, 2.0, 1e-30, 1e30, float("nan"), float("inf")])


@st.composite
def changes(draw):
    """An offset of the header and the bytes that are put there."""
    start, length = draw(st.sampled_from(PARTS))
    if length >= 4 and draw(st.booleans()):
        return start + 4 * draw(st.integers(0, length // 4 - 1)), struct.pack("<f", draw(NUMBERS))
    return start + draw(st.integers(0, length - 1)), bytes([draw(st.integers(0, 255))])


def whole():
    image = nib.Nifti1Image(np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE), None)
    image.set_qform(AFFINE, 1)
    image.set_sform(AFFINE, 1)
    return image.to_bytes()


def read(path):
    """The file and its voxels in its own order, and what is said of its header; None where it is refused."""
    case = Case("a", (path,), None, "a", "unknown")
    try:
        file = open_nifti(path, "a")
        said = header_problems(case, str(path), file)
        volume = read_voxels(file)
    except CohortError as error:
        assert len(error.problems) == 1
        assert error.problems[0].case == "a"
        return None
    ras = nib.orientations.axcodes2ornt("RAS")
    back = nib.orientations.ornt_transform(ras, volume.native_orientation)
    return file, nib.orientations.apply_orientation(volume.array, back), said


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@given(changed=st.lists(changes(), min_size=1, max_size=3))
@settings(max_examples=400, **FIXED)
def test_any_header_is_read_as_by_simpleitk_or_is_a_problem(tmp_path, changed):
    raw, path = bytearray(whole()), tmp_path / "image.nii"
    for offset, content in changed:
        raw[offset : offset + len(content)] = content
    path.write_bytes(raw)
    outcome = read(path)
    if outcome is None:
        return
    file, array, said = outcome
    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError:
        return
    np.testing.assert_allclose(array, sitk.GetArrayFromImage(image).T, rtol=1e-5, atol=1e-6)
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in file.shape])).reshape(3, -1).T
    there = [image.TransformIndexToPhysicalPoint(corner.tolist()) for corner in corners]
    here = nib.affines.apply_affine(file.affine, corners) * [-1, -1, 1]
    assert said or np.allclose(here, there, atol=0.15, rtol=1e-3)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), level=st.sampled_from([0, 6]))
@settings(max_examples=150, **FIXED)
def test_any_flipped_bit_of_a_gzip_file_is_found_or_changes_nothing(tmp_path, place, bit, level):
    packed, path = bytearray(gzip.compress(whole(), level, mtime=0)), tmp_path / "image.nii.gz"
    packed[int(place * len(packed))] ^= 1 << bit
    path.write_bytes(packed)
    outcome = read(path)
    assert outcome is None or np.array_equal(outcome[1], np.arange(np.prod(SHAPE)).reshape(SHAPE))


@given(content=st.binary(max_size=600), name=st.sampled_from(["a.nii", "a.nii.gz", "a.dcm", "a"]), packed=st.booleans())
@settings(max_examples=150, **FIXED)
def test_any_bytes_are_a_problem_and_no_traceback(tmp_path, content, name, packed):
    path = tmp_path / name
    path.write_bytes(gzip.compress(content) if packed else content)
    assert read(path) is None


@given(cut=st.integers(0, len(whole()) - 1), packed=st.booleans())
@settings(max_examples=100, **FIXED)
def test_a_file_cut_anywhere_is_a_problem(tmp_path, cut, packed):
    raw = gzip.compress(whole()) if packed else whole()
    path = tmp_path / ("a.nii.gz" if packed else "a.nii")
    path.write_bytes(raw[: min(cut, len(raw) - 1)])
    assert read(path) is None
