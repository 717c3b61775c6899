"""Where the head is in an image."""

import numpy as np
import SimpleITK as sitk

OTSU_BINS = 200


def head_mask(array: np.ndarray) -> np.ndarray:
    """Mask of bool, shape (X, Y, Z), of the voxels brighter than Otsu's threshold (IEEE SMC 9(1), 1979)."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.T))
    return sitk.GetArrayFromImage(sitk.OtsuThreshold(image, 0, 1, OTSU_BINS)).T.astype(bool)
