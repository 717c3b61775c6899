"""Training in processes of its own: two share a batch as one would have it whole, and a killed one loses nothing."""

import multiprocessing
import os
import signal
import threading
import time

import pandas as pd
import pytest
import torch
from test_fit import Stopping, assert_same_runs, judge

from metaseg_nb.layout import RunLayout
from metaseg_nb.training import fit as training_loop
from metaseg_nb.training.checkpoints import load_checkpoint
from metaseg_nb.training.fit import TrainingStopped, fit, train
from metaseg_nb.training.patches import PatchBatches

pytestmark = pytest.mark.slow

# Deep supervision, no dropout, no running means: all that a batch does to it is in the gradients.
NETWORK = {"network": "dynunet", "batch_size": 4, "augmentation": "study", "flip_probability": 0.5, "loss": "dice_ce"}


@pytest.fixture
def cases(store_blobs):
    return [store_blobs(f"case{i}", seed=i) for i in range(4)]


def gradients(run, settings):
    """Those of the first step: AdamW's first moment is a tenth of them."""
    moments = load_checkpoint(run.last_checkpoint)["optimiser"]["state"]
    return torch.cat([moment["exp_avg"].ravel() for moment in moments.values()]) / 0.1


@pytest.mark.parametrize("network", ["dynunet", "unetr"])  # several outputs; parameters that are not used
def test_two_processes_give_the_loss_and_gradients_of_one_with_the_whole_batch(cases, tmp_path, tiny_training, network):
    runs = [RunLayout(tmp_path / name) for name in ("one", "two")]
    for run, processes in zip(runs, (1, 2), strict=True):
        settings = tiny_training(**NETWORK | {"network": network}, epochs=1, num_processes=processes)
        history = train(run, PatchBatches(cases, settings), judge)
        assert history["step"].tolist() == [1]
    losses = [pd.read_csv(run.history)["loss"].item() for run in runs]
    assert losses[1] == pytest.approx(losses[0], rel=1e-6)
    one, two = (gradients(run, settings) for run in runs)
    assert one.norm() > 0.01
    assert (one - two).norm() < 1e-5 * one.norm()


def test_a_batch_that_cannot_be_shared_is_refused(tiny_training):
    with pytest.raises(ValueError, match="a number that divides batch_size, 3"):
        tiny_training(batch_size=3, num_processes=2)


def test_an_error_in_one_process_ends_all_with_its_message(cases, tmp_path, tiny_training):
    settings = tiny_training(**NETWORK, epochs=2, num_processes=2)
    with pytest.raises(Exception, match="selection set gone"):
        train(RunLayout(tmp_path / "run"), PatchBatches(cases, settings), broken_look)


def test_a_gpu_without_enough_memory_is_told_with_what_would_fit(cases, tmp_path, tiny_training, monkeypatch):
    def exhausted(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(training_loop, "fit", exhausted)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (int(1.5e9), int(80e9)))  # others hold the rest
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda: int(0.5e9))
    settings = tiny_training(network="segresnet", width=1.0, patch_size=64, patches_per_case=4)
    with pytest.raises(
        MemoryError, match=r"of 2\.0 GB\. Any one of these changes is enough: .*patches_per_case: \d; patch_size: \d+"
    ):
        train(RunLayout(tmp_path / "run"), PatchBatches(cases, settings), judge)


def broken_look(network):
    raise RuntimeError("selection set gone")


def test_a_request_to_stop_reaches_all_processes_and_the_run_goes_on_from_there(cases, tmp_path, tiny_training):
    settings = tiny_training(**NETWORK, epochs=300, num_processes=2)
    run = RunLayout(tmp_path / "run")

    def ask():
        while not run.history.exists():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=ask, daemon=True).start()
    with pytest.raises(TrainingStopped):
        train(run, PatchBatches(cases, settings), judge)
    assert not multiprocessing.active_children()
    assert 1 <= load_checkpoint(run.last_checkpoint)["state"]["step"] < 300


class Killed(PatchBatches):
    """Batches during whose fetching, at a step, the process is killed."""

    def packed(self, step):
        if step == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().packed(step)


def fit_until_killed(cases, settings, run):
    fit(run, Killed(cases, settings), judge)


def test_a_run_killed_outright_ends_as_if_it_had_never_been(cases, tmp_path, tiny_training):
    settings = tiny_training(network="segresnet", ema_decay=0.9, epochs=4, flip_probability=0.5)
    killed, whole = (RunLayout(tmp_path / name) for name in ("killed", "whole"))
    process = multiprocessing.get_context("spawn").Process(target=fit_until_killed, args=(cases, settings, killed))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert load_checkpoint(killed.last_checkpoint)["state"]["step"] == 4
    for run in (killed, whole):
        fit(run, Stopping(cases, settings, None), judge)
    assert_same_runs(killed, whole)
