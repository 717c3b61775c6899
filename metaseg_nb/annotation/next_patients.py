"""Which of a study's patients without a label should be annotated next."""

import pandas as pd
import torch
from tqdm.auto import tqdm

from metaseg_nb.annotation.ranking import by_patient, outlook_of, rank_patients
from metaseg_nb.cohort.datalist import read_study_cohort
from metaseg_nb.cohort.problems import CohortError
from metaseg_nb.files import write_table
from metaseg_nb.inference.ensemble import load_ensemble
from metaseg_nb.layout import StudyLayout
from metaseg_nb.parameters import resolve
from metaseg_nb.preprocessing.case_store import StoredCase, open_cases


def next_patients(study: str, device: torch.device) -> pd.DataFrame:
    """Rank a study's unlabelled patients by what all its trained networks make of them.

    Writes ``runs/<study>/next_patients.csv``.

    Returns
    -------
    DataFrame
        From `rank_patients`; the index is the patient.

    Raises
    ------
    CohortError
        The study has no case without a label.
    FileNotFoundError
        A network of the study is not trained.
    """
    settings = resolve("04_cross_validation", study)
    layout = StudyLayout(settings["study"])
    cohort = read_study_cohort(layout)
    if not cohort.unlabelled:
        raise CohortError.one(
            "-", layout.dataset, "no case without a label", "unlabelled cases to choose from", 'list them as "testing"'
        )
    ensembles = [load_ensemble(layout.root / model, device) for model in settings["models"]]

    def probability(case: StoredCase):
        return sum(one.probability(case.image, case.reach, device) for one in ensembles) / len(ensembles)

    outlooks = {
        case: outlook_of(stored, probability if case.label is None else None)
        for cases in (cohort.cases, cohort.unlabelled)
        for case, stored in tqdm([*zip(cases, open_cases(layout.case_store, cases), strict=True)], desc="looking")
    }
    table = rank_patients(by_patient(outlooks), sorted({case.patient for case in cohort.cases}))
    write_table(layout.next_patients_table, table.reset_index())
    return table
