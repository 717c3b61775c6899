"""Cohorts as datalists: the Decathlon / MONAI JSON list with Auto3DSeg's ``fold`` key.

``{"training": [{"image", "label", "patient", "primary", "fold"}], "testing": [...]}``,
paths relative to the file.
"""

import json
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from metaseg_nb.cohort.cases import Case, Cohort, LesionRule
from metaseg_nb.cohort.problems import CohortError, Problem
from metaseg_nb.files import write_json


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
        rule=_rule(content),
        seed=content.get("seed", 0),
    )


def write_datalist(path: Path, cohort: Cohort) -> None:
    """Write a cohort with its folds as a datalist that MONAI and Auto3DSeg read too."""
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


def _rule(content: Mapping[str, Any]) -> LesionRule:
    values, others = (tuple(content.get(key, usual)) for key, usual in (("lesion_values", (1,)), ("other_values", ())))
    return LesionRule(values, others, content.get("label_threshold", 0.0))


def _list_of(content: Mapping[str, Any], key: str, path: Path) -> list[Mapping[str, Any]]:
    entries = content.get(key, [])
    # Decathlon's testing list holds bare paths
    entries = [{"image": entry} if isinstance(entry, str) else entry for entry in entries]
    wrong = [
        Problem(
            f"{key}[{i}]", str(path), f"image {entry.get('image')!r}", "a path or a list of paths", 'correct "image"'
        )
        for i, entry in enumerate(entries)
        if not _images(entry) or not all(isinstance(image, str) for image in _images(entry))
    ]
    if wrong:
        raise CohortError(wrong)
    return entries


def _images(entry: Mapping[str, Any]) -> list[str]:
    image = entry.get("image")
    return image if isinstance(image, list) else [image] if image else []


def _names(entries: list[Mapping[str, Any]], path: Path) -> list[str]:
    """Name each case by its file, or by as many parent folders as make the names differ."""
    given = [entry.get("case") for entry in entries]
    parts = [Path(_images(entry)[0].removesuffix(".gz").removesuffix(".nii")).parts for entry in entries]
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
        images=tuple((path.parent / image).resolve() for image in _images(entry)),
        label=(path.parent / label).resolve() if label else None,
        patient=str(entry.get("patient", name)),
        primary=str(entry.get("primary", "unknown")),
        fold=entry.get("fold"),
        n_lesions=entry.get("n_lesions"),
        scanner=str(entry.get("scanner", "unknown")),
        date=str(entry.get("date", "unknown")),
    )


def _entry(case: Case, folder: Path) -> dict[str, Any]:
    images = [os.path.relpath(image, folder) for image in case.images]
    entry = {"case": case.name, "image": images if len(images) > 1 else images[0]}
    if case.label is not None:
        entry["label"] = os.path.relpath(case.label, folder)
    entry |= {"patient": case.patient, "primary": case.primary}
    known = {"fold": case.fold, "n_lesions": case.n_lesions, "scanner": case.scanner, "date": case.date}
    return entry | {key: value for key, value in known.items() if value not in (None, "unknown")}
