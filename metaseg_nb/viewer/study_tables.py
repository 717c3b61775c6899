"""What notebook 04 left of a study, for those who look at its cases."""

from dataclasses import dataclass
from itertools import product

import pandas as pd

from metaseg_nb.cohort.cases import Cohort
from metaseg_nb.cohort.datalist import read_study_cohort
from metaseg_nb.cohort.written import read_written
from metaseg_nb.layout import StudyLayout, home
from metaseg_nb.settings import THRESHOLD_MODEL
from metaseg_nb.training.finished_run import read_finished


@dataclass(frozen=True)
class StudyTables:
    """A study whose networks have been compared.

    Parameters
    ----------
    layout : StudyLayout
    cohort : Cohort
    metrics, lesions : DataFrame
        Pooled: a row per (``model``, case) and per (``model``, reference lesion).
    models : list of str
        Networks, best first; the intensity threshold is none.
    """

    layout: StudyLayout
    cohort: Cohort
    metrics: pd.DataFrame
    lesions: pd.DataFrame
    models: list[str]

    @classmethod
    def read(cls, study: str) -> "StudyTables":
        """Read the tables of a study.

        Raises
        ------
        CohortError
            Notebook 04 has not been run; or a prediction, a table of a run or one of 01 or 04 is lost, or not as
            it was when it was written.
        """
        layout = StudyLayout(study)
        names = ("leaderboard", "metrics", "lesions")
        board, metrics, lesions = (read_written(layout, layout.cross_validation / f"{name}.csv") for name in names)
        models = [model for model in board["model"] if model != THRESHOLD_MODEL]
        cohort = read_study_cohort(layout)
        for run in product(models, range(cohort.n_folds)):
            read_finished(layout.run(*run))
        return cls(layout, cohort, metrics, lesions, models)


def finished_studies() -> list[str]:
    """Studies that have a leaderboard."""
    return sorted(path.parts[-3] for path in (home() / "runs").glob("*/cross_validation/provenance.json"))
