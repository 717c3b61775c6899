"""nnU-Net raw data sets: ``imagesTr/<case>_0000.nii.gz``, ``labelsTr/<case>.nii.gz``, ``imagesTs``, ``dataset.json``.

As nnU-Net's documentation has it, version 1 (``modality``) and 2 (``channel_names``). The folders
of Medical Segmentation Decathlon, whose images have no channel number, are read too.
"""

import json
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from metaseg_nb.cohort.cases import Cohort
from metaseg_nb.cohort.problems import CohortError, Problem, unused
from metaseg_nb.cohort.sources.case_files import CaseFiles, cohort_of
from metaseg_nb.cohort.sources.naming import is_enhanced_t1, is_plain, volumes_in
from metaseg_nb.cohort.sources.spelling import SUFFIXES, fact, stem
from metaseg_nb.cohort.sources.text_files import read_json

NO_PATTERNS = "no file patterns for nnU-Net, whose names are fixed"
CHANNEL = re.compile(r"(.+)_(\d{4})")


def is_nnunet(folder: Path) -> bool:
    """Whether a folder has nnU-Net's training images."""
    return (folder / "imagesTr").is_dir()


def read_nnunet(folder: Path, image_files: Sequence[str] = (), label_file: str = "") -> tuple[Cohort, list[Problem]]:
    """Read a data set; its channels are the sequences.

    The first is the channel that ``dataset.json`` names as a contrast-enhanced T1;
    without one the channels keep their order, with a warning if there are several. ``imagesTs`` are
    unlabelled. ``image_files`` and ``label_file`` mean nothing here and are a problem.
    """
    problems = unused(folder, {"image_files": list(image_files), "label_file": label_file}, NO_PATTERNS)
    description, channels = "", {}
    try:
        description, channels = _contents(folder / "dataset.json", problems)
    except CohortError as error:
        problems += error.problems
    labels = defaultdict(list)
    for path in volumes_in(folder / "labelsTr"):
        labels[stem(path.name)].append(path)
    stems = {stem(path.name) for path in volumes_in(folder / "imagesTr")}
    numbered = any(name.endswith("_0000") and name not in labels for name in stems)
    images = {part: _by_case(folder / part, numbered) for part in ("imagesTr", "imagesTs")}
    present = {channel for cases in images.values() for files in cases.values() for channel in files}
    order = sorted(channels or present, key=lambda i: (not is_enhanced_t1(channels.get(i, "")), i))
    problems += _channel_problems(folder / "dataset.json", channels, order, present - set(order))
    files = [
        CaseFiles(
            name=case,
            folder=folder / part,
            images=tuple(images[part].get(case, {}).get(i, []) for i in order),
            labels=labels.get(case, []) if part == "imagesTr" else None,
        )
        for part, cases in (("imagesTr", {*images["imagesTr"], *labels}), ("imagesTs", images["imagesTs"]))
        for case in sorted(cases)
    ]
    cohort, found = cohort_of(folder, description, files)
    return cohort, problems + found


def _by_case(folder: Path, numbered: bool) -> dict[str, dict[int, list[Path]]]:
    """Files by case and channel; where files are not ``numbered``, four digits at the end are part of the name."""
    cases: dict[str, dict[int, list[Path]]] = defaultdict(lambda: defaultdict(list))
    for path in volumes_in(folder):
        channel = CHANNEL.fullmatch(stem(path.name)) if numbered else None
        case, number = (channel[1], int(channel[2])) if channel else (stem(path.name), 0)
        cases[case][number].append(path)
    return cases


def _contents(path: Path, problems: list[Problem]) -> tuple[str, dict[int, str]]:
    """Description and names of the channels; what else is wrong is added to ``problems``."""
    content = read_json(path) if path.is_file() else {}
    try:
        channels = content.get("channel_names", content.get("modality", {}))
        names = {int(number): fact(name) or "" for number, name in channels.items()}
        labels, described = content.get("labels", {}), fact(content.get("description"))
        if len(names) < len(channels):
            raise ValueError(f"channels {', '.join(channels)}")
    except (ValueError, AttributeError) as error:
        expected = 'JSON with "channel_names" or "modality" by number, and texts'
        raise CohortError.one("-", path, f"{error}", expected, "repair the file") from error
    if (ending := content.get("file_ending", SUFFIXES[0])) not in SUFFIXES:
        found, expected = f"file_ending {ending!r}", "NIfTI: .nii.gz or .nii"
        problems.insert(0, Problem("-", str(path), found, expected, "convert the files"))
    return ". ".join(filter(None, [described, labels and f"nnU-Net labels: {json.dumps(labels)}"])), names


def _channel_problems(path: Path, channels: Mapping[int, str], order: list[int], unread: set[int]) -> list[Problem]:
    problems = []
    first = channels.get(order[0], "") if order else ""
    if (len(order) > 1 and not is_enhanced_t1(first)) or is_plain(first):
        found = f"channels {[channels.get(i, i) for i in order]}; the first is used"
        fix = 'name the contrast-enhanced T1 in "channel_names"'
        expected = "a channel named as contrast-enhanced T1 (T1c, T1ce, T1Gd ...)"
        problems.append(Problem("-", str(path), found, expected, fix, "warning"))
    if unread:
        found, expected = f"files of channels {sorted(unread)}, which are not read", "the channels of dataset.json only"
        fix = 'name them in "channel_names", or remove them'
        problems.append(Problem("-", str(path), found, expected, fix, "warning"))
    return problems
