"""Results of all runs of an annotation budget: every arm whole and on the same patients, or an error that names all."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product

import numpy as np
import pandas as pd

from metaseg_nb.annotation.costs import Costs, run_effort
from metaseg_nb.annotation.resampling import Draws
from metaseg_nb.cohort.cases import Cohort
from metaseg_nb.cohort.problems import CohortError, Problem
from metaseg_nb.evaluation.pooling import pool
from metaseg_nb.files import read_table
from metaseg_nb.layout import RunLayout, StudyLayout, parameter_file
from metaseg_nb.parameters import read_parameters

SCORES = ["dice", "n_truth", "n_detected", "n_missed", "n_false"]
# Settings of an arm that its name, its share, its kind of annotation and its use of the rest say already.
SAID = {"arm", "arm_title", "annotated_share", "annotation", "unannotated"}
SAID |= {"n_largest", "slice_step", "teacher", "confidence"}


@dataclass(frozen=True)
class BudgetResults:
    """What every network made of every budget.

    Attributes
    ----------
    patients : DataFrame
        A row per (``model``, ``arm``, ``seed``, ``patient``): ``dice``, ``n_truth``, ``n_detected``, ``n_missed``,
        ``n_false``, means over the patient's cases.
    efforts : DataFrame
        A row per run: ``model``, ``arm``, ``seed``, ``fold``, and the keys of `run_effort`.
    arms : DataFrame
        A row per arm, which is the index: ``title``, ``share``, ``annotation``, ``unannotated``, ``recipe`` (what else
        it sets, such as "sampling: roi"), and means over its runs of ``patients``, ``minutes`` and the rest.
    """

    patients: pd.DataFrame
    efforts: pd.DataFrame
    arms: pd.DataFrame

    @property
    def models(self) -> list[str]:
        """Networks, in their order."""
        return list(dict.fromkeys(self.patients["model"]))

    @property
    def outlined(self) -> list[str]:
        """Arms that differ in nothing but the number of fully outlined patients, from few to many."""
        plain = (
            (self.arms["annotation"] == "full") & (self.arms["unannotated"] == "unused") & (self.arms["recipe"] == "")
        )
        return list(self.arms[plain].sort_values("patients").index)

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
    """The study as if it had this arm and seed only."""

    arm: str
    seed: int

    def run(self, model: str, fold: int) -> RunLayout:
        return super().run(model, fold, self.arm, self.seed)


def read_budget(
    layout: StudyLayout, cohort: Cohort, models: Sequence[str], arms: Sequence[str], seeds: Sequence[int], costs: Costs
) -> BudgetResults:
    """Read the results of all networks, arms, seeds and folds.

    Raises
    ------
    CohortError
        The study has no arms. Or with all that is wrong: what `pool` finds in an arm, so that all are scored on the
        same patients by the same folds, each case once; and training sets that hold other cases than those outside
        their fold, each once.
    """
    if not arms:
        fix = "name files of params/arms in the study's file, or in the notebook's parameters"
        raise CohortError.one("-", "the study's file", "no arms", "arms to compare", fix)
    problems, scores, efforts = [], [], []
    for arm, seed in product(arms, seeds):
        where = {"arm": arm, "seed": seed}
        of_arm = _ArmLayout(layout.study, layout.base, **where)
        try:
            scores.append(pool(of_arm, cohort, models).metrics.assign(**where))
        except CohortError as error:
            problems += [_of_arm(problem, arm, seed) for problem in error.problems]
            continue
        for model, fold in product(models, range(cohort.n_folds)):
            annotation, wrong = _annotation(of_arm, cohort, model, fold)
            problems += [_of_arm(problem, arm, seed) for problem in wrong]
            if not wrong:
                efforts.append({"model": model, **where, "fold": fold, **run_effort(annotation, costs)})
    if problems:
        raise CohortError(problems)
    patients = pd.concat(scores).groupby(["model", "arm", "seed", "patient"], sort=False)[SCORES].mean().reset_index()
    efforts = pd.DataFrame(efforts)
    means = efforts.drop(columns=["model", "seed", "fold"]).groupby("arm").mean()
    return BudgetResults(patients, efforts, pd.DataFrame(map(_arm, arms)).set_index("arm").join(means))


def _arm(arm: str) -> dict[str, str | float]:
    said = read_parameters(parameter_file("arm", arm))
    return {
        "arm": arm,
        "title": said["arm_title"],
        "share": said.get("annotated_share", 1.0),
        "annotation": said.get("annotation", "full"),
        "unannotated": said.get("unannotated", "unused"),
        "recipe": ", ".join(f"{key}: {value}" for key, value in sorted(said.items()) if key not in SAID),
    }


def _annotation(layout: _ArmLayout, cohort: Cohort, model: str, fold: int) -> tuple[pd.DataFrame, list[Problem]]:
    """What was annotated for a run; every case outside of the fold must be there once."""
    file, run = layout.run(model, fold).annotation_table, f"{model}, fold {fold}"
    table = read_table(file)
    times, outside = table["case"].value_counts(), {case.name for case in cohort.cases if case.fold != fold}
    return table, [
        Problem(
            f"{run}, {name}",
            file.name,
            f"the case {times.get(name, 0)} times",
            "every case of training and selection set once, and none of the test set",
            "run 03 for it again",
        )
        for name in sorted(outside | set(times.index))
        if times.get(name, 0) != (name in outside)
    ]


def _of_arm(problem: Problem, arm: str, seed: int) -> Problem:
    return replace(problem, case=f"{arm}, seed {seed}: {problem.case}")
