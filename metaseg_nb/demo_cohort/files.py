"""The synthetic cohort on disk: NIfTI files and a datalist.

No patient stands behind it. It lets every notebook run anywhere, without data and without internet.
"""

import json
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from metaseg_nb.cohort.problems import CohortError
from metaseg_nb.cohort.volumes import write_volume
from metaseg_nb.demo_cohort.dates import plan_dates, render_date
from metaseg_nb.demo_cohort.patients import PatientPlan, plan_patient, render_patient
from metaseg_nb.demo_cohort.raw_heads import demo_site, render_raw, sequences_of
from metaseg_nb.files import write_json
from metaseg_nb.machine import map_cases

NAME, RAW = "synthetic", "raw"
DESCRIPTION = "Synthetic brains with planted metastases, made from the MNI152 template; not patients"
# Raise them when the same seed gives other voxels than before; the second where only several dates are concerned.
RECIPE_VERSION, DATES_VERSION = 1, 2


def make_cohort(
    folder: str | Path,
    n_patients: int = 20,
    seed: int = 0,
    workers: int = 2,
    n_unlabelled: int = 0,
    images: str = "stripped",
    dates: int = 1,
) -> Path:
    """Make the synthetic cohort, or what is missing of it.

    Parameters
    ----------
    folder : path
        Gets ``images/``, ``labels/``, ``recipe.json`` and, last, ``dataset.json``.
        Cases that are there already are kept.
    n_patients : int
        Patient i is the same in a cohort of any size.
    seed : int
        Not negative.
    workers : int
        Processes; with 1 everything happens in this one.
    n_unlabelled : int
        Further patients, whose masks the datalist does not name.
    images : str
        "stripped": one image of the brain. "raw": heads with skull in three sequences on other grids, from two
        scanners (`render_raw`). The datalist names masks of the brains too, and the ``site`` and the ``scanner`` of
        each case.
    dates : int
        Above 1, of stripped images: each patient has two to four cases, at as many dates at most, and other lesions
        than with 1.

    Returns
    -------
    Path
        The datalist, ``folder/dataset.json``: Decathlon keys with ``patient`` and
        ``primary``; paths in it are relative to it.

    Raises
    ------
    CohortError
        The folder holds a cohort that was made with another seed or recipe, or anything else.
    """
    folder = Path(folder)
    is_raw = images == RAW
    more = {"images": RAW} if is_raw else {"dates": dates, "dates_version": DATES_VERSION} if dates > 1 else {}
    _keep_recipe(folder, {"cohort": NAME, "version": RECIPE_VERSION, "seed": seed, **more})
    plans = [plan for index in range(n_patients + n_unlabelled) for plan in _plans(seed, index, dates)]
    missing = [plan for plan in plans if not all((folder / path).exists() for path in _listed(_files(plan, is_raw)))]
    map_cases(partial(_make_case, folder, is_raw), missing, workers, "synthetic cohort")
    entries: dict[str, list[dict]] = {"training": [], "testing": []}
    for plan in plans:
        entry = _files(plan, is_raw) | {"patient": plan.patient, "primary": plan.primary}
        entry |= {"day": plan.day} if dates > 1 else {}
        if plan.index >= n_patients:
            del entry["label"]
        entries["training" if "label" in entry else "testing"].append(entry)
    datalist = {
        "name": NAME,
        "description": DESCRIPTION,
        "labels": {"0": "background", "1": "metastasis"},
        "tensorImageSize": "3D",
        **entries,
    }
    write_json(folder / "dataset.json", datalist)
    return folder / "dataset.json"


def _plans(seed: int, index: int, dates: int) -> Sequence[PatientPlan]:
    return plan_dates(seed, index, dates) if dates > 1 else [plan_patient(seed, index)]


def _make_case(folder: Path, is_raw: bool, plan: PatientPlan) -> None:
    if is_raw:
        head = render_raw(plan)
        volumes = [head.label, head.brain, *head.images.values()]
    else:
        image, label, *_ = render_patient(plan) if plan.day is None else render_date(plan)
        volumes = [label, image]
    for path, volume in zip(_listed(_files(plan, is_raw)), volumes, strict=True):
        write_volume(folder / path, volume)


def _files(plan: PatientPlan, is_raw: bool) -> dict[str, Any]:
    """Files of a case below the cohort's folder, as the datalist names them, and of raw ones where they come from."""
    label = f"labels/{plan.case}.nii.gz"
    if not is_raw:
        return {"image": f"images/{plan.case}.nii.gz", "label": label}
    images = [name and f"images/{plan.case}_{name}.nii.gz" for name in sequences_of(plan.index)]
    files = {"case": plan.case, "image": images, "label": label, "brain": f"brains/{plan.case}.nii.gz"}
    return files | {"site": demo_site(plan.index).name, "scanner": demo_site(plan.index).scanner}


def _listed(files: dict[str, Any]) -> Iterator[str]:
    """All files of a case, in the order in which they are written: images last."""
    yield from (files[mask] for mask in ("label", "brain") if mask in files)
    yield from filter(None, np.atleast_1d(files["image"]))


def _keep_recipe(folder: Path, recipe: dict) -> None:
    """Refuse a folder with anything but a cohort that was made this way."""
    path = folder / "recipe.json"
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else "no recipe"
    if found != recipe and any(not file.name.startswith(".") for file in folder.glob("*")):
        fix = "name another folder, or delete this one to make it again"
        raise CohortError.one(NAME, path, f"files with {found}", f"an empty folder, or one with {recipe}", fix)
    write_json(path, recipe)
