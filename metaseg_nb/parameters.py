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
from metaseg_nb.settings import ALL, NOTEBOOK_SETTINGS, SETTING_NAMES, THRESHOLD_MODEL, CpuJob, Job, ParameterError

# Holds what the other files leave out.
DEFAULTS = PROJECT / "params/defaults.yaml"
# What a file of each kind must say.
REQUIRED = {"model": ("model", "title", "network"), "study": ("study",)}


def model_title(model: str) -> str:
    """A model as figures and reports write it: ``title`` in its parameter file."""
    titles = {THRESHOLD_MODEL: "Intensity threshold", ALL: ALL}
    return titles.get(model) or read_parameters(parameter_file("model", model))["title"]


class TwiceError(yaml.YAMLError):
    """Raised for a key that is given more than once."""


# What most often is no YAML in a file that somebody edited.
YAML_ADVICE = r"write blanks instead of tabs, put a path with \ in single quotes, and save the file as UTF-8"


def read_parameters(path: Path) -> dict[str, Any]:
    """Read one flat parameter file, refusing keys that no notebook declares or that are given twice."""
    try:
        values = _parsed(path.read_bytes())
    except (yaml.YAMLError, RecursionError) as error:
        fix = "keep one line of each key" if isinstance(error, TwiceError) else YAML_ADVICE
        raise ParameterError(f"{path}: not YAML ({error}). What to do: {fix}.") from error
    if not isinstance(values, dict):
        raise ParameterError(f"{path}: found a {type(values).__name__}, expected `key: value` lines")
    if problems := [f"{path}: {_unknown(str(key))}" for key in values if key not in SETTING_NAMES]:
        raise ParameterError("\n".join(problems))
    return dict(values)


def _unknown(key: str) -> str:
    close = difflib.get_close_matches(key, SETTING_NAMES, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"expected one of {', '.join(SETTING_NAMES)}"
    return f"key {key!r} is declared by no notebook; {hint}"


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
            raise TwiceError(f"key {', '.join(twice)} is given more than once")
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
    given = {"model": model, "fold": fold, "arm": arm or None, "seed": seed}
    takes = [name for name in given if name in settings.model_fields] if "model" in settings.model_fields else []
    if takes and (model is None or fold is None):
        raise ParameterError(f"{notebook} trains one network on one fold: give --model and --fold")
    if useless := [f"--{name}" for name, value in given.items() if value is not None and name not in takes]:
        raise ParameterError(f"{notebook} takes no {' and no '.join(useless)}")
    values, origin = _merge(study, model, arm)
    for key, value in {"model": model, "fold": fold, "arm": arm}.items():
        if key in takes and values.setdefault(key, value) != value:
            raise ParameterError(f"{origin[key]}: key {key!r}: found {values[key]!r}; expected: {value!r}")
    if seed is not None:
        values["seed"] = seed
    if fold is not None and fold not in range(n_folds := resolve("01_explore_data", study)["n_folds"]):
        found = f"n_folds is {n_folds}: found fold {fold}; expected 0 to {n_folds - 1}"
        raise ParameterError(f"{_existing('study', study)}: {found}")
    if arm:
        _require_no_circle(arm)
    return settings.read(values, origin).model_dump()


def job_resources(study: str, model: str | None = None) -> CpuJob:
    """What the jobs of a study ask a cluster for; with a model, a `Job`: what training it asks for too.

    Raises
    ------
    ParameterError
        As `resolve`.
    """
    return (Job if model else CpuJob).read(*_merge(study, model))


def _merge(study: str, model: str | None, arm: str = "") -> tuple[dict[str, Any], dict[str, str]]:
    """Values of the defaults and of the files of a network, a study and an arm, the later winning; and their files."""
    files = {kind: _existing(kind, name) for kind, name in (("model", model), ("study", study), ("arm", arm)) if name}
    values, origin = {}, {}
    for kind, file in {"defaults": DEFAULTS, **files}.items():
        found = read_parameters(file)
        if missing := [key for key in REQUIRED.get(kind, ()) if key not in found]:
            raise ParameterError(f"{file}: missing: {', '.join(missing)}; expected: a line for each of them")
        values |= found
        origin |= dict.fromkeys(found, str(file))
    return values, origin


def _require_no_circle(arm: str) -> None:
    """An arm must not be taught by itself, be it through other arms."""
    chain = [arm]
    while teacher := read_parameters(_existing("arm", chain[-1])).get("teacher", ""):
        if teacher in chain:
            file, order = parameter_file("arm", chain[-1]), ", which learns from ".join([*chain, teacher])
            expected = "an arm that can be trained before this one"
            raise ParameterError(f"{file}: key 'teacher': found {teacher!r}; expected: {expected} ({order})")
        chain.append(teacher)


def _existing(kind: str, name: str) -> Path:
    """Parameter file of a kind by its name; a study may also be given as a path to a YAML file."""
    is_path = kind == "study" and name.endswith((".yaml", ".yml"))
    path = Path(name) if is_path else parameter_file(kind, name)
    if not path.is_file():
        names = ", ".join(sorted(p.stem for p in path.parent.glob("*.yaml"))) or "none"
        raise ParameterError(f"no {kind} file {path}; {path.parent} has: {names}")
    return path
