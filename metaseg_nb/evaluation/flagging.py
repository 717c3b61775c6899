"""Whether the distance from the training cases flags the patients in whom a network fails."""

from collections.abc import Sequence

import pandas as pd

from metaseg_nb.evaluation.calibration import FAILURE_DICE, area_under_roc
from metaseg_nb.evaluation.intervals import named


def flagged_failures(metrics: pd.DataFrame, models: Sequence[str], n_bootstrap: int, seed: int) -> pd.DataFrame:
    """Compare the distance from the training cases with the Dice of each patient.

    Parameters
    ----------
    metrics : DataFrame
        From `pool`: ``model``, ``patient``, ``dice``, ``unlikeness``. A patient's cases are averaged.
    models : sequence of str
    n_bootstrap, seed
        Of the interval, over patients.

    Returns
    -------
    DataFrame
        A row per network whose distances are known: ``model``, ``patients``, ``failures`` (Dice below `FAILURE_DICE`),
        ``flagged`` (distance above 1), ``flagged_failures``, and ``auroc`` with ``_low`` and ``_high``: the chance that
        a failure lies farther away than a success; NaN without one of each.
    """
    known = metrics.dropna(subset="unlikeness").groupby(["model", "patient"])[["dice", "unlikeness"]].mean()
    rows = []
    for model in (name for name in models if name in known.index.levels[0]):
        own = known.loc[model]
        failed, flagged = own["dice"] < FAILURE_DICE, own["unlikeness"] > 1
        counts = {"patients": len(own), "failures": failed.sum(), "flagged": flagged.sum()}
        area = area_under_roc(own["unlikeness"].to_numpy(), failed.to_numpy(), n_bootstrap, seed)
        rows.append({"model": model, **counts, "flagged_failures": (failed & flagged).sum(), **named("auroc", area)})
    counted = ["model", "patients", "failures", "flagged", "flagged_failures"]
    return pd.DataFrame(rows, columns=[*counted, "auroc", "auroc_low", "auroc_high"])
