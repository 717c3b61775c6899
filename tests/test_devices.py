"""Two trainings side by side take different GPUs."""

import os

import pytest

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
