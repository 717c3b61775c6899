"""What processes that train together share: the batch's outputs, and the wish to stop."""

import torch
import torch.distributed as distributed
from accelerate import Accelerator

Outputs = torch.Tensor | list[torch.Tensor]


def whole_batch(outputs: Outputs) -> Outputs:
    """Join the shares of all processes along the batch axis; gradients flow to the own share alone.

    With this each process computes the loss of the whole batch, also one that is no mean over samples, such
    as Dice over the batch. The sum of all processes' gradients is then what one process with the whole batch
    would have; where they are averaged, the loss is to be multiplied by the number of processes.
    """
    if not distributed.is_initialized():
        return outputs
    if isinstance(outputs, list):
        return [whole_batch(output) for output in outputs]
    shares = [torch.empty_like(outputs) for _ in range(distributed.get_world_size())]
    distributed.all_gather(shares, outputs.detach().contiguous())
    shares[distributed.get_rank()] = outputs
    return torch.cat(shares)


def any_of_all(flag: bool, accelerator: Accelerator) -> bool:
    """Tell every process whether the flag is set in one of them."""
    if accelerator.num_processes == 1:
        return flag
    return bool(accelerator.reduce(torch.tensor(float(flag), device=accelerator.device), "sum") > 0)
