"""A case of the case store (`case_store`): its arrays and what is known of it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from metaseg_nb.cohort.volumes import Volume
from metaseg_nb.preprocessing.correction_record import CorrectionRecord
from metaseg_nb.preprocessing.grid import Grid


@dataclass(frozen=True)
class StoredCase:
    """A preprocessed case; its arrays are opened, not loaded.

    ``image_facts`` and ``label_facts`` (None without a label) are what the two JSON files hold; ``annotation`` is the
    folder of an annotation that stands in for the label.
    """

    name: str
    folder: Path
    image_facts: Mapping[str, Any]
    label_facts: Mapping[str, Any] | None
    annotation: Path | None = None

    @property
    def image(self) -> np.ndarray:
        """Memory map of float16, shape (C, X, Y, Z)."""
        return self._array("image")

    @property
    def head_voxels(self) -> np.ndarray:
        """Memory map of int32, shape (N, 3); in an annotation, those that are annotated."""
        return self._array("head_voxels", self.annotation)

    @property
    def reach(self) -> np.ndarray:
        """Bool, shape (X, Y, Z): where lesions are looked for, `reach_of` the head."""
        voxels = np.unpackbits(self._array("reach"), count=int(np.prod(self.grid.shape)))
        return voxels.reshape(self.grid.shape).astype(bool)

    @property
    def has_label(self) -> bool:
        """Whether a label, or an annotation in its place, is stored."""
        return self.label_facts is not None

    @property
    def label(self) -> np.ndarray:
        """Memory map of uint8, shape (X, Y, Z): 0, 1, and in an annotation also 2, which is unknown."""
        return self._array("label", self.annotation)

    @property
    def lesion_voxels(self) -> np.ndarray:
        """Memory map of int32, shape (N, 3): where the label is 1."""
        return self._array("lesion_voxels", self.annotation)

    @property
    def lesion_boxes(self) -> np.ndarray:
        """Memory map of int32, shape (L, 3, 2): bounding box of each 26-connected lesion, the upper end beyond it."""
        return self._array("lesion_boxes", self.annotation)

    @property
    def marked_boxes(self) -> np.ndarray:
        """Memory map of int32, shape (B, 3, 2): boxes that hold all of the label that is not 0."""
        return self._array("marked_boxes", self.annotation) if self.annotation else self.lesion_boxes

    @property
    def correction(self) -> CorrectionRecord:
        """What is kept of the bias correction of the first sequence."""
        return CorrectionRecord.load(self.folder / "correction.npz")

    @property
    def native(self) -> Grid:
        """Grid of the case's files, in RAS order."""
        return Grid.of(self.image_facts["native"])

    @property
    def grid(self) -> Grid:
        """The study grid."""
        return Grid.of(self.image_facts["grid"])

    @property
    def channels(self) -> int:
        """Number of sequences."""
        return self.recipe["sequences"]

    @property
    def recipe(self) -> dict[str, Any]:
        """All settings the case was made with."""
        return {**self.image_facts["recipe"], **(self.label_facts["recipe"] if self.has_label else {})}

    @property
    def sources(self) -> list[list[int] | str]:
        """Of the files that the case was made from: size and time of each image, checksum of the label."""
        return [*self.image_facts["sources"], *(self.label_facts["sources"] if self.has_label else [])]

    @property
    def identity(self) -> list[str]:
        """Hashes of all that decides its arrays: the image's, and the label's or annotation's where there is one."""
        return [facts["identity"] for facts in (self.image_facts, self.label_facts) if facts]

    @property
    def disk_mb(self) -> float:
        """What the case takes on disk, in 10⁶ bytes."""
        return sum(path.stat().st_size for path in self.folder.iterdir()) / 1e6

    def on_native(self, array: np.ndarray) -> Volume:
        """Give an array on the native grid its place in space, so that it is written as the case's files are."""
        place = self.image_facts["native_affine"], self.image_facts["native_orientation"]
        return Volume(array, *(np.array(part) for part in place), self.image_facts.get("native_place"))

    def _array(self, name: str, folder: Path | None = None) -> np.ndarray:
        return np.load((folder or self.folder) / f"{name}.npy", mmap_mode="r")


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
        for scale, share, edges in (
            ("as read", kept.raw, kept.raw_edges),
            ("corrected and scaled", kept.prepared, kept.prepared_edges),
        ):
            bins = {"intensity": (edges[1:] + edges[:-1]) / 2, "share": share, "density": share / np.diff(edges)}
            tables.append(pd.DataFrame({"case": case.name, "scale": scale} | bins))
    return pd.concat(tables, ignore_index=True)
