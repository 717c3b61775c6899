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
       brain.nii.gz        mask on the image's grid, where the brain was extracted; brain.json says by what
       image.json          grids, recipe, source files, registrations
label  label.npy           uint8, 0 or 1, shape (X, Y, Z)
       lesion_voxels.npy   int32, shape (N, 3): where the label is 1
       lesion_boxes.npy    int32, shape (L, 3, 2): first voxel and the one beyond the last
       whole_lesions.npy   float16, shape (C, X, Y, Z): the image to train with, where the brain mask cuts lesions
       label.json          recipe, source file, what cleaning changed, volumes
=====  ==================  ==========================================================

A training set may know less of a case than its full label does. Such an annotation has a folder of its own with the
files of a label, where `UNKNOWN` voxels are, and with up to two more:

===============  ==================================================================
head_voxels.npy  int32, shape (N, 3): head voxels of the image that are known
image.npy        float16, shape (C, X, Y, Z): the image, where lesions were planted
===============  ==================================================================

Half precision keeps 11 bits: on a scale from 0 to 1 it is off by 0.00025 at most, a hundredth of
the noise of an MR image, and takes half of the disk and of the page cache that float32 does. A patch
of 96³ takes a millisecond more to cut (benchmarks/preprocessing.py).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from metaseg_nb.checksums import changed_files, checksum, read_record, write_record
from metaseg_nb.cohort.cases import Case, LesionRule
from metaseg_nb.cohort.lesions import find_lesions
from metaseg_nb.cohort.problems import CohortError, Problem
from metaseg_nb.files import DamagedFile, finished
from metaseg_nb.preprocessing.steps import PreparedImage, in_full
from metaseg_nb.preprocessing.stored_case import WHOLE, StoredCase
from metaseg_nb.settings import settings_hash

# Advice for a part that cannot be used.
AGAIN = "run notebook 02 again: it replaces what is damaged or out of date"
# Patches are centred on these: a random twenty thousand are as good as all, and 0.2 MB instead of 20.
HEAD_VOXELS = 20_000
# Value of voxels in a label of which nothing is known.
UNKNOWN = 2


def part_identity(recipe: Mapping[str, Any], sources: Sequence[list[int] | str], image: str = "") -> str:
    """Hash of all that decides a part's arrays; a label's depends on its image's too."""
    return settings_hash({"recipe": dict(recipe), "sources": sources, "image": image})


def is_stored(folder: Path, name: str, part: str, identity: str) -> bool:
    """Tell whether the "image" or "label" part of a case has this identity and all its arrays, as they were written."""
    file = folder / name / f"{part}.json"
    try:
        facts = read_record(file)
    except (FileNotFoundError, DamagedFile):
        return False
    # stores of earlier versions do not count slices, nor say how alike the head of the earlier date is
    whole = "slices" in facts if part == "label" else "alike" in facts.get("earlier", ("alike",))
    return whole and facts["identity"] == identity and not changed_files(file, facts)


def store_image(
    folder: Path,
    name: str,
    prepared: PreparedImage,
    recipe: Mapping[str, Any],
    sources: Sequence[list[int] | str],
    known: Mapping[str, Any] | None = None,
) -> None:
    """Write the image part of a case below the case store's folder; a stored label, on the former grid, is removed.

    ``sources`` are size and time of the files, and the checksum of the brain mask where there is one. ``known`` is what
    else is to be kept of the image.
    """
    drop_label(folder, name)
    (folder / name / "image.json").unlink(missing_ok=True)
    voxels = np.argwhere(prepared.head).astype(np.int32)
    if len(voxels) > HEAD_VOXELS:
        voxels = np.random.default_rng(0).choice(voxels, HEAD_VOXELS, replace=False, shuffle=False)
    reach = np.packbits(prepared.reach)
    files = _save(folder / name, image=prepared.array.astype(np.float16), head_voxels=voxels, reach=reach)
    with finished(folder / name / "correction.npz") as unfinished, unfinished.open("wb") as file:
        np.savez_compressed(file, **asdict(prepared.corrections[0]))
    facts = {
        "native": asdict(prepared.native),
        "grid": asdict(prepared.grid),
        "native_affine": prepared.first.affine.tolist(),
        "native_orientation": prepared.first.native_orientation.tolist(),
        "native_place": prepared.first.place,
        "recipe": dict(recipe),
        "sources": sources,
        "field_ranges": [float(correction.field_range) for correction in prepared.corrections],
        **(known or {}),
        "identity": part_identity(recipe, sources),
    }
    if any(prepared.registrations):
        facts["registrations"] = [of and asdict(of) | {"matrix": of.matrix.tolist()} for of in prepared.registrations]
    write_record(folder / name / "image.json", facts, [*files, folder / name / "correction.npz"])


def store_label(
    folder: Path, name: str, label: np.ndarray, facts: Mapping[str, Any], whole: np.ndarray | None = None
) -> None:
    """Write the label part of a case whose image is stored.

    ``label`` is bool, shape (X, Y, Z); ``facts`` are ``recipe``, ``sources`` (checksum of the label's file), ``slices``
    (see `StoredCase`) and what else is known about it. ``whole`` is the image to train with, shape (C, X, Y, Z), where
    a brain mask would cut lesions.
    """
    image = read_record(folder / name / "image.json")["identity"]
    drop_label(folder, name)
    arrays = _label_arrays(label.astype(np.uint8)) | ({} if whole is None else {WHOLE: whole.astype(np.float16)})
    files = _save(folder / name, **arrays)
    identity = part_identity(facts["recipe"], facts["sources"], image)
    write_record(folder / name / "label.json", {**facts, "identity": identity}, files)


def drop_label(folder: Path, name: str) -> None:
    """Remove the label part of a case, where there is one."""
    for file in ("label.json", "label.npy", "lesion_voxels.npy", "lesion_boxes.npy", f"{WHOLE}.npy"):
        (folder / name / file).unlink(missing_ok=True)


def store_annotation(
    folder: Path, case: StoredCase, how: Mapping[str, Any], make: Callable[[], tuple[np.ndarray, np.ndarray | None]]
) -> StoredCase:
    """Store a partial annotation of a case, and open the case with it in place of its label.

    Parameters
    ----------
    folder : path
        Holds such annotations, a folder each.
    case : StoredCase
    how : mapping
        Everything else that decides the annotation; part of its identity.
    make : callable
        Called if the annotation is not stored yet. Returns the label, uint8 of shape (X, Y, Z): 0, 1 or `UNKNOWN`;
        and, where lesions were planted, the image with them, shape (C, X, Y, Z), else None.
    """
    sources = [source for part in (case.image_facts, case.label_facts) if part for source in part["sources"]]
    facts: dict[str, Any] = {"recipe": case.recipe, "sources": sources, "how": dict(how)}
    facts["slices"] = case.slices if case.label_facts else []  # nobody knows them
    facts["identity"] = settings_hash({"case": case.identity, "how": facts["how"]})
    if not is_stored(folder, case.name, "label", facts["identity"]):
        label, image = make()
        head = case.head_voxels
        known = head[label[tuple(head.T)] != UNKNOWN]
        arrays = {"head_voxels": known if len(known) else head, **_label_arrays(label)}
        arrays |= {} if image is None else {"image": image.astype(np.float16)}
        write_record(folder / case.name / "label.json", facts, _save(folder / case.name, **arrays))
    return replace(case, label_facts=facts, annotation=folder / case.name)


def open_case(folder: Path, name: str) -> StoredCase:
    """Open a stored case; its arrays are not looked at.

    Raises
    ------
    CohortError
        The case is missing or incomplete, or its record is damaged.
    """
    image, label = (folder / name / f"{part}.json" for part in ("image", "label"))
    if not image.is_file():
        raise _missing(name, image)
    try:
        facts = read_record(image), read_record(label) if label.is_file() else None
        return StoredCase(name, name, folder / name, *facts)
    except DamagedFile as error:
        raise CohortError.one(name, error.path, error.found, "a preprocessed case", AGAIN) from error


def open_cases(folder: Path, cases: Iterable[Case], rule: LesionRule | None = None) -> list[StoredCase]:
    """Open stored cases, in their order, after comparing their arrays with the checksums.

    Of a case without a label only the image is opened, whatever is stored. ``rule`` is what labels must be made by.

    Raises
    ------
    CohortError
        With every case that is missing or has no stored label, that is damaged, that was made with other settings
        or by another lesion rule, or whose label has changed since.
    """
    stored, problems = [], []
    for case in cases:
        try:
            opened = replace(open_case(folder, case.name), patient=case.patient)
            if case.label and not opened.has_label:
                raise _missing(case.name, folder / case.name / "label.json")
            stored.append(opened if case.label else replace(opened, label_facts=None))
            problems += _out_of_date(case, stored[-1])
        except CohortError as error:
            problems += error.problems
    wanted = (in_full(stored[0].recipe) if stored else {}) | ({"lesions": rule.as_json()} if rule else {})
    for one in stored:
        # a case without label has no settings of labels
        own = {key: value for key, value in in_full(one.recipe).items() if key in wanted}
        if found := ", ".join(f"{key} {own[key]}, not {wanted[key]}" for key in sorted(own) if own[key] != wanted[key]):
            expected = "the same settings for all, and the cohort's lesion rule"
            problems.append(Problem(one.name, str(one.folder), found, expected, "run notebook 02 again"))
    if problems:
        raise CohortError(problems)
    return stored


def _out_of_date(case: Case, stored: StoredCase) -> list[Problem]:
    """Arrays that changed since they were written, and a label file that changed since it was read."""
    problems = []
    for part, facts in (("image", stored.image_facts), ("label", stored.label_facts)):
        changed = changed_files(stored.folder / f"{part}.json", facts) if facts else {}
        for array, found in changed.items():
            expected = "the array as notebook 02 wrote it"
            problems.append(Problem(case.name, str(stored.folder / array), found, expected, AGAIN))
    label, facts = case.label, stored.label_facts
    if label and facts and label.is_file() and facts["sources"] != [checksum(label)]:
        found, expected = "a label changed after notebook 02 read it", "the label that the stored case was made from"
        problems.append(Problem(case.name, str(label), found, expected, AGAIN))
    return problems


def _missing(name: str, file: Path) -> CohortError:
    return CohortError.one(name, file, "no such file", "a preprocessed case", "run notebook 02 for this study first")


def _label_arrays(label: np.ndarray) -> dict[str, np.ndarray]:
    """A label, uint8 of shape (X, Y, Z), with the places of its lesions, the voxels that are 1."""
    boxes = find_lesions(label == 1, (1.0, 1.0, 1.0)).boxes.values()
    corners = np.array([[[axis.start, axis.stop] for axis in box] for box in boxes], np.int32).reshape(-1, 3, 2)
    return {"label": label, "lesion_voxels": np.argwhere(label == 1).astype(np.int32), "lesion_boxes": corners}


def _save(folder: Path, **arrays: np.ndarray) -> list[Path]:
    """Write arrays, each whole or not at all, and return their files."""
    files = {folder / f"{name}.npy": array for name, array in arrays.items()}
    for path, array in files.items():
        with finished(path) as unfinished, unfinished.open("wb") as file:
            np.save(file, array)
    return list(files)
