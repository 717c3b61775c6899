"""Exponential moving average of a network's weights (Tarvainen & Valpola, NeurIPS 2017).

torch's AveragedModel reads a number from the GPU at every step, which then waits.
"""

import copy

import torch


class RunningMean:
    """A network, ``module``, whose weights and buffers are the mean of another's over its steps.

    Parameters
    ----------
    network : Module
    decay : float
        Share of the old mean in the new one, in [0, 1); smaller in the first steps, so that the
        random weights of the start are soon forgotten. 0: the mean is the weights themselves.
    """

    def __init__(self, network: torch.nn.Module, decay: float):
        self.module, self.decay, self.n_averaged = copy.deepcopy(network), decay, 0

    @torch.no_grad()
    def update(self, network: torch.nn.Module) -> None:
        """Take the network's present weights into the mean; the first ones are the mean."""
        n, pairs = self.n_averaged, list(zip(_tensors(self.module), _tensors(network), strict=True))
        share = min(self.decay, (1 + n) / (10 + n)) if n else 0.0
        means, values = zip(*(pair for pair in pairs if pair[0].is_floating_point()), strict=True)
        torch._foreach_lerp_(means, values, 1 - share)
        for counter, now in (pair for pair in pairs if not pair[0].is_floating_point()):  # of normalisation layers
            counter.copy_(now)
        self.n_averaged += 1


def _tensors(network: torch.nn.Module) -> list[torch.Tensor]:
    return [*network.parameters(), *network.buffers()]
