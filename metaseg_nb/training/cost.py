"""What a training step takes, known before the first one: parameters, operations and memory.

The step is run on fake tensors, which have shapes and no values: in a second or two, without the memory.
"""

import weakref
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.functional import binary_cross_entropy_with_logits, group_norm, layer_norm
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from metaseg_nb.settings import Train
from metaseg_nb.training.losses import as_fine
from metaseg_nb.training.networks import build_network, count_parameters, patch_edges

# Weights, their running mean and AdamW's two moments, in single precision; and the gradients.
KEPT_BYTES, GRADIENT_BYTES = 4 * 4, 4
# Share of a device's memory that a step may take by this count: the rest is for the libraries' own workspaces.
USABLE_SHARE = 0.9
PRECISIONS = {"no": "single precision", "bf16": "bf16", "fp16": "fp16"}


@dataclass(frozen=True)
class Cost:
    """A training step of one process."""

    parameters: int
    tflop: float  # forward and backward; a multiplication and an addition are two operations
    memory_gb: float  # the most that is held at a time, in 10⁹ bytes
    patches: int
    patch_size: int
    precision: str

    def __str__(self) -> str:
        """One line for a reader."""
        size = f"{self.parameters / 1e6:.2f} million parameters"
        step = f"({self.patches} patches of {self.patch_size}³, {PRECISIONS[self.precision]})"
        return f"{size}, {_short(self.tflop, 2)} TFLOP and {_short(self.memory_gb, 1)} GB per training step {step}"

    def memory_of(self, patches: int, patch_size: int) -> float:
        """Memory in GB of a step with other patches: what depends on them grows with their voxels."""
        fixed_gb = self.parameters * (KEPT_BYTES + GRADIENT_BYTES) / 1e9
        voxels = patches * patch_size**3 / (self.patches * self.patch_size**3)
        return fixed_gb + (self.memory_gb - fixed_gb) * voxels


def network_cost(settings: Train, channels: int) -> Cost:
    """Count what a training step of one process takes.

    Parameters
    ----------
    settings : Train
    channels : int
        Sequences of a case, C.

    Returns
    -------
    Cost
        Memory as PyTorch allocates it: weights, running mean, AdamW's moments, gradients, activations and whatever
        else is alive at the same moment; not the workspaces of cuDNN, nor the CUDA context.

    Raises
    ------
    ValueError
        As `build_network`.
    """
    with torch.device("meta"):
        network = build_network(settings.network, settings.width, settings.patch_size, channels).train()
    patches = settings.batch_size // settings.num_processes * settings.patches_per_case
    half = settings.precision != "no"
    norms = _SinglePrecisionNorms() if half and not settings.compiled else nullcontext()
    operations = FlopCounterMode(display=False)
    with FakeTensorMode():
        named = [*network.named_parameters(), *network.named_buffers()]
        state = {name: torch.empty(t.shape, dtype=t.dtype, requires_grad=t.requires_grad) for name, t in named}
        with operations, _LiveMemory(state.values()) as memory:
            images = torch.zeros(patches, channels, *(settings.patch_size,) * 3)
            labels = torch.zeros(patches, 1, *(settings.patch_size,) * 3)
            with torch.autocast("cpu", torch.bfloat16, enabled=half), norms:
                outputs = torch.func.functional_call(network, state, images)
                loss = _like_dice_ce([outputs] if torch.is_tensor(outputs) else outputs, labels)
            del outputs
            loss.backward()
    parameters = count_parameters(network)
    memory_gb = (memory.peak + parameters * KEPT_BYTES) / 1e9
    tflop = operations.get_total_flops() / 1e12
    return Cost(parameters, tflop, memory_gb, patches, settings.patch_size, settings.precision)


def _short(value: float, decimals: int) -> str:
    """So many decimals, or one digit that is not 0."""
    return f"{value:.{decimals}f}" if value >= 10**-decimals else f"{value:.1g}"


def what_fits(settings: Train, channels: int, free_gb: float) -> str:
    """Say what to change when a training step does not fit into a device's memory: changes, each enough by itself.

    Parameters
    ----------
    settings : Train
        The ones that did not fit.
    channels : int
        Sequences of a case, C.
    free_gb : float
        Memory of the device that training may take, in 10⁹ bytes; a tenth of it is left to the libraries.
    """
    cost, in_bf16 = network_cost(settings, channels), settings.model_copy(update={"precision": "bf16"})
    usable_gb, cases = USABLE_SHARE * free_gb, settings.batch_size // settings.num_processes
    smallest, multiple = patch_edges(settings.network)
    edges = range(smallest, cost.patch_size, multiple)
    patches = max((n for n in range(cost.patches) if cost.memory_of(n, cost.patch_size) <= usable_gb), default=0)
    edge = max((edge for edge in edges if cost.memory_of(cost.patches, edge) <= usable_gb), default=0)
    changes = []
    if settings.precision == "no" and network_cost(in_bf16, channels).memory_gb <= usable_gb:
        changes.append("precision: bf16")
    if patches >= cases:
        changes.append(f"patches_per_case: {patches // cases}")
    elif patches:
        changes.append(f"batch_size: {patches * settings.num_processes} and patches_per_case: 1")
    if edge:
        changes.append(f"patch_size: {edge}")
    need = f"{settings.title}: {cost}, of {free_gb:.1f} GB. "
    if not changes:
        return need + "bf16, fewer patches or smaller patches are not enough: use a lower width or a larger GPU"
    return need + f"Any one of these changes is enough: {'; '.join(changes)}"


def _like_dice_ce(outputs: list[torch.Tensor], labels: torch.Tensor) -> torch.Tensor:
    """Keep what Dice and cross-entropy keep: MONAI's read values, which fake tensors do not have."""
    fine = [as_fine(output, labels) for output in outputs]
    losses = ((torch.sigmoid(y) * labels).mean() + binary_cross_entropy_with_logits(y, labels) for y in fine)
    return sum(losses, start=torch.zeros(()))


class _SinglePrecisionNorms(TorchFunctionMode):
    """Normalises in single precision, as autocast does on a GPU and not on the CPU; compiled, no copy of it is kept."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function in (group_norm, layer_norm):
            args = tuple(arg.float() if torch.is_tensor(arg) else arg for arg in args)
        return function(*args, **(kwargs or {}))


class _LiveMemory(TorchDispatchMode):
    """Bytes of all storages that are alive, but for some tensors', at their most (``peak``)."""

    def __init__(self, uncounted: Iterable[torch.Tensor]):
        super().__init__()
        self.peak = 0
        self.sizes = {tensor.untyped_storage()._cdata: 0 for tensor in uncounted}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for storage in (tensor.untyped_storage() for tensor in tree_leaves(result) if torch.is_tensor(tensor)):
            if storage._cdata not in self.sizes:
                self.sizes[storage._cdata] = storage.nbytes()
                weakref.finalize(storage, self.sizes.pop, storage._cdata)
        self.peak = max(self.peak, sum(self.sizes.values()))
        return result
