"""Checkpoints: everything a run needs to go on, or a prediction needs to be made."""

from pathlib import Path
from typing import Any

import torch

from metaseg_nb.files import finished
from metaseg_nb.training.networks import build_network


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Save plain values and tensors; whole or not at all."""
    with finished(path) as unfinished:
        torch.save(state, unfinished)


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
    network = build_network(settings["model"], settings["width"], settings["patch_size"], recipe["sequences"])
    network.load_state_dict(checkpoint["network"])
    return network.to(device).eval()


def random_states() -> dict[str, Any]:
    """States of torch's global generators (dropout draws from them)."""
    return {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all()}


def restore_random_states(states: dict[str, Any]) -> None:
    """Set the states that `random_states` gave."""
    torch.set_rng_state(states["cpu"])
    if len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(states["cuda"])
