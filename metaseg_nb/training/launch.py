"""Start training: here, or by several processes of this machine, a GPU each."""

import gc
import os
import signal
import socket
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch.multiprocessing import ProcessContext, start_processes

from metaseg_nb.layout import RunLayout
from metaseg_nb.machine import claim_gpus
from metaseg_nb.preprocessing.case_store import StoredCase
from metaseg_nb.settings import Training
from metaseg_nb.training.cost import what_fits
from metaseg_nb.training.finished_run import trained_history
from metaseg_nb.training.fit import fit
from metaseg_nb.training.patches import PatchBatches
from metaseg_nb.training.processes import StopRequest


def train(
    settings: Training,
    cases: Sequence[StoredCase],
    run: RunLayout,
    validate: Callable[[torch.nn.Module], float],
    watch: Callable[[pd.DataFrame], None] = lambda history: None,
    epoch_cases: int | None = None,
    start: Path | None = None,
    batches: type[PatchBatches] = PatchBatches,
    selection: Sequence[StoredCase] = (),
) -> pd.DataFrame:
    """Train one network on one fold, or go on where a stopped run was.

    Parameters
    ----------
    settings : Training
        ``num_processes`` share every batch; the result is that of one, but for rounding and dropout.
    cases : sequence of StoredCase
        The training set.
    run : RunLayout
    validate : callable
        See `fit`. The first of several processes calls it; then it must be possible to pickle it.
    watch : callable
        Called with the history after each validation; with several processes once, at the end.
    epoch_cases : int, optional
        See `PatchBatches`.
    start : path, optional
        See `fit`.
    batches : type
        What a step shows to the network, and what it learns of it.
    selection : sequence of StoredCase
        See `fit`.

    Returns
    -------
    DataFrame
        See `fit`, also for other errors.

    Raises
    ------
    ValueError
        This machine has fewer GPUs than ``num_processes``.
    MemoryError
        The GPU's memory is not enough; the message says which of batch, patch and precision to lower, and to what.
    """
    make = partial(batches, cases, settings, epoch_cases=epoch_cases)
    fit_here = partial(_fit, settings, run, validate, start=start, selection=selection)
    if settings.num_processes == 1:
        return fit_here(make(), watch)
    with StopRequest() as stop:
        arguments = (settings.num_processes, claim_gpus(settings.num_processes), make, fit_here, _free_port())
        workers = start_processes(_work, arguments, settings.num_processes, join=False, start_method="spawn")
        _wait(workers, stop)
    history = pd.DataFrame(trained_history(run))
    watch(history)
    return history


def _work(
    rank: int, processes: int, gpus: list[str], make: Callable[..., PatchBatches], fit_here: Callable, port: int
) -> None:
    """One of the processes; CUDA and Accelerate read its GPU and its place among them from the environment."""
    places = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "MASTER_PORT": port}
    places |= {"CUDA_VISIBLE_DEVICES": ",".join(gpus)} if gpus else {}
    os.environ.update({name: str(value) for name, value in places.items()}, MASTER_ADDR="127.0.0.1")
    if not torch.cuda.is_available():
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // processes))
    fit_here(make(rank=rank, processes=processes))
    torch.distributed.destroy_process_group()


def _fit(
    settings: Training,
    run: RunLayout,
    validate: Callable[[torch.nn.Module], float],
    batches: PatchBatches,
    watch: Callable[[pd.DataFrame], None] = lambda history: None,
    **more: Any,
) -> pd.DataFrame:
    """Call `fit`; out of a GPU's memory, say what would fit."""
    try:
        return fit(settings, batches, run, validate, batches.cases[0].recipe, watch, **more)
    except torch.OutOfMemoryError:
        pass  # its traceback holds what was trained: a smaller training would find that memory taken
    gc.collect()
    free, _ = torch.cuda.mem_get_info()  # others may hold the rest
    usable_gb = (free + torch.cuda.memory_reserved()) / 1e9
    raise MemoryError(what_fits(settings, batches.channels, usable_gb))


def _wait(workers: ProcessContext, stop: StopRequest) -> None:
    """Wait for all of them, and pass a request to stop on to each, once."""
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


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]
