"""What processes of one training share: the batch's outputs, and a request to stop."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as distributed
from accelerate import Accelerator

Outputs = torch.Tensor | list[torch.Tensor]


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
            raise TrainingStopped("stopped on request; start the same notebook again to go on from here")

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


def whole_batch(outputs: Outputs) -> Outputs:
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
