"""The learning rate of each step."""

import math
from collections.abc import Callable

WARM_UP_SHARE = 0.05


def _cosine(progress: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * progress))


def _polynomial(progress: float) -> float:
    """As nnU-Net's (Isensee et al., Nature Methods 2021)."""
    return (1 - progress) ** 0.9


# From 1 to 0 as the share of the steps after the warm-up goes from 0 to 1.
SCHEDULES: dict[str, Callable[[float], float]] = {"cosine": _cosine, "polynomial": _polynomial}


def learning_rate(schedule: str, step: int, n_steps: int, peak: float) -> float:
    """Linear warm-up over the first twentieth of the steps, then down to 0 by a schedule of `SCHEDULES`."""
    warm_up = max(1, round(WARM_UP_SHARE * n_steps))
    if step < warm_up:
        return peak * (step + 1) / warm_up
    return peak * SCHEDULES[schedule]((step - warm_up) / max(1, n_steps - warm_up))
