"""The training loop, all of it visible here."""

import math
import time
from collections.abc import Callable
from itertools import count
from typing import Any

import pandas as pd
import torch
from accelerate import Accelerator
from monai.losses import DiceCELoss
from torch.utils.tensorboard import SummaryWriter
from tqdm.auto import tqdm

from metaseg_nb.files import write_table
from metaseg_nb.layout import RunLayout
from metaseg_nb.settings import Train, settings_hash
from metaseg_nb.training.checkpoints import load_checkpoint, random_states, restore_random_states, save_checkpoint
from metaseg_nb.training.networks import build_network, start_at_prior
from metaseg_nb.training.patches import PatchBatches

WARM_UP_SHARE = 0.05
GRADIENT_NORM = 1.0
FRESH = {"step": 0, "seconds": 0.0, "best": -1.0}


def learning_rate(step: int, n_steps: int, peak: float) -> float:
    """Linear warm-up over the first twentieth of the steps, then half a cosine down to 0."""
    warm_up = max(1, round(WARM_UP_SHARE * n_steps))
    if step < warm_up:
        return peak * (step + 1) / warm_up
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, n_steps - warm_up)))


def fit(
    settings: Train,
    batches: PatchBatches,
    run: RunLayout,
    validate: Callable[[torch.nn.Module], float],
    recipe: dict[str, Any],
) -> pd.DataFrame:
    """Train one network on one fold, or go on where a stopped run was.

    What an earlier run with other settings, recipe or cases left in the folder is set aside.

    Parameters
    ----------
    settings : Train
    batches : PatchBatches
        Of the training set.
    run : RunLayout
        Where checkpoints (``last.pt``, ``best.pt``), ``history.csv`` and TensorBoard logs go.
    validate : callable
        From the network to its mean Dice on the selection set; the best of these is kept.
    recipe : dict
        Preprocessing settings of the cases, which the checkpoints carry to prepare new images alike.

    Returns
    -------
    DataFrame
        One row per validation: ``epoch``, ``step``, ``loss`` (mean since the
        row before), ``dice`` (selection set), ``learning_rate``, ``seconds`` (of training, in all).

    Raises
    ------
    ValueError
        The run's checkpoint is damaged.
    FloatingPointError
        The loss is no longer a finite number.
    """
    torch.manual_seed(settings.seed)
    accelerator = Accelerator(mixed_precision=settings.precision)
    network = build_network(settings.model, settings.width, settings.patch_size, batches.channels)
    start_at_prior(network)
    optimiser = torch.optim.AdamW(network.parameters(), settings.learning_rate, weight_decay=settings.weight_decay)
    network, optimiser = accelerator.prepare(network, optimiser)
    loss_function = DiceCELoss(sigmoid=True, batch=True)
    identity = {
        "settings": settings.model_dump(),
        "recipe": recipe,
        "cases": {case.name: case.sources for case in batches.cases},
    }
    state = _resume(run, identity, accelerator.unwrap_model(network), optimiser) or dict(FRESH, history=[], losses=[])
    started = time.perf_counter() - state["seconds"]
    writer = SummaryWriter(run.tensorboard)
    progress = tqdm(batches.loader(state["step"]), initial=state["step"], total=len(batches), desc="training steps")
    network.train()
    for images, labels in progress:
        step = state["step"]
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(step, len(batches), settings.learning_rate)
        images, labels = images.to(accelerator.device), labels.to(accelerator.device)
        optimiser.zero_grad(set_to_none=True)
        with accelerator.autocast():
            loss = loss_function(network(images), labels)
        if not torch.isfinite(loss):
            raise FloatingPointError(f"loss is {loss.item()} at step {step}: lower learning_rate, or precision: bf16")
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(network.parameters(), GRADIENT_NORM)
        optimiser.step()
        state["losses"].append(loss.item())
        state["step"] = step + 1
        if _validates(state["step"], batches, settings):
            plain = accelerator.unwrap_model(network)
            row = _validation_row(state, batches, validate(plain.eval()), optimiser, time.perf_counter() - started)
            network.train()
            _keep(row, state, identity, plain, optimiser, run)
            for name in ("loss", "dice", "learning_rate"):
                writer.add_scalar(name, row[name], row["step"])
            progress.set_postfix(loss=f"{row['loss']:.3f}", dice=f"{row['dice']:.3f}")
    writer.close()
    return pd.DataFrame(state["history"])


def _validates(step: int, batches: PatchBatches, settings: Train) -> bool:
    return step % (settings.validate_every * batches.steps_per_epoch) == 0 or step == len(batches)


def _validation_row(
    state: dict[str, Any], batches: PatchBatches, dice: float, optimiser: torch.optim.Optimizer, seconds: float
) -> dict[str, float]:
    return {
        "epoch": state["step"] // batches.steps_per_epoch,
        "step": state["step"],
        "loss": sum(state["losses"]) / len(state["losses"]),
        "dice": dice,
        "learning_rate": optimiser.param_groups[0]["lr"],
        "seconds": seconds,
    }


def _keep(
    row: dict[str, float],
    state: dict[str, Any],
    identity: dict[str, Any],
    network: torch.nn.Module,
    optimiser: torch.optim.Optimizer,
    run: RunLayout,
) -> None:
    """Write history and checkpoints; the last one comes last, for it is what a stopped run goes on from."""
    state["history"].append(row)
    state["losses"], state["seconds"] = [], row["seconds"]
    is_best = row["dice"] >= state["best"]  # of equals the later one, which has seen more
    state["best"] = max(row["dice"], state["best"])
    weights = {"identity": identity, "network": network.state_dict()}
    if is_best:
        save_checkpoint(run.best_checkpoint, weights | {"epoch": row["epoch"], "dice": row["dice"]})
    write_table(run.history, pd.DataFrame(state["history"]))
    resumable = {"optimiser": optimiser.state_dict(), "random": random_states(), "state": state}
    save_checkpoint(run.last_checkpoint, weights | resumable)


def _resume(
    run: RunLayout, identity: dict[str, Any], network: torch.nn.Module, optimiser: torch.optim.Optimizer
) -> dict[str, Any] | None:
    """State of a stopped run of the same identity; None when there is none to go on from."""
    if not run.last_checkpoint.is_file():
        return None
    checkpoint = load_checkpoint(run.last_checkpoint)
    differing = _differing(checkpoint["identity"], identity)
    if differing:
        _set_aside(run, settings_hash(checkpoint["identity"]), differing)
        return None
    network.load_state_dict(checkpoint["network"])
    optimiser.load_state_dict(checkpoint["optimiser"])
    restore_random_states(checkpoint["random"])
    return checkpoint["state"]


def _differing(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    return [
        f"{key}: {before[part].get(key)} then, {now[part].get(key)} now"
        for part in now
        for key in sorted(before[part].keys() | now[part].keys())
        if before[part].get(key) != now[part].get(key)
    ]


def _set_aside(run: RunLayout, code: str, differing: list[str]) -> None:
    """Move what an earlier run with other parameters left, so that nothing is mixed and nothing is lost."""
    folders = (run.root / f"superseded_{code}_{n}" for n in count(1))
    aside = next(folder for folder in folders if not folder.exists())
    aside.mkdir()
    # what says that the run is finished goes first, what says that there is an earlier run goes last
    results = (run.metrics, run.metrics_table, run.lesions_table, run.predictions)
    for path in (*results, run.history, run.tensorboard, run.best_checkpoint, run.last_checkpoint):
        if path.exists():
            path.replace(aside / path.name)
    print(f"An earlier run differed ({'; '.join(differing)}). It is kept in {aside.name}; this one starts afresh.")
