"""Each synthetic patient: what it is to have, drawn before anything is rendered, and its image as a scanner shows it.

The numbers follow the study that the workbook repeats: 3 ± 2 lesions a patient, at most 27, largest
diameters 22 ± 16 mm. Every twentieth patient has no lesion and four of twenty only small ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import nibabel as nib
import numpy as np
from nibabel.affines import from_matvec
from scipy import ndimage

from metaseg_nb.cohort.volumes import Volume
from metaseg_nb.demo_cohort.anatomy import CENTRE_MM, SPAN_MM, Axes, Deformation, SplineField, load_template, sample
from metaseg_nb.demo_cohort.lesions import LESION_KINDS, Lesion, LesionPlan, paint_lesion, place_lesions, push_tissue
from metaseg_nb.demo_cohort.vessels import enhance

MAX_LESIONS = 27
# Positions in each row of twenty patients; the first three have lesions of any size.
PROFILE_PERIOD = 20
WITHOUT_LESIONS = {7}
ONLY_SMALL_LESIONS = {3, 9, 14, 18}

# Gamma distribution of the diameters of the other patients; wider than 22 ± 16 mm because it is cut at both
# ends and the small lesions are drawn apart.
DIAMETER_SHAPE, DIAMETER_SCALE_MM, DIAMETERS_MM = 1.6, 17.5, (3.0, 68.0)
# Lesions beyond the first: negative binomial. A rare patient has very many, all of them smaller.
MEAN_OTHER_LESIONS, NUMBER_SHAPE = 2.3, 4
MANY_LESIONS_CHANCE, MANY_LESIONS_FROM = 0.005, 10

# Voxel edges along X, Y, Z (RAS) and axes of the file; patients take them in turn.
SCANNERS = (
    ((1.0, 1.0, 1.0), "RAS"),
    ((0.9, 0.9, 1.2), "LPS"),
    ((1.0, 1.0, 1.0), "LAS"),
    ((0.9, 0.9, 2.0), "LPS"),
    ((1.2, 1.0, 1.0), "PSR"),
    ((0.9, 0.9, 1.5), "RAS"),
    ((1.0, 1.0, 1.2), "LAS"),
    ((0.9, 0.9, 3.0), "LPS"),
    ((1.0, 1.2, 1.0), "LSA"),
    ((1.1, 1.1, 1.1), "RPS"),
)
# Each has a number, its place here: add new ones at the end.
PURPOSES = ("plan", "anatomy", "vessels", "lesions", "contrast", "bias", "noise", "motion", "scan")
# Air around a brain without skull.
AIR_MM = 9.0
# Brightness of the template that stands for nothing, fluid, grey and white matter, and the brightest white matter.
TEMPLATE_LEVELS = (0, 0.31, 0.75, 1, 1.15)


class Primary(NamedTuple):
    """How the metastases of one primary cancer differ: factors on number and diameter, odds of the `LESION_KINDS`."""

    name: str
    share: float
    number: float
    diameter: float
    kinds: tuple[float, float, float]


PRIMARIES = (
    Primary("NSCLC", 0.45, 1.0, 1.0, (0.50, 0.40, 0.10)),
    Primary("Melanoma", 0.25, 1.2, 0.9, (0.50, 0.15, 0.35)),
    Primary("Breast", 0.20, 1.0, 1.0, (0.55, 0.35, 0.10)),
    Primary("Renal", 0.10, 0.8, 1.15, (0.40, 0.30, 0.30)),
)


@dataclass(frozen=True)
class PatientPlan:
    """One patient: names, lesions (largest first), voxel edges along X, Y, Z (RAS) and axes of the file.

    Of several dates (`plan_dates`) also ``date`` (from 0), ``day`` since the first, and ``lesions`` as they are ``now``
    (0 mm: not there).
    """

    seed: int
    index: int
    primary: str
    lesions: tuple[LesionPlan, ...]
    spacing_mm: tuple[float, float, float]
    axes: str
    date: int = 0
    day: int | None = None
    now: tuple[LesionPlan, ...] = ()

    @property
    def patient(self) -> str:
        """Name of the patient, counted from 1."""
        return f"synthetic_{self.index + 1:03d}"

    @property
    def case(self) -> str:
        """Name of the case: the patient's, and of several dates this one, from 0."""
        return self.patient if self.day is None else f"{self.patient}-{self.date:03d}"


def plan_patient(seed: int, index: int) -> PatientPlan:
    """Plan the patient ``index`` (from 0) of the cohort ``seed``; it is the same in a cohort of any size."""
    rng = patient_rng(seed, index, "plan")
    primary = PRIMARIES[rng.choice(len(PRIMARIES), p=[one.share for one in PRIMARIES])]
    diameters = sorted(_draw_diameters_mm(rng, primary, index % PROFILE_PERIOD), reverse=True)
    lesions = tuple(_draw_lesion(rng, primary, diameter) for diameter in diameters)
    return PatientPlan(seed, index, primary.name, lesions, *SCANNERS[index % len(SCANNERS)])


def render_patient(plan: PatientPlan) -> tuple[Volume, Volume, list[Lesion]]:
    """Make image (int16) and label (uint8, 0 and 1) of one patient, on one grid, and list the lesions in them.

    The same plan gives the same voxels.
    """
    patient = place_patient(plan, AIR_MM)
    return *scanned(patient), patient.lesions


@dataclass(frozen=True)
class PlacedPatient:
    """A patient on the grid of an image, before anything is drawn.

    ``positions_mm``, float32 of shape (3, X, Y, Z), are where the voxels lie in the template; ``rng`` draws lesions.
    """

    plan: PatientPlan
    affine: np.ndarray
    positions_mm: np.ndarray
    lesions: list[Lesion]
    rng: np.random.Generator

    def paint(self, intensity: np.ndarray) -> Volume:
        """Draw the lesions over an image whose white matter is 1; returns their mask, uint8."""
        label = np.zeros(intensity.shape, np.uint8)
        for lesion in self.lesions:
            paint_lesion(intensity, label, lesion, self.plan.spacing_mm, self.rng)
        return Volume(label, self.affine, nib.orientations.axcodes2ornt(self.plan.axes))


def scanned(patient: PlacedPatient) -> tuple[Volume, Volume]:
    """Image and label of a placed patient."""
    plan, intensity = patient.plan, sample(anatomy(patient.plan), patient.positions_mm)
    label = patient.paint(intensity)
    intensity *= true_bias_field(plan.seed, plan.index, label.array.shape, label.affine, plan.date)
    rng = patient_rng(plan.seed, plan.index, "noise", plan.date)
    image = acquired(intensity, rng, rng.uniform(0.02, 0.05), rng.uniform(250, 900))
    return replace(label, array=image), label


def place_patient(plan: PatientPlan, around_mm: float) -> PlacedPatient:
    """Place a patient's head and lesions on a grid that goes ``around_mm`` beyond the brain."""
    deformation = Deformation.random(patient_rng(plan.seed, plan.index, "anatomy"))
    shape, affine = grid_around(head_points_mm(deformation), plan.spacing_mm, around_mm)
    axes_mm = grid_axes_mm(shape, affine)
    rng = patient_rng(plan.seed, plan.index, "lesions")
    positions_mm = deformation.on_axes(axes_mm)
    lesions = place_lesions(plan.lesions, deformation, axes_mm, positions_mm, rng)
    for lesion in lesions:
        push_tissue(positions_mm, lesion, deformation)
    return PlacedPatient(plan, affine, positions_mm, lesions, rng)


def draw_metastasis(rng: np.random.Generator, least_mm: float, most_mm: float) -> LesionPlan:
    """Draw one lesion of any patient; diameters beyond the two bounds become these."""
    primary = PRIMARIES[rng.choice(len(PRIMARIES), p=[one.share for one in PRIMARIES])]
    diameter_mm = rng.gamma(DIAMETER_SHAPE, DIAMETER_SCALE_MM * primary.diameter)
    return _draw_lesion(rng, primary, float(np.clip(diameter_mm, least_mm, most_mm)))


def true_bias_field(seed: int, index: int, shape: tuple[int, ...], affine: np.ndarray, date: int = 0) -> np.ndarray:
    """Recompute the bias field that a patient's image was multiplied with, on any grid parallel to the world axes.

    Parameters
    ----------
    seed, index : int
        Of the cohort and of the patient (from 0).
    shape : tuple of 3 ints
    affine : ndarray, shape (4, 4)
        In RAS order, in the patient's world space, native or resampled.
    date : int
        Of a patient at several dates, from 0.

    Returns
    -------
    ndarray of float32, shape (X, Y, Z)
        Positive, around 1.
    """
    rng = patient_rng(seed, index, "bias", date)
    field = SplineField.random(rng, deviation=0.18, step_mm=80.0, reach_mm=SPAN_MM)
    return np.exp(field.on_axes(grid_axes_mm(shape, affine)))


def patient_rng(seed: int, index: int, purpose: str, date: int = 0) -> np.random.Generator:
    """Make the generator of one patient for one of `PURPOSES`; what is drawn anew at each date has the date's own."""
    return np.random.default_rng([seed, index, PURPOSES.index(purpose), *([date] if date else [])])


def grid_axes_mm(shape: tuple[int, ...], affine: np.ndarray) -> Axes:
    """World coordinates of the voxel centres along X, Y, Z of a grid that is parallel to the world axes."""
    return [affine[axis, 3] + affine[axis, axis] * np.arange(n) for axis, n in enumerate(shape)]


def _draw_diameters_mm(rng: np.random.Generator, primary: Primary, position: int) -> np.ndarray:
    if position in WITHOUT_LESIONS:
        return np.empty(0)
    if position in ONLY_SMALL_LESIONS:
        return rng.uniform(3.0, 9.0, size=1 + rng.poisson(1.2 * primary.number))
    if rng.random() < MANY_LESIONS_CHANCE:
        number, scale_mm = rng.integers(MANY_LESIONS_FROM, MAX_LESIONS + 1), 0.4 * DIAMETER_SCALE_MM
    else:
        others = MEAN_OTHER_LESIONS * primary.number
        number = 1 + rng.negative_binomial(NUMBER_SHAPE, NUMBER_SHAPE / (NUMBER_SHAPE + others))
        number, scale_mm = min(number, MAX_LESIONS), DIAMETER_SCALE_MM
    while True:
        drawn = np.empty(0)
        while len(drawn) < number:
            more = rng.gamma(DIAMETER_SHAPE, scale_mm * primary.diameter, size=number)
            drawn = np.append(drawn, more[(more >= DIAMETERS_MM[0]) & (more <= DIAMETERS_MM[1])])
        drawn = drawn[:number]
        # Ellipsoids whose other two axes are about 0.85 and 0.75 of the largest must fit into the brain.
        if (np.pi / 6 * 0.64 * drawn**3).sum() <= 120e3:
            return drawn


def _draw_lesion(rng: np.random.Generator, primary: Primary, diameter_mm: float) -> LesionPlan:
    odds = np.array(primary.kinds)
    # Small metastases have not outgrown their blood supply, large ones nearly always have.
    odds[0] *= np.interp(diameter_mm, [15, 30], [1, 0.2])
    odds[1:] *= diameter_mm >= 9
    kind = LESION_KINDS[rng.choice(len(LESION_KINDS), p=odds / odds.sum())]
    return LesionPlan(float(diameter_mm), kind, float(rng.uniform(1.15, 1.65)))


def head_points_mm(deformation: Deformation) -> np.ndarray:
    """Points of a patient's head in its world, but for its own shape: shape (N, 3)."""
    template = load_template()
    head = np.argwhere(template.t1[::4, ::4, ::4] > 0) * 4 + template.origin_mm
    return (head - CENTRE_MM) @ np.linalg.inv(deformation.linear).T + CENTRE_MM + deformation.offset_mm


def grid_around(
    head_mm: np.ndarray, spacing_mm: Sequence[float], around_mm: float = AIR_MM
) -> tuple[tuple[int, ...], np.ndarray]:
    """Field of view around a head: shape and affine in RAS order."""
    first, last = head_mm.min(axis=0) - around_mm, head_mm.max(axis=0) + around_mm
    affine = from_matvec(np.diag(spacing_mm), np.round(first, 2))
    return tuple(int(n) for n in np.ceil((last - first) / spacing_mm)), affine


def anatomy(plan: PatientPlan) -> np.ndarray:
    """Contrast-enhanced anatomy in template space, blurred as much as the voxels are wider than the template's."""
    rng = patient_rng(plan.seed, plan.index, "contrast", plan.date)
    fluid, grey = rng.uniform(0.25, 0.38), rng.uniform(0.71, 0.82)
    intensity = np.interp(load_template().t1, TEMPLATE_LEVELS, [0, fluid, grey, 1, 1.08]).astype(np.float32)
    intensity = enhance(intensity, patient_rng(plan.seed, plan.index, "vessels"))
    for axis, edge_mm in enumerate(plan.spacing_mm):
        if edge_mm > 1.2:
            intensity = ndimage.gaussian_filter1d(intensity, np.sqrt((edge_mm**2 - 1) / 12), axis=axis)
    return intensity


def acquired(intensity: np.ndarray, rng: np.random.Generator, noise: float, white_matter: float) -> np.ndarray:
    """Rician noise (Gudbjartsson and Patz, Magn Reson Med 34:910-914, 1995) and the scanner's scale, as int16."""
    real = intensity + noise * rng.standard_normal(intensity.shape, dtype=np.float32)
    imaginary = noise * rng.standard_normal(intensity.shape, dtype=np.float32)
    return np.rint(white_matter * np.hypot(real, imaginary)).astype(np.int16)
