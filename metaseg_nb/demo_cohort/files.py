"""The synthetic cohort on disk: NIfTI files and a datalist.

No patient stands behind it. It lets every notebook run anywhere, without data and without internet.
"""

import json
from functools import partial
from pathlib import Path

from metaseg_nb.cohort.problems import CohortError
from metaseg_nb.cohort.volumes import write_volume
from metaseg_nb.demo_cohort.plan import PatientPlan, plan_patient
from metaseg_nb.demo_cohort.rendering import render_patient
from metaseg_nb.files import write_json
from metaseg_nb.parallel import map_cases

NAME = "synthetic"
DESCRIPTION = "Synthetic brains with planted metastases, made from the MNI152 template; not patients"
# Raise it when the same seed gives other voxels than before.
RECIPE_VERSION = 1


def make_cohort(folder: str | Path, n_patients: int = 20, seed: int = 0, workers: int = 2) -> Path:
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

    Returns
    -------
    Path
        The datalist, ``folder/dataset.json``: Decathlon keys with ``patient`` and
        ``primary``; paths in it are relative to it.

    Raises
    ------
    CohortError
        The folder holds a cohort that was made with another seed or recipe.
    ValueError
        A number is out of range.
    """
    for name, value, least in (("n_patients", n_patients, 1), ("seed", seed, 0), ("workers", workers, 1)):
        if value < least:
            raise ValueError(f"{name} is {value}; expected {least} or more")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    _keep_recipe(folder, {"cohort": NAME, "version": RECIPE_VERSION, "seed": seed})
    plans = [plan_patient(seed, index) for index in range(n_patients)]
    missing = [plan for plan in plans if not all(path.exists() for path in _paths(folder, plan))]
    map_cases(partial(make_case, folder), missing, workers, "synthetic cohort")
    datalist = folder / "dataset.json"
    write_json(datalist, _datalist(folder, plans))
    return datalist


def make_case(folder: Path, plan: PatientPlan) -> str:
    """Render one patient and write label and image, the image last; returns the case."""
    rendered = render_patient(plan)
    image_path, label_path = _paths(folder, plan)
    write_volume(label_path, rendered.label)
    write_volume(image_path, rendered.image)
    return plan.case


def _paths(folder: Path, plan: PatientPlan) -> tuple[Path, Path]:
    return folder / "images" / f"{plan.case}.nii.gz", folder / "labels" / f"{plan.case}.nii.gz"


def _keep_recipe(folder: Path, recipe: dict) -> None:
    path = folder / "recipe.json"
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
    if found == recipe:
        return
    if found is not None or (folder / "images").exists() or (folder / "dataset.json").exists():
        raise CohortError.one(
            NAME,
            path,
            f"a cohort made with {found}" if found else "images or a datalist without a recipe",
            f"an empty folder, or one made with {recipe}",
            "name another folder, or delete this one to make it anew",
        )
    write_json(path, recipe)


def _datalist(folder: Path, plans: list[PatientPlan]) -> dict:
    entries = []
    for plan in plans:
        image, label = (path.relative_to(folder).as_posix() for path in _paths(folder, plan))
        entries.append({"image": image, "label": label, "patient": plan.case, "primary": plan.primary})
    return {
        "name": NAME,
        "description": DESCRIPTION,
        "labels": {"0": "background", "1": "metastasis"},
        "tensorImageSize": "3D",
        "training": entries,
        "testing": [],
    }
