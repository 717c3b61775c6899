"""Trained networks that predict together: one run's, or those of all folds of a model."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from metaseg_nb.cohort.problems import CohortError, Problem
from metaseg_nb.inference.decision import UNDECIDED, Decision, decision_of
from metaseg_nb.inference.likeness import unlikeness
from metaseg_nb.inference.sliding_window import predict_probability
from metaseg_nb.layout import RunLayout
from metaseg_nb.settings import Train
from metaseg_nb.training.checkpoints import load_checkpoint, network_of, other_versions
from metaseg_nb.training.earlier_runs import differences


@dataclass(frozen=True)
class Ensemble:
    """Networks of one model, trained on other folds of one study with the same settings.

    ``decision`` has the mean threshold and peak and the median smallest lesion of theirs. ``notes`` names
    checkpoints whose training did not finish, so that 0.5 is assumed, and libraries that have another version here.
    ``likeness`` is what they keep of their training images; checkpoints of earlier versions keep nothing.
    """

    paths: list[Path]
    networks: list[torch.nn.Module]
    settings: Train
    recipe: Mapping[str, Any]
    decision: Decision
    notes: list[str]
    likeness: list[Mapping[str, Any]]

    def unlikeness(self, image: np.ndarray, reach: np.ndarray) -> float:
        """How far an image lies from the training cases, mean over the networks; NaN if none of them knows.

        See `metaseg_nb.inference.likeness.unlikeness`.
        """
        return float(np.mean([unlikeness(one, image, reach) for one in self.likeness])) if self.likeness else np.nan

    def probability(self, image: np.ndarray, reach: np.ndarray, device: torch.device) -> np.ndarray:
        """Mean of the networks' probabilities; see `predict_probability`.

        Raises
        ------
        ValueError
            The probabilities of a network are not finite; the message names its checkpoint.
        """
        total = np.zeros(reach.shape, np.float32)
        for path, network in zip(self.paths, self.networks, strict=True):
            try:
                total += predict_probability(network, image, reach, self.settings, device)
            except FloatingPointError as error:
                raise ValueError(f"{path}: {error}") from error
        return total / np.float32(len(self.networks))

    def __str__(self) -> str:
        return "; ".join([f"{len(self.networks)} network(s), {self.decision}", *self.notes])


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
        There is no checkpoint, one was lost, or one that cannot be trusted; see `load_checkpoint`.
    CohortError
        The folds' settings or recipes differ.
    """
    paths = [checkpoint]
    if checkpoint.is_dir():
        runs = [RunLayout(root) for root in sorted(checkpoint.glob("fold*"))]
        # a fold that was trained and has lost its weights is an error, and not left out
        paths = [run.best_checkpoint for run in runs if any(path.is_file() for path in (run.metrics, *run.trained))]
    if not paths:
        raise FileNotFoundError(
            f"no fold<k>/best.pt in {checkpoint}; give a model's folder, runs/<study>/<model>, or the best.pt of a run"
        )
    contents = {path: load_checkpoint(path) for path in paths}
    _require_same_settings(contents)
    identity = contents[paths[0]]["identity"]
    chosen = {path: decision_of(content) for path, content in contents.items()}
    decisions = [decision or UNDECIDED for decision in chosen.values()]
    threshold, peak = (float(np.mean([getattr(own, name) for own in decisions])) for name in ("threshold", "peak"))
    min_lesion_mm3 = float(np.median([decision.min_lesion_mm3 for decision in decisions]))
    notes = []
    if assumed := [f"{path.parent.name}/{path.name}" for path in paths if chosen[path] is None]:
        notes.append(
            f"no threshold was chosen for {', '.join(assumed)}, whose training did not finish: "
            f"{UNDECIDED.threshold} is assumed"
        )
    if others := sorted(set(map(other_versions, contents.values())) - {""}):
        notes.append(f"made with {'; '.join(others)}: results may differ a little")
    return Ensemble(
        paths,
        [network_of(content, device, path) for path, content in contents.items()],
        Train.model_construct(**identity["settings"]),  # unchecked: where it was trained there may be other model files
        identity["recipe"],
        Decision(threshold, peak, min_lesion_mm3),
        notes,
        [content["training_images"] for content in contents.values() if "training_images" in content],
    )


def _require_same_settings(contents: Mapping[Path, Mapping[str, Any]]) -> None:
    """All folds must have been trained alike, on images prepared alike."""
    how = {
        path: {part: content["identity"][part] for part in ("settings", "recipe")} for path, content in contents.items()
    }
    first, problems = next(iter(how)), []
    for path, own in how.items():
        differing = {key: values for key, values in differences(how[first], own).items() if key != "fold"}
        if differing:
            found = ", ".join(f"{key} {here}, {first.parent.name} {there}" for key, (there, here) in differing.items())
            fix = "train the folds again with the same settings, or give one fold's best.pt"
            problems.append(Problem(path.parent.name, str(path), found, "the same settings in all folds", fix))
    if problems:
        raise CohortError(problems)
