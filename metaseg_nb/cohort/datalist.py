"""Cohorts as datalists: the Decathlon / MONAI JSON list with Auto3DSeg's ``fold`` key.

``{"training": [{"image", "label", "patient", "primary", "fold"}], "testing": [...]}``,
paths relative to the file.
"""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from metaseg_nb.checksums import write_record
from metaseg_nb.cohort.cases import Case, Cohort
from metaseg_nb.cohort.sources import no_cases
from metaseg_nb.cohort.sources.lists import read_lists
from metaseg_nb.cohort.sources.one_patient import with_patients
from metaseg_nb.cohort.written import cohort_settings, require_written
from metaseg_nb.layout import StudyLayout
from metaseg_nb.settings import Explore


def read_datalist(path: Path) -> Cohort:
    """Read a datalist in which nothing may be wrong; `read_cohort` reads what people bring.

    Raises
    ------
    CohortError
        With everything that is wrong in the file (`read_lists`), or it has no labelled cases.
    """
    cohort, problems = read_lists([path])
    cohort, _ = with_patients(cohort)
    if not cohort.cases or any(problem.severity == "error" for problem in problems):
        raise no_cases(path, problems)
    return cohort


def read_study_cohort(layout: StudyLayout) -> Cohort:
    """Read the cohort of a study as notebook 01 wrote it.

    Raises
    ------
    CohortError
        It is lost, or not as it was written: 01 writes it anew.
    """
    require_written(layout, layout.dataset)
    return read_datalist(layout.dataset)


def write_datalist(path: Path, cohort: Cohort, tables: Iterable[Path] = (), settings: Explore | None = None) -> None:
    """Write a cohort with its folds as a datalist that MONAI and Auto3DSeg read too.

    It is a record (`write_record`): it holds its own checksum, those of the tables beside it, and the ``settings``
    of notebook 01 that decide what the cohort is (`require_same_settings`).
    """
    folder = path.parent.resolve()  # as the cases' paths are: a step up from a symbolic link leads elsewhere
    content = {
        "name": cohort.name,
        "description": cohort.description,
        "labels": {"0": "background", "1": "lesion"},
        "lesion_values": list(cohort.rule.values),
        "other_values": list(cohort.rule.other_values),
        "label_threshold": cohort.rule.threshold,
        "seed": cohort.seed,
        "tensorImageSize": "3D",
        "numTraining": len(cohort.cases),
        "numTest": len(cohort.unlabelled),
        "training": [_entry(case, folder) for case in cohort.cases],
        "testing": [_entry(case, folder) for case in cohort.unlabelled],
    }
    write_record(path, content | ({"settings": cohort_settings(settings)} if settings else {}), tables)


def _entry(case: Case, folder: Path) -> dict[str, Any]:
    images = [os.path.relpath(image, folder) for image in case.images]
    entry = {"case": case.name, "image": images if len(images) > 1 else images[0]}
    if case.label is not None:
        entry["label"] = os.path.relpath(case.label, folder)
    entry |= {"patient": case.patient, "primary": case.primary}
    known = {"fold": case.fold, "n_lesions": case.n_lesions, "scanner": case.scanner, "date": case.date}
    return entry | {key: value for key, value in known.items() if value not in (None, "unknown")}
