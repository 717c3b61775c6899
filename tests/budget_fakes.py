"""A finished budget study that no network was trained for: the tables of its runs, with results that a rule made."""

from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from metaseg_nb.annotation.results import NO_PHYSICIAN
from metaseg_nb.checksums import write_record
from metaseg_nb.cohort.cases import Case, Cohort
from metaseg_nb.cohort.datalist import write_datalist
from metaseg_nb.cohort.folds import budget_of, split
from metaseg_nb.cohort.volumes import Volume
from metaseg_nb.evaluation.scoring import case_facts, score_against
from metaseg_nb.files import write_json, write_table
from metaseg_nb.layout import PARAMS, StudyLayout
from metaseg_nb.parameters import read_parameters, resolve
from metaseg_nb.settings import Budget
from metaseg_nb.training.finished_run import scored_with

# What contouring a patient takes in the mean: four lesions of nine slices each.
LESIONS, SLICES_EACH = 4, 9
COSTS = {"minutes_per_case": 2.0, "minutes_per_lesion": 1.0, "minutes_per_slice": 0.25}
COSTS |= {"minutes_per_box": 0.5, "minutes_per_point": 0.2, "minutes_per_line": 0.25}


def settings_with(**changes) -> Budget:
    """Parameters of notebook 06, with the costs `COSTS`."""
    asked = {"study": "fake", "models": ["unet"], "arms": [], "seeds": [0], "n_bootstrap": 200, "seed": 0}
    return Budget.check(asked | COSTS | changes)


@dataclass(frozen=True)
class FakeBudget:
    """A study and what its results follow: 1 - Dice = ``a`` patients ^ -``b``, plus what an arm gains."""

    layout: StudyLayout
    cohort: Cohort
    models: tuple[str, ...] = ("unet",)
    arms: tuple[str, ...] = ("patients_25", "patients_50", "patients_100")
    seeds: tuple[int, ...] = (0,)
    a: float = 0.8
    b: float = 0.4
    noise: float = 0.05

    def write(self, gains=None) -> "FakeBudget":
        """Write all runs; ``gains`` of Dice by (model, arm) or arm."""
        write_datalist(self.layout.dataset, self.cohort)
        asked = {"study": self.layout.study, "models": [*self.models], "n_folds": self.cohort.n_folds}
        self.study_file.write_text(yaml.safe_dump(asked))
        write_json(self.layout.workflow_settings, {"study": str(self.study_file)})  # as `study` does
        for run in product(self.models, self.arms, self.seeds, range(self.cohort.n_folds)):
            self.write_run(*run, (gains or {}).get(run[:2], (gains or {}).get(run[1], 0.0)))
        return self

    @property
    def study_file(self) -> Path:
        """Its parameters."""
        return self.layout.root / "fake.yaml"

    def write_run(self, model, arm, seed, fold, gain=0.0):
        """Write the tables that notebook 03 leaves of one run."""
        stated, parts = read_parameters(PARAMS / "arms" / f"{arm}.yaml"), split(self.cohort, fold)
        run, budget = (
            self.layout.run(model, fold, arm, seed),
            budget_of(parts, stated.get("annotated_share", 1.0), seed),
        )
        names = {case.name for case in [*budget.training, *budget.selection]}
        rows = [_annotated(case, "training", _kind(stated, case.name in names)) for case in parts.training]
        rows += [_annotated(case, "selection", _kind({}, case.name in names)) for case in parts.selection]
        write_table(run.annotation_table, pd.DataFrame(rows))
        error = self.a * max(1, len({case.patient for case in budget.training})) ** -self.b - gain
        metrics = pd.DataFrame([self._scored(case, error, model, arm, seed) for case in parts.test])
        write_table(run.metrics_table, metrics)
        write_table(run.lesions_table, pd.concat([_row(case)[1] for case in parts.test]))
        for table in (run.other_metrics_table, run.detections_table, run.operating_points_table, run.calibration_table):
            write_table(table, metrics)
        facts = {"parameters": 1234, "train_seconds": 9.5, "best_epoch": 3, "last_epoch": 4, "selection_dice": 0.5}
        facts |= {"weights": "last", "operating_point": "balanced"}
        settings = resolve("03_train", str(self.study_file), model, fold, arm, seed)
        facts |= {"settings": settings, "recipe": {"spacing_mm": 1.0}}
        write_record(run.metrics, facts | scored_with(self.cohort), run.tables)

    def _scored(self, case, error, model, arm, seed):
        """A patient is as hard in every arm; the rest of the noise is of each training."""
        hard = np.random.default_rng([7, *case.name.encode()]).normal(0, 2 * self.noise)
        own = np.random.default_rng([seed, *f"{case.name}{model}{arm}".encode()]).normal(0, self.noise)
        wrong = float(np.clip(error + hard + own, 0.01, 0.99)) if self.noise else error
        missed = round(wrong * case.n_lesions)
        counts = {"n_truth": case.n_lesions, "n_detected": case.n_lesions - missed, "n_missed": missed}
        return _row(case)[0] | {"dice": 1 - wrong, **counts, "n_false": round(4 * wrong)}


def fake_cohort(folder: Path, n_patients: int = 24, n_folds: int = 3) -> Cohort:
    """Patients of one case each, four lesions in each, in folds in turn."""
    cases = [
        Case(
            f"case{i:02}", (folder / f"c{i}.nii.gz",), folder / f"m{i}.nii.gz", f"p{i:02}", "lung", i % n_folds, LESIONS
        )
        for i in range(n_patients)
    ]
    return Cohort("synthetic results", "made by a rule", cases)


def _row(case):
    """A row of metrics.csv and one of lesions.csv, with the columns that scoring writes."""
    row, lesions = _scored_cube()
    return row | case_facts(case), lesions.assign(**case_facts(case))


@cache
def _scored_cube():
    mask = np.zeros((6, 6, 6), np.uint8)
    mask[1:4, 1:4, 1:4] = 1
    truth = Volume(mask, np.eye(4), np.array([[0, 1], [1, 1], [2, 1]]))
    return score_against(Case("cube", (Path(),), None, "p", "lung", 0), truth, truth)


def _kind(stated, is_chosen):
    rest = stated.get("unannotated") if stated.get("unannotated") in NO_PHYSICIAN else "none"
    return stated.get("annotation", "full") if is_chosen else rest


def _annotated(case, role, kind):
    """A row of annotation.csv."""
    n = case.n_lesions
    contoured = {"full": n, "largest": 1, "slices": n}.get(kind, 0)
    slices = {"full": n * SLICES_EACH, "largest": SLICES_EACH + 4, "slices": 2 * n}.get(kind, 0)
    work = {"n_lesions": n, "n_contoured": contoured, "n_slices": slices}
    work |= {"n_boxes": n * (kind == "boxes"), "n_points": n * (kind == "points"), "n_lines": n * (kind == "lines")}
    facts = {"case": case.name, "patient": case.patient, "primary": case.primary, "role": role, "annotation": kind}
    return facts | work | {"known_share": 1.0}
