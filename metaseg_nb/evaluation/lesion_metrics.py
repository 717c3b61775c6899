"""How well the lesions of a case are found and segmented, lesion by lesion: as in BraTS-METS 2023, and as in 2026.

In both, lesions are 26-connected components.

2023 (Moawad et al. 2023, arXiv:2306.00838; evaluation code of BraTS 2023), `lesion_metrics`:

1. The reference is dilated by one voxel (faces and edges: 18 neighbours).
   Reference lesions whose dilations touch are one lesion.
2. A predicted component belongs to every reference lesion whose dilation it
   touches. A reference lesion is compared with all its components together,
   each of them whole.
3. Reference lesions of 2 mm³ or less are ignored, but what touches them is not false.
4. A missed lesion and a false component count Dice 0 and HD95 374 mm.
5. HD95 is measured by surface area (`surface_area_hd95_mm`), not by surface voxels.

2026 (package brats-evaluation 0.0.10, learned from its documentation and its results), `mets_2026`, small and large
lesions apart:

1. Nothing is dilated or joined, and no lesion is too small to count.
2. Each reference lesion gets one predicted lesion at most, and each predicted lesion one reference lesion. Of all ways
   to do this, the one with the largest sum of Dice is taken. Any overlap is enough.
3. A reference lesion is found if Dice with its predicted lesion is 0.1 or more. Else it is missed.
4. A predicted lesion without a reference lesion is false. One whose Dice is below 0.1 is not.
5. Lesions of 20 mm³ and more are large. F1 = 2 found / (2 found + missed + false), for small and for large ones.
   Every false lesion, whatever its size, counts in both.
6. Lesion-wise Dice, surface Dice and HD95 are means over large reference lesions and all false lesions. One without a
   partner counts Dice 0 and HD95 373 mm. HD95 is one percentile of the distances of both directions (surface voxels).
   Surface Dice has the smallest voxel edge as its tolerance, and is the mean of the shares of both surfaces.

So in 2026 only one of several parts of one lesion counts and the others are false; and a prediction beside a lesion
does not find it.
"""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from scipy import ndimage
from scipy.optimize import linear_sum_assignment

from metaseg_nb.cohort.lesions import UNSCORED_MM3, dilate_by_one, is_scored, label_lesions, lesion_table
from metaseg_nb.evaluation.voxel_metrics import (
    MISSED_HD95_MM,
    ROUNDING_MM,
    Spacing,
    mask_pair,
    surface_area_hd95_mm,
    surface_distances_mm,
)

LESION_COLUMNS = ["lesion", "volume_mm3", "diameter_mm", "x", "y", "z", "detected", "dice", "hd95_mm"]
# Of 2026.
LARGE_MM3 = 20.0
FOUND_DICE = 0.1
WITHOUT_PARTNER_MM = 373.0
# A pair is worth this more than its Dice: of equal sums of Dice the one with more pairs is taken.
PER_PAIR = 1e-6


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
    lesions = lesions.assign(lesion=np.arange(1, len(lesions) + 1), **scores)[LESION_COLUMNS].reset_index(drop=True)
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


def mets_2026(truth: np.ndarray, prediction: np.ndarray, spacing_mm: Spacing) -> dict[str, float]:
    """Compute the metrics of BraTS-METS 2026 of one case; see the rules above.

    Parameters
    ----------
    truth, prediction : ndarray of bool (or 0 and 1), shape (X, Y, Z)
    spacing_mm : tuple of 3 floats
        Voxel edges along X, Y, Z.

    Returns
    -------
    dict
        Of large and, alike, of small lesions: ``large_found_2026`` and ``large_missed_2026`` (reference lesions),
        ``large_false_2026`` (false lesions of that size), ``f1_large_2026`` (0 to 1; with false lesions of both sizes).
        ``lesion_dice_2026``, ``lesion_nsd_2026`` (0 to 1), ``lesion_hd95_mm_2026``. Where the official package has no
        value, because no reference lesion has that size: perfect (1, 1, 0 mm) without false lesions, else the worst
        (0, 0, 373 mm). Over cases add up the counts, do not average F1.

    Raises
    ------
    ValueError
        Not binary, not 3D, of different shapes, or spacing not 3 positive lengths.
    """
    truth, prediction, _ = mask_pair(truth, prediction, spacing_mm)
    (reference, n), (predicted, m) = label_lesions(truth), label_lesions(prediction)
    sizes = np.bincount(reference[truth], minlength=n + 1)[1:]
    predicted_sizes = np.bincount(predicted[prediction], minlength=m + 1)[1:]
    both = truth & prediction
    codes = reference[both].astype(np.int64) * (m + 1) + predicted[both]
    shared = np.bincount(codes, minlength=(n + 1) * (m + 1)).reshape(n + 1, m + 1)[1:, 1:]
    dice = 2 * shared / (sizes[:, None] + predicted_sizes)
    partners = linear_sum_assignment(dice + PER_PAIR * (dice > 0), maximize=True)
    lesions, parts = (numbers[dice[partners] > 0] for numbers in partners)
    dice_of, lone = np.zeros(n), np.ones(m, bool)
    dice_of[lesions], lone[parts] = dice[lesions, parts], False
    # an affine in float32 makes 20 mm³ of twenty voxels 19.999999: equal must stay equal
    voxels = LARGE_MM3 / float(np.prod(spacing_mm)) * (1 - 1e-5)
    large, false_large = sizes >= voxels, predicted_sizes[lone] >= voxels
    scores: dict[str, float] = {}
    for size, own, false in (("large", large, false_large), ("small", ~large, ~false_large)):
        found = int((dice_of[own] >= FOUND_DICE).sum())
        missed, mistakes = int(own.sum()) - found, int(own.sum()) - found + int(lone.sum())
        scores |= {f"{size}_found_2026": found, f"{size}_missed_2026": missed, f"{size}_false_2026": int(false.sum())}
        scores[f"f1_{size}_2026"] = 2 * found / (2 * found + mistakes) if found + mistakes else 1.0
    counted, measured = int(large.sum() + lone.sum()), large[lesions]
    masks_of = cropped_masks(reference, predicted)
    nsd, hd95_mm = 0.0, 0.0
    for lesion, part in zip(lesions[measured], parts[measured], strict=True):
        masks = masks_of(lesion + 1, [part + 1])
        directed = surface_distances_mm(*masks, spacing_mm)
        nsd += np.mean([np.mean(one <= min(spacing_mm) + ROUNDING_MM) for one in directed])
        hd95_mm += np.percentile(np.concatenate(directed), 95)
    hd95_mm += WITHOUT_PARTNER_MM * (counted - measured.sum())
    return scores | {
        "lesion_dice_2026": float(dice_of[large].sum() / counted) if counted else 1.0,
        "lesion_nsd_2026": float(nsd / counted) if counted else 1.0,
        "lesion_hd95_mm_2026": float(hd95_mm / counted) if counted else 0.0,
    }
