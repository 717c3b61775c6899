"""What is hidden from a network that learns without labels, and what it makes of it."""

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure

from metaseg_nb.preprocessing.case_store import StoredCase
from metaseg_nb.settings import Pretrain
from metaseg_nb.training.pretraining import RestorationBatches, restore, validation_patches

WIDTH_INCHES, ROW_INCHES = 11.0, 2.2
PATCHES_SHOWN = 4
HIDDEN_COLOUR = "#0072B2"


def draw_hidden(batches: RestorationBatches) -> Figure:
    """Draw the first patches of a run: as they are, and as the network sees them; turned and flipped at random."""
    steps = [batches[step] for step in range(min(PATCHES_SHOWN, len(batches)))]
    images, targets = (torch.cat(parts)[:PATCHES_SHOWN] for parts in zip(*steps, strict=True))
    return _draw({"image": targets[:, 0], "seen (blue: hidden)": _seen(images, targets)})


def draw_restored(network: torch.nn.Module, case: StoredCase, settings: Pretrain, device: torch.device) -> Figure:
    """Draw patches of a case: as they are, as the network sees them, and with what it restores of them."""
    images, targets = validation_patches(case, settings)
    restored = torch.where(targets[:, 1:] > 0, restore(network, images, device), targets[:, :1])
    return _draw({"image": targets[:, 0], "seen (blue: hidden)": _seen(images, targets), "restored": restored[:, 0]})


def _seen(images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return images[:, 0].masked_fill(targets[:, 1] > 0, torch.nan)


def _draw(rows: dict[str, torch.Tensor]) -> Figure:
    """Draw the middle slice of patches, shape (N, X, Y, Z), a row for each kind, alike in grey; NaN is hidden."""
    image, greys = rows["image"], plt.get_cmap("gray").with_extremes(bad=HIDDEN_COLOUR)
    figure, panels = plt.subplots(
        len(rows),
        len(image),
        figsize=(WIDTH_INCHES * len(image) / PATCHES_SHOWN, ROW_INCHES * len(rows)),
        layout="constrained",
        squeeze=False,
    )
    for (name, patches), row in zip(rows.items(), panels, strict=True):
        row[0].set_ylabel(name)
        for panel, patch, whole in zip(row, patches, image, strict=True):
            low, high = np.percentile(whole, (1, 99.8))
            middle = patch[:, :, patch.shape[2] // 2].T.numpy()
            panel.imshow(middle, cmap=greys, vmin=low, vmax=max(high, low + 1e-6), origin="lower")
            panel.set(xticks=[], yticks=[])
    return figure
