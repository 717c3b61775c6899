"""Work on many cases in several processes."""

import os
import signal
import time

import pytest

from metaseg_nb.cohort.nifti_files import free_memory
from metaseg_nb.machine import map_cases


def doubled(number):
    return 2 * number


def killed_at_three(number):
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.1 * (number > 3))
    return number


def failing_at_one(number):
    if number == 1:
        raise ValueError("number 1")
    return number


@pytest.mark.parametrize("workers", [1, 2])
def test_results_stand_in_the_order_of_the_items(workers):
    assert map_cases(doubled, [5, 1, 4], workers, "doubling") == [10, 2, 8]


def free_for(_):
    return free_memory()


def test_processes_share_the_free_memory():
    alone = free_memory()
    assert all(free < 0.75 * alone for free in map_cases(free_for, range(2), 2, "looking"))
    assert free_memory() > 0.75 * alone


@pytest.mark.parametrize("workers", [1, 2])
def test_the_error_of_an_item_is_raised(workers):
    with pytest.raises(ValueError, match="number 1"):
        map_cases(failing_at_one, range(6), workers, "failing")


def test_a_killed_process_is_an_error_that_names_what_was_worked_on():
    with pytest.raises(RuntimeError, match=r"counting: a process was killed.*one of .*3.*`workers` to 1"):
        map_cases(killed_at_three, range(8), 2, "counting")
