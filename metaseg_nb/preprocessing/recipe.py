"""Recipes: the settings that decide the voxels of an image, and of its mask; cases of one recipe are alike."""

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

from metaseg_nb.cohort.cases import Case, LesionRule
from metaseg_nb.cohort.problems import CohortError, Problem, numbered
from metaseg_nb.preprocessing.brain import KEEP
from metaseg_nb.settings import Preprocess

# Raise it when the same settings give other voxels than before: stored cases are then made again.
VERSION = 4
# What changes no voxel, and what changes those of labels alone.
NOT_VOXELS, OF_LABELS = {"study", "workers"}, {"fill_holes", "min_lesion_mm3", "outside_head"}
# What a recipe that does not say so means: cases and networks of before these settings existed stay what they are.
LEFT_OUT = {"brain": KEEP, "register_sequences": "other_grids", "missing": "refuse", "earlier_mask": False}


def image_recipe(settings: Preprocess, sequences: int) -> dict[str, Any]:
    """The settings that decide an image's voxels; a checkpoint carries them to prepare new images alike."""
    unused = {"brain_margin_mm"} if settings.brain == KEEP else set()
    unused |= {"register_sequences", "missing"} if sequences == 1 else set()
    recipe = settings.model_dump(exclude=NOT_VOXELS | OF_LABELS | unused)
    recipe = {key: value for key, value in recipe.items() if LEFT_OUT.get(key) != value}
    return {**recipe, "sequences": sequences, "version": VERSION}


def label_recipe(settings: Preprocess, rule: LesionRule) -> dict[str, Any]:
    """The settings that decide a label's voxels."""
    return {**settings.model_dump(include=OF_LABELS), "lesions": rule.as_json()}


def in_full(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe with what it leaves out."""
    return {**LEFT_OUT, **recipe}


def require_sequences(cases: Iterable[Case], recipe: Mapping[str, Any]) -> None:
    """Raise `CohortError` with all cases that have another number of sequences than a recipe, or miss one it needs."""
    n, problems = recipe["sequences"], []
    for case in cases:
        problem = partial(Problem, case.name, str(case.image))
        if case.sequences != n:
            fix = "give the sequences of one patient, in the order of the training, `-` for a missing one; "
            fix += "predict each patient separately"
            problems.append(problem(f"{case.sequences} sequence(s)", f"{n}, as in training", fix))
        elif (scans := missing_scans(case.lacking, recipe)) and in_full(recipe)["missing"] == "refuse":
            found, expected = f"no {numbered(scans)}", f"all {n}, because of `missing: refuse`"
            problems.append(problem(found, expected, "give it, or use networks trained with `missing: zero`"))
    if problems:
        raise CohortError(problems)


def missing_scans(lacking: Iterable[int], recipe: Mapping[str, Any]) -> list[int]:
    """Missing sequences but for the earlier mask, which is the last one and may always be missing."""
    last = recipe["sequences"] if in_full(recipe)["earlier_mask"] else 0
    return [number for number in lacking if number != last]
