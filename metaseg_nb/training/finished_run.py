"""What a finished run says of itself: ``metrics.json``, with checksums of its files."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from metaseg_nb.checksums import damage, read_record, write_record
from metaseg_nb.cohort.problems import CohortError, Problem
from metaseg_nb.layout import RunLayout
from metaseg_nb.machine import provenance
from metaseg_nb.settings import Training


def finish(run: RunLayout, content: Mapping[str, Any], files: Iterable[Path] = ()) -> None:
    """Write ``metrics.json``, the mark of a finished run, with checksums; of its weights best.pt alone is kept.

    What training went on from, with the optimiser four to eight times the size of best.pt, is of no more use.
    """
    write_record(run.metrics, content, files)
    for path in (run.other_checkpoint, run.previous_checkpoint, run.last_checkpoint):
        path.unlink(missing_ok=True)


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
        "weights": best.get("weights", "chosen"),
        "best_epoch": best["epoch"],
        "other_epoch": best.get("other_epoch"),
        "last_epoch": int(history["epoch"].iloc[-1]),
        "recipe": best["identity"]["recipe"],
        "settings": settings.model_dump(),
        "provenance": provenance(),
    }


def read_finished(run: RunLayout) -> dict[str, Any]:
    """Read ``metrics.json``, the mark of a finished run, and compare the run's tables and predictions with it.

    Raises
    ------
    CohortError
        The run is not finished, or with every file that is lost or not as it was when the run finished.
    """
    name, fix = name_of(run), f"run 03 for fold {run.root.name.removeprefix('fold')}"
    if not run.metrics.is_file():
        raise CohortError.one(name, run.metrics.name, "no such file", "a finished run", fix)
    fix += f" again: it uses its checkpoint, and only predicts and scores again. Its folder is {run.root}"
    if damaged := damage(run.metrics):
        raise CohortError(
            Problem(name, file, found, "the file as notebook 03 wrote it", fix) for file, found in damaged.items()
        )
    return read_record(run.metrics)


def name_of(run: RunLayout) -> str:
    """What messages call a run: network and fold."""
    return f"{run.root.parent.name}, fold {run.root.name.removeprefix('fold')}"
