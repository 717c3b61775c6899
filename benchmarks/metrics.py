"""Time all metrics of a 240x240x155 case against MONAI's voxel metrics alone, in one run on one core.

python benchmarks/metrics.py
"""

import os

os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # before NumPy loads

import statistics
import time
import warnings

import numpy as np
import torch
from monai.metrics import (
    compute_confusion_matrix_metric,
    compute_dice,
    compute_hausdorff_distance,
    compute_surface_dice,
    get_confusion_matrix,
)

from metaseg_nb.evaluation.lesion_metrics import lesion_metrics
from metaseg_nb.evaluation.voxel_metrics import voxel_metrics

SHAPE = (240, 240, 155)
OTHER_SHAPES = ((120, 120, 78), (180, 180, 116), (320, 320, 200))
LESIONS = (1, 10, 100)
SPACING_MM = (1.0, 0.9, 1.2)
REPEATS = 5


def mask_pair(n_lesions: int, shape: tuple[int, int, int] = SHAPE, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Balls of radius 3 to 8 voxels inside the brain, and the same moved by a voxel."""
    random = np.random.default_rng(seed)
    truth = np.zeros(shape, bool)
    low, high = (np.array(shape) * share // 100 for share in ((21, 13, 13), (79, 87, 87)))
    for _ in range(n_lesions):
        radius = random.integers(3, 9)
        ball = sum(axis**2 for axis in np.ogrid[(slice(-radius, radius + 1),) * 3]) <= radius**2
        corner = np.maximum(random.integers(low, high) - radius, 0)
        truth[tuple(slice(c, c + 2 * radius + 1) for c in corner)] |= ball
    return truth, np.roll(truth, (1, 0, 1), axis=(0, 1, 2))


def ours(truth: np.ndarray, prediction: np.ndarray) -> dict[str, float]:
    return {**voxel_metrics(truth, prediction, SPACING_MM), **lesion_metrics(truth, prediction, SPACING_MM)[0]}


def monais(truth: np.ndarray, prediction: np.ndarray) -> dict[str, float]:
    y, y_pred = (torch.from_numpy(mask)[None, None].float() for mask in (truth, prediction))
    confusion = get_confusion_matrix(y_pred, y)
    surface = {"include_background": True, "spacing": SPACING_MM}
    return {
        "dice": compute_dice(y_pred, y).item(),
        "hd95_mm": compute_hausdorff_distance(y_pred, y, percentile=95, **surface).item(),
        "nsd_1mm": compute_surface_dice(y_pred, y, [1.0], **surface).item(),
        "nsd_2mm": compute_surface_dice(y_pred, y, [2.0], **surface).item(),
        "precision": compute_confusion_matrix_metric("precision", confusion).item(),
        "recall": compute_confusion_matrix_metric("recall", confusion).item(),
    }


def median_seconds(function, *masks: np.ndarray) -> float:
    times = []
    for _ in range(REPEATS):
        start = time.process_time()  # of this process alone: others may be at work
        function(*masks)
        times.append(time.process_time() - start)
    return statistics.median(times)


def compare(n_lesions: int, shape: tuple[int, int, int]) -> None:
    masks = mask_pair(n_lesions, shape)
    found, expected = ours(*masks), monais(*masks)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, err_msg=name)
    mine, theirs = median_seconds(ours, *masks), median_seconds(monais, *masks)
    size = "x".join(map(str, shape))
    print(f"| {size} | {n_lesions} | {mine:.3f} | {theirs:.3f} | {theirs / mine:.1f} |", flush=True)


def main() -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", FutureWarning)
    print(f"Spacing {SPACING_MM} mm, one thread, median of {REPEATS} runs; equal values.\n")
    print("| voxels | lesions | ours: voxel + lesion metrics, s | MONAI: voxel metrics, s | MONAI / ours |")
    print("|---|---|---|---|---|")
    for n_lesions in LESIONS:
        compare(n_lesions, SHAPE)
    for shape in OTHER_SHAPES:
        compare(10, shape)


if __name__ == "__main__":
    main()
