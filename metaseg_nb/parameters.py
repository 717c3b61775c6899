"""Parameter files: where they are, what may stand in them, and how they are merged.

`resolve` merges the defaults with the parameter files of a model, a study and an arm; later files win. It refuses keys
that no notebook declares. The values in the notebooks' cells, which are the demo's, take no part.
"""

import difflib
import re
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import yaml

from metaseg_nb.layout import PROJECT, parameter_file
from metaseg_nb.settings import KEYS, NOTEBOOK_SETTINGS, THRESHOLD_MODEL, CpuJob, Job, ParameterError, Settings

# Holds what the other files leave out.
DEFAULTS = PROJECT / "params/defaults.yaml"


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
    path = Path(study) if study.endswith((".yaml", ".yml")) else parameter_file("study", study)
    return _existing(path, "study")


def read_parameters(path: Path) -> dict[str, Any]:
    """Read one flat parameter file, refusing keys that no notebook declares or that are given twice."""
    try:
        values = _parsed(path.read_bytes())
    except (yaml.YAMLError, RecursionError) as error:
        raise ParameterError(f"{path}: not YAML ({error})") from error
    if not isinstance(values, dict):
        raise ParameterError(f"{path}: found a {type(values).__name__}, expected `key: value` lines")
    problems = [_unknown_key(path, key) for key in values if key not in KEYS]
    if problems:
        raise ParameterError("\n".join(problems))
    return dict(values)


@cache  # one file is read for each run of a study
def _parsed(content: bytes) -> Any:
    return yaml.load(content, _PlainYaml) or {}


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
            raise yaml.YAMLError(f"key {', '.join(twice)} is given more than once")
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
    """Parameters of one notebook from the files of model, study and arm, the later winning, and fold and seed as given.

    Raises
    ------
    ParameterError
        Unknown notebook, missing file, unknown or missing key, wrong type or impossible value.
    """
    if notebook not in NOTEBOOK_SETTINGS:
        raise ParameterError(f"no notebook {notebook!r}; expected one of {', '.join(NOTEBOOK_SETTINGS)}")
    settings = NOTEBOOK_SETTINGS[notebook]
    _require_what_it_takes(notebook, settings, model=model, fold=fold, arm=arm or None, seed=seed)
    values, origin = _merge(study, model, arm, settings)
    asked = {"model": model, "fold": fold, "arm": arm}
    for key, value in asked.items():
        if key in settings.model_fields and values.setdefault(key, value) != value:
            raise ParameterError(f"{origin[key]}: key {key!r}: found {values[key]!r}; expected: {value!r}")
    if seed is not None:
        values["seed"] = seed
    _require_fold(study, fold)
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


def _require_fold(study: str, fold: int | None) -> None:
    n_folds = resolve("01_explore_data", study)["n_folds"] if fold is not None else 0
    if fold is not None and not 0 <= fold < n_folds:
        raise ParameterError(
            f"{study_file(study)}: n_folds is {n_folds}: found fold {fold}; expected 0 to {n_folds - 1}"
        )


def job_resources(study: str, model: str | None = None) -> CpuJob:
    """What the jobs of a study ask a cluster for; with a model, a `Job`: what training it asks for too.

    Raises
    ------
    ParameterError
        As `resolve`.
    """
    settings = Job if model else CpuJob
    return settings.check(*_merge(study, model, "", settings))


def _merge(study: str, model: str | None, arm: str, settings: type[Settings]) -> tuple[dict[str, Any], dict[str, str]]:
    """Values of one kind of settings, and the file that each came from.

    The defaults come first, then a network's file, the study's and an arm's: the later wins. A study and a network say
    who they are.
    """
    asked = {"model": model, "study": study, "arm": arm}
    files = {
        kind: _existing(parameter_file(kind, name), kind) for kind, name in asked.items() if name and kind != "study"
    }
    files["study"] = study_file(study)
    found = read_parameters(DEFAULTS)
    origin = dict.fromkeys(found, str(DEFAULTS))
    for kind in (kind for kind in asked if kind in files):
        values = read_parameters(files[kind])
        found |= values
        origin |= dict.fromkeys(values, str(files[kind]))
    for kind, keys in (("study", ["study"]), ("model", ["model", "title", "network"])):
        missing = [key for key in keys if kind in files and key not in read_parameters(files[kind])]
        if missing:
            raise ParameterError(f"{files[kind]}: missing: {', '.join(missing)}; expected: a line for each")
    return {key: value for key, value in found.items() if key in settings.model_fields}, origin


def _existing(path: Path, kind: str) -> Path:
    if not path.is_file():
        names = ", ".join(sorted(p.stem for p in path.parent.glob("*.yaml"))) or "none"
        raise ParameterError(f"no {kind} file {path}; {path.parent} has: {names}")
    return path


def _unknown_key(path: Path, key: str) -> str:
    close = difflib.get_close_matches(str(key), KEYS, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"expected one of {', '.join(KEYS)}"
    return f"{path}: key {key!r} is declared by no notebook; {hint}"
