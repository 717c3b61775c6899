"""Synthetic patients at several dates: the same head, lesions that grow, shrink, vanish, come or are resected.

At each date the head lies elsewhere, and voxels, contrast, bias field and noise are others.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from nibabel.affines import apply_affine, from_matvec
from scipy import ndimage
from scipy.spatial.transform import Rotation

from metaseg_nb.cohort.volumes import Volume
from metaseg_nb.demo_cohort.anatomy import CENTRE_MM, Axes, Deformation
from metaseg_nb.demo_cohort.lesions import (
    CAVITY,
    NECROTIC,
    Lesion,
    LesionPlan,
    depth_at,
    lay_out,
    place_lesions,
    push_tissue,
)
from metaseg_nb.demo_cohort.patients import (
    SCANNERS,
    PatientPlan,
    PlacedPatient,
    grid_around,
    grid_axes_mm,
    head_points_mm,
    patient_rng,
    plan_patient,
    scanned,
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


PR, SD, PD = "partial response", "stable disease", "progression"
COURSES = (
    Course((1, 0.82, 0.6, 0.45), NEVER, (SD, PR, PR)),
    Course((1, 1.06, 1.5), NEVER, (SD, PD)),
    Course((1, 1.05), NEVER, (SD,)),
    Course((1, 0.6, 0.5, 0.95), NEVER, (PR, PR, PD)),
    Course((1, 0.95, 0.92), 1, (PD, PD), resected_at=2),
    Course((1, 0.55, 0), NEVER, (PR, "complete response")),
)


def plan_dates(seed: int, index: int, most: int) -> list[PatientPlan]:
    """Plan a patient's dates, as many as the course of `COURSES` has and ``most`` at most.

    ``lesions`` are as large as they ever get, ``now`` as they are at the date.
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
            replace(patient, spacing_mm=spacing_mm, axes=axes, date=date, day=int(days[date]), now=tuple(lesions))
        )
    return plans


def _at(largest: LesionPlan, sizes_mm: Sequence[float]) -> LesionPlan:
    """Plan a lesion at the last of its dates so far; once it shrank, it stays necrotic."""
    there_mm = [mm for mm in sizes_mm if mm]
    responded = any(mm < RESPONDED * there_mm[0] for mm in there_mm)
    return replace(largest, diameter_mm=float(sizes_mm[-1]), kind=NECROTIC if responded else largest.kind)


def render_date(plan: PatientPlan) -> tuple[Volume, Volume, list[Lesion | None], np.ndarray]:
    """Make image and label of a patient at a date, as `render_patient` does.

    Returns
    -------
    image, label : Volume
    lesions : list of Lesion or None
        In the order of the plan; None where one is not there, or a cavity is in its place.
    matrix : ndarray, shape (4, 4)
        From the first date's world to this one's.
    """
    rng = patient_rng(plan.seed, plan.index, "lesions", plan.date)
    deformation = Deformation.random(patient_rng(plan.seed, plan.index, "anatomy"))
    matrix, placed = _pose(plan), _lesions_at_first(plan, deformation)
    turned = replace(deformation, linear=(deformation.linear @ matrix[:3, :3].T).astype(np.float32))
    shape, affine = grid_around(apply_affine(matrix, head_points_mm(deformation)), plan.spacing_mm)
    axes_mm = grid_axes_mm(shape, affine)
    positions_mm = _positions(deformation, matrix, axes_mm)
    drawn: list[Lesion | None] = []
    for largest, plan_now in zip(placed, plan.now, strict=True):
        if not plan_now.diameter_mm:
            drawn.append(None)
            continue
        form = largest.shape.scaled(plan_now.diameter_mm / largest.plan.diameter_mm)
        form = replace(form, to_sphere=form.to_sphere @ matrix[:3, :3].T)
        centre_mm = apply_affine(matrix, largest.centre_mm)
        drawn.append(lay_out(plan_now, form, largest.core, centre_mm, axes_mm, depth_at(positions_mm)))
    present = [*filter(None, drawn)]
    for lesion in present:
        push_tissue(positions_mm, lesion, turned)
    image, label = scanned(PlacedPatient(plan, affine, positions_mm, present, rng))
    lesions = [lesion if lesion and lesion.plan.kind != CAVITY else None for lesion in drawn]
    return image, label, lesions, matrix


def _pose(plan: PatientPlan) -> np.ndarray:
    """Where the head lies: from the first date's world to this one's."""
    if not plan.date:
        return np.eye(4)
    rng = patient_rng(plan.seed, plan.index, "anatomy", plan.date)
    turn = Rotation.from_rotvec(_direction(rng) * rng.uniform(2, TURN_DEGREES), degrees=True).as_matrix()
    return from_matvec(turn, CENTRE_MM - turn @ CENTRE_MM + _direction(rng) * rng.uniform(3, SHIFT_MM))


def _direction(rng: np.random.Generator) -> np.ndarray:
    drawn = rng.normal(size=3)
    return drawn / np.linalg.norm(drawn)


def _lesions_at_first(patient: PatientPlan, deformation: Deformation) -> list[Lesion]:
    """Shapes and places of all lesions, as large as they get, in the first date's world."""
    shape, affine = grid_around(head_points_mm(deformation), [COARSE_MM] * 3)
    axes_mm = grid_axes_mm(shape, affine)
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
