"""Write and read the cohort and tables that later notebooks use; a changed file is an error.

A cohort is a datalist: the Decathlon / MONAI JSON list with Auto3DSeg's ``fold`` key,
``{"training": [{"image", "label", "patient", "primary", "fold"}], "testing": [...]}``, paths relative to the file.
"""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from metaseg_nb.checksums import FILES, changed_files, read_record, write_record
from metaseg_nb.cohort.cases import Case, Cohort
from metaseg_nb.cohort.problems import CohortError, broken, refusal, shortened
from metaseg_nb.cohort.sources import no_cases
from metaseg_nb.cohort.sources.dates import with_days
from metaseg_nb.cohort.sources.lists import read_lists
from metaseg_nb.cohort.sources.one_patient import with_patients
from metaseg_nb.files import DamagedFile, read_table
from metaseg_nb.layout import StudyLayout
from metaseg_nb.settings import Explore


def read_datalist(path: Path) -> Cohort:
    """Read a datalist that must have no problem; `read_cohort` reads users' lists and reports their problems.

    Raises
    ------
    CohortError
        With everything that is wrong in the file (`read_lists`), or it has no labelled cases.
    """
    cohort, problems = read_lists([path])
    cohort, _ = with_days(with_patients(cohort)[0])
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
        "folds_by": cohort.folds_by,
        "tensorImageSize": "3D",
        "numTraining": len(cohort.labelled),
        "numTest": len(cohort.unlabelled),
        "training": [_entry(case, folder) for case in cohort.labelled],
        "testing": [_entry(case, folder) for case in cohort.unlabelled],
    }
    write_record(path, content | ({"settings": _cohort_settings(settings)} if settings else {}), tables)


def _entry(case: Case, folder: Path) -> dict[str, Any]:
    images: list[str | None] = [os.path.relpath(image, folder) for image in case.images]
    for number in case.lacking:  # from the first on
        images.insert(number - 1, None)
    entry = {"case": case.name, "image": images if len(images) > 1 else images[0]}
    masks = {"label": case.label, "brain": case.brain}
    entry |= {key: os.path.relpath(mask, folder) for key, mask in masks.items() if mask}
    facts = {key: value for key, value in vars(case).items() if key not in ("name", "images", "lacking", *masks)}
    known = {key: value for key, value in facts.items() if value not in (None, "unknown", "")}
    return entry | {"patient": case.patient, "primary": case.primary} | known


def require_same_settings(layout: StudyLayout, settings: Explore) -> None:
    """Refuse to replace the cohort of a study by another; with the same settings, its files may have changed.

    Raises
    ------
    CohortError
        Names each setting that differs from those that ``dataset.json`` was made with; or an earlier version made it.
    """
    if (content := _kept(layout)) is None:
        return
    kept, new = content.get("settings", {}), _cohort_settings(settings)
    of_dicom = set() if layout.imported.is_dir() else {"series", "roi_names", "roi_names_without"}
    changed = [name for name in kept.keys() - of_dicom if kept[name] != new.get(name)]
    differ = [f"`{name}` {kept[name]!r}, now {new.get(name)!r}" for name in sorted(changed)]
    if differ or not kept.keys() >= new.keys():
        found = f"a cohort made with {'; '.join(differ) or 'an earlier version, which kept fewer settings'}"
        raise refusal("same settings", "-", layout.dataset, found)


def require_same_masks(layout: StudyLayout, cohort: Cohort) -> None:
    """Refuse to replace the masks drawn by hand that a study has by others: its networks were trained on them.

    Raises
    ------
    CohortError
        Names the cases that other readers, or the same ones in other minutes, drew since ``dataset.json`` was made.
    """
    if (content := _kept(layout)) is None:
        return
    by_hand = [entry for entry in content.get("training", []) if "minutes" in entry]
    kept = {entry["case"]: (entry["reader"], entry["minutes"]) for entry in by_hand}
    new = {case.name: (case.reader, case.minutes) for case in cohort.labelled if case.minutes is not None}
    differ = [name for name in sorted({*kept, *new}) if kept.get(name) != new.get(name)]
    if differ:
        found = f"a cohort with {len(kept)} masks drawn by hand, now {len(new)}; they differ for {shortened(differ)}"
        raise refusal("same masks", "-", layout.dataset, found)


def _kept(layout: StudyLayout) -> dict[str, Any] | None:
    """What ``dataset.json`` holds; None if there is no cohort yet, or a damaged one, which is written anew."""
    try:
        content = json.loads(layout.dataset.read_bytes())
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _cohort_settings(settings: Explore) -> dict[str, Any]:
    """The settings of notebook 01 that decide what a cohort and its folds are."""
    others = {"study", "workers", "confirmed", "annotation_shares", "organ_names"}
    synthetic = {"synthetic_patients", "synthetic_unlabelled", "synthetic_images", "synthetic_dates"}
    return settings.model_dump(exclude=others | (synthetic if settings.cohort != "synthetic" else set()))


def read_written(layout: StudyLayout, table: Path) -> pd.DataFrame:
    """Read a table that 01, 04, 05, 06 or 08 wrote; see `require_written`."""
    require_written(layout, table)
    return read_table(table)


def require_written(layout: StudyLayout, *files: Path) -> dict[str, Any]:
    """Compare files of one folder with the record that their notebook wrote last.

    Parameters
    ----------
    layout : StudyLayout
    *files : path
        In the folder of the study, of its cross-validation, annotation budget, gallery or masks drawn by hand.

    Returns
    -------
    dict
        What else the record says.

    Raises
    ------
    CohortError
        With every file that is lost, or not as it was written; names the notebook and the command that writes it.
    """
    notebook, record = {
        layout.root: ("01_explore_data", layout.dataset),
        layout.cross_validation: ("04_cross_validation", layout.comparison),
        layout.annotation_budget: ("06_annotation_budget", layout.budget_record),
        layout.gallery: ("05_qualitative_review", layout.gallery_record),
        layout.follow_up: ("09_follow_up", layout.follow_up_record),
        layout.by_hand: ("08_annotate", layout.by_hand_record),
    }[files[0].parent]
    facts: dict[str, Any] = {}
    found = {path: "no such file" for path in [*files, record] if not path.is_file()}
    if not found:
        try:
            facts = read_record(record)
            names = {file: file.relative_to(record.parent).as_posix() for file in files if file != record}
            kept = facts.pop(FILES)
            changed = changed_files(record, {FILES: {name: kept.get(name) for name in names.values()}})
            found = {file: changed[name] for file, name in names.items() if name in changed}
        except DamagedFile as error:
            found = {record: error.found}
    if found:
        words = {"number": notebook[:2], "notebook": notebook, "study": layout.study}
        raise CohortError(broken("as written", "-", path, what, **words) for path, what in found.items())
    return facts
