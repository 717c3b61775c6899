"""Cleaning of masks: values are merged, holes filled, specks removed, as the study states.

Each rule counts what it changed. By default the physician's mask stays as it is: values are merged
or thresholded as the study states, and lesions outside the head are reported, not removed. Files are
never changed, and predictions are scored against the mask as it was drawn: a rule that cleans what
networks learn from must not make their scores look better.
"""

from collections.abc import Mapping
from typing import Any

import cc3d
import numpy as np
from scipy import ndimage

from metaseg_nb.cohort.cases import LesionRule
from metaseg_nb.cohort.head import Head
from metaseg_nb.cohort.lesions import find_lesions, label_lesions, outside_lesions
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
        threshold), ``filled_voxels``, ``specks`` (removed) and ``outside_lesions`` (outside the head, dropped or not).
    """
    array, mask, is_grey = label.array, lesion_mask(label.array, rule), rule.threshold > 0
    filled = ndimage.binary_fill_holes(mask) if settings["fill_holes"] else mask
    kept = remove_specks(filled, label.spacing_mm, settings["min_lesion_mm3"])
    lesions = find_lesions(kept, label.spacing_mm)
    outside = outside_lesions(lesions, head) if head else []
    counts = {
        "lesion_values": 1 if is_grey else len(np.unique(np.rint(array[mask]))),
        "other_voxels": 0 if is_grey else int((np.rint(array) != 0).sum() - mask.sum()),
        "grey_voxels": int(((array > array.min()) & (array < array.max())).sum()) if is_grey else 0,
        "filled_voxels": int(filled.sum() - mask.sum()),
        "specks": label_lesions(filled)[1] - lesions.n,
        "outside_lesions": len(outside),
    }
    if settings["outside_head"] == "drop":  # whole lesions, never parts: one at the brain's rim must not be cut
        kept &= ~np.isin(lesions.labels, outside)
    return kept, counts


def remove_specks(mask: np.ndarray, spacing_mm: tuple[float, float, float], min_lesion_mm3: float) -> np.ndarray:
    """Remove lesions smaller than ``min_lesion_mm3`` from a mask of bool."""
    smallest = min_lesion_mm3 / float(np.prod(spacing_mm))
    return cc3d.dust(mask.astype(np.uint8), smallest, connectivity=26).astype(bool)
