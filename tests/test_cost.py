"""Cost of a training step: numbers worked out by hand, a real step beside the estimate, advice that fits."""

from collections.abc import Iterable

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from metaseg_nb.training import cost as counting
from metaseg_nb.training import networks
from metaseg_nb.training.cost import Cost, network_cost, what_fits
from metaseg_nb.training.losses import build_loss
from metaseg_nb.training.networks import NETWORKS, build_network, count_parameters

# 10 million parameters: 0.2 GB of weights, mean, moments and gradients; 8 GB for 8 patches of 128³.
BY_HAND = Cost(10_000_000, 1.25, 8.2, 8, 128, "no")
HALF = Cost(10_000_000, 1.25, 4.2, 8, 128, "bf16")


@pytest.fixture
def one_convolution(monkeypatch):
    """A network of a single layer: 2 channels in, 1 out, 3³ kernel, no bias."""
    layer = {"kernel_size": 3, "padding": 1, "bias": False}
    monkeypatch.setitem(NETWORKS, "unet", lambda width, patch_size, channels: torch.nn.Conv3d(channels, 1, **layer))


@pytest.mark.usefixtures("one_convolution")
def test_one_convolution_by_hand(tiny_training):
    cost = network_cost(tiny_training(patch_size=32, batch_size=3, patches_per_case=2), 2)
    voxels = 6 * 32**3
    assert cost.parameters == 2 * 27
    # forward, and backward to the weights: the images need no gradient; two operations a product
    assert cost.tflop * 1e12 == 2 * (2 * 27 * voxels * 2)
    # images of two channels, labels, logits and a few maps of the loss, in single precision
    assert 4 * 4 * voxels <= cost.memory_gb * 1e9 - 16 * cost.parameters <= 4 * 10 * voxels


def test_twice_the_patches_take_twice_the_operations_and_twice_what_is_not_weights(tiny_training):
    one, two = (network_cost(tiny_training(network="segresnet", patches_per_case=n), 1) for n in (2, 4))
    assert two.tflop == pytest.approx(2 * one.tflop)
    assert two.memory_gb == pytest.approx(one.memory_of(2 * one.patches, one.patch_size), rel=0.02)


def test_larger_patches_take_more_by_their_voxels(tiny_training):
    small, large = (network_cost(tiny_training(network="segresnet", patch_size=edge), 1) for edge in (64, 96))
    assert large.tflop == pytest.approx(1.5**3 * small.tflop, rel=0.01)
    assert large.memory_gb == pytest.approx(small.memory_of(small.patches, 96), rel=0.02)


def test_half_precision_takes_about_half_the_memory(tiny_training):
    settings = {"network": "dynunet", "patch_size": 64, "patches_per_case": 4}
    full, half = (network_cost(tiny_training(**settings, precision=p), 1).memory_gb for p in ("no", "bf16"))
    assert 0.45 * full < half < 0.6 * full


def test_a_process_of_several_has_its_share_of_the_cases(tiny_training):
    cost = network_cost(tiny_training(batch_size=6, patches_per_case=3, num_processes=2), 1)
    assert cost.patches == 3 * 3


@pytest.mark.parametrize("network", NETWORKS)
def test_every_network_at_full_size_is_counted_without_taking_its_memory(network, tiny_training):
    study = {"width": 1.0, "patch_size": 128, "batch_size": 2, "patches_per_case": 4}
    cost = network_cost(tiny_training(network=network, **study), 1)
    assert cost.memory_gb > 2.5
    assert cost.tflop > 0.5


def test_other_numbers_than_the_loops_are_left_alone(tiny_training):
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    network_cost(tiny_training(network="segresnet"), 1)
    assert torch.equal(torch.rand(3), expected)


def allocated(step) -> Iterable[int]:
    """Bytes that a step has allocated in all, after each allocation and release."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        yield held


@pytest.mark.parametrize("network", ["segresnet", "dynunet"])
def test_a_real_step_takes_the_memory_that_was_said(network, tiny_training):
    settings = tiny_training(network=network, width=0.5, patch_size=48)
    torch.manual_seed(0)
    model, loss = build_network(network, 0.5, 48).train(), build_loss("dice_ce")

    def step():
        images, labels = torch.rand(2, 1, 48, 48, 48), torch.zeros(2, 1, 48, 48, 48)
        loss(model(images), labels).backward()

    kept = 16 * count_parameters(model)  # weights, mean and moments were there before
    assert network_cost(settings, 1).memory_gb * 1e9 - kept == pytest.approx(max(allocated(step)), rel=0.15)


# Peak of 10⁹ bytes that PyTorch 2.11 allocated on an NVIDIA H200 in a step of 8 patches of 128³ (benchmarks/gpu.py).
MEASURED = {
    ("unet", "no", False): 3.4,
    ("unet", "bf16", False): 2.1,
    ("attention_unet", "bf16", False): 10.4,
    ("segresnet", "no", False): 19.4,
    ("segresnet", "bf16", False): 21.5,  # autocast keeps group norm in single precision
    ("segresnet", "bf16", True): 10.3,  # with channels last
    ("unetr", "no", False): 27.9,
    ("unetr", "bf16", False): 16.4,
}


@pytest.mark.parametrize(("network", "precision", "compiled"), MEASURED)
def test_memory_is_what_a_gpu_took(network, precision, compiled, tiny_training):
    size = {"width": 1.0, "patch_size": 128, "batch_size": 2, "patches_per_case": 4}
    cost = network_cost(tiny_training(network=network, precision=precision, compiled=compiled, **size), 1)
    # what MONAI's loss makes on the way, a few maps, is not in the count
    assert 0.85 < cost.memory_gb / MEASURED[network, precision, compiled] < 1.02


def test_the_line_for_the_notebook():
    cost = Cost(4_807_968, 0.561, 3.03, 8, 128, "no")
    expected = "4.81 million parameters, 0.56 TFLOP and 3.0 GB per training step (8 patches of 128³, single precision)"
    assert str(cost) == expected


def test_memory_of_other_patches_by_hand():
    assert BY_HAND.memory_of(4, 128) == pytest.approx(0.2 + 4)
    assert BY_HAND.memory_of(8, 64) == pytest.approx(0.2 + 1)
    assert BY_HAND.memory_of(8, 128) == pytest.approx(8.2)


@pytest.fixture
def by_hand(monkeypatch):
    """Every network costs `BY_HAND`, or in bf16 `HALF`."""
    monkeypatch.setattr(counting, "network_cost", lambda settings, _: {"no": BY_HAND, "bf16": HALF}[settings.precision])


@pytest.mark.usefixtures("by_hand")
@pytest.mark.parametrize(
    ("free_gb", "changes"),
    [
        # nine tenths of 6 GB are 5.4: bf16 takes 4.2; 5 patches 5.2, so 2 of each of 2 cases; 96³ 0.2 + 8 * 27 / 64
        (6.0, "precision: bf16; patches_per_case: 2; patch_size: 96"),
        # 3.6: bf16 takes too much; 3 patches 3.2; 96³ 3.6 by a hair too much (0.2 + 3.375), 80³ 0.2 + 8 * 125 / 512
        (3.9, "patches_per_case: 1; patch_size: 80"),
        # 1.35: one patch 1.2; 64³ 0.2 + 1
        (1.5, "batch_size: 1 and patches_per_case: 1; patch_size: 64"),
        # 0.45: 32³ 0.2 + 8 / 64
        (0.5, "patch_size: 32"),
    ],
)
def test_advice_is_the_largest_that_fits(free_gb, changes, tiny_training):
    settings = tiny_training(patch_size=128, batch_size=2, patches_per_case=4)
    assert what_fits(settings, 1, free_gb).endswith(f"Any one of these changes is enough: {changes}")


@pytest.mark.usefixtures("by_hand")
def test_where_nothing_fits_it_says_so(tiny_training):
    settings = tiny_training(patch_size=128, batch_size=2, patches_per_case=4)
    assert "use a lower width or a larger GPU" in what_fits(settings, 1, 0.2)


@pytest.mark.usefixtures("by_hand")
def test_several_processes_are_told_of_whole_settings(tiny_training):
    # 4 processes of one case each, 8 patches of it; 3.2 GB hold 3 of these
    settings = tiny_training(patch_size=128, batch_size=4, patches_per_case=8, num_processes=4)
    assert "patches_per_case: 3;" in what_fits(settings, 1, 3.6)


@pytest.mark.usefixtures("by_hand")
def test_patch_sizes_are_ones_that_the_network_takes(tiny_training):
    settings = tiny_training(network="swin_unetr", patch_size=128, batch_size=2, patches_per_case=4)
    assert networks.patch_edges("swin_unetr") == (64, 32)
    assert what_fits(settings, 1, 3.9).endswith("patch_size: 64")


def test_what_fits_takes_no_more_than_there_is(tiny_training):
    settings = tiny_training(network="dynunet", patch_size=64, batch_size=2, patches_per_case=4)
    free_gb = 0.5 * network_cost(settings, 1).memory_gb
    words = what_fits(settings, 1, free_gb)
    assert words.startswith("U-Net: ")
    patches = int(words.split("patches_per_case: ")[1][0])
    assert network_cost(settings.model_copy(update={"patches_per_case": patches}), 1).memory_gb < free_gb
    edge = int(words.split("patch_size: ")[1])
    assert network_cost(settings.model_copy(update={"patch_size": edge}), 1).memory_gb < free_gb


def test_a_small_cost_is_not_written_as_none():
    small = Cost(1_200_000, 0.0034, 0.046, 2, 32, "no")
    assert "0.003 TFLOP and 0.05 GB" in str(small)
