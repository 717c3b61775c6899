"""Synthetic patients at several dates: the same head, lesions that grow, shrink, vanish, come or are resected.

At each date the head lies elsewhere, and voxels, contrast, bias field and noise are others.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import nibabel as nib
import numpy as np
from nibabel.affines import apply_affine
from scipy import ndimage
from scipy.spatial.transform import Rotation

from metaseg_nb.cohort.volumes import Volume
from metaseg_nb.demo_cohort.anatomy import CENTRE_MM, Axes, Deformation, sample
from metaseg_nb.demo_cohort.lesions import (
    CAVITY,
    NECROTIC,
    Lesion,
    LesionPlan,
    depth_at,
    lay_out,
    paint_lesion,
    place_lesions,
    push_tissue,
)
from metaseg_nb.demo_cohort.patients import (
    SCANNERS,
    PatientPlan,
    acquired,
    anatomy_map,
    grid_around,
    head_points_mm,
    patient_rng,
    plan_patient,
    true_bias_field,
)

# Lesions at the first date: the largest, and the others, in mm. Where one would be smaller than the last, it is gone.
LARGEST_MM, OTHERS_MM, OTHERS, LEAST_MM = (18.0, 24.0), (5.0, 12.0), (1, 4), 3.0
NEW_MM = 9.0
# Lesions larger than this have necrosis inside, and so have those that shrank below this share of their diameter.
RING_MM, RESPONDED = 15.0, 0.8
# A cavity: its share of the lesion's diameter, brightness of its rim and of its fluid; white matter is 1.
CAVITY_SHARE, CAVITY_RIM, FLUID = 0.9, 1.2, 0.3
DAYS_BETWEEN = (55, 95)
# How far a head lies from where it lay at the first date.
SHIFT_MM, TURN_DEGREES = 12.0, 8.0
# Lesions are placed on voxels of this edge; between them a displacement is interpolated.
COARSE_MM = 3.0
REACH_MM = 160.0
# A date that no patient has.
NEVER = 99


class Course(NamedTuple):
    """What becomes of a patient.

    Factors of the diameters at each date; the date at which a new lesion comes; RANO-BM by images at the dates after
    the first; the date at which the largest lesion has been resected.
    """

    factors: tuple[float, ...]
    new_at: int
    categories: tuple[str, ...]
    resected_at: int = NEVER


PARTLY, STABLE, PROGRESSION = "partial response", "stable disease", "progression"
COURSES = (
    Course((1, 0.82, 0.6, 0.45), NEVER, (STABLE, PARTLY, PARTLY)),
    Course((1, 1.06, 1.5), NEVER, (STABLE, PROGRESSION)),
    Course((1, 1.05), NEVER, (STABLE,)),
    Course((1, 0.6, 0.5, 0.95), NEVER, (PARTLY, PARTLY, PROGRESSION)),
    Course((1, 0.95, 0.92), 1, (PROGRESSION, PROGRESSION), resected_at=2),
    Course((1, 0.55, 0), NEVER, (PARTLY, "complete response")),
)


@dataclass(frozen=True)
class DatePlan:
    """A patient at one date: ``lesions`` are all that the patient ever has, as they are now (0 mm: not there)."""

    patient: PatientPlan
    date: int
    day: int
    lesions: tuple[LesionPlan, ...]

    @property
    def case(self) -> str:
        """Name of the case: the patient's, and the date from 0."""
        return f"{self.patient.case}-{self.date:03d}"


def plan_dates(seed: int, index: int, most: int) -> list[DatePlan]:
    """Plan a patient's dates, as many as the course of `COURSES` has and ``most`` at most.

    The lesions of ``patient`` are as large as they ever get.
    """
    course, rng = COURSES[index % len(COURSES)], patient_rng(seed, index, "plan")
    factors = course.factors[:most]
    first_mm = [rng.uniform(*LARGEST_MM), *rng.uniform(*OTHERS_MM, size=rng.integers(*OTHERS))]
    sizes_mm = [[mm * factor for factor in factors] for mm in sorted(first_mm, reverse=True)]
    sizes_mm = [[mm if mm >= LEAST_MM else 0.0 for mm in of_lesion] for of_lesion in sizes_mm]
    sizes_mm += [[NEW_MM * (date >= course.new_at) for date in range(len(factors))]] if course.new_at < most else []
    sizes_mm.sort(key=max, reverse=True)
    largest = tuple(
        LesionPlan(max(of), "ring" if max(of) > RING_MM else "solid", rng.uniform(1.2, 1.6)) for of in sizes_mm
    )
    patient = replace(plan_patient(seed, index), lesions=largest)
    days = np.cumsum([0, *rng.integers(*DAYS_BETWEEN, size=len(factors) - 1)])
    plans = []
    for date in range(len(factors)):
        spacing_mm, axes = SCANNERS[(index + 3 * date) % len(SCANNERS)]
        lesions = [_at(plan, of[: date + 1]) for plan, of in zip(largest, sizes_mm, strict=True)]
        if date >= course.resected_at:
            lesions[0] = LesionPlan(CAVITY_SHARE * lesions[0].diameter_mm, CAVITY, CAVITY_RIM, FLUID)
        plans.append(
            DatePlan(replace(patient, spacing_mm=spacing_mm, axes=axes), date, int(days[date]), tuple(lesions))
        )
    return plans


def _at(largest: LesionPlan, sizes_mm: Sequence[float]) -> LesionPlan:
    """Plan a lesion at the last of its dates so far; once it shrank, it stays necrotic."""
    there_mm = [mm for mm in sizes_mm if mm]
    responded = any(mm < RESPONDED * there_mm[0] for mm in there_mm)
    return replace(largest, diameter_mm=float(sizes_mm[-1]), kind=NECROTIC if responded else largest.kind)


def render_date(plan: DatePlan) -> tuple[Volume, Volume, list[Lesion | None], np.ndarray]:
    """Make image and label of a patient at a date, as `render_patient` does.

    Returns
    -------
    image, label : Volume
    lesions : list of Lesion or None
        In the order of the plan; None where one is not there, or a cavity is in its place.
    matrix : ndarray, shape (4, 4)
        From the first date's world to this one's.
    """
    patient, rng = plan.patient, patient_rng(plan.patient.seed, plan.patient.index, "lesions", plan.date)
    deformation = Deformation.random(patient_rng(patient.seed, patient.index, "anatomy"))
    matrix, placed = _pose(plan), _lesions_at_first(patient, deformation)
    turned = replace(deformation, linear=(deformation.linear @ matrix[:3, :3].T).astype(np.float32))
    shape, affine = grid_around(apply_affine(matrix, head_points_mm(deformation)), patient.spacing_mm)
    axes_mm = [affine[axis, 3] + affine[axis, axis] * np.arange(n) for axis, n in enumerate(shape)]
    positions_mm = _positions(deformation, matrix, axes_mm)
    drawn: list[Lesion | None] = []
    for largest, plan_now in zip(placed, plan.lesions, strict=True):
        if not plan_now.diameter_mm:
            drawn.append(None)
            continue
        form = largest.shape.scaled(plan_now.diameter_mm / largest.plan.diameter_mm)
        form = replace(form, to_sphere=form.to_sphere @ matrix[:3, :3].T)
        centre_mm = apply_affine(matrix, largest.centre_mm)
        drawn.append(lay_out(plan_now, form, largest.core, centre_mm, axes_mm, depth_at(positions_mm)))
    for lesion in filter(None, drawn):
        push_tissue(positions_mm, lesion, turned)
    contrast = patient_rng(patient.seed, patient.index, "contrast", plan.date)
    vessels = patient_rng(patient.seed, patient.index, "vessels")
    intensity = sample(anatomy_map(contrast, vessels, patient.spacing_mm), positions_mm)
    label = np.zeros(shape, np.uint8)
    for lesion in filter(None, drawn):
        paint_lesion(intensity, label, lesion, patient.spacing_mm, rng)
    intensity *= true_bias_field(patient.seed, patient.index, shape, affine, plan.date)
    scan = patient_rng(patient.seed, patient.index, "noise", plan.date)
    image = acquired(intensity, scan, scan.uniform(0.02, 0.05), scan.uniform(250, 900))
    native = nib.orientations.axcodes2ornt(patient.axes)
    lesions = [lesion if lesion and lesion.plan.kind != CAVITY else None for lesion in drawn]
    return Volume(image, affine, native), Volume(label, affine, native), lesions, matrix


def _pose(plan: DatePlan) -> np.ndarray:
    """Where the head lies: from the first date's world to this one's."""
    matrix = np.eye(4)
    if plan.date:
        rng = patient_rng(plan.patient.seed, plan.patient.index, "anatomy", plan.date)
        turn = Rotation.from_rotvec(_direction(rng) * rng.uniform(2, TURN_DEGREES), degrees=True).as_matrix()
        matrix[:3, :3] = turn
        matrix[:3, 3] = CENTRE_MM - turn @ CENTRE_MM + _direction(rng) * rng.uniform(3, SHIFT_MM)
    return matrix


def _direction(rng: np.random.Generator) -> np.ndarray:
    drawn = rng.normal(size=3)
    return drawn / np.linalg.norm(drawn)


def _lesions_at_first(patient: PatientPlan, deformation: Deformation) -> list[Lesion]:
    """Shapes and places of all lesions, as large as they get, in the first date's world."""
    shape, affine = grid_around(head_points_mm(deformation), [COARSE_MM] * 3)
    axes_mm = [affine[axis, 3] + COARSE_MM * np.arange(n) for axis, n in enumerate(shape)]
    rng = patient_rng(patient.seed, patient.index, "lesions")
    return place_lesions(patient.lesions, deformation, axes_mm, deformation.on_axes(axes_mm), rng)


def _positions(deformation: Deformation, matrix: np.ndarray, axes_mm: Axes) -> np.ndarray:
    """Template position of every voxel of a grid in a date's world; float32, shape (3, X, Y, Z)."""
    back = np.linalg.inv(matrix).astype(np.float32)
    x, y, z = np.ix_(*(axis.astype(np.float32) for axis in axes_mm))
    centred = np.stack([row[0] * x + row[1] * y + row[2] * z + row[3] for row in back[:3]])
    centred -= deformation.offset_mm.astype(np.float32)[:, None, None, None]
    coarse_mm = np.arange(-REACH_MM, REACH_MM + COARSE_MM, COARSE_MM)
    warp = deformation.warp.on_axes([coarse_mm] * 3)
    places = (centred + np.float32(REACH_MM)) / np.float32(COARSE_MM)
    middle = CENTRE_MM.astype(np.float32)[:, None, None, None]
    positions = np.tensordot(deformation.linear, centred - middle, 1) + middle
    for axis in range(3):
        positions[axis] += ndimage.map_coordinates(warp[axis], places, order=1, output=np.float32, mode="nearest")
    return positions
