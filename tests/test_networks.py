"""Networks: at full size they are those of the study or as published, at any width they give one logit a voxel."""

import copy
import math

import pytest
import torch
import yaml
from monai.networks.nets import UNETR, AttentionUnet, DynUNet, SegResNet, SegResNetDS, SwinUNETR, UNet

from metaseg_nb.evaluation.conclusions import TRANSFORMERS
from metaseg_nb.figures.style import model_colour
from metaseg_nb.layout import PARAMS, parameter_names
from metaseg_nb.parameters import model_title, read_parameters
from metaseg_nb.settings import THRESHOLD_MODEL
from metaseg_nb.training.networks import NETWORKS, build_network, count_parameters, patch_edges, start_at_prior

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
NNUNET = {"kernel_size": [3] * 6, "strides": [1, 2, 2, 2, 2, 2], "upsample_kernel_size": [2] * 5}
# Those beside the study, built with MONAI from what their authors published.
PUBLISHED = {
    "swin_unetr": lambda: SwinUNETR(**ONE_TO_ONE, feature_size=48),
    # MONAI's channels, where none are given, are nnU-Net's
    "dynunet": lambda: DynUNet(spatial_dims=3, **ONE_TO_ONE, **NNUNET, deep_supervision=True, deep_supr_num=3),
    "segresnet_ds": lambda: SegResNetDS(
        **ONE_TO_ONE, init_filters=32, blocks_down=(1, 2, 2, 4, 4), norm="instance", dsdepth=4
    ),
}
# Counted once, on networks built as above with MONAI 1.6.1.
N_PARAMETERS = {
    "unet": 4_807_968,
    "attention_unet": 5_909_113,
    "segresnet": 4_700_897,
    "unetr": 93_029_585,
    "swin_unetr": 62_186_659,
    "dynunet": 31_189_828,
    "segresnet_ds": 87_163_716,
}
N_OUTPUTS = {"dynunet": 4, "segresnet_ds": 4}

each_network = pytest.mark.parametrize("model", NETWORKS)


def without_memory(build):
    """Only shapes are of interest here, and UNETR alone would take 370 MB."""
    with torch.device("meta"):
        return build()


def smallest(model):
    return patch_edges(model)[0]


def volume(model, in_channels=1):
    return (2, in_channels, *(smallest(model),) * 3)


def shapes(network):
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


@pytest.mark.parametrize("model", STUDY)
def test_at_full_width_each_network_is_the_one_of_the_study(model):
    ours, study = without_memory(lambda: build_network(model, 1.0, 128)), without_memory(STUDY[model])
    assert shapes(ours) == shapes(study)
    assert str(ours) == str(study)  # strides, norms and dropout, which hold no values


@pytest.mark.parametrize("model", PUBLISHED)
def test_at_full_width_the_others_are_as_published(model):
    ours, published = without_memory(lambda: build_network(model, 1.0, 128)), PUBLISHED[model]()
    assert shapes(ours) == shapes(published)
    assert str(ours).splitlines()[1:] == str(published).splitlines()[1:]  # the first names the class


@each_network
def test_parameters_at_full_width(model):
    assert count_parameters(without_memory(lambda: build_network(model, 1.0, 128))) == N_PARAMETERS[model]


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


@pytest.mark.parametrize("width", [0.125, 0.25])
@each_network
def test_at_any_width_a_volume_gives_one_logit_per_voxel(model, width):
    network = build_network(model, width, smallest(model)).eval()
    with torch.inference_mode():
        logits = network(torch.rand(volume(model), generator=torch.Generator().manual_seed(0)))
    assert logits.shape == volume(model)
    assert torch.isfinite(logits).all()
    assert count_parameters(network) < N_PARAMETERS[model]


@pytest.mark.parametrize("in_channels", [2, 4])
@each_network
def test_several_sequences_give_one_logit_per_voxel(model, in_channels):
    network = without_memory(lambda: build_network(model, 0.25, smallest(model), in_channels)).eval()
    start_at_prior(network)
    assert without_memory(lambda: network(torch.zeros(volume(model, in_channels)))).shape == volume(model)


@pytest.mark.parametrize("width", [0.01, 0.05, 0.3, 0.6, 0.75, 0.9])
@each_network
def test_no_width_breaks_a_network(model, width):
    network = without_memory(lambda: build_network(model, width, smallest(model)))
    outputs = without_memory(lambda: network(torch.zeros(volume(model))))
    assert (outputs if torch.is_tensor(outputs) else outputs[0]).shape == volume(model)


@each_network
def test_in_training_only_deep_supervision_gives_several_outputs_full_resolution_first(model):
    network = without_memory(lambda: build_network(model, 0.25, 128)).train()
    outputs = without_memory(lambda: network(torch.zeros(1, 1, 128, 128, 128)))
    if model not in N_OUTPUTS:
        assert torch.is_tensor(outputs)
        return
    assert isinstance(outputs, list)
    assert len(outputs) == N_OUTPUTS[model]
    assert outputs[0].shape == (1, 1, 128, 128, 128)
    assert all(output.shape[:2] == (1, 1) for output in outputs)
    assert [output.shape[2] for output in outputs] == sorted((o.shape[2] for o in outputs), reverse=True)


@each_network
def test_a_network_can_be_copied_while_it_trains(model):
    network = without_memory(lambda: build_network(model, 0.05, smallest(model))).train()
    without_memory(lambda: network(torch.zeros(volume(model))))
    assert shapes(copy.deepcopy(network)) == shapes(network)


@pytest.mark.parametrize(
    ("patch_size", "n_levels", "lowest"), [(128, 6, 320), (96, 5, 320), (48, 4, 256), (32, 4, 256)]
)
def test_dynunet_halves_the_patch_while_four_voxels_are_left(patch_size, n_levels, lowest):
    network = without_memory(lambda: build_network("dynunet", 1.0, patch_size))
    assert (len(network.strides), network.filters[-1]) == (n_levels, lowest)
    assert network.deep_supr_num == n_levels - 3  # beside the full resolution; the two lowest have none


def test_an_unknown_network_is_refused_by_name():
    with pytest.raises(ValueError, match=r"unett.*unet, attention_unet, segresnet, unetr, swin_unetr, dynunet, segres"):
        build_network("unett", 1.0, 128)


@pytest.mark.parametrize(
    ("model", "patch_size", "expected"),
    [("swin_unetr", 32, "multiple of 32"), ("swin_unetr", 80, "multiple of 32"), ("unet", 40, "multiple of 16")],
)
def test_a_patch_that_a_network_cannot_take_is_refused(model, patch_size, expected):
    with pytest.raises(ValueError, match=f"{model}: found patch_size {patch_size}; expected a {expected}"):
        build_network(model, 1.0, patch_size)


def is_taken(model, patch_size):
    edge, multiple = patch_edges(model)
    return patch_size >= edge and patch_size % multiple == 0


EDGES = (32, 48, 64, 80, 96, 112, 144, 160)
TAKEN = [(model, patch_size) for model in NETWORKS for patch_size in EDGES if is_taken(model, patch_size)]


@pytest.mark.parametrize(("model", "patch_size"), TAKEN)
def test_what_is_not_refused_trains(model, patch_size):
    network = without_memory(lambda: build_network(model, 0.05, patch_size)).train()
    outputs = without_memory(lambda: network(torch.zeros(1, 1, patch_size, patch_size, patch_size)))
    assert (outputs if torch.is_tensor(outputs) else outputs[0]).shape[2:] == (patch_size,) * 3


def test_every_network_has_a_model_file_and_every_file_a_network():
    files = {name: read_parameters(PARAMS / "models" / f"{name}.yaml") for name in parameter_names("model")}
    assert {values["network"] for values in files.values()} == set(NETWORKS)
    assert set(TRANSFORMERS) <= set(NETWORKS)
    assert all(values["model"] == name for name, values in files.items())


def test_no_two_models_share_a_title_or_a_colour():
    models = [*parameter_names("model"), THRESHOLD_MODEL]
    assert len({model_title(model) for model in models}) == len(models)
    assert len({model_colour(model) for model in models}) == len(models)


def test_every_value_of_a_model_file_has_its_reason():
    for name in parameter_names("model"):
        lines = (PARAMS / "models" / f"{name}.yaml").read_text().splitlines()
        assert lines[0].startswith("# ")
        assert all(line.partition(" # ")[2] for line in lines[1:]), name


def test_the_files_of_the_study_train_it_at_full_size_and_unetr_four_times_as_long():
    files = {name: yaml.safe_load((PARAMS / "models" / f"{name}.yaml").read_text()) for name in STUDY}
    assert {values["width"] for values in files.values()} == {1.0}
    assert {name: values["epochs"] for name, values in files.items()} == dict.fromkeys(STUDY, 350) | {"unetr": 1400}


def test_unet_roi_differs_from_unet_in_its_patches_alone():
    unet, roi = (read_parameters(PARAMS / "models" / f"{name}.yaml") for name in ("unet", "unet_roi"))
    assert {key for key in roi if roi[key] != unet.get(key)} == {"model", "title", "sampling"}


@each_network
def test_every_output_of_an_untrained_network_calls_about_one_voxel_in_a_hundred_lesion(model):
    torch.manual_seed(0)
    network = build_network(model, 0.25, smallest(model)).train()
    start_at_prior(network)
    with torch.no_grad():
        outputs = network(torch.rand(volume(model)))
    for output in [outputs] if torch.is_tensor(outputs) else outputs:
        assert 0.003 < torch.sigmoid(output).mean() < 0.04


@each_network
def test_the_prior_changes_one_bias_for_each_output_and_nothing_else(model):
    network = build_network(model, 0.05, 128)
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    start_at_prior(network)
    changed = [p for name, p in network.named_parameters() if not torch.equal(p, before[name])]
    assert len(changed) == N_OUTPUTS.get(model, 1)
    assert all(p.item() == pytest.approx(math.log(1 / 99)) for p in changed)
