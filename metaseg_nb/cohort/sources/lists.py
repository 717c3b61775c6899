"""Datalists: their entries, what is wrong with them, and the cohort and the folds of one or several lists."""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, ValidationError

from metaseg_nb.cohort.cases import Case, Cohort, LesionRule
from metaseg_nb.cohort.file_kinds import file_kind
from metaseg_nb.cohort.problems import CohortError, Problem, broken, refusal
from metaseg_nb.cohort.sources import spelling
from metaseg_nb.cohort.sources.naming import is_volume, name_of, primary_of
from metaseg_nb.cohort.sources.spelling import fact, located, read_json, spelled_path, tidy, well_named

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


def _on_one_line(text: Any) -> str:
    """Text without line breaks and control characters; empty where it means that it is not known."""
    text = "".join(" " if spelling.unwritable(character) else character for character in str(text or ""))
    return fact(" ".join(text.split())) or ""


ListedPath = Annotated[str, AfterValidator(_path)]
Mask = Annotated[ListedPath | None, BeforeValidator(lambda path: None if path == "" else path)]
Several = BeforeValidator(lambda image: image if isinstance(image, list) else [image])
Text = Annotated[str | None, BeforeValidator(fact)]
Id = Annotated[str | None, BeforeValidator(_id)]
OneLine = Annotated[str, BeforeValidator(_on_one_line)]
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

    name: OneLine = ""
    description: OneLine = ""
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
    """A datalist without the entries that cannot be read: these are ``problems``. ``facts`` are those of a `Cohort`."""

    path: Path
    problems: list[Problem]
    facts: dict[str, Any]
    entries: list[Entry] = field(default_factory=list)


def read_entries(path: Path) -> Datalist:
    """Read a Decathlon / MONAI datalist with any of ``training``, ``validation`` and ``testing``."""
    try:
        content = _content(path)
    except CohortError as error:
        return Datalist(path, error.problems, {"name": path.parent.name, "description": ""})
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
    facts = read.model_dump(include={"name", "description", "seed", "folds_by"}) | {"rule": rule}
    return Datalist(path, problems, facts | {"name": read.name or path.parent.name}, entries)


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
        problems = {}
        for each in error.errors():
            key, expected = str(each["loc"][0]), PLAIN.get(each["type"]) or PYDANTIC.sub("", each["msg"])
            found = f"{key} {content[key]!r:.80}" if key in content else f"no {key}"
            problems[key] = Problem(place, str(path), found, expected, f'correct "{key}"')
    return None, problems


def read_lists(
    paths: Sequence[Path], image_root: Path | None = None, exclude: Sequence[str] = ()
) -> tuple[Cohort, list[Problem]]:
    """Read datalists as one cohort; nothing but the JSON files is opened.

    Files are found by `located`. Cases are the same when their first image is. An entry's ``case`` is
    its name, otherwise its path names it (`name_of`); a primary that is not listed is read from the path, a patient
    stays empty (`with_patients`). Where others have a fold, an entry with ``reader`` and without a fold was labelled by
    hand later: it is only for training.

    Two or more lists that name validation cases are the folds: each case is tested in the fold of the one list that
    validates on it, and folds are numbered in the order of the lists. Cases in ``exclude`` are not held against them.

    Returns
    -------
    cohort : Cohort
        In the order of the lists.
    problems : list of Problem
        Lists and entries that cannot be read, repeated or contradictory entries, training entries without label;
        cases that no list validates on, or more than one.
    """
    lists = [read_entries(path) for path in paths]
    groups: dict[str, list[Entry]] = defaultdict(list)
    for entry in (entry for datalist in lists for entry in datalist.entries):
        groups[os.path.realpath(located(entry.first, entry.datalist.parent, image_root))].append(entry)
    every = [(_case(group, image_root), group) for group in groups.values()]
    cases, unnamed = well_named([case for case, _ in every], 'give the entry another name: "case"')
    problems = [problem for datalist in lists for problem in datalist.problems]
    whole = not problems and all(problem.case in exclude for problem in unnamed)
    problems += [problem for case, group in every for problem in _entry_problems(case.name, group)] + unnamed
    # a list in which nothing can be read may be one of validation
    folds = [each.path for each in lists if not each.entries or any(e.part == "validation" for e in each.entries)]
    if len(folds) > 1:
        tested = [case for case in cases if case.label and case.name not in exclude]
        # of equal names the first counts
        of = {case.name: [e.datalist for e in group if e.part == "validation"] for case, group in reversed(every)}
        fold_of, found = _folds(folds, {case.name: of[case.name] for case in tested})
        problems += found
        fold_of = fold_of if whole else {}  # a list that could not be read whole may hold other cases
        cases = [replace(case, fold=fold_of.get(case.name)) if case.label else case for case in cases]
    return Cohort.of(cases=cases, **lists[0].facts), problems


def _folds(lists: Sequence[Path], validated: Mapping[str, list[Path]]) -> tuple[dict[str, int], list[Problem]]:
    """Fold of each case, from the lists that validate on it; none where anything is wrong."""
    problems = []
    for name, of in validated.items():
        if len(set(of)) != 1:
            held = f"in the validation lists of {' and '.join(path.name for path in dict.fromkeys(of))}"
            found = held if of else "in no validation list"
            problems.append(broken("one validation list", name, of[0] if of else "-", found))
    if problems or any(len(of) > 1 for of in validated.values()):
        return {}, problems
    return {name: lists.index(path) for name, (path,) in validated.items()}, []


def _case(group: Sequence[Entry], image_root: Path | None) -> Case:
    given = {key: value for entry in reversed(group) for key, value in entry.given.items()}  # the first entry counts
    listed = Path(spelled_path(group[0].first))
    name = given.pop("case", None) or tidy(name_of(listed))
    images = tuple(located(image, group[0].datalist.parent, image_root) for image in group[0].image if image)
    lacking = tuple(number for number, image in enumerate(group[0].image, 1) if image is None)
    labels = [(entry.label, entry.datalist.parent) for entry in group if entry.label and entry.part != "testing"]
    brains = [(entry.brain, entry.datalist.parent) for entry in group if entry.brain]
    label, brain = (located(*of[0], image_root) if of else None for of in (labels, brains))
    given = {"patient": "", "primary": tidy(primary_of(listed)), **given}
    return Case(name, images, label, brain=brain, lacking=lacking, **given)


def _entry_problems(name: str, group: Sequence[Entry]) -> Iterator[Problem]:
    """What is wrong with the entries of one case: repeated, contradictory, without label, or with one not read."""
    for datalist, times in Counter(entry.datalist for entry in group).items():
        if times > 1:
            parts = dict.fromkeys(entry.part for entry in group if entry.datalist == datalist)
            yield broken("once in a list", name, datalist, f"listed {times} times, in {' and '.join(parts)}")
    given: dict[str, set[str]] = defaultdict(set)
    for entry in group:
        paths = ("label", [entry.label]), ("brain", [entry.brain]), ("image", entry.image)
        listed = {key: ", ".join(os.path.normpath(path or "null") for path in of) for key, of in paths if any(of)}
        for key, value in (entry.given | listed).items():
            given[key].add(str(value))
    for key, values in given.items():
        if len(values) > 1:
            found = f"{key} {' and '.join(sorted(values))}"
            yield broken("same in entries", name, group[-1].datalist, found, key=key)
    wanted = [entry for entry in group if entry.part != "testing"]
    labelled = any(entry.label for entry in wanted or group)
    if wanted and not labelled:
        yield broken("label in training", name, group[0].datalist, f"no label in {wanted[0].part}")
    if labelled and not wanted:
        yield broken("no label in testing", name, group[0].datalist, "a label in testing, which is not read")
