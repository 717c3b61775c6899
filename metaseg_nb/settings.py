"""Parameters of the notebooks: their types and limits, and how parameter files are merged.

Each notebook's ``parameters`` cell holds the defaults; the classes here say what
may stand there. `resolve` merges the parameter files of a model, a fold and a study
over the defaults, later files winning, and refuses whatever no notebook understands.
"""

import difflib
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
import papermill
import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from metaseg_nb.layout import NOTEBOOKS, PARAMS

# The floor that networks are compared with.
THRESHOLD_MODEL = "intensity_threshold"


def model_names() -> list[str]:
    """Models there are: the files in ``params/models``."""
    return sorted(path.stem for path in (PARAMS / "models").glob("*.yaml"))


def model_title(model: str) -> str:
    """A model as figures and reports write it: ``title`` in its parameter file."""
    if model == THRESHOLD_MODEL:
        return "Intensity threshold"
    return read_parameters(PARAMS / "models" / f"{model}.yaml")["title"]


def _is_a_model(model: str) -> str:
    if model not in model_names():
        raise ValueError(f"a file of params/models: one of {', '.join(model_names())}")
    return model


ModelName = Annotated[str, AfterValidator(_is_a_model)]
StudyName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")]
Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]


class ParameterError(ValueError):
    """A parameter that cannot be used; the message names file, key, found and expected."""


class Settings(BaseModel):
    """Parameters of one notebook, checked."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    @classmethod
    def read(cls, namespace: Mapping[str, Any]) -> Self:
        """Take this notebook's parameters out of ``globals()`` and check them."""
        return cls.check({name: namespace[name] for name in cls.model_fields if name in namespace})

    @classmethod
    def check(cls, values: Mapping[str, Any], origin: Mapping[str, str] | None = None) -> Self:
        """Validate values; ``origin`` says which file each key came from."""
        try:
            return cls(**values)
        except ValidationError as error:
            raise ParameterError("\n".join(_explain(item, origin or {}) for item in error.errors())) from None


class Explore(Settings):
    """01: cohort, checks and folds."""

    study: StudyName
    cohort: str
    image_root: str
    image_files: list[str]
    label_file: str
    patients_table: str
    exclude: list[str]
    anonymise: bool
    synthetic_patients: Annotated[int, Field(ge=4)]
    lesion_values: Annotated[list[Count], Field(min_length=1)]
    other_values: list[Count]
    label_threshold: Annotated[float, Field(ge=0)]
    n_folds: Annotated[int, Field(ge=2)]
    annotation_shares: Annotated[list[Annotated[float, Field(gt=0, le=1)]], Field(min_length=1)]
    seed: Annotated[int, Field(ge=0)]
    workers: Count


class Preprocess(Settings):
    """02: bias correction, intensity, grid and label cleaning."""

    study: StudyName
    spacing_mm: Positive
    interpolation: Literal["linear", "cubic"]
    bias_correction: Literal["n4", "n4_itk", "none"]
    n4_levels: Count
    n4_iterations: Count
    n4_fit_spacing_mm: Positive
    intensity_scaling: Literal["percentiles", "min_max", "z_score"]
    intensity_percentiles: Annotated[list[Annotated[float, Field(ge=0, le=100)]], Field(min_length=2, max_length=2)]
    fill_holes: bool
    min_lesion_mm3: Annotated[float, Field(ge=0)]
    outside_head: Literal["flag", "drop"]
    workers: Count

    @field_validator("intensity_percentiles")
    @classmethod
    def _ordered(cls, percentiles: list[float]) -> list[float]:
        if percentiles[0] >= percentiles[1]:
            raise ValueError("two percentiles that grow")
        return percentiles


class Train(Settings):
    """03: one network on one fold."""

    study: StudyName
    model: ModelName
    title: str
    fold: Annotated[int, Field(ge=0)]
    network: str
    width: Annotated[float, Field(gt=0, le=1)]
    patch_size: Annotated[int, Field(ge=32, multiple_of=16)]
    batch_size: Count
    patches_per_case: Count
    sampling: Literal["voxel", "lesion", "roi"]
    lesion_share: Share
    augmentation: Literal["study", "strong"]
    flip_probability: Share
    rotate_probability: Share
    intensity_scale: Annotated[float, Field(ge=0, lt=1)]
    intensity_shift: Annotated[float, Field(ge=0, lt=1)]
    loss: Literal["dice_ce", "dice_focal", "tversky", "blob"]
    epochs: Count
    learning_rate: Positive
    schedule: Literal["cosine", "polynomial"]
    weight_decay: Annotated[float, Field(ge=0)]
    ema_decay: Annotated[float, Field(ge=0, lt=1)]
    validate_every: Count
    patience: Annotated[int, Field(ge=0)]
    overlap: Annotated[float, Field(ge=0, lt=1)]
    mirrored: bool
    precision: Literal["no", "bf16", "fp16"]
    compiled: bool
    num_processes: Count
    seed: Annotated[int, Field(ge=0)]
    loader_workers: Annotated[int, Field(ge=0)]

    @field_validator("num_processes")
    @classmethod
    def _share_the_batch(cls, processes: int, info: ValidationInfo) -> int:
        if info.data.get("batch_size", processes) % processes:
            raise ValueError(f"a number that divides batch_size, {info.data['batch_size']}: each takes as many cases")
        return processes


class CrossValidate(Settings):
    """04: pooled results of every network."""

    study: StudyName
    models: Annotated[list[ModelName], Field(min_length=1)]
    n_bootstrap: Annotated[int, Field(ge=100)]
    seed: Annotated[int, Field(ge=0)]


class Review(Settings):
    """05: cases to look at."""

    study: StudyName
    models: Annotated[list[ModelName], Field(min_length=1)]
    cases_shown: Count
    large_false_mm: Positive
    view_mm: Positive
    workers: Count


class Job(Settings):
    """What jobs on a cluster ask for: training (by model and study), and the rest (by study). No notebook needs it."""

    job_hours: Positive = 24.0
    job_memory_gb: Positive = 32.0
    job_cpus: Count = 4
    job_gpus: Annotated[int, Field(ge=0)] = 1
    cpu_job_hours: Positive = 12.0
    cpu_job_memory_gb: Positive = 32.0
    cpu_job_cpus: Count = 2


NOTEBOOK_SETTINGS: dict[str, type[Settings]] = {
    "01_explore_data": Explore,
    "02_preprocess_n4": Preprocess,
    "03_train": Train,
    "04_cross_validation": CrossValidate,
    "05_qualitative_review": Review,
}
KEYS = sorted({name for settings in (*NOTEBOOK_SETTINGS.values(), Job) for name in settings.model_fields})


def settings_hash(settings: Mapping[str, Any] | Settings) -> str:
    """Twelve hexadecimal digits that change when any setting does."""
    values = settings.model_dump() if isinstance(settings, Settings) else dict(settings)
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]


def study_file(study: str) -> Path:
    """File of a study, given by its name in ``params/studies`` or as a path to a YAML file."""
    path = Path(study) if study.endswith((".yaml", ".yml")) else PARAMS / "studies" / f"{study}.yaml"
    return _existing(path, "study")


def read_parameters(path: Path) -> dict[str, Any]:
    """Read one flat parameter file, refusing keys that no notebook declares."""
    try:
        values = yaml.safe_load(path.read_text()) or {}
    except yaml.YAMLError as error:
        raise ParameterError(f"{path}: not YAML ({error})") from error
    if not isinstance(values, dict):
        raise ParameterError(f"{path}: found a {type(values).__name__}, expected `key: value` lines")
    problems = [_unknown_key(path, key) for key in values if key not in KEYS]
    if problems:
        raise ParameterError("\n".join(problems))
    return values


def resolve(notebook: str, study: str, model: str | None = None, fold: int | None = None) -> dict[str, Any]:
    """Parameters of one notebook: its defaults, then model, fold and study files, the later winning.

    Raises
    ------
    ParameterError
        Unknown notebook, missing file, unknown key, wrong type or impossible value.
    """
    if notebook not in NOTEBOOK_SETTINGS:
        raise ParameterError(f"no notebook {notebook!r}; expected one of {', '.join(NOTEBOOK_SETTINGS)}")
    settings = NOTEBOOK_SETTINGS[notebook]
    files = [study_file(study)]
    trains = "model" in settings.model_fields
    if trains != (model is not None) or trains != (fold is not None):
        what = "trains one network on one fold: give --model and --fold" if trains else "takes no --model and no --fold"
        raise ParameterError(f"{notebook} {what}")
    if trains:
        files = [
            _existing(PARAMS / "models" / f"{model}.yaml", "model"),
            _existing(PARAMS / "folds" / f"fold{fold}.yaml", "fold"),
            *files,
        ]
    said, origin = _merge(files, settings)
    values = _defaults(notebook) | said
    _require_identity(values, origin, study_file(study), {"model": model, "fold": fold} if trains else {})
    return settings.check(values, origin).model_dump()


def job_resources(study: str, model: str | None = None) -> Job:
    """What the jobs of a study ask a cluster for; a study's file wins over a model's, as in `resolve`.

    Raises
    ------
    ParameterError
        As `resolve`.
    """
    files = [study_file(study)]
    if model:
        files.insert(0, _existing(PARAMS / "models" / f"{model}.yaml", "model"))
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
            raise ParameterError(f"{PARAMS / 'models' / asked['model']}.yaml: key {key!r} is missing")


def _defaults(notebook: str) -> dict[str, Any]:
    declared = papermill.inspect_notebook(NOTEBOOKS / f"{notebook}.ipynb")
    return {name: yaml.safe_load(entry["default"]) for name, entry in declared.items()}


def _existing(path: Path, kind: str) -> Path:
    if not path.is_file():
        there = ", ".join(sorted(p.stem for p in path.parent.glob("*.yaml"))) or "none"
        raise ParameterError(f"no {kind} file {path}; {path.parent} has: {there}")
    return path


def _unknown_key(path: Path, key: str) -> str:
    close = difflib.get_close_matches(str(key), KEYS, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"expected one of {', '.join(KEYS)}"
    return f"{path}: key {key!r} is declared by no notebook; {hint}"


def _explain(item: Mapping[str, Any], origin: Mapping[str, str]) -> str:
    key = ".".join(str(part) for part in item["loc"]) or "parameters"
    where = origin.get(key.split(".")[0], "the notebook's parameters cell")
    text = f"{where}: key {key!r}: found {item['input']!r}; expected: {item['msg']}"
    if isinstance(item["input"], str) and re.fullmatch(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+", item["input"]):
        number = np.format_float_scientific(float(item["input"]), trim="0", exp_digits=2)
        text += f" (YAML reads {item['input']} as text: write {number})"
    return text
