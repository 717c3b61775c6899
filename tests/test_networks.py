"""Networks: at the study's size they are the study's, at any width they give one logit a voxel, their names agree."""

from typing import get_args

import pytest
import torch
import yaml
from monai.networks.nets import UNETR, AttentionUnet, SegResNet, UNet

from metaseg_nb.layout import PARAMS
from metaseg_nb.review.style import MODEL_COLOURS
from metaseg_nb.settings import MODEL_NAMES, ModelName
from metaseg_nb.training.networks import NETWORKS, build_network, count_parameters, start_at_prior

CHANNELS = {"channels": (16, 32, 64, 128, 256), "strides": (2, 2, 2, 2)}
ONE_TO_ONE = {"in_channels": 1, "out_channels": 1}
# The networks of the study, built with MONAI from its published numbers alone.
STUDY = {
    "unet": lambda: UNet(spatial_dims=3, **ONE_TO_ONE, **CHANNELS, num_res_units=2, norm="batch"),
    "attention_unet": lambda: AttentionUnet(spatial_dims=3, **ONE_TO_ONE, **CHANNELS),
    "segresnet": lambda: SegResNet(
        **ONE_TO_ONE, init_filters=16, blocks_down=(1, 2, 2, 4), blocks_up=(1, 1, 1), dropout_prob=0.2
    ),
    "unetr": lambda: UNETR(
        **ONE_TO_ONE,
        img_size=(128, 128, 128),
        feature_size=16,
        hidden_size=768,
        mlp_dim=3072,
        num_heads=12,
        norm_name="instance",
    ),
}
# Counted once, on networks built as in STUDY with MONAI 1.6.1.
N_PARAMETERS = {"unet": 4_807_968, "attention_unet": 5_909_113, "segresnet": 4_700_897, "unetr": 93_029_585}

each_network = pytest.mark.parametrize("model", NETWORKS)


def without_memory(build):
    """Only shapes are of interest here, and UNETR alone would take 370 MB."""
    with torch.device("meta"):
        return build()


def shapes(network):
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


@each_network
def test_at_full_width_each_network_is_the_one_of_the_study(model):
    ours, study = without_memory(lambda: build_network(model, 1.0, 128)), without_memory(STUDY[model])
    assert shapes(ours) == shapes(study)
    assert str(ours) == str(study)  # strides, norms and dropout, which hold no values
    assert count_parameters(ours) == N_PARAMETERS[model]


def test_unetr_holds_vit_base():
    # Per block: queries, keys, values; projection; MLP; two norms, and a third that MONAI builds and does not use.
    # Then patches of 16³ voxels, 8³ places, a last norm.
    hidden, mlp, blocks = 768, 3072, 12
    block = 3 * hidden**2 + (hidden + 1) * hidden + 2 * hidden * mlp + mlp + hidden + 3 * 2 * hidden
    embedding = (16**3 + 1) * hidden + 8**3 * hidden
    network = without_memory(lambda: build_network("unetr", 1.0, 128))
    assert count_parameters(network.vit) == blocks * block + embedding + 2 * hidden


def test_parameters_that_are_not_trained_do_not_count():
    network = build_network("unet", 0.125, 32)
    total = count_parameters(network)
    first = next(network.parameters())
    first.requires_grad_(False)
    assert count_parameters(network) == total - first.numel()


@pytest.mark.parametrize("width", [0.125, 0.25, 0.5])
@each_network
def test_at_any_width_a_volume_gives_one_logit_per_voxel(model, width):
    network = build_network(model, width, 32).eval()
    with torch.inference_mode():
        logits = network(torch.rand(2, 1, 32, 32, 32, generator=torch.Generator().manual_seed(0)))
    assert logits.shape == (2, 1, 32, 32, 32)
    assert torch.isfinite(logits).all()
    assert count_parameters(network) < N_PARAMETERS[model]


@pytest.mark.parametrize("in_channels", [2, 4])
@each_network
def test_several_sequences_give_one_logit_per_voxel(model, in_channels):
    shape = (2, in_channels, 32, 32, 32)
    network = without_memory(lambda: build_network(model, 0.25, 32, in_channels))
    start_at_prior(network)
    assert without_memory(lambda: network(torch.zeros(shape))).shape == (2, 1, 32, 32, 32)


@pytest.mark.parametrize("width", [0.01, 0.05, 0.3, 0.6, 0.75, 0.9])
@each_network
def test_no_width_breaks_a_network(model, width):
    shape = (2, 1, 32, 32, 32)
    assert without_memory(lambda: build_network(model, width, 32)(torch.zeros(shape))).shape == shape


def test_names_of_networks_agree_everywhere():
    names = set(NETWORKS)
    files = list((PARAMS / "models").glob("*.yaml"))
    assert set(get_args(ModelName)) == names
    assert {file.stem for file in files} == names
    assert {yaml.safe_load(file.read_text())["model"] for file in files} == names
    assert all(yaml.safe_load(file.read_text())["model"] == file.stem for file in files)
    assert set(MODEL_COLOURS) == set(MODEL_NAMES) == names | {"intensity_threshold"}
    assert len(set(MODEL_COLOURS.values())) == len(MODEL_COLOURS), "two networks share a colour"


def test_the_files_of_the_study_train_it_at_full_size_and_unetr_four_times_as_long():
    files = {file.stem: yaml.safe_load(file.read_text()) for file in (PARAMS / "models").glob("*.yaml")}
    assert {values["width"] for values in files.values()} == {1.0}
    assert files["unetr"]["epochs"] == 1400
    assert {values["epochs"] for name, values in files.items() if name != "unetr"} == {350}


@pytest.mark.parametrize("model", NETWORKS)
def test_an_untrained_network_calls_about_one_voxel_in_a_hundred_lesion(model):
    torch.manual_seed(0)
    network = build_network(model, 0.25, 32).eval()
    start_at_prior(network)
    with torch.inference_mode():
        probability = torch.sigmoid(network(torch.rand(1, 1, 32, 32, 32))).mean()
    assert 0.003 < probability < 0.04
