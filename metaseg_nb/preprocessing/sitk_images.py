"""SimpleITK images of arrays, and back."""

import numpy as np
import SimpleITK as sitk


def to_sitk(array: np.ndarray, spacing_mm: tuple[float, float, float], origin_mm=(0.0, 0.0, 0.0)) -> sitk.Image:
    """Make a SimpleITK image of an (X, Y, Z) array; its axes stay the array's, rotation is left out."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.T))
    image.SetSpacing([float(edge) for edge in spacing_mm])
    image.SetOrigin([float(x) for x in origin_mm])
    return image


def from_sitk(image: sitk.Image) -> np.ndarray:
    """Give the (X, Y, Z) array of a SimpleITK image."""
    return np.ascontiguousarray(sitk.GetArrayFromImage(image).T)
