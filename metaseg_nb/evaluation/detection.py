"""How detection changes with the threshold: FROC, average precision, area under the ROC curve."""

import numpy as np
import pandas as pd
from scipy import stats


def froc(detections: pd.DataFrame) -> pd.DataFrame:
    """Pool the cases of one network into its FROC curve.

    Parameters
    ----------
    detections : DataFrame
        A row per (case, ``threshold``): ``patient``, ``n_truth``, ``n_detected``, ``n_false``.

    Returns
    -------
    DataFrame
        A row per threshold, from high to low: ``sensitivity`` (share of all lesions),
        ``false_per_patient``, ``precision`` (1 where nothing is predicted), and the summed counts.

    References
    ----------
    Free-response ROC: Bunch et al. 1978; Chakraborty 1989 (Med. Phys. 16:561).
    """
    patients = detections["patient"].nunique()
    curve = detections.groupby("threshold")[["n_truth", "n_detected", "n_false"]].sum().sort_index(ascending=False)
    predicted = curve["n_detected"] + curve["n_false"]
    return curve.assign(
        sensitivity=(curve["n_detected"] / curve["n_truth"].where(curve["n_truth"] > 0)).fillna(1.0),
        false_per_patient=curve["n_false"] / patients,
        precision=(curve["n_detected"] / predicted.where(predicted > 0)).fillna(1.0),
    ).reset_index()


def average_precision(curve: pd.DataFrame) -> float:
    """Area under precision over sensitivity, in steps: each gain in sensitivity counts with its precision.

    What no threshold finds counts with precision 0, as in picai_eval (Saha et al. 2024,
    Lancet Oncol. 25:879) and scikit-learn.
    """
    # a lower threshold can join two lesions' predictions or lose none: only gains are counted
    best = np.maximum.accumulate(curve["sensitivity"].to_numpy())
    return float((np.diff(best, prepend=0.0) * curve["precision"].to_numpy()).sum())


def area_under_roc(score: np.ndarray, positive: np.ndarray) -> float:
    """Chance that a positive scores higher than a negative, ties counting half; NaN without one of each.

    References
    ----------
    Mann & Whitney 1947; Hanley & McNeil 1982 (Radiology 143:29).
    """
    positive = np.asarray(positive, bool)
    n_positive, n_negative = int(positive.sum()), int((~positive).sum())
    if not (n_positive and n_negative):
        return float("nan")
    ranks = stats.rankdata(score)
    return float((ranks[positive].sum() - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative))
