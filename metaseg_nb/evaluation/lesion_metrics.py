"""How well the lesions of a case are found and segmented, lesion by lesion, as in BraTS-METS 2023.

The rules (Moawad et al. 2023, arXiv:2306.00838; evaluation code of BraTS 2023):

1. Lesions are 26-connected components.
2. The reference is dilated by one voxel (faces and edges: 18 neighbours).
   Reference lesions whose dilations touch are one lesion.
3. A predicted component belongs to every reference lesion whose dilation it
   touches. A reference lesion is compared with all its components together,
   each of them whole.
4. Reference lesions of 2 mm³ or less are ignored, but what touches them is not false.
5. A missed lesion and a false component count Dice 0 and HD95 374 mm.
6. HD95 is measured by surface area (`surface_area_hd95_mm`), not by surface voxels.
"""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from scipy import ndimage

from metaseg_nb.cohort.lesions import UNSCORED_MM3, dilate_by_one, is_scored, label_lesions, lesion_table
from metaseg_nb.evaluation.voxel_metrics import MISSED_HD95_MM, Spacing, mask_pair, surface_area_hd95_mm

COLUMNS = ["lesion", "volume_mm3", "diameter_mm", "x", "y", "z", "detected", "dice", "hd95_mm"]


def lesion_metrics(
    truth: np.ndarray, prediction: np.ndarray, spacing_mm: Spacing
) -> tuple[dict[str, float], pd.DataFrame]:
    """Compute the lesion metrics of one case; see the rules above.

    Parameters
    ----------
    truth, prediction : ndarray of bool (or 0 and 1), shape (X, Y, Z)
    spacing_mm : tuple of 3 floats
        Voxel edges along X, Y, Z.

    Returns
    -------
    summary : dict
        Counts: ``n_truth`` (reference lesions kept), ``n_prediction`` (predicted
        components), ``n_detected`` and ``n_missed`` (of the kept), ``n_false`` (of the
        predicted). Means over kept and false lesions: ``lesion_dice`` (0 to 1) and
        ``lesion_hd95_mm``; 1 and 0 mm when there are none. Ratios, 0 to 1:
        ``lesion_sensitivity`` = n_detected / n_truth and ``lesion_precision`` =
        1 - n_false / n_prediction. One that is 0/0 is 1 when nothing was missed and
        nothing false, else 0; over cases add up the counts, do not average ratios.
    lesions : DataFrame
        One row per kept reference lesion: ``lesion`` (1..n), ``volume_mm3``,
        ``diameter_mm`` (largest; over all parts when dilation joined several),
        ``x``, ``y``, ``z`` (centroid, voxel indices), ``detected`` (bool), ``dice``,
        ``hd95_mm``.

    Raises
    ------
    ValueError
        Not binary, not 3D, of different shapes, or spacing not 3 positive lengths.
    """
    truth, prediction, box = mask_pair(truth, prediction, spacing_mm)
    grown, n_reference, predicted, n_prediction, touching = _matched(truth, prediction)
    reference = np.where(truth, grown, 0)
    lesions = lesion_table(reference, n_reference, spacing_mm)
    lesions[["x", "y", "z"]] += [axis.start for axis in box]
    lesions = lesions[is_scored(lesions["volume_mm3"], UNSCORED_MM3)]
    masks_of = cropped_masks(reference, predicted)
    scores: dict[str, list] = {"detected": [], "dice": [], "hd95_mm": []}
    for lesion in lesions["lesion"]:
        parts = touching.loc[touching["lesion"] == lesion, "part"]
        own, found = masks_of(lesion, parts)
        scores["detected"].append(len(parts) > 0)
        scores["dice"].append(2 * np.count_nonzero(own & found) / (np.count_nonzero(own) + np.count_nonzero(found)))
        scores["hd95_mm"].append(surface_area_hd95_mm(own, found, spacing_mm))
    lesions = lesions.assign(lesion=np.arange(1, len(lesions) + 1), **scores)[COLUMNS].reset_index(drop=True)
    return _summary(lesions, n_prediction, n_prediction - touching["part"].nunique()), lesions


def detection_counts(truth: np.ndarray, prediction: np.ndarray, spacing_mm: Spacing) -> dict[str, int]:
    """Count as `lesion_metrics` does, and measure no lesion: many times faster.

    Returns
    -------
    dict
        ``n_truth``, ``n_detected``, ``n_false``.
    """
    truth, prediction, _ = mask_pair(truth, prediction, spacing_mm)
    grown, n_reference, _, n_prediction, touching = _matched(truth, prediction)
    volumes_mm3 = np.bincount(grown[truth], minlength=n_reference + 1) * float(np.prod(spacing_mm))
    kept = is_scored(volumes_mm3, UNSCORED_MM3)
    return {
        "n_truth": int(kept[1:].sum()),
        "n_detected": int(kept[touching["lesion"].unique()].sum()),
        "n_false": n_prediction - touching["part"].nunique(),
    }


def _matched(truth: np.ndarray, prediction: np.ndarray) -> tuple[np.ndarray, int, np.ndarray, int, pd.DataFrame]:
    """Label the dilated reference and the prediction; a row for each ``lesion`` and ``part`` of these that touch."""
    grown, n_reference = label_lesions(dilate_by_one(truth))
    predicted, n_prediction = label_lesions(prediction)
    both = (grown > 0) & (predicted > 0)
    touching = pd.DataFrame({"lesion": grown[both], "part": predicted[both]}).drop_duplicates()
    return grown, n_reference, predicted, n_prediction, touching


def cropped_masks(
    reference: np.ndarray, predicted: np.ndarray
) -> Callable[[int, Sequence[int] | pd.Series], tuple[np.ndarray, np.ndarray]]:
    """Make what cuts out a labelled lesion (1..n), and predicted ones together, in the smallest box that holds all."""
    boxes, predicted_boxes = ndimage.find_objects(reference), ndimage.find_objects(predicted)

    def masks_of(lesion: int, parts: Sequence[int] | pd.Series) -> tuple[np.ndarray, np.ndarray]:
        along = zip(boxes[lesion - 1], *(predicted_boxes[part - 1] for part in parts), strict=True)
        box = tuple(slice(min(edge.start for edge in edges), max(edge.stop for edge in edges)) for edges in along)
        return reference[box] == lesion, np.isin(predicted[box], parts)

    return masks_of


def _summary(lesions: pd.DataFrame, n_prediction: int, n_false: int) -> dict[str, float]:
    n_truth, n_detected = len(lesions), int(lesions["detected"].sum())
    n_missed, counted = n_truth - n_detected, n_truth + n_false
    no_mistake = float(n_missed + n_false == 0)
    return {
        "n_truth": n_truth,
        "n_prediction": n_prediction,
        "n_detected": n_detected,
        "n_missed": n_missed,
        "n_false": n_false,
        "lesion_dice": float(lesions["dice"].sum() / counted) if counted else 1.0,
        "lesion_hd95_mm": float((lesions["hd95_mm"].sum() + n_false * MISSED_HD95_MM) / counted) if counted else 0.0,
        "lesion_sensitivity": n_detected / n_truth if n_truth else no_mistake,
        "lesion_precision": 1 - n_false / n_prediction if n_prediction else no_mistake,
    }
