"""Parameter files: where they are, what may stand in them, and how they are merged.

`resolve` merges the parameter files of a model, a fold, a study and an arm over a notebook's defaults, later files
winning, and refuses whatever no notebook understands.
"""

import ast
import difflib
import re
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import papermill
import yaml

from metaseg_nb.layout import NOTEBOOKS, parameter_file
from metaseg_nb.settings import KEYS, NOTEBOOK_SETTINGS, THRESHOLD_MODEL, Job, ParameterError, Settings


def model_title(model: str) -> str:
    """A model as figures and reports write it: ``title`` in its parameter file."""
    if model == THRESHOLD_MODEL:
        return "Intensity threshold"
    return read_parameters(parameter_file("model", model))["title"]


def arm_title(arm: str) -> str:
    """An arm as figures and reports write it: ``arm_title`` in its parameter file."""
    return read_parameters(parameter_file("arm", arm))["arm_title"]


def study_file(study: str) -> Path:
    """File of a study, given by its name in ``params/studies`` or as a path to a YAML file."""
    return _existing(Path(study), "study") if study.endswith((".yaml", ".yml")) else _parameter_file("study", study)


def read_parameters(path: Path) -> dict[str, Any]:
    """Read one flat parameter file, refusing keys that no notebook declares, or that stand there twice."""
    try:
        values = yaml.load(path.read_bytes(), _PlainYaml) or {}
    except (yaml.YAMLError, RecursionError) as error:
        raise ParameterError(f"{path}: not YAML ({error})") from error
    if not isinstance(values, dict):
        raise ParameterError(f"{path}: found a {type(values).__name__}, expected `key: value` lines")
    problems = [_unknown_key(path, key) for key in values if key not in KEYS]
    if problems:
        raise ParameterError("\n".join(problems))
    return values


class _PlainYaml(yaml.SafeLoader):
    """Reads what a person would: 010 is not 8, 1:30 not 90, no not false, a date no date; all these stay text.

    Numbers are decimal, as in YAML 1.2, but for leading zeros: they are octal to papermill, and so no number here. Of
    two equal keys YAML takes the later, which its writer may not have meant.
    """

    yaml_implicit_resolvers: ClassVar = {}

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep) for key, _ in node.value]
        twice = sorted({str(key) for key in keys if keys.count(key) > 1})
        if twice:
            raise yaml.YAMLError(f"key {', '.join(twice)} stands there more than once")
        return super().construct_mapping(node, deep)


for tag, pattern, first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?(0|[1-9][0-9]*)", list("-+0123456789")),
    ("float", r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?", list("-+.0123456789")),
):
    _PlainYaml.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(f"^({pattern})$"), first)


def resolve(
    notebook: str, study: str, model: str | None = None, fold: int | None = None, arm: str = "", seed: int | None = None
) -> dict[str, Any]:
    """Parameters of one notebook: its defaults, then model, fold, study and arm files and the seed, the later winning.

    Raises
    ------
    ParameterError
        Unknown notebook, missing file, unknown key, wrong type or impossible value.
    """
    if notebook not in NOTEBOOK_SETTINGS:
        raise ParameterError(f"no notebook {notebook!r}; expected one of {', '.join(NOTEBOOK_SETTINGS)}")
    settings = NOTEBOOK_SETTINGS[notebook]
    _require_what_it_takes(notebook, settings, model=model, fold=fold, arm=arm or None, seed=seed)
    files, asked = [study_file(study)], {}
    if model is not None:
        files = [_parameter_file("model", model), _parameter_file("fold", f"fold{fold}"), *files]
        asked = {"model": model, "fold": fold}
    if "arm" in settings.model_fields:
        files += [_parameter_file("arm", arm)] if arm else []
        asked["arm"] = arm
    said, origin = _merge(files, settings)
    values = _defaults(notebook) | said | ({} if seed is None else {"seed": seed})
    _require_identity(values, origin, study_file(study), asked)
    if arm:
        _require_no_circle(arm)
    return settings.check(values, origin).model_dump()


def _require_no_circle(arm: str) -> None:
    """An arm must not be taught by itself, be it through other arms."""
    chain = [arm]
    while teacher := read_parameters(_existing(parameter_file("arm", chain[-1]), "arm")).get("teacher", ""):
        if teacher in chain:
            file, order = parameter_file("arm", chain[-1]), ", which learns from ".join([*chain, teacher])
            expected = "an arm that is trained before, without help of this one"
            raise ParameterError(f"{file}: key 'teacher': found {teacher!r}; expected: {expected} ({order})")
        chain.append(teacher)


def _require_what_it_takes(notebook: str, settings: type[Settings], **given: Any) -> None:
    """Refuse what a notebook has no use for, and the lack of what it needs."""
    trains = "model" in settings.model_fields
    missing = [name for name in ("model", "fold") if trains and given[name] is None]
    useless = [
        name for name, value in given.items() if value is not None and not (trains and name in settings.model_fields)
    ]
    if missing:
        raise ParameterError(f"{notebook} trains one network on one fold: give --model and --fold")
    if useless:
        raise ParameterError(f"{notebook} takes no {' and no '.join(f'--{name}' for name in useless)}")


def _parameter_file(kind: str, name: str) -> Path:
    return _existing(parameter_file(kind, name), kind)


def job_resources(study: str, model: str | None = None) -> Job:
    """What the jobs of a study ask a cluster for; a study's file wins over a model's, as in `resolve`.

    Raises
    ------
    ParameterError
        As `resolve`.
    """
    files = [study_file(study)]
    if model:
        files.insert(0, _parameter_file("model", model))
    values, origin = _merge(files, Job)
    return Job.check(values, origin)


def _merge(files: Iterable[Path], settings: type[Settings]) -> tuple[dict[str, Any], dict[str, str]]:
    """Values of one kind of settings, later files winning, and the file that each came from."""
    values, origin = {}, {}
    for path in files:
        for key, value in read_parameters(path).items():
            if key in settings.model_fields:
                values[key], origin[key] = value, str(path)
    return values, origin


def _require_identity(
    values: Mapping[str, Any], origin: Mapping[str, str], study: Path, asked: Mapping[str, Any]
) -> None:
    """Results go where these keys say: each must come from its own file and say what was asked for."""
    if origin.get("study") != str(study):
        raise ParameterError(f"{study}: key 'study' is missing; it names the folder under runs/ that results go to")
    for key, value in asked.items():
        if values[key] != value:
            where = origin.get(key, "the notebook")
            raise ParameterError(
                f"{where}: key {key!r}: found {values[key]!r}; expected: {value!r}, which was asked for"
            )
    for key in ("title", "network") if asked else ():
        if key not in origin:  # the notebook's own would be another model's
            raise ParameterError(f"{parameter_file('model', asked['model'])}: key {key!r} is missing")


@cache
def _defaults(notebook: str) -> dict[str, Any]:
    declared = papermill.inspect_notebook(as_it_is(NOTEBOOKS / f"{notebook}.ipynb"))
    return {name: ast.literal_eval(entry["default"]) for name, entry in declared.items()}


def as_it_is(path: Path) -> Path:
    """Write a path for papermill, which else puts parameters in the place of braces."""
    return Path(str(path).replace("{", "{{").replace("}", "}}"))


def _existing(path: Path, kind: str) -> Path:
    if not path.is_file():
        there = ", ".join(sorted(p.stem for p in path.parent.glob("*.yaml"))) or "none"
        raise ParameterError(f"no {kind} file {path}; {path.parent} has: {there}")
    return path


def _unknown_key(path: Path, key: str) -> str:
    close = difflib.get_close_matches(str(key), KEYS, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"expected one of {', '.join(KEYS)}"
    return f"{path}: key {key!r} is declared by no notebook; {hint}"
