"""One synthetic patient as a scanner would show it: anatomy, lesions, bias field and noise on the native grid."""

from dataclasses import dataclass

import nibabel as nib
import numpy as np
from scipy import ndimage

from metaseg_nb.cohort.volumes import Volume
from metaseg_nb.demo_cohort.anatomy import (
    CENTRE_MM,
    REACH_MM,
    Deformation,
    SplineField,
    Template,
    grid_axes_mm,
    load_template,
    sample,
)
from metaseg_nb.demo_cohort.lesions import PlacedLesion, place_lesions
from metaseg_nb.demo_cohort.painting import look_around, paint_lesion, push_tissue
from metaseg_nb.demo_cohort.plan import PatientPlan
from metaseg_nb.demo_cohort.vessels import enhance

BIAS_STEP_MM = 80.0
BIAS_DEVIATION = 0.18
FIELD_OF_VIEW_MARGIN_MM = 9.0
PURPOSES = ("anatomy", "vessels", "lesions", "contrast", "bias", "noise")


@dataclass(frozen=True)
class RenderedPatient:
    """Image (int16), label (uint8, 0 and 1) on one grid, and the lesions that were planted."""

    image: Volume
    label: Volume
    lesions: list[PlacedLesion]


def render_patient(plan: PatientPlan) -> RenderedPatient:
    """Make the image and label of one patient; the same plan gives the same voxels."""
    template = load_template()
    deformation = Deformation.random(patient_rng(plan.seed, plan.index, "anatomy"))
    shape, affine = _native_grid(template, deformation, plan.spacing_mm)
    axes_mm = grid_axes_mm(shape, affine)
    rng = patient_rng(plan.seed, plan.index, "lesions")
    lesions = place_lesions(plan.lesions, template, deformation, axes_mm, rng)

    positions_mm = deformation.on_axes(axes_mm)
    surroundings = [look_around(lesion, axes_mm, template, positions_mm) for lesion in lesions]
    for around in surroundings:
        push_tissue(positions_mm, around, deformation)
    intensity = sample(template, _anatomy(template, plan), positions_mm)
    label = np.zeros(shape, np.uint8)
    for around in surroundings:
        paint_lesion(intensity, around, plan.spacing_mm, rng)
        label[around.box] |= around.inside

    intensity *= true_bias_field(plan.seed, plan.index, shape, affine)
    native = nib.orientations.axcodes2ornt(plan.axes)
    image = Volume(_acquired(intensity, patient_rng(plan.seed, plan.index, "noise")), affine, native)
    return RenderedPatient(image, Volume(label, affine, native), lesions)


def true_bias_field(seed: int, index: int, shape: tuple[int, int, int], affine: np.ndarray) -> np.ndarray:
    """Recompute the bias field that a patient's image was multiplied with.

    Parameters
    ----------
    seed, index : int
        Of the cohort and of the patient (from 0).
    shape : tuple of 3 ints
    affine : ndarray, shape (4, 4)
        Any grid in RAS order in the patient's world space, native or resampled.

    Returns
    -------
    ndarray of float32, shape (X, Y, Z)
        Positive, around 1.

    Raises
    ------
    ValueError
        The grid is oblique or not in RAS order.
    """
    rng = patient_rng(seed, index, "bias")
    field = SplineField.random(rng, BIAS_DEVIATION, BIAS_STEP_MM, REACH_MM)
    return np.exp(field.on_axes(grid_axes_mm(shape, affine)))


def patient_rng(seed: int, index: int, purpose: str) -> np.random.Generator:
    """Make the generator of one patient for one of `PURPOSES`."""
    # From 1: a trailing 0 would repeat the generator that planned the patient.
    return np.random.default_rng([seed, index, 1 + PURPOSES.index(purpose)])


def _native_grid(
    template: Template, deformation: Deformation, spacing_mm: tuple[float, float, float]
) -> tuple[tuple[int, int, int], np.ndarray]:
    """Field of view around the head: shape and affine in RAS order."""
    head = np.argwhere(template.t1[::4, ::4, ::4] > 0) * 4 + template.origin_mm
    head_mm = (head - CENTRE_MM) @ np.linalg.inv(deformation.linear).T + CENTRE_MM + deformation.offset_mm
    first, last = head_mm.min(axis=0) - FIELD_OF_VIEW_MARGIN_MM, head_mm.max(axis=0) + FIELD_OF_VIEW_MARGIN_MM
    shape = tuple(int(n) for n in np.ceil((last - first) / spacing_mm))
    affine = np.diag([*spacing_mm, 1.0])
    affine[:3, 3] = np.round(first, 2)
    return shape, affine


def _anatomy(template: Template, plan: PatientPlan) -> np.ndarray:
    """Contrast-enhanced anatomy in template space, blurred as much as the voxels are wider than the template's."""
    rng = patient_rng(plan.seed, plan.index, "contrast")
    fluid, grey = rng.uniform(0.25, 0.38), rng.uniform(0.71, 0.82)
    intensity = np.interp(template.t1, [0, 0.31, 0.75, 1, 1.15], [0, fluid, grey, 1, 1.08]).astype(np.float32)
    intensity = enhance(template, intensity, patient_rng(plan.seed, plan.index, "vessels"))
    for axis, edge_mm in enumerate(plan.spacing_mm):
        if edge_mm > 1.2:
            intensity = ndimage.gaussian_filter1d(intensity, np.sqrt((edge_mm**2 - 1) / 12), axis=axis)
    return intensity


def _acquired(intensity: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Rician noise (Gudbjartsson and Patz, Magn Reson Med 34:910-914, 1995) and the scanner's scale, as int16."""
    noise, white_matter = rng.uniform(0.02, 0.05), rng.uniform(250, 900)
    real = intensity + noise * rng.standard_normal(intensity.shape, dtype=np.float32)
    imaginary = noise * rng.standard_normal(intensity.shape, dtype=np.float32)
    return np.rint(white_matter * np.hypot(real, imaginary)).astype(np.int16)
