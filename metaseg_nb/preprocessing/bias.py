"""Bias field correction of a volume."""

import numpy as np
import SimpleITK as sitk

from metaseg_nb.cohort.head import head_mask, is_magnitude
from metaseg_nb.cohort.volumes import Volume
from metaseg_nb.preprocessing.n4 import evaluate, fit_log_field
from metaseg_nb.preprocessing.sitk_images import from_sitk, to_sitk


def shrink_factors(spacing_mm: tuple[float, float, float], fit_spacing_mm: float) -> list[int]:
    """Shrink factor of each axis that makes voxels about ``fit_spacing_mm`` long; 1 where they are longer already."""
    return [max(1, round(fit_spacing_mm / edge)) for edge in spacing_mm]


def _n4(volume: Volume, levels: int, iterations: int, factors: list[int]) -> np.ndarray:
    # logarithms: values at or below zero carry no field
    mask = head_mask(volume.array) & (volume.array > 0)
    seen = tuple(slice(min(k, n) // 2, None, k) for k, n in zip(factors, mask.shape, strict=True))
    lattice = fit_log_field(volume.array[seen], mask[seen], levels, iterations)
    return evaluate(lattice, mask.shape)


def _n4_itk(volume: Volume, levels: int, iterations: int, factors: list[int]) -> np.ndarray:
    image = to_sitk(np.maximum(volume.array, 0), volume.spacing_mm)
    mask = to_sitk(head_mask(volume.array).astype(np.uint8), volume.spacing_mm)
    n4 = sitk.N4BiasFieldCorrectionImageFilter()
    n4.SetMaximumNumberOfIterations([iterations] * levels)
    n4.Execute(sitk.Shrink(image, factors), sitk.Shrink(mask, factors))
    return from_sitk(n4.GetLogBiasFieldAsImage(image))


# Each gives the logarithm of the field at full resolution. Another correction: a function here, a name in settings.
LOG_FIELDS = {"n4": _n4, "n4_itk": _n4_itk}


def correct_bias(volume: Volume, by: str, levels: int, iterations: int, fit_spacing_mm: float) -> np.ndarray:
    """Divide an image by its smooth intensity inhomogeneity.

    The field is fitted to every few voxels of the image, inside `head_mask`, and
    evaluated at full resolution. An image that is not `is_magnitude` stays as it is: a field
    multiplies signals, and z-scores are none.

    Parameters
    ----------
    volume : Volume
        Image, RAS.
    by : str
        "n4" (`preprocessing.n4`), "n4_itk" (SimpleITK's filter, as the study ran it: the reference, many
        times slower), or "none".
    levels : int
        Resolution levels of the B-spline field.
    iterations : int
        At most, on each level.
    fit_spacing_mm : float
        Edge of the voxels that the field is fitted to; thick slices are not shrunk across.

    Returns
    -------
    ndarray of float32, shape (X, Y, Z)
        The array of ``volume`` itself where nothing is corrected.
    """
    if by == "none" or not is_magnitude(volume.array):
        return volume.array
    log_field = LOG_FIELDS[by](volume, levels, iterations, shrink_factors(volume.spacing_mm, fit_spacing_mm))
    return (volume.array / np.exp(log_field)).astype(np.float32)
