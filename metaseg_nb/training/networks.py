"""The networks by name, sized as in the study, and one ``width`` to shrink them all.

Adding a network is one function here with its name in `NETWORKS`, the name in
`metaseg_nb.settings.ModelName`, and one file in ``params/models``.
"""

import math
from collections.abc import Callable

import torch
from monai.networks.nets import UNETR, AttentionUnet, SegResNet, UNet

# One lesion logit.
OUT_CHANNELS = 1
# Share of voxels that an untrained network calls lesion.
LESION_PRIOR = 0.01


def _channels(width: float) -> tuple[int, ...]:
    return tuple(max(2, round(width * channels)) for channels in (16, 32, 64, 128, 256))


def _unet(width: float, patch_size: int, in_channels: int) -> torch.nn.Module:
    """Residual U-Net (Kerfoot et al., STACOM 2018)."""
    return UNet(
        spatial_dims=3,
        in_channels=in_channels,
        out_channels=OUT_CHANNELS,
        channels=_channels(width),
        strides=(2, 2, 2, 2),
        num_res_units=2,
        norm="batch",
    )


def _attention_unet(width: float, patch_size: int, in_channels: int) -> torch.nn.Module:
    """Attention U-Net (Oktay et al., MIDL 2018)."""
    return AttentionUnet(
        spatial_dims=3,
        in_channels=in_channels,
        out_channels=OUT_CHANNELS,
        channels=_channels(width),
        strides=(2, 2, 2, 2),
    )


def _segresnet(width: float, patch_size: int, in_channels: int) -> torch.nn.Module:
    """SegResNet without the autoencoder branch (Myronenko, BrainLes 2018)."""
    filters = max(1, round(width * 16))
    return SegResNet(
        spatial_dims=3,
        in_channels=in_channels,
        out_channels=OUT_CHANNELS,
        init_filters=filters,
        blocks_down=(1, 2, 2, 4),
        blocks_up=(1, 1, 1),
        dropout_prob=0.2,
        norm=("GROUP", {"num_groups": math.gcd(8, filters)}),
    )


def _unetr(width: float, patch_size: int, in_channels: int) -> torch.nn.Module:
    """UNETR (Hatamizadeh et al., WACV 2022); every head keeps its 64 channels at any width."""
    heads = max(1, round(width * 12))
    return UNETR(
        in_channels=in_channels,
        out_channels=OUT_CHANNELS,
        img_size=(patch_size,) * 3,
        feature_size=max(1, round(width * 16)),
        hidden_size=64 * heads,
        mlp_dim=256 * heads,
        num_heads=heads,
        norm_name="instance",
        res_block=True,
    )


NETWORKS: dict[str, Callable[[float, int, int], torch.nn.Module]] = {
    "unet": _unet,
    "attention_unet": _attention_unet,
    "segresnet": _segresnet,
    "unetr": _unetr,
}


def build_network(model: str, width: float, patch_size: int, in_channels: int = 1) -> torch.nn.Module:
    """Build a network of the study.

    Parameters
    ----------
    model : str
        A key of `NETWORKS`.
    width : float
        Share of the study's channels; 1 is the study's size.
    patch_size : int
        Edge of the cubic patches in voxels; UNETR's position embedding depends on it.
    in_channels : int
        Sequences of a case, C.

    Returns
    -------
    Module
        From (B, C, X, Y, Z) to logits of shape (B, 1, X, Y, Z).
    """
    return NETWORKS[model](width, patch_size, in_channels)


def start_at_prior(network: torch.nn.Module) -> None:
    """Set the last bias of a new network so that an untrained network calls one voxel in a hundred lesion.

    Otherwise the first epochs go into learning that most of the head is none
    (Lin et al., ICCV 2017, section 4.1).
    """
    biases = [p for name, p in network.named_parameters() if name.endswith("bias") and p.shape == (OUT_CHANNELS,)]
    torch.nn.init.constant_(biases[-1], math.log(LESION_PRIOR / (1 - LESION_PRIOR)))


def count_parameters(network: torch.nn.Module) -> int:
    """Number of trained values."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)
