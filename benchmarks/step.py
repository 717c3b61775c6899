"""Time a training step against a plain MONAI loop at equal loss, on the CPU; `gpu.py` does it on a GPU.

python benchmarks/step.py

The steps here make the calls of the loop in metaseg_nb/training/fit.py without what surrounds them (patches from
the case store, validation, checkpoints). Patches are noise with a lesion in the middle: they cost what others do.
"""

import os

if __name__ == "__main__":
    os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}  # before PyTorch loads

import copy
import statistics
import time
from collections.abc import Callable, Iterator

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from monai.losses import DeepSupervisionLoss, DiceCELoss

from metaseg_nb.parameters import resolve
from metaseg_nb.settings import Train
from metaseg_nb.training.losses import build_loss
from metaseg_nb.training.networks import build_network, start_at_prior
from metaseg_nb.training.training_run import RunningMean

STUDY = ("unet", "attention_unet", "segresnet", "unetr")
PATCHES, EDGE = 2, 64
STEPS = 3
GRADIENT_NORM = 1.0

Step = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def settings_of(network: str, changes: dict) -> Train:
    return Train.check(resolve("03_train", "usz", network, 0) | {"patches_per_case": 1, "num_processes": 1} | changes)


def new_network(settings: Train) -> torch.nn.Module:
    torch.manual_seed(settings.seed)
    network = build_network(settings.network, settings.width, settings.patch_size, 1)
    start_at_prior(network)
    return network.train()


def batch(settings: Train) -> tuple[torch.Tensor, torch.Tensor]:
    edge = settings.patch_size
    images = torch.rand(
        settings.batch_size, 1, edge, edge, edge, generator=torch.Generator().manual_seed(settings.seed)
    )
    labels = torch.zeros(images.shape, dtype=torch.uint8)
    labels[:, :, *(slice(edge // 2, edge // 2 + 8),) * 3] = 1
    return images, labels


def ours(network: torch.nn.Module, settings: Train, layout: torch.memory_format = torch.contiguous_format) -> Step:
    AcceleratorState._reset_state()  # the next way may have another precision
    accelerator = Accelerator(mixed_precision=settings.precision, cpu=not torch.cuda.is_available())
    network = network.to(memory_format=layout)
    if settings.compiled:
        network.compile()
    rate, decay = settings.learning_rate, settings.weight_decay
    optimiser = torch.optim.AdamW(network.parameters(), rate, weight_decay=decay, fused=True)
    network, optimiser = accelerator.prepare(network, optimiser)
    plain = accelerator.unwrap_model(network)
    mean, loss_function = RunningMean(plain, settings.ema_decay), build_loss(settings.loss, unknown=False)

    def step(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        images, labels = images.to(accelerator.device), labels.to(accelerator.device)
        optimiser.zero_grad(set_to_none=True)
        with accelerator.autocast():
            loss = loss_function(network(images), labels)
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(network.parameters(), GRADIENT_NORM)
        optimiser.step()
        mean.update(plain)
        return loss.detach()

    return step


def monais(network: torch.nn.Module, settings: Train) -> Step:
    """The loop of MONAI's tutorials, with the same optimiser."""
    optimiser = torch.optim.AdamW(network.parameters(), settings.learning_rate, weight_decay=settings.weight_decay)
    loss_function = DeepSupervisionLoss(DiceCELoss(sigmoid=True, batch=True))  # one output: as it is

    def step(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        optimiser.zero_grad()
        loss = loss_function(network(images), labels)
        loss.backward()
        optimiser.step()
        return loss.detach()

    return step


def timed(step: Step, images: torch.Tensor, labels: torch.Tensor) -> tuple[float, float]:
    """Seconds of a step, and its loss."""
    torch.manual_seed(0)  # of dropout
    start = time.perf_counter()
    loss = step(images, labels).item()
    return time.perf_counter() - start, loss


def against_monai(name: str) -> str:
    settings = settings_of(name, {"patch_size": EDGE, "precision": "no", "batch_size": PATCHES})
    network, (images, labels) = new_network(settings), batch(settings)
    steps = [monais(copy.deepcopy(network), settings), ours(network, settings)]
    (_, their_loss), (_, our_loss) = (timed(step, images, labels) for step in steps)
    torch.testing.assert_close(our_loss, their_loss, rtol=1e-5, atol=0)
    rounds = [[timed(step, images, labels)[0] for step in steps] for _ in range(STEPS)]  # in turn
    theirs, mine = (statistics.median(seconds) for seconds in zip(*rounds, strict=True))
    return f"| {name} | {their_loss:.4f} | {our_loss:.4f} | {theirs:.2f} | {mine:.2f} | {theirs / mine:.2f} |"


def tables() -> Iterator[str]:
    if torch.cuda.is_available():
        yield "Against MONAI: needs a machine without a GPU, for Accelerate would take it."
        return
    yield f"{PATCHES} patches of {EDGE}³, single precision, one CPU thread, median of {STEPS} steps in turn."
    yield "Ours does more: it clips gradients, keeps the running mean of the weights, and goes through Accelerate."
    yield "Losses are those of the first step, from the same weights.\n"
    yield "| network | MONAI's loss | our loss | MONAI loop, s | ours, s | MONAI / ours |"
    yield "|---|---|---|---|---|---|"
    yield from map(against_monai, STUDY)


def main() -> None:
    torch.set_num_threads(1)
    for line in tables():
        print(line, flush=True)


if __name__ == "__main__":
    main()
