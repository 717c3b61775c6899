"""nnU-Net raw data sets: ``imagesTr/<case>_0000.nii.gz``, ``labelsTr/<case>.nii.gz``, ``imagesTs``, ``dataset.json``.

As nnU-Net's documentation has it, version 1 (``modality``) and 2 (``channel_names``). The folders
of Medical Segmentation Decathlon, whose images have no channel number, are read too.
"""

import json
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from metaseg_nb.cohort.cases import Cohort
from metaseg_nb.cohort.problems import CohortError, Problem, unused
from metaseg_nb.cohort.sources.case_files import CaseFiles, cohort_of
from metaseg_nb.cohort.sources.naming import is_enhanced_t1, is_plain, volumes_in
from metaseg_nb.cohort.sources.spelling import SUFFIXES, fact, stem
from metaseg_nb.cohort.sources.text_files import read_json

NO_PATTERNS = "no file patterns for nnU-Net, whose names are fixed"
CHANNEL = re.compile(r"(.+)_(\d{4})")


@dataclass(frozen=True)
class _About:
    """Contents of ``dataset.json``."""

    path: Path
    description: str = ""
    channels: dict[int, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


def is_nnunet(folder: Path) -> bool:
    """Whether a folder has nnU-Net's training images."""
    return (folder / "imagesTr").is_dir()


def read_nnunet(folder: Path, image_files: Sequence[str] = (), label_file: str = "") -> tuple[Cohort, list[Problem]]:
    """Read a data set; its channels are the sequences.

    The first is the channel that ``dataset.json`` names as a contrast-enhanced T1;
    without one the channels keep their order, with a warning if there are several. ``imagesTs`` are
    unlabelled. ``image_files`` and ``label_file`` mean nothing here and are a problem.
    """
    about = _about(folder / "dataset.json")
    labels = defaultdict(list)
    for path in volumes_in(folder / "labelsTr"):
        labels[stem(path.name)].append(path)
    stems = {stem(path.name) for path in volumes_in(folder / "imagesTr")}
    numbered = any(name.endswith("_0000") and name not in labels for name in stems)
    images = {part: _by_case(folder / part, numbered) for part in ("imagesTr", "imagesTs")}
    present = {channel for cases in images.values() for channels in cases.values() for channel in channels}
    order = sorted(about.channels or present, key=lambda i: (not is_enhanced_t1(about.channels.get(i, "")), i))
    given = {"image_files": list(image_files), "label_file": label_file}
    problems = [*about.problems, *unused(folder, given, NO_PATTERNS), *_channel_problems(about, order, present)]
    places = [Path("imagesTr", case) for case in sorted({*images["imagesTr"], *labels})]
    places += [Path("imagesTs", case) for case in sorted(images["imagesTs"])]
    files = [
        CaseFiles(
            name=place.name,
            folder=folder / place.parent,
            images=tuple(images[place.parent.name].get(place.name, {}).get(i, []) for i in order),
            labels=labels.get(place.name, []) if place.parent.name == "imagesTr" else None,
        )
        for place in places
    ]
    cohort, found = cohort_of(folder, about.description, files)
    return cohort, problems + found


def _by_case(folder: Path, numbered: bool) -> dict[str, dict[int, list[Path]]]:
    """Files by case and channel; where files are not ``numbered``, four digits at the end are part of the name."""
    cases: dict[str, dict[int, list[Path]]] = defaultdict(lambda: defaultdict(list))
    for path in volumes_in(folder):
        channel = CHANNEL.fullmatch(stem(path.name)) if numbered else None
        case, number = (channel[1], int(channel[2])) if channel else (stem(path.name), 0)
        cases[case][number].append(path)
    return cases


def _about(path: Path) -> _About:
    if not path.is_file():
        return _About(path)
    try:
        content = read_json(path)
        channels = content.get("channel_names", content.get("modality", {}))
        names = {int(number): fact(name) or "" for number, name in channels.items()}
        labels, description = content.get("labels", {}), fact(content.get("description")) or ""
        if len(names) < len(channels):
            raise ValueError(f"channels {', '.join(channels)}")
    except CohortError as error:
        return _About(path, problems=error.problems)
    except (ValueError, AttributeError) as error:
        expected = 'JSON with "channel_names" or "modality" by number, and texts'
        return _About(path, problems=[Problem("-", str(path), f"{error}", expected, "repair the file")])
    problems = []
    if content.get("file_ending", SUFFIXES[0]) not in SUFFIXES:
        found = f"file_ending {content['file_ending']!r}"
        problems = [Problem("-", str(path), found, "NIfTI: .nii.gz or .nii", "convert the files")]
    described = [description, f"nnU-Net labels: {json.dumps(labels)}" if labels else ""]
    return _About(path, ". ".join(filter(None, described)), names, problems)


def _channel_problems(about: _About, order: list[int], present: set[int]) -> list[Problem]:
    problems = []
    first = about.channels.get(order[0], "") if order else ""
    if (len(order) > 1 and not is_enhanced_t1(first)) or is_plain(first):
        found = f"channels {[about.channels.get(i, i) for i in order]}; the first is used"
        fix = 'name the contrast-enhanced T1 in "channel_names"'
        expected = "a channel named as contrast-enhanced T1 (T1c, T1ce, T1Gd ...)"
        problems.append(Problem("-", str(about.path), found, expected, fix, "warning"))
    if present - set(order):
        found = f"files of channels {sorted(present - set(order))}, which are not read"
        fix = 'name them in "channel_names", or remove them'
        problems.append(Problem("-", str(about.path), found, "the channels of dataset.json only", fix, "warning"))
    return problems
