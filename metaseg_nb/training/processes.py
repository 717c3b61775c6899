"""Several processes of one training: their start, the batch that they share, and a request to stop."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import torch
import torch.distributed as distributed
from accelerate import Accelerator
from accelerate.utils.other import get_free_port
from torch.multiprocessing import ProcessContext, start_processes

from metaseg_nb.machine import claim_gpus

Share = TypeVar("Share", torch.Tensor, list[torch.Tensor])


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


def whole_batch(outputs: Share) -> Share:
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
