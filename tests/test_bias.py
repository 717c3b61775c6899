"""The bias field is ITK's N4, fitted another way."""

from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk

from metaseg_nb.cohort.head import head_mask
from metaseg_nb.cohort.volumes import Volume, read_volume
from metaseg_nb.demo_cohort.patients import plan_patient, render_patient
from metaseg_nb.preprocessing.bias import correct_bias, shrink_factors
from metaseg_nb.preprocessing.grid import from_sitk, to_sitk

RAS = np.array([[0, 1], [1, 1], [2, 1]])
SETTINGS = {"by": "n4", "levels": 4, "iterations": 50, "fit_spacing_mm": 4.0}


@pytest.fixture(scope="module")
def head():
    """Two tissues in an ellipsoid, with noise, seen through a smooth field; background around 0, partly negative."""
    rng = np.random.default_rng(5)
    x, y, z = np.meshgrid(*[np.linspace(-1, 1, n) for n in (50, 60, 44)], indexing="ij")
    inside = x**2 + y**2 + z**2 < 0.85**2
    tissue = np.where(np.sin(9 * x) * np.sin(8 * y) * np.cos(7 * z) > 0, 1.0, 0.7)
    field = np.exp(0.3 * x - 0.25 * y * z + 0.2 * np.cos(3 * z))
    array = 400 * (inside * tissue * field + rng.normal(0, 0.02, x.shape))
    return Volume(array.astype(np.float32), np.diag([2.0, 2.0, 2.0, 1.0]), RAS), inside


def field_of(volume, **settings):
    """What an image was divided by, where it is not 0."""
    return volume.array / correct_bias(volume, **(SETTINGS | settings))


def itk_field(volume, levels, factors):
    """SimpleITK's own field, as its documentation shows it: shrunk image and mask, field at full resolution."""
    image = to_sitk(volume.array, volume.spacing_mm)
    mask = to_sitk((head_mask(volume.array) & (volume.array > 0)).astype(np.uint8), volume.spacing_mm)
    itk = sitk.N4BiasFieldCorrectionImageFilter()
    itk.SetMaximumNumberOfIterations([50] * levels)
    itk.Execute(sitk.Shrink(image, factors), sitk.Shrink(mask, factors))
    return np.exp(from_sitk(itk.GetLogBiasFieldAsImage(image)))


def difference(found, expected):
    """Root mean square of the ratio of two fields, and its largest value; a constant factor does not count."""
    ratio = found / expected
    off = ratio / ratio.mean() - 1
    return np.sqrt((off**2).mean()), np.abs(off).max()


@pytest.mark.parametrize("levels", [1, 4])
def test_the_field_is_itks(head, levels):
    volume, inside = head
    expected = itk_field(volume, levels, [2, 2, 2])[inside]
    assert expected.std() / expected.mean() > 0.05
    for by in ("n4", "n4_itk"):
        np.testing.assert_allclose(field_of(volume, levels=levels, by=by)[inside], expected, rtol=3e-3, err_msg=by)


def test_the_field_is_itks_on_thick_slices(head):
    volume, inside = head
    thick = Volume(volume.array[:, :, ::3], np.diag([2.0, 2.0, 6.0, 1.0]), RAS)
    inside = inside[:, :, ::3]
    np.testing.assert_allclose(field_of(thick)[inside], itk_field(thick, 4, [2, 2, 1])[inside], rtol=3e-3)


def test_the_field_is_itks_on_a_synthetic_patient():
    assert_same_field(render_patient(plan_patient(0, 0))[0], 8.0)


# ms_patient26 at 8 mm: its darkest voxel comes first, which ITK's filter overlooks
REAL = [("tcga_fg6692", 8.0), ("gli_00001", 8.0), ("met_00110", 8.0), ("ms_patient26", 4.0), ("thick_brain2", 8.0)]


@pytest.mark.parametrize(("name", "fit_spacing_mm"), REAL)
def test_the_field_is_itks_on_real_volumes(shared_data, name, fit_spacing_mm):
    assert_same_field(read_volume(shared_data / f"real_t1c/images/{name}.nii.gz", name), fit_spacing_mm)


def assert_same_field(volume, fit_spacing_mm):
    volume = replace(volume, array=volume.array.astype(np.float32))
    inside = head_mask(volume.array) & (volume.array > 0)
    expected = itk_field(volume, 3, shrink_factors(volume.spacing_mm, fit_spacing_mm))[inside]
    with np.errstate(invalid="ignore"):
        found = field_of(volume, levels=3, fit_spacing_mm=fit_spacing_mm)[inside]
    mean, largest = difference(found, expected)
    assert mean < 3e-3
    assert largest < 1e-2


def test_the_scanners_scale_does_not_change_the_field(head):
    volume, inside = head
    brighter = Volume(7 * volume.array, volume.affine, RAS)
    np.testing.assert_allclose(field_of(brighter)[inside], field_of(volume)[inside], rtol=1e-3)


def test_what_lies_outside_the_head_does_not_change_the_field(head):
    volume, inside = head
    emptied = Volume(np.where(head_mask(volume.array), volume.array, -1), volume.affine, RAS)
    np.testing.assert_allclose(field_of(emptied)[inside], field_of(volume)[inside], rtol=1e-5)


@pytest.mark.parametrize(("inside", "outside"), [(5.0, 5.0), (0.0, 0.0), (-2.0, -2.0), (5.0, 0.0), (-2.0, -9.0)])
def test_an_image_without_contrast_has_no_field(inside, outside):
    array = np.full((8, 8, 8), outside, np.float32)
    array[2:6, 2:6, 2:6] = inside
    np.testing.assert_array_equal(correct_bias(Volume(array, np.eye(4), RAS), **SETTINGS), array)


def test_values_below_zero_in_the_head_carry_no_field(head):
    volume, inside = head
    array = np.where(inside, volume.array, -3000)
    array[inside & (np.indices(array.shape).sum(axis=0) % 5 == 0)] = -1
    corrected = correct_bias(Volume(array.astype(np.float32), volume.affine, RAS), **SETTINGS)
    assert np.isfinite(corrected).all()


def test_a_slice_thinner_than_the_fits_voxels_is_kept(head):
    volume, _ = head
    slab = Volume(volume.array[:, :, 20:24], volume.affine, RAS)
    corrected = correct_bias(slab, **(SETTINGS | {"fit_spacing_mm": 20.0}))
    assert corrected.shape == slab.array.shape
    assert np.isfinite(corrected).all()
