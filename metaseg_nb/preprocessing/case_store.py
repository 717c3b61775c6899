"""The case store: each case on the study grid, as arrays that are read a patch at a time.

A case has one folder with two parts. Each part has its own settings and files, so that a change makes only that
part again which depends on it. The JSON file of a part is written last and holds the checksums of its arrays: without
it, or with a changed array, the part counts as missing. ``image.time`` and ``label.time`` hold the seconds that making
a part took. They are separate files so that a part that is made again is the same, byte for byte.

=====  ==================  ==========================================================
image  image.npy           float16, shape (C, X, Y, Z): the sequences, prepared
       head_voxels.npy     int32, shape (N, 3): voxels of the head, at most `HEAD_VOXELS`
       reach.npy           uint8: where lesions are looked for, eight voxels a byte
       correction.npz      `CorrectionRecord` of the first sequence
       image.json          grids, recipe, source files
label  label.npy           uint8, 0 or 1, shape (X, Y, Z)
       lesion_voxels.npy   int32, shape (N, 3): where the label is 1
       lesion_boxes.npy    int32, shape (L, 3, 2): first voxel and the one beyond the last
       label.json          recipe, source file, what cleaning changed, volumes
=====  ==================  ==========================================================

Half precision keeps 11 bits: on a scale from 0 to 1 it is off by 0.00025 at most, a hundredth of
the noise of an MR image, and takes half of the disk and of the page cache that float32 does. A patch
of 96³ takes a millisecond more to cut (benchmarks/preprocessing.py).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from metaseg_nb.checksums import changed_files, checksum, read_record, write_record
from metaseg_nb.cohort.cases import Case, LesionRule
from metaseg_nb.cohort.head import reach_of
from metaseg_nb.cohort.lesions import find_lesions
from metaseg_nb.cohort.problems import CohortError, Problem
from metaseg_nb.files import DamagedFile, finished
from metaseg_nb.preprocessing.correction_record import CorrectionRecord
from metaseg_nb.preprocessing.stored_case import StoredCase
from metaseg_nb.settings import settings_hash

# Advice for a part that cannot be used.
AGAIN = "run notebook 02 again: it makes again what is damaged or out of date"
# Arrays of a label, whether drawn or made from an annotation.
LABEL_ARRAYS = ("label.npy", "lesion_voxels.npy", "lesion_boxes.npy")
# Patches are centred on these: a random twenty thousand are as good as all, and 0.2 MB instead of 20.
HEAD_VOXELS = 20_000


def part_identity(recipe: Mapping[str, Any], sources: Sequence[list[int] | str], image: str = "") -> str:
    """Hash of all that decides a part's arrays; a label's depends on its image's too."""
    return settings_hash({"recipe": dict(recipe), "sources": sources, "image": image})


def store_image(
    folder: Path, name: str, image: np.ndarray, head: np.ndarray, correction: CorrectionRecord, facts: Mapping[str, Any]
) -> None:
    """Write the image part of a case; a stored label, on the former grid, is removed.

    Parameters
    ----------
    folder : path
        Of the case store.
    name : str
    image : ndarray, shape (C, X, Y, Z)
    head : ndarray of bool, shape (X, Y, Z)
    correction : CorrectionRecord
    facts : mapping
        ``native`` and ``grid`` (as dicts), ``native_affine``, ``native_orientation``, ``native_place`` (of the file's
        header; not known for a volume that no file holds), ``recipe``, ``sources``.
    """
    folder = folder / name
    drop_label(folder.parent, name)
    facts_file(folder, "image").unlink(missing_ok=True)
    voxels = np.argwhere(head).astype(np.int32)
    if len(voxels) > HEAD_VOXELS:
        voxels = np.random.default_rng(0).choice(voxels, HEAD_VOXELS, replace=False, shuffle=False)
    reach = np.packbits(reach_of(head, facts["grid"]["spacing_mm"]))
    arrays = {"image": image.astype(np.float16), "head_voxels": voxels, "reach": reach}
    files = [save_array(folder / f"{name}.npy", array) for name, array in arrays.items()]
    correction.save(folder / "correction.npz")
    identity = part_identity(facts["recipe"], facts["sources"])
    write_record(facts_file(folder, "image"), {**facts, "identity": identity}, [*files, folder / "correction.npz"])


def store_label(folder: Path, name: str, label: np.ndarray, facts: Mapping[str, Any]) -> None:
    """Write the label part of a case whose image is stored.

    Parameters
    ----------
    folder : path
        Of the case store.
    name : str
    label : ndarray of bool, shape (X, Y, Z)
    facts : mapping
        ``recipe``, ``sources`` (checksum of the label's file) and what else is known about it.
    """
    image = read_record(facts_file(folder / name, "image"))["identity"]
    drop_label(folder, name)
    arrays = save_label(folder / name, label.astype(np.uint8))
    identity = part_identity(facts["recipe"], facts["sources"], image)
    write_record(facts_file(folder / name, "label"), {**facts, "identity": identity}, arrays)


def drop_label(folder: Path, name: str) -> None:
    """Remove the label part of a case, where there is one."""
    facts_file(folder / name, "label").unlink(missing_ok=True)
    for array in LABEL_ARRAYS:
        (folder / name / array).unlink(missing_ok=True)


def is_stored(folder: Path, name: str, part: str, identity: str) -> bool:
    """Tell whether the "image" or "label" part of a case has this identity and all its arrays, as they were written."""
    file = facts_file(folder / name, part)
    try:
        facts = read_record(file)
    except (FileNotFoundError, DamagedFile):
        return False
    return facts["identity"] == identity and not changed_files(file, facts)


def open_case(folder: Path, name: str) -> StoredCase:
    """Open a stored case; its arrays are not looked at.

    Raises
    ------
    CohortError
        The case is missing or incomplete, or its record is damaged.
    """
    image, label = (facts_file(folder / name, part) for part in ("image", "label"))
    if not image.is_file():
        raise _missing(name, image)
    try:
        return StoredCase(name, folder / name, read_record(image), read_record(label) if label.is_file() else None)
    except DamagedFile as error:
        raise CohortError.one(name, error.path, error.found, "a preprocessed case", AGAIN) from error


def open_cases(folder: Path, cases: Iterable[Case]) -> list[StoredCase]:
    """Open stored cases, in their order, after comparing their arrays with the checksums.

    Of a case without a label only the image is opened, whatever is stored.

    Raises
    ------
    CohortError
        With every case that is missing or has no stored label, that is damaged, that was made with other settings,
        or whose label has changed since.
    """
    stored, problems = [], []
    for case in cases:
        try:
            opened = open_case(folder, case.name)
            stored.append(opened if case.label else replace(opened, label_facts=None))
            if case.label and not opened.has_label:
                raise _missing(case.name, facts_file(folder / case.name, "label"))
            problems += _out_of_date(case, stored[-1])
        except CohortError as error:
            problems += error.problems
    problems += [
        Problem(other.name, "image.json", _difference(stored[0], other), "one recipe", "run notebook 02 again")
        for other in stored[1:]
        if _difference(stored[0], other)
    ]
    if problems:
        raise CohortError(problems)
    return stored


def require_rule(stored: Iterable[StoredCase], rule: LesionRule) -> None:
    """Raise `CohortError`, naming every case whose label was made by another lesion rule than the cohort's."""
    now = rule.as_json()
    made = [(case, case.recipe["lesions"]) for case in stored if "lesions" in case.recipe]
    problems = [
        Problem(case.name, "label.json", f"a label made by {by}", f"the cohort's rule, {now}", AGAIN)
        for case, by in made
        if by != now
    ]
    if problems:
        raise CohortError(problems)


def _out_of_date(case: Case, stored: StoredCase) -> list[Problem]:
    """Arrays that changed since they were written, and a label file that changed since it was read."""
    parts = {"image": stored.image_facts, "label": stored.label_facts or {"files": {}}}
    problems = [
        Problem(case.name, str(stored.folder / array), found, "the array as notebook 02 wrote it", AGAIN)
        for part, facts in parts.items()
        for array, found in changed_files(facts_file(stored.folder, part), facts).items()
    ]
    label = case.label if stored.has_label else None
    if label and label.is_file() and stored.label_facts["sources"] != [checksum(label)]:
        found, expected = "another label than notebook 02 read", "the label that the stored case was made from"
        problems.append(Problem(case.name, str(label), found, expected, AGAIN))
    return problems


def _difference(first: StoredCase, other: StoredCase) -> str:
    keys = first.recipe.keys() & other.recipe.keys()  # a case without label has no settings of labels
    differing = [key for key in sorted(keys) if first.recipe[key] != other.recipe[key]]
    return ", ".join(f"{key} {other.recipe[key]}, others {first.recipe[key]}" for key in differing)


def _missing(name: str, file: Path) -> CohortError:
    return CohortError.one(name, file, "no such file", "a preprocessed case", "run notebook 02 for this study first")


def facts_file(folder: Path, part: str) -> Path:
    """JSON file of a case's "image" or "label" part."""
    return folder / f"{part}.json"


def save_label(folder: Path, label: np.ndarray) -> list[Path]:
    """Write a label, uint8 of shape (X, Y, Z), with the places of its lesions, the voxels that are 1.

    Returns the files.
    """
    lesion = label == 1
    boxes = [[[axis.start, axis.stop] for axis in box] for box in find_lesions(lesion, (1.0,) * 3).boxes.values()]
    arrays = label, np.argwhere(lesion).astype(np.int32), np.array(boxes, np.int32).reshape(-1, 3, 2)
    return [save_array(folder / name, array) for name, array in zip(LABEL_ARRAYS, arrays, strict=True)]


def save_array(path: Path, array: np.ndarray) -> Path:
    """Write an array, whole or not at all, and return its file."""
    with finished(path) as unfinished, unfinished.open("wb") as file:
        np.save(file, array)
    return path
