"""Shape and place of planted metastases: irregular ellipsoids in brain tissue, clear of each other."""

from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial.distance import pdist

from metaseg_nb.demo_cohort.anatomy import Deformation, Template
from metaseg_nb.demo_cohort.plan import LesionPlan

N_BUMPS = 6
N_DIRECTIONS = 600
# How much a head may be larger or smaller than the template, for distances that are measured there.
STRETCH = 1.15
MARGIN_MM = 1.5
MIN_GAP_MM = 5.0
# A lesion needs this much tissue around its centre and pushes the rest aside.
NEEDED_ROOM = 0.6
NEEDED_ROOM_MM = 10.0
CANDIDATE_STRIDE = 2
JUNCTION_DIAMETER_MM = 15.0
SHRINK = 0.9


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

    def relative_radius(self, offsets_mm: np.ndarray) -> np.ndarray:
        """Distance from the centre in units of the surface's distance: below 1 inside; (3, ...) to (...)."""
        point = np.einsum("ij,j...->i...", self.to_sphere.astype(np.float32), offsets_mm)
        length = np.sqrt(np.einsum("i...,i...->...", point, point))
        direction = point / np.maximum(length, 1e-6)
        bump = np.ones_like(length)
        for wave, phase, height in zip(self.waves, self.phases, self.heights, strict=True):
            bump += height * np.sin(np.einsum("i,i...->...", wave.astype(np.float32), direction) + np.float32(phase))
        return length / bump

    def scaled(self, factor: float) -> "LesionShape":
        """Return the same form in another size."""
        return replace(self, to_sphere=self.to_sphere / factor)

    def surface_mm(self) -> np.ndarray:
        """Points on the surface, evenly spread directions; shape (N, 3)."""
        turn = np.arange(N_DIRECTIONS) + 0.5
        z, angle = 1 - 2 * turn / N_DIRECTIONS, np.pi * (1 + 5**0.5) * turn
        flat = np.sqrt(1 - z**2)
        directions = np.stack([flat * np.cos(angle), flat * np.sin(angle), z])
        return (directions / self.relative_radius(directions)).T

    @property
    def reach_mm(self) -> float:
        """Radius of the sphere around the centre that holds the lesion."""
        return float(np.linalg.norm(self.surface_mm(), axis=1).max())

    @property
    def volume_mm3(self) -> float:
        """Volume inside the surface."""
        return float(4 / 3 * np.pi * (np.linalg.norm(self.surface_mm(), axis=1) ** 3).mean())


@dataclass(frozen=True)
class PlacedLesion:
    """A lesion in a patient's world space.

    ``core`` is the part of its radius that grew where tissue was; 1 where all of
    it found room, less where the lesion pushed sulci or ventricles aside.
    """

    plan: LesionPlan
    shape: LesionShape
    centre_mm: np.ndarray
    core: float


def place_lesions(
    plans: tuple[LesionPlan, ...],
    template: Template,
    deformation: Deformation,
    lattice_mm: tuple[np.ndarray, np.ndarray, np.ndarray],
    rng: np.random.Generator,
) -> list[PlacedLesion]:
    """Give every planned lesion a shape and a place.

    Parameters
    ----------
    plans : tuple of LesionPlan
        Largest first.
    template, deformation
        The patient's anatomy.
    lattice_mm : tuple of 3 ndarray
        World coordinates of the voxel centres. Lesions are centred on one, so that
        the smallest cannot fall between two thick slices, and lie three voxels apart.
    rng : Generator

    Raises
    ------
    RuntimeError
        A lesion finds no room, not even at half its planned diameter.
    """
    sites = _sites(template)
    gap_mm = max(MIN_GAP_MM, 3 * max(axis[1] - axis[0] for axis in lattice_mm))
    free_mm = np.full(len(sites.points_mm), np.inf)
    placed = []
    for plan in plans:
        shape = LesionShape.random(rng, plan.diameter_mm)
        shape, site = _choose_site(plan, shape, sites, free_mm - gap_mm, rng)
        point = sites.points_mm[site]
        core = min(1.0, sites.room_mm[site] / (STRETCH * shape.reach_mm), _pushing(plan.diameter_mm))
        placed.append(PlacedLesion(plan, shape, _snapped(deformation, point, lattice_mm), core))
        distance = np.linalg.norm(sites.points_mm - point, axis=1) / STRETCH
        free_mm = np.minimum(free_mm, distance - shape.reach_mm)
    return placed


@dataclass(frozen=True)
class _Sites:
    """Places in template space where a lesion may be centred; (N, 3) and (N,)."""

    points_mm: np.ndarray
    depth_mm: np.ndarray
    room_mm: np.ndarray
    junction: np.ndarray


def _sites(template: Template) -> _Sites:
    stride = (slice(None, None, CANDIDATE_STRIDE),) * 3
    chosen = np.argwhere(template.room_mm[stride] > 1.5) * CANDIDATE_STRIDE
    at = tuple(chosen.T)
    points_mm = chosen + template.origin_mm
    return _Sites(points_mm, template.depth_mm[at], template.room_mm[at], template.junction[at])


def _choose_site(
    plan: LesionPlan, shape: LesionShape, sites: _Sites, free_mm: np.ndarray, rng: np.random.Generator
) -> tuple[LesionShape, int]:
    """Pick a site at random, metastases preferring the grey-white junction; a lesion without room is made smaller."""
    preference = 0.1 + (sites.junction if plan.diameter_mm < JUNCTION_DIAMETER_MM else 0)
    for factor in SHRINK ** np.arange(8):
        reach_mm = factor * shape.reach_mm
        # A large lesion may flatten against the brain's surface.
        depth_mm = min(reach_mm, 12 + 0.7 * (reach_mm - 12)) + MARGIN_MM
        room_mm = min(NEEDED_ROOM * reach_mm, NEEDED_ROOM_MM)
        fits = (free_mm > reach_mm) & (sites.depth_mm > STRETCH * depth_mm) & (sites.room_mm > STRETCH * room_mm)
        if fits.any():
            chance = preference * fits
            return shape.scaled(factor), int(rng.choice(len(fits), p=chance / chance.sum()))
    raise RuntimeError(f"a lesion of {plan.diameter_mm:.0f} mm finds no room beside the others")


def _pushing(diameter_mm: float) -> float:
    return float(np.interp(diameter_mm, [12, 35], [1.0, 0.8]))


def _snapped(deformation: Deformation, point_mm: np.ndarray, lattice_mm: tuple) -> np.ndarray:
    centre_mm = deformation.inverse_at_points(point_mm[None])[0]
    return np.array([axis[np.abs(axis - x).argmin()] for axis, x in zip(lattice_mm, centre_mm, strict=True)])
