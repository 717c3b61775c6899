"""Where networks are computed: a GPU of one's own, or the CPU."""

import os
import tempfile
from pathlib import Path
from typing import IO

import torch

from metaseg_nb.locks import claim

# GPUs of this process, each with its lock file.
_claimed: dict[str, IO[str]] = {}


def device() -> torch.device:
    """A GPU that no other process of this user has claimed, where there is one; else the CPU."""
    if gpus := claim_gpus(1):
        torch.cuda.set_device(_gpus().index(gpus[0]))
        return torch.device("cuda")
    return torch.device("cpu")


def claim_gpus(n: int) -> list[str]:
    """Claim GPUs for as long as this process lives, and give their names; none where the machine has no GPU.

    Two trainings side by side so take different GPUs. Where too few are free, the first ones are shared.

    Raises
    ------
    ValueError
        The machine has fewer.
    """
    gpus = _gpus()
    if gpus and n > len(gpus):
        raise ValueError(f"num_processes: found {n}; expected: at most {len(gpus)}, the GPUs that can be used here")
    for gpu in gpus:
        if len(_claimed) < n and gpu not in _claimed:
            lock = claim(Path(tempfile.gettempdir()) / f"metaseg_nb_{os.getuid()}_{gpu}.lock")
            _claimed.update({gpu: lock} if lock else {})
    return [*_claimed, *(gpu for gpu in gpus if gpu not in _claimed)][:n]


def _gpus() -> list[str]:
    """Names of the GPUs that this process can use, as CUDA_VISIBLE_DEVICES takes them."""
    n = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return [f"GPU-{torch.cuda.get_device_properties(i).uuid}" for i in range(n)]
