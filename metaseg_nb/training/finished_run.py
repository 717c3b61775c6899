"""Finished runs: what each says of itself, and what it left, read only where it is as when the run finished."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from metaseg_nb.checksums import damage, read_record
from metaseg_nb.cohort.problems import CohortError, Problem
from metaseg_nb.layout import RunLayout
from metaseg_nb.provenance import provenance
from metaseg_nb.settings import Training, settings_hash


def run_facts(settings: Training, history: pd.DataFrame, best: Mapping[str, Any], parameters: int) -> dict[str, Any]:
    """What every finished run says of itself: what was trained, how long, and with what.

    Parameters
    ----------
    settings : Training
    history : DataFrame
        From `fit`.
    best : mapping
        The checkpoint that was kept.
    parameters : int
        Trained values of the network.
    """
    return {
        "model": settings.model,
        "fold": settings.fold,
        "parameters": parameters,
        "train_seconds": float(history["seconds"].iloc[-1]),
        "best_epoch": best["epoch"],
        "last_epoch": int(history["epoch"].iloc[-1]),
        "recipe": best["identity"]["recipe"],
        "settings": settings.model_dump(),
        "settings_hash": settings_hash(settings),
        "provenance": provenance(),
    }


def read_finished(run: RunLayout) -> dict[str, Any]:
    """Read ``metrics.json``, the mark of a finished run, and compare the run's tables and predictions with it.

    Raises
    ------
    CohortError
        The run is not finished, or with every file that is lost or not as it was when the run finished.
    """
    fold = run.root.name.removeprefix("fold")
    name, fix = f"{run.root.parent.name}, fold {fold}", f"run 03 for fold {fold}"
    if not run.metrics.is_file():
        raise CohortError.one(name, run.metrics.name, "no such file", "a finished run", fix)
    fix += " again: it goes on from its checkpoint, and only predicts and scores anew"
    fix += " (`python -m metaseg_nb status --study ...` prints the command)"
    if damaged := damage(run.metrics):
        raise CohortError(
            Problem(name, file, found, "the file as notebook 03 wrote it", fix) for file, found in damaged.items()
        )
    return read_record(run.metrics)
