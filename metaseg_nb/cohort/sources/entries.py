"""The entries of one datalist, and what is wrong with the file."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metaseg_nb.cohort.cases import LesionRule
from metaseg_nb.cohort.problems import CohortError, Problem
from metaseg_nb.cohort.sources.case_files import USABLE, file_kind, unusable
from metaseg_nb.cohort.sources.naming import is_volume
from metaseg_nb.cohort.sources.spelling import fact, means_unknown, misspelt, unwritable
from metaseg_nb.cohort.sources.text_files import read_json

# Decathlon calls its testing list "test".
PARTS = {"training": "training", "validation": "validation", "testing": "testing", "test": "testing"}
NAMED = 'entries in lists named "training", "validation" or "testing"'
TEXTS, NUMBERS = ("case", "patient", "primary", "scanner", "date"), ("fold", "n_lesions")
KEYS = ("image", "label", *TEXTS, *NUMBERS)
# Bytes of a name on usual file systems.
LONGEST_NAME = 255
UNKNOWN_ID = 'an id, or null; NA, unknown, "-" and the like may mean "not known"'
PATH = f"a path without control characters, of names of at most {LONGEST_NAME} bytes"


@dataclass(frozen=True)
class Entry:
    """One line of a datalist: paths as listed, and in ``given`` its other values that are known.

    ``part`` is "training", "validation" or "testing".
    """

    datalist: Path
    part: str
    images: tuple[str, ...]
    label: str | None
    given: Mapping[str, Any]


@dataclass(frozen=True)
class Datalist:
    """A datalist without the entries that cannot be read: these are ``problems``."""

    path: Path
    name: str
    description: str
    rule: LesionRule
    seed: int
    entries: list[Entry]
    problems: list[Problem]

    @property
    def validates(self) -> bool:
        """Whether the list names validation cases, or may: none of its entries can be read."""
        return not self.entries or any(entry.part == "validation" for entry in self.entries)


class _Wrong(ValueError):
    """Found, expected, what to do."""


def read_entries(path: Path) -> Datalist:
    """Read a Decathlon / MONAI datalist with any of ``training``, ``validation`` and ``testing``."""
    try:
        content = _content(path)
    except CohortError as error:
        return Datalist(path, path.parent.name, "", LesionRule(), 0, [], error.problems)
    name, description = (fact(_printable(content.get(key))) or "" for key in ("name", "description"))
    rule, seed, problems = _rule_and_seed(content, path)
    for key in _other_lists(content):
        problems.append(Problem("-", str(path), f"entries under {key}", NAMED, "rename the list"))
    entries, renamed = [], {}
    for key in [key for key in PARTS if key in content]:
        if not isinstance(content[key], list):
            found = f'"{key}": {content[key]!r:.80}'
            problems.append(Problem("-", str(path), found, "a list of entries", f'make "{key}" a list'))
            continue
        for i, listed in enumerate(content[key]):
            renamed |= misspelt(listed, KEYS) if isinstance(listed, dict) else {}
            try:
                entries.append(_entry(listed, PARTS[key], path))
            except _Wrong as error:
                problems.append(Problem(f"{key}[{i}]", str(path), *error.args))
    for key, meant in renamed.items():
        problems.append(Problem("-", str(path), f'"{key}" in entries', f'"{meant}"', f'rename it to "{meant}"'))
    return Datalist(path, name or path.parent.name, description, rule, seed, entries, problems)


def _content(path: Path) -> Mapping[str, Any]:
    def refusal(found: str, fix: str, expected: str = "a datalist (JSON)") -> CohortError:
        return CohortError.one("-", path, found, expected, fix)

    if path.is_dir():
        raise refusal("a folder", "give the lists: folders are not compared")
    if not path.is_file():
        raise refusal("no such file", "correct the path")
    if is_volume(path):
        raise refusal("a NIfTI file", "give a list or folder of the NIfTI files")
    if kind := file_kind(path):
        raise refusal(kind.name, f"{kind.fix}; then give a list or folder of the NIfTI files")
    content = read_json(path)
    if not isinstance(content, dict):
        raise refusal(f"no entries, but a {type(content).__name__}", "see the README", 'an object with "training"')
    if not any(content.get(key) for key in PARTS) and not _other_lists(content):
        found = f"no entries, but {', '.join(map(repr, content)) or 'nothing'}"
        raise refusal(found[:200], "add the entries, or give another file", NAMED)
    return content


def _other_lists(content: Mapping[str, Any]) -> list[str]:
    """Keys of lists that look like entries, under names that are not read."""
    lists = [key for key, value in content.items() if key not in PARTS and isinstance(value, list)]
    return [key for key in lists if any(isinstance(entry, dict) and "image" in entry for entry in content[key])]


def _rule_and_seed(content: Mapping[str, Any], path: Path) -> tuple[LesionRule, int, list[Problem]]:
    """Rule and seed of a list; what is wrong with them takes its default."""
    values, others = content.get("lesion_values", [1]), content.get("other_values", [])
    threshold, seed = content.get("label_threshold", 0.0), content.get("seed", 0)
    found = {}
    if not values or not all(isinstance(of, list) and all(_is_whole(v, 1) for v in of) for of in (values, others)):
        found[f"lesion_values {values!r:.80}, other_values {others!r:.80}"] = "lists of whole numbers from 1 on"
    elif both := set(values) & set(others):
        found[f"{sorted(both)} in lesion_values and in other_values"] = "each value in one of them"
    elif isinstance(threshold, bool) or not isinstance(threshold, int | float) or not 0 <= threshold < math.inf:
        found[f"label_threshold {threshold!r:.80}"] = "a number from 0 on"
    rule = LesionRule() if found else LesionRule(tuple(values), tuple(others), threshold)
    if not _is_whole(seed, 0):
        found[f"seed {seed!r:.80}"], seed = "a whole number from 0 on", 0
    problems = [Problem("-", str(path), what, expected, "correct it in the list") for what, expected in found.items()]
    return rule, seed, problems


def _entry(listed: Any, part: str, path: Path) -> Entry:
    # Decathlon's testing list holds bare paths
    entry = {"image": listed} if isinstance(listed, str) else listed
    if not isinstance(entry, dict):
        raise _Wrong(f"{entry!r:.80}", 'an object with "image"', "correct the entry")
    images, label = entry.get("image"), entry.get("label")
    images = images if isinstance(images, list) else [images]
    if not images or not all(isinstance(image, str) and image for image in images):
        raise _Wrong(f"{entry!r:.80}", "an image: a path or a list of paths", 'correct "image"')
    label = None if label == "" or (isinstance(label, float) and math.isnan(label)) else label
    if label is not None and not isinstance(label, str):
        raise _Wrong(f"label {label!r:.80}", "a path", 'correct "label": one mask for a case')
    for listed_path in [*images, *([label] if label else [])]:
        if unwritable(listed_path) or any(len(name.encode()) > LONGEST_NAME for name in listed_path.split("/")):
            raise _Wrong(f"the path {listed_path!r:.80}", PATH, "correct the path")
    given = {key: _text(key, entry.get(key)) for key in TEXTS} | {key: entry.get(key) for key in NUMBERS}
    given = {key: value for key, value in given.items() if value is not None}
    if "case" in given and unusable(given["case"]):
        raise _Wrong(f"case {given['case']!r:.80}", USABLE, 'correct "case"')
    for key in NUMBERS:
        if key in given and not _is_whole(given[key]):
            raise _Wrong(f"{key} {given[key]!r:.80}", f"a whole number or no {key}", f'correct "{key}"')
    return Entry(path, part, tuple(images), label, given)


def _text(key: str, value: Any) -> str | None:
    """Text of a key; null, NaN and empty texts are None."""
    if key in ("case", "patient") and isinstance(value, str) and means_unknown(value):
        raise _Wrong(f"{key} {value!r}", UNKNOWN_ID, f'write null where it is not known, or change "{key}"')
    try:
        return fact(value)
    except ValueError as error:
        raise _Wrong(f"{key} {error}", "text or a number", f'correct "{key}"') from None


def _printable(value: Any) -> str:
    """Text on one line, without control characters."""
    return " ".join("".join(" " if unwritable(character) else character for character in str(value or "")).split())


def _is_whole(value: Any, lowest: float = -math.inf) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= lowest
