"""The patients on whom `nnunet.py` compares: synthetic, prepared once on the study grid as notebooks 01 and 02 do."""

import os
from dataclasses import replace
from functools import cache
from pathlib import Path

import metaseg_nb as ms
from metaseg_nb.cohort.cases import Cohort
from metaseg_nb.cohort.folds import Split, split
from metaseg_nb.parameters import resolve
from metaseg_nb.settings import Preprocess

FOLDER = Path(os.environ.get("BENCH_FOLDER") or ms.PROJECT / "runs" / "bench_nnunet").absolute()
PATIENTS, FOLDS, SPACING_MM = 60, 2, 3.0
# Seeds that nothing else uses: settings are picked on the one cohort, and programs compared on the other.
SEEDS = {"development": 20261, "test": 20262}
RULE = ms.cohort.LesionRule()


def layout_of(name: str) -> ms.StudyLayout:
    """Where a cohort lies: ``<FOLDER>/runs/<name>``, laid out as a study."""
    return ms.StudyLayout(name, FOLDER)


@cache
def cohort_of(name: str) -> Cohort:
    """Make a cohort with its folds and case store, unless it is there; no bias correction, for speed."""
    layout, seed = layout_of(name), SEEDS[name]
    if layout.dataset.exists():
        return ms.cohort.read_study_cohort(layout)
    source = str(ms.demo_cohort.make_cohort(layout.synthetic_cohort, PATIENTS, seed, 2))
    found, _ = ms.cohort.read_cohort(source, base=ms.PROJECT)
    found = replace(found, rule=RULE, seed=seed)
    examinations = ms.cohort.examine_all(found.cases, RULE, layout.examinations, 2)
    facts = ms.cohort.cases_table(found.cases, examinations).set_index("case")
    cohort = ms.cohort.assign_folds(found, facts, FOLDS)
    changes = {"study": name, "spacing_mm": SPACING_MM, "bias_correction": "none", "workers": 2}
    settings = Preprocess.check(resolve("02_preprocess_n4", "demo") | changes)
    prepared = ms.preprocessing.prepare_cohort(cohort, layout.case_store, settings)
    assert not prepared.problems, prepared.problems
    ms.cohort.write_datalist(layout.dataset, cohort)
    return cohort


def parts_of(name: str, fold: int) -> Split:
    """27 patients to train on, 3 to select on, 30 to test on."""
    parts = split(cohort_of(name), fold)
    assert [*map(len, (parts.training, parts.selection, parts.test))] == [27, 3, 30]
    return parts


def stored(name: str, cases: list) -> list:
    """The same cases in the case store."""
    return ms.preprocessing.open_cases(layout_of(name).case_store, cases)
