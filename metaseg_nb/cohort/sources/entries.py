"""The entries of one datalist, and what is wrong with the file."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, ValidationError

from metaseg_nb.cohort.cases import LesionRule
from metaseg_nb.cohort.file_kinds import file_kind
from metaseg_nb.cohort.problems import CohortError, Problem, broken, refusal
from metaseg_nb.cohort.sources import spelling
from metaseg_nb.cohort.sources.naming import is_volume
from metaseg_nb.cohort.sources.spelling import fact, read_json

# Decathlon calls its testing list "test".
PARTS = {"training": "training", "validation": "validation", "testing": "testing", "test": "testing"}
# What pydantic puts before what it expects.
PYDANTIC = re.compile("^(Value error, |Input should be )")
# And what it says in a programmer's words, by the type of its error.
PLAIN = {"missing": "this key", "too_short": "at least one of them"}
PATH = "a path without control characters"
LISTED = "give a datalist of the NIfTI files (as `cohort`, their folder will do, too)"
NO_ID = 'an id; or null if it is not known, instead of NA, unknown, "-" and the like'


def _path(path: str) -> str:
    if not path or spelling.unwritable(path):
        raise ValueError(PATH)
    return path


def _first_there(images: list[str | None]) -> list[str | None]:
    if images[0] is None:
        raise ValueError("a path of the first sequence: only others may be null")
    return images


def _id(value: Any) -> str | None:
    if isinstance(value, str) and spelling.means_unknown(value):
        raise ValueError(NO_ID)
    return fact(value)


def _case_name(name: str | None) -> str | None:
    if name is not None and not spelling.usable(name):
        raise ValueError(spelling.USABLE)
    return name


ListedPath = Annotated[str, AfterValidator(_path)]
Mask = Annotated[ListedPath | None, BeforeValidator(lambda path: None if path == "" else path)]
Several = BeforeValidator(lambda image: image if isinstance(image, list) else [image])
Text = Annotated[str | None, BeforeValidator(fact)]
Id = Annotated[str | None, BeforeValidator(_id)]
Model = TypeVar("Model", bound=BaseModel)
LabelValues = list[Annotated[int, Field(ge=1)]]


class Entry(BaseModel, strict=True, frozen=True):
    """One line of a datalist: paths as listed (``image``: sequences, None for a missing one), and what else it gives.

    ``part`` is "training", "validation" or "testing".
    """

    datalist: Path
    part: str
    image: Annotated[list[ListedPath | None], Field(min_length=1), Several, AfterValidator(_first_there)]
    label: Mask = None
    brain: Mask = None
    case: Annotated[Id, AfterValidator(_case_name)] = None
    patient: Id = None
    primary: Text = None
    site: Text = None
    scanner: Text = None
    date: Text = None
    day: Annotated[int, Field(ge=0)] | None = None
    fold: int | None = None
    n_lesions: int | None = None
    reader: Text = None
    minutes: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    begun_with: Text = None
    n_lesions_before: int | None = None

    @property
    def first(self) -> str:
        """The path of the first sequence."""
        return str(self.image[0])

    @property
    def given(self) -> dict[str, Any]:
        """The values beside the paths that are known."""
        return self.model_dump(exclude={"datalist", "part", "image", "label", "brain"}, exclude_none=True)


class _Content(BaseModel, strict=True):
    """The keys of a datalist that are read."""

    training: list = []
    validation: list = []
    testing: list = []
    test: list = []
    lesion_values: Annotated[LabelValues, Field(min_length=1)] = [1]
    other_values: LabelValues = []
    label_threshold: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    seed: Annotated[int, Field(ge=0)] = 0
    folds_by: Literal["patient", "site"] = "patient"


@dataclass(frozen=True)
class Datalist:
    """A datalist without the entries that cannot be read: these are ``problems``."""

    path: Path
    problems: list[Problem]
    name: str = ""
    description: str = ""
    rule: LesionRule = field(default_factory=LesionRule)
    seed: int = 0
    folds_by: str = "patient"
    entries: list[Entry] = field(default_factory=list)


def read_entries(path: Path) -> Datalist:
    """Read a Decathlon / MONAI datalist with any of ``training``, ``validation`` and ``testing``."""
    try:
        content = _content(path)
    except CohortError as error:
        return Datalist(path, error.problems, path.parent.name)
    read, wrong = read_keys(_Content, content, "-", path)
    read = read or _Content.model_validate({key: value for key, value in content.items() if key not in wrong})
    problems = list(wrong.values())
    for key in _unread(content):
        problems.append(broken("names of lists", "-", path, f"entries in list {key}"))
    entries, renamed = [], {}
    for key, part in PARTS.items():
        for i, listed in enumerate(getattr(read, key)):
            listed = listed if isinstance(listed, dict) else {"image": listed}  # Decathlon's testing list: bare paths
            renamed |= spelling.misspelt(listed, tuple(Entry.model_fields))
            entry, wrong = read_keys(Entry, listed | {"datalist": path, "part": part}, f"{key}[{i}]", path)
            problems += list(wrong.values())[:1]
            entries += [entry] if entry else []
    for key, meant in renamed.items():
        problems.append(broken("name of key", "-", path, f'"{key}" in entries', meant=meant))
    rule = LesionRule(tuple(read.lesion_values), tuple(read.other_values), read.label_threshold)
    name, description = (_on_one_line(content.get(key)) for key in ("name", "description"))
    return Datalist(path, problems, name or path.parent.name, description, rule, read.seed, read.folds_by, entries)


def _content(path: Path) -> Mapping[str, Any]:
    kind = file_kind(path)
    if path.is_dir() or is_volume(path) or kind:
        found = kind.name if kind else "a folder" if path.is_dir() else "a NIfTI file"
        fix = f"{kind.fix}; then {LISTED}" if kind else LISTED
    elif not path.is_file():
        found, fix = "no such file", "correct the path"
    else:
        content = read_json(path)
        if isinstance(content, dict) and (any(content.get(key) for key in PARTS) or _unread(content)):
            return content
        keys = ", ".join(map(repr, content)) if isinstance(content, dict) else f"a {type(content).__name__}"
        found, fix = f"no entries, but {keys or 'an empty object'}"[:200], "add the entries, or give another file"
    raise refusal("datalist", "-", path, found, fix)


def _unread(content: Mapping[str, Any]) -> list[str]:
    """Keys of lists that look like entries, under names that are not read."""
    lists = [key for key, value in content.items() if key not in PARTS and isinstance(value, list)]
    return [key for key in lists if any(isinstance(entry, dict) and "image" in entry for entry in content[key])]


def read_keys(
    model: type[Model], content: Mapping[str, Any], place: str, path: Path
) -> tuple[Model | None, dict[str, Problem]]:
    """What a model reads of a content; or None, and a problem for each key whose value it refuses."""
    try:
        return model.model_validate(content), {}
    except ValidationError as error:
        expected = {
            str(each["loc"][0]): PLAIN.get(each["type"]) or PYDANTIC.sub("", each["msg"]) for each in error.errors()
        }
    found = {key: f"{key} {content[key]!r:.80}" if key in content else f"no {key}" for key in expected}
    return None, {
        key: Problem(place, str(path), found[key], text, f'correct "{key}"') for key, text in expected.items()
    }


def _on_one_line(text: Any) -> str:
    """Text without line breaks and control characters; empty where it means that it is not known."""
    text = "".join(" " if spelling.unwritable(character) else character for character in str(text or ""))
    return fact(" ".join(text.split())) or ""
