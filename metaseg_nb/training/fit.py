"""The training loop, all of it visible here; and its start, in this process or in several."""

import gc
import math
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar, cast

import pandas as pd
import torch
import torch.distributed as distributed
from accelerate import Accelerator
from accelerate.utils.other import get_free_port
from torch.multiprocessing import ProcessContext, start_processes

from metaseg_nb.layout import RunLayout
from metaseg_nb.machine import claim_gpus
from metaseg_nb.training.checkpoints import load_ended
from metaseg_nb.training.cost import what_fits
from metaseg_nb.training.patches import PatchBatches
from metaseg_nb.training.training_run import TrainingRun, Validate, Watch, watch_nothing

Gathered = TypeVar("Gathered", torch.Tensor, list[torch.Tensor])
GRADIENT_NORM = 1.0
WARM_UP_SHARE = 0.05
# From 1 to 0 as the share of the steps after the warm-up goes from 0 to 1.
SCHEDULES: dict[str, Callable[[float], float]] = {
    "cosine": lambda progress: 0.5 * (1 + math.cos(math.pi * progress)),
    "polynomial": lambda progress: (1 - progress) ** 0.9,  # nnU-Net's (Isensee et al., Nature Methods 2021)
}


def learning_rate(schedule: str, step: int, n_steps: int, peak: float) -> float:
    """Linear warm-up over the first twentieth of the steps, then down to 0 by a schedule of `SCHEDULES`."""
    warm_up = max(1, round(WARM_UP_SHARE * n_steps))
    if step < warm_up:
        return peak * (step + 1) / warm_up
    return peak * SCHEDULES[schedule]((step - warm_up) / max(1, n_steps - warm_up))


def fit(run: RunLayout, batches: PatchBatches, validate: Validate, watch: Watch = watch_nothing) -> pd.DataFrame:
    """Train one network on one fold, or go on where a stopped run was.

    What an unfinished run with other settings, recipe or cases left in the folder is kept separately, and continued
    when those come back; a finished one is an error (see `make_room`). The patches of a step depend on
    (seed, fold, step) alone. What else is drawn, as by dropout and strong augmentation, depends on the process too,
    where several share a batch.

    Parameters
    ----------
    run : RunLayout
        Where checkpoints (``last.pt``, ``previous.pt``, ``best.pt``), ``history.csv`` and TensorBoard logs go.
    batches : PatchBatches
        What is learned, and with what settings; this process's share. They know the loss, and the score's name.
    validate : callable
        From the network to its score on the selection set (mean Dice); best.pt has the epoch whose smoothed
        score is highest.
    watch : callable
        Called with the history after each validation.

    Returns
    -------
    DataFrame
        One row per validation: ``epoch``, ``step``, ``loss`` (mean since the
        row before), ``dice`` (selection set; or whatever score the batches name), ``learning_rate``, ``seconds``
        (of training, in all).

    Raises
    ------
    CohortError
        A finished run of other settings is there.
    ValueError
        The run's checkpoints are damaged.
    FloatingPointError
        A loss of the epoch that ended, or the score, is no finite number.
    TrainingStopped
        SIGTERM came; the step that ran was finished and saved.
    """
    training = TrainingRun(run, batches)
    settings, accelerator, state = batches.settings, training.accelerator, training.state
    loss_function, n_steps = batches.loss(), len(batches)
    with StopRequest() as stop, training.progress() as progress:
        try:
            if training.is_due():  # it was stopped in a validation
                training.validate(validate, watch, stop)
            for images, labels in progress:
                if any_of_all(training.is_over(), accelerator):
                    break
                training.network.train()
                torch.manual_seed(batches.seed_of(state["step"]))
                for group in training.optimiser.param_groups:
                    group["lr"] = learning_rate(settings.schedule, state["step"], n_steps, settings.learning_rate)
                training.optimiser.zero_grad(set_to_none=True)
                with accelerator.autocast():
                    loss = loss_function(whole_batch(training.network(images)), whole_batch(labels))
                accelerator.backward(loss * accelerator.num_processes)  # which averages their gradients
                accelerator.clip_grad_norm_(training.network.parameters(), GRADIENT_NORM)
                training.optimiser.step()
                training.mean.update(training.plain)
                training.unread.append(loss.detach())
                state["step"] += 1
                if state["step"] % batches.steps_per_epoch == 0:
                    training.read_losses()  # a GPU is waited for once an epoch
                if training.is_due():
                    training.validate(validate, watch, stop)
                    progress.set_postfix({name: training.latest().get(name) for name in ("loss", batches.score)})
                stop.requested = any_of_all(stop.requested, accelerator)
                stop.check()
        except TrainingStopped:
            training.save()
            raise
    training.end()
    return pd.DataFrame(state["history"])


def train(run: RunLayout, batches: PatchBatches, validate: Validate, watch: Watch = watch_nothing) -> pd.DataFrame:
    """Call `fit` in this process or in several, ``settings.num_processes``, which share every batch.

    Several processes see the patches that one would see. Their result differs from that of one by rounding; by dropout
    and strong augmentation, which draw otherwise in each process; and on CPUs by batch normalisation, which takes its
    means over the share of a process (on GPUs over the whole batch). The first one validates, so it must be possible to
    pickle ``validate``; and ``watch`` is called once, at the end.

    Raises
    ------
    ValueError
        This machine has fewer GPUs than ``num_processes``.
    MemoryError
        The GPU's memory is not enough; the message says which of batch, patch and precision to lower, and to what.
    """
    if batches.settings.num_processes == 1:
        return _fit_share(run, batches, validate, 0, 1, watch)
    in_processes(batches.settings.num_processes, partial(_fit_share, run, batches, validate))
    history = pd.DataFrame(cast(dict, load_ended(run))["history"])
    watch(history)
    return history


def _fit_share(run, batches, validate, rank, processes, watch=watch_nothing) -> pd.DataFrame:
    """Call `fit` with a process's share of the batches; out of a GPU's memory, say what would fit."""
    try:
        return fit(run, batches.share(rank, processes), validate, watch)
    except torch.OutOfMemoryError:
        pass  # its traceback holds what was trained: a smaller training would find that memory taken
    gc.collect()
    free, _ = torch.cuda.mem_get_info()  # others may hold the rest
    usable_gb = (free + torch.cuda.memory_reserved()) / 1e9
    raise MemoryError(what_fits(batches.settings, batches.channels, usable_gb))


class TrainingStopped(Exception):
    """A run that was asked to stop, and saved all that it needs to go on."""


class StopRequest:
    """Whether SIGTERM came while the block ran; it then ends where `check` is called, or `at_once`."""

    def __init__(self) -> None:
        self.requested = False
        self._at_once = False

    def __enter__(self) -> "StopRequest":
        self._main = threading.current_thread() is threading.main_thread()  # no other may handle signals
        if self._main:
            self._before = signal.signal(signal.SIGTERM, self._ask)
        return self

    def __exit__(self, error: type[BaseException] | None, *_) -> None:
        if self._main:
            signal.signal(signal.SIGTERM, self._before)
        if error is None:  # a request after the last `check` counts too
            self.check()

    def check(self) -> None:
        """Raise `TrainingStopped` when a stop was requested."""
        if self.requested:
            raise TrainingStopped("stopped on request; start the same notebook again to continue from here")

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Let a request end this block wherever it is: for long work that changes nothing that is saved."""
        self._at_once = True
        try:
            self.check()
            yield
        finally:
            self._at_once = False

    def _ask(self, *_) -> None:
        self.requested = True
        if self._at_once:
            self.check()


def whole_batch(outputs: Gathered) -> Gathered:
    """Join the shares of all processes along the batch axis; gradients flow to the own share alone.

    With this each process computes the loss of the whole batch, also one that is no mean over samples, such
    as Dice over the batch. The sum of all processes' gradients is then what one process with the whole batch
    would have; where they are averaged, the loss is to be multiplied by the number of processes.
    """
    if not distributed.is_initialized():
        return outputs
    if isinstance(outputs, list):
        return [whole_batch(output) for output in outputs]
    shares = [torch.empty_like(outputs) for _ in range(distributed.get_world_size())]
    distributed.all_gather(shares, outputs.detach().contiguous())
    shares[distributed.get_rank()] = outputs
    return torch.cat(shares)


def any_of_all(flag: bool, accelerator: Accelerator) -> bool:
    """Tell every process whether the flag is set in one of them."""
    if accelerator.num_processes == 1:
        return flag
    return bool(accelerator.reduce(torch.tensor(float(flag), device=accelerator.device), "sum") > 0)


def in_processes(n: int, function: Callable[[int, int], Any]) -> None:
    """Call ``function(rank, n)`` in n new processes of this machine, a GPU each where there are GPUs, and wait.

    Raises
    ------
    ValueError
        This machine has fewer GPUs.
    TrainingStopped
        SIGTERM came, which was passed on to each.
    """
    with StopRequest() as stop:
        # Accelerate's launcher kills processes 30 s after SIGTERM, and takes the first GPUs, claimed or not
        arguments = (n, claim_gpus(n), function, get_free_port())
        workers = cast(ProcessContext, start_processes(_work, arguments, n, join=False, start_method="spawn"))
        asked = False
        try:
            while not workers.join(timeout=1):
                if stop.requested and not asked:
                    asked = True
                    for pid in workers.pids():
                        os.kill(pid, signal.SIGTERM)
        except Exception:
            stop.check()  # then that is why they ended
            raise


def _work(rank: int, n: int, gpus: list[str], function: Callable[[int, int], Any], port: int) -> None:
    """One of the processes; CUDA and Accelerate read its GPU and its place among them from the environment."""
    places = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": n, "MASTER_PORT": port, "MASTER_ADDR": "127.0.0.1"}
    places |= {"CUDA_VISIBLE_DEVICES": ",".join(gpus)} if gpus else {}
    os.environ.update({name: str(value) for name, value in places.items()})
    if not torch.cuda.is_available():
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // n))
    function(rank, n)
    distributed.destroy_process_group()
