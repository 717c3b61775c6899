"""From probabilities to lesions: what of a probability becomes lesion, how that is chosen, and masks on a case's grid.

It is chosen on the selection set, by lesions: how many are found and how well, against how many are false.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy.special import logit

from metaseg_nb.cohort.head import ends_of
from metaseg_nb.cohort.lesions import UNSCORED_MM3, dilate_by_one, is_scored, label_lesions
from metaseg_nb.preprocessing.grid import Grid, resample, resample_lesions
from metaseg_nb.preprocessing.steps import remove_specks

THRESHOLDS = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95])
PEAKS = np.array([*THRESHOLDS, 0.98, 0.99])
# No more than a ball of 3.4 mm: larger lesions are treated.
MIN_LESIONS_MM3 = np.array([0.0, 5.0, 10.0, 20.0])
# How many lesions a false one counts as.
OPERATING_POINTS = {"balanced": 1.0, "sensitive": 0.25, "specific": 4.0}


@dataclass(frozen=True)
class Decision:
    """What of a probability becomes lesion: a low threshold contours, a higher one finds.

    Lesions are 26-connected components of the voxels that reach ``threshold``, if their highest probability reaches
    ``peak`` and their volume ``min_lesion_mm3``.
    """

    threshold: float
    peak: float
    min_lesion_mm3: float

    def __str__(self) -> str:
        found = f", with a peak ≥ {self.peak:.2f}" if self.peak > self.threshold else ""
        return f"probability ≥ {self.threshold:.2f}{found}, lesions ≥ {self.min_lesion_mm3:g} mm³"


# While networks train, and where nothing was chosen.
UNDECIDED = Decision(0.5, 0.5, 0.0)
# Where the choice starts. A step of 1 in the logit away from there must gain this lesion-wise Dice in a single patient,
# or the n-th part of it in n patients (benchmarks/choosing.py): few move the choice hardly at all, many move it freely.
PRIOR = Decision(0.5, 0.95, 0.0)
PENALTY = 0.05


def decision_of(checkpoint: Mapping[str, Any]) -> Decision | None:
    """The decision a checkpoint holds; None before the end of training."""
    if "decision" not in checkpoint:
        return None
    decision = checkpoint["decision"]
    return Decision(**{"peak": decision["threshold"], **decision})  # those of earlier versions have no peak


def dice(twice_both: np.ndarray, total: np.ndarray) -> np.ndarray:
    """Dice of twice the voxels that two masks share and the sum of both's voxels; 1 where both are empty."""
    return np.where(total > 0, twice_both / np.maximum(total, 1), 1.0)


def standing(probability: np.ndarray, decision: Decision) -> np.ndarray:
    """Set to 0 the components of ``probability >= decision.threshold`` that do not reach ``decision.peak``."""
    parts, n = label_lesions(probability >= decision.threshold)
    inside = parts > 0
    peaks = peaks_of(probability[inside], parts[inside], n)
    return np.where(inside & (peaks < decision.peak)[parts], 0, probability)


def peaks_of(probability: np.ndarray, parts: np.ndarray, n: int) -> np.ndarray:
    """Highest probability of each part 0 to n, from the probability and the part of each voxel; 0 without voxels."""
    peaks = np.zeros(n + 1)
    np.maximum.at(peaks, parts, probability)
    return peaks


def native_mask(probability: np.ndarray, grid: Grid, native: Grid, decision: Decision) -> np.ndarray:
    """Lesions on a case's own grid, by `resample_lesions`; components that are too small there are removed.

    Parameters
    ----------
    probability : ndarray, shape ``grid.shape``
    grid : Grid
        The study grid.
    native : Grid
        The case's own.
    decision : Decision

    Returns
    -------
    ndarray of uint8, shape ``native.shape``
    """
    mask = resample_lesions(standing(probability, decision), grid, native, decision.threshold)
    return remove_specks(mask, native.spacing_mm, decision.min_lesion_mm3).astype(np.uint8)


def native_probability(probability: np.ndarray, grid: Grid, native: Grid) -> np.ndarray:
    """Probabilities on a case's own grid, float32, by linear interpolation; 0 where the study grid does not reach.

    Cut at the threshold they give about the mask of `native_mask`, which unlike them keeps each lesion's volume.
    """
    return resample(probability, grid, native).clip(0, 1)


class Outcome(NamedTuple):
    """What every decision makes of one case, or of a patient's cases in the mean.

    ``n_lesions`` is the number of scored reference lesions. ``dice`` is the sum of their Dice, and ``false`` the number
    of false lesions: float arrays of shape (thresholds, peaks, smallest lesions).
    """

    n_lesions: float
    dice: np.ndarray
    false: np.ndarray


def decisions_by_patients(outcomes: Iterable[Sequence[Outcome]]) -> dict[str, Decision]:
    """Choose a decision for each of `OPERATING_POINTS`, of the outcomes of each patient's cases; see `best_decision`.

    Cases of one patient are averaged: they are no independent evidence, and the patient counts once.
    """
    patients = [Outcome(*(np.mean(part, axis=0) for part in zip(*cases, strict=True))) for cases in outcomes]
    return {name: best_decision(patients, weight) for name, weight in OPERATING_POINTS.items()}


def best_decision(outcomes: Sequence[Outcome], false_weight: float = 1.0) -> Decision:
    """Decision with the highest lesion-wise Dice over all lesions of the selection set, less its distance from `PRIOR`.

    The Dice counts as often as there are patients, and the distance once. So the prior is kept where they say
    nothing: where none has a lesion, a decision that forbids everything would seem best. A decision that finds no
    lesion at all is taken only where none finds one: networks trained little reach no peak of 0.95.

    Parameters
    ----------
    outcomes : sequence of Outcome
        One of each patient, of the study grid, where the labels are: lesions keep their volume on the way to the
        native grid, so what is best here is best there.
    false_weight : float
        How many lesions a false one counts as.
    """
    n_lesions = sum(one.n_lesions for one in outcomes)
    found, false = (np.sum([getattr(one, name) for one in outcomes], axis=0) for name in ("dice", "false"))
    if not np.any(found):
        return PRIOR
    score = np.where(found > 0, len(outcomes) * found / (n_lesions + false_weight * false), -np.inf)
    steps = (logit(THRESHOLDS) - logit(PRIOR.threshold))[:, None], logit(PEAKS) - logit(PRIOR.peak)
    score = score - PENALTY * (steps[0] ** 2 + steps[1] ** 2)[..., None]
    score[THRESHOLDS[:, None] > PEAKS] = -np.inf  # a peak below the threshold decides nothing
    i, j, k = np.unravel_index(score.round(9).argmax(), score.shape)
    return Decision(float(THRESHOLDS[i]), float(PEAKS[j]), float(MIN_LESIONS_MM3[k]))


def outcome_of(probability: np.ndarray, truth: np.ndarray, spacing_mm: tuple[float, float, float]) -> Outcome:
    """Match the lesions of all decisions with the reference, as `lesion_metrics` does; each threshold is labelled once.

    Parameters
    ----------
    probability : ndarray, shape (X, Y, Z)
        Lesion probability, 0 to 1, finite.
    truth : ndarray of bool, shape (X, Y, Z)
    spacing_mm : tuple of 3 floats
        Voxel edges along X, Y, Z.
    """
    dice, false = np.zeros((2, len(THRESHOLDS), len(PEAKS), len(MIN_LESIONS_MM3)))
    possible = (probability >= THRESHOLDS[0]) | truth
    if not possible.any():
        return Outcome(0, dice, false)
    box = tuple(slice(max(0, low - 1), high + 2) for low, high in zip(*ends_of(possible), strict=True))
    probability, truth, voxel_mm3 = probability[box], truth[box], float(np.prod(spacing_mm))
    grown, n = label_lesions(dilate_by_one(truth))
    reference = np.bincount(grown[truth], minlength=n + 1)
    scored = np.flatnonzero(is_scored(reference * voxel_mm3, UNSCORED_MM3))
    inside_lesions = np.where(truth, grown, 0)
    for i, threshold in enumerate(THRESHOLDS):
        parts, n_parts = label_lesions(probability >= threshold)
        inside = parts > 0
        part = parts[inside]
        peaks = peaks_of(probability[inside], part, n_parts)
        voxels = np.bincount(part, minlength=n_parts + 1)
        touching = _shared_voxels(part, grown[inside], (n_parts + 1, n + 1)) > 0
        hits = _shared_voxels(part, inside_lesions[inside], (n_parts + 1, n + 1))
        kept = (peaks >= PEAKS[:, None])[:, None] & (voxels * voxel_mm3 >= MIN_LESIONS_MM3[:, None])
        kept[..., 0] = False  # the background
        predicted = kept @ (touching * voxels[:, None])
        dice[i] = (2 * (kept @ hits) / np.maximum(1, reference + predicted))[..., scored].sum(axis=-1)
        false[i] = kept @ (~touching.any(axis=1)).astype(int)
    return Outcome(len(scored), dice, false)


def _shared_voxels(parts: np.ndarray, lesions: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Voxels that each part shares with each lesion, of ``shape``; those in no lesion are not counted."""
    shared = np.bincount(parts.astype(np.int64) * shape[1] + lesions, minlength=shape[0] * shape[1]).reshape(shape)
    shared[:, 0] = 0
    return shared
