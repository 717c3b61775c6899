"""A case of the case store (`case_store`): its arrays and what is known of it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from metaseg_nb.cohort.problems import CohortError
from metaseg_nb.cohort.volumes import Volume
from metaseg_nb.preprocessing.grid import Grid, carried

# The slice that is kept of a bias correction has pixels of about this edge at least.
PIXEL_MM = 1.0
HISTOGRAM_BINS = 100
WHOLE = "whole_lesions"
# Of the field and of intensities in the head; single voxels at its rim say little.
FIELD_PERCENTILES, SHOWN_PERCENTILES = (1, 50, 99), (0.1, 99.9)


@dataclass(frozen=True)
class CorrectionRecord:
    """What is kept of a bias correction: one axial slice through the head's middle, and intensities in the head.

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


@dataclass(frozen=True)
class StoredCase:
    """A preprocessed case; its arrays are opened, not loaded.

    ``patient`` is who it is of; a case that was opened by its name alone counts as a patient. ``image_facts`` and
    ``label_facts`` (None without a label) are what the two JSON files hold; ``annotation`` is the folder of an
    annotation that stands in for the label.
    """

    name: str
    patient: str
    folder: Path
    image_facts: Mapping[str, Any]
    label_facts: Mapping[str, Any] | None
    annotation: Path | None = None

    @property
    def image(self) -> np.ndarray:
        """Memory map of float16, shape (C, X, Y, Z); where lesions were planted, with them."""
        planted = self.annotation and self.annotation / "image.npy"
        return np.load(planted if planted and planted.is_file() else self.folder / "image.npy", mmap_mode="r")

    @property
    def image_with_whole_lesions(self) -> np.ndarray:
        """The image to train with: as ``image``, but no lesion of the mask is cut where the brain was extracted.

        What is predicted is ``image``: a mask made with the reference would show where the lesions are. So is what an
        annotation in place of the label is learned from, which may not know of that lesion.
        """
        whole = self.folder / f"{WHOLE}.npy"
        return np.load(whole, mmap_mode="r") if whole.is_file() and self.annotation is None else self.image

    @property
    def label(self) -> np.ndarray:
        """Memory map of uint8, shape (X, Y, Z): 0, 1, and in an annotation also 2, which is unknown."""
        return self._of_label("label")

    @property
    def head_voxels(self) -> np.ndarray:
        """Memory map of int32, shape (N, 3); in an annotation, those that are annotated."""
        return self._of_label("head_voxels")

    @property
    def lesion_voxels(self) -> np.ndarray:
        """Memory map of int32, shape (N, 3): where the label is 1."""
        return self._of_label("lesion_voxels")

    @property
    def lesion_boxes(self) -> np.ndarray:
        """Memory map of int32, shape (L, 3, 2): bounding box of each 26-connected lesion, the upper end beyond it."""
        return self._of_label("lesion_boxes")

    @property
    def slices(self) -> list[int]:
        """Axial slices of the image that each lesion of its mask lies on, the largest lesion first."""
        if not self.label_facts or "slices" not in self.label_facts:
            expected, fix = "the number of slices of each lesion", "run notebook 02 again: it counts them"
            raise CohortError.one(self.name, self.folder / "label.json", "no such number", expected, fix)
        return self.label_facts["slices"]

    def _of_label(self, name: str) -> np.ndarray:
        return np.load((self.annotation or self.folder) / f"{name}.npy", mmap_mode="r")

    @property
    def reach(self) -> np.ndarray:
        """Bool, shape (X, Y, Z): where lesions are looked for, `reach_of` the head."""
        packed = np.load(self.folder / "reach.npy")
        return np.unpackbits(packed, count=int(np.prod(self.grid.shape))).reshape(self.grid.shape).astype(bool)

    @property
    def correction(self) -> CorrectionRecord:
        """What is kept of the bias correction of the first sequence."""
        with np.load(self.folder / "correction.npz") as content:
            return CorrectionRecord(**content)

    @property
    def has_label(self) -> bool:
        """Whether a label, or an annotation in its place, is stored."""
        return self.label_facts is not None

    @property
    def native(self) -> Grid:
        """Grid of the case's files, in RAS order."""
        return Grid.of(self.image_facts["native"])

    @property
    def grid(self) -> Grid:
        """The study grid."""
        return Grid.of(self.image_facts["grid"])

    @property
    def recipe(self) -> dict[str, Any]:
        """All settings the case was made with."""
        return {**self.image_facts["recipe"], **(self.label_facts["recipe"] if self.label_facts else {})}

    @property
    def channels(self) -> int:
        """Number of sequences."""
        return self.recipe["sequences"]

    @property
    def lacking(self) -> list[int]:
        """Numbers, from 1, of the sequences that it does not have: their channels are 0."""
        return self.image_facts.get("lacking", [])

    @property
    def earlier(self) -> Mapping[str, Any] | None:
        """``case``, ``place`` and ``alike`` (`place_of`) of the date whose mask is the last channel; or None."""
        return self.image_facts.get("earlier")

    @property
    def scans(self) -> np.ndarray:
        """The image, shape (C, X, Y, Z), without an earlier mask, whose channel is then 0."""
        if self.earlier is None:
            return self.image
        return np.concatenate([self.image[:-1], np.zeros_like(self.image[-1:])])

    def seen_after(self, mask: Volume | None) -> np.ndarray:
        """The image of a follow-up after this mask of its earlier date, (C, X, Y, Z); without one, of a first visit.

        The channel of the mask is 1 in the earlier lesions and 0 elsewhere; 0 where there is no mask. Networks learn
        with masks of the reference. What they predict follows the masks that they predicted for the earlier date: the
        reference of a test case is never shown.
        """
        image = self.scans
        if mask and self.earlier:
            image[-1] = carried(mask, np.array(self.earlier["place"]), self.grid)
        return image

    @property
    def identity(self) -> list[str]:
        """Hashes of all that decides its arrays: the image's, and the label's or annotation's where there is one."""
        return [facts["identity"] for facts in (self.image_facts, self.label_facts) if facts]

    def on_native(self, array: np.ndarray) -> Volume:
        """Give an array on the native grid its place in space, so that it is written as the case's files are."""
        affine, orientation = (np.array(self.image_facts[f"native_{part}"]) for part in ("affine", "orientation"))
        return Volume(array, affine, orientation, self.image_facts.get("native_place"))


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
    relative, spacing_mm = (field[shown] / middle).astype(np.float16), np.array(volume.spacing_mm[:2]) * step
    (raw, raw_edges), (prepared, edges) = (_histogram(array[head]) for array in (before, scaled))
    range_ = np.array(high / low)
    return CorrectionRecord(before[shown], relative, spacing_mm, raw, raw_edges, prepared, edges, range_)


def intensity_curves(cases: Iterable[StoredCase]) -> pd.DataFrame:
    """How often each intensity is in the head, for plots.

    Returns
    -------
    DataFrame
        Of the first sequence: ``case``, ``scale`` ("as read" or "corrected and scaled"), ``intensity`` (middle of a
        bin), ``share`` (of the head's voxels in the bin), ``density`` (share per unit of intensity).
    """
    tables = []
    for case in cases:
        kept = case.correction
        scales = {"as read": (kept.raw, kept.raw_edges), "corrected and scaled": (kept.prepared, kept.prepared_edges)}
        for scale, (share, edges) in scales.items():
            bins = {"intensity": (edges[1:] + edges[:-1]) / 2, "share": share, "density": share / np.diff(edges)}
            tables.append(pd.DataFrame({"case": case.name, "scale": scale} | bins))
    return pd.concat(tables, ignore_index=True)


def _histogram(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    counts, edges = np.histogram(values, HISTOGRAM_BINS, tuple(np.percentile(values, SHOWN_PERCENTILES)))
    return counts / len(values), edges
