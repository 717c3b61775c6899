"""Recognise finished and unfinished runs in a folder, so that no two runs are mixed."""

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from metaseg_nb.checksums import damage, read_record, write_record
from metaseg_nb.cohort.problems import CohortError, Problem
from metaseg_nb.layout import RunLayout
from metaseg_nb.machine import provenance
from metaseg_nb.settings import Training, settings_hash
from metaseg_nb.training.checkpoints import (
    earlier_version,
    identity_code,
    load_checkpoint,
    load_ended,
    load_last,
    what_decides,
)
from metaseg_nb.training.patches import PatchBatches


def is_finished(run: RunLayout, batches: PatchBatches, facts: Mapping[str, Any] | None = None) -> bool:
    """Tell whether a run is finished, so that it is shown and not made again.

    Parameters
    ----------
    run : RunLayout
    batches : PatchBatches
        What is trained, and with what settings.
    facts : mapping, optional
        What ``metrics.json`` must say too, such as with which labels the run was scored.

    Returns
    -------
    bool
        False too where a table or a prediction of a finished run is lost or was changed, or where ``facts`` are
        others now: then the test set is predicted and scored again, with the same weights.

    Raises
    ------
    CohortError
        The run was finished with other settings, cases or labels in training; or by an earlier version, which did not
        note all ``facts``.
    """
    require_same(run, batches.identity())
    if not run.metrics.is_file() or damage(run.metrics):
        return False
    record, facts = read_record(run.metrics), facts or {}
    if not facts.keys() <= record.keys():
        raise earlier_version(run)
    return all(record[name] == value for name, value in facts.items())


def require_same(run: RunLayout, identity: Mapping[str, Any]) -> None:
    """Refuse to go on where a run was finished that differs; see `is_finished`."""
    if not run.metrics.is_file():
        return
    if differing := differences(load_checkpoint(run.best_checkpoint)["identity"], identity):
        found = f"a finished run with other settings ({_in_words(differing)})"
        fix = f"give the new run another study name; or, to train this one again, delete the folder {run.root} yourself"
        raise CohortError.one(_name(run), str(run.metrics), found, "the settings of the finished run", fix)


def make_room(run: RunLayout, identity: Mapping[str, Any]) -> None:
    """Move what an unfinished run of other settings left into ``superseded_<code>``; move back a run of these settings.

    A run is also unfinished where Snakemake, given a changed study file, has deleted its metrics.json.

    Raises
    ------
    CohortError
        The run that is there is finished, and of other settings.
    """
    require_same(run, identity)
    if left := load_last(run) or load_ended(run):
        if not (differing := differences(left["identity"], identity)):
            return
        folder = run.root / f"superseded_{identity_code(left['identity'])}"
        # what training goes on from is moved last, so that an interrupted move is done again
        _move([*run.results, *run.trained], folder)
        print(f"An earlier run had other settings ({_in_words(differing)}). It is kept in {folder.name}.")
    earlier = RunLayout(run.root / f"superseded_{identity_code(identity)}")
    if any(path.exists() for path in earlier.trained):
        _move(earlier.trained, run.root)
        print("An earlier run with these settings is continued.")


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
    name, fix = _name(run), f"run 03 for fold {run.root.name.removeprefix('fold')}"
    if not run.metrics.is_file():
        raise CohortError.one(name, run.metrics.name, "no such file", "a finished run", fix)
    fix += " again: it uses its checkpoint, and only predicts and scores again"
    fix += " (`python -m metaseg_nb status --study ...` prints the command)"
    if damaged := damage(run.metrics):
        raise CohortError(
            Problem(name, file, found, "the file as notebook 03 wrote it", fix) for file, found in damaged.items()
        )
    return read_record(run.metrics)


def _name(run: RunLayout) -> str:
    return f"{run.root.parent.name}, fold {run.root.name.removeprefix('fold')}"


def _move(paths: Iterable[Path], into: Path) -> None:
    """Move files and folders; those of the same name, of an earlier run of the same settings, are replaced."""
    into.mkdir(exist_ok=True)
    for path in paths:
        if path.exists():
            target = into / path.name
            shutil.rmtree(target) if target.is_dir() else target.unlink(missing_ok=True)
            path.replace(target)


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """What decides a result and differs in two identities of checkpoints: the value then and the value now, by key."""
    # checkpoints of earlier versions do not know their selection set, nor settings that came later and are not used
    before = {"selection": now.get("selection", {}), **before}
    old, new = (
        {(part, key): value for part, values in what_decides(identity).items() for key, value in values.items()}
        for identity in (before, now)
    )
    return {
        place[1]: (old.get(place), new.get(place))
        for place in sorted(old.keys() | new.keys())
        if old.get(place) != new.get(place) and (place in old or new[place])
    }


def _in_words(differing: Mapping[str, tuple[Any, Any]]) -> str:
    return "; ".join(f"{key}: {then} then, {now} now" for key, (then, now) in differing.items())
