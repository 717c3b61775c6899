"""The tables of notebook 04, for those who look at a study's cases."""

from dataclasses import dataclass
from itertools import product
from typing import Self

import numpy as np
import pandas as pd

from metaseg_nb.cohort.cases import Cohort
from metaseg_nb.cohort.datalist import read_study_cohort
from metaseg_nb.cohort.problems import CohortError, Problem
from metaseg_nb.cohort.written import read_written
from metaseg_nb.files import read_table
from metaseg_nb.layout import StudyLayout, home
from metaseg_nb.settings import THRESHOLD_MODEL


@dataclass(frozen=True)
class StudyTables:
    """A study whose networks have been compared.

    Parameters
    ----------
    layout : StudyLayout
    cohort : Cohort
    board, metrics, lesions : DataFrame
        Pooled: a row per model, per (``model``, case) and per (``model``, reference lesion).
    models : list of str
        Networks, best first, without the intensity threshold.
    runs : dict of (str, int) to dict
        What each run says of itself, by network and fold.
    """

    layout: StudyLayout
    cohort: Cohort
    board: pd.DataFrame
    metrics: pd.DataFrame
    lesions: pd.DataFrame
    models: list[str]
    runs: dict[tuple[str, int], dict]

    @classmethod
    def read(cls, study: str) -> Self:
        """Read the tables of a study.

        Raises
        ------
        CohortError
            Notebook 04 has not been run, or not since a network was trained or scored again; or a prediction, a table
            of a run or one of 01 or 04 is lost, or not as it was written.
        """
        # loads torch and MONAI, which the processes that draw the gallery do not need: 300 MB each
        from metaseg_nb.training.finished_run import read_finished

        layout = StudyLayout(study)
        names = ("leaderboard", "metrics", "lesions")
        board, metrics, lesions = (read_written(layout, layout.cross_validation / f"{name}.csv") for name in names)
        models, cohort = [model for model in board["model"] if model != THRESHOLD_MODEL], read_study_cohort(layout)
        runs = {run: read_finished(layout.run(*run)) for run in product(models, range(cohort.n_folds))}
        fix = f"run notebook 04 (`python -m metaseg_nb run 04_cross_validation --study {study}`), then 05"
        if later := [run for run in runs if not _is_pooled(metrics, layout, *run)]:
            raise CohortError(
                Problem(f"{model}, fold {fold}", "metrics.csv", "other scores than 04 pooled", "one training", fix)
                for model, fold in later
            )
        return cls(layout, cohort, board, metrics, lesions, models, runs)


def finished_studies() -> list[str]:
    """Studies that have a leaderboard."""
    return sorted(path.parts[-3] for path in (home() / "runs").glob("*/cross_validation/provenance.json"))


def _is_pooled(metrics: pd.DataFrame, layout: StudyLayout, model: str, fold: int) -> bool:
    """Tell whether the scores of a run are those that 04 pooled."""
    pooled = metrics[(metrics["model"] == model) & (metrics["fold"] == fold)]
    own = read_table(layout.run(model, fold).metrics_table)
    columns = own.select_dtypes("number").columns.intersection(pooled.columns)
    return np.array_equal(pooled[columns].to_numpy(float), own[columns].to_numpy(float), equal_nan=True)
