"""Lesions on a patient's grid: how they push tissue aside, what they cover and how bright they are."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from metaseg_nb.demo_cohort.anatomy import Deformation, Template, sample
from metaseg_nb.demo_cohort.lesions import PlacedLesion

# Tissue gives way out to this many lesion radii; near the brain's surface it does not move.
PUSH_REACH = 2.4
FIXED_SURFACE_MM = 8.0
# A lesion ends this far below the brain's surface.
SURFACE_MM = 1.0
NECROSIS = 0.45
OEDEMA_DIAMETER_MM = 12.0
OEDEMA = 0.62


@dataclass(frozen=True)
class Surroundings:
    """The part of a grid around one lesion; arrays of shape (x, y, z), ``offsets_mm`` (3, x, y, z).

    ``relative``: distance from the centre, 1 on the surface. ``outside_mm``: distance
    from the surface, negative inside. ``depth_mm``: below the brain's surface.
    """

    lesion: PlacedLesion
    box: tuple[slice, slice, slice]
    offsets_mm: np.ndarray
    relative: np.ndarray
    outside_mm: np.ndarray
    depth_mm: np.ndarray

    @property
    def inside(self) -> np.ndarray:
        """Voxels whose centre lies in the lesion."""
        return (self.relative < 1) & (self.depth_mm > SURFACE_MM)


def look_around(
    lesion: PlacedLesion,
    axes_mm: tuple[np.ndarray, np.ndarray, np.ndarray],
    template: Template,
    positions_mm: np.ndarray,
) -> Surroundings:
    """Measure the part of a grid that a lesion changes.

    Parameters
    ----------
    lesion : PlacedLesion
    axes_mm : tuple of 3 ndarray
        World coordinates of the voxel centres along X, Y, Z.
    template : Template
    positions_mm : ndarray, shape (3, X, Y, Z)
        Template position of every voxel.
    """
    reach_mm = PUSH_REACH * lesion.shape.reach_mm + 3
    spans = [np.searchsorted(a, (c - reach_mm, c + reach_mm)) for a, c in zip(axes_mm, lesion.centre_mm, strict=True)]
    box = tuple(slice(int(first), int(last)) for first, last in spans)
    near = [axis[part] - centre for axis, part, centre in zip(axes_mm, box, lesion.centre_mm, strict=True)]
    offsets_mm = np.stack(np.meshgrid(*near, indexing="ij")).astype(np.float32)
    relative = lesion.shape.relative_radius(offsets_mm)
    distance_mm = np.sqrt(np.einsum("i...,i...->...", offsets_mm, offsets_mm))
    outside_mm = distance_mm - distance_mm / np.maximum(relative, 1e-3)
    # The centre has no direction; it lies inside by the lesion's least radius.
    outside_mm[distance_mm < 1e-3] = -np.linalg.norm(lesion.shape.surface_mm(), axis=1).min()
    depth_mm = sample(template, template.depth_mm, positions_mm[:, *box])
    return Surroundings(lesion, box, offsets_mm, relative, outside_mm, depth_mm)


def push_tissue(positions_mm: np.ndarray, around: Surroundings, deformation: Deformation) -> None:
    """Move the template positions around a lesion so that the tissue of its core fills it; in place."""
    relative, core = around.relative, around.lesion.core
    far = np.clip((PUSH_REACH - relative) / (PUSH_REACH - 1), 0, 1)
    drawn_in = np.where(relative < 1, core, 1 - (1 - core) * far**2 / np.maximum(relative, 1))
    moved = np.clip(around.depth_mm / FIXED_SURFACE_MM, 0, 1) * (drawn_in - 1)
    positions_mm[:, *around.box] += np.einsum("ij,j...->i...", deformation.linear, around.offsets_mm * moved)


def paint_lesion(
    intensity: np.ndarray, around: Surroundings, spacing_mm: Sequence[float], rng: np.random.Generator
) -> None:
    """Draw a lesion, with oedema around the larger ones, over an image whose white matter is 1; in place."""
    plan = around.lesion.plan
    view = intensity[around.box]
    if plan.diameter_mm >= OEDEMA_DIAMETER_MM:
        _paint_oedema(view, around, rng)
    edge_mm = _voxel_depth_mm(around.offsets_mm, spacing_mm)
    cover = np.clip(0.5 - around.outside_mm / edge_mm, 0, 1) * np.clip(around.depth_mm - SURFACE_MM + 0.5, 0, 1)
    chosen = cover > 0
    inside_mm = -around.outside_mm[chosen]
    texture = _texture(around.offsets_mm[:, chosen], max(4.0, 0.4 * plan.diameter_mm), rng)
    level = LEVELS[plan.kind](inside_mm, texture, plan.enhancement, plan.diameter_mm)
    view[chosen] += cover[chosen] * (level - view[chosen])


def _solid(inside_mm: np.ndarray, texture: np.ndarray, enhancement: float, diameter_mm: float) -> np.ndarray:
    return enhancement * (1 + 0.1 * texture)


def _ring(inside_mm: np.ndarray, texture: np.ndarray, enhancement: float, diameter_mm: float) -> np.ndarray:
    rim_mm = np.clip(0.13 * diameter_mm, 1.8, 4.5) * np.clip(1 + 0.35 * texture, 0.45, 1.8)
    rim = np.clip((rim_mm - inside_mm) / 1.2 + 0.5, 0, 1)
    return NECROSIS * (1 + 0.1 * texture) + rim * (enhancement - NECROSIS)


def _haemorrhagic(inside_mm: np.ndarray, texture: np.ndarray, enhancement: float, diameter_mm: float) -> np.ndarray:
    blood = 1 / (1 + np.exp(-5 * (texture + 0.1)))
    rim = np.clip((0.06 * diameter_mm - inside_mm) / 1.2 + 0.5, 0, 1)
    mixed = NECROSIS + blood * (1.05 * enhancement - NECROSIS)
    return mixed + rim * (enhancement - mixed)


LEVELS = {"solid": _solid, "ring": _ring, "haemorrhagic": _haemorrhagic}


def _paint_oedema(view: np.ndarray, around: Surroundings, rng: np.random.Generator) -> None:
    width_mm = np.clip(0.35 * around.lesion.plan.diameter_mm, 4, 12) * rng.uniform(0.3, 1.2)
    chosen = (around.outside_mm > 0) & (around.outside_mm < 1.6 * width_mm) & (view > OEDEMA) & (view < 1.12)
    texture = _texture(around.offsets_mm[:, chosen], 14.0, rng)
    reach_mm = width_mm * np.clip(1 + 0.5 * texture, 0.2, 1.6)
    share = 0.8 * np.clip((reach_mm - around.outside_mm[chosen]) / 3, 0, 1)
    # Grey matter takes up less fluid than white matter.
    white = np.clip((view[chosen] - 0.7) / 0.25, 0.15, 1)
    view[chosen] += share * white * (OEDEMA - view[chosen])


def _texture(offsets_mm: np.ndarray, wavelength_mm: float, rng: np.random.Generator, n_waves: int = 14) -> np.ndarray:
    """Smooth noise of zero mean and unit deviation at points, shape (3, N)."""
    waves = rng.normal(size=(n_waves, 3)).astype(np.float32)
    waves *= (2 * np.pi / wavelength_mm * rng.uniform(0.6, 1.4, n_waves) / np.linalg.norm(waves, axis=1))[:, None]
    phases = rng.uniform(0, 2 * np.pi, n_waves).astype(np.float32)
    total = np.zeros(offsets_mm.shape[1], np.float32)
    for wave, phase in zip(waves, phases, strict=True):
        total += np.cos(np.einsum("i,in->n", wave.astype(np.float32), offsets_mm) + phase)
    return total * np.float32(np.sqrt(2 / n_waves))


def _voxel_depth_mm(offsets_mm: np.ndarray, spacing_mm: Sequence[float]) -> np.ndarray:
    """How far a voxel extends in the direction from the centre: the width of the partial volume."""
    distance_mm = np.sqrt(np.einsum("i...,i...->...", offsets_mm, offsets_mm))
    extent = np.einsum("i,i...->...", np.asarray(spacing_mm, np.float32), np.abs(offsets_mm))
    return np.maximum(extent / np.maximum(distance_mm, 1e-3), min(spacing_mm))
