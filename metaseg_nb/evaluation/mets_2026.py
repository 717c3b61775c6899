"""Lesions found and missed, small and large apart, as in BraTS-METS 2026.

The rules (package brats-evaluation 0.0.10, learned from its documentation and its results):

1. Lesions are 26-connected components. Nothing is dilated or joined, and none is too small to count.
2. Each reference lesion gets one predicted lesion at most, and each predicted lesion one reference lesion. Of all ways
   to do this, the one with the largest sum of Dice is taken. Any overlap is enough.
3. A reference lesion is found if Dice with its predicted lesion is 0.1 or more. Else it is missed.
4. A predicted lesion without a reference lesion is false. One whose Dice is below 0.1 is not.
5. Lesions of 20 mm³ and more are large. F1 = 2 found / (2 found + missed + false), for small and for large ones.
   Every false lesion, whatever its size, counts in both.
6. Lesion-wise Dice, surface Dice and HD95 are means over large reference lesions and all false lesions. One without a
   partner counts Dice 0 and HD95 373 mm. HD95 is one percentile of the distances of both directions (surface voxels).
   Surface Dice has the smallest voxel edge as its tolerance, and is the mean of the shares of both surfaces.

How this differs from 2023: of several parts of one lesion only one counts and the others are false; and a prediction
beside a lesion does not find it.
"""

import numpy as np
from scipy.optimize import linear_sum_assignment

from metaseg_nb.cohort.lesions import label_lesions
from metaseg_nb.evaluation.lesion_metrics import cropped_masks
from metaseg_nb.evaluation.voxel_metrics import ROUNDING_MM, Spacing, mask_pair, surface_distances_mm

LARGE_MM3 = 20.0
FOUND_DICE = 0.1
WITHOUT_PARTNER_MM = 373.0
# A pair is worth this more than its Dice: of equal sums of Dice the one with more pairs is taken.
PER_PAIR = 1e-6


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
    codes, shared = np.unique(reference[both].astype(np.int64) * (m + 1) + predicted[both], return_counts=True)
    overlapping, overlapped = (numbers - 1 for numbers in np.divmod(codes, m + 1))
    dice = np.zeros((n, m))
    dice[overlapping, overlapped] = 2 * shared / (sizes[overlapping] + predicted_sizes[overlapped])
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
        missed = int(own.sum()) - found
        counts = {"found": found, "missed": missed, "false": int(false.sum())}
        scores |= {f"{size}_{name}_2026": count for name, count in counts.items()}
        scores[f"f1_{size}_2026"] = f1(found, missed, int(lone.sum()))
    counted = int(large.sum() + lone.sum())
    if not counted:
        return scores | {"lesion_dice_2026": 1.0, "lesion_nsd_2026": 1.0, "lesion_hd95_mm_2026": 0.0}
    masks_of, measured = cropped_masks(reference, predicted), large[lesions]
    nsd, hd95_mm = 0.0, 0.0
    for lesion, part in zip(lesions[measured], parts[measured], strict=True):
        masks = masks_of(lesion + 1, [part + 1])
        directed = surface_distances_mm(*masks, spacing_mm)
        nsd += np.mean([np.mean(one <= min(spacing_mm) + ROUNDING_MM) for one in directed])
        hd95_mm += np.percentile(np.concatenate(directed), 95)
    return scores | {
        "lesion_dice_2026": float(dice_of[large].sum() / counted),
        "lesion_nsd_2026": float(nsd / counted),
        "lesion_hd95_mm_2026": float((hd95_mm + WITHOUT_PARTNER_MM * (counted - measured.sum())) / counted),
    }


def f1(found: int, missed: int, false: int) -> float:
    """F1 of counts: 2 found / (2 found + missed + false); 1 where there was nothing to find and nothing is false."""
    return 2 * found / (2 * found + missed + false) if found + missed + false else 1.0
