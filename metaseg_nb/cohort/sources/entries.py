"""The entries of one datalist, and what is wrong with the file."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metaseg_nb.cohort.cases import LesionRule
from metaseg_nb.cohort.problems import CohortError, Problem
from metaseg_nb.cohort.sources.case_names import USABLE, unusable
from metaseg_nb.cohort.sources.naming import is_volume
from metaseg_nb.cohort.sources.other_files import file_kind
from metaseg_nb.cohort.sources.strict import fact, means_unknown, misspelt, read_json, unwritable

# Decathlon calls its testing list "test".
PARTS = {"training": "training", "validation": "validation", "testing": "testing", "test": "testing"}
NAMED = 'entries in lists named "training", "validation" or "testing"'
TEXTS, NUMBERS = ("case", "patient", "primary", "scanner", "date"), ("fold", "n_lesions")
KEYS = ("image", "label", *TEXTS, *NUMBERS)
# Bytes of a name on usual file systems.
LONGEST_NAME = 255


@dataclass(frozen=True)
class Entry:
    """One line of a datalist: paths as listed, and in ``given`` what else it says, as far as it says something.

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


class _Wrong(ValueError):
    """Found, expected, what to do."""


def read_entries(path: Path) -> Datalist:
    """Read a Decathlon / MONAI datalist with any of ``training``, ``validation`` and ``testing``."""
    try:
        content = _content(path)
    except CohortError as error:
        return Datalist(path, path.parent.name, "", LesionRule(), 0, [], error.problems)
    about, problems = _about(content, path)
    problems += [
        Problem("-", str(path), f"entries under {key}", NAMED, "rename the list") for key in _other_lists(content)
    ]
    entries, keys = [], {}
    for key in [key for key in PARTS if key in content]:
        read, wrong = _part(content[key], key, path)
        entries += read
        problems += wrong
        for listed in content[key] if isinstance(content[key], list) else []:
            keys |= misspelt(listed, KEYS) if isinstance(listed, dict) else {}
    problems += [
        Problem("-", str(path), f'"{key}" in entries', f'"{meant}"', f'rename it to "{meant}"')
        for key, meant in keys.items()
    ]
    return Datalist(path, *about, entries, problems)


def _content(path: Path) -> Mapping[str, Any]:
    if path.is_dir():
        raise CohortError.one("-", path, "a folder", "a datalist (JSON)", "give the lists: folders are not compared")
    if not path.is_file():
        raise CohortError.one("-", path, "no such file", "a datalist (JSON)", "correct the path")
    if is_volume(path) or (kind := file_kind(path)):
        found = "a NIfTI file" if is_volume(path) else kind.name
        fix = "" if is_volume(path) else f"{kind.fix}; then "
        raise CohortError.one("-", path, found, "a datalist (JSON)", f"{fix}give a list or folder of the NIfTI files")
    content = read_json(path)
    if not isinstance(content, dict):
        found = f"no entries, but a {type(content).__name__}"
        raise CohortError.one("-", path, found, 'an object with "training"', "see the README")
    if not any(content.get(key) for key in PARTS) and not _other_lists(content):
        found = f"no entries, but {', '.join(map(repr, content)) or 'nothing'}"
        raise CohortError.one("-", path, found[:200], NAMED, "add the entries, or give another file")
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


def _about(content: Mapping[str, Any], path: Path) -> tuple[tuple[str, str, LesionRule, int], list[Problem]]:
    """Name, description, rule and seed; what is wrong with them takes its default."""
    values, others = content.get("lesion_values", [1]), content.get("other_values", [])
    threshold, seed = content.get("label_threshold", 0.0), content.get("seed", 0)
    texts, problems = {"name": "", "description": ""}, []
    for key in texts:
        try:
            texts[key] = " ".join((fact(" ".join(str(content.get(key) or "").split())) or "").split())
        except ValueError as error:
            problems.append(Problem("-", str(path), f'"{key}": {error}', "text", f'correct "{key}"'))
    rule = LesionRule()
    if not all(isinstance(given, list) and all(map(_is_count, given)) for given in (values, others)) or not values:
        found = f"lesion_values {values!r:.80}, other_values {others!r:.80}"
        problems.append(Problem("-", str(path), found, "lists of whole numbers from 1 on", "correct them in the list"))
    elif both := set(values) & set(others):
        found = f"{sorted(both)} in lesion_values and in other_values"
        problems.append(Problem("-", str(path), found, "each value in one of them", "correct them in the list"))
    elif not _is_number(threshold) or not 0 <= threshold < math.inf:
        found, expected = f"label_threshold {threshold!r:.80}", "a number from 0 on"
        problems.append(Problem("-", str(path), found, expected, "correct it in the list"))
    else:
        rule = LesionRule(tuple(values), tuple(others), threshold)
    if not (_is_count(seed) or seed == 0) or isinstance(seed, bool):
        problems.append(Problem("-", str(path), f"seed {seed!r:.80}", "a whole number from 0 on", 'correct "seed"'))
        seed = 0
    return (texts["name"] or path.parent.name, texts["description"], rule, seed), problems


def _part(listed: Any, key: str, path: Path) -> tuple[list[Entry], list[Problem]]:
    if not isinstance(listed, list):
        return [], [Problem("-", str(path), f'"{key}": {listed!r:.80}', "a list of entries", f'make "{key}" a list')]
    entries, problems = [], []
    for i, entry in enumerate(listed):
        try:
            entries.append(_entry(entry, PARTS[key], path))
        except _Wrong as error:
            problems.append(Problem(f"{key}[{i}]", str(path), *error.args))
    return entries, problems


def _entry(listed: Any, part: str, path: Path) -> Entry:
    # Decathlon's testing list holds bare paths
    entry = {"image": listed} if isinstance(listed, str) else listed
    if not isinstance(entry, dict):
        raise _Wrong(f"{entry!r:.80}", 'an object with "image"', "correct the entry")
    images = entry.get("image")
    images = images if isinstance(images, list) else [images]
    if not images or not all(isinstance(image, str) and image for image in images):
        raise _Wrong(f"{entry!r:.80}", "an image: a path or a list of paths", 'correct "image"')
    label = entry.get("label")
    label = None if label == "" or _is_nan(label) else label
    if label is not None and not isinstance(label, str):
        raise _Wrong(f"label {label!r:.80}", "a path", 'correct "label": one mask for a case')
    for listed_path in [*images, *([label] if label else [])]:
        if unwritable(listed_path) or any(len(name.encode()) > LONGEST_NAME for name in listed_path.split("/")):
            expected = f"a path without control characters, of names of at most {LONGEST_NAME} bytes"
            raise _Wrong(f"the path {listed_path!r:.80}", expected, "correct the path")
    return Entry(path, part, tuple(images), label, _given(entry))


def _given(entry: Mapping[str, Any]) -> dict[str, Any]:
    """What an entry says beside its files; null, NaN and empty texts say nothing."""
    given = {}
    for key in TEXTS:
        value = entry.get(key)
        if key in ("case", "patient") and isinstance(value, str) and means_unknown(value):
            expected = 'an id, or null; NA, unknown, "-" and the like may mean "not known"'
            raise _Wrong(f"{key} {value!r}", expected, f'write null where it is not known, or change "{key}"')
        try:
            given[key] = fact(value)
        except ValueError as error:
            raise _Wrong(f"{key} {error}", "text or a number", f'correct "{key}"') from None
    if given["case"] and unusable(given["case"]):
        raise _Wrong(f"case {given['case']!r:.80}", USABLE, 'correct "case"')
    for key in NUMBERS:
        given[key] = entry.get(key)
        if given[key] is not None and not (isinstance(given[key], int) and not isinstance(given[key], bool)):
            raise _Wrong(f"{key} {given[key]!r:.80}", f"a whole number or no {key}", f'correct "{key}"')
    return {key: value for key, value in given.items() if value is not None}


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)
