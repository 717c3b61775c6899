"""Parameters of the notebooks: their types and limits.

Parameter files, and the ``parameters`` cells of notebooks, give the values; the classes here say which are allowed.
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, ValidationInfo

from metaseg_nb.layout import StudyLayout, parameter_names

# The baseline that networks are compared with.
THRESHOLD_MODEL = "intensity_threshold"
# Under this name stand means over all networks.
ALL = "all networks"
# And under this one the masks by physicians.
REFERENCE_MODEL = "reference"
# What model and arm files may be called: a name that YAML, Snakemake and a cluster read alike; unet_fold0 is a target.
FILE_NAME = re.compile(r"(?!.*_fold\d+$)[A-Za-z][A-Za-z0-9_]{0,39}")
# Code of a person who annotates: a folder's name.
READER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,19}")
# Names that a study uses for other things: its folders, rules of the workflow, the baseline, words of YAML.
RULES = ("explore", "preprocess", "train", "train_arm", "pretrain", "cross_validate", "report")
TAKEN = {*StudyLayout.names(), *RULES, THRESHOLD_MODEL, "self", "true", "false", "null"}
# Uses of unannotated images in which an earlier arm's networks take part.
TAUGHT = ("self_training", "ranking", "foreground_random")
# How to write a value that YAML reads otherwise than it was meant, by pydantic's name of the error.
ADVICE = {
    "string_type": " (put a name that looks like a number, a date, true or null in quotes)",
    "list_type": " (in brackets, such as [p3] or [1, 4])",
    "int_type": " (such as 10, without quotes)",
    "float_type": " (such as 0.0003, without quotes)",
}
# Settings that change how a run is computed or called, or what its probabilities are made into; not what is trained.
# The last one is no longer a setting; older checkpoints still name it.
NOT_IDENTITY = {"title", "arm_title", "num_processes", "compiled", "operating_point", "loader_workers"}


class ParameterError(ValueError):
    """A parameter that cannot be used; the message names file, key, found and expected."""


def _rule(holds: Callable[[Any, Mapping[str, Any]], bool], expected: str) -> AfterValidator:
    """A rule that pydantic has no words for: whether a value is right beside the settings that stand before it.

    ``expected`` may name these, in braces. Where one of them is wrong itself, that alone is said.
    """

    def checked(value: Any, info: ValidationInfo) -> Any:
        with suppress(KeyError):
            if not holds(value, info.data):
                raise ValueError(expected.format(**info.data))
        return value

    return AfterValidator(checked)


STUDY_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,39}")
WORDS = "at most 40 letters (a to z), digits, _ and -, no - at the start, because folders and jobs have this name"
IS_A_NAME = _rule(lambda study, _: bool(STUDY_NAME.fullmatch(study)), WORDS)
IS_A_NAME_OR_NONE = _rule(lambda study, _: not study or bool(STUDY_NAME.fullmatch(study)), WORDS)
IS_ANOTHER = _rule(lambda study, given: not study or study != given["study"], "another study than this one, or none")
IS_A_CODE = _rule(
    lambda reader, _: not reader or bool(READER.fullmatch(reader)),
    "a code of up to 20 letters, digits, - and _, such as R1",
)
NOT_LESION = _rule(
    lambda others, given: not set(others) & set(given["lesion_values"]),
    "values that are not in lesion_values: none of {lesion_values} can be in both",
)
GROWING = _rule(lambda percentiles, _: percentiles[0] < percentiles[1], "two percentiles, the lower one first")
ONE_IF_RAW = _rule(
    lambda dates, given: dates == 1 or given["synthetic_images"] != "raw", "1, because synthetic_images is raw"
)
NOT_WITH_NYUL = _rule(
    lambda earlier_mask, given: not earlier_mask or given["intensity_scaling"] != "nyul",
    "false, because intensity_scaling is nyul: a mask has no intensities to map",
)
SHARES_THE_BATCH = _rule(
    lambda processes, given: given["batch_size"] % processes == 0,
    'a number that divides batch_size, {batch_size} (see "Several GPUs" in docs/cluster.md)',
)
DIVIDES_THE_PATCH = _rule(
    lambda edge, given: given["patch_size"] % edge == 0 and edge != given["patch_size"],
    "a number that divides patch_size, {patch_size}, and is smaller than it",
)
SOMETHING_TO_LEARN = _rule(
    lambda unannotated, given: given["annotated_share"] > 0 or unannotated == "planted",
    "planted: `annotated_share` is 0, and there is nothing else to learn from",
)
ONLY_WHERE_TAUGHT = _rule(
    lambda teacher, given: (given["unannotated"] in TAUGHT) == bool(teacher),
    f"an arm if `unannotated` is {' or '.join(TAUGHT)}, otherwise no arm",
)


def _file_of(kind: str, name: str) -> str:
    """A name, if there is a file of it."""
    if name not in parameter_names(kind):
        raise ValueError(f"a file of params/{kind}s: one of {', '.join(parameter_names(kind))}")
    if not FILE_NAME.fullmatch(name) or name.lower() in TAKEN:
        raise ValueError(
            "a file name of at most 40 letters (a to z), digits and _; it begins with a letter, does not end like "
            "unet_fold0, and is not a name that studies use, such as report. What to do: rename the file"
        )
    return name


def _itself(models: Any, info: ValidationInfo) -> Any:
    """In an arm's file "self" is the network that is trained."""
    named = isinstance(models, list) and "model" in info.data
    return [info.data["model"] if name == "self" else name for name in models] if named else models


def _that_teach(models: list[str], info: ValidationInfo) -> list[str]:
    """Networks that teach together, those of the study or of the arm; without a teacher they decide nothing."""
    if info.data.get("teacher") and not models:
        raise ValueError(
            "at least one network whose runs in the arm `teacher` label or rank the cases; self: this network"
        )
    return models if info.data.get("teacher") else []


StudyName = Annotated[str, IS_A_NAME]
StudyOrNone = Annotated[str, IS_A_NAME_OR_NONE]
ModelName = Annotated[str, AfterValidator(partial(_file_of, "model"))]
ModelNames = Annotated[list[ModelName], Field(min_length=1)]
ArmName = Annotated[str, AfterValidator(lambda arm: arm and _file_of("arm", arm))]
Count = Annotated[int, Field(ge=1)]
Whole = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
PositiveShare = Annotated[float, Field(gt=0, le=1)]
ShareBelowOne = Annotated[float, Field(ge=0, lt=1)]
Percentile = Annotated[float, Field(ge=0, le=100)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Missing = Literal["refuse", "zero"]
Resamples = Annotated[int, Field(ge=100)]


class Settings(BaseModel):
    """Parameters of one notebook, checked."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    @classmethod
    def read(cls, namespace: Mapping[str, Any], origin: Mapping[str, str] | None = None) -> Self:
        """Take this notebook's parameters out of ``globals()``, or of merged files, and check them."""
        return cls.check({name: namespace[name] for name in cls.model_fields if name in namespace}, origin)

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
    brain_file: str
    missing: Missing
    series: str
    roi_names: Annotated[list[str], Field(min_length=1)]
    roi_names_without: list[str]
    organ_names: Annotated[list[str], Field(max_length=8)]  # a bit each
    patients_table: str
    patient_pattern: str
    annotations: StudyOrNone
    exclude: list[str]
    confirmed: list[str]
    anonymise: bool
    synthetic_patients: Annotated[int, Field(ge=4)]
    synthetic_unlabelled: Whole
    synthetic_images: Literal["stripped", "raw"]
    synthetic_dates: Annotated[int, Field(ge=1, le=4), ONE_IF_RAW]
    lesion_values: Annotated[list[Count], Field(min_length=1)]
    other_values: Annotated[list[Count], NOT_LESION]
    label_threshold: NotNegative
    folds_by: Literal["patient", "site"]
    n_folds: Annotated[int, Field(ge=2)]
    annotation_shares: Annotated[list[PositiveShare], Field(min_length=1)]
    seed: Whole
    workers: Count


class Preprocess(Settings):
    """02: bias correction, intensity, grid and label cleaning."""

    study: StudyName
    brain: Literal["keep", "deepbet", "hd_bet", "file"]
    brain_margin_mm: NotNegative
    register_sequences: Literal["other_grids", "all"]
    missing: Missing
    spacing_mm: Positive
    interpolation: Literal["linear", "cubic"]
    bias_correction: Literal["n4", "n4_itk", "none"]
    n4_levels: Count
    n4_iterations: Count
    n4_fit_spacing_mm: Positive
    intensity_scaling: Literal["percentiles", "nyul", "min_max", "z_score"]
    intensity_percentiles: Annotated[list[Percentile], Field(min_length=2, max_length=2), GROWING]
    earlier_mask: Annotated[bool, NOT_WITH_NYUL]
    fill_holes: bool
    min_lesion_mm3: NotNegative
    outside_head: Literal["flag", "drop"]
    workers: Count


class Training(Settings):
    """Parameters of every notebook that trains one network on one fold."""

    study: StudyName
    model: ModelName
    title: str
    fold: Whole
    network: str
    width: PositiveShare
    patch_size: Annotated[int, Field(ge=32, multiple_of=16)]
    batch_size: Count
    patches_per_case: Count
    flip_probability: Share
    rotate_probability: Share
    intensity_scale: ShareBelowOne
    intensity_shift: ShareBelowOne
    # checkpoints of earlier versions lack it
    sequence_dropout: ShareBelowOne = 0.0
    learning_rate: Positive
    schedule: Literal["cosine", "polynomial"]
    weight_decay: NotNegative
    ema_decay: ShareBelowOne
    validate_every: Count
    patience: Whole
    precision: Literal["no", "bf16", "fp16"]
    compiled: bool
    num_processes: Annotated[Count, SHARES_THE_BATCH]
    seed: Whole


class Train(Training):
    """03: one network learns to segment lesions."""

    sampling: Literal["voxel", "lesion", "roi"]
    lesion_share: Share
    augmentation: Literal["study", "strong"]
    loss: Literal["dice_ce", "dice_focal", "tversky", "blob"]
    epochs: Count
    overlap: ShareBelowOne
    mirrored: bool
    # checkpoints of earlier versions lack it
    operating_point: Literal["balanced", "sensitive", "specific"] = "balanced"
    arm: ArmName
    arm_title: str
    annotated_share: Share
    annotation: Literal["full", "largest", "slices", "boxes", "points", "lines"]
    n_largest: Count
    slice_step: Count
    unannotated: Annotated[
        Literal["unused", "pretraining", "planted", "self_training", "ranking", "foreground_random"],
        SOMETHING_TO_LEARN,
    ]
    teacher: Annotated[ArmName, ONLY_WHERE_TAUGHT]
    # checkpoints of earlier versions lack it
    models: Annotated[list[ModelName], BeforeValidator(_itself), AfterValidator(_that_teach)] = []
    confidence: Annotated[float, Field(gt=0.5, le=1)]


class Pretrain(Training):
    """03b: one network learns to restore hidden parts of images, without labels."""

    augmentation: ClassVar[str] = "study"  # the strong one would have to be restored too
    pretraining_epochs: Count
    hidden_share: Annotated[float, Field(gt=0, lt=1)]
    hidden_edge: Annotated[Count, DIVIDES_THE_PATCH]

    @property
    def epochs(self) -> int:
        """As `Train` calls them; `epochs` of the files are those of 03."""
        return self.pretraining_epochs


class Pooled(Settings):
    """Parameters of every notebook that pools the results of networks."""

    study: StudyName
    models: ModelNames
    n_bootstrap: Resamples
    seed: Whole


class CrossValidate(Pooled):
    """04: pooled results of every network."""

    compared_study: Annotated[StudyOrNone, IS_ANOTHER]


class Review(Settings):
    """05: cases to review."""

    study: StudyName
    models: ModelNames
    cases_shown: Count
    large_false_mm: Positive
    view_mm: Positive
    workers: Count


class Budget(Pooled):
    """06: how many annotations, of which kind, in how many minutes of a physician."""

    arms: list[ArmName]
    seeds: Annotated[list[Whole], Field(min_length=1)]
    minutes_per_case: Positive
    minutes_per_lesion: NotNegative
    minutes_per_slice: NotNegative
    minutes_per_box: NotNegative
    minutes_per_point: NotNegative
    minutes_per_line: NotNegative


class Radiotherapy(Pooled):
    """07: what margins around the contours cover."""

    second_reader: str
    margins_mm: Annotated[list[NotNegative], Field(min_length=1)]
    workers: Count


class FollowUp(Pooled):
    """09: what becomes of each lesion between dates."""

    follow_up: bool
    clinical_table: str
    reference_date: Count
    reach_mm: Positive
    new_mm: Positive
    volume_error: Annotated[float, Field(gt=0, lt=1)]
    workers: Count


class Annotate(Settings):
    """08: which cases a person annotates, and with what help."""

    study: StudyName
    annotate: list[str]
    reader: Annotated[str, IS_A_CODE]
    second_reading: bool
    assistance: Literal["proposal", "nothing", "randomised"]
    proposals_from: Annotated[str, AfterValidator(lambda model: model and _file_of("model", model))]
    n_bootstrap: Resamples
    seed: Whole


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
    job_gpus: Whole


NOTEBOOK_SETTINGS: dict[str, type[Settings]] = {
    "01_explore_data": Explore,
    "02_preprocess_n4": Preprocess,
    "03_train": Train,
    "03b_pretrain": Pretrain,
    "04_cross_validation": CrossValidate,
    "05_qualitative_review": Review,
    "06_annotation_budget": Budget,
    "07_radiotherapy": Radiotherapy,
    "08_annotate": Annotate,
    "09_follow_up": FollowUp,
}
SETTING_NAMES = sorted({name for settings in (*NOTEBOOK_SETTINGS.values(), Job) for name in settings.model_fields})


def settings_hash(settings: Mapping[str, Any] | Settings) -> str:
    """Twelve hexadecimal digits that change when any setting does."""
    values = settings.model_dump() if isinstance(settings, Settings) else dict(settings)
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]


def deciding(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that decide what a run computes: two runs have the same settings where these are equal."""
    return {name: value for name, value in settings.items() if name not in NOT_IDENTITY}


def what_decides(identity: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out of a checkpoint's identity what changes no result."""
    return {**identity, "settings": deciding(identity["settings"])}


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """What decides a result and differs in two identities of checkpoints: the value then and the value now, by key."""
    # checkpoints of earlier versions do not know their selection set, nor settings that came later and are not used
    before = {"selection": now.get("selection", {}), **before}
    old, new = (
        {(part, key): value for part, values in what_decides(identity).items() for key, value in values.items()}
        for identity in (before, now)
    )
    return {
        place[1]: (old.get(place), new.get(place))
        for place in sorted(old.keys() | new.keys())
        if old.get(place) != new.get(place) and (place in old or new[place])
    }


def in_words(differing: Mapping[str, tuple[Any, Any]]) -> str:
    """Differing settings as messages write them: "epochs: 16 then, 24 now"."""
    return "; ".join(f"{key}: {then} then, {now} now" for key, (then, now) in differing.items())


def _explain(item: Mapping[str, Any], origin: Mapping[str, str]) -> str:
    key = ".".join(str(part) for part in item["loc"]) or "parameters"
    where = origin.get(key.split(".")[0], "the notebook's parameters cell")
    expected = item["msg"].removeprefix("Value error, ") + ADVICE.get(item["type"], "")
    return f"{where}: key {key!r}: found {item['input']!r}; expected: {expected}"
