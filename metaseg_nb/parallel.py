"""The same work on many cases, several at a time, with a progress bar."""

import multiprocessing
import multiprocessing.connection
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from tqdm.auto import tqdm

# Libraries read these once, when a worker starts: one thread each, or the workers compete for the cores.
LIMITS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS")
ONE_THREAD: dict[str, str] = dict.fromkeys(LIMITS, "1")
# How many processes work at a time: set in each worker of `map_cases`. They share the free memory.
at_work = 1


def map_cases(function: Callable, items: Iterable[Any], workers: int, description: str) -> list[Any]:
    """Call ``function`` on each item and return the results in the items' order.

    Parameters
    ----------
    function : callable
        Importable by name: it runs in other processes when ``workers`` > 1.
    items : iterable
    workers : int
        Processes, each with one thread.
    description : str
        Title of the progress bar.

    Raises
    ------
    RuntimeError
        A process was killed; names the items that were being worked on.
    """
    items = list(items)
    if workers == 1 or len(items) < 2:
        return [function(item) for item in tqdm(items, desc=description)]
    before = {name: os.environ.get(name) for name in ONE_THREAD}
    os.environ.update(ONE_THREAD)
    try:
        # spawn: a forked copy of a process that has used torch or ITK threads can hang
        context = multiprocessing.get_context("spawn")
        processes = min(workers, len(items))
        with ProcessPoolExecutor(processes, mp_context=context, initializer=_begin, initargs=(processes,)) as pool:
            futures = [pool.submit(function, item) for item in items]
            try:
                return [future.result() for future in tqdm(futures, desc=description)]
            except BrokenProcessPool as error:
                raise _killed(futures, items, processes, description) from error
            finally:
                pool.shutdown(wait=False, cancel_futures=True)
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def _killed(futures: Sequence[Future], items: Sequence[Any], processes: int, description: str) -> RuntimeError:
    """Error of a killed process: the first items without a result were being worked on, for they are taken in order."""
    ended = [isinstance(future.exception(), BrokenProcessPool) for future in futures]
    names = [getattr(item, "name", str(item)) for item, lost in zip(items, ended, strict=True) if lost][:processes]
    return RuntimeError(
        f"{description}: a process was killed, probably for lack of memory, while it worked on one of "
        f"{', '.join(names)}. Set `workers` to 1; if it happens again, name that case in `exclude`"
    )


def _begin(processes: int) -> None:
    """Prepare a worker: it knows how many there are, and ends when its parent is gone, so that none goes on writing."""
    global at_work
    at_work, parent = processes, multiprocessing.parent_process()
    assert parent is not None  # it runs in a worker

    def watch() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
