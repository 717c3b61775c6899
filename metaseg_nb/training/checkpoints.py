"""Checkpoints: everything a run needs to go on, or a prediction needs to be made."""

from pathlib import Path
from typing import Any

import torch

from metaseg_nb.files import finished
from metaseg_nb.layout import RunLayout
from metaseg_nb.training.networks import build_network
from metaseg_nb.training.precision import prediction_layout

# Settings that change how a run is computed or called, and not what it computes.
NOT_IDENTITY = {"title", "arm_title", "num_processes", "loader_workers", "compiled"}


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Save plain values and tensors; whole or not at all."""
    with finished(path) as unfinished:
        torch.save(state, unfinished)


def save_last(run: RunLayout, state: dict[str, Any]) -> None:
    """Save what a stopped run goes on from; the one before is kept beside it."""
    with finished(run.last_checkpoint) as unfinished:
        torch.save(state, unfinished)
        if run.last_checkpoint.exists():
            run.last_checkpoint.replace(run.previous_checkpoint)


def load_last(run: RunLayout) -> dict[str, Any] | None:
    """Load what a stopped run goes on from: the last checkpoint, or where that is damaged the one before.

    Returns
    -------
    dict or None
        None when the run has no checkpoint.

    Raises
    ------
    ValueError
        All checkpoints there are, are damaged.
    """
    there = [path for path in (run.last_checkpoint, run.previous_checkpoint) if path.exists()]
    for path in there:
        try:
            return load_checkpoint(path)
        except ValueError as error:
            if path == there[-1]:
                raise
            print(f"{error}. Going on from {there[-1].name} instead.")
    return None


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Load a checkpoint onto the CPU; nothing is unpickled but plain values and tensors.

    Raises
    ------
    FileNotFoundError, ValueError
        The file is missing, or is no whole checkpoint.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint {path}; train this network first (notebook 03)")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged file
        kind = type(error).__name__  # not its text, which advises to load the file unsafely
        raise ValueError(f"{path}: not a whole checkpoint ({kind}); delete it and train again") from error


def network_of(checkpoint: dict[str, Any], device: torch.device) -> torch.nn.Module:
    """Rebuild the trained network of a checkpoint, ready to predict."""
    settings, recipe = (checkpoint["identity"][part] for part in ("settings", "recipe"))
    network = build_network(settings["network"], settings["width"], settings["patch_size"], recipe["sequences"])
    network.load_state_dict(checkpoint["network"])
    layout = prediction_layout(settings["network"], settings["precision"], device)
    return network.to(device, memory_format=layout).eval()
