"""Where files live. Every path the workbook reads or writes is named here."""

import os
from dataclasses import dataclass, field
from pathlib import Path

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
        ``~name`` of nobody.
    """
    place = os.path.expanduser(os.environ.get("METASEG_HOME", "").strip())
    if place.startswith("~"):
        raise ValueError(f"METASEG_HOME: found {place!r}; expected a folder: this machine has no such user")
    return (PROJECT / place).resolve()


@dataclass(frozen=True)
class StudyLayout:
    """Paths of one study, in the folder that holds ``runs/``."""

    study: str
    base: Path = field(default_factory=home)

    @property
    def root(self) -> Path:
        return self.base / "runs" / self.study

    @property
    def synthetic_cohort(self) -> Path:
        return self.root / "synthetic_cohort"

    @property
    def dataset(self) -> Path:
        """The cohort with its folds; written last by 01, with the checksums of its tables."""
        return self.root / "dataset.json"

    @property
    def cases_table(self) -> Path:
        return self.root / "cases.csv"

    @property
    def lesions_table(self) -> Path:
        return self.root / "lesions.csv"

    @property
    def problems_table(self) -> Path:
        return self.root / "problems.csv"

    @property
    def examinations(self) -> Path:
        """What one look at each case gave: ``<case>.npz``."""
        return self.root / "examinations"

    @property
    def case_store(self) -> Path:
        return self.root / "cases"

    @property
    def preprocessing_table(self) -> Path:
        return self.root / "preprocessing.csv"

    @property
    def preprocessing_problems_table(self) -> Path:
        return self.root / "preprocessing_problems.csv"

    @property
    def testing(self) -> Path:
        """Masks of unlabelled cases: ``<case>.nii.gz``, made by ``python -m metaseg_nb predict``."""
        return self.root / "testing"

    @property
    def workflow_settings(self) -> Path:
        """Tells Snakemake, and its jobs, which study it runs."""
        return self.root / "snakemake.json"

    @property
    def workflow_profile(self) -> Path:
        """Copy of the Snakemake profile that the study was last started with."""
        return self.root / "snakemake_profile"

    @property
    def slurm_logs(self) -> Path:
        """What jobs of a cluster print; there where the study was ever sent to one."""
        return self.root / "slurm_logs"

    @property
    def cross_validation(self) -> Path:
        return self.root / "cross_validation"

    @property
    def leaderboard(self) -> Path:
        return self.cross_validation / "leaderboard.csv"

    @property
    def comparison(self) -> Path:
        """How the networks were compared, with the checksums of the tables beside it; written last by 04."""
        return self.cross_validation / "provenance.json"

    @property
    def review(self) -> Path:
        return self.root / "review"

    @property
    def gallery(self) -> Path:
        """Pictures of cases and lesions."""
        return self.review / "gallery"

    @property
    def gallery_table(self) -> Path:
        """What each picture shows; written last: where it is, the gallery is whole."""
        return self.gallery / "entries.csv"

    @property
    def gallery_record(self) -> Path:
        """Checksum of the gallery's table."""
        return self.review / "gallery.json"

    @property
    def verdicts_table(self) -> Path:
        """What a person thinks of each case."""
        return self.review / "verdicts.csv"

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

    @property
    def annotations(self) -> Path:
        """Labels of partly annotated cases, by kind of annotation."""
        return self.root / "annotations"

    @property
    def next_patients_table(self) -> Path:
        """Patients without a label, in the order in which they should be annotated."""
        return self.root / "next_patients.csv"

    @property
    def annotation_budget(self) -> Path:
        return self.root / "annotation_budget"

    @property
    def budget_record(self) -> Path:
        """With what 06 was made, and the checksums of the tables beside it; written last by 06."""
        return self.annotation_budget / "provenance.json"

    @property
    def annotation_answers(self) -> Path:
        """What 06 answers, Markdown."""
        return self.annotation_budget / "answers.md"

    def run(self, model: str, fold: int, arm: str = "", seed: int = 0) -> "RunLayout":
        """One network on one fold; in an arm of an annotation budget also one of several seeds."""
        return RunLayout((self.root / "arms" / arm / f"seed{seed}" if arm else self.root) / model / f"fold{fold}")

    def pretraining(self, model: str, fold: int, seed: int) -> "RunLayout":
        """One network that learns from images without labels."""
        return RunLayout(self.root / "pretraining" / f"seed{seed}" / model / f"fold{fold}")

    def notebook(self, notebook: str) -> Path:
        """Where the executed copy of a notebook of the whole study is kept."""
        return self.root / "notebooks" / f"{notebook}.ipynb"


@dataclass(frozen=True)
class RunLayout:
    """Paths of one run: one network on one fold."""

    root: Path

    def notebook(self, notebook: str) -> Path:
        """Where the executed copy of a notebook of this run is kept."""
        return self.root / f"{notebook}.ipynb"

    @property
    def annotation_table(self) -> Path:
        """What of each case in training and selection was annotated."""
        return self.root / "annotation.csv"

    @property
    def pseudo_labels(self) -> Path:
        """Labels that the networks of another arm gave cases without annotation."""
        return self.root / "pseudo_labels"

    @property
    def ranking_table(self) -> Path:
        """Patients in the order in which an arm would have them annotated."""
        return self.root / "ranking.csv"

    @property
    def last_checkpoint(self) -> Path:
        return self.root / "last.pt"

    @property
    def previous_checkpoint(self) -> Path:
        """The one before the last, should that be damaged."""
        return self.root / "previous.pt"

    @property
    def best_checkpoint(self) -> Path:
        return self.root / "best.pt"

    @property
    def history(self) -> Path:
        return self.root / "history.csv"

    @property
    def tensorboard(self) -> Path:
        return self.root / "tensorboard"

    @property
    def predictions(self) -> Path:
        return self.root / "predictions"

    @property
    def metrics_table(self) -> Path:
        return self.root / "metrics.csv"

    @property
    def last_predictions(self) -> Path:
        """Masks of the last epoch's weights, to see what choosing the best epoch did."""
        return self.root / "predictions_last"

    @property
    def last_metrics_table(self) -> Path:
        return self.root / "metrics_last.csv"

    @property
    def lesions_table(self) -> Path:
        return self.root / "lesions.csv"

    @property
    def detections_table(self) -> Path:
        """What is found at each threshold of the probability."""
        return self.root / "detections.csv"

    @property
    def calibration_table(self) -> Path:
        """What share of the voxels of each probability is lesion."""
        return self.root / "calibration.csv"

    @property
    def tables(self) -> list[Path]:
        """All tables that later notebooks read of a run."""
        of_scores = [self.metrics_table, self.last_metrics_table, self.lesions_table]
        return [self.annotation_table, *of_scores, self.detections_table, self.calibration_table]

    @property
    def metrics(self) -> Path:
        """Written last: where it is, the run is finished."""
        return self.root / "metrics.json"

    @property
    def trained(self) -> list[Path]:
        """All that training writes; what it goes on from is last."""
        return [self.history, self.tensorboard, self.best_checkpoint, self.previous_checkpoint, self.last_checkpoint]

    @property
    def results(self) -> list[Path]:
        """All that is made with the trained network; what marks the run as finished is first."""
        return [self.metrics, *self.tables, self.ranking_table, self.predictions, self.last_predictions]
