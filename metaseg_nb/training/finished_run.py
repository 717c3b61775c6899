"""What a finished run says of itself: ``metrics.json``, with checksums of its files."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from metaseg_nb.checksums import checksum, damage, read_record, write_record
from metaseg_nb.cohort.cases import Cohort
from metaseg_nb.cohort.folds import Split
from metaseg_nb.cohort.problems import CohortError, Problem
from metaseg_nb.layout import RunLayout
from metaseg_nb.machine import provenance
from metaseg_nb.settings import Train, Training, settings_hash


def finish(run: RunLayout, content: Mapping[str, Any], files: Iterable[Path] = ()) -> None:
    """Write ``metrics.json``, the mark of a finished run, with checksums; of its weights best.pt alone is kept.

    What training went on from, with the optimiser four to eight times the size of best.pt, is of no more use.
    """
    write_record(run.metrics, content, files)
    for path in (run.other_checkpoint, run.previous_checkpoint, run.last_checkpoint):
        path.unlink(missing_ok=True)


def finish_run(
    run: RunLayout,
    settings: Train,
    cohort: Cohort,
    parts: Split,
    history: pd.DataFrame,
    best: Mapping[str, Any],
    parameters: int,
    unlikeness: Mapping[str, float] | None = None,
) -> None:
    """Write ``metrics.json``, which marks a run as finished: its settings, its cases, and checksums of its files.

    All tables and predictions are written before; later notebooks compare them with these checksums. For ``settings``,
    ``history``, ``best`` and ``parameters`` see `run_facts`; ``unlikeness`` says how far each test case lies from the
    training cases (`metaseg_nb.inference.unlikeness`).
    """
    content = {
        **run_facts(settings, history, best, parameters),
        "selection_dice": best["dice"],
        "unlikeness": dict(unlikeness or {}),
        "operating_point": settings.operating_point,
        "cases": {part: [case.name for case in getattr(parts, part)] for part in ("training", "selection", "test")},
        **scored_with(cohort),
    }
    masks = [run.predictions / f"{case.name}.nii.gz" for case in parts.test]
    follow_ups = [run.earlier_table] if run.earlier_table.is_file() else []
    finish(run, content, [*run.tables, *masks, *follow_ups])


def scored_with(cohort: Cohort) -> dict[str, Any]:
    """What the scores of a run depend on beside its predictions: the cohort's folds, rule and label files.

    Returns
    -------
    dict
        ``cohort_hash``: twelve hexadecimal digits that change when a case, its patient or its fold does, or what
        counts as lesion. ``labels``: checksum of each case's label file, empty where there is none.
    """
    cases = {case.name: [case.patient, case.fold] for case in cohort.labelled}
    files = {case.name: case.label for case in cohort.labelled}
    labels = {name: checksum(file) if file and file.is_file() else "" for name, file in files.items()}
    return {"cohort_hash": settings_hash({"cases": cases, "lesions": asdict(cohort.rule)}), "labels": labels}


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
    name, fix = run_name(run), f"run 03 for fold {run.root.name.removeprefix('fold')}"
    if not run.metrics.is_file():
        raise CohortError.one(name, run.metrics.name, "no such file", "a finished run", fix)
    fix += f" again: it uses its checkpoint, and only predicts and scores again. Its folder is {run.root}"
    if damaged := damage(run.metrics):
        raise CohortError(
            Problem(name, file, found, "the file as notebook 03 wrote it", fix) for file, found in damaged.items()
        )
    return read_record(run.metrics)


def run_name(run: RunLayout) -> str:
    """What messages call a run: network and fold."""
    return f"{run.root.parent.name}, fold {run.root.name.removeprefix('fold')}"
