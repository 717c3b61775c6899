"""Cohorts as datalists: the Decathlon / MONAI JSON list with Auto3DSeg's ``fold`` key.

``{"training": [{"image", "label", "patient", "primary", "fold"}], "testing": [...]}``,
paths relative to the file.
"""

import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from metaseg_nb.cohort.problems import CohortError, Problem
from metaseg_nb.files import write_json


@dataclass(frozen=True)
class Case:
    """One volume, with its mask where there is one; ``n_lesions`` is known once the mask was looked at."""

    name: str
    image: Path
    label: Path | None
    patient: str
    primary: str
    fold: int | None = None
    n_lesions: int | None = None


@dataclass(frozen=True)
class Cohort:
    """Patients and their cases.

    ``cases`` have a label and take part in cross-validation, ``unlabelled``
    ones can only be predicted. ``lesion_values`` are the label values that
    count as lesion; any other but 0 is an error.
    """

    name: str
    description: str
    cases: list[Case]
    unlabelled: list[Case] = field(default_factory=list)
    lesion_values: tuple[int, ...] = (1,)
    seed: int = 0

    @property
    def n_folds(self) -> int:
        """Number of folds of the labelled cases."""
        return len({case.fold for case in self.cases})


def read_datalist(path: Path) -> Cohort:
    """Read a datalist; nothing but the JSON file is opened.

    Raises
    ------
    CohortError
        The file is missing, is not JSON, has no training cases, an entry lacks
        its image, or two entries have one name.
    """
    content = _read_json(path)
    training = _list_of(content, "training", path)
    testing = _list_of(content, "testing", path)
    if not training:
        raise CohortError.one("-", path, "no training entries", 'a list "training"', "add the labelled cases")
    names = _names([*training, *testing], path)
    cases = [_case(entry, names[i], path, labelled=True) for i, entry in enumerate(training)]
    unlabelled = [_case(entry, names[len(cases) + i], path, labelled=False) for i, entry in enumerate(testing)]
    return Cohort(
        name=content.get("name", path.parent.name),
        description=content.get("description", ""),
        cases=cases,
        unlabelled=unlabelled,
        lesion_values=tuple(content.get("lesion_values", (1,))),
        seed=content.get("seed", 0),
    )


def write_datalist(path: Path, cohort: Cohort) -> None:
    """Write a cohort with its folds as a datalist that MONAI and Auto3DSeg read too."""
    folder = path.parent.resolve()  # as the cases' paths are: a step up from a symbolic link leads elsewhere
    content = {
        "name": cohort.name,
        "description": cohort.description,
        "labels": {"0": "background", "1": "lesion"},
        "lesion_values": list(cohort.lesion_values),
        "seed": cohort.seed,
        "tensorImageSize": "3D",
        "numTraining": len(cohort.cases),
        "numTest": len(cohort.unlabelled),
        "training": [_entry(case, folder) for case in cohort.cases],
        "testing": [_entry(case, folder) for case in cohort.unlabelled],
    }
    write_json(path, content)


def _read_json(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        raise CohortError.one("-", path, "no such file", "a datalist (JSON)", "correct `cohort` in the study file")
    try:
        content = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CohortError.one("-", path, f"not JSON ({error})", "a datalist (JSON)", "repair the file") from error
    if not isinstance(content, dict):
        raise CohortError.one("-", path, f"a {type(content).__name__}", 'an object with "training"', "see the README")
    return content


def _list_of(content: Mapping[str, Any], key: str, path: Path) -> list[Mapping[str, Any]]:
    entries = content.get(key, [])
    # Decathlon's testing list holds bare paths
    entries = [{"image": entry} if isinstance(entry, str) else entry for entry in entries]
    wrong = [
        Problem(f"{key}[{i}]", str(path), f"image {entry.get('image')!r}", "one path", 'give "image" as one path')
        for i, entry in enumerate(entries)
        if not isinstance(entry.get("image"), str)
    ]
    if wrong:
        raise CohortError(wrong)
    return entries


def _names(entries: list[Mapping[str, Any]], path: Path) -> list[str]:
    """Name each case by its file, or by as many parent folders as make the names differ."""
    given = [entry.get("case") for entry in entries]
    parts = [Path(entry["image"].removesuffix(".gz").removesuffix(".nii")).parts for entry in entries]
    for depth in range(1, max(len(p) for p in parts) + 1):
        names = [name or "_".join(p[-depth:]) for name, p in zip(given, parts, strict=True)]
        if len(set(names)) == len(names):
            return names
    twice = [name for name, count in Counter(names).items() if count > 1]
    raise CohortError(
        Problem(name, str(path), "listed more than once", "each case once", "remove the repeated entries")
        for name in twice
    )


def _case(entry: Mapping[str, Any], name: str, path: Path, labelled: bool) -> Case:
    label = entry.get("label") if labelled else None
    if labelled and not isinstance(label, str):
        raise CohortError.one(
            name, path, f"label {label!r}", "a path", 'add "label", or move the case to the list "testing"'
        )
    return Case(
        name=name,
        image=(path.parent / entry["image"]).resolve(),
        label=(path.parent / label).resolve() if label else None,
        patient=str(entry.get("patient", name)),
        primary=str(entry.get("primary", "unknown")),
        fold=entry.get("fold"),
        n_lesions=entry.get("n_lesions"),
    )


def _entry(case: Case, folder: Path) -> dict[str, Any]:
    entry = {"case": case.name, "image": os.path.relpath(case.image, folder)}
    if case.label is not None:
        entry["label"] = os.path.relpath(case.label, folder)
    entry |= {"patient": case.patient, "primary": case.primary}
    known = {"fold": case.fold, "n_lesions": case.n_lesions}
    return entry | {key: value for key, value in known.items() if value is not None}


def case_named(cases: Iterable[Case], name: str) -> Case:
    """Find a case by name."""
    return next(case for case in cases if case.name == name)
