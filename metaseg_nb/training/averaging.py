"""The running mean of a network's weights, which changes less from step to step than the weights do."""

import torch
from torch.optim.swa_utils import AveragedModel


def averaged(network: torch.nn.Module, decay: float) -> AveragedModel:
    """Start the exponential moving average of a network's weights and buffers (Tarvainen & Valpola, NeurIPS 2017).

    Parameters
    ----------
    network : Module
    decay : float
        Share of the old mean in the new one, in [0, 1); smaller in the first steps, so that the
        random weights of the start are soon forgotten. 0: the mean is the weights themselves.
    """

    def mix(mean: list[torch.Tensor], now: list[torch.Tensor], n_averaged: torch.Tensor) -> None:
        n = n_averaged.item()
        share = min(decay, (1 + n) / (10 + n))
        if mean[0].is_floating_point():
            torch._foreach_lerp_(mean, now, 1 - share)
        else:  # counters of normalisation layers
            torch._foreach_copy_(mean, now)

    return AveragedModel(network, multi_avg_fn=mix, use_buffers=True)
