"""Cleaning of masks: values are merged, holes filled, specks removed, as the study states.

Each rule counts what it changed. By default the physician's mask stays as it is: values are merged
or thresholded as the study states, and lesions outside the head are reported, not removed. Files are
never changed, and predictions are scored against the mask as it was drawn: a rule that cleans what
networks learn from must not make their scores look better.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy import ndimage

from metaseg_nb.cohort.cases import LesionRule
from metaseg_nb.cohort.head import Head
from metaseg_nb.cohort.lesions import Lesions, find_lesions, outside_lesions
from metaseg_nb.cohort.volumes import Volume, lesion_mask


def clean_label(
    label: Volume, rule: LesionRule, head: Head | None, settings: Mapping[str, Any]
) -> tuple[np.ndarray, dict[str, int]]:
    """Merge or threshold the values of a label, then fill holes, remove specks and judge what lies outside the head.

    Parameters
    ----------
    label : Volume
        The values of a label file, from `read_values`.
    rule : LesionRule
    head : Head or None
        Of the image on the same grid; None where it shows none, and then nothing lies outside.
    settings : mapping
        ``fill_holes`` (bool), ``min_lesion_mm3`` (0: all are kept), ``outside_head`` ("flag" or "drop").

    Returns
    -------
    mask : ndarray of bool, shape (X, Y, Z)
    counts : dict
        ``lesion_values`` (different ones merged to one), ``other_voxels`` (declared as something
        else, now background), ``grey_voxels`` (between the darkest and the brightest value, decided by the
        threshold), ``filled_voxels``, ``specks`` and ``speck_voxels`` (removed), ``outside_lesions`` and
        ``outside_voxels`` (outside the head, dropped or not).
    """
    array, mask, is_grey = label.array, lesion_mask(label.array, rule), rule.threshold > 0
    filled = fill_holes(mask) if settings["fill_holes"] else mask
    lesions = find_lesions(filled, label.spacing_mm)
    specks = _specks(lesions, settings["min_lesion_mm3"])
    # Whole lesions, never parts: one at the brain's rim must not be cut.
    outside = [lesion for lesion in outside_lesions(lesions, head) if lesion not in specks] if head else []
    speck_voxels, outside_voxels = (np.isin(lesions.labels, numbers) for numbers in (specks, outside))
    counts = {
        "lesion_values": 1 if is_grey else len(np.unique(np.rint(array[mask]))),
        "other_voxels": 0 if is_grey else int((np.rint(array) != 0).sum() - mask.sum()),
        "grey_voxels": int(((array > array.min()) & (array < array.max())).sum()) if is_grey else 0,
        "filled_voxels": int(filled.sum() - mask.sum()),
        "specks": len(specks),
        "speck_voxels": int(speck_voxels.sum()),
        "outside_lesions": len(outside),
        "outside_voxels": int(outside_voxels.sum()),
    }
    removed = speck_voxels | outside_voxels if settings["outside_head"] == "drop" else speck_voxels
    return filled & ~removed, counts


def fill_holes(mask: np.ndarray) -> np.ndarray:
    """Fill the cavities of each lesion that its voxels close off on all sides, in 3D; mask of bool, same shape."""
    filled = mask.copy()
    lesions = find_lesions(mask, (1.0, 1.0, 1.0))
    for lesion, box in lesions.boxes.items():
        filled[box] |= ndimage.binary_fill_holes(lesions.labels[box] == lesion)
    return filled


def remove_specks(mask: np.ndarray, spacing_mm: tuple[float, float, float], min_lesion_mm3: float) -> np.ndarray:
    """Remove lesions smaller than ``min_lesion_mm3`` from a mask of bool."""
    lesions = find_lesions(mask, spacing_mm)
    return mask & ~np.isin(lesions.labels, _specks(lesions, min_lesion_mm3))


def _specks(lesions: Lesions, min_lesion_mm3: float) -> list[int]:
    voxel_mm3 = float(np.prod(lesions.spacing_mm))
    return [lesion for lesion in lesions.boxes if len(lesions.voxels(lesion)) * voxel_mm3 < min_lesion_mm3]
