"""Two trainings side by side take different GPUs; what is short uses one in turn."""

import os
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from metaseg_nb import machine
from metaseg_nb.machine import claim


@pytest.fixture
def gpus(monkeypatch, tmp_path):
    """A machine with two GPUs; its lock files."""
    monkeypatch.setattr(machine, "_gpus", lambda: ["GPU-a", "GPU-b"])
    monkeypatch.setattr(machine, "_claimed", {})
    monkeypatch.setattr(machine.tempfile, "tempdir", str(tmp_path))
    return [tmp_path / f"metaseg_nb_{os.getuid()}_{name}.lock" for name in ("GPU-a", "GPU-b")]


def test_the_first_gpu_is_taken_and_kept(gpus):
    assert machine.claim_gpus(1) == machine.claim_gpus(1) == ["GPU-a"]
    assert claim(gpus[0]) is None
    assert machine.claim_gpus(2) == ["GPU-a", "GPU-b"]


def test_a_gpu_of_another_training_is_left_to_it(gpus):
    with claim(gpus[0]):
        assert machine.claim_gpus(1) == ["GPU-b"]


def test_where_all_are_taken_one_is_shared(gpus):
    with claim(gpus[0]), claim(gpus[1]):
        assert machine.claim_gpus(1) == ["GPU-a"]


def test_more_than_there_are_is_an_error(gpus):
    with pytest.raises(ValueError, match="num_processes: found 4; expected: at most 2"):
        machine.claim_gpus(4)


def test_without_a_gpu_nothing_is_claimed(monkeypatch):
    monkeypatch.setattr(machine, "_gpus", list)
    assert machine.claim_gpus(4) == []
    assert machine.device().type == "cpu"


@pytest.mark.parametrize(("has_gpu", "at_once"), [(True, 1), (False, 3)])
def test_brains_are_extracted_one_at_a_time_where_there_is_a_gpu(gpus, monkeypatch, has_gpu, at_once):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    given_back, inside, most = [], [], []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: given_back.append(len(inside)))

    def work(n):
        with machine.gpu_in_turn():
            inside.append(n)
            time.sleep(0.3)
            most.append(len(inside))
            inside.remove(n)
            if n == 1:
                raise ValueError

    with ThreadPoolExecutor(3) as pool:
        errors = [future.exception() for future in [pool.submit(work, n) for n in range(3)]]
    assert max(most) == at_once
    assert given_back == ([0] * 3 if has_gpu else [])
    assert [type(error) for error in errors] == [type(None), ValueError, type(None)]
