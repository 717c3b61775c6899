"""Weights to start from, which learned without labels (03b), and whom they must not have seen."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from metaseg_nb.cohort.folds import Split
from metaseg_nb.cohort.problems import CohortError, Problem
from metaseg_nb.layout import RunLayout
from metaseg_nb.settings import Pretrain
from metaseg_nb.training.checkpoints import load_checkpoint
from metaseg_nb.training.finished_run import finish, run_facts


def pretrained(run: RunLayout, parts: Split) -> Path:
    """Checkpoint of a finished pretraining that saw no case of a fold's test and selection set.

    Raises
    ------
    FileNotFoundError
        The pretraining is not finished.
    CohortError
        It saw a case that it must not have seen.
    """
    if not run.metrics.is_file():
        raise FileNotFoundError(f"no {run.metrics}; pretrain this network on this fold, with this seed, first (03b)")
    load_unseen(run.best_checkpoint, parts)
    return run.best_checkpoint


def load_unseen(checkpoint: Path, parts: Split) -> dict[str, Any]:
    """Load a checkpoint whose network saw no case of a fold's test and selection set, with or without its label.

    Raises
    ------
    CohortError
        With every such case that it saw.
    """
    content = load_checkpoint(checkpoint)
    seen = content["identity"]["cases"]
    problems = [
        Problem(
            case.name,
            str(checkpoint),
            f"it was trained with this case of the {name} set",
            "weights that saw no case of selection and test set",
            "train that network again on the folds of this study",
        )
        for name, part in (("selection", parts.selection), ("test", parts.test))
        for case in part
        if case.name in seen
    ]
    if problems:
        raise CohortError(problems)
    return content


def finish_pretraining(
    run: RunLayout,
    settings: Pretrain,
    parts: Split,
    history: pd.DataFrame,
    best: Mapping[str, Any],
    parameters: int,
) -> None:
    """Write ``metrics.json``, the mark of a finished pretraining; see `run_facts`."""
    content = {
        **run_facts(settings, history, best, parameters),
        "variance_restored": best["variance_restored"],
        "cases": {part: [case.name for case in getattr(parts, part)] for part in ("training", "selection")},
    }
    finish(run, content)
