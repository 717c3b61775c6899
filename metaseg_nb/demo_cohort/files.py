"""The synthetic cohort on disk: NIfTI files and a datalist.

No patient stands behind it. It lets every notebook run anywhere, without data and without internet.
"""

import json
from functools import partial
from pathlib import Path

from metaseg_nb.cohort.problems import CohortError
from metaseg_nb.cohort.volumes import write_volume
from metaseg_nb.demo_cohort.patients import PatientPlan, plan_patient, render_patient
from metaseg_nb.files import write_json
from metaseg_nb.parallel import map_cases

NAME = "synthetic"
DESCRIPTION = "Synthetic brains with planted metastases, made from the MNI152 template; not patients"
# Raise it when the same seed gives other voxels than before.
RECIPE_VERSION = 1


def make_cohort(
    folder: str | Path, n_patients: int = 20, seed: int = 0, workers: int = 2, n_unlabelled: int = 0
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

    Returns
    -------
    Path
        The datalist, ``folder/dataset.json``: Decathlon keys with ``patient`` and
        ``primary``; paths in it are relative to it.

    Raises
    ------
    CohortError
        The folder holds a cohort that was made with another seed or recipe.
    """
    folder = Path(folder)
    _keep_recipe(folder, {"cohort": NAME, "version": RECIPE_VERSION, "seed": seed})
    plans = [plan_patient(seed, index) for index in range(n_patients + n_unlabelled)]
    missing = [plan for plan in plans if not all((folder / path).exists() for path in _paths(plan))]
    map_cases(partial(_make_case, folder), missing, workers, "synthetic cohort")
    entries = []
    for plan in plans:
        image, label = _paths(plan)
        named = {"label": label} if len(entries) < n_patients else {}
        entries.append({"image": image, **named, "patient": plan.case, "primary": plan.primary})
    datalist = {
        "name": NAME,
        "description": DESCRIPTION,
        "labels": {"0": "background", "1": "metastasis"},
        "tensorImageSize": "3D",
        "training": entries[:n_patients],
        "testing": entries[n_patients:],
    }
    write_json(folder / "dataset.json", datalist)
    return folder / "dataset.json"


def _make_case(folder: Path, plan: PatientPlan) -> None:
    image_path, label_path = _paths(plan)
    image, label, _ = render_patient(plan)
    write_volume(folder / label_path, label)
    write_volume(folder / image_path, image)  # last


def _paths(plan: PatientPlan) -> tuple[str, str]:
    """Image and label below the cohort's folder."""
    return f"images/{plan.case}.nii.gz", f"labels/{plan.case}.nii.gz"


def _keep_recipe(folder: Path, recipe: dict) -> None:
    """Refuse a folder with a cohort that was made another way."""
    path = folder / "recipe.json"
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
    if found == recipe:
        return
    if found is not None or (folder / "images").exists() or (folder / "dataset.json").exists():
        what = f"a cohort made with {found}" if found else "images or a datalist without a recipe"
        fix = "name another folder, or delete this one to make it again"
        raise CohortError.one(NAME, path, what, f"an empty folder, or one made with {recipe}", fix)
    write_json(path, recipe)
