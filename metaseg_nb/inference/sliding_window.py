"""Lesion probabilities of a whole volume, patch by patch."""

import numpy as np
import torch
from monai.inferers import sliding_window_inference

# Patches that go through the network at once.
WINDOWS_AT_ONCE = 4


@torch.inference_mode()
def predict_probability(
    network: torch.nn.Module, image: np.ndarray, patch_size: int, overlap: float, device: torch.device
) -> np.ndarray:
    """Lesion probability of every voxel of a prepared image.

    Overlapping windows are blended with Gaussian weights.

    Parameters
    ----------
    network : Module
        In evaluation mode, on ``device``.
    image : ndarray, shape (C, X, Y, Z)
        On the study grid.
    patch_size : int
        Edge of the cubic windows in voxels; smaller volumes are padded.
    overlap : float
        Share of a window that neighbours share, in [0, 1).
    device : torch.device

    Returns
    -------
    ndarray of float32, shape (X, Y, Z)
        In [0, 1].
    """
    windows = torch.from_numpy(np.array(image, dtype=np.float32))[None]
    logits = sliding_window_inference(
        windows,
        (patch_size,) * 3,
        WINDOWS_AT_ONCE,
        network,
        overlap=overlap,
        mode="gaussian",
        sw_device=device,
        device="cpu",
    )
    return torch.sigmoid(logits.float())[0, 0].numpy()
