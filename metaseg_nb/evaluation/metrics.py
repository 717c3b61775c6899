"""The metrics of a case and how they are shown. A metric of your own is one function in this module.

Write it with `metric` above it, as below; it is then computed for every new run, has its column in every table and
its row in the leaderboard. `python -m metaseg_nb rescore --study NAME` computes it for a finished study::

    @metric("relative volume error", digits=2)
    def volume_error(truth, prediction, spacing_mm):
        return abs(int(prediction.sum()) - int(truth.sum())) / max(1, int(truth.sum()))

It must give a finite number for every case, also where a mask is empty.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from metaseg_nb.evaluation.lesion_metrics import lesion_metrics
from metaseg_nb.evaluation.surfaces import Spacing, as_mask
from metaseg_nb.evaluation.voxel_metrics import voxel_metrics

Compute = Callable[[np.ndarray, np.ndarray, Spacing], float]


@dataclass(frozen=True)
class Metric:
    """How a metric is shown; ``compute`` is the function of one of your own."""

    title: str
    digits: int = 3
    compute: Compute | None = None


# Beside Dice, by column; averaged over patients in the leaderboard, in this order.
METRICS = {
    "hd95_mm": Metric("HD95, mm", 1),
    "nsd_1mm": Metric("surface Dice at 1 mm"),
    "nsd_2mm": Metric("surface Dice at 2 mm"),
    "precision": Metric("precision"),
    "recall": Metric("recall"),
    "lesion_dice": Metric("lesion-wise Dice"),
}


def metric(title: str, digits: int = 3) -> Callable[[Compute], Compute]:
    """Make a function of two masks a metric; its name becomes the name of its column.

    Parameters
    ----------
    title : str
        Its name in the leaderboard.
    digits : int
        Digits after the point there.
    """

    def add(compute: Compute) -> Compute:
        METRICS[compute.__name__] = Metric(title, digits, compute)
        return compute

    return add


def case_metrics(
    truth: np.ndarray, prediction: np.ndarray, spacing_mm: Spacing
) -> tuple[dict[str, float], pd.DataFrame]:
    """Compute all metrics of one case.

    Parameters
    ----------
    truth, prediction : ndarray of bool (or 0 and 1), shape (X, Y, Z)
    spacing_mm : tuple of 3 floats

    Returns
    -------
    scores : dict
        The keys of `voxel_metrics`, of your own metrics, and of the summary of `lesion_metrics`.
    lesions : DataFrame
        From `lesion_metrics`.

    Raises
    ------
    ValueError
        Not binary, not 3D, of different shapes, spacing not 3 positive lengths; a metric of your own is not finite.
    """
    scores = voxel_metrics(truth, prediction, spacing_mm)
    masks = as_mask(truth, "truth"), as_mask(prediction, "prediction")
    own = {name: float(it.compute(*masks, spacing_mm)) for name, it in METRICS.items() if it.compute}
    if wrong := {name: value for name, value in own.items() if not np.isfinite(value)}:
        raise ValueError(f"metrics: found {wrong}; expected a finite number for every case, also where a mask is empty")
    summary, lesions = lesion_metrics(*masks, spacing_mm)
    return {**scores, **own, **summary}, lesions
