"""Two trainings side by side take different GPUs."""

import os

import pytest

from metaseg_nb import devices
from metaseg_nb.locks import claim


@pytest.fixture
def gpus(monkeypatch, tmp_path):
    """A machine with two GPUs; its lock files."""
    monkeypatch.setattr(devices, "_gpus", lambda: ["GPU-a", "GPU-b"])
    monkeypatch.setattr(devices, "_claimed", {})
    monkeypatch.setattr(devices.tempfile, "tempdir", str(tmp_path))
    return [tmp_path / f"metaseg_nb_{os.getuid()}_{name}.lock" for name in ("GPU-a", "GPU-b")]


def test_the_first_gpu_is_taken_and_kept(gpus):
    assert devices.claim_gpus(1) == devices.claim_gpus(1) == ["GPU-a"]
    assert claim(gpus[0]) is None
    assert devices.claim_gpus(2) == ["GPU-a", "GPU-b"]


def test_a_gpu_of_another_training_is_left_to_it(gpus):
    with claim(gpus[0]):
        assert devices.claim_gpus(1) == ["GPU-b"]


def test_where_all_are_taken_one_is_shared(gpus):
    with claim(gpus[0]), claim(gpus[1]):
        assert devices.claim_gpus(1) == ["GPU-a"]


def test_more_than_there_are_is_an_error(gpus):
    with pytest.raises(ValueError, match="num_processes: found 4; expected: at most 2"):
        devices.claim_gpus(4)


def test_without_a_gpu_nothing_is_claimed(monkeypatch):
    monkeypatch.setattr(devices, "_gpus", list)
    assert devices.claim_gpus(4) == []
    assert devices.device().type == "cpu"
