"""A network in training: what each step changes, its running mean, and what is kept of it."""

import copy
import math
import time
from collections.abc import Callable
from datetime import timedelta
from itertools import compress
from typing import TYPE_CHECKING, Any, cast

import pandas as pd
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs
from torch.utils.tensorboard import SummaryWriter
from tqdm.auto import tqdm

from metaseg_nb.files import write_table
from metaseg_nb.layout import RunLayout
from metaseg_nb.machine import versions
from metaseg_nb.training.checkpoints import load_checkpoint, load_ended, load_last, make_room, save_checkpoint
from metaseg_nb.training.networks import build_network, start_from, training_layout
from metaseg_nb.training.patches import PatchBatches

if TYPE_CHECKING:
    from metaseg_nb.training.fit import StopRequest

# Validations, with those before, whose mean is one point of the smoothed curve: a single one is mostly chance.
SMOOTHED_OVER = 3
# Other processes wait while the first one validates.
PATIENCE = timedelta(hours=6)
# UNETR has parameters that it does not use: DDP finds them in the first step.
UNUSED_PARAMETERS = DistributedDataParallelKwargs(static_graph=True)

# From a network to its score on the selection set; and what is called with the history after each validation.
Validate = Callable[[torch.nn.Module], float]
Watch = Callable[[pd.DataFrame], None]


def watch_nothing(history: pd.DataFrame) -> None:
    """Leave the history alone."""


class TrainingRun:
    """A network with its optimiser, its running mean and its place in the run."""

    def __init__(self, run: RunLayout, batches: PatchBatches):
        AcceleratorState._reset_state()  # a kernel may train again with another precision
        self.run, self.batches, self.settings = run, batches, batches.settings
        on_gpu = torch.cuda.is_available()
        self.accelerator = Accelerator(
            # in bf16 a CPU gives gradients of what its memory held before, where a patch has shrunk to 2 voxels
            mixed_precision=self.settings.precision if on_gpu else "no",
            cpu=not on_gpu,
            kwargs_handlers=[InitProcessGroupKwargs(timeout=PATIENCE), UNUSED_PARAMETERS],
        )
        self.made_with = {"identity": batches.identity(), "versions": versions()}
        network, optimiser = self._new()
        self.network, self.optimiser = self.accelerator.prepare(network, optimiser)
        self.plain = self.accelerator.unwrap_model(self.network)
        self.mean = RunningMean(self.plain, self.settings.ema_decay)
        self.state: dict[str, Any] = {"step": 0, "seconds": 0.0, "history": [], "losses": []}
        self.unread: list[torch.Tensor] = []  # losses: a GPU would be waited for
        self._resume()
        self.started = time.perf_counter() - self.state["seconds"]

    def progress(self) -> tqdm:
        """Batches from the present step on, with a bar that shows the time left."""
        first, hidden = self.state["step"], not self.accelerator.is_main_process
        steps = self.batches.loader(first, self.accelerator.device)
        return tqdm(steps, initial=first, total=len(self.batches), desc="training steps", disable=hidden)

    def read_losses(self) -> None:
        """Read the losses since the last reading; raises FloatingPointError when one is no finite number."""
        losses = torch.stack(self.unread).tolist() if self.unread else []
        for step, loss in enumerate(losses, self.state["step"] - len(losses)):
            _require_finite(loss, "loss", step)
        self.state["losses"] += losses
        self.unread = []

    def latest(self) -> dict[str, float]:
        """The latest row of the history: empty before the first, and in all processes but the first."""
        return self.state["history"][-1] if self.state["history"] else {}

    def is_due(self) -> bool:
        """Tell whether a validation is due, and was not done yet."""
        step, every = self.state["step"], self.settings.validate_every * self.batches.steps_per_epoch
        return step > self.latest().get("step", 0) and (step % every == 0 or step == len(self.batches))

    def is_over(self) -> bool:
        """Tell whether the best epoch, by the smoothed curve, is longer ago than ``patience``."""
        if not (self.settings.patience and self.state["history"]):
            return False
        return self.latest()["epoch"] - self._best_epoch() >= self.settings.patience

    def validate(self, validate: Validate, watch: Watch, stop: "StopRequest") -> None:
        """Score the selection set and keep the best weights; last.pt is written last, for training goes on from it."""
        self.read_losses()
        if self.accelerator.is_main_process:
            with stop.at_once():
                score = validate(self.mean.module.eval())
            _require_finite(score, f"the {self.batches.score} of the selection set", self.state["step"])
            row = {
                "epoch": self.state["step"] // self.batches.steps_per_epoch,
                "step": self.state["step"],
                "loss": sum(self.state["losses"]) / len(self.state["losses"]),
                self.batches.score: score,
                "learning_rate": self.optimiser.param_groups[0]["lr"],
                "seconds": time.perf_counter() - self.started,
            }
            self.state["history"].append(row)
            with SummaryWriter(self.run.tensorboard) as writer:
                for name in ("loss", self.batches.score, "learning_rate"):
                    writer.add_scalar(name, row[name], row["step"])
            if self._best_epoch() == row["epoch"]:
                best = {"network": self.mean.module.state_dict(), "epoch": row["epoch"], self.batches.score: score}
                save_checkpoint(self.run.best_checkpoint, self.made_with | best)
            history = pd.DataFrame(self.state["history"])
            write_table(self.run.history, history)
            watch(history)
        self.state["losses"] = []
        self.save()

    def end(self) -> None:
        """Note in best.pt that training has ended, by its history."""
        if self.accelerator.is_main_process and not load_ended(self.run):
            best = load_checkpoint(self.run.best_checkpoint)
            save_checkpoint(self.run.best_checkpoint, best | {"history": self.state["history"]})

    def save(self) -> None:
        """Save what a stopped run goes on from."""
        self.read_losses()
        self.state["seconds"] = time.perf_counter() - self.started
        if not self.accelerator.is_main_process:
            return
        scaler = self.accelerator.scaler
        parts = {
            **self.made_with,
            "threads": torch.get_num_threads(),
            "network": self.mean.module.state_dict(),  # what predicts
            "weights": self.plain.state_dict(),
            "n_averaged": self.mean.n_averaged,
            "optimiser": self.optimiser.state_dict(),
            "scaler": scaler.state_dict() if scaler else None,
            "state": self.state,
        }
        save_checkpoint(self.run.last_checkpoint, parts, self.run.previous_checkpoint)

    def _best_epoch(self) -> int:
        """Epoch with the highest score of the smoothed curve; of equals the later one, which has seen more."""
        curve = pd.DataFrame(self.state["history"]).set_index("epoch")[self.batches.score]
        return curve.rolling(SMOOTHED_OVER, min_periods=1).mean().round(9)[::-1].idxmax()

    def _new(self) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
        settings, device = self.settings, self.accelerator.device
        torch.manual_seed(settings.seed)
        network = build_network(settings.network, settings.width, settings.patch_size, self.batches.channels)
        self.batches.begin(network)
        if self.batches.start:
            start_from(network, load_checkpoint(self.batches.start)["network"], settings.network)
        if self.batches.standard is not None:  # the network carries them wherever it predicts
            network.register_buffer("landmarks", torch.from_numpy(self.batches.standard).float())
        network = cast(Any, network).to(memory_format=training_layout(settings.network, device))
        if device.type == "cuda" and self.accelerator.num_processes > 1:
            network = torch.nn.SyncBatchNorm.convert_sync_batchnorm(network)
        if settings.compiled:
            network.compile()
        rate, decay = settings.learning_rate, settings.weight_decay
        return network, torch.optim.AdamW(network.parameters(), rate, weight_decay=decay, fused=True)

    def _resume(self) -> None:
        """Take up a stopped run of the same identity, wherever it lies."""
        is_first = self.accelerator.is_main_process
        if is_first:
            make_room(self.run, self.made_with["identity"])
            self.run.metrics.unlink(missing_ok=True)  # the mark of a finished run, which is written at its end
        self.accelerator.wait_for_everyone()
        if checkpoint := load_last(self.run):
            if checkpoint["state"]["history"] and is_first:
                load_checkpoint(self.run.best_checkpoint)  # now, and not when training has ended
            self._go_on(checkpoint)
        elif best := load_ended(self.run):  # it has kept its best weights alone
            self.state |= {"step": best["history"][-1]["step"], "history": best["history"]}

    def _go_on(self, checkpoint: dict[str, Any]) -> None:
        """Take all that `save` has saved."""
        threads, here = checkpoint.get("threads"), torch.get_num_threads()
        if threads not in (None, here) and self.accelerator.device.type == "cpu":
            # another number rounds sums differently
            torch.set_num_threads(threads)
            print(
                f"The run began with {threads} thread(s) and continues with {threads}, not {here}: results are equal."
            )
        self.mean.module.load_state_dict(checkpoint["network"])
        self.plain.load_state_dict(checkpoint["weights"])
        self.mean.n_averaged = checkpoint["n_averaged"]
        for group in checkpoint["optimiser"]["param_groups"]:
            group["fused"] = True  # earlier versions stepped otherwise
        self.optimiser.load_state_dict(checkpoint["optimiser"])
        if self.accelerator.scaler:
            self.accelerator.scaler.load_state_dict(checkpoint["scaler"])
        self.state = checkpoint["state"]


class RunningMean:
    """A network, ``module``, whose weights and buffers are the exponential moving average of another's over its steps.

    As Tarvainen & Valpola, NeurIPS 2017. torch's AveragedModel reads a number from the GPU at every step, which then
    waits.

    Parameters
    ----------
    network : Module
    decay : float
        Share of the old mean in the new one, in [0, 1); smaller in the first steps, so that the
        random weights of the start are soon forgotten. 0: the mean is the weights themselves.
    """

    def __init__(self, network: torch.nn.Module, decay: float):
        self.module, self.decay, self.n_averaged = copy.deepcopy(network), decay, 0

    @torch.no_grad()
    def update(self, network: torch.nn.Module) -> None:
        """Take the network's present weights into the mean; the first ones are the mean."""
        means, values = ([*one.parameters(), *one.buffers()] for one in (self.module, network))
        share = min(self.decay, (1 + self.n_averaged) / (10 + self.n_averaged)) if self.n_averaged else 0.0
        numbers = [mean.is_floating_point() for mean in means]
        torch._foreach_lerp_(list(compress(means, numbers)), list(compress(values, numbers)), 1 - share)
        for mean, value in zip(means, values, strict=True):
            if not mean.is_floating_point():  # counters of normalisation layers
                mean.copy_(value)
        self.n_averaged += 1


def _require_finite(value: float, name: str, step: int) -> None:
    if not math.isfinite(value):
        raise FloatingPointError(f"{name} is {value} at step {step}: use a lower learning_rate, or precision: bf16")
