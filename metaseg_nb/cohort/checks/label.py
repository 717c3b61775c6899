"""Checks of a label: whether its lesions can be metastases, and lie where lesions can be."""

import re
from collections.abc import Iterator
from dataclasses import replace

import nibabel as nib
import numpy as np

from metaseg_nb.cohort.cases import Case
from metaseg_nb.cohort.checks.header import other_grid
from metaseg_nb.cohort.checks.rules import broken
from metaseg_nb.cohort.lesions import Lesions
from metaseg_nb.cohort.position import OUTSIDE_SHARE, Head, outside_lesions
from metaseg_nb.cohort.problems import Problem
from metaseg_nb.cohort.sources.spelling import stem
from metaseg_nb.cohort.volumes import Volume

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


def lesion_problems(case: Case, lesions: Lesions) -> Iterator[Problem]:
    """No lesion, or lesions that are too small or cut off."""
    specks = int((lesions.table["voxels"] == 1).sum())
    cut = sum(_touches(box, lesions.labels.shape) for box in lesions.boxes.values())
    if not lesions.n:
        yield broken("a lesion", case, case.label, "an empty label")
    if specks:
        yield broken("several voxels", case, case.label, f"{specks} of {lesions.n} lesions of a single voxel")
    if cut:
        yield broken("not cut", case, case.label, f"{cut} of {lesions.n} lesions cut by the edge of the volume")


def implausible_problems(case: Case, lesions: Lesions, head: Head | None) -> Iterator[Problem]:
    """Lesions (at least one) that are too large for metastases, or a file named as a mask of the brain.

    ``head`` is that of the image, where it could be found.
    """
    brain_cm3 = BRAIN_CM3 if head is None else min(head.volume_cm3, BRAIN_CM3)
    volumes_cm3 = np.bincount(lesions.labels.ravel())[1:] * float(np.prod(lesions.spacing_mm)) / 1000
    largest_cm3, all_cm3 = float(volumes_cm3.max()), float(volumes_cm3.sum())
    found = f"{all_cm3:.0f} cm³ of lesion, {100 * all_cm3 / brain_cm3:.0f} % of a brain of {brain_cm3:.0f} cm³"
    if all_cm3 > MOST_OF_BRAIN * brain_cm3 and all_cm3 > LARGEST_LESION_CM3:
        yield broken("not the brain", case, case.label, found)
    elif all_cm3 > MUCH_OF_BRAIN * brain_cm3 or largest_cm3 > LARGEST_LESION_CM3:
        yield broken("usual size", case, case.label, f"{found}; the largest has {largest_cm3:.0f} cm³")
    if BRAIN_MASK.search(stem(case.label.name)):
        yield broken("usual name", case, case.label, f"a file named {case.label.name}")


def outside_problems(case: Case, lesions: Lesions, head: Head) -> Iterator[Problem]:
    """Lesions outside the head of the image, which lies on the label's grid."""
    if n := len(outside_lesions(lesions, head)):
        rule = "some inside" if n == lesions.n else "all inside"
        yield broken(rule, case, case.label, f"{n} of {lesions.n} lesions outside the brain")


def grid_problem(case: Case, mask: np.ndarray, label: Volume, image: Volume, head: Head) -> Problem:
    """A label on another grid than its image, with the way that keeps its lesions in the brain.

    Two ways are tried: by the headers, and voxel on voxel as the files store them.

    Parameters
    ----------
    case : Case
    mask : ndarray of bool, shape (X, Y, Z)
        Lesions, on the grid of ``label``; not empty.
    label, image : Volume
    head : Head
        Of ``image``.
    """
    voxels, to_image = np.argwhere(mask), np.linalg.inv(image.affine) @ label.affine
    by_header, ignoring = _share_inside(nib.affines.apply_affine(to_image, voxels), head, image), 0.0
    if label.native_shape == image.native_shape:
        on_voxels = np.linalg.inv(image.to_native) @ label.to_native
        ignoring = _share_inside(nib.affines.apply_affine(on_voxels, voxels), head, image)
    resample = "resample it onto the image (nearest neighbour)"
    copy = "give it the image's header and leave its voxels as they are"
    if max(by_header, ignoring) < OUTSIDE_SHARE:
        fix = "the label belongs to another image or another place: find the right one"
    elif ignoring < OUTSIDE_SHARE:
        fix = f"{resample}; do not copy the image's header, which would put the lesions outside the brain"
    elif by_header < OUTSIDE_SHARE:
        fix = f"{copy}, once the overlay voxel by voxel is right; do not resample it, which would lose the lesions"
    else:
        fix = f"compare the overlay both ways: where the headers are right, {resample}; otherwise {copy}"
    shares = (
        f"{100 * by_header:.0f} % of it inside the brain by the headers, {100 * ignoring:.0f} % if they are ignored"
    )
    return replace(broken("one grid", case, case.label, f"{shares}: {other_grid(image, label)}"), fix=fix)


def _share_inside(places: np.ndarray, head: Head, image: Volume) -> float:
    places = np.rint(places).astype(int)
    inside = ((places >= 0) & (places < image.array.shape)).all(axis=1)
    return float(head.contains(places[inside]).sum() / len(places))


def _touches(box: tuple[slice, ...], shape: tuple[int, ...]) -> bool:
    # an axis of one voxel is a slice: everything in it would touch
    return any(n > 1 and (axis.start == 0 or axis.stop == n) for axis, n in zip(box, shape, strict=True))
