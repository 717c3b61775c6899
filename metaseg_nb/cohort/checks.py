"""Checks of a case: headers, intensities, coverage of the brain; whether the lesions of a label can be metastases."""

import re
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.affines import apply_affine
from scipy import ndimage

from metaseg_nb.cohort.cases import Case, LesionRule
from metaseg_nb.cohort.head import BRAIN_AT_LEAST_MM, Head, head_mask, is_magnitude
from metaseg_nb.cohort.lesions import OUTSIDE_SHARE, Lesions, outside_lesions
from metaseg_nb.cohort.nifti_files import UNREADABLE, NiftiFile, in_mm, open_nifti
from metaseg_nb.cohort.problems import CohortError, Problem, broken
from metaseg_nb.cohort.sources.spelling import stem
from metaseg_nb.cohort.volumes import Volume, corners_apart_mm, not_finite, other_grid, same_grid, spacing_of

# Voxel edges that are usual in the clinic, and those that are possible at all.
USUAL_MM, POSSIBLE_MM = (0.3, 5.0), (0.05, 20.0)
# sform and qform hold the same place with different rounding.
SAME_PLACE_MM = 0.1
# Axes this far from a right angle are sheared, not rounded.
SHEAR_DEGREES = 0.5
NO_POSITION = (
    "sform and qform codes of 0, which programs read differently: nibabel and this workbook assume LAS axes with the "
    "origin in the middle, ITK (3D Slicer, ITK-SNAP) assumes LPS axes with the origin in the first voxel"
)
# The splines of the bias field, and patches in 3D, need a volume and not a slice.
FEWEST_VOXELS = 4
INT16 = np.iinfo(np.int16)
# A voxel and its six neighbours: 26 would join spots to the noise around them.
CROSS = ndimage.generate_binary_structure(3, 1)
# Of a spot's rim: elsewhere a wrapped spot may border on dark tissue, and single jumps are noise.
RIM_SHARE = 0.5
# Of an adult, with its furrows and ventricles. Where the skull is in the image, the brain's part of it is not known.
BRAIN_CM3 = 1500.0
# Of one lesion: a ball of 6.6 cm. And a part of the brain: more than lesions usually are.
LARGEST_LESION_CM3, MUCH_OF_BRAIN = 150.0, 0.2
# Names that programs for skull stripping give to their masks.
BRAIN_MASK = re.compile(
    r"(brain|head|skull|bet|strip(ped|ping)?|parenchyma|icv)[-_. ]?(extraction)?[-_. ]?(mask|bin)(?![a-z])"
    r"|(?<![a-z])(bet|hd[-_]?bet|synthstrip|skull|brain|bm)$",
    re.IGNORECASE,
)
# Of a head with neck and face the brain is a fifth or more; and it lies in the head.
LEAST_OF_HEAD, LEAST_IN_HEAD = 0.1, 0.9
# What is brain in a mask: of 0 and 1, of 0 and 255, or of probabilities.
BRAIN_RULE = LesionRule(threshold=0.5)
RESAMPLE = "resample it onto the image (nearest neighbour)"
COPY = "give it the image's header and leave its voxels as they are"


def examine_headers(case: Case) -> tuple[dict[Path, NiftiFile], list[Problem]]:
    """Open the files of a case and check their headers, each alone and against that of the first image."""
    files, problems = {}, []
    for path in case.files:
        try:
            files[path] = open_nifti(path, case.name)
            problems += header_problems(case, str(path), files[path])
        except CohortError as error:
            problems += error.problems
    for path, file in files.items():
        if case.image in files and path != case.image:
            problems += _beside(case, path, files[case.image], file)
    return files, problems


def require_sound_headers(case: Case) -> list[Problem]:
    """Raise `CohortError` with all errors in the headers of a case; return the problems that are no errors."""
    problems = examine_headers(case)[1]
    if errors := [problem for problem in problems if problem.severity == "error"]:
        raise CohortError(errors)
    return problems


def header_problems(case: Case, path: str, image: NiftiFile) -> list[Problem]:
    """Problems of one file's header, whose voxels are not read; of a mask only those of its place."""
    is_image = path not in map(str, (case.label, case.brain))
    found = [*_position(image), *(_edges_and_angles(image) if is_image else [])]
    return [broken(rule, case, path, words) for rule, words in found]


def _beside(case: Case, path: Path, image: NiftiFile, other: NiftiFile) -> Iterator[Problem]:
    """Another grid; or, of a label, other axes: read rightly here, flipped by programs that ignore headers."""
    axes, other_axes = ("".join(nib.aff2axcodes(file.affine)) for file in (image, other))
    if not same_grid(image, other):
        rule = "sequences on one grid" if path in case.images else "one grid"
        yield broken(rule, case, path, other_grid(image, other))
    elif path == case.label and axes != other_axes:
        yield broken("same axes", case, path, f"axes {other_axes}; the image has {axes}")


def _edges_and_angles(image: NiftiFile) -> Iterator[tuple[str, str]]:
    """Voxel edges that no head scan has, or that hide small lesions; sheared axes, which make distances wrong."""
    spacing = np.array(spacing_of(image.affine))
    possible, usual = (((least <= spacing) & (spacing <= most)).all() for least, most in (POSSIBLE_MM, USUAL_MM))
    if not (possible and usual):
        found = f"extreme spacing of {'x'.join(f'{edge:.3g}' for edge in spacing)} mm"
        yield "usual spacing" if possible else "possible spacing", found
    axes = image.affine[:3, :3] / spacing
    cosines = np.abs(axes.T @ axes)[np.triu_indices(3, 1)]
    off = float(np.degrees(np.arcsin(min(1.0, cosines.max()))))
    if off > SHEAR_DEGREES:
        yield "right angles", f"axes {off:.1f}° off a right angle"


def _position(image: NiftiFile) -> Iterator[tuple[str, str]]:
    """A header that gives no position, or two: programs show such a file at different positions."""
    s_code, q_code, edges = image.place["sform_code"], image.place["qform_code"], np.array(image.place["pixdim"][1:])
    if not s_code:
        yield from [] if q_code else [("a position", NO_POSITION)]
        return
    try:
        if q_code:  # as ITK reads it: negative edges count
            place = np.asarray(image.header.get_qform()) * [*np.where(edges < 0, -1, 1), 1]
        else:  # the sform's directions with the voxel edges of pixdim, as ITK takes them
            sform = np.asarray(image.header.get_sform())
            place = sform * [*edges / spacing_of(sform), 1]
        apart = corners_apart_mm(image.shape, image.affine, in_mm(place, image.place))
    except UNREADABLE:  # a quaternion that is no rotation
        apart = np.nan
    if not apart <= SAME_PLACE_MM:
        other = "qform" if q_code else f"voxel edges (pixdim {'x'.join(f'{edge:g}' for edge in edges)})"
        found = f"up to {apart:.1f} mm apart" if np.isfinite(apart) else "without a valid position"
        yield "one position", f"sform and {other} {found}"


def image_problems(case: Case, path: str, array: np.ndarray) -> list[Problem]:
    """Problems of one image, shape (X, Y, Z): NaN, one value everywhere, int16 overflow, below 0, few slices."""
    problems = not_finite(array, path, case.name)
    finite = array[np.isfinite(array)] if problems else array
    if finite.size and finite.min() == finite.max():
        problems.append(broken("contrast", case, path, f"the value {finite.flat[0]:g} in every voxel"))
    elif finite.size and finite.min() < 0:
        n_wrapped = 0 if problems else _wrapped_voxels(array)
        found = f"{n_wrapped} voxels with values down to {finite.min():.0f} among bright voxels"
        rule = ("no overflow", found) if n_wrapped else _negative(np.nan_to_num(array, posinf=0, neginf=0))
        problems.append(broken(rule[0], case, path, rule[1]))
    if min(array.shape) < FEWEST_VOXELS:
        problems.append(broken("several slices of image", case, path, f"shape {array.shape}", n=FEWEST_VOXELS))
    return problems


def coverage_problems(case: Case, path: Path, head: Head) -> Iterator[Problem]:
    """Problem of an image, whose head it is, that does not cover the brain."""
    if head.cut_at:
        size, least = (" x ".join(f"{edge:.0f}" for edge in of) for of in (head.extent_mm, BRAIN_AT_LEAST_MM))
        found = f"a head of {size} mm, cut at its {' and '.join(head.cut_at)} (a brain has {least} mm or more)"
        yield broken("whole brain", case, path, found)


def brain_problems(case: Case, mask: np.ndarray, head: Head) -> Iterator[Problem]:
    """Problem of a mask of the brain, bool on the image's grid: empty, beside the head, or of a small part of it."""
    brain = mask[head.coarse]
    if not brain.any():
        yield broken("a brain", case, case.brain, "an empty mask")
        return
    in_head, of_head = head.mask[brain].mean(), brain[head.mask].mean()
    if in_head < LEAST_IN_HEAD or of_head < LEAST_OF_HEAD:
        yield broken("a brain", case, case.brain, f"{in_head:.0%} of it in the head, {of_head:.0%} of the head in it")


def lesion_problems(case: Case, lesions: Lesions, head: Head | None, is_on_image: bool) -> Iterator[Problem]:
    """Problems of the lesions of a label: none, single voxels, cut off, too large for metastases, outside the head.

    ``head`` is that of the image, where it could be found; lesions are looked for in it where they lie on its grid.
    """
    if not lesions.n:
        yield broken("a lesion", case, case.label, "an empty label")
        return
    if specks := int((lesions.table["voxels"] == 1).sum()):
        yield broken("several voxels", case, case.label, f"{specks} of {lesions.n} lesions with a single voxel")
    if cut := lesions.cut:
        yield broken("not cut", case, case.label, f"{len(cut)} of {lesions.n} lesions cut by the edge of the volume")
    brain_cm3 = BRAIN_CM3 if head is None else min(head.volume_cm3, BRAIN_CM3)
    largest_cm3, all_cm3 = lesions.table["volume_mm3"].agg(["max", "sum"]) / 1000
    found = f"{all_cm3:.0f} cm³ of lesion, {100 * all_cm3 / brain_cm3:.0f} % of a brain of {brain_cm3:.0f} cm³"
    if all_cm3 > MUCH_OF_BRAIN * brain_cm3 or largest_cm3 > LARGEST_LESION_CM3:
        yield broken("usual size", case, case.label, f"{found}; the largest has {largest_cm3:.0f} cm³")
    if case.label and BRAIN_MASK.search(stem(case.label.name)):
        yield broken("usual name", case, case.label, f"a file named {case.label.name}")
    if head is not None and is_on_image and (n := len(outside_lesions(lesions, head))):
        rule = "some inside" if n == lesions.n else "all inside"
        yield broken(rule, case, case.label, f"{n} of {lesions.n} lesions outside the brain")


def grid_problem(case: Case, mask: np.ndarray, label: Volume, image: Volume, head: Head) -> Problem:
    """Problem of a label on another grid than its image; advises the correction that keeps its lesions in the brain.

    Two corrections are tried: by the headers, and voxel on voxel as the files store them.

    Parameters
    ----------
    case : Case
    mask : ndarray of bool, shape (X, Y, Z)
        Lesions, on the grid of ``label``; not empty.
    label, image : Volume
    head : Head
        Of ``image``.
    """
    voxels, ignoring = np.argwhere(mask), 0.0
    by_header = _share_inside(voxels, np.linalg.inv(image.affine) @ label.affine, head, image)
    if label.native_shape == image.native_shape:
        ignoring = _share_inside(voxels, np.linalg.inv(image.to_native) @ label.to_native, head, image)
    if max(by_header, ignoring) < OUTSIDE_SHARE:
        fix = "find the right label: this one is of another image, or misplaced"
    elif ignoring < OUTSIDE_SHARE:
        fix = f"{RESAMPLE}; do not copy the image's header, which would put the lesions outside the brain"
    elif by_header < OUTSIDE_SHARE:
        fix = f"{COPY}, if the overlay voxel by voxel is right; do not resample it, which would lose the lesions"
    else:
        fix = f"check the overlay both ways; if the headers are right, {RESAMPLE}; otherwise {COPY}"
    shares = f"{100 * by_header:.0f} % of the lesions in the brain by the headers, {100 * ignoring:.0f} % without them"
    return broken("one grid", case, case.label, f"{shares}: {other_grid(image, label)}", fix)


def _share_inside(voxels: np.ndarray, to_image: np.ndarray, head: Head, image: Volume) -> float:
    places = np.rint(apply_affine(to_image, voxels)).astype(int)
    inside = ((places >= 0) & (places < image.array.shape)).all(axis=1)
    return float(head.contains(places[inside]).sum() / len(places))


def _negative(array: np.ndarray) -> tuple[str, str]:
    """Tell z-scores or other normalised values from a few values below 0 in an image with the scanner's intensities."""
    head = head_mask(array)
    inside = 100 * float((array[head] < 0).mean()) if head.any() else 0.0
    if not is_magnitude(array, head):
        found = f"normalised or shifted intensities: {inside:.3g} % of the head is below 0, and the background "
        return "scanner's values", f"{found}is {np.median(array[~head]):.3g}"
    found = f"negative values: {100 * float((array < 0).mean()):.2g} % of the voxels, down to {array.min():.4g}; "
    return "no negative values", f"{found}{inside:.3g} % of those in the head"


def _wrapped_voxels(array: np.ndarray) -> int:
    """Number of bright voxels that 16-bit storage wrapped to negative values.

    A value above 32767 comes out 65536 lower, so a wrapped spot is negative, lies in the midst of
    positive voxels, and most of its rim is more than half of the range of int16 away from its neighbours
    (Itoh's condition for unwrapping, Appl Opt 21(14), 1982). Padding with -32768 reaches the volume's edge.
    """
    if array.min() < INT16.min or array.max() > INT16.max or np.ptp(array) <= INT16.max:
        return 0
    enclosed = ndimage.binary_fill_holes(array >= 0) & (array < 0)
    spots, n = ndimage.label(enclosed)
    rim = enclosed & ~ndimage.binary_erosion(enclosed)
    around = ndimage.minimum_filter(np.where(enclosed, np.inf, array), footprint=CROSS)
    share = ndimage.mean(around - array > INT16.max, np.where(rim, spots, 0), np.arange(1, n + 1))
    return int(np.isin(spots, 1 + np.flatnonzero(share > RIM_SHARE)).sum())
