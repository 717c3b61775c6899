"""Pairs of masks for the rule of BraTS-METS 2026: by hand, and random from a seed. Needs numpy and scipy alone."""

import numpy as np
from scipy import ndimage

SHAPE = (40, 34, 28)
CUBE, THICK, FINE = (1.0, 1.0, 1.0), (0.8, 1.1, 2.5), (0.5, 0.5, 1.0)
# Label values of the lesions in the mask pairs of ../shared/data/metric_vectors, by the official package's names.
REGIONS = {"et": (3,), "tc": (1, 3), "wt": (1, 2, 3)}
# Counts of each case that the leaderboard reads.
COUNTS = [f"{size}_{what}_2026" for size in ("large", "small") for what in ("found", "missed", "false")]
# Pairs that the package is also given as any file is.
NOT_TURNED = ("thick slices", "random 7", "random 11")


def boxes(*corners_and_sizes):
    """A mask of boxes, each of a corner and a size (a number, or one along each axis)."""
    mask = np.zeros(SHAPE, bool)
    for corner, size in corners_and_sizes:
        mask[tuple(slice(start, start + n) for start, n in zip(corner, np.broadcast_to(size, 3), strict=True))] = True
    return mask


def blobs(seed, share, sigma):
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).random(SHAPE), sigma)
    return noise > np.quantile(noise, 1 - share)


def by_hand():
    """Name: truth, prediction, spacing in mm."""
    none, one, two = boxes(), boxes(((4, 4, 4), 6)), boxes(((4, 4, 4), 6), ((20, 20, 12), 4))
    small = boxes(((30, 4, 4), 2))  # 8 voxels
    slabs = boxes(*[((x, 4, 4), (1, 6, 6)) for x in (4, 6, 8)])
    row = boxes(*[((4, y, 4), 3) for y in (4, 8, 12, 16)])
    return {
        "both empty": (none, none, CUBE),
        "truth empty": (none, two | small, CUBE),
        "prediction empty": (two | small, none, CUBE),
        "identical": (two | small, two | small, CUBE),
        "no large lesion": (small, small | boxes(((4, 4, 4), 1)), CUBE),
        "no small lesion": (two, np.roll(two, 1, axis=0) | small, CUBE),
        "nothing overlaps": (two, boxes(((4, 20, 4), 5), ((30, 30, 20), 2)), CUBE),
        "lesions that touch at a corner are one": (boxes(((4, 4, 4), 4), ((8, 8, 8), 4)), boxes(((4, 4, 4), 4)), CUBE),
        "lesions one voxel apart are two": (boxes(((4, 4, 4), 4), ((9, 4, 4), 4)), boxes(((4, 4, 4), 4)), CUBE),
        "one prediction over two lesions": (two, boxes(((4, 4, 4), (20, 20, 12))), CUBE),
        "one prediction over two neighbours": (
            boxes(((4, 4, 4), 4), ((9, 4, 4), 5)),
            boxes(((4, 4, 4), (10, 5, 5))),
            CUBE,
        ),
        "many parts over one lesion": (one | small, slabs, CUBE),
        "a large lesion below Dice 0.1": (one, boxes(((9, 9, 9), 6)), CUBE),
        "a small lesion below Dice 0.1": (small | one, boxes(((31, 5, 5), 4)) | one, CUBE),
        "Dice of exactly 0.1": (
            boxes(((4, 4, 4), (2, 5, 1))),
            boxes(((5, 8, 4), (1, 1, 1)), ((6, 8, 4), (3, 3, 1))),
            CUBE,
        ),
        "20 mm³ and 19 mm³": (
            boxes(((4, 4, 4), (4, 5, 1)), ((20, 4, 4), (19, 1, 1))),
            boxes(((4, 4, 4), (3, 5, 1))),
            CUBE,
        ),
        "20 mm³ of voxels of 0.25 mm³": (boxes(((4, 4, 4), (4, 5, 4))), boxes(((4, 4, 4), (4, 4, 4))), FINE),
        "a chain in which the largest sum is not the largest pair": (
            row,
            boxes(((4, 6, 4), (3, 4, 3)), ((4, 11, 4), (3, 3, 3)), ((4, 15, 4), (3, 4, 3))),
            CUBE,
        ),
        "thick slices": (two | small, np.roll(two, 1, axis=2) | boxes(((30, 4, 4), 3)), THICK),
        "at the border": (boxes(((0, 0, 0), 5), ((35, 30, 24), (5, 4, 4))), boxes(((0, 0, 0), 4)), THICK),
    }


def at_random():
    """The same, of noise: from many specks to few large lesions, with parts that are lost and parts that are false."""
    pairs = {}
    for seed in range(24):
        spacing_mm, sigma = (CUBE, THICK, FINE)[seed % 3], (0.8, 1.2, 2.0, 3.0)[seed % 4]
        truth = blobs(seed, 0.03, sigma)
        kept = np.roll(truth, seed % 2, axis=seed % 3) & blobs(seed + 100, 0.9, 1.0)
        pairs[f"random {seed}"] = truth, kept | blobs(seed + 200, 0.006, sigma), spacing_mm
    return pairs


def from_files(folder, vectors, read):
    """Mask pairs of real lesions, which others published; ``read`` gives the array of a file."""
    return {
        f"{name}, {region}": (*(np.isin(read(folder / file), values) for file in reversed(files)), CUBE)
        for name, files in vectors["pairs"].items()
        for region, values in REGIONS.items()
    }
