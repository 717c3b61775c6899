"""Checks between cases: what looks right in each of them and is wrong in the cohort."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations

from metaseg_nb.cohort.cases import Case
from metaseg_nb.cohort.checks.rules import broken
from metaseg_nb.cohort.examination import Examination
from metaseg_nb.cohort.fingerprint import look_alikes, same_voxels
from metaseg_nb.cohort.problems import Problem, shortened

Pairs = Sequence[tuple[Case, Case]]


def problems_between(cases: Sequence[Case], examinations: Sequence[Examination]) -> Iterator[Problem]:
    """One image or one mask under two names, one brain or one patient under two names, two primaries of a patient.

    ``examinations`` are those of each case. A pair of equal images is not told again for its masks and brains.
    """
    facts = [examination.facts for examination in examinations]
    images = same_voxels([e.ranks for e in examinations], [fact.get("shape") for fact in facts])
    masks = _equal([fact.get("label_content") if fact.get("n_lesions") else None for fact in facts])
    brains = [(i, j) for i, j, _ in look_alikes([e.anatomy for e in examinations])]
    same_images, (own_masks, masks), (_, brains) = (
        [(cases[i], cases[j]) for i, j in images],
        *(_by_patient([(cases[i], cases[j]) for i, j in pairs if (i, j) not in images]) for pairs in (masks, brains)),
    )
    both_ways = [*masks, *(pair[::-1] for pair in masks)]  # so that both cases are named by who confirms them
    for case, others in _with_earlier(same_images):
        yield broken("image once", case, case.image, f"the same image as {others}, voxel by voxel")
    for case, others in _with_earlier(own_masks):
        yield broken("mask once", case, case.label, f"the same mask as {others}, under another image")
    for case, others in _with_earlier(both_ways):
        yield broken("mask of one patient", case, case.label, f"the same mask as {others}, of another patient")
    for case, others in _with_earlier(brains):
        yield broken("brain once", case, case.image, f"a brain like that of {others}: perhaps one patient")
    yield from _two_primaries(cases)


def _equal(contents: Sequence[str | None]) -> list[tuple[int, int]]:
    """Pairs of places that hold the same, None apart."""
    having = defaultdict(list)
    for i, content in enumerate(contents):
        having[content] += [i] if content else []
    return [pair for same in having.values() for pair in combinations(same, 2)]


def _by_patient(pairs: Pairs) -> tuple[Pairs, Pairs]:
    """Pairs of cases of one patient, and of two."""
    same = [one.patient == other.patient for one, other in pairs]
    own, others = ([pair for pair, is_own in zip(pairs, same, strict=True) if is_own is of] for of in (True, False))
    return own, others


def _with_earlier(pairs: Pairs) -> list[tuple[Case, str]]:
    """Each second case of a pair, and the names of the first ones that it is paired with."""
    firsts = defaultdict(list)
    for first, case in pairs:
        firsts[case].append(first.name)
    return [(case, f"case {shortened(names)}") for case, names in firsts.items()]


def _two_primaries(cases: Iterable[Case]) -> Iterator[Problem]:
    primaries = defaultdict(dict)
    for case in cases:
        primaries[case.patient].setdefault(case.primary, case)
    for patient, of in primaries.items():
        for case in list(of.values())[1:]:
            yield broken("one primary", case, "datalist", f"patient {patient} under {' and '.join(sorted(of))}")
