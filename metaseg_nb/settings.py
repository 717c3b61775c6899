"""Parameters of the notebooks: their types and limits.

Parameter files, and the ``parameters`` cells of notebooks, give the values; the classes here say which are allowed.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from metaseg_nb.layout import parameter_names

# The floor that networks are compared with.
THRESHOLD_MODEL = "intensity_threshold"
# What model and arm files may be called: a name that YAML, Snakemake and a cluster read alike.
FILE_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,39}")
# Names that a study uses for other things: rules of the workflow, its folders, the floor.
TAKEN = {
    *("explore", "preprocess", "train", "train_arm", "pretrain", "cross_validate", "review", "report"),
    *("annotation_budget", "annotations", "arms", "cases", "cross_validation", "examinations", "notebooks"),
    *("pretraining", "slurm_logs", "synthetic_cohort", "testing", "true", "false", "null", THRESHOLD_MODEL),
}
# Uses of unannotated images in which an earlier arm's networks take part.
TAUGHT = ("self_training", "ranking")
# Texts that YAML reads as a number where no quotes stand around them.
YAML_NUMBERS = {"int_type": r"[+-]?(0|[1-9]\d*)", "float_type": r"[+-]?(0|[1-9]\d*)(\.\d+([eE][+-]\d+)?)?"}
# Settings that change how a run is computed or called, and not what it computes.
NOT_IDENTITY = {"title", "arm_title", "num_processes", "loader_workers", "compiled"}


def model_names() -> list[str]:
    """Names of the files in ``params/models``."""
    return parameter_names("model")


def _is_a_file_of(kind: str, name: str) -> str:
    if name not in parameter_names(kind):
        raise ValueError(f"a file of params/{kind}s: one of {', '.join(parameter_names(kind))}")
    if not FILE_NAME.fullmatch(name):
        raise ValueError(
            "a file name of at most 40 letters (a to z), digits and _ that begins with a letter: rename it"
        )
    if name.lower() in TAKEN or re.search(r"_fold\d+$", name):
        raise ValueError("a file name that the workflow does not use for something else: rename it")
    return name


def _names_a_study(study: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,39}", study):
        raise ValueError("at most 40 letters (a to z), digits, _ and -, not - first: it names folders and jobs")
    return study


ModelName = Annotated[str, AfterValidator(partial(_is_a_file_of, "model"))]
ArmName = Annotated[str, AfterValidator(lambda arm: arm and _is_a_file_of("arm", arm))]
StudyName = Annotated[str, AfterValidator(_names_a_study)]
Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]


class ParameterError(ValueError):
    """A parameter that cannot be used; the message names file, key, found and expected."""


class Settings(BaseModel):
    """Parameters of one notebook, checked."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

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
    patient_pattern: str
    exclude: list[str]
    confirmed: list[str]
    anonymise: bool
    synthetic_patients: Annotated[int, Field(ge=4)]
    lesion_values: Annotated[list[Count], Field(min_length=1)]
    other_values: list[Count]
    label_threshold: Annotated[float, Field(ge=0)]
    n_folds: Annotated[int, Field(ge=2)]
    annotation_shares: Annotated[list[Annotated[float, Field(gt=0, le=1)]], Field(min_length=1)]
    seed: Annotated[int, Field(ge=0)]
    workers: Count

    @field_validator("other_values")
    @classmethod
    def _apart(cls, others: list[int], info: ValidationInfo) -> list[int]:
        if both := set(others) & set(info.data.get("lesion_values", ())):
            raise ValueError(f"values that are not in lesion_values too: {sorted(both)} cannot be both")
        return others


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


class Training(Settings):
    """Parameters of every notebook that trains one network on one fold."""

    study: StudyName
    model: ModelName
    title: str
    fold: Annotated[int, Field(ge=0)]
    network: str
    width: Annotated[float, Field(gt=0, le=1)]
    patch_size: Annotated[int, Field(ge=32, multiple_of=16)]
    batch_size: Count
    patches_per_case: Count
    flip_probability: Share
    rotate_probability: Share
    intensity_scale: Annotated[float, Field(ge=0, lt=1)]
    intensity_shift: Annotated[float, Field(ge=0, lt=1)]
    learning_rate: Positive
    schedule: Literal["cosine", "polynomial"]
    weight_decay: Annotated[float, Field(ge=0)]
    ema_decay: Annotated[float, Field(ge=0, lt=1)]
    validate_every: Count
    patience: Annotated[int, Field(ge=0)]
    precision: Literal["no", "bf16", "fp16"]
    compiled: bool
    num_processes: Count
    seed: Annotated[int, Field(ge=0)]
    loader_workers: Annotated[int, Field(ge=0)]

    @field_validator("num_processes")
    @classmethod
    def _share_the_batch(cls, processes: int, info: ValidationInfo) -> int:
        if info.data.get("batch_size", processes) % processes:
            batch = info.data["batch_size"]
            raise ValueError(
                f"a number that divides batch_size, {batch}, for all take equally many cases. To use {processes} GPUs, "
                f"write batch_size: {-(-batch // processes) * processes}; or num_processes: 1 and train {processes} "
                "folds or networks side by side, each of which takes a GPU of its own"
            )
        return processes


class Train(Training):
    """03: one network learns to segment lesions."""

    sampling: Literal["voxel", "lesion", "roi"]
    lesion_share: Share
    augmentation: Literal["study", "strong"]
    loss: Literal["dice_ce", "dice_focal", "tversky", "blob"]
    epochs: Count
    overlap: Annotated[float, Field(ge=0, lt=1)]
    mirrored: bool
    arm: ArmName
    arm_title: str
    annotated_share: Annotated[float, Field(gt=0, le=1)]
    annotation: Literal["full", "largest", "slices", "boxes", "points"]
    n_largest: Count
    slice_step: Count
    unannotated: Literal["unused", "pretraining", "self_training", "ranking"]
    teacher: ArmName
    models: list[ModelName] = []  # checkpoints of earlier versions do not have it
    confidence: Annotated[float, Field(gt=0.5, le=1)]

    @field_validator("teacher")
    @classmethod
    def _only_where_taught(cls, teacher: str, info: ValidationInfo) -> str:
        if (info.data.get("unannotated") in TAUGHT) != bool(teacher):
            raise ValueError(f"an arm where `unannotated` is {' or '.join(TAUGHT)}, and none elsewhere")
        return teacher

    @field_validator("models")
    @classmethod
    def _that_teach(cls, models: list[str], info: ValidationInfo) -> list[str]:
        """The study's networks teach together; without a teacher they decide nothing, and are left out."""
        if info.data.get("teacher") and not models:
            raise ValueError("the networks of the study, whose runs in the arm `teacher` label or rank together")
        return models if info.data.get("teacher") else []


class Pretrain(Training):
    """03b: one network learns to restore hidden parts of images, without labels."""

    augmentation: ClassVar[str] = "study"  # the strong one would have to be restored too
    pretraining_epochs: Count
    hidden_share: Annotated[float, Field(gt=0, lt=1)]
    hidden_edge: Count

    @property
    def epochs(self) -> int:
        """As `Train` calls them; `epochs` of the files are those of 03."""
        return self.pretraining_epochs

    @field_validator("hidden_edge")
    @classmethod
    def _divides_the_patch(cls, edge: int, info: ValidationInfo) -> int:
        if (patch := info.data.get("patch_size", 0)) % edge or edge == patch:
            raise ValueError(f"a number that divides patch_size, {patch}, and is smaller")
        return edge


class CrossValidate(Settings):
    """04: pooled results of every network."""

    study: StudyName
    models: Annotated[list[ModelName], Field(min_length=1)]
    n_bootstrap: Annotated[int, Field(ge=100)]
    seed: Annotated[int, Field(ge=0)]


class Review(Settings):
    """05: cases to review."""

    study: StudyName
    models: Annotated[list[ModelName], Field(min_length=1)]
    cases_shown: Count
    large_false_mm: Positive
    view_mm: Positive
    workers: Count


class Budget(Settings):
    """06: how many annotations, of which kind, in how many minutes of a physician."""

    study: StudyName
    models: Annotated[list[ModelName], Field(min_length=1)]
    arms: list[ArmName]
    seeds: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]
    minutes_per_case: Positive
    minutes_per_lesion: Annotated[float, Field(ge=0)]
    minutes_per_slice: Annotated[float, Field(ge=0)]
    minutes_per_box: Annotated[float, Field(ge=0)]
    minutes_per_point: Annotated[float, Field(ge=0)]
    n_bootstrap: Annotated[int, Field(ge=100)]
    seed: Annotated[int, Field(ge=0)]


class CpuJob(Settings):
    """What the jobs that do not train ask a cluster for. No notebook needs it."""

    cpu_job_hours: Positive
    cpu_job_memory_gb: Positive
    cpu_job_cpus: Count


class Job(CpuJob):
    """What the jobs of a training ask a cluster for, too."""

    job_hours: Positive
    job_memory_gb: Positive
    job_cpus: Count
    job_gpus: Annotated[int, Field(ge=0)]


NOTEBOOK_SETTINGS: dict[str, type[Settings]] = {
    "01_explore_data": Explore,
    "02_preprocess_n4": Preprocess,
    "03_train": Train,
    "03b_pretrain": Pretrain,
    "04_cross_validation": CrossValidate,
    "05_qualitative_review": Review,
    "06_annotation_budget": Budget,
}
KEYS = sorted({name for settings in (*NOTEBOOK_SETTINGS.values(), Job) for name in settings.model_fields})


def settings_hash(settings: Mapping[str, Any] | Settings) -> str:
    """Twelve hexadecimal digits that change when any setting does."""
    values = settings.model_dump() if isinstance(settings, Settings) else dict(settings)
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]


def deciding(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that decide what a run computes: two runs have the same settings where these are equal."""
    return {name: value for name, value in settings.items() if name not in NOT_IDENTITY}


def _explain(item: Mapping[str, Any], origin: Mapping[str, str]) -> str:
    key = ".".join(str(part) for part in item["loc"]) or "parameters"
    where = origin.get(key.split(".")[0], "the notebook's parameters cell")
    return f"{where}: key {key!r}: found {item['input']!r}; expected: {item['msg']}{_advice(item)}"


def _advice(item: Mapping[str, Any]) -> str:
    """How to write a value that YAML reads otherwise than it was meant."""
    found, wanted = item["input"], item["type"]
    if wanted == "string_type" and not isinstance(found, (list, dict)):
        return " (a name that looks like a number, a date, true or null stands in quotes)"
    if wanted == "list_type" and isinstance(found, int | float | str):
        return f" (write [{found}])"
    if wanted == "int_type" and isinstance(found, float):
        return f" (write {found:.0f})" if found.is_integer() else ""
    if wanted in YAML_NUMBERS and re.fullmatch(YAML_NUMBERS[wanted], str(found)):
        return f" (in quotes it is text: write {found} without quotes)"
    if wanted in YAML_NUMBERS and re.fullmatch(r"[+-]?[\d_]+(\.\d*)?([eE][+-]?\d+)?", str(found)):
        with suppress(ValueError):
            number = int(found) if wanted == "int_type" else float(found)
            plain = number if wanted == "int_type" else np.format_float_scientific(number, trim="0", exp_digits=2)
            return f" (YAML reads {found} as text: write {plain})"
    return ""
