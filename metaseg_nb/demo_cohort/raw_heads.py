"""Synthetic heads as hospitals have them: with skull, in three sequences on grids of their own, from two scanners.

The skull is a shell of fluid, bone and scalp around the brain of a synthetic patient; there is no face and no neck.
The second and the third sequence show the head elsewhere, as if the patient had moved, by a motion that is known.
"""

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

import edt
import nibabel as nib
import numpy as np
from nibabel.affines import from_matvec
from scipy import ndimage
from scipy.spatial.transform import Rotation

from metaseg_nb.cohort.lesions import distance_mm
from metaseg_nb.cohort.volumes import Volume
from metaseg_nb.demo_cohort.anatomy import SPAN_MM, SplineField, load_template, sample
from metaseg_nb.demo_cohort.patients import (
    AIR_MM,
    TEMPLATE_LEVELS,
    PatientPlan,
    acquired,
    anatomy,
    grid_axes_mm,
    patient_rng,
    place_patient,
)

# At most, along and about each axis.
SHIFT_MM, TURN_DEGREES = 8.0, 8.0
# The skull lies around a brain whose sulci are closed; its layers, and from which distance of the brain each begins.
CLOSING_MM, SKULL_MM = 12.0, 17.0
LAYERS_MM = (0, 1.5, 2.5, 4, 5.5, 7, 8, 9, 13, 14.5, 16, SKULL_MM)
OEDEMA_MM = 5.0
# Of every fifth patient there is no second sequence, the FLAIR.
LACKING_PERIOD, LACKING = 5, 4


def _layers(fluid: float, bone: float, marrow: float, fat: float, skin: float) -> list[float]:
    """Brightness at `LAYERS_MM`."""
    return [fluid, fluid, bone, bone, marrow, bone, bone, fat, fat, skin, skin, 0.0]


class Sequence(NamedTuple):
    """A further sequence: voxel edges along X, Y, Z (RAS) and axes of the file, and how bright it shows what.

    White matter of the first sequence is 1.
    """

    name: str
    spacing_mm: tuple[float, float, float]
    axes: str
    layers: list[float]
    tissue: tuple[float, ...]
    lesion: float
    oedema: float


FIRST_SEQUENCE, FIRST_LAYERS = "t1c", _layers(0.30, 0.09, 0.50, 1.30, 0.70)
FURTHER = (
    Sequence("flair", (1.0, 1.0, 4.0), "LPS", _layers(0.2, 0.05, 0.4, 1.0, 0.5), (0, 0.2, 1.0, 0.8, 0.8), 1.15, 1.45),
    Sequence("t2", (4.0, 1.0, 1.0), "PSR", _layers(1.7, 0.05, 0.5, 1.1, 0.5), (0, 1.7, 1.0, 0.7, 0.7), 1.1, 1.4),
)


class Site(NamedTuple):
    """A hospital: its scanner, voxel edges and axes of the first sequence, and how the scanner shows a head."""

    name: str
    scanner: str
    spacing_mm: tuple[float, float, float]
    axes: str
    noise: float
    bias: float
    gamma: float
    white_matter: float


# Patients come from them in turn.
SITES = (
    Site("north", "synthetic 1.5 T", (1.1, 1.1, 2.0), "LPS", 0.06, 0.10, 0.8, 300.0),
    Site("south", "synthetic 3 T", (1.2, 1.2, 1.2), "RAS", 0.025, 0.25, 1.2, 1200.0),
)


@dataclass(frozen=True)
class RawHead:
    """Images (int16) by sequence, the first one first, without missing ones; and masks (uint8) on its grid."""

    images: dict[str, Volume]
    label: Volume
    brain: Volume


def demo_site(index: int) -> Site:
    """The hospital of the patient ``index``, from 0."""
    return SITES[index % len(SITES)]


def sequences_of(index: int) -> list[str | None]:
    """The sequences of a patient in order; None stands for a missing one."""
    lacking = FURTHER[0].name if index % LACKING_PERIOD == LACKING else None
    return [FIRST_SEQUENCE, *(None if each.name == lacking else each.name for each in FURTHER)]


def true_motion(seed: int, index: int, sequence: str) -> np.ndarray:
    """Where a point of a patient's first image lies in a further one: shape (4, 4), millimetres, RAS."""
    drawn = patient_rng(seed, index, "motion").uniform(-1, 1, (len(FURTHER), 6))
    shift, turn = np.split(drawn[[each.name for each in FURTHER].index(sequence)], 2)
    return from_matvec(Rotation.from_euler("xyz", TURN_DEGREES * turn, degrees=True).as_matrix(), SHIFT_MM * shift)


def render_raw(plan: PatientPlan) -> RawHead:
    """Make the images of one patient as a hospital has them, and the masks of its lesions and its brain.

    The lesions are those of `render_patient`, at other places. The same plan gives the same voxels.
    """
    site = demo_site(plan.index)
    plan = replace(plan, spacing_mm=site.spacing_mm, axes=site.axes)
    patient, rng = place_patient(plan, SKULL_MM + AIR_MM), patient_rng(plan.seed, plan.index, "scan")
    positions_mm, template = patient.positions_mm, load_template()
    brain, away_mm = (sample(values, positions_mm, "nearest") for values in _skull())
    is_brain = brain > 0.5

    def head(tissue: np.ndarray, levels: list[float]) -> np.ndarray:
        shell = np.interp(away_mm, LAYERS_MM, levels).astype(np.float32)
        return np.where(is_brain, sample(tissue, positions_mm), shell)

    first = head(anatomy(plan), FIRST_LAYERS)
    label = patient.paint(first)
    images = {FIRST_SEQUENCE: replace(label, array=_scanned(first, patient.affine, site, rng))}
    lesion = label.array > 0
    around = np.exp(-((distance_mm(lesion, plan.spacing_mm) / OEDEMA_MM) ** 2)) * is_brain
    for own in FURTHER:
        if own.name in sequences_of(plan.index):
            tissue = np.interp(template.t1, TEMPLATE_LEVELS, own.tissue).astype(np.float32)
            intensity = head(tissue, own.layers)
            intensity += around * (own.oedema - intensity)
            intensity[lesion] = own.lesion
            motion = true_motion(plan.seed, plan.index, own.name)
            array, affine = _elsewhere(intensity, patient.affine, motion, own.spacing_mm)
            array = _scanned(array, affine, site, rng)
            images[own.name] = Volume(array, affine, nib.orientations.axcodes2ornt(own.axes))
    return RawHead(images, label, replace(label, array=is_brain.astype(np.uint8)))


@lru_cache(maxsize=1)
def _skull() -> tuple[np.ndarray, np.ndarray]:
    """The brain, 1 or 0, and the distance from it where its sulci are closed, mm: on the template's grid, wider."""
    wide = int(CLOSING_MM + SKULL_MM + 1)
    brain = np.pad(ndimage.binary_fill_holes(load_template().t1 > 0), wide)
    grown = edt.edt(~brain, parallel=1) <= CLOSING_MM
    closed = brain | (edt.edt(grown, parallel=1) > CLOSING_MM)
    return brain.astype(np.float32), edt.edt(~closed, parallel=1)


def _elsewhere(
    intensity: np.ndarray, affine: np.ndarray, motion: np.ndarray, spacing_mm: tuple[float, float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Show a head that has moved on another grid of the same extent: the array and its affine."""
    edges, shape = np.diag(affine)[:3], np.array(intensity.shape)
    own_shape = np.ceil(shape * edges / spacing_mm).astype(int)
    middle = motion @ affine @ [*(shape - 1) / 2, 1]
    own = from_matvec(np.diag(spacing_mm), np.round(middle[:3] - np.array(spacing_mm) * (own_shape - 1) / 2, 2))
    wider = np.sqrt(np.maximum(np.square(spacing_mm) - np.square(edges), 0) / 12) / edges
    blurred, to_first = ndimage.gaussian_filter(intensity, wider), np.linalg.inv(motion @ affine) @ own
    array = ndimage.affine_transform(blurred, to_first[:3, :3], to_first[:3, 3], tuple(own_shape), order=1)
    return array, own


def _scanned(intensity: np.ndarray, affine: np.ndarray, site: Site, rng: np.random.Generator) -> np.ndarray:
    """An image as a site's scanner shows it: its contrast, its bias field, its noise and its scale."""
    field = SplineField.random(rng, site.bias, 80.0, SPAN_MM).on_axes(grid_axes_mm(intensity.shape, affine))
    shown = np.maximum(intensity, 0) ** site.gamma * np.exp(field)
    return acquired(shown, rng, site.noise, site.white_matter * rng.uniform(0.8, 1.25))
