"""Checks between cases: what looks right in each of them and is wrong in the cohort."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import combinations

from metaseg_nb.cohort.cases import Case
from metaseg_nb.cohort.examination import Examination
from metaseg_nb.cohort.fingerprint import look_alikes, same_voxels
from metaseg_nb.cohort.problems import Problem, shortened


def problems_between(cases: Sequence[Case], examinations: Sequence[Examination]) -> list[Problem]:
    """One image or one mask under two names, one brain or one patient under two names, two primaries of a patient.

    Parameters
    ----------
    cases : sequence of Case
    examinations : sequence of Examination
        Of each case.
    """
    facts = [examination.facts for examination in examinations]
    images = same_voxels([e.ranks for e in examinations], [fact.get("shape") for fact in facts])
    masks = _pairs([fact.get("label_content") if fact.get("n_lesions") else None for fact in facts])
    brains = [(i, j) for i, j, _ in look_alikes([e.anatomy for e in examinations])]
    said = set(images)
    same_images, same_masks, like_brains = (
        [(cases[i], cases[j]) for i, j in pairs]
        for pairs in (images, *([pair for pair in pairs if pair not in said] for pairs in (masks, brains)))
    )
    return [*_same_images(same_images), *_same_masks(same_masks), *_like_brains(like_brains), *_two_primaries(cases)]


def _pairs(contents: Sequence[str | None]) -> list[tuple[int, int]]:
    having = defaultdict(list)
    for i, content in enumerate(contents):
        having[content] += [i] if content else []
    return [pair for same in having.values() for pair in combinations(same, 2)]


def _same_images(pairs: Sequence[tuple[Case, Case]]) -> list[Problem]:
    fix = "remove one of the two, or training and test will share it"
    expected = "each image once, however its intensities are scaled"
    return [
        Problem(case.name, str(case.image), f"the same image as {_names(firsts)}, voxel by voxel", expected, fix)
        for case, firsts in _earlier(pairs).items()
    ]


def _same_masks(pairs: Sequence[tuple[Case, Case]]) -> list[Problem]:
    """Of one patient a warning; of two a doubt about either case, so that both are named by who confirms it."""
    expected = "a mask of its own"
    own = [(one, other) for one, other in pairs if one.patient == other.patient]
    problems = [
        Problem(
            case.name,
            str(case.label),
            f"the same mask as {_names(firsts)}, under another image",
            expected,
            "find the mask that belongs to this image",
            "warning",
        )
        for case, firsts in _earlier(own).items()
    ]
    others = [(one, other) for one, other in pairs if one.patient != other.patient]
    fix = (
        "look whether both are images of one patient, and give them the same `patient`; find the mask that belongs to "
        "each image; if both are right, name both cases in `confirmed`"
    )
    return problems + [
        Problem(
            case.name, str(case.label), f"the same mask as {_names(twins)}, of another patient", expected, fix, "doubt"
        )
        for case, twins in _earlier([*others, *(pair[::-1] for pair in others)]).items()
    ]


def _like_brains(pairs: Sequence[tuple[Case, Case]]) -> list[Problem]:
    """A warning, for it is told from coarse pictures; images of one patient are alike as they should be."""
    others = [pair for pair in pairs if pair[0].patient != pair[1].patient]
    fix = "compare the two images; if they show one patient, give them the same `patient`"
    return [
        Problem(
            case.name,
            str(case.image),
            f"a brain like that of {_names(firsts)}: perhaps one patient",
            "a brain of its own for each patient",
            fix,
            "warning",
        )
        for case, firsts in _earlier(others).items()
    ]


def _earlier(pairs: Iterable[tuple[Case, Case]]) -> dict[Case, list[Case]]:
    """Each second case of a pair, and the first ones that it is paired with."""
    firsts = defaultdict(list)
    for first, case in pairs:
        firsts[case].append(first)
    return firsts


def _names(cases: Iterable[Case]) -> str:
    return f"case {shortened(case.name for case in cases)}"


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
