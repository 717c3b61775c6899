"""Trained networks that predict together: one run's, or those of all folds of a model for patients none of them saw."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from metaseg_nb.cohort.problems import CohortError, Problem
from metaseg_nb.inference.decision import UNDECIDED, Decision, decision_of
from metaseg_nb.inference.sliding_window import predict_probability
from metaseg_nb.layout import RunLayout
from metaseg_nb.settings import Train, deciding
from metaseg_nb.training.checkpoints import load_checkpoint, network_of, other_versions


@dataclass(frozen=True)
class Ensemble:
    """Networks of one model, trained on other folds of one study with the same settings.

    ``decision`` has the mean threshold and the median smallest lesion of theirs; ``undecided`` are the
    checkpoints that hold none, as their training did not finish: for them it is 0.5 and 0. ``paths`` are all
    checkpoints; ``other_versions`` names the libraries that they were made with another version of.
    """

    networks: list[torch.nn.Module]
    settings: Train
    recipe: dict[str, Any]
    decision: Decision
    undecided: list[Path]
    paths: list[Path]
    other_versions: str

    def probability(self, image: np.ndarray, reach: np.ndarray, device: torch.device) -> np.ndarray:
        """Mean of the networks' probabilities; see `predict_probability`.

        Raises
        ------
        ValueError
            Probabilities of a network are no finite numbers; names its checkpoint.
        """
        total = np.float32(0)
        for path, network in zip(self.paths, self.networks, strict=True):
            try:
                total = total + predict_probability(network, image, reach, self.settings, device)
            except FloatingPointError as error:
                raise ValueError(f"{path}: {error}") from error
        return total / np.float32(len(self.networks))

    def __str__(self) -> str:
        rule = f"probability ≥ {self.decision.threshold:.2f}, lesions ≥ {self.decision.min_lesion_mm3:g} mm³"
        assumed = ", ".join(f"{path.parent.name}/{path.name}" for path in self.undecided)
        warning = (
            f"; no threshold was chosen for {assumed}, whose training did not finish: "
            f"{UNDECIDED.threshold} and {UNDECIDED.min_lesion_mm3:g} mm³ are assumed"
        )
        made = f"; made with {self.other_versions}: results may differ a little" if self.other_versions else ""
        return f"{len(self.networks)} network(s), {rule}{warning if assumed else ''}{made}"


def load_ensemble(checkpoint: Path, device: torch.device) -> Ensemble:
    """Load a run's network, or the networks of all folds of a model.

    Parameters
    ----------
    checkpoint : path
        ``best.pt`` of a run; or a model's folder, ``runs/<study>/<model>``, for those of all its folds.
    device : torch.device

    Raises
    ------
    FileNotFoundError, ValueError
        There is no checkpoint, or one that cannot be trusted; see `load_checkpoint`.
    CohortError
        The folds' settings or recipes differ, or a fold whose training began has no best.pt.
    """
    paths = _checkpoints(Path(checkpoint))
    contents = [load_checkpoint(path) for path in paths]
    _require_one_identity(paths, contents)
    identity, decisions = contents[0]["identity"], [decision_of(content) for content in contents]
    return Ensemble(
        [network_of(content, device, path) for path, content in zip(paths, contents, strict=True)],
        Train.check(identity["settings"]),
        identity["recipe"],
        _joined([decision or UNDECIDED for decision in decisions]),
        [path for path, decision in zip(paths, decisions, strict=True) if decision is None],
        paths,
        "; ".join(sorted(set(map(other_versions, contents)) - {""})),
    )


def _checkpoints(checkpoint: Path) -> list[Path]:
    if not checkpoint.is_dir():
        return [checkpoint]
    runs = [RunLayout(root) for root in sorted(checkpoint.glob("fold*"))]
    lost = [run for run in runs if not run.best_checkpoint.is_file() and _was_trained(run)]
    if lost:
        expected = "the weights of a fold whose training began"
        fix = "run notebook 03 for this fold again and do as it says, or give the best.pt of another fold"
        raise CohortError(
            Problem(run.root.name, str(run.best_checkpoint), "no such file", expected, fix) for run in lost
        )
    paths = [run.best_checkpoint for run in runs if run.best_checkpoint.is_file()]
    if not paths:
        raise FileNotFoundError(
            f"no fold<k>/best.pt in {checkpoint}; give a model's folder, runs/<study>/<model>, or the best.pt of a run"
        )
    return paths


def _was_trained(run: RunLayout) -> bool:
    return any(path.is_file() for path in (run.last_checkpoint, run.previous_checkpoint, run.metrics))


def _joined(decisions: Sequence[Decision]) -> Decision:
    thresholds, volumes_mm3 = zip(*((d.threshold, d.min_lesion_mm3) for d in decisions), strict=True)
    return Decision(float(np.mean(thresholds)), float(np.median(volumes_mm3)))


def _require_one_identity(paths: Sequence[Path], contents: Sequence[dict[str, Any]]) -> None:
    """All folds must have been trained alike."""
    first = _settings(contents[0])
    problems = []
    for path, content in zip(paths[1:], contents[1:], strict=True):
        own = _settings(content)
        differing = [key for key in sorted(first.keys() | own.keys()) if first.get(key) != own.get(key)]
        if differing:
            found = ", ".join(f"{key} {own.get(key)}, {paths[0].parent.name} {first.get(key)}" for key in differing)
            fix = "train the folds again with the same settings, or give one fold's best.pt"
            problems.append(Problem(path.parent.name, str(path), found, "the same settings in all folds", fix))
    if problems:
        raise CohortError(problems)


def _settings(content: dict[str, Any]) -> dict[str, Any]:
    """What must not differ between folds, of training and preprocessing."""
    identity = content["identity"]
    own = {key: value for key, value in deciding(identity["settings"]).items() if key != "fold"}
    return own | {f"recipe {key}": value for key, value in identity["recipe"].items()}
