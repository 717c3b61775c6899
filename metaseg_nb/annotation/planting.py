"""Labels that nobody drew: synthetic metastases, painted into an image without annotations.

The painter is the demo's. Here it works on any prepared T1c: brightness is relative to the image's own white matter,
and what is painted gets about the image's blur and noise. Tissue is not pushed aside.

References
----------
Synthetic tumours as training data without labels: Hu et al., CVPR 2023, arXiv 2303.14869 (liver).
"""

from dataclasses import replace
from pathlib import Path

import edt
import numpy as np
from scipy import ndimage

from metaseg_nb.cohort.lesions import label_lesions
from metaseg_nb.cohort.problems import refusal
from metaseg_nb.demo_cohort.lesions import NECROTIC, SIZES, Lesion, LesionPlan, LesionShape, lay_out, paint_lesion
from metaseg_nb.demo_cohort.patients import draw_metastasis
from metaseg_nb.preprocessing.brain import with_margin
from metaseg_nb.preprocessing.case_store import UNKNOWN, StoredCase, store_annotation
from metaseg_nb.settings import settings_hash

# More than most patients have: each image is painted once, and is to show many.
LESIONS, DIAMETERS_MM = 8, (3.0, 40.0)
# Brightness of the rim and of necrosis, white matter being 1: wider than the demo's, for scanners differ.
ENHANCEMENT, NECROSIS = (1.3, 2.2), (0.15, 0.75)
# Of lesions that are not solid: necrotic within a thin rim, as treated ones are.
NECROTIC_SHARE = 0.25
# Of the head's voxels: what is 0 for the painter, and what is white matter. That is taken for darker or brighter.
DARK_PERCENTILE, WHITE_PERCENTILE, WHITE_FACTORS = 0.5, 75, (0.9, 1.1)
# The brain is the largest part of what is no air and no bone once thin bridges to the scalp are cut.
SOLID, BRIDGES_MM, SULCI_MM = 0.3, 3.0, 8.0
# Heads of two patients with skull seemed to have 2900 and 3500 cm³, their brains 1600 and 1700.
LARGEST_BRAIN_MM3 = 2.2e6
# Grey and white matter.
TISSUE = (0.55, 1.2)
# What is brighter than tissue, and thicker than vessels, may be a lesion that nobody drew.
BRIGHT, THICK_MM = 1.2, 4.0
# A lesion's distance from others and from bright spots; its depth below the brain's surface grows less with its size.
GAP_MM, DEPTH_MM = 5.0, 1.5
# Blur beyond that of the image's voxels, at most: standard deviation in voxels of the study grid.
BLUR_VOXELS = 0.6
# Standard deviation of a case's noise, of the median roughness of tissue, which is partly anatomy.
NOISE = (0.4, 1.2)
# All of these; part of a planted image's identity.
RULE = [LESIONS, *DIAMETERS_MM, *ENHANCEMENT, *NECROSIS, DARK_PERCENTILE, WHITE_PERCENTILE, *WHITE_FACTORS]
RULE += [NECROTIC_SHARE, SOLID, BRIDGES_MM, SULCI_MM, *TISSUE, BRIGHT, THICK_MM, GAP_MM, DEPTH_MM, BLUR_VOXELS, *NOISE]

Millimetres = tuple[float, float, float]


def with_planted_lesions(case: StoredCase, seed: int, folder: Path) -> StoredCase:
    """Store a case's image with planted lesions, its label, and open the case with both; no mask is read.

    Parameters
    ----------
    case : StoredCase
        With one sequence, T1c.
    seed : int
        With the case's name it decides all that is drawn.
    folder : path
        Of planted images.

    Raises
    ------
    CohortError
        The case has several sequences, for lesions can be painted only as T1c shows them; or the image has no contrast,
        or skull and scalp.
    """
    if case.channels > 1:
        raise refusal("T1c to plant", case.name, "image.npy", f"{case.channels} sequences")

    def make() -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng([seed, *case.name.encode()])
        image, head = case.image[0].astype(np.float32), case.head_voxels
        try:
            image, label = plant(image, head, case.grid.spacing_mm, case.native.spacing_mm, rng)
        except ValueError as error:
            raise refusal("brain to plant", case.name, "image.npy", str(error)) from error
        return label, image[None]

    how = {"annotation": "planted", "seed": seed, "rule": RULE}
    return store_annotation(folder / settings_hash(how), case, how, make)


def plant(
    image: np.ndarray,
    head_voxels: np.ndarray,
    spacing_mm: Millimetres,
    native_mm: Millimetres,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Paint lesions into an image.

    Parameters
    ----------
    image : ndarray of float32, shape (X, Y, Z)
        A T1c on any scale, of a head or a brain.
    head_voxels : ndarray of int, shape (N, 3)
        Voxels of the head; some are enough.
    spacing_mm, native_mm : tuple of 3 floats
        Voxel edges of the image, and of the one that it was made from.
    rng : Generator

    Returns
    -------
    image : ndarray of float32, shape (X, Y, Z)
        Within the range of the one given.
    label : ndarray of uint8, shape (X, Y, Z)
        1 in planted lesions; `UNKNOWN` in bright spots that may be lesions of the patient; 0 elsewhere. Other lesions
        of the patient, thin or not bright, are 0 too: that is an error in the label.

    Raises
    ------
    ValueError
        The head has no contrast, or skull and scalp.
    """
    levels = image[tuple(head_voxels.T)]
    dark, white = np.percentile(levels, (DARK_PERCENTILE, WHITE_PERCENTILE)) if len(levels) else (0.0, 0.0)
    if not white > dark:
        raise ValueError("a head without contrast")
    relative = (image - dark) / (white - dark)
    brain = _brain(relative, spacing_mm)
    if (size_mm3 := brain.sum() * np.prod(spacing_mm)) > LARGEST_BRAIN_MM3:
        raise ValueError(f"skull and scalp, so that the brain seems to have {size_mm3 / 1000:.0f} cm³")
    spots = bright_spots(relative, brain, spacing_mm)
    scale = (white - dark) * rng.uniform(*WHITE_FACTORS)
    before, label = ((image - dark) / scale).astype(np.float32), np.zeros(image.shape, np.uint8)
    painted, tissue = before.copy(), brain & (relative > TISSUE[0]) & (relative < TISSUE[1])
    for lesion in _places(tissue, brain, spots, spacing_mm, rng):
        paint_lesion(painted, label, lesion, spacing_mm, rng)
    label[spots & (label == 0)] = UNKNOWN
    blur = [max(0.0, own**2 - edge**2) ** 0.5 / 12**0.5 / edge for own, edge in zip(native_mm, spacing_mm, strict=True)]
    change = ndimage.gaussian_filter(painted - before, np.array(blur) + rng.uniform(0, BLUR_VOXELS))
    rough = np.abs(before - ndimage.gaussian_filter(before, 1.0))[tissue]
    noise = rng.uniform(*NOISE) * np.median(rough) if rough.size else 0.0
    change += np.minimum(1, np.abs(change) / 0.2) * rng.normal(0, noise, change.shape)
    return (image + scale * change).clip(image.min(), image.max()).astype(np.float32), label


def bright_spots(relative: np.ndarray, brain: np.ndarray, spacing_mm: Millimetres) -> np.ndarray:
    """What is as bright as a lesion and thicker than `THICK_MM`: bool, shape (X, Y, Z); the brightness is relative."""
    bright = ndimage.binary_fill_holes((relative > BRIGHT) & brain)
    return with_margin(_shrunk(bright, THICK_MM / 2, spacing_mm), spacing_mm, THICK_MM / 2 + spacing_mm[0])


def _brain(relative: np.ndarray, spacing_mm: Millimetres) -> np.ndarray:
    """The brain without its holes: bool, shape (X, Y, Z)."""
    parts, _ = label_lesions(_shrunk(relative > SOLID, BRIDGES_MM, spacing_mm))
    sizes = np.bincount(parts.ravel())
    largest = parts == 1 + sizes[1:].argmax() if len(sizes) > 1 else parts > 0
    whole = with_margin(largest, spacing_mm, BRIDGES_MM + SULCI_MM)
    return ndimage.binary_fill_holes(_shrunk(whole, SULCI_MM, spacing_mm))


def _places(
    tissue: np.ndarray, brain: np.ndarray, spots: np.ndarray, spacing_mm: Millimetres, rng: np.random.Generator
) -> list[Lesion]:
    """Draw lesions, the largest first, and a place in tissue for each that finds room."""
    depth_mm, room_mm = (_inside_mm(mask, spacing_mm) for mask in (brain, tissue))
    sites = np.argwhere(room_mm > 0)
    depths_mm, rooms_mm, free_mm = (
        array[tuple(sites.T)] for array in (depth_mm, room_mm, _inside_mm(~spots, spacing_mm))
    )
    axes_mm = [np.arange(n) * edge for n, edge in zip(brain.shape, spacing_mm, strict=True)]
    lesions = []
    for plan in sorted((_plan(rng) for _ in range(LESIONS)), key=lambda plan: -plan.diameter_mm):
        shape = LesionShape.random(rng, plan.diameter_mm)
        for factor in SIZES:
            reach_mm = factor * shape.radii_mm().max()
            fits = (free_mm - GAP_MM > reach_mm) & (rooms_mm > min(0.6 * reach_mm, 10.0))
            fits &= depths_mm > min(reach_mm, 12 + 0.7 * (reach_mm - 12)) + DEPTH_MM
            if not fits.any():
                continue
            centre_mm = rng.choice(sites[fits]) * np.array(spacing_mm)
            lesions.append(lay_out(plan, shape.scaled(factor), 1.0, centre_mm, axes_mm, lambda box: depth_mm[box]))
            away_mm = np.linalg.norm(sites * np.array(spacing_mm) - centre_mm, axis=1)
            free_mm = np.minimum(free_mm, away_mm - reach_mm)
            break
    return lesions


def _plan(rng: np.random.Generator) -> LesionPlan:
    plan = draw_metastasis(rng, *DIAMETERS_MM)
    kind = NECROTIC if plan.kind != "solid" and rng.random() < NECROTIC_SHARE else plan.kind
    return replace(plan, kind=kind, enhancement=rng.uniform(*ENHANCEMENT), necrosis=rng.uniform(*NECROSIS))


def _inside_mm(mask: np.ndarray, spacing_mm: Millimetres) -> np.ndarray:
    """Distance of each voxel of a mask from what is not in it, in mm; beyond the volume nothing is."""
    return edt.edt(np.ascontiguousarray(mask), anisotropy=spacing_mm, black_border=True, parallel=1)


def _shrunk(mask: np.ndarray, by_mm: float, spacing_mm: Millimetres) -> np.ndarray:
    return _inside_mm(mask, spacing_mm) > by_mm
