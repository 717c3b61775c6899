"""Label cleaning: from the values of a label file to the mask that networks learn from.

Each rule counts what it changed. By default the physician's mask stays as it is: values are merged
or thresholded as the study states, and lesions outside the head are reported, not removed. Files are
never changed, and predictions are scored against the mask as it was drawn: a rule that cleans what
networks learn from must not make their scores look better.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import ndimage

from metaseg_nb.cohort.cases import LesionRule
from metaseg_nb.cohort.head import Head
from metaseg_nb.cohort.lesions import find_lesions, outside_lesions
from metaseg_nb.cohort.volumes import Volume, lesion_mask


@dataclass(frozen=True)
class CleanedLabel:
    """A mask of bool, shape (X, Y, Z), and how many voxels or lesions each rule met."""

    mask: np.ndarray
    counts: dict[str, int]


def clean_label(label: Volume, rule: LesionRule, head: Head | None, settings: Mapping[str, Any]) -> CleanedLabel:
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
    CleanedLabel
        Counts: ``lesion_values`` (different ones merged to one), ``other_voxels`` (declared as something
        else, now background), ``grey_voxels`` (between the darkest and the brightest value, decided by the
        threshold), ``filled_voxels``, ``specks`` and ``speck_voxels`` (removed), ``outside_lesions`` and
        ``outside_voxels`` (outside the head, dropped or not).
    """
    mask = lesion_mask(label.array, rule)
    counts = _value_counts(label.array, mask, rule)
    filled = fill_holes(mask) if settings["fill_holes"] else mask
    kept, specks = remove_specks(filled, label.spacing_mm, settings["min_lesion_mm3"])
    inside, outside = _drop_outside(kept, label.spacing_mm, head)
    counts |= {
        "filled_voxels": int(filled.sum() - mask.sum()),
        "specks": specks,
        "speck_voxels": int(filled.sum() - kept.sum()),
        "outside_lesions": outside,
        "outside_voxels": int(kept.sum() - inside.sum()),
    }
    return CleanedLabel(inside if settings["outside_head"] == "drop" else kept, counts)


def fill_holes(mask: np.ndarray) -> np.ndarray:
    """Fill the cavities of each lesion that its voxels close off on all sides, in 3D; mask of bool, same shape."""
    filled = mask.copy()
    lesions = find_lesions(mask, (1.0, 1.0, 1.0))
    for lesion, box in lesions.boxes.items():
        filled[box] |= ndimage.binary_fill_holes(lesions.labels[box] == lesion)
    return filled


def remove_specks(
    mask: np.ndarray, spacing_mm: tuple[float, float, float], min_lesion_mm3: float
) -> tuple[np.ndarray, int]:
    """Remove lesions smaller than ``min_lesion_mm3``; the mask that is left, and how many went."""
    lesions = find_lesions(mask, spacing_mm)
    voxel_mm3 = float(np.prod(spacing_mm))
    small = [lesion for lesion in lesions.boxes if len(lesions.voxels(lesion)) * voxel_mm3 < min_lesion_mm3]
    return mask & ~np.isin(lesions.labels, small), len(small)


def _drop_outside(
    mask: np.ndarray, spacing_mm: tuple[float, float, float], head: Head | None
) -> tuple[np.ndarray, int]:
    """Whole lesions, never parts: one at the brain's rim must not be cut."""
    if head is None:
        return mask, 0
    lesions = find_lesions(mask, spacing_mm)
    outside = outside_lesions(lesions, head)
    return mask & ~np.isin(lesions.labels, outside), len(outside)


def _value_counts(array: np.ndarray, mask: np.ndarray, rule: LesionRule) -> dict[str, int]:
    if rule.threshold > 0:
        grey = (array > array.min()) & (array < array.max())
        return {"lesion_values": 1, "other_voxels": 0, "grey_voxels": int(grey.sum())}
    values = np.unique(np.rint(array[mask]))
    return {
        "lesion_values": len(values),
        "other_voxels": int((np.rint(array) != 0).sum() - mask.sum()),
        "grey_voxels": 0,
    }
