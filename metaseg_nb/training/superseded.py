"""Runs with other settings: kept beside the present one, and taken up again when their settings come back."""

from pathlib import Path

from metaseg_nb.layout import RunLayout


def set_aside(run: RunLayout, code: str) -> Path:
    """Move all that the run in a folder left into ``superseded_<code>``, so that nothing is mixed and nothing is lost.

    What says that the run is finished goes first, and what it would go on from goes last: broken off, it is
    done again.
    """
    aside = run.root / f"superseded_{code}"
    aside.mkdir(exist_ok=True)
    for path in (*run.results, *run.trained):
        _move(path, aside / path.name)
    return aside


def bring_back(run: RunLayout, code: str) -> bool:
    """Move what training left in ``superseded_<code>`` back; tell whether there was anything."""
    aside = RunLayout(run.root / f"superseded_{code}")
    there = aside.last_checkpoint.exists() or aside.previous_checkpoint.exists()
    for path in aside.trained:
        _move(path, run.root / path.name)
    if there and not any(aside.root.iterdir()):
        aside.root.rmdir()
    return there


def _move(path: Path, to: Path) -> None:
    if not path.exists():
        return
    if to.is_dir():  # an earlier one of the same settings, kept in part when a move broke off
        for inner in list(path.iterdir()):
            _move(inner, to / inner.name)
        path.rmdir()
    else:
        path.replace(to)
