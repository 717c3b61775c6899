"""The case store: each case on the study grid, as arrays that are read a patch at a time.

One folder a case: ``image.npy`` (float32 in [0, 1], shape (X, Y, Z)), ``label.npy``
(uint8, 0 or 1) where there is a label, ``lesion_voxels.npy`` (int32, shape (N, 3)),
and ``case.json``, written last: a case without it is not there.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from metaseg_nb.cohort.cases import Case
from metaseg_nb.cohort.problems import CohortError, Problem
from metaseg_nb.files import finished, write_json
from metaseg_nb.preprocessing.grid import Grid


@dataclass(frozen=True)
class StoredCase:
    """A preprocessed case; its arrays are opened, not loaded.

    ``native`` is the grid of the file in RAS order, ``grid`` the study grid,
    ``recipe`` the settings and ``sources`` the files (size and time of each)
    the case was made with; ``lesion_volume_mm3`` is the volume on the native
    grid, None without a label.
    """

    name: str
    folder: Path
    native: Grid
    grid: Grid
    recipe: dict[str, Any]
    sources: list[list[int]]
    lesion_volume_mm3: float | None

    @property
    def image(self) -> np.ndarray:
        """Memory map of float32 in [0, 1], shape (X, Y, Z)."""
        return np.load(self.folder / "image.npy", mmap_mode="r")

    @property
    def has_label(self) -> bool:
        return (self.folder / "label.npy").is_file()

    @property
    def label(self) -> np.ndarray:
        """Memory map of uint8, shape (X, Y, Z)."""
        return np.load(self.folder / "label.npy", mmap_mode="r")

    @property
    def lesion_voxels(self) -> np.ndarray:
        """Memory map of int32, shape (N, 3): where the label is 1."""
        return np.load(self.folder / "lesion_voxels.npy", mmap_mode="r")


def store_case(
    folder: Path,
    name: str,
    image: np.ndarray,
    label: np.ndarray | None,
    native: Grid,
    grid: Grid,
    recipe: Mapping[str, Any],
    sources: list[list[int]],
    lesion_volume_mm3: float | None = None,
) -> StoredCase:
    """Write a case; replaces what was there, and counts only when complete."""
    folder = folder / name
    for old in (_file(folder), folder / "label.npy", folder / "lesion_voxels.npy"):
        old.unlink(missing_ok=True)
    _save(folder / "image.npy", image.astype(np.float32))
    if label is not None:
        _save(folder / "label.npy", label.astype(np.uint8))
        _save(folder / "lesion_voxels.npy", np.argwhere(label).astype(np.int32))
    facts = {"name": name, "native": asdict(native), "grid": asdict(grid), "recipe": dict(recipe)}
    facts |= {"sources": sources, "lesion_volume_mm3": lesion_volume_mm3}
    write_json(_file(folder), facts)
    return open_case(folder.parent, name)


def is_stored(folder: Path, name: str, recipe: Mapping[str, Any], sources: list[list[int]]) -> bool:
    """Tell whether a case is complete and made with these settings from these files."""
    if not _file(folder / name).is_file():
        return False
    stored = open_case(folder, name)
    return stored.recipe == recipe and stored.sources == sources


def open_case(folder: Path, name: str) -> StoredCase:
    """Open a stored case.

    Raises
    ------
    CohortError
        The case is not there or not complete.
    """
    file = _file(folder / name)
    if not file.is_file():
        raise CohortError.one(name, file, "no such file", "a preprocessed case", "run notebook 02 for this study first")
    facts = json.loads(file.read_text())
    native, grid = (Grid(**{k: tuple(v) for k, v in facts[key].items()}) for key in ("native", "grid"))
    return StoredCase(name, file.parent, native, grid, facts["recipe"], facts["sources"], facts["lesion_volume_mm3"])


def open_cases(folder: Path, cases: Iterable[Case]) -> list[StoredCase]:
    """Open the stored arrays of cases, in their order.

    Raises
    ------
    CohortError
        With every case that is not there, or when they were made with different settings.
    """
    stored, problems = [], []
    for case in cases:
        try:
            stored.append(open_case(folder, case.name))
        except CohortError as error:
            problems += error.problems
    problems += [
        Problem(other.name, "case.json", "other settings than the rest", "one recipe", "run notebook 02 again")
        for other in stored[1:]
        if other.recipe != stored[0].recipe
    ]
    if problems:
        raise CohortError(problems)
    return stored


def _file(folder: Path) -> Path:
    return folder / "case.json"


def _save(path: Path, array: np.ndarray) -> None:
    with finished(path) as unfinished, unfinished.open("wb") as file:
        np.save(file, array)
