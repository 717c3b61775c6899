"""Checks between cases: what looks right in each of them and is wrong in the cohort."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from metaseg_nb.cohort.cases import Case
from metaseg_nb.cohort.problems import Problem


def problems_between(cases: Sequence[Case], facts: Sequence[dict[str, Any]]) -> list[Problem]:
    """One image or one mask under two names, one patient under two primaries.

    Parameters
    ----------
    cases : sequence of Case
    facts : sequence of dict
        Of each case; ``image_content`` and ``label_content`` are digests of its voxels, where they could be read.
    """
    images = _repeats(cases, [fact.get("image_content") for fact in facts])
    masks = _repeats(cases, [fact.get("label_content") if fact.get("n_lesions") else None for fact in facts])
    problems = [_same_image(case, first) for case, first in images]
    problems += [_same_mask(case, first) for case, first in masks if (case, first) not in images]
    return problems + _two_primaries(cases)


def _repeats(cases: Sequence[Case], contents: Iterable[str | None]) -> list[tuple[Case, Case]]:
    """Each case whose content an earlier one has, with the first that has it."""
    first: dict[str, Case] = {}
    repeats = []
    for case, content in zip(cases, contents, strict=True):
        if content in first:
            repeats.append((case, first[content]))
        elif content is not None:
            first[content] = case
    return repeats


def _same_image(case: Case, first: Case) -> Problem:
    fix = "remove one of the two, or training and test will share it"
    return Problem(case.name, str(case.image), f"the same voxels as case {first.name}", "each image once", fix)


def _same_mask(case: Case, first: Case) -> Problem:
    fix = "find the mask that belongs to this image"
    found = f"the same mask as case {first.name}, under another image"
    return Problem(case.name, str(case.label), found, "a mask of its own", fix, "warning")


def _two_primaries(cases: Sequence[Case]) -> list[Problem]:
    primaries = defaultdict(dict)
    for case in cases:
        primaries[case.patient].setdefault(case.primary, case)
    expected = "one primary cancer a patient"
    fix = "correct `patient` or `primary` in the datalist or the patients table"
    return [
        Problem(case.name, "datalist", f"patient {patient} under {' and '.join(sorted(of))}", expected, fix, "warning")
        for patient, of in primaries.items()
        if len(of) > 1
        for case in list(of.values())[1:]
    ]
