"""Finished runs: what one left is read only where it is whole, and as it was when the run finished."""

from typing import Any

from metaseg_nb.checksums import damage, read_record
from metaseg_nb.cohort.problems import CohortError, Problem
from metaseg_nb.layout import RunLayout


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
