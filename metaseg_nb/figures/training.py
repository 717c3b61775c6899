"""A training: its learning curve, also while a network trains; its patches, and what pretraining hides of them."""

from collections.abc import Callable
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from IPython.display import DisplayHandle
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from metaseg_nb.cohort.lesions import fullest_slice, label_lesions
from metaseg_nb.figures.slices import Panel, as_volume, draw_panels
from metaseg_nb.figures.style import somebody_watches
from metaseg_nb.preprocessing.case_store import StoredCase
from metaseg_nb.settings import Pretrain
from metaseg_nb.training.patches import PatchBatches
from metaseg_nb.training.pretraining import RestorationBatches, restore, validation_patches

# Scores on the selection set, by their column of a history.
SCORE_TITLES = {"dice": "mean Dice", "variance_restored": "hidden variance restored"}
PANELS, PATCHES_RESTORED = 12, 4
HIDDEN_COLOUR = "#0072B2"
# Patches are turned and flipped at random: they have no sides.
NO_MARKS: dict[str, Any] = {"letters": False, "scale_bar": False}


def learning_curve(history: pd.DataFrame, kept_epoch: int, title: str) -> Figure:
    """Training loss and score on the selection set over epochs; the epoch whose weights are kept is marked."""
    score = _score_column(history)
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.2), layout="constrained")
    left.plot(history["epoch"], history["loss"], color="#000000", marker=".")
    left.set(xlabel="epoch", ylabel="training loss", title=title)
    right.plot(history["epoch"], history[score], color="#0072B2", marker=".")
    right.axvline(kept_epoch, color="#D55E00", linestyle=":", label=f"kept: epoch {kept_epoch}")
    words = f"{SCORE_TITLES[score]}, selection set"
    right.set(xlabel="epoch", ylabel=words, ylim=(0, 1), title="patients not used for training")
    for panel in (left, right):
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    right.legend(frameon=False)
    return figure


def live_learning_curve(title: str) -> Callable[[pd.DataFrame], None]:
    """Make what `fit` calls with its history after each validation; without a browser it draws nothing."""
    if not somebody_watches():
        return lambda history: None
    handle = DisplayHandle()
    handle.display(None)

    def redraw(history: pd.DataFrame) -> None:
        score = history[_score_column(history)]
        figure = learning_curve(history, history.loc[score == score.max(), "epoch"].max(), title)
        handle.update(figure)
        plt.close(figure)

    return redraw


def _score_column(history: pd.DataFrame) -> str:
    return next(name for name in SCORE_TITLES if name in history)


def draw_batch(batches: PatchBatches) -> Figure:
    """Draw the first patches of a run, each by its slice with most lesion; they are turned and flipped at random."""
    panels = []
    for image, label in zip(*_first(batches, PANELS), strict=True):
        image, label = image[0].numpy(), label[0].numpy() == 1
        lesions = label_lesions(label)[1]
        title = f"{lesions} lesion{'s' * (lesions != 1)}" if lesions else "background"
        masks, look = {"reference": label}, {"greys": _greys(image), **NO_MARKS}
        panels.append(Panel([title], as_volume(image), masks, fullest_slice(label), look))
    return draw_panels(panels)


def draw_hidden(batches: RestorationBatches) -> Figure:
    """Draw the first patches of a run: as they are, and as the network sees them; turned and flipped at random."""
    images, targets = _first(batches, PATCHES_RESTORED)
    return _draw_rows({"image": targets[:, 0], "seen (blue: hidden)": _seen(images, targets)})


def draw_restored(network: torch.nn.Module, case: StoredCase, settings: Pretrain, device: torch.device) -> Figure:
    """Draw patches of a case: as they are, as the network sees them, and with what it restores of them."""
    images, targets = validation_patches(case, settings)
    restored = torch.where(targets[:, 1:] > 0, restore(network, images, device), targets[:, :1])
    rows = {"image": targets[:, 0], "seen (blue: hidden)": _seen(images, targets), "restored": restored[:, 0]}
    return _draw_rows(rows)


def _first(batches: PatchBatches | RestorationBatches, n: int) -> list[torch.Tensor]:
    """Images, and labels or targets, of the first n patches of a run, or of all there are."""
    steps, found = [], 0
    while found < n and len(steps) < len(batches):
        steps.append(batches[len(steps)])
        found += len(steps[-1][0])
    return [torch.cat(parts)[:n] for parts in zip(*steps, strict=True)]


def _seen(images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return images[:, 0].masked_fill(targets[:, 1] > 0, torch.nan)


def _draw_rows(rows: dict[str, torch.Tensor]) -> Figure:
    """Draw the middle slice of patches, shape (N, X, Y, Z), a row for each kind, alike in grey; NaN is hidden."""
    panels, look = [], {"cmap": plt.get_cmap("gray").with_extremes(bad=HIDDEN_COLOUR), "interpolation": "nearest"}
    for name, patches in rows.items():
        for patch, whole in zip(patches.numpy(), rows["image"].numpy(), strict=True):
            look = look | NO_MARKS | {"greys": _greys(whole)}
            panels.append(Panel([name], as_volume(patch), index=patch.shape[2] // 2, look=look))
    return draw_panels(panels, len(rows["image"]))


def _greys(patch: np.ndarray) -> tuple[float, float]:
    low, high = np.percentile(patch, (1, 99.8))
    return float(low), float(max(high, low + 1e-6))
