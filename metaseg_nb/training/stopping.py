"""Stopping on request: SIGTERM, which a cluster sends when a job's time is over."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


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
