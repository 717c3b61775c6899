"""Results of all runs of an annotation budget, every arm on the same patients, and a physician's minutes for it."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product

import numpy as np
import pandas as pd

from metaseg_nb.annotation.readings import MASK
from metaseg_nb.batch.study import started_as
from metaseg_nb.checksums import read_record
from metaseg_nb.cohort.cases import Cohort
from metaseg_nb.cohort.problems import CohortError, Problem, broken, refusal
from metaseg_nb.evaluation.pooling import decided_by, differing_settings, not_once, pool
from metaseg_nb.files import DamagedFile, read_table
from metaseg_nb.layout import StudyLayout, parameter_file
from metaseg_nb.parameters import read_parameters, resolve
from metaseg_nb.settings import Budget

SCORES = ["dice", "n_truth", "n_detected", "n_missed", "n_false"]
# Keys of an arm's file that other columns of the table of arms show.
IN_COLUMNS = {"arm", "arm_title", "annotated_share", "annotation", "slice_step", "unannotated"}
IN_COLUMNS |= {"n_largest", "teacher", "models", "confidence"}
# Kinds of "annotation" for which no physician looked at the case.
NO_PHYSICIAN = ("none", "self_training", "planted")
COUNTS = {"n_contoured": "lesion", "n_slices": "slice", "n_boxes": "box", "n_points": "point", "n_lines": "line"}


def measured_minutes(cohort: Cohort) -> dict[str, float]:
    """Minutes by case of the masks that were drawn by hand; a correction says nothing about a whole contour."""
    return {case.name: case.minutes for case in cohort.labelled if case.minutes is not None and case.begun_with != MASK}


def run_effort(annotation: pd.DataFrame, settings: Budget, measured: Mapping[str, float]) -> dict[str, float]:
    """What a physician did for one run; a case that no physician annotated took 0 minutes.

    Parameters
    ----------
    annotation : DataFrame
        A row per case, from `annotated_training_set`.
    settings : Budget
        Its ``minutes_per_...``.
    measured : mapping of str to float
        From `measured_minutes`: what these cases took in truth, where they are contoured in full.

    Returns
    -------
    dict
        ``patients`` (annotated), ``cases`` (read), ``measured_cases`` (whose minutes were measured), the columns of
        `COUNTS`, ``minutes``, and of these ``selection_patients`` and ``selection_minutes``, for the selection set.
    """
    done = annotation[~annotation["annotation"].isin(NO_PHYSICIAN)]
    done = done.assign(**{count: 0 for count in COUNTS if count not in done})  # earlier versions knew no lines
    costs = pd.Series({count: getattr(settings, f"minutes_per_{item}") for count, item in COUNTS.items()})
    minutes, selects = settings.minutes_per_case + done[list(COUNTS)].dot(costs), done["role"] == "selection"
    known = done["case"].map(pd.Series(measured, dtype=float)).where(done["annotation"] == "full")
    minutes = known.fillna(minutes)
    return {
        "patients": done["patient"].nunique(),
        "selection_patients": done.loc[selects, "patient"].nunique(),
        "cases": len(done),
        "measured_cases": known.notna().sum(),
        **done[list(COUNTS)].sum(),
        "minutes": minutes.sum(),
        "selection_minutes": minutes[selects].sum(),
    }


@dataclass(frozen=True)
class BudgetResults:
    """Results of every network in every arm.

    Attributes
    ----------
    patients : DataFrame
        A row per (``model``, ``arm``, ``seed``, ``patient``) with the columns of `SCORES`, means over the patient's
        cases.
    efforts : DataFrame
        A row per run: ``model``, ``arm``, ``seed``, ``fold``, and the keys of `run_effort`; where patients were added
        by a ranking, or at random with as much lesion, ``added_mm3`` is the lesion volume that networks found in them.
    arms : DataFrame
        A row per arm, which is the index: ``title``, ``share``, ``annotation``, ``slice_step`` (0: not stated),
        ``unannotated`` ("ranking_in_rounds" where the teacher's patients were ranked too), ``teachers`` (networks that
        it names; "": those of the study), ``recipe`` (what else it sets, such as "sampling: roi"), and the means over
        its runs of ``patients``, ``minutes`` and the rest.
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


def read_budget(layout: StudyLayout, cohort: Cohort, settings: Budget) -> BudgetResults:
    """Read the results of all networks, arms, seeds and folds, and what a physician did for them.

    Raises
    ------
    CohortError
        The study has no arms, or its file is not found. Or all problems at once: runs with other settings than their
        parameter files have now, because these files describe the arms; of the other arms what `pool` finds, so that
        all arms are scored on the same patients by the same folds, each case once; and training sets that do not hold
        every case outside their fold once.
    """
    if not settings.arms:
        raise refusal("arms", "-", "the study file", "no arms")
    problems, scores, efforts, measured = [], [], [], measured_minutes(cohort)
    study = _study_file(layout)
    for arm, seed in product(settings.arms, settings.seeds):
        if differing := [*_other_settings(layout, cohort, study, settings.models, arm, seed)]:
            problems += in_arm(differing, arm, seed)
            continue
        try:
            metrics = pool(layout, cohort, settings.models, arm=arm, seed=seed).metrics
        except CohortError as error:
            problems += in_arm(error.problems, arm, seed)
            continue
        scores.append(metrics.assign(arm=arm, seed=seed))
        for model, fold in product(settings.models, range(cohort.n_folds)):
            run = layout.run(model, fold, arm, seed)
            annotation = read_table(run.annotation_table)
            problems += in_arm(_wrong_cases(annotation, cohort, model, fold), arm, seed)
            effort = run_effort(annotation, settings, measured)
            if run.ranking_table.is_file():
                done, ranked = ~annotation["annotation"].isin(NO_PHYSICIAN), read_table(run.ranking_table)
                added = ranked["patient"].isin(annotation.loc[done, "patient"])
                effort["added_mm3"] = ranked.loc[added, "found_mm3"].sum()
            efforts.append({"model": model, "arm": arm, "seed": seed, "fold": fold, **effort})
    if problems:
        raise CohortError(problems)
    patients = pd.concat(scores).groupby(["model", "arm", "seed", "patient"], sort=False)[SCORES].mean().reset_index()
    efforts = pd.DataFrame(efforts)
    means = efforts.drop(columns=["model", "seed", "fold"]).groupby("arm").mean()
    return BudgetResults(patients, efforts, pd.DataFrame(map(_arm, settings.arms)).set_index("arm").join(means))


def in_arm(problems: Iterable[Problem], arm: str, seed: int) -> list[Problem]:
    """Problems of runs, with the arm and seed that they are of."""
    return [replace(problem, case=f"{arm}, seed {seed}: {problem.case}") for problem in problems]


def _study_file(layout: StudyLayout) -> str:
    """The study as `resolve` takes it: the file that it was last started with, or its name in ``params/studies``."""
    if started := started_as(layout):
        return started
    if not (file := parameter_file("study", layout.study)).is_file():
        raise refusal("study file", "-", file, "no such file")
    return layout.study


def _other_settings(
    layout: StudyLayout, cohort: Cohort, study: str, models: Iterable[str], arm: str, seed: int
) -> Iterator[Problem]:
    """Runs of an arm whose kept settings, or operating point, are not those of their parameter files."""
    for model in models:
        asked = resolve("03_train", study, model, 0, arm, seed)
        asked = decided_by({"settings": asked, **asked})
        unused = {name: value for name, value in asked.items() if not value}  # may be younger than a run
        for fold in range(cohort.n_folds):
            run, kept = layout.run(model, fold, arm, seed), {}
            with suppress(FileNotFoundError, DamagedFile, KeyError):  # `pool` names what is missing, damaged or too old
                kept = unused | decided_by(read_record(run.metrics))
            if differing := kept and differing_settings(asked | {"fold": fold}, kept):
                found = f"other settings: {differing}"
                yield broken("settings of run", f"{model}, fold {fold}", "metrics.json", found, folder=run.root)


def _wrong_cases(annotation: pd.DataFrame, cohort: Cohort, model: str, fold: int) -> list[Problem]:
    """Every case outside the fold must be in a run's training or selection set once, and no other."""
    outside = {case.name for case in cohort.labelled if case.fold != fold}
    return [
        broken("cases of run", f"{model}, fold {fold}, {name}", "annotation.csv", f"the case {times} times")
        for name, times in not_once(annotation["case"], outside).items()
    ]


def _arm(arm: str) -> dict[str, str | float]:
    stated = read_parameters(parameter_file("arm", arm))
    teacher = read_parameters(parameter_file("arm", stated["teacher"])) if "teacher" in stated else {}
    in_rounds = stated.get("unannotated") == teacher.get("unannotated") == "ranking"
    return {
        "arm": arm,
        "title": stated["arm_title"],
        "share": stated.get("annotated_share", 1.0),
        "annotation": stated.get("annotation", "full"),
        "slice_step": stated.get("slice_step", 0),
        "unannotated": "ranking_in_rounds" if in_rounds else stated.get("unannotated", "unused"),
        "teachers": ", ".join(stated.get("models", [])),
        "recipe": ", ".join(f"{key}: {value}" for key, value in sorted(stated.items()) if key not in IN_COLUMNS),
    }
