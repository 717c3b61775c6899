"""Results of all runs of an annotation budget, every arm on the same patients; and resamples of patients and seeds."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from typing import Self

import numpy as np
import pandas as pd

from metaseg_nb.annotation.costs import run_effort
from metaseg_nb.cohort.cases import Cohort
from metaseg_nb.cohort.problems import CohortError, Problem
from metaseg_nb.evaluation.intervals import percentiles
from metaseg_nb.evaluation.pooling import pool
from metaseg_nb.files import read_table
from metaseg_nb.layout import RunLayout, StudyLayout, parameter_file
from metaseg_nb.parameters import read_parameters
from metaseg_nb.settings import Budget

SCORES = ["dice", "n_truth", "n_detected", "n_missed", "n_false"]
# Keys of an arm's file that other columns of the table of arms show.
IN_COLUMNS = {"arm", "arm_title", "annotated_share", "annotation", "unannotated"}
IN_COLUMNS |= {"n_largest", "slice_step", "teacher", "confidence"}


@dataclass(frozen=True)
class Draws:
    """Resamples of patients and of seeds, the same for everything that is compared.

    Patients and seeds are drawn separately, each with replacement, and crossed (pigeonhole bootstrap). Intervals are
    too wide where trainings hardly differ, and too narrow where they differ much and seeds are few: in simulated
    studies of three or five seeds, 95 % intervals held the truth in 84 to 99 %. With one seed they do not show how
    much another training would differ.

    Attributes
    ----------
    patients : ndarray of int, shape (B, P)
        How often each resample draws each patient.
    seeds : ndarray of int, shape (B, S)

    References
    ----------
    Owen 2007, Ann. Appl. Stat. 1(2):386-411.
    """

    patients: np.ndarray
    seeds: np.ndarray

    @classmethod
    def of(cls, n_patients: int, n_seeds: int, n_bootstrap: int, seed: int) -> Self:
        """Draw ``n_bootstrap`` times."""
        rng = np.random.default_rng(seed)
        return cls(*(rng.multinomial(n, np.full(n, 1 / n), n_bootstrap) for n in (n_patients, n_seeds)))

    def ratios(self, parts: np.ndarray, wholes: np.ndarray) -> np.ndarray:
        """``parts.sum() / wholes.sum()``, both of shape (S, P), in each resample; shape (B,), NaN without wholes."""
        return ratio(*(((self.seeds @ values) * self.patients).sum(axis=1) for values in (parts, wholes)))

    def interval(self, resampled: np.ndarray, level: float = 0.95) -> tuple[float, float]:
        """Percentile interval of a number from its values in the resamples; NaN with fewer than two patients."""
        return percentiles(resampled, level) if self.patients.shape[1] > 1 else (float("nan"), float("nan"))


def ratio(parts: np.ndarray, wholes: np.ndarray) -> np.ndarray:
    """Quotient; NaN where there are no wholes."""
    parts, wholes = np.asarray(parts, float), np.asarray(wholes, float)
    return np.divide(parts, wholes, out=np.full(parts.shape, np.nan), where=wholes > 0)


@dataclass(frozen=True)
class BudgetResults:
    """Results of every network in every arm.

    Attributes
    ----------
    patients : DataFrame
        A row per (``model``, ``arm``, ``seed``, ``patient``) with the columns of `SCORES`, means over the patient's
        cases.
    efforts : DataFrame
        A row per run: ``model``, ``arm``, ``seed``, ``fold``, and the keys of `run_effort`.
    arms : DataFrame
        A row per arm, which is the index: ``title``, ``share``, ``annotation``, ``unannotated``, ``recipe`` (what else
        it sets, such as "sampling: roi"), and the means over its runs of ``patients``, ``minutes`` and the rest.
    """

    patients: pd.DataFrame
    efforts: pd.DataFrame
    arms: pd.DataFrame

    @property
    def models(self) -> list[str]:
        """Networks, in their order."""
        return list(dict.fromkeys(self.patients["model"]))

    @property
    def budgets(self) -> list[str]:
        """Arms that differ only in the number of fully contoured patients, from few to many."""
        plain = self.arms[["annotation", "unannotated", "recipe"]] == ["full", "unused", ""]
        return list(self.arms[plain.all(axis=1)].sort_values("patients").index)

    @cached_property
    def _scores(self) -> pd.DataFrame:
        return self.patients.pivot_table(index=["model", "arm", "seed"], columns="patient", values=SCORES)

    def values(self, model: str, arm: str, score: str) -> np.ndarray:
        """A score of each patient by each seed's network, shape (S, P)."""
        return self._scores.loc[(model, arm), score].to_numpy(float)

    def draws(self, n_bootstrap: int, seed: int) -> Draws:
        """Resamples of these patients and seeds."""
        return Draws.of(self.patients["patient"].nunique(), self.patients["seed"].nunique(), n_bootstrap, seed)


@dataclass(frozen=True, kw_only=True)
class _ArmLayout(StudyLayout):
    """The study as if it had only this arm and seed."""

    arm: str
    seed: int

    def run(self, model: str, fold: int) -> RunLayout:
        return super().run(model, fold, self.arm, self.seed)


def read_budget(layout: StudyLayout, cohort: Cohort, settings: Budget) -> BudgetResults:
    """Read the results of all networks, arms, seeds and folds, and what a physician did for them.

    Raises
    ------
    CohortError
        The study has no arms. Or all problems at once: what `pool` finds in an arm, so that all arms are scored on
        the same patients by the same folds, each case once; and training sets that do not hold every case outside
        their fold once.
    """
    if not settings.arms:
        fix = "name files of params/arms in the study's file, or in the notebook's parameters"
        raise CohortError.one("-", "the study's file", "no arms", "arms to compare", fix)
    problems, scores, efforts = [], [], []
    for arm, seed in product(settings.arms, settings.seeds):
        where = {"arm": arm, "seed": seed}
        of_arm = _ArmLayout(layout.study, layout.base, **where)
        try:
            scores.append(pool(of_arm, cohort, settings.models).metrics.assign(**where))
        except CohortError as error:
            problems += in_arm(error.problems, arm, seed)
            continue
        for model, fold in product(settings.models, range(cohort.n_folds)):
            file = of_arm.run(model, fold).annotation_table
            annotation = read_table(file)
            if wrong := _not_once(annotation["case"], cohort, fold, f"{model}, fold {fold}", file.name):
                problems += in_arm(wrong, arm, seed)
            else:
                efforts.append({"model": model, **where, "fold": fold, **run_effort(annotation, settings)})
    if problems:
        raise CohortError(problems)
    patients = pd.concat(scores).groupby(["model", "arm", "seed", "patient"], sort=False)[SCORES].mean().reset_index()
    efforts = pd.DataFrame(efforts)
    means = efforts.drop(columns=["model", "seed", "fold"]).groupby("arm").mean()
    return BudgetResults(patients, efforts, pd.DataFrame(map(_arm, settings.arms)).set_index("arm").join(means))


def in_arm(problems: Iterable[Problem], arm: str, seed: int) -> list[Problem]:
    """Problems of runs, with the arm and seed that they are of."""
    return [replace(problem, case=f"{arm}, seed {seed}: {problem.case}") for problem in problems]


def _arm(arm: str) -> dict[str, str | float]:
    stated = read_parameters(parameter_file("arm", arm))
    return {
        "arm": arm,
        "title": stated["arm_title"],
        "share": stated.get("annotated_share", 1.0),
        "annotation": stated.get("annotation", "full"),
        "unannotated": stated.get("unannotated", "unused"),
        "recipe": ", ".join(f"{key}: {value}" for key, value in sorted(stated.items()) if key not in IN_COLUMNS),
    }


def _not_once(cases: pd.Series, cohort: Cohort, fold: int, run: str, file: str) -> list[Problem]:
    """Every case outside the fold must be in a run's training or selection set once, and no other."""
    times, outside = cases.value_counts(), {case.name for case in cohort.cases if case.fold != fold}
    expected = "every case of training and selection set once, and none of the test set"
    return [
        Problem(f"{run}, {name}", file, f"the case {times.get(name, 0)} times", expected, "run 03 for it again")
        for name in sorted(outside | set(times.index))
        if times.get(name, 0) != (name in outside)
    ]
