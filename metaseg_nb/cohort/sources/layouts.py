"""Known folder layouts: how each is recognised, and where the files of a case lie.

Each reader gives the files of every case; `read_folder` makes cases of them.
"""

import json
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from metaseg_nb.cohort.problems import CohortError, Problem, broken, grouped, shortened
from metaseg_nb.cohort.sources import naming
from metaseg_nb.cohort.sources.naming import in_any_capitals, is_enhanced_t1, is_volume, spelled_out, volumes_in
from metaseg_nb.cohort.sources.spelling import SUFFIXES, fact, read_csv, read_json, stem

# Stands for the patient in patterns of folders that hold the files of all patients.
PATIENT = "{patient}"
CHANNEL = re.compile(r"_\d{4}$")
ANATS = ("sub-*/anat/", "sub-*/ses-*/anat/")
SESSION = re.compile(r"(sub-[^_]+(?:_ses-[^_]+)?)_")
MASK_ENDING = re.compile(r"_(mask|dseg|seg|roi)$", re.IGNORECASE)
# Masks of something else, as brain extraction and tissue segmentation leave them.
ANATOMY = re.compile(r"(desc|label)-(brain|aseg|aparcaseg|gm|wm|csf|head)", re.IGNORECASE)
LESION_WORDS = re.compile(r"lesion|tumou?r|gtv|metasta", re.IGNORECASE)
SCANNER = ("Manufacturer", "ManufacturersModelName", "MagneticFieldStrength")


@dataclass(frozen=True)
class CaseFiles:
    """The files of one case that a layout finds.

    ``images`` are the files found for each sequence, ``labels`` those found for
    the mask: one each, if all is well. ``volumes`` are all in a folder of the case's own.
    A case that only is to be predicted has ``labels`` None; ``brains`` is None where none are looked for.
    ``facts`` are what is known of its ``primary``, ``site``, ``scanner`` and ``date``.
    """

    name: str
    folder: Path
    images: tuple[Sequence[Path], ...]
    labels: Sequence[Path] | None
    volumes: Sequence[Path] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    brains: Sequence[Path] | None = None


@dataclass(frozen=True)
class Found:
    """What a layout finds in a folder."""

    files: list[CaseFiles]
    problems: list[Problem] = field(default_factory=list)
    description: str = ""


def read_patterns(folder: Path, image_files: Sequence[str], label_file: str, brain_file: str = "") -> Found:
    """Find the files of each patient by patterns with ``{patient}``; volumes beside them are a warning."""
    masks = by_patient(folder, label_file)
    brains = by_patient(folder, brain_file) if brain_file else {}
    no_images = {path for of in (masks, brains) for paths in of.values() for path in paths}
    images = [by_patient(folder, pattern, no_images) for pattern in image_files]
    matched = no_images.union(*(paths for sequence in images for paths in sequence.values()))
    left = {path for place in {path.parent for path in matched} for path in volumes_in(place)} - matched
    what = f"{len(left)} files that no pattern matches: {shortened(sorted(path.name for path in left))}"
    names = sorted(masks.keys() | {name for sequence in images for name in sequence})
    files = [CaseFiles(name, folder, tuple(of[name] for of in images), masks[name]) for name in names]
    return Found(files, [broken("volumes matched", "-", folder, what)] if left else [])


def by_patient(folder: Path, pattern: str, but: Collection[Path] = ()) -> defaultdict[str, list[Path]]:
    """The volumes that a pattern matches, by what stands for ``{patient}``: twice in a pattern it is one name."""
    found = defaultdict(list)
    for spelled in spelled_out([pattern]):
        parts = [re.escape(part).replace(r"\*", "[^/]*").replace(r"\?", "[^/]") for part in spelled.split(PATIENT)]
        whole = "(?P=patient)".join([f"{parts[0]}(?P<patient>[^/]+?){parts[1]}", *parts[2:]])
        for path in sorted({*folder.glob(in_any_capitals(spelled.replace(PATIENT, "*")))} - {*but}):
            match = re.fullmatch(whole, path.relative_to(folder).as_posix(), re.IGNORECASE)
            if match and is_volume(path):
                found[match["patient"]].append(path)
    return found


def read_nnunet(folder: Path, *_: object) -> Found:
    """Find ``imagesTr/<case>_0000.nii.gz``, ``labelsTr/<case>.nii.gz``, ``imagesTs`` (unlabelled), ``dataset.json``.

    As nnU-Net's documentation has it, version 1 (``modality``) and 2 (``channel_names``); folders of the Medical
    Segmentation Decathlon, whose images have no channel number, too. Channels are sequences. The first is the one
    that ``dataset.json`` names as a contrast-enhanced T1; without one they keep their order, with a warning.
    """
    record, parts = folder / "dataset.json", ("imagesTr", "imagesTs")
    problems, texts = [], []
    channels: dict[int, str] = {}
    try:
        content = read_json(record) if record.is_file() else {}
        named = content.get("channel_names", content.get("modality", {}))
        channels = {int(number): fact(name) or "" for number, name in named.items()}
        labels = content.get("labels")
        texts = [fact(content.get("description")), labels and f"nnU-Net labels: {json.dumps(labels)}"]
        if (ending := content.get("file_ending", SUFFIXES[0])) not in SUFFIXES:
            problems.append(broken("file ending", "-", record, f"file_ending {ending!r}"))
    except CohortError as error:
        problems += error.problems
    except (ValueError, AttributeError) as error:
        problems.append(broken("names of channels", "-", record, f"{error}"))
    masks, whole = (by_patient(folder, f"{part}/{PATIENT}") for part in ("labelsTr", "imagesTr"))
    # without channels, four digits at the end are part of the name
    numbered = any(name.endswith("_0000") and name not in masks for name in whole)
    present = {int(name[-4:]) for name in whole if CHANNEL.search(name)} if numbered else {0}
    order = sorted(channels or present, key=lambda i: (not is_enhanced_t1(channels.get(i, "")), i))
    first = channels.get(order[0], "")
    if (len(order) > 1 and not is_enhanced_t1(first)) or naming.is_plain(first):
        found = f"channels {[channels.get(i, i) for i in order]}; the first is used"
        problems.append(broken("contrast-enhanced T1", "-", record, found))
    files, unread = [], {path for part in parts for path in volumes_in(folder / part)}
    for part in parts:
        images = [by_patient(folder, f"{part}/{PATIENT}" + f"_{i:04d}" * numbered) for i in order]
        unread -= {path for of in images for paths in of.values() for path in paths}
        for case in sorted({*(masks if part == "imagesTr" else ())}.union(*images)):
            labels = masks[case] if part == "imagesTr" else None
            files.append(CaseFiles(case, folder / part, tuple(of[case] for of in images), labels))
    if unread:
        found = f"files that are not read: {shortened(sorted(path.name for path in unread))}"
        problems.append(broken("channels read", "-", record, found))
    return Found(files, problems, ". ".join(filter(None, texts)))


def read_bids(folder: Path, image_files: Sequence[str], label_file: str) -> Found:
    """Find a case for each ``sub-<patient>/[ses-<time>/]anat``, with masks beside the images or below ``derivatives``.

    Brain Imaging Data Structure: Gorgolewski et al., Scientific Data 3, 2016. Without ``image_files`` the image is
    the one that is no mask; of several, the contrast-enhanced T1 by its name (``ce-gad_T1w``). Without ``label_file``
    the mask is named ``*_mask``, ``*_dseg``, ``*_seg`` or ``*_roi``, and is not that of the brain; of several, the
    one that names a lesion (``label-lesion_mask``). Scanner and date come from the image's JSON sidecar; without a date
    there, it is the session's ``acq_time`` in ``sub-<patient>_sessions.tsv``.
    """
    derivatives = filter(is_volume, sorted((folder / "derivatives").rglob(in_any_capitals("*.nii*"))))
    derived = grouped((session[1], path) for path in derivatives if (session := SESSION.match(path.name)))
    places = {place for pattern in ANATS for place in folder.glob(pattern)}
    with_images = {parent for place in places for parent in place.parents}
    places |= {patient / "anat" for patient in {*folder.glob("sub-*/")} - with_images}
    anats = {"_".join(place.parent.relative_to(folder).parts): place for place in sorted(places)}
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
            images = [_preferred([path for path in free if not MASK_ENDING.search(stem(path.name))], is_enhanced_t1)]
        found = CaseFiles(name, anat, tuple(images), labels, volumes)
        try:
            known = _origin(images[0][0]) if images[0] else {}
            if known.get("date") == "unknown" and anat.parent.name.startswith("ses-"):
                known["date"] = _session_date(anat.parent)
            files.append(replace(found, facts=known))
        except CohortError as error:
            files.append(found)
            problems += [replace(problem, case=name, severity="warning") for problem in error.problems]
    return Found(files, problems)


def _lesion_masks(volumes: Sequence[Path], label_file: str) -> list[Path]:
    if label_file:
        return [path for path in volumes if _matches(path, label_file)]
    masks = [path for path in volumes if MASK_ENDING.search(stem(path.name)) and not ANATOMY.search(path.name)]
    return _preferred(masks, LESION_WORDS.search)


def _matches(path: Path, pattern: str) -> bool:
    return any(path.match(in_any_capitals(spelled)) for spelled in spelled_out([pattern]))


def _preferred(paths: list[Path], is_meant: Callable[[str], object]) -> list[Path]:
    """Of several paths those with a wanted name, or all if none has one."""
    return [path for path in paths if is_meant(path.name)] or paths


def _origin(image: Path) -> dict[str, str]:
    """Site, scanner and date of an image, "unknown" where its JSON sidecar does not hold them."""
    path = image.with_name(f"{stem(image.name)}.json")
    content = read_json(path) if path.is_file() else {}
    known = defaultdict(str)
    for key in (*SCANNER, "AcquisitionDateTime", "AcquisitionDate"):
        with suppress(ValueError, AttributeError):  # neither text nor a number, or no object
            known[key] = fact(content.get(key)) or ""
    maker, model, tesla = (known[key] for key in SCANNER)
    scanner = " ".join(filter(None, [maker, model, tesla and f"{tesla} T"]))
    date = (known["AcquisitionDateTime"] or known["AcquisitionDate"]).partition("T")[0]
    facts = {"site": naming.site_of(maker, tesla), "scanner": scanner, "date": date}
    return {key: value or "unknown" for key, value in facts.items()}


def _session_date(session: Path) -> str:
    """When a session took place, by the table of its patient's sessions; "unknown" without a table or time."""
    path = session.with_name(f"{session.parent.name}_sessions.tsv")
    table = read_csv(path)[0] if path.is_file() else pd.DataFrame()
    if not {"session_id", "acq_time"} <= {*table}:
        return "unknown"
    times = dict(zip(table["session_id"], table["acq_time"], strict=True))
    return (fact(times.get(session.name)) or "unknown").partition("T")[0]


class Layout(NamedTuple):
    """A layout: its name, and ``marks``, the glob patterns of folders that it is recognised by.

    ``read`` gets the patterns of images and mask: the study's, if it ``takes_patterns``, or its own.
    """

    name: str
    marks: tuple[str, ...]
    read: Callable[[Path, Sequence[str], str], Found] = read_patterns
    images: tuple[str, ...] = ()
    label: str = ""
    takes_patterns: bool = False


# The first that a folder has counts.
LAYOUTS = [Layout("nnU-Net", ("imagesTr/",), read_nnunet), Layout("BIDS", ANATS, read_bids, takes_patterns=True)]
