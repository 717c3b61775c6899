"""The networks by name, sized as in the study or as published, and one ``width`` to shrink them all.

Adding a network is one function here, below `register`, and one file in ``params/models``;
a transformer also stands in `evaluation.conclusions.TRANSFORMERS`.
"""

import math
import re
from collections.abc import Callable, Mapping

import torch
from monai.networks.nets import UNETR, AttentionUnet, DynUNet, SegResNet, SegResNetDS, SwinUNETR, UNet

# From width, patch size and number of sequences to a network: see `build_network`.
Builder = Callable[[float, int, int], torch.nn.Module]

# One lesion logit.
OUT_CHANNELS = 1
# Share of voxels that an untrained network calls lesion.
LESION_PRIOR = 0.01
# Biases of the output layers of networks with deep supervision.
SUPERVISED = re.compile(r"(output_block|deep_supervision_heads\.\d+|up_layers\.\d+\.head)\b.*\.bias$")

HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}
# Faster on a GPU when the channels of a voxel lie side by side (benchmarks/README.md). Group and instance norm turn
# them back at every layer, so that networks with these are slower. On a CPU, norms of this order lose digits.
CHANNELS_LAST = ("unet", "attention_unet")

NETWORKS: dict[str, Builder] = {}
# Pattern of the names of each network's output layers.
OUTPUT_LAYERS: dict[str, str] = {}


def register(output_layers: str) -> Callable[[Builder], Builder]:
    """Add a network to `NETWORKS`, by the name of its function.

    Parameters
    ----------
    output_layers : str
        Regular expression for the beginning of the names of their weights, which do not start from a pretraining.
    """

    def add(build: Builder) -> Builder:
        name = build.__name__
        NETWORKS[name], OUTPUT_LAYERS[name] = build, output_layers
        return build

    return add


def _channels(width: float) -> tuple[int, ...]:
    return tuple(max(2, round(width * channels)) for channels in (16, 32, 64, 128, 256))


@register(output_layers=r"model\.2\.")  # the upper layer, whose channels are the outputs already
def unet(width: float, patch_size: int, in_channels: int) -> torch.nn.Module:
    """Residual U-Net (Kerfoot et al., STACOM 2018)."""
    return UNet(3, in_channels, OUT_CHANNELS, _channels(width), (2, 2, 2, 2), num_res_units=2, norm="batch")


@register(output_layers=r"model\.2\.")
def attention_unet(width: float, patch_size: int, in_channels: int) -> torch.nn.Module:
    """Attention U-Net (Oktay et al., MIDL 2018)."""
    return AttentionUnet(3, in_channels, OUT_CHANNELS, _channels(width), (2, 2, 2, 2))


@register(output_layers=r"conv_final\.2\.")
def segresnet(width: float, patch_size: int, in_channels: int) -> torch.nn.Module:
    """SegResNet without the autoencoder branch (Myronenko, BrainLes 2018)."""
    filters = max(1, round(width * 16))
    return SegResNet(
        in_channels=in_channels,
        out_channels=OUT_CHANNELS,
        init_filters=filters,
        blocks_down=(1, 2, 2, 4),
        blocks_up=(1, 1, 1),
        dropout_prob=0.2,
        norm=("GROUP", {"num_groups": math.gcd(8, filters)}),
    )


@register(output_layers=r"out\.")
def unetr(width: float, patch_size: int, in_channels: int) -> torch.nn.Module:
    """UNETR (Hatamizadeh et al., WACV 2022); every head keeps its 64 channels at any width."""
    heads = max(1, round(width * 12))
    return UNETR(
        in_channels,
        OUT_CHANNELS,
        img_size=(patch_size,) * 3,
        feature_size=max(1, round(width * 16)),
        hidden_size=64 * heads,
        mlp_dim=256 * heads,
        num_heads=heads,
        norm_name="instance",
    )


@register(output_layers=r"out\.")
def swin_unetr(width: float, patch_size: int, in_channels: int) -> torch.nn.Module:
    """Swin UNETR (Hatamizadeh et al., BrainLes 2021); its feature size is a multiple of 12."""
    with torch.device("cpu"):  # MONAI reads drop rates out of a tensor, which cannot be done on the meta device
        network = SwinUNETR(in_channels, OUT_CHANNELS, feature_size=12 * max(1, round(width * 4)))
    return network.to(torch.get_default_device())


class _DynUNet(DynUNet):
    """DynUNet whose logits in training are a list, full resolution first."""

    def forward(self, images: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        logits = super().forward(images)
        self.heads[:] = [images.new_empty(0)] * len(self.heads)  # MONAI keeps its outputs: no copy could be made of it
        return list(logits.unbind(1)) if self.training else logits


# The heads have a second name, inside the layers that they belong to.
@register(output_layers=r"(output_block|deep_supervision_heads|skip_layers\..*super_head)\.")
def dynunet(width: float, patch_size: int, in_channels: int) -> torch.nn.Module:
    """U-Net as nnU-Net plans it for isotropic patches (Isensee et al., Nature Methods 2021).

    It halves the patch while at least 4 voxels are left, from 32 channels to 320 at most, and supervises all
    resolutions but the two lowest.
    """
    n_halvings, edge = 0, patch_size
    while edge >= 8 and edge % 2 == 0:
        n_halvings, edge = n_halvings + 1, edge // 2
    return _DynUNet(
        3,
        in_channels,
        OUT_CHANNELS,
        kernel_size=[3] * (n_halvings + 1),
        strides=[1] + [2] * n_halvings,
        upsample_kernel_size=[2] * n_halvings,
        filters=[max(2, round(width * min(32 * 2**level, 320))) for level in range(n_halvings + 1)],
        norm_name=("INSTANCE", {"affine": True}),
        deep_supervision=True,
        deep_supr_num=n_halvings - 2,
    )


@register(output_layers=r"up_layers\.\d+\.head\.")
def segresnet_ds(width: float, patch_size: int, in_channels: int) -> torch.nn.Module:
    """SegResNet as MONAI's Auto3DSeg builds it, with deep supervision (Myronenko et al., KiTS 2023)."""
    filters, blocks = max(1, round(width * 32)), (1, 2, 2, 4, 4)
    return SegResNetDS(3, filters, in_channels, OUT_CHANNELS, blocks_down=blocks, norm="instance", dsdepth=4)


def patch_edges(network: str) -> tuple[int, int]:
    """Edges of patches that a network takes, in voxels: the smallest, and what all are a multiple of."""
    # five halvings, and two voxels at least must be left to normalise over
    return (64, 32) if network == "swin_unetr" else (32, 16)


def build_network(network: str, width: float, patch_size: int, in_channels: int = 1) -> torch.nn.Module:
    """Build a network.

    Parameters
    ----------
    network : str
        A key of `NETWORKS`.
    width : float
        Share of the full channels; 1 is the size of the study, or as published.
    patch_size : int
        Edge of the cubic patches in voxels; UNETR's position embedding and the depth of DynUNet depend on it.
    in_channels : int
        Sequences of a case, C.

    Returns
    -------
    Module
        From (B, C, X, Y, Z) to logits of shape (B, 1, X, Y, Z). In training, networks with deep
        supervision give a list of logits, full resolution first; the others may be coarser.

    Raises
    ------
    ValueError
        No such network, or one that cannot take patches of this size.
    """
    if network not in NETWORKS:
        raise ValueError(f"network: found {network!r}; expected one of {', '.join(NETWORKS)}")
    smallest, multiple = patch_edges(network)
    if patch_size < smallest or patch_size % multiple:
        expected = f"a multiple of {multiple} voxels, at least {smallest}"
        raise ValueError(f"{network}: found patch_size {patch_size}; expected {expected}")
    return NETWORKS[network](width, patch_size, in_channels)


def start_at_prior(network: torch.nn.Module) -> None:
    """Set the bias of every output of a new network so that it calls one voxel in a hundred lesion before training.

    Otherwise the first epochs are spent on learning that most of the head is background
    (Lin et al., ICCV 2017, section 4.1).
    """
    biases = {name: p for name, p in network.named_parameters() if name.endswith("bias") and p.shape == (OUT_CHANNELS,)}
    outputs = [p for name, p in biases.items() if SUPERVISED.match(name)] or list(biases.values())[-1:]
    for bias in outputs:
        torch.nn.init.constant_(bias, math.log(LESION_PRIOR / (1 - LESION_PRIOR)))


def start_from(network: torch.nn.Module, weights: Mapping[str, torch.Tensor], kind: str) -> None:
    """Give a network the weights of another of its kind, all but those of its output layers.

    Parameters
    ----------
    network : Module
    weights : mapping
        A state dict.
    kind : str
        A key of `NETWORKS`.

    Raises
    ------
    ValueError
        They are of another network, or of another size; or none of its weights is of an output layer.
    """
    own = {name: tensor for name, tensor in network.state_dict().items() if re.match(OUTPUT_LAYERS[kind], name)}
    if not own:
        raise ValueError(f"{kind}: found no weights with the names of output_layers (metaseg_nb/training/networks.py)")
    try:
        network.load_state_dict({**weights, **own})
    except RuntimeError as error:
        expected = "weights of the same network, width, patch size and number of sequences"
        raise ValueError(f"start weights: found weights of another network; expected {expected} ({error})") from error


def count_parameters(network: torch.nn.Module) -> int:
    """Number of trained values."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


def predicts_in(precision: str, device: torch.device) -> torch.dtype | None:
    """Type that a network predicts in where that is safe: None is single precision throughout.

    A GPU takes that of the training. So does a CPU that multiplies matrices of bf16 (AMX), which is 2 to 6 times
    faster; others would emulate it.
    """
    if device.type == "cuda":
        return HALVES.get(precision)
    has_matrices = torch.cpu.get_capabilities().get("amx_bf16", False)
    return torch.bfloat16 if precision == "bf16" and has_matrices else None


def training_layout(network: str, device: torch.device) -> torch.memory_format:
    """Order of a network's weights in memory that trains faster on a device."""
    return torch.channels_last_3d if network in CHANNELS_LAST and device.type == "cuda" else torch.contiguous_format


def prediction_layout(network: str, precision: str, device: torch.device) -> torch.memory_format:
    """Order of a network's weights in memory that predicts faster on a device; on a CPU any network in bf16."""
    if device.type != "cuda" and predicts_in(precision, device):
        return torch.channels_last_3d
    return training_layout(network, device)
