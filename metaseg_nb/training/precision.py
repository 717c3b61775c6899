"""In which precision, and in which order in memory, a network is fastest on a device."""

import torch

HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}
# Faster on a GPU when the channels of a voxel lie side by side (benchmarks/README.md). Group and instance norm turn
# them back at every layer, so that networks with these are slower.
CHANNELS_LAST = ("unet", "attention_unet")


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
    return _layout(network in CHANNELS_LAST and device.type == "cuda")


def prediction_layout(network: str, precision: str, device: torch.device) -> torch.memory_format:
    """Order of a network's weights in memory that predicts faster on a device; on a CPU any network in bf16."""
    if device.type == "cuda":
        return training_layout(network, device)
    return _layout(predicts_in(precision, device) is not None)


def _layout(last: bool) -> torch.memory_format:
    return torch.channels_last_3d if last else torch.contiguous_format
