"""Planted metastases: irregular ellipsoids in brain tissue, clear of each other, which push tissue aside."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial.distance import pdist

from metaseg_nb.demo_cohort.anatomy import Axes, Deformation, load_template, sample

LESION_KINDS = ("solid", "ring", "haemorrhagic")
# A treated lesion, necrotic within a thin rim; and what resection leaves, which is no lesion and not in the mask.
NECROTIC, CAVITY, THIN_RIM_MM = "necrotic", "cavity", 1.0
# Of a lesion's surface, and of the texture inside.
N_BUMPS, N_DIRECTIONS, N_WAVES = 6, 600, 14
# How much a head may be larger or smaller than the template, for distances that are measured there.
STRETCH = 1.15
# Centres are tried at every second voxel of the template; a lesion without room is made smaller step by step.
STRIDE, SIZES = 2, 0.9 ** np.arange(8)
# Tissue gives way out to this many lesion radii.
PUSH_REACH = 2.4
# A lesion ends this far below the brain's surface.
SURFACE_MM = 1.0
# Brightness; white matter is 1.
NECROSIS, OEDEMA = 0.45, 0.62

# From a box of a grid to the depth below the brain's surface of its voxels, in mm.
DepthOf = Callable[[tuple[slice, ...]], np.ndarray]


@dataclass(frozen=True)
class LesionPlan:
    """One lesion: largest diameter; one of `LESION_KINDS`, `NECROTIC` or `CAVITY`; its brightness, and that inside."""

    diameter_mm: float
    kind: str
    enhancement: float
    necrosis: float = NECROSIS


@dataclass(frozen=True)
class LesionShape:
    """A closed surface around the origin: an ellipsoid with bumps.

    Parameters
    ----------
    to_sphere : ndarray, shape (3, 3)
        Maps millimetres so that the ellipsoid becomes the unit sphere.
    waves : ndarray, shape (B, 3)
    phases, heights : ndarray, shape (B,)
        Bumps: the radius in direction n is scaled by 1 + Σ height · sin(wave · n + phase).
    """

    to_sphere: np.ndarray
    waves: np.ndarray
    phases: np.ndarray
    heights: np.ndarray

    @classmethod
    def random(cls, rng: np.random.Generator, diameter_mm: float) -> "LesionShape":
        """Draw a shape whose largest diameter is ``diameter_mm``; small lesions are rounder and smoother."""
        size = np.clip((diameter_mm - 4) / 12, 0, 1)
        flattest = 0.88 - 0.16 * size
        ratios = np.array([1.0, rng.uniform(flattest + 0.04, 0.97), rng.uniform(flattest - 0.05, 0.92)])
        rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
        waves = rng.normal(size=(N_BUMPS, 3)) * rng.uniform(1.5, 3.5, (N_BUMPS, 1))
        heights = rng.uniform(0.3, 1, N_BUMPS) * (0.02 + 0.06 * size)
        rough = cls((rotation / ratios).T, waves, rng.uniform(0, 2 * np.pi, N_BUMPS), heights)
        return rough.scaled(diameter_mm / pdist(rough.surface_mm()).max())

    def scaled(self, factor: float) -> "LesionShape":
        """Return the same form in another size."""
        return replace(self, to_sphere=self.to_sphere / factor)

    def relative_radius(self, offsets_mm: np.ndarray) -> np.ndarray:
        """Distance from the centre in units of the surface's distance: below 1 inside; (3, ...) to (...)."""
        point = np.einsum("ij,j...->i...", self.to_sphere.astype(np.float32), offsets_mm)
        length = np.linalg.norm(point, axis=0)
        direction = point / np.maximum(length, 1e-6)
        bump = np.ones_like(length)
        for wave, phase, height in zip(self.waves, self.phases, self.heights, strict=True):
            bump += height * np.sin(np.einsum("i,i...->...", wave.astype(np.float32), direction) + np.float32(phase))
        return length / bump

    def surface_mm(self) -> np.ndarray:
        """Points on the surface, evenly spread directions; shape (N, 3)."""
        turn = np.arange(N_DIRECTIONS) + 0.5
        z, angle = 1 - 2 * turn / N_DIRECTIONS, np.pi * (1 + 5**0.5) * turn
        flat = np.sqrt(1 - z**2)
        directions = np.stack([flat * np.cos(angle), flat * np.sin(angle), z])
        return (directions / self.relative_radius(directions)).T

    def radii_mm(self) -> np.ndarray:
        """Distance of the surface from the centre in evenly spread directions; shape (N,)."""
        return np.linalg.norm(self.surface_mm(), axis=1)


@dataclass(frozen=True)
class Lesion:
    """A lesion in a patient's world space, and the part of the grid that it changes, of shape (x, y, z).

    ``core`` is the part of its radius that grew where tissue was; 1 where all of it found room, less where the lesion
    pushed sulci or ventricles aside. Of the voxels in ``box``: ``offsets_mm`` (3, x, y, z) from the centre;
    ``relative``, the distance from the centre, 1 on the surface; ``outside_mm``, the distance from the surface,
    negative inside; ``depth_mm`` below the brain's surface.
    """

    plan: LesionPlan
    shape: LesionShape
    core: float
    centre_mm: np.ndarray
    box: tuple[slice, ...]
    offsets_mm: np.ndarray
    relative: np.ndarray
    outside_mm: np.ndarray
    depth_mm: np.ndarray


def place_lesions(
    plans: Sequence[LesionPlan],
    deformation: Deformation,
    axes_mm: Axes,
    positions_mm: np.ndarray,
    rng: np.random.Generator,
) -> list[Lesion]:
    """Give every planned lesion, the largest first, a shape and a place; small ones prefer the grey-white junction.

    Lesions are centred on voxels of the grid ``axes_mm``, so that the smallest cannot fall between two thick slices,
    and lie three voxels apart. One without room is made smaller, to half its planned diameter at most.
    ``positions_mm``, shape (3, X, Y, Z), are where the voxels lie in the template.

    Raises
    ------
    RuntimeError
        A lesion finds no room.
    """
    template = load_template()
    voxels = np.argwhere(template.room_mm[::STRIDE, ::STRIDE, ::STRIDE] > 1.5) * STRIDE
    sites_mm = voxels + template.origin_mm
    maps = (template.depth_mm, template.room_mm, template.junction)
    depth_mm, room_mm, junction = (values[tuple(voxels.T)] for values in maps)
    gap_mm = max(5.0, 3 * max(axis[1] - axis[0] for axis in axes_mm))

    depth_of = depth_at(positions_mm)
    free_mm, placed = np.full(len(sites_mm), np.inf), []
    for plan in plans:
        shape = LesionShape.random(rng, plan.diameter_mm)
        for factor in SIZES:
            reach_mm = factor * shape.radii_mm().max()
            # A large lesion may flatten against the brain's surface, and pushes tissue aside.
            needed_depth_mm = min(reach_mm, 12 + 0.7 * (reach_mm - 12)) + 1.5
            fits = (free_mm - gap_mm > reach_mm) & (depth_mm > STRETCH * needed_depth_mm)
            fits &= room_mm > STRETCH * min(0.6 * reach_mm, 10.0)
            if fits.any():
                break
        else:
            raise RuntimeError(f"a lesion of {plan.diameter_mm:.0f} mm does not fit beside the others")
        chance = (0.1 + (junction if plan.diameter_mm < 15 else 0)) * fits
        site = rng.choice(len(fits), p=chance / chance.sum())
        shape = shape.scaled(factor)
        reach_mm = float(shape.radii_mm().max())
        pushing = float(np.interp(plan.diameter_mm, [12, 35], [1.0, 0.8]))
        core = min(1.0, room_mm[site] / (STRETCH * reach_mm), pushing)
        centre_mm = deformation.inverse_at_points(sites_mm[[site]])[0]
        voxel_mm = [axis[np.abs(axis - x).argmin()] for axis, x in zip(axes_mm, centre_mm, strict=True)]
        placed.append(lay_out(plan, shape, core, np.array(voxel_mm), axes_mm, depth_of))
        away_mm = np.linalg.norm(sites_mm - sites_mm[site], axis=1) / STRETCH
        free_mm = np.minimum(free_mm, away_mm - reach_mm)
    return placed


def push_tissue(positions_mm: np.ndarray, lesion: Lesion, deformation: Deformation) -> None:
    """Move the template positions around a lesion so that the tissue of its core fills it; in place."""
    relative, core = lesion.relative, lesion.core
    far = np.clip((PUSH_REACH - relative) / (PUSH_REACH - 1), 0, 1)
    drawn_in = np.where(relative < 1, core, 1 - (1 - core) * far**2 / np.maximum(relative, 1))
    moved = np.clip(lesion.depth_mm / 8, 0, 1) * (drawn_in - 1)  # not near the brain's surface
    positions_mm[:, *lesion.box] += np.einsum("ij,j...->i...", deformation.linear, lesion.offsets_mm * moved)


def paint_lesion(
    image: np.ndarray, label: np.ndarray, lesion: Lesion, spacing_mm: Sequence[float], rng: np.random.Generator
) -> None:
    """Draw a lesion, with oedema around the larger ones, over an image whose white matter is 1, and its label."""
    plan, offsets_mm = lesion.plan, lesion.offsets_mm
    if plan.kind != CAVITY:
        label[lesion.box] |= (lesion.relative < 1) & (lesion.depth_mm > SURFACE_MM)
    view = image[lesion.box]
    if plan.diameter_mm >= 12:
        _paint_oedema(view, lesion, rng)
    # How far a voxel extends in the direction from the centre is the width of the partial volume.
    extent_mm = np.einsum("i,i...->...", np.asarray(spacing_mm, np.float32), np.abs(offsets_mm))
    edge_mm = np.maximum(extent_mm / np.maximum(np.linalg.norm(offsets_mm, axis=0), 1e-3), min(spacing_mm))
    cover = np.clip(0.5 - lesion.outside_mm / edge_mm, 0, 1) * np.clip(lesion.depth_mm - SURFACE_MM + 0.5, 0, 1)
    chosen = cover > 0
    texture = _texture(offsets_mm[:, chosen], max(4.0, 0.4 * plan.diameter_mm), rng)
    view[chosen] += cover[chosen] * (_brightness(plan, -lesion.outside_mm[chosen], texture) - view[chosen])


def depth_at(positions_mm: np.ndarray) -> DepthOf:
    """Depth in a box of a grid whose voxels lie at these places of the template, shape (3, X, Y, Z)."""
    return lambda box: sample(load_template().depth_mm, positions_mm[:, *box])


def lay_out(
    plan: LesionPlan, shape: LesionShape, core: float, centre_mm: np.ndarray, axes_mm: Axes, depth_of: DepthOf
) -> Lesion:
    """Measure the part of a grid that a lesion changes; its centre need not be that of a voxel."""
    radii_mm = shape.radii_mm()
    reach_mm, box, near = PUSH_REACH * radii_mm.max() + 3, [], []
    for axis, centre in zip(axes_mm, centre_mm, strict=True):
        box.append(slice(*np.searchsorted(axis, (centre - reach_mm, centre + reach_mm)).tolist()))
        near.append(axis[box[-1]] - centre)
    offsets_mm = np.stack(np.meshgrid(*near, indexing="ij")).astype(np.float32)
    relative, distance_mm = shape.relative_radius(offsets_mm), np.linalg.norm(offsets_mm, axis=0)
    outside_mm = distance_mm - distance_mm / np.maximum(relative, 1e-3)
    # The centre has no direction; it lies inside by the lesion's least radius.
    outside_mm[distance_mm < 1e-3] = -radii_mm.min()
    return Lesion(plan, shape, core, centre_mm, tuple(box), offsets_mm, relative, outside_mm, depth_of(tuple(box)))


def _brightness(plan: LesionPlan, inside_mm: np.ndarray, texture: np.ndarray) -> np.ndarray:
    """Brightness at a distance from the surface: all bright, or a bright rim around necrosis or around clots."""
    if plan.kind == "solid":
        return plan.enhancement * (1 + 0.1 * texture)
    if plan.kind in ("ring", NECROTIC, CAVITY):
        wide_mm = np.clip(0.13 * plan.diameter_mm, 1.8, 4.5) if plan.kind == "ring" else THIN_RIM_MM
        rim_mm = wide_mm * np.clip(1 + 0.35 * texture, 0.45, 1.8)
        inner, above = plan.necrosis * (1 + 0.1 * texture), plan.enhancement - plan.necrosis
    else:
        rim_mm = 0.06 * plan.diameter_mm
        blood = 1 / (1 + np.exp(-5 * (texture + 0.1)))
        inner = plan.necrosis + blood * (1.05 * plan.enhancement - plan.necrosis)
        above = plan.enhancement - inner
    return inner + np.clip((rim_mm - inside_mm) / 1.2 + 0.5, 0, 1) * above


def _paint_oedema(view: np.ndarray, lesion: Lesion, rng: np.random.Generator) -> None:
    width_mm = np.clip(0.35 * lesion.plan.diameter_mm, 4, 12) * rng.uniform(0.3, 1.2)
    chosen = (lesion.outside_mm > 0) & (lesion.outside_mm < 1.6 * width_mm) & (view > OEDEMA) & (view < 1.12)
    texture = _texture(lesion.offsets_mm[:, chosen], 14.0, rng)
    reach_mm = width_mm * np.clip(1 + 0.5 * texture, 0.2, 1.6)
    share = 0.8 * np.clip((reach_mm - lesion.outside_mm[chosen]) / 3, 0, 1)
    # Grey matter takes up less fluid than white matter.
    white = np.clip((view[chosen] - 0.7) / 0.25, 0.15, 1)
    view[chosen] += share * white * (OEDEMA - view[chosen])


def _texture(offsets_mm: np.ndarray, wavelength_mm: float, rng: np.random.Generator) -> np.ndarray:
    """Smooth noise of zero mean and unit deviation at points, shape (3, N)."""
    waves = rng.normal(size=(N_WAVES, 3)).astype(np.float32)
    waves *= (2 * np.pi / wavelength_mm * rng.uniform(0.6, 1.4, N_WAVES) / np.linalg.norm(waves, axis=1))[:, None]
    phases = rng.uniform(0, 2 * np.pi, N_WAVES).astype(np.float32)
    total = np.zeros(offsets_mm.shape[1], np.float32)
    for wave, phase in zip(waves, phases, strict=True):
        total += np.cos(np.einsum("i,in->n", wave, offsets_mm) + phase)
    return total * np.float32(np.sqrt(2 / N_WAVES))
