"""Folders whose layout a standard fixes: nnU-Net's raw data sets, and BIDS.

Each reader gives the files of every case; `read_folder` makes cases of them.
"""

import json
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from metaseg_nb.cohort.problems import CohortError, Problem, unused
from metaseg_nb.cohort.sources.naming import is_enhanced_t1, is_plain, is_volume, spelled_out, volumes_in
from metaseg_nb.cohort.sources.spelling import SUFFIXES, fact, read_json, stem

NO_PATTERNS = "no file patterns for nnU-Net, whose names are fixed"
CHANNEL = re.compile(r"(.+)_(\d{4})")
T1 = "a channel named as contrast-enhanced T1 (T1c, T1ce, T1Gd ...)"
NAME_T1 = 'name the contrast-enhanced T1 in "channel_names"'
ENTITIES = re.compile(r"(sub-[^_]+)(?:_(ses-[^_]+))?_")
MASK = re.compile(r"_(mask|dseg|seg|roi)$")
# Masks of something else, as brain extraction and tissue segmentation leave them.
ANATOMY = re.compile(r"(desc|label)-(brain|aseg|aparcaseg|gm|wm|csf|head)", re.IGNORECASE)
LESION = re.compile(r"lesion|tumou?r|gtv|metasta", re.IGNORECASE)
SCANNER = ("Manufacturer", "ManufacturersModelName", "MagneticFieldStrength")


@dataclass(frozen=True)
class CaseFiles:
    """The files of one case that a layout finds.

    ``images`` are the files found for each sequence, ``labels`` those found for
    the mask: one each, if all is well. ``others`` are volumes that are neither.
    A case that only is to be predicted has ``labels`` None.
    """

    name: str
    folder: Path
    images: tuple[Sequence[Path], ...]
    labels: Sequence[Path] | None
    others: Sequence[Path] = ()
    primary: str = "unknown"
    scanner: str = "unknown"
    date: str = "unknown"


@dataclass(frozen=True)
class Found:
    """What a layout finds in a folder."""

    files: list[CaseFiles]
    problems: list[Problem] = field(default_factory=list)
    description: str = ""


def is_nnunet(folder: Path) -> bool:
    """Whether a folder has nnU-Net's training images."""
    return (folder / "imagesTr").is_dir()


def read_nnunet(folder: Path, image_files: Sequence[str] = (), label_file: str = "") -> Found:
    """Find ``imagesTr/<case>_0000.nii.gz``, ``labelsTr/<case>.nii.gz``, ``imagesTs`` (unlabelled), ``dataset.json``.

    As nnU-Net's documentation has it, version 1 (``modality``) and 2 (``channel_names``); folders of the Medical
    Segmentation Decathlon, whose images have no channel number, too. Channels are sequences. The first is the one
    that ``dataset.json`` names as a contrast-enhanced T1; without one they keep their order, with a warning.
    """
    record = folder / "dataset.json"
    problems = unused(folder, {"image_files": list(image_files), "label_file": label_file}, NO_PATTERNS)
    content: Mapping[str, Any] = {}
    channels: dict[int, str] = {}
    try:
        content = read_json(record) if record.is_file() else {}
        named = content.get("channel_names", content.get("modality", {}))
        channels = {int(number): fact(name) or "" for number, name in named.items()}
        description = fact(content.get("description"))
    except (ValueError, AttributeError) as error:  # a CohortError is one
        expected = 'JSON with "channel_names" or "modality" by number, and texts'
        other = [Problem("-", str(record), f"{error}", expected, "repair the file")]
        problems += error.problems if isinstance(error, CohortError) else other
        content, description = {}, None
    if (ending := content.get("file_ending", SUFFIXES[0])) not in SUFFIXES:
        found, expected = f"file_ending {ending!r}", "NIfTI: .nii.gz or .nii"
        problems.append(Problem("-", str(record), found, expected, "convert the files"))
    labels = content.get("labels")
    texts = [description, labels and f"nnU-Net labels: {json.dumps(labels)}"]
    masks = defaultdict(list)
    for path in volumes_in(folder / "labelsTr"):
        masks[stem(path.name)].append(path)
    stems = {stem(path.name) for path in volumes_in(folder / "imagesTr")}
    numbered = any(name.endswith("_0000") and name not in masks for name in stems)
    images = {part: _by_case_and_channel(folder / part, numbered) for part in ("imagesTr", "imagesTs")}
    present = {channel for cases in images.values() for files in cases.values() for channel in files}
    order = sorted(channels or present, key=lambda i: (not is_enhanced_t1(channels.get(i, "")), i))
    first = channels.get(order[0], "") if order else ""
    if (len(order) > 1 and not is_enhanced_t1(first)) or is_plain(first):
        found = f"channels {[channels.get(i, i) for i in order]}; the first is used"
        problems.append(Problem("-", str(record), found, T1, NAME_T1, "warning"))
    if unread := sorted(present - set(order)):
        found, expected = f"files of channels {unread}, which are not read", "the channels of dataset.json only"
        fix = 'name them in "channel_names", or remove them'
        problems.append(Problem("-", str(record), found, expected, fix, "warning"))
    files = []
    for part, cases in (("imagesTr", {*images["imagesTr"], *masks}), ("imagesTs", {*images["imagesTs"]})):
        for case in sorted(cases):
            sequences = tuple(images[part].get(case, {}).get(i, []) for i in order)
            files.append(CaseFiles(case, folder / part, sequences, masks[case] if part == "imagesTr" else None))
    return Found(files, problems, ". ".join(filter(None, texts)))


def _by_case_and_channel(folder: Path, numbered: bool) -> dict[str, dict[int, list[Path]]]:
    """Files of each case; where they are not ``numbered``, four digits at the end are part of the name."""
    cases: dict[str, dict[int, list[Path]]] = defaultdict(lambda: defaultdict(list))
    for path in volumes_in(folder):
        channel = CHANNEL.fullmatch(stem(path.name)) if numbered else None
        case, number = (channel[1], int(channel[2])) if channel else (stem(path.name), 0)
        cases[case][number].append(path)
    return cases


def is_bids(folder: Path) -> bool:
    """Whether a folder has a patient with anatomical images."""
    return any(next(folder.glob(f"sub-*/{place}"), None) for place in ("anat", "ses-*/anat"))


def read_bids(folder: Path, image_files: Sequence[str] = (), label_file: str = "") -> Found:
    """Find a case for each ``sub-<patient>/[ses-<time>/]anat``, with masks beside the images or below ``derivatives``.

    Brain Imaging Data Structure: Gorgolewski et al., Scientific Data 3, 2016. Without ``image_files`` the image is
    the one that is no mask; of several, the contrast-enhanced T1 by its name (``ce-gad_T1w``). Without ``label_file``
    the mask is named ``*_mask``, ``*_dseg``, ``*_seg`` or ``*_roi``, and is not that of the brain; of several, the
    one that names a lesion (``label-lesion_mask``). Scanner and date come from the image's JSON sidecar.
    """
    derived = defaultdict(list)
    for path in sorted((folder / "derivatives").rglob("*.nii*")):
        if is_volume(path) and (entities := ENTITIES.match(path.name)):
            derived["_".join(filter(None, entities.groups()))].append(path)
    anats = {}
    for patient in sorted(path for path in folder.glob("sub-*") if path.is_dir()):
        found = sorted(path for place in ("anat", "ses-*/anat") for path in patient.glob(place) if path.is_dir())
        for anat in found or [patient / "anat"]:
            anats["_".join(anat.parent.relative_to(folder).parts)] = anat
    for name, volumes in derived.items():  # a mask of a patient without images
        if name not in anats and _lesion_masks(volumes, label_file):
            anats[name] = folder.joinpath(*name.split("_"), "anat")
    files, problems = [], []
    for name, anat in anats.items():
        volumes = volumes_in(anat)
        labels = _lesion_masks([*volumes, *derived[name]], label_file)
        free = [path for path in volumes if path not in labels]
        images = [[path for path in free if _matches(path, pattern)] for pattern in image_files]
        if not images:
            images = [_preferred([path for path in free if not MASK.search(stem(path.name))], is_enhanced_t1)]
        others = [path for path in free if not any(path in found for found in images)]
        scanner, date = "unknown", "unknown"
        try:
            scanner, date = _scanner_and_date(images[0][0]) if images[0] else (scanner, date)
        except CohortError as error:
            problems += [replace(problem, case=name, severity="warning") for problem in error.problems]
        files.append(CaseFiles(name, anat, tuple(images), labels, others, "unknown", scanner, date))
    return Found(files, problems)


def _lesion_masks(volumes: Sequence[Path], label_file: str) -> list[Path]:
    if label_file:
        return [path for path in volumes if _matches(path, label_file)]
    masks = [path for path in volumes if MASK.search(stem(path.name)) and not ANATOMY.search(path.name)]
    return _preferred(masks, LESION.search)


def _matches(path: Path, pattern: str) -> bool:
    return any(path.match(spelled) for spelled in spelled_out([pattern]))


def _preferred(paths: list[Path], is_meant: Callable[[str], object]) -> list[Path]:
    """Of several paths those with a wanted name, or all if none has one."""
    return [path for path in paths if is_meant(path.name)] or paths if len(paths) > 1 else paths


def _scanner_and_date(image: Path) -> tuple[str, str]:
    """Scanner and date of an image, "unknown" where its JSON sidecar does not hold them."""
    path = image.with_name(f"{stem(image.name)}.json")
    content = read_json(path) if path.is_file() else {}
    known = {}
    for key in (*SCANNER, "AcquisitionDateTime", "AcquisitionDate"):
        with suppress(ValueError, AttributeError):  # neither text nor a number, or no object
            known[key] = fact(content.get(key)) or ""
    maker, model, tesla = (known.get(key, "") for key in SCANNER)
    date = known.get("AcquisitionDateTime") or known.get("AcquisitionDate") or "unknown"
    scanner = " ".join(filter(None, [maker, model, tesla and f"{tesla} T"]))
    return scanner or "unknown", date.partition("T")[0]
