"""Fingerprints: small arrays that recognise an image after rescaling, and a brain after it was moved.

By them, and by their masks, cases are compared with each other.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, permutations, product
from typing import Any

import numpy as np
from scipy import ndimage
from scipy.stats import rankdata, spearmanr

from metaseg_nb.cohort.cases import Case
from metaseg_nb.cohort.head import Head
from metaseg_nb.cohort.problems import Problem, broken, grouped, shortened

# Voxels that are looked at, at places drawn once for each shape.
SAMPLES = 4096
# A value that so many voxels have is background.
BACKGROUND_SHARE = 0.05
# Rank correlation (Spearman) of the voxels of one image, rescaled, rounded or clipped. Of two patients it is far lower.
SAME_RANKS = 0.995
# Pearson's, below which ranks are not compared; and how many voxels must be foreground in both.
WORTH_A_LOOK, FEWEST = 0.8, 50

# Cells of an anatomy, along each axis of a cube around the head's centre.
CELLS, HALF_EDGE_MM = 24, 90.0
# Smaller pieces show too little of an anatomy.
HEAD_AT_LEAST_CM3 = 500.0
# Noise is blurred away, and brightness and contrast are taken as in the surroundings: scanners differ in both.
BLUR_MM, SURROUNDINGS_MM = 3.0, 20.0
CLIPPED, STORED_AS = 2.5, 50
# Correlation of two anatomies from which they may be one patient's.
LIKE_ANATOMY = 0.65
# The 24 turns of a cube by quarters: which axis goes where, and which way it points.
TURNS = [
    (order, signs)
    for order in map(list, permutations(range(3)))
    for signs in product((1, -1), repeat=3)
    if np.linalg.det(np.eye(3)[order] * signs) > 0
]


def sampled_ranks(array: np.ndarray) -> np.ndarray:
    """Ranks of an image's voxels at `SAMPLES` places: uint16, 0 in the background.

    Scale and offset of the intensities change no rank, and neither does another value of the background.
    """
    places = np.random.default_rng(0).integers(0, array.size, SAMPLES) if array.size > SAMPLES else slice(None)
    values = np.nan_to_num(array.reshape(-1)[places], posinf=0, neginf=0)
    different, counts = np.unique(values, return_counts=True)
    common = counts.max() > BACKGROUND_SHARE * values.size
    inside = values != different[counts.argmax()] if common else np.ones(values.size, bool)
    ranks = np.zeros(values.size, np.uint16)
    ranks[inside] = np.rint(rankdata(values[inside]))
    return ranks


def same_voxels(ranks: Sequence[np.ndarray | None], shapes: Sequence[str | None]) -> list[tuple[int, int]]:
    """Find pairs of images that are equal voxel by voxel, apart from scale and offset.

    Parameters
    ----------
    ranks : sequence of ndarray or None
        From `sampled_ranks`.
    shapes : sequence of str or None
        Of the images: only those of one shape can be one.
    """
    pairs = []
    for shape in dict.fromkeys(shapes):
        of = np.array([i for i, each in enumerate(shapes) if each == shape and ranks[i] is not None])
        if len(of) > 1:
            pairs += [(int(of[i]), int(of[j])) for i, j in _alike(np.array([ranks[i] for i in of], float))]
    return pairs


def _alike(ranks: np.ndarray) -> list[tuple[int, int]]:
    inside = (ranks > 0).astype(float)
    n = inside @ inside.T
    fewest = np.maximum(FEWEST, np.minimum.outer(np.diag(n), np.diag(n)) / 2)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = ranks @ inside.T / n
        variance = ranks**2 @ inside.T / n - mean**2
        correlation = (ranks @ ranks.T / n - mean * mean.T) / np.sqrt(variance * variance.T)
    candidates = np.argwhere(np.triu((correlation > WORTH_A_LOOK) & (n >= fewest), 1))

    def are_same(i: int, j: int) -> bool:
        here = (ranks[i] > 0) & (ranks[j] > 0)
        return spearmanr(ranks[i][here], ranks[j][here]).statistic > SAME_RANKS

    return [(i, j) for i, j in candidates if are_same(i, j)]


def anatomy_of(array: np.ndarray, head: Head) -> np.ndarray | None:
    """What a brain looks like, wherever it lies: int8, shape (`CELLS`, `CELLS`, `CELLS`); None of a part of a brain.

    The image is sampled along the principal axes of the head, around its centre, and each cell is compared with
    its surroundings.

    Parameters
    ----------
    array : ndarray, shape (X, Y, Z)
    head : Head
        Of the image.
    """
    if head.volume_cm3 < HEAD_AT_LEAST_CM3:
        return None
    spacing_mm = head.spacing_mm
    coarse = np.nan_to_num(array[head.coarse], posinf=0, neginf=0)
    coarse = ndimage.gaussian_filter(coarse.astype(np.float32), BLUR_MM / spacing_mm)
    places_mm = np.argwhere(head.mask) * spacing_mm
    centre, axes = places_mm.mean(axis=0), _principal_axes(places_mm)
    edges = np.linspace(-HALF_EDGE_MM, HALF_EDGE_MM, CELLS)
    cells_mm = np.stack(np.meshgrid(edges, edges, edges, indexing="ij"))
    voxels = (np.tensordot(axes, cells_mm, 1) + centre[:, None, None, None]) / spacing_mm[:, None, None, None]
    inside = ndimage.map_coordinates(head.mask.astype(np.float32), voxels, order=1) > 0.5
    values = ndimage.map_coordinates(coarse, voxels, order=1)
    return np.rint(STORED_AS * _standing_out(values, inside)).astype(np.int8)


def _principal_axes(places: np.ndarray) -> np.ndarray:
    """Axes of a cloud of points, the columns of a rotation, each as near to an axis of space as can be."""
    axes = np.linalg.eigh(np.cov(places.T))[1]
    axes[:, 0] *= np.linalg.det(axes).round()  # a rotation, no mirror image
    return max((axes[:, order] * signs for order, signs in TURNS), key=np.trace)


def _standing_out(values: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """How many standard deviations each cell is brighter than its surroundings, 0 outside."""
    sigma = SURROUNDINGS_MM / (2 * HALF_EDGE_MM / (CELLS - 1))

    def around(cells: np.ndarray) -> np.ndarray:
        return ndimage.gaussian_filter(np.where(inside, cells, 0.0), sigma) / np.maximum(weight, 1e-3)

    weight = ndimage.gaussian_filter(inside.astype(float), sigma)
    above = values - around(values)
    deviation = np.sqrt(around(above**2))
    return np.clip(np.where(inside & (deviation > 0), above / np.maximum(deviation, 1e-12), 0.0), -CLIPPED, CLIPPED)


def look_alikes(anatomies: Sequence[np.ndarray | None]) -> list[tuple[int, int, float]]:
    """Pairs of images that may show one brain, with the correlation of their anatomies, from `anatomy_of`.

    A head that is nearly round about an axis may be turned by a quarter: all 24 turns of one are compared with another.
    """
    known = [i for i, anatomy in enumerate(anatomies) if anatomy is not None and anatomy.any()]
    if len(known) < 2:
        return []
    cells = np.array([anatomies[i] for i in known], np.float32)
    cells /= np.linalg.norm(cells.reshape(len(cells), -1), axis=1)[:, None, None, None]
    flat = cells.reshape(len(cells), -1)
    turns = [
        cells.transpose(0, *(1 + axis for axis in order))[:, *(slice(None, None, sign) for sign in signs)]
        for order, signs in TURNS
    ]
    correlation = np.max([flat @ turned.reshape(flat.shape).T for turned in turns], axis=0)
    pairs = np.argwhere(np.triu(correlation >= LIKE_ANATOMY, 1))
    return [(known[i], known[j], float(correlation[i, j])) for i, j in pairs]


# By `Head.skull`; what is said of them.
KINDS_OF_HEADS = {"stripped": "a brain without its skull", "in the image": "a head with its skull"}


def problems_between(
    cases: Sequence[Case],
    facts: Sequence[Mapping[str, Any]],
    ranks: Sequence[np.ndarray | None],
    anatomies: Sequence[np.ndarray | None],
) -> Iterator[Problem]:
    """Find cases that share an image, a mask or a brain, patients with two primaries, and heads unlike the others.

    ``facts``, ``ranks`` and ``anatomies`` are those of the examination of each case. A pair with equal images is not
    reported again for its masks and brains.
    """
    by_content = grouped((fact["label_content"], i) for i, fact in enumerate(facts) if fact.get("n_lesions"))
    images = set(same_voxels(ranks, [fact.get("shape") for fact in facts]))
    masks = {pair for same in by_content.values() for pair in combinations(same, 2)} - images
    brains = {(i, j) for i, j, _ in look_alikes(anatomies)} - images
    own = {(i, j) for i, j in masks | brains if cases[i].patient == cases[j].patient}
    # of a mask under two patients both cases are named by who confirms them
    both_ways = (masks - own) | {(j, i) for i, j in masks - own}
    pairs_by_rule = (
        ("image once", "the same image as case {}, voxel by voxel", images),
        ("mask once", "the same mask as case {}, for another image", masks & own),
        ("mask of one patient", "the same mask as case {}, of another patient", both_ways),
        ("brain once", "a brain that resembles that of case {}: perhaps one patient", brains - own),
    )
    for rule, found, pairs in pairs_by_rule:
        for second, firsts in grouped((j, cases[i].name) for i, j in sorted(pairs)).items():
            case = cases[second]
            yield broken(rule, case, case.label if "mask" in rule else case.image, found.format(shortened(firsts)))
    primaries = defaultdict(dict)
    for case in cases:
        primaries[case.patient].setdefault(case.primary, case)
    for patient, of in primaries.items():
        for case in list(of.values())[1:]:
            yield broken("one primary", case, "datalist", f"patient {patient} with {' and '.join(sorted(of))}")
    skulls = [fact.get("skull") for fact in facts]
    of_kind = grouped((skull, case) for skull, case in zip(skulls, cases, strict=True) if skull in KINDS_OF_HEADS)
    fewer, more = sorted(of_kind, key=lambda kind: len(of_kind[kind])) if len(of_kind) == 2 else ("", "")
    if fewer:
        names = shortened(case.name for case in of_kind[fewer])
        found = f"{KINDS_OF_HEADS[more]} in {len(of_kind[more])} images; {KINDS_OF_HEADS[fewer]} in {names}"
        yield broken("heads alike", of_kind[fewer][0], of_kind[fewer][0].image, found)
