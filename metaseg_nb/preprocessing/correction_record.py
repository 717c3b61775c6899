"""What is stored of a bias correction, so that it can be judged later without correcting again."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import numpy as np

from metaseg_nb.cohort.volumes import Volume
from metaseg_nb.files import finished

# The kept slice has pixels of about this edge at least.
PIXEL_MM = 1.0
HISTOGRAM_BINS = 100
# Of the field and of intensities in the head; single voxels at its rim say little.
FIELD_PERCENTILES, SHOWN_PERCENTILES = (1, 50, 99), (0.1, 99.9)


@dataclass(frozen=True)
class CorrectionRecord:
    """One axial slice through the head's middle, and intensities in the head before and after.

    Parameters
    ----------
    before : ndarray of float32, shape (X, Y)
        Slice of the image as it was read, RAS order.
    field : ndarray of float16, shape (X, Y)
        Factor that the image was divided by, relative to its median in the head; NaN where it is not known.
    spacing_mm : ndarray of float, shape (2,)
        Of the slice, along X and Y.
    raw, prepared : ndarray of float, shape (HISTOGRAM_BINS,)
        Share of the head's voxels by intensity, as read, and corrected and scaled.
    raw_edges, prepared_edges : ndarray of float, shape (HISTOGRAM_BINS + 1,)
    field_range : ndarray of float, shape ()
        99th over 1st percentile of the field in the head: 1 is no correction.
    """

    before: np.ndarray
    field: np.ndarray
    spacing_mm: np.ndarray
    raw: np.ndarray
    raw_edges: np.ndarray
    prepared: np.ndarray
    prepared_edges: np.ndarray
    field_range: np.ndarray

    @property
    def after(self) -> np.ndarray:
        """The slice after correction: float32, shape (X, Y)."""
        return np.where(np.isfinite(self.field), self.before / self.field.astype(np.float32), self.before)

    def save(self, path: Path) -> None:
        """Write a compressed ``.npz`` file."""
        with finished(path) as unfinished, unfinished.open("wb") as file:
            np.savez_compressed(file, **asdict(self))

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote."""
        with np.load(path) as content:
            return cls(**content)


def record_correction(volume: Volume, corrected: np.ndarray, scaled: np.ndarray, head: np.ndarray) -> CorrectionRecord:
    """Make the record of one image.

    Parameters
    ----------
    volume : Volume
        As it was read.
    corrected, scaled : ndarray of float32, shape (X, Y, Z)
        After bias correction, and after scaling too.
    head : ndarray of bool, shape (X, Y, Z)
        All of the volume when empty.
    """
    before, head = volume.array, head if head.any() else np.ones_like(head)
    field = np.full(before.shape, 1 if corrected is before else np.nan, np.float32)
    np.divide(before, corrected, out=field, where=(before > 0) & (corrected > 0))
    low, middle, high = np.nanpercentile(field[head], FIELD_PERCENTILES)
    step = [max(1, int(PIXEL_MM / edge)) for edge in volume.spacing_mm[:2]]
    slices = np.flatnonzero(head.any(axis=(0, 1)))
    shown = (slice(None, None, step[0]), slice(None, None, step[1]), slices[len(slices) // 2])
    return CorrectionRecord(
        before[shown],
        (field[shown] / middle).astype(np.float16),
        np.array(volume.spacing_mm[:2]) * step,
        *_histogram(before[head]),
        *_histogram(scaled[head]),
        np.array(high / low),
    )


def _histogram(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    counts, edges = np.histogram(values, HISTOGRAM_BINS, tuple(np.percentile(values, SHOWN_PERCENTILES)))
    return counts / len(values), edges
