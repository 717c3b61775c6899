"""N4 bias field correction (Tustison et al., IEEE TMI 29(6), 2010), by SimpleITK."""

import numpy as np
import SimpleITK as sitk

from metaseg_nb.cohort.head import head_mask
from metaseg_nb.cohort.volumes import Volume

# Width of the kernel that sharpens the histogram. Narrower than N4's 0.15 makes up for the coarser fit: on ten
# synthetic volumes the error against the true field is below that of the fit to voxels twice the image's.
SHARPENING_FWHM = 0.125


def to_sitk(array: np.ndarray, spacing_mm: tuple[float, float, float], origin_mm=(0.0, 0.0, 0.0)) -> sitk.Image:
    """Make a SimpleITK image of an (X, Y, Z) array; its axes stay the array's, rotation is left out."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.T))
    image.SetSpacing([float(edge) for edge in spacing_mm])
    image.SetOrigin([float(x) for x in origin_mm])
    return image


def from_sitk(image: sitk.Image) -> np.ndarray:
    """Give the (X, Y, Z) array of a SimpleITK image."""
    return np.ascontiguousarray(sitk.GetArrayFromImage(image).T)


def shrink_factors(spacing_mm: tuple[float, float, float], fit_spacing_mm: float) -> list[int]:
    """Shrink factor of each axis that makes voxels about ``fit_spacing_mm`` long; 1 where they are longer already."""
    return [max(1, round(fit_spacing_mm / edge)) for edge in spacing_mm]


def correct_bias(volume: Volume, levels: int, iterations: int, fit_spacing_mm: float) -> np.ndarray:
    """Divide an image by its smooth intensity inhomogeneity.

    The field is fitted to the image shrunk by block subsampling, inside
    `head_mask`, and evaluated at full resolution.

    Parameters
    ----------
    volume : Volume
        Image, RAS.
    levels : int
        Resolution levels of the B-spline field; 0 leaves the image as it is.
    iterations : int
        At most, on each level.
    fit_spacing_mm : float
        Edge of the voxels that the field is fitted to; thick slices are not shrunk across.

    Returns
    -------
    ndarray of float32, shape (X, Y, Z)
    """
    if levels == 0:
        return volume.array
    # N4 works on logarithms: values at or below zero carry no field
    image = to_sitk(np.maximum(volume.array, 0), volume.spacing_mm)
    mask = to_sitk(head_mask(volume.array).astype(np.uint8), volume.spacing_mm)
    factors = shrink_factors(volume.spacing_mm, fit_spacing_mm)
    n4 = sitk.N4BiasFieldCorrectionImageFilter()
    n4.SetMaximumNumberOfIterations([iterations] * levels)
    n4.SetBiasFieldFullWidthAtHalfMaximum(SHARPENING_FWHM)
    n4.Execute(sitk.Shrink(image, factors), sitk.Shrink(mask, factors))
    field = from_sitk(n4.GetLogBiasFieldAsImage(image))
    return (volume.array / np.exp(field)).astype(np.float32)
