"""Trained networks that predict together: one run's, or those of all folds of a model.

They also know how far an image lies from those that they learned from, by image statistics.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from metaseg_nb.cohort.problems import CohortError, Problem
from metaseg_nb.inference.decision import UNDECIDED, Decision, decision_of
from metaseg_nb.inference.sliding_window import predict_probability
from metaseg_nb.layout import RunLayout
from metaseg_nb.preprocessing.case_store import StoredCase
from metaseg_nb.preprocessing.intensity import landmarks_of
from metaseg_nb.settings import Train
from metaseg_nb.training.checkpoints import differences, load_checkpoint, network_of, other_versions

# A spread below this, a hundredth of the range of intensities, says more of how few cases there are than of scanners.
LEAST_SD = 0.01


@dataclass(frozen=True)
class Ensemble:
    """Networks of one model, trained on other folds of one study with the same settings.

    ``decision`` has the mean threshold and peak and the median smallest lesion of theirs. ``notes`` names
    checkpoints whose training did not finish, so that 0.5 is assumed, and libraries that have another version here; of
    several networks they say that nothing scores them together.
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

        See the function `unlikeness`.
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
    if len(paths) > 1:
        notes.append("the mean of several networks; 04 tested each alone, so its numbers may not hold for this mask")
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
            found = ", ".join(
                f"{key} {here}, {first.parent.name} {expected}" for key, (expected, here) in differing.items()
            )
            fix = "train the folds again with the same settings, or give one fold's best.pt"
            problems.append(Problem(path.parent.name, str(path), found, "the same settings in all folds", fix))
    if problems:
        raise CohortError(problems)


def image_statistics(image: np.ndarray, reach: np.ndarray) -> np.ndarray:
    """Contrast, and noise and sharpness, of each sequence of a prepared image.

    Parameters
    ----------
    image : ndarray, shape (C, X, Y, Z)
    reach : ndarray of bool, shape (X, Y, Z)
        The head and what is near it.

    Returns
    -------
    ndarray of float, shape (12 C,)
        For each sequence the tenths of its voxels (`landmarks_of`), and along X, Y and Z the logarithm of the mean
        difference between neighbours. NaN for a missing sequence.
    """
    found = []
    for channel, tenths in zip(image, landmarks_of(image, reach), strict=True):
        steps = []
        for axis in range(3):
            values, within = channel.astype(np.float32).swapaxes(0, axis), reach.swapaxes(0, axis)
            steps.append(np.abs(np.diff(values, axis=0))[within[1:] & within[:-1]].mean())
        found += [*tenths, *np.log(np.maximum(steps, 1e-6))] if np.isfinite(tenths).all() else [np.nan] * 12
    return np.array(found)


def learn_likeness(training: Sequence[StoredCase], selection: Sequence[StoredCase]) -> dict[str, Any]:
    """What a network's checkpoint keeps of its training images, to say how far another image lies from them.

    Parameters
    ----------
    training, selection : sequence of StoredCase
        The training set and the selection set; no label is read.

    Returns
    -------
    dict
        That of `spread_of` the training cases, and ``limit``: the distance of the farthest case of the selection set,
        at least 1.
    """
    known, held_out = ([image_statistics(case.scans, case.reach) for case in cases] for cases in (training, selection))
    spread = spread_of(np.array(known))
    return spread | {"limit": max([1.0, *(distance(spread, statistics) for statistics in held_out)])}


def unlikeness(learned: Mapping[str, Any], image: np.ndarray, reach: np.ndarray) -> float:
    """How far an image lies from the training cases, as a multiple of the farthest case of the selection set.

    Parameters
    ----------
    learned : mapping
        From `learn_likeness`.
    image, reach
        See `image_statistics`.

    Returns
    -------
    float
        Above 1 the image is farther than any of the selection set: its mask deserves a careful look.
    """
    return distance(learned, image_statistics(image, reach)) / learned["limit"]


def spread_of(known: np.ndarray) -> dict[str, Any]:
    """Mean and covariance of cases, for `distance`: plain lists ``mean``, ``sd`` and ``correlation``.

    With few cases correlations are mostly chance: the correlation matrix is mixed with that of independent statistics,
    as much as if each statistic were one more case. Scikit-learn's ``ShrunkCovariance`` does so too, but takes no
    missing values.

    Parameters
    ----------
    known : ndarray, shape (cases, statistics)
        NaN where a case has no such sequence. A statistic that no case has is NaN in ``mean`` and ``sd``.
    """
    known = np.ma.masked_invalid(known)
    n, p = known.shape
    mean, sd = (of.filled(np.nan) for of in (known.mean(axis=0), np.ma.maximum(known.std(axis=0), LEAST_SD)))
    z = ((known - mean) / sd).filled(0)
    return {"mean": mean.tolist(), "sd": sd.tolist(), "correlation": ((z.T @ z + p * np.eye(p)) / (n + p)).tolist()}


def distance(spread: Mapping[str, Any], statistics: np.ndarray) -> float:
    """Mahalanobis' distance (1936) of a case from the cases of `spread_of`, over the root of the number of statistics.

    So it is about 1 or less for a case like those. Statistics that the case does not have, or none of those had, do
    not count.
    """
    z = (statistics - spread["mean"]) / np.array(spread["sd"])
    known = np.isfinite(z)
    own = np.array(spread["correlation"])[np.ix_(known, known)]
    return float(np.sqrt(z[known] @ np.linalg.solve(own, z[known]) / known.sum()))
