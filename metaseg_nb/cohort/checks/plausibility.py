"""Checks whether a label can be one of metastases at all: masks of the brain lie beside many images."""

import re

import numpy as np

from metaseg_nb.cohort.cases import Case
from metaseg_nb.cohort.lesions import Lesions
from metaseg_nb.cohort.position import Head
from metaseg_nb.cohort.problems import Problem
from metaseg_nb.cohort.sources.naming import stem

# Of an adult, with its furrows and ventricles. Where the skull is in the image, the brain's part of it is not known.
BRAIN_CM3 = 1500.0
# Of one lesion: a ball of 6.6 cm. And parts of the brain: more than lesions usually are, and more than they can be.
LARGEST_LESION_CM3, MUCH_OF_BRAIN, MOST_OF_BRAIN = 150.0, 0.2, 0.5
# Names that programs for skull stripping give to their masks.
BRAIN_MASK = re.compile(
    r"(brain|head|skull|bet|strip(ped|ping)?|parenchyma|icv)[-_. ]?(extraction)?[-_. ]?(mask|bin)(?![a-z])"
    r"|(?<![a-z])(bet|hd[-_]?bet|synthstrip|skull|brain|bm)$",
    re.IGNORECASE,
)
EXPECTED = "a mask of metastases, not of the brain or a part of it"


def implausible_problems(case: Case, lesions: Lesions, head: Head | None) -> list[Problem]:
    """Problems of a label that is too large for metastases, or named as a mask of the brain.

    Parameters
    ----------
    case : Case
    lesions : Lesions
        At least one.
    head : Head or None
        Of the image.
    """
    return [problem for problem in (_size_problem(case, lesions, head), _name_problem(case)) if problem is not None]


def _size_problem(case: Case, lesions: Lesions, head: Head | None) -> Problem | None:
    brain_cm3 = BRAIN_CM3 if head is None else min(head.volume_cm3, BRAIN_CM3)
    volumes_cm3 = np.bincount(lesions.labels.ravel())[1:] * float(np.prod(lesions.spacing_mm)) / 1000
    largest_cm3, all_cm3 = float(volumes_cm3.max()), float(volumes_cm3.sum())
    found = f"{all_cm3:.0f} cm³ of lesion, {100 * all_cm3 / brain_cm3:.0f} % of a brain of {brain_cm3:.0f} cm³"
    if all_cm3 > MOST_OF_BRAIN * brain_cm3 and all_cm3 > LARGEST_LESION_CM3:
        fix = "give the mask of the lesions: in a folder of cases by its file name (`label_file`), in a list as `label`"
        return Problem(case.name, str(case.label), found, EXPECTED, fix)
    if all_cm3 <= MUCH_OF_BRAIN * brain_cm3 and largest_cm3 <= LARGEST_LESION_CM3:
        return None
    found += f"; the largest has {largest_cm3:.0f} cm³"
    fix = "look at the overlay; if all of it is lesion, name the case in `confirmed`"
    return Problem(case.name, str(case.label), found, EXPECTED, fix, "doubt")


def _name_problem(case: Case) -> Problem | None:
    if not BRAIN_MASK.search(stem(case.label.name)):
        return None
    fix = "give the mask of the lesions; if this is it, name the case in `confirmed`"
    return Problem(case.name, str(case.label), f"a file named {case.label.name}", EXPECTED, fix, "doubt")
