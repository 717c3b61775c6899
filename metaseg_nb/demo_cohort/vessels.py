"""What else enhances in a brain: venous sinuses, arteries, cortical veins, choroid plexus and dura.

None of it is lesion, and all of it is as bright: a threshold cannot tell them apart. Everything is drawn in
template space (MNI millimetres) as balls along curves, so that it follows the anatomy when a patient is deformed.
"""

from collections.abc import Iterable, Iterator

import numpy as np
from scipy import ndimage

from metaseg_nb.demo_cohort.anatomy import CENTRE_MM, SplineField, load_template, sample

STEP_MM = 0.6
UP = np.array([0.0, 0.0, 1.0])
GALEN_MM = np.array([0.0, -40.0, 6.0])

# Curves through MNI positions with the radius of the vessel; those off the midline are drawn on both sides.
ARTERIES_AND_DEEP_VEINS = (
    ([(0, -22, -54), (0, -15, -42), (0, -10, -30), (0, -11, -18)], 1.6),
    ([(14, 2, -24), (11, 4, -19), (10, 3, -15)], 1.9),
    ([(10, 3, -16), (22, 4, -16), (34, 5, -15), (41, 0, -8), (43, -10, 2), (45, -22, 10)], 1.2),
    ([(9, 4, -15), (2, 10, -14), (2, 28, -8), (2, 40, 8), (2, 32, 24), (2, 10, 32), (2, -15, 36)], 0.9),
    ([(2, -16, -18), (12, -22, -16), (20, -32, -8), (17, -50, 0), (14, -70, 4)], 0.9),
    ([(3, 0, 10), (2, -15, 13), (2, -30, 12), (0, -40, 6)], 0.9),
    ([(12, -10, -14), (20, -22, -8), (14, -34, 0), (0, -42, 6)], 0.8),
)
CHOROID_PLEXUS = (([(30, -30, -6), (30, -40, 3), (24, -41, 12), (14, -30, 19), (6, -12, 17), (3, -3, 12)], 1.2),)

N_CORTICAL_VEINS, N_MEDULLARY_VEINS = 130, 45

# Centres (N, 3) in millimetres, radii in millimetres and brightness (N,).
Balls = tuple[np.ndarray, np.ndarray, np.ndarray]


def enhance(intensity: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Add what enhances to an unenhanced image in template space.

    Parameters
    ----------
    intensity : ndarray of float32, shape (X, Y, Z)
        On the template's grid, white matter 1; changed in place and returned.
    rng : Generator
        Decides course, calibre and brightness; dura is bright in places only.
    """
    _draw_dura(intensity, rng)
    blood = rng.uniform(1.45, 1.9)
    _draw(intensity, _sinuses_and_sheets(rng, blood))
    _draw(intensity, _curves(ARTERIES_AND_DEEP_VEINS, rng, blood))
    _draw(intensity, _curves(CHOROID_PLEXUS, rng, rng.uniform(1.2, 1.5), wobble_mm=1.2))
    _draw(intensity, _veins(rng, blood))
    return intensity


def _draw(intensity: np.ndarray, groups: Iterable[Balls]) -> None:
    """Brighten balls with soft edges (partial volume); what is brighter already stays."""
    for points, radii, levels in groups:
        reach = int(np.ceil(radii.max() + 0.5))
        voxels = points - load_template().origin_mm
        base = np.rint(voxels).astype(int)
        inside = ((base >= reach) & (base < np.array(intensity.shape) - reach)).all(axis=1)
        voxels, base, radii, levels = voxels[inside], base[inside], radii[inside], levels[inside]
        for offset in np.ndindex((2 * reach + 1,) * 3):
            place = base + offset - reach
            cover = np.clip(radii + 0.5 - np.linalg.norm(place - voxels, axis=1), 0, 1)
            covered = cover > 0
            np.maximum.at(intensity, tuple(place[covered].T), (cover * levels)[covered].astype(np.float32))


def _draw_dura(intensity: np.ndarray, rng: np.random.Generator) -> None:
    template = load_template()
    shell = (template.depth_mm > -3.5) & (template.depth_mm < 0.5)
    # The cut through the brain stem is no surface of the brain.
    shell[:, :, :13] = False
    patches = SplineField.random(rng, 1.0, 30.0, 120.0).on_axes(template.axes_mm)[shell]
    level = np.interp(patches, [-0.6, 0.9], [0.35, rng.uniform(1.3, 1.7)])
    thickness = np.interp(patches, [-0.5, 1.5], [0.6, 1.1])
    below = template.depth_mm[shell]
    dura = np.exp(-(((below + 1.6) / thickness) ** 2)) * level
    fluid = np.where(below > -1.6, 0.3, 0)
    intensity[shell] = np.maximum(intensity[shell], np.maximum(dura, fluid))


def _sinuses_and_sheets(rng: np.random.Generator, blood: float) -> Iterator[Balls]:
    """Venous sinuses, and falx and tentorium: surfaces ruled between a sinus and a free edge."""
    angle = np.deg2rad(np.linspace(25, 194, 120))  # from the forehead over the vertex to the torcula
    around = np.stack([np.zeros_like(angle), np.cos(angle), np.sin(angle)], axis=1)
    superior = _smooth(_surface_along(CENTRE_MM, around))
    torcula = superior[-1]
    angle = np.deg2rad(np.linspace(272, 335, 60))
    transverse = {}
    for side in (-1, 1):
        around = np.stack([side * np.cos(angle), np.sin(angle), np.linspace(0, -0.12, 60)], axis=1)
        surface = _surface_along(np.array([0, CENTRE_MM[1], torcula[2]]), around)
        transverse[side] = _smooth(np.vstack([torcula, surface]))

    level = rng.uniform(0.9, 1.3)
    free_edge = CENTRE_MM + (superior - CENTRE_MM) * np.linspace(0.85, 0.6, len(superior))[:, None]
    yield _sheet(superior[:-6], free_edge[:-6], level, rng)
    for side, curve in transverse.items():
        yield _sheet(curve, np.linspace(torcula, GALEN_MM + np.array([side * 14, 4, -8]), len(curve)), level, rng)

    yield _tube(superior, np.linspace(1.3, rng.uniform(3.0, 4.0), len(superior)), blood)
    # One transverse sinus is usually the larger.
    calibres = rng.permutation([rng.uniform(2.6, 3.6), rng.uniform(1.3, 2.6)])
    for curve, calibre in zip(transverse.values(), calibres, strict=True):
        yield _tube(curve, np.full(len(curve), calibre), blood)
    yield _tube(_wobbled(np.linspace(GALEN_MM, torcula, 30), rng, 0.4), np.full(30, rng.uniform(1.2, 1.9)), blood)


def _curves(curves: tuple, rng: np.random.Generator, level: float, wobble_mm: float = 0.9) -> Iterator[Balls]:
    for positions, radius in curves:
        corners = np.array(positions, dtype=float)
        for side in (-1, 1) if corners[:, 0].any() else (1,):
            curve = _wobbled(_resampled(corners * [side, 1, 1], 60), rng, wobble_mm)
            calibre = radius * rng.uniform(0.75, 1.25) * np.linspace(1.15, 0.75, len(curve))
            yield _tube(curve, calibre, level * rng.uniform(0.9, 1.1))


def _veins(rng: np.random.Generator, blood: float) -> Iterator[Balls]:
    """Cortical veins walk along the brain's surface or in a sulcus; medullary veins are thin and nearly straight."""
    shape = (N_CORTICAL_VEINS, 3)
    points = _surface_along(CENTRE_MM, _unit(rng.normal(size=shape) + 0.4 * UP))
    heading = _unit(rng.normal(size=shape) - 0.5 * UP)
    target_mm, tracks = rng.uniform(-0.5, 2.5, len(points)), []
    for _ in range(110):
        depth, inward = _depth_and_inward(points)
        heading = heading + 0.3 * rng.normal(size=shape)
        heading -= np.sum(heading * inward, axis=1, keepdims=True) * inward
        heading = _unit(heading) + inward * np.clip(0.4 * (target_mm - depth), -0.8, 0.8)[:, None]
        points = points + STEP_MM * _unit(heading)
        tracks.append(points)
    yield _tapered(tracks, rng.uniform(0.5, 1.4, shape[0]), rng.uniform(0.85 * blood, 1.05 * blood, shape[0]))

    shape = (N_MEDULLARY_VEINS, 3)
    points = _surface_along(CENTRE_MM, _unit(rng.normal(size=shape) + 0.6 * UP))
    _, heading = _depth_and_inward(points)
    points, tracks = points + heading * rng.uniform(2, 8, (len(points), 1)), []
    for _ in range(40):
        heading = _unit(heading + 0.12 * rng.normal(size=shape))
        points = points + STEP_MM * heading
        tracks.append(points)
    yield _tapered(tracks, rng.uniform(0.35, 0.7, shape[0]), rng.uniform(0.8 * blood, blood, shape[0]))


def _surface_along(start_mm: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """Last point inside the brain along rays from a point; (N, 3) in millimetres."""
    reach = np.arange(20, 115, 0.5, dtype=np.float32)
    rays = start_mm + directions[:, None, :] * reach[None, :, None]
    depth = sample(load_template().depth_mm, np.moveaxis(rays, 2, 0).astype(np.float32))
    last = len(reach) - 1 - np.argmax(depth[:, ::-1] > 0, axis=1)
    return rays[np.arange(len(rays)), last]


def _depth_and_inward(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Depth of points below the brain's surface, and the direction in which it grows."""
    shifts = np.concatenate([np.zeros((1, 3)), 1.5 * np.eye(3), -1.5 * np.eye(3)])
    around = (points[None] + shifts[:, None]).transpose(2, 0, 1).astype(np.float32)
    depth = sample(load_template().depth_mm, around)
    return depth[0], _unit((depth[1:4] - depth[4:7]).T + 1e-6)


def _tube(curve: np.ndarray, radius: np.ndarray, level: float) -> Balls:
    n = max(2, int(_along(curve)[-1] / STEP_MM))
    radii = np.interp(np.linspace(0, 1, n), np.linspace(0, 1, len(radius)), radius)
    return _resampled(curve, n), radii, np.full(n, level)


def _sheet(first: np.ndarray, second: np.ndarray, level: float, rng: np.random.Generator) -> Balls:
    """Surface of straight lines between two curves, bright in places."""
    rows = int(np.linalg.norm(first - second, axis=1).max() / STEP_MM)
    between = np.linspace(0, 1, rows)[:, None, None]
    first, second = (_resampled(edge, 3 * len(edge)) for edge in (first, second))
    points = ((1 - between) * first + between * second).reshape(-1, 3)
    patches = SplineField.random(rng, 1.0, 25.0, 120.0).at_points(points)
    return points, np.full(len(points), 0.75), np.interp(patches, [-1.0, 1.0], [0.4, level])


def _tapered(tracks: list, radius: np.ndarray, level: np.ndarray) -> Balls:
    """Vessels that were walked together, each with its own radius, which shrinks on the way, and brightness."""
    radii = radius * np.linspace(1, 0.6, len(tracks))[:, None]
    return np.concatenate(tracks), radii.ravel(), np.tile(level, len(tracks))


def _along(curve: np.ndarray) -> np.ndarray:
    """Length of a curve up to each of its points."""
    return np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(curve, axis=0), axis=1))])


def _resampled(curve: np.ndarray, n: int) -> np.ndarray:
    along = _along(curve)
    return np.stack([np.interp(np.linspace(0, along[-1], n), along, axis) for axis in curve.T], axis=1)


def _smooth(curve: np.ndarray) -> np.ndarray:
    return ndimage.gaussian_filter1d(curve, 3, axis=0, mode="nearest")


def _wobbled(curve: np.ndarray, rng: np.random.Generator, size_mm: float) -> np.ndarray:
    steps = ndimage.gaussian_filter1d(rng.normal(size=curve.shape), 4, axis=0)
    return curve + size_mm * steps / steps.std()


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
