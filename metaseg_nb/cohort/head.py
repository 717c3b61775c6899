"""Where the head is in an image."""

import numpy as np
import SimpleITK as sitk

OTSU_BINS = 200


def ends_of(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First and last voxel of a mask of bool that is not empty, along each axis: int, shape (3,)."""
    places = [np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    return np.array([place[0] for place in places]), np.array([place[-1] for place in places])


def head_mask(array: np.ndarray) -> np.ndarray:
    """Mask of bool, shape (X, Y, Z), of the voxels brighter than Otsu's threshold (IEEE SMC 9(1), 1979)."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.T))
    return sitk.GetArrayFromImage(sitk.OtsuThreshold(image, 0, 1, OTSU_BINS)).T.astype(bool)
