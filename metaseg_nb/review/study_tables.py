"""What notebook 04 left of a study, for those who look at its cases."""

from dataclasses import dataclass
from itertools import product

import pandas as pd

from metaseg_nb.cohort.cases import Cohort
from metaseg_nb.cohort.datalist import read_datalist
from metaseg_nb.files import read_table
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
        FileNotFoundError
            Notebook 04 has not been run.
        CohortError
            A prediction or a table of a run is lost, or not as it was when the run finished.
        """
        layout = StudyLayout(study)
        tables = [layout.cross_validation / f"{name}.csv" for name in ("metrics", "lesions", "leaderboard")]
        if not tables[-1].is_file():  # written last
            raise FileNotFoundError(f"study {study} has no leaderboard: run notebook 04 first")
        metrics, lesions, board = (read_table(table) for table in tables)
        models = [model for model in board["model"] if model != THRESHOLD_MODEL]
        cohort = read_datalist(layout.dataset)
        for run in product(models, range(cohort.n_folds)):
            read_finished(layout.run(*run))
        return cls(layout, cohort, metrics, lesions, models)


def finished_studies() -> list[str]:
    """Studies that have a leaderboard."""
    return sorted(path.parts[-3] for path in (home() / "runs").glob("*/cross_validation/leaderboard.csv"))
