"""The entries of one datalist, and what is wrong with the file."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metaseg_nb.cohort.cases import LesionRule
from metaseg_nb.cohort.problems import CohortError, Problem

# Decathlon calls its testing list "test".
PARTS = {"training": "training", "validation": "validation", "testing": "testing", "test": "testing"}
NAMED = 'entries in lists named "training", "validation" or "testing"'


@dataclass(frozen=True)
class Entry:
    """One line of a datalist: paths as listed, and in ``given`` what else it says.

    ``part`` is "training", "validation" or "testing".
    """

    datalist: Path
    part: str
    images: tuple[str, ...]
    label: str | None
    given: Mapping[str, Any]


@dataclass(frozen=True)
class Datalist:
    """A datalist as it was written, but for the ``problems``: entries that could not be read are not there."""

    path: Path
    name: str
    description: str
    rule: LesionRule
    seed: int
    entries: list[Entry]
    problems: list[Problem]

    @property
    def validates(self) -> bool:
        """Whether the list names validation cases, or may, for nothing of it could be read."""
        return not self.entries or any(entry.part == "validation" for entry in self.entries)


def read_entries(path: Path) -> Datalist:
    """Read a Decathlon / MONAI datalist with any of ``training``, ``validation`` and ``testing``."""
    try:
        content = _content(path)
    except CohortError as error:
        return Datalist(path, path.parent.name, "", LesionRule(), 0, [], error.problems)
    rule, problems = _rule(content, path)
    problems += [
        Problem("-", str(path), f"entries under {key}", NAMED, "rename the list") for key in _other_lists(content)
    ]
    entries = []
    for key in [key for key in PARTS if key in content]:
        read, wrong = _part(content[key], key, path)
        entries += read
        problems += wrong
    seed, name = content.get("seed", 0), content.get("name", path.parent.name)
    return Datalist(path, str(name), str(content.get("description", "")), rule, seed, entries, problems)


def _content(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        raise CohortError.one("-", path, "no such file", "a datalist (JSON)", "correct `cohort` in the study file")
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CohortError.one("-", path, f"not JSON ({error})", "a datalist (JSON)", "repair the file") from error
    if not isinstance(content, dict):
        found = f"no entries, but a {type(content).__name__}"
        raise CohortError.one("-", path, found, 'an object with "training"', "see the README")
    if not any(content.get(key) for key in PARTS) and not _other_lists(content):
        found = f"no entries, but {', '.join(map(repr, content)) or 'nothing'}"
        raise CohortError.one("-", path, found, NAMED, "add the entries, or give another file")
    return content


def _other_lists(content: Mapping[str, Any]) -> list[str]:
    """Keys of lists that look like entries, under names that nobody reads."""
    return [
        key
        for key, value in content.items()
        if key not in PARTS
        and isinstance(value, list)
        and any(isinstance(entry, dict) and "image" in entry for entry in value)
    ]


def _rule(content: Mapping[str, Any], path: Path) -> tuple[LesionRule, list[Problem]]:
    values, others = content.get("lesion_values", [1]), content.get("other_values", [])
    if all(isinstance(given, list) and all(isinstance(value, int) for value in given) for given in (values, others)):
        return LesionRule(tuple(values), tuple(others), content.get("label_threshold", 0.0)), []
    found = f"lesion_values {values!r}, other_values {others!r}"
    return LesionRule(), [Problem("-", str(path), found, "lists of whole numbers", "correct them in the list")]


def _part(listed: Any, key: str, path: Path) -> tuple[list[Entry], list[Problem]]:
    if not isinstance(listed, list):
        return [], [Problem("-", str(path), f'"{key}": {listed!r:.80}', "a list of entries", f'make "{key}" a list')]
    entries, problems = [], []
    for i, entry in enumerate(listed):
        # Decathlon's testing list holds bare paths
        entry = {"image": entry} if isinstance(entry, str) else entry
        problem = _problem(entry, f"{key}[{i}]", path)
        if problem:
            problems.append(problem)
        else:
            label = entry.get("label") or None
            entries.append(Entry(path, PARTS[key], tuple(_images(entry)), label, entry))
    return entries, problems


def _problem(entry: Any, place: str, path: Path) -> Problem | None:
    if not isinstance(entry, dict):
        return Problem(place, str(path), f"{entry!r:.80}", 'an object with "image"', "correct the entry")
    images, label, fold = _images(entry), entry.get("label") or None, entry.get("fold")
    if not images or not all(isinstance(image, str) and image for image in images):
        expected = "an image: a path or a list of paths"
        return Problem(place, str(path), f"{entry!r:.80}", expected, 'correct "image"')
    if label is not None and not isinstance(label, str):
        return Problem(place, str(path), f"label {label!r:.80}", "a path", 'correct "label": one mask for a case')
    if "/" in str(entry.get("case", "")):
        return Problem(place, str(path), f"case {entry['case']!r}", "a name without /", 'correct "case"')
    if fold is not None and (not isinstance(fold, int) or isinstance(fold, bool)):
        return Problem(place, str(path), f"fold {fold!r:.80}", "a whole number or no fold", 'correct "fold"')
    return None


def _images(entry: Mapping[str, Any]) -> list[Any]:
    image = entry.get("image")
    return image if isinstance(image, list) else [image] if image else []
