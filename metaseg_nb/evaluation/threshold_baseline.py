"""The floor: an intensity threshold, chosen and scored in the same folds as a network."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from metaseg_nb.cohort.cases import Case, Cohort, LesionRule
from metaseg_nb.cohort.folds import split
from metaseg_nb.cohort.labels import read_lesions
from metaseg_nb.evaluation.fold_results import score_against
from metaseg_nb.inference.decision import Decision, native_mask
from metaseg_nb.preprocessing.case_store import StoredCase, open_cases, require_rule
from metaseg_nb.preprocessing.intensity import intensity_range
from metaseg_nb.settings import THRESHOLD_MODEL as MODEL

BINS = 100


def dice_by_threshold(case: StoredCase) -> np.ndarray:
    """Dice of ``image >= threshold`` within reach of the head, for the inner `_edges` of its scale; first sequence.

    Returns
    -------
    ndarray of float, shape (BINS - 1,)
        For a case without lesion: 0, as any threshold marks something.
    """
    edges, label = _edges(case), case.label > 0
    image = np.clip(_within_reach(case), edges[0], edges[-1])
    above = np.histogram(image, edges)[0][::-1].cumsum()[::-1][1:]
    hit = np.histogram(image[label], edges)[0][::-1].cumsum()[::-1][1:]
    return 2 * hit / np.maximum(1, above + label.sum())


def threshold_of(cases: Sequence[StoredCase]) -> float:
    """The intensity whose mean Dice over these cases is highest."""
    mean = np.mean([dice_by_threshold(case) for case in cases], axis=0)
    return float(_edges(cases[0])[np.argmax(mean) + 1])


def _within_reach(case: StoredCase) -> np.ndarray:
    """The first sequence, darkest beyond reach of the head: no network predicts there either."""
    return np.where(case.reach, case.image[0].astype(np.float32), np.float32(intensity_range(case.recipe)[0]))


def _edges(case: StoredCase) -> np.ndarray:
    return np.linspace(*intensity_range(case.recipe), BINS + 1)


def score_threshold(cohort: Cohort, case_store: Path, folds: Sequence[int]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Score a threshold in cross-validation: chosen on each fold's other patients, applied to its test set.

    Returns
    -------
    metrics, lesions : DataFrame
        As of `score_cases`, with ``model`` and ``threshold``.
    """
    rows, lesions = [], []
    stored = {case.name: case for case in open_cases(case_store, cohort.cases)}
    require_rule(stored.values(), cohort.rule)
    for fold in tqdm(folds, desc="intensity threshold, folds"):
        parts = split(cohort, fold)
        chosen = threshold_of([stored[case.name] for case in [*parts.training, *parts.selection]])
        for case in parts.test:
            row, found = _score(case, stored[case.name], cohort.rule, chosen)
            rows.append({"model": MODEL, "threshold": chosen, **row})
            lesions.append(found.assign(model=MODEL))
    return pd.DataFrame(rows), pd.concat(lesions, ignore_index=True)


def _score(case: Case, stored: StoredCase, rule: LesionRule, threshold: float) -> tuple[dict, pd.DataFrame]:
    truth = read_lesions(case, rule)
    mask = native_mask(_within_reach(stored), stored.grid, stored.native, Decision(threshold, 0.0))
    return score_against(case, truth, replace(truth, array=mask))
