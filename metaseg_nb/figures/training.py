"""What a network sees while it trains: patches, and how each way of sampling draws them."""

from collections.abc import Sequence

import cc3d
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from metaseg_nb.figures.montage import grid_of_panels
from metaseg_nb.figures.style import REFERENCE
from metaseg_nb.preprocessing.case_store import StoredCase
from metaseg_nb.settings import Train
from metaseg_nb.training.patches import PatchBatches

# As they are written in parameter files.
SAMPLINGS = ("voxel", "lesion", "roi")
PANELS, PATCHES_COUNTED = 12, 48


def draw_batch(batches: PatchBatches) -> Figure:
    """Draw the first patches of a run, each by its slice with most lesion; they are turned and flipped at random."""
    images, labels = _patches(batches, PANELS)
    figure, panels = grid_of_panels(len(images))
    for panel, image, label in zip(panels, images, labels, strict=True):
        index = int(label.sum(axis=(0, 1)).argmax()) if label.any() else label.shape[2] // 2
        low, high = np.percentile(image, (1, 99.8))
        panel.imshow(image[:, :, index].T, cmap="gray", vmin=low, vmax=max(high, low + 1e-6), origin="lower")
        if label.any():
            panel.contour(label[:, :, index].T, [0.5], colors=REFERENCE, linewidths=1.2)
        lesions = cc3d.connected_components(label, connectivity=26, return_N=True)[1]
        panel.set_title(f"{lesions} lesion{'s' * (lesions != 1)}" if lesions else "background", fontsize=8)
        panel.set(xticks=[], yticks=[])
    return figure


def sampling_table(cases: Sequence[StoredCase], settings: Train) -> pd.DataFrame:
    """Count what each way of sampling shows to a network, over its first patches of a run.

    Parameters
    ----------
    cases : sequence of StoredCase
        The training set.
    settings : Train
        All but ``sampling``, of which each is tried.

    Returns
    -------
    DataFrame
        A row per way: share of patches with lesion, share of voxels that are lesion, lesions per patch, and
        the median volume of a lesion seen (what a patch cuts off does not count).
    """
    return pd.DataFrame([_sampled(way, cases, settings) for way in SAMPLINGS])


def _sampled(way: str, cases: Sequence[StoredCase], settings: Train) -> dict[str, float | str]:
    _, labels = _patches(PatchBatches(cases, settings.model_copy(update={"sampling": way})), PATCHES_COUNTED)
    sizes = [np.bincount(cc3d.connected_components(label, connectivity=26).ravel())[1:] for label in labels]
    voxel_mm3 = float(np.prod(cases[0].grid.spacing_mm))
    seen = np.concatenate(sizes) * voxel_mm3
    return {
        "sampling": f"{way} (this run)" if way == settings.sampling else way,
        "patches": len(labels),
        "with lesion, %": 100 * float(np.mean([len(found) > 0 for found in sizes])),
        "lesion voxels, %": 100 * float(np.mean([label.mean() for label in labels])),
        "lesions per patch": len(seen) / len(labels),
        "median lesion seen, mm³": float(np.median(seen)) if len(seen) else np.nan,
    }


def _patches(batches: PatchBatches, n: int) -> tuple[np.ndarray, np.ndarray]:
    """First sequence and label of the first n patches of a run, or of all there are."""
    images, labels = [], []
    for step in range(len(batches)):
        more_images, more_labels = batches[step]
        images += list(more_images[:, 0].numpy())
        labels += list(more_labels[:, 0].numpy() == 1)
        if len(images) >= n:
            break
    return np.stack(images[:n]), np.stack(labels[:n])
