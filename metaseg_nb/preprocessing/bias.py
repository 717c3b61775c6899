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


def _n4(image: np.ndarray, mask: np.ndarray, levels: int, iterations: int, shape: tuple[int, ...]) -> np.ndarray:
    return evaluate(fit_log_field(image, mask, levels, iterations), shape)


def _n4_itk(image: np.ndarray, mask: np.ndarray, levels: int, iterations: int, shape: tuple[int, ...]) -> np.ndarray:
    n4, any_mm = sitk.N4BiasFieldCorrectionImageFilter(), (1.0, 1.0, 1.0)  # the field is laid over voxels
    n4.SetMaximumNumberOfIterations([iterations] * levels)
    n4.Execute(to_sitk(image, any_mm), to_sitk(mask.astype(np.uint8), any_mm))
    return from_sitk(n4.GetLogBiasFieldAsImage(to_sitk(np.empty(shape, np.float32), any_mm)))


# Each fits the logarithm of the field to an image in a mask and evaluates it on the full shape.
# Another correction is a function here and a name in settings.
LOG_FIELDS = {"n4": _n4, "n4_itk": _n4_itk}


def correct_bias(volume: Volume, by: str, levels: int, iterations: int, fit_spacing_mm: float) -> np.ndarray:
    """Divide an image by its smooth intensity inhomogeneity.

    The field is fitted to every few voxels of the image, those that SimpleITK's ``Shrink`` keeps, inside
    `head_mask`, and evaluated at full resolution. An image that is not `is_magnitude`, such as one of
    z-scores, is not changed: a bias field multiplies signals.

    Parameters
    ----------
    volume : Volume
        Image, RAS.
    by : str
        "n4" (`preprocessing.n4`), "n4_itk" (SimpleITK's filter: the same within 0.3 %, many times slower),
        or "none".
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
    mask = head_mask(volume.array) & (volume.array > 0)  # logarithms: other values carry no field
    steps = map(min, shrink_factors(volume.spacing_mm, fit_spacing_mm), mask.shape)
    kept = tuple(slice((n % step + step) // 2, None, step) for n, step in zip(mask.shape, steps, strict=True))
    log_field = LOG_FIELDS[by](volume.array[kept], mask[kept], levels, iterations, mask.shape)
    return (volume.array / np.exp(log_field)).astype(np.float32)
