"""On a GPU: every network learns and predicts there as on the CPU, runs resume, and notebooks take it by themselves."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import tiny_file
from stopping_batches import Stopped, Stopping

from metaseg_nb.inference.sliding_window import case_probability
from metaseg_nb.layout import RunLayout
from metaseg_nb.training import patches
from metaseg_nb.training.augmentation import augment_strongly
from metaseg_nb.training.checkpoints import load_checkpoint, network_of
from metaseg_nb.training.fit import fit, train
from metaseg_nb.training.networks import NETWORKS
from metaseg_nb.training.patches import PatchBatches

pytestmark = pytest.mark.gpu

CPU, GPU = torch.device("cpu"), torch.device("cuda")
HELD_FREE_GB = 6


def judge(network):
    with torch.inference_mode():
        return float(torch.sigmoid(network(torch.ones(1, 1, 64, 64, 64, device=GPU))).mean())


@pytest.fixture(autouse=True)
def a_gpu(monkeypatch):
    """Fail without one, for then these tests would pass on the CPU; and let cuDNN add up in one order."""
    assert torch.cuda.is_available(), "no GPU is visible here"
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)


@pytest.fixture
def cases(store_blobs):
    return [store_blobs(f"case{i}", seed=i, shape=(72, 68, 66)) for i in range(4)]


def trained(cases, settings, run, stop_at=None):
    return fit(run, Stopping(cases, settings, stop_at), judge)


@pytest.mark.parametrize("network", NETWORKS)
def test_a_network_learns_in_bf16_and_predicts_as_on_the_cpu(network, cases, tmp_path, tiny_training):
    settings = tiny_training(network=network, width=0.25, patch_size=64, precision="bf16", epochs=12)
    run = RunLayout(tmp_path / "run")
    history = trained(cases, settings, run)
    assert history["loss"].iloc[-3:].mean() < 0.95 * history["loss"].iloc[:3].mean()
    checkpoint = load_checkpoint(run.last_checkpoint)
    on_gpu, on_cpu = (case_probability(network_of(checkpoint, d), cases[0], settings, d) for d in (GPU, CPU))
    assert np.abs(on_gpu - on_cpu).mean() < 0.01  # bf16 keeps 8 bits
    assert np.corrcoef(on_gpu.ravel(), on_cpu.ravel())[0, 1] > 0.99


@pytest.mark.parametrize(("precision", "compiled"), [("no", False), ("bf16", False), ("fp16", False), ("bf16", True)])
def test_a_stopped_run_goes_on_as_if_it_had_never_stopped(precision, compiled, cases, tmp_path, tiny_training):
    settings = tiny_training(precision=precision, compiled=compiled, ema_decay=0.9, epochs=4, flip_probability=0.5)
    whole, halted = RunLayout(tmp_path / "whole"), RunLayout(tmp_path / "halted")
    trained(cases, settings, whole)
    with pytest.raises(Stopped):
        trained(cases, settings, halted, stop_at=5)
    trained(cases, settings, halted)
    there, here = (load_checkpoint(run.last_checkpoint) for run in (whole, halted))
    for name, tensor in there["weights"].items():
        torch.testing.assert_close(here["weights"][name], tensor, rtol=0, atol=0, msg=f"{name} differs")


@pytest.mark.parametrize("augmentation", ["study", "strong"])
def test_cases_on_the_gpu_give_the_batches_of_streamed_ones(augmentation, cases, tiny_training, monkeypatch):
    changes = {"augmentation": augmentation, "flip_probability": 0.5, "rotate_probability": 0.5}
    changes |= {"intensity_scale": 0.1, "intensity_shift": 0.1}
    batches = PatchBatches(cases, tiny_training(epochs=6, patches_per_case=2, **changes))
    assert patches.stays_on_gpu(batches, GPU)
    staying = list(batches.loader(0, GPU))
    monkeypatch.setattr(patches, "stays_on_gpu", lambda *_: False)
    streamed = list(batches.loader(0, GPU))
    assert len(staying) == len(streamed) == 12
    for pair, other, expected in zip(staying, streamed, batches.loader(0, CPU), strict=True):
        for tensor, same, on_cpu in zip(pair, other, expected, strict=True):
            assert tensor.device.type == "cuda"
            assert torch.equal(tensor, same)
            assert augmentation == "strong" or torch.equal(tensor.cpu(), on_cpu)


class Unwaited(PatchBatches):
    """Batches between some of which nothing may wait for the GPU."""

    def packed(self, step):
        torch.cuda.set_sync_debug_mode({3: "error", 9: "default"}.get(step, torch.cuda.get_sync_debug_mode()))
        return super().packed(step)


@pytest.mark.parametrize("network", NETWORKS)
def test_nothing_in_a_step_waits_for_the_gpu(network, cases, tmp_path, tiny_training):
    settings = tiny_training(network=network, patch_size=64, precision="bf16", epochs=5, validate_every=5)
    try:
        assert len(fit(RunLayout(tmp_path / "run"), Unwaited(cases, settings), judge)) == 1
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_where_cases_do_not_fit_they_are_streamed(cases, tiny_training, monkeypatch):
    batches = PatchBatches(cases, tiny_training())
    held = torch.cuda.mem_get_info()[0]
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1_000_000, held))
    assert not patches.stays_on_gpu(batches, GPU)
    assert all(images.device.type == "cuda" for images, _ in batches.loader(0, GPU))


def test_strong_augmentation_is_done_on_the_gpu():
    images = torch.rand(4, 1, 48, 48, 48)
    labels = (images > 0.9).to(torch.uint8)
    for seed in range(8):
        changed, moved = augment_strongly(images.to(GPU), labels.to(GPU), seed)
        expected, expected_moved = augment_strongly(images, labels, seed)
        assert changed.device.type == moved.device.type == "cuda"
        assert set(moved.unique().tolist()) <= {0, 1}
        assert (moved.cpu() != expected_moved).float().mean() < 0.001
        # noise is drawn by each device's own generator
        assert (changed.cpu() - expected).abs().median() < 0.2


def test_without_enough_memory_the_advice_that_is_given_works(cases, tmp_path, tiny_training):
    free, _ = torch.cuda.mem_get_info()
    code = f"import torch; held = torch.empty({free - HELD_FREE_GB * 10**9}, dtype=torch.uint8, device='cuda')"
    command = [sys.executable, "-c", f"{code}; print('held', flush=True); input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        try:
            assert other.stdout.readline() == "held\n"
            settings = tiny_training(network="segresnet", width=1.0, patch_size=64, patches_per_case=32, epochs=1)
            with pytest.raises(MemoryError, match="Any one of these changes is enough") as error:
                train(RunLayout(tmp_path / "too_large"), PatchBatches(cases, settings), judge)
            torch.cuda.empty_cache()
            fitting = int(re.search(r"patches_per_case: (\d+)", str(error.value))[1])
            assert 1 < fitting < 32
            smaller = settings.model_copy(update={"patches_per_case": fitting})
            assert len(train(RunLayout(tmp_path / "fitting"), PatchBatches(cases, smaller), judge)) == 1
        finally:
            other.communicate("\n")


def test_notebooks_take_the_gpu_and_say_which(metaseg, tmp_path):
    study = tmp_path / "tiny.yaml"
    study.write_text(tiny_file("precision: bf16\n"))
    trainings = [[notebook, "--model", "unet", "--fold", "0"] for notebook in ("03_train", "03b_pretrain")]
    for notebook, *more in [["01_explore_data"], ["02_preprocess_n4"], *trainings]:
        result = metaseg(tmp_path, "run", notebook, "--study", study, *more)
        assert result.returncode == 0, result.stderr[-3000:]
    results = [json.loads(path.read_text()) for path in (tmp_path / "runs/tiny").rglob("metrics.json")]
    assert len(results) == 2
    assert {result["provenance"]["device"] for result in results} == {torch.cuda.get_device_name()}
