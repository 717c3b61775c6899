"""Where files live. Every path the workbook reads or writes is named here."""

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parent.parent
NOTEBOOKS = PROJECT / "notebooks"
PARAMS = PROJECT / "params"


def parameter_file(kind: str, name: str) -> Path:
    """Parameter file of a "model", "fold", "study" or "arm", whether or not it is there."""
    return PARAMS / {"study": "studies"}.get(kind, f"{kind}s") / f"{name}.yaml"


def parameter_names(kind: str) -> list[str]:
    """Names of the parameter files of a kind that are there."""
    return sorted(path.stem for path in parameter_file(kind, "").parent.glob("*.yaml"))


def home() -> Path:
    """Folder that holds ``runs/``, ``reports/``, ``figures/`` and ``keys/``.

    The project folder, unless the environment variable ``METASEG_HOME`` names another (large scratch storage on a
    cluster, a temporary folder in tests). It is the same place whatever folder a process works in: a relative path
    starts in the project folder, ``~`` is the user's own, and an empty one counts as not set.

    Raises
    ------
    ValueError
        ``~name`` of nobody; or a file.
    """
    place = os.path.expanduser(os.environ.get("METASEG_HOME", "").strip())
    if place.startswith("~"):
        raise ValueError(f"METASEG_HOME: found {place!r}; expected a folder: this machine has no such user")
    folder = (PROJECT / place).resolve()
    if folder.is_file():
        raise ValueError(f"METASEG_HOME: found the file {place!r}; expected a folder, which need not exist yet")
    return folder


def second_reader_masks(folder: str) -> list[Path]:
    """Masks of a second reader, ``<case>.nii.gz``, in a folder that is named from the project folder."""
    return sorted((PROJECT / Path(folder).expanduser()).glob("*.nii.gz")) if folder else []


class _Below:
    """A path in the folder of a layout."""

    def __init__(self, name: str):
        self.name = name

    def __get__(self, layout: Any, kind: type) -> Path:
        return layout.root / self.name


@dataclass(frozen=True)
class StudyLayout:
    """Paths of one study, in the folder that holds ``runs/``."""

    study: str
    base: Path = field(default_factory=home)

    synthetic_cohort = _Below("synthetic_cohort")
    imported = _Below("imported")
    radiotherapy = _Below("radiotherapy")
    radiotherapy_record = _Below("radiotherapy/provenance.json")  # written last by 07, with checksums of its tables
    follow_up = _Below("follow_up")
    follow_up_record = _Below("follow_up/provenance.json")  # written last by 09, with checksums of its tables
    dataset = _Below("dataset.json")  # the cohort with its folds; written last by 01, with checksums of its tables
    cases_table = _Below("cases.csv")
    lesions_table = _Below("lesions.csv")
    problems_table = _Below("problems.csv")
    examinations = _Below("examinations")  # what 01 read of each case: <case>.npz
    former_examinations = _Below("examinations/former")  # of cases whose masks were corrected by hand: as they came
    case_store = _Below("cases")
    preprocessing_table = _Below("preprocessing.csv")
    preprocessing_problems_table = _Below("preprocessing_problems.csv")
    testing = _Below("testing")  # masks of unlabelled cases, made by `python -m metaseg_nb predict`
    workflow_settings = _Below("snakemake.json")  # tells Snakemake, and its jobs, which study it runs
    workflow_profile = _Below("snakemake_profile")  # the Snakemake profile that the study was last started with
    slurm_logs = _Below("slurm_logs")  # what jobs of a cluster print; only where the study was sent to a cluster
    cross_validation = _Below("cross_validation")
    leaderboard = _Below("cross_validation/leaderboard.csv")
    comparison = _Below("cross_validation/provenance.json")  # written last by 04, with checksums of its tables
    review = _Below("review")
    reviewed_cases = _Below("review/cases.csv")  # written last by 05
    gallery = _Below("review/gallery")  # pictures of cases and lesions
    gallery_table = _Below("review/gallery/entries.csv")  # what each picture shows; written last
    gallery_record = _Below("review/gallery.json")  # checksum of the gallery's table
    verdicts_table = _Below("review/verdicts.csv")  # what a person thinks of each case
    annotations = _Below("annotations")  # labels of partly annotated cases, by kind of annotation
    by_hand = _Below("annotations_by_hand")  # of each reader: <case>.nii.gz and its record, written by 08
    by_hand_record = _Below("annotations_by_hand/provenance.json")  # written last by 08, with checksums of its tables
    masks_by_hand = _Below("masks_by_hand")  # of them, those that this study takes, with its own value of a lesion
    proposals = _Below("proposals")  # what networks propose for cases to annotate: mask and probability
    next_patients_table = _Below("next_patients.csv")  # patients without a label, in the order to annotate them in
    annotation_budget = _Below("annotation_budget")
    budget_record = _Below("annotation_budget/provenance.json")  # written last by 06, with checksums of its tables
    annotation_answers = _Below("annotation_budget/answers.md")  # what 06 answers

    arms = _Below("arms")
    pretrainings = _Below("pretraining")
    notebooks = _Below("notebooks")  # executed copies of those of the whole study

    @classmethod
    def names(cls) -> set[str]:
        """Names of all files and folders of a study."""
        return {Path(part.name).parts[0] for part in vars(cls).values() if isinstance(part, _Below)}

    @property
    def root(self) -> Path:
        return self.base / "runs" / self.study

    @property
    def report(self) -> Path:
        return self.base / "reports" / self.study

    @property
    def key(self) -> Path:
        """Which code is which case or patient: apart from the study, and from all that is handed on."""
        return self.base / "keys" / f"{self.study}.csv"

    @property
    def figures(self) -> Path:
        return self.base / "figures" / self.study

    def run(self, model: str, fold: int, arm: str = "", seed: int = 0) -> "RunLayout":
        """One network on one fold; in an arm of an annotation budget also one of several seeds."""
        return RunLayout((self.arms / arm / f"seed{seed}" if arm else self.root) / model / f"fold{fold}")

    def prediction_files(self, case: str, fold: int | None, models: Iterable[str]) -> dict[str, Path]:
        """The prediction of each network for a case of a fold, made by the model that did not see it."""
        assert fold is not None, "cases of a study have folds"
        return {model: self.run(model, fold).predictions / f"{case}.nii.gz" for model in models}

    def pretraining(self, model: str, fold: int, seed: int) -> "RunLayout":
        """One network that learns from images without labels."""
        return RunLayout(self.pretrainings / f"seed{seed}" / model / f"fold{fold}")

    def notebook(self, notebook: str) -> Path:
        """Where the executed copy of a notebook of the whole study is kept."""
        return self.notebooks / f"{notebook}.ipynb"


@dataclass(frozen=True)
class RunLayout:
    """Paths of one run: one network on one fold."""

    root: Path

    annotation_table = _Below("annotation.csv")  # what of each case in training and selection was annotated
    pseudo_labels = _Below("pseudo_labels")  # labels that the networks of another arm gave cases without annotation
    ranking_table = _Below("ranking.csv")  # patients in the order in which an arm would have them annotated
    ranking_record = _Below("ranking.json")  # which networks ranked which cases; checksum of the table
    last_checkpoint = _Below("last.pt")  # what training goes on from, and the weights of the last epoch
    previous_checkpoint = _Below("previous.pt")  # the one before the last, should that be damaged
    best_checkpoint = _Below("best.pt")  # the weights that predict
    other_checkpoint = _Below("other.pt")  # those that were not kept, until they have predicted the test set once
    history = _Below("history.csv")
    tensorboard = _Below("tensorboard")
    predictions = _Below("predictions")
    metrics_table = _Below("metrics.csv")
    other_predictions = _Below("predictions_other")  # of the weights that were not kept, to see what the rule costs
    other_metrics_table = _Below("metrics_other.csv")
    lesions_table = _Below("lesions.csv")
    detections_table = _Below("detections.csv")  # what is found at each threshold of the probability
    operating_points_table = _Below("operating_points.csv")  # what is found by each decision that could be taken
    calibration_table = _Below("calibration.csv")  # what share of the voxels of each probability is lesion
    earlier_table = _Below("earlier.csv")  # follow-ups after the mask predicted before, the reference's, and none
    metrics = _Below("metrics.json")  # written last: where it is, the run is finished

    def notebook(self, notebook: str) -> Path:
        """Where the executed copy of a notebook of this run is kept."""
        return self.root / f"{notebook}.ipynb"

    @property
    def tables(self) -> list[Path]:
        """All tables that later notebooks read of a run."""
        of_scores = [self.metrics_table, self.other_metrics_table, self.lesions_table]
        of_probabilities = [self.detections_table, self.operating_points_table, self.calibration_table]
        return [self.annotation_table, *of_scores, *of_probabilities]

    @property
    def trained(self) -> list[Path]:
        """All that training writes; what it goes on from is last."""
        weights = [self.other_checkpoint, self.best_checkpoint, self.previous_checkpoint, self.last_checkpoint]
        return [self.history, self.tensorboard, *weights]

    @property
    def results(self) -> list[Path]:
        """All that is made with the trained network; what marks the run as finished is first."""
        return [self.metrics, *self.tables, self.earlier_table, self.predictions, self.other_predictions]
