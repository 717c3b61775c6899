"""Networks of an earlier arm, which outline or rank what is not annotated."""

from dataclasses import dataclass

import numpy as np
import torch

from metaseg_nb.cohort.folds import Split
from metaseg_nb.cohort.problems import CohortError
from metaseg_nb.files import read_table
from metaseg_nb.inference.sliding_window import case_probability
from metaseg_nb.layout import RunLayout, StudyLayout
from metaseg_nb.preprocessing.case_store import StoredCase
from metaseg_nb.settings import Train
from metaseg_nb.training.checkpoints import identity_code, network_of
from metaseg_nb.training.finished_run import read_finished
from metaseg_nb.training.pretrained import load_unseen


@dataclass(frozen=True)
class Teachers:
    """All networks of one arm, with one seed, on one fold: they saw the same annotations, and no test patient.

    ``annotated`` are the names of the training cases whose annotations they learned from.
    """

    networks: list[torch.nn.Module]
    settings: list[Train]
    hashes: list[str]
    annotated: set[str]
    device: torch.device

    def probability(self, case: StoredCase) -> np.ndarray:
        """Mean of their lesion probabilities, float32 of shape (X, Y, Z)."""
        found = [
            case_probability(network, case, settings, self.device)
            for network, settings in zip(self.networks, self.settings, strict=True)
        ]
        return sum(found) / np.float32(len(found))


def load_teachers(settings: Train, layout: StudyLayout, parts: Split, device: torch.device) -> Teachers:
    """Load the networks of ``settings.teacher``, with the same seed, on the same fold.

    Parameters
    ----------
    settings : Train
    layout : StudyLayout
    parts : Split
        They must have learned from its training set alone.
    device : torch.device

    Raises
    ------
    CohortError
        None is trained, or one learned from a case it must not have seen.
    """
    arm = layout.run(settings.model, settings.fold, settings.teacher, settings.seed).root.parents[1]
    runs = [RunLayout(path.parent) for path in sorted(arm.glob(f"*/fold{settings.fold}/metrics.json"))]
    if not runs:
        raise CohortError.one(
            "-",
            arm,
            f"no finished network of arm {settings.teacher} on fold {settings.fold}",
            "an arm that is trained before the one that it teaches",
            "run notebook 03 with that arm first",
        )
    for run in runs:
        read_finished(run)
    contents = [load_unseen(run.best_checkpoint, parts) for run in runs]
    return Teachers(
        [network_of(content, device) for content in contents],
        [Train.check(content["identity"]["settings"]) for content in contents],
        [identity_code(content["identity"]) for content in contents],
        _annotated(runs[0]),
        device,
    )


def _annotated(run: RunLayout) -> set[str]:
    table = read_table(run.annotation_table)
    return set(table.loc[(table["role"] == "training") & (table["annotation"] == "full"), "case"])
