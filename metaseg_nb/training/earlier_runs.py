"""Recognise what earlier runs left in a run's folder, so that no two runs are mixed."""

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from metaseg_nb.checksums import damage, read_record
from metaseg_nb.cohort.problems import CohortError
from metaseg_nb.layout import RunLayout
from metaseg_nb.training.checkpoints import (
    earlier_version,
    identity_code,
    load_checkpoint,
    load_ended,
    load_last,
    what_decides,
)
from metaseg_nb.training.finished_run import name_of
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
        raise CohortError.one(name_of(run), str(run.metrics), found, "the settings of the finished run", fix)


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
