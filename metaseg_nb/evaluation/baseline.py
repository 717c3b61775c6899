"""An intensity threshold as baseline: what a network must be better than to be worth its training."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from metaseg_nb.cohort.cases import Cohort
from metaseg_nb.cohort.folds import split
from metaseg_nb.cohort.volumes import read_lesions
from metaseg_nb.evaluation.scoring import as_tables, score_against
from metaseg_nb.inference.decision import Decision, native_mask
from metaseg_nb.preprocessing.case_store import StoredCase, open_cases
from metaseg_nb.preprocessing.intensity import intensity_range
from metaseg_nb.settings import THRESHOLD_MODEL

# Thresholds divide the range of intensities into so many parts.
N_THRESHOLDS = 100


def score_threshold(cohort: Cohort, case_store: Path, folds: Sequence[int]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Score the baseline, an intensity threshold: chosen on each fold's other patients, applied to its test set.

    Returns
    -------
    metrics, lesions : DataFrame
        As of `score_cases`, with ``model`` and ``threshold``.
    """
    scored, stored = [], {case.name: case for case in open_cases(case_store, cohort.labelled, cohort.rule)}
    for fold in tqdm(folds, desc="scoring the intensity threshold"):
        parts = split(cohort, fold)
        threshold = threshold_of([stored[case.name] for case in [*parts.training, *parts.selection]])
        for case in parts.test:
            truth, own = read_lesions(case, cohort.rule), stored[case.name]
            mask = native_mask(_within_reach(own), own.grid, own.native, Decision(threshold, threshold, 0.0))
            row, found = score_against(case, truth, replace(truth, array=mask))
            row = {"model": THRESHOLD_MODEL, "threshold": threshold, **row}
            scored.append((row, found.assign(model=THRESHOLD_MODEL)))
    return as_tables(scored)


def threshold_of(cases: Sequence[StoredCase]) -> float:
    """The intensity whose mean Dice over the patients of these cases is highest; a patient's cases are averaged."""
    dice = pd.DataFrame([dice_by_threshold(case) for case in cases])
    mean = dice.groupby([case.patient for case in cases]).mean().mean()
    return float(_edges(cases[0])[mean.argmax() + 1])


def dice_by_threshold(case: StoredCase) -> np.ndarray:
    """Dice of ``image >= threshold`` within reach of the head, at each inner threshold of the scale; first sequence.

    Returns
    -------
    ndarray of float, shape (N_THRESHOLDS - 1,)
        For a case without lesion: 0, as any threshold marks something.
    """
    edges, label = _edges(case), case.label > 0
    image = np.clip(_within_reach(case), edges[0], edges[-1])
    above, hit = (np.histogram(part, edges)[0][::-1].cumsum()[::-1][1:] for part in (image, image[label]))
    return 2 * hit / np.maximum(1, above + label.sum())


def _edges(case: StoredCase) -> np.ndarray:
    return np.linspace(*intensity_range(case.recipe), N_THRESHOLDS + 1)


def _within_reach(case: StoredCase) -> np.ndarray:
    """The first sequence, darkest beyond reach of the head: no network predicts there either."""
    return np.where(case.reach, case.image[0].astype(np.float32), np.float32(intensity_range(case.recipe)[0]))
