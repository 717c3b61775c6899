"""What else enhances in a brain: venous sinuses, arteries, cortical veins, choroid plexus and dura.

None of it is lesion, and all of it is as bright: a threshold cannot tell them apart. Everything is drawn in
template space (MNI millimetres) as balls along curves, so that it follows the anatomy when a patient is deformed.
"""

import numpy as np
from scipy import ndimage

from metaseg_nb.demo_cohort.anatomy import SplineField, Template, sample

STEP_MM = 0.6
SAGITTAL_CENTRE_MM = np.array([0.0, -17.0, 5.0])
TORCULA_ANGLE_DEGREES = 194.0
UP = np.array([0.0, 0.0, 1.0])
GALEN_MM = np.array([0.0, -40.0, 6.0])

# Curves through MNI positions with the radius of the vessel; those off the midline are drawn on both sides.
ARTERIES = (
    ([(0, -22, -54), (0, -15, -42), (0, -10, -30), (0, -11, -18)], 1.6),
    ([(14, 2, -24), (11, 4, -19), (10, 3, -15)], 1.9),
    ([(10, 3, -16), (22, 4, -16), (34, 5, -15), (41, 0, -8), (43, -10, 2), (45, -22, 10)], 1.2),
    ([(9, 4, -15), (2, 10, -14), (2, 28, -8), (2, 40, 8), (2, 32, 24), (2, 10, 32), (2, -15, 36)], 0.9),
    ([(2, -16, -18), (12, -22, -16), (20, -32, -8), (17, -50, 0), (14, -70, 4)], 0.9),
)
DEEP_VEINS = (
    ([(3, 0, 10), (2, -15, 13), (2, -30, 12), (0, -40, 6)], 0.9),
    ([(12, -10, -14), (20, -22, -8), (14, -34, 0), (0, -42, 6)], 0.8),
)
CHOROID_PLEXUS = ([(30, -30, -6), (30, -40, 3), (24, -41, 12), (14, -30, 19), (6, -12, 17), (3, -3, 12)], 1.2)

N_CORTICAL_VEINS = 130
N_MEDULLARY_VEINS = 45
SHELL_MM = (-3.5, 0.5)
CEREBROSPINAL_FLUID = 0.3

Balls = tuple[np.ndarray, np.ndarray, np.ndarray]


def enhance(template: Template, intensity: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Add what enhances to an unenhanced image in template space.

    Parameters
    ----------
    template : Template
    intensity : ndarray of float32, shape (X, Y, Z)
        On the template's grid, white matter 1; changed in place and returned.
    rng : Generator
        Decides course, calibre and brightness; dura is bright in places only.
    """
    _draw_dura(template, intensity, rng)
    blood = rng.uniform(1.45, 1.9)
    superior = _superior_sagittal_sinus(template)
    sheets = _sheets(template, superior, rng)
    vessels = [
        *_sinuses(template, superior, rng, blood),
        *_mirrored(ARTERIES, rng, blood),
        *_mirrored(DEEP_VEINS, rng, blood),
        *_mirrored([CHOROID_PLEXUS], rng, rng.uniform(1.2, 1.5), wobble_mm=1.2),
        _cortical_veins(template, rng, blood),
        _medullary_veins(template, rng, blood),
    ]
    for balls in [*sheets, *vessels]:
        _stamp(template, intensity, balls)
    return intensity


def _draw_dura(template: Template, intensity: np.ndarray, rng: np.random.Generator) -> None:
    depth = template.depth_mm
    shell = (depth > SHELL_MM[0]) & (depth < SHELL_MM[1])
    # The cut through the brain stem is no surface of the brain.
    shell &= (template.axes_mm[2] > template.axes_mm[2][0] + 12)[None, None, :]
    patches = SplineField.random(rng, 1.0, 30.0, 120.0).on_axes(template.axes_mm)[shell]
    level = np.interp(patches, [-0.6, 0.9], [0.35, rng.uniform(1.3, 1.7)])
    thickness = np.interp(patches, [-0.5, 1.5], [0.6, 1.1])
    below = depth[shell]
    dura = np.exp(-(((below + 1.6) / thickness) ** 2)) * level
    fluid = np.where(below > -1.6, CEREBROSPINAL_FLUID, 0)
    intensity[shell] = np.maximum(intensity[shell], np.maximum(dura, fluid))


def _surface_along(template: Template, start_mm: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """Last point inside the brain along rays from a point; (N, 3) in millimetres."""
    reach = np.arange(20, 115, 0.5, dtype=np.float32)
    rays = start_mm + directions[:, None, :] * reach[None, :, None]
    depth = sample(template, template.depth_mm, np.moveaxis(rays, 2, 0).astype(np.float32))
    last = len(reach) - 1 - np.argmax(depth[:, ::-1] > 0, axis=1)
    return rays[np.arange(len(rays)), last]


def _superior_sagittal_sinus(template: Template) -> np.ndarray:
    """Midline curve from the forehead over the vertex to the torcula."""
    angle = np.deg2rad(np.linspace(25, TORCULA_ANGLE_DEGREES, 120))
    directions = np.stack([np.zeros_like(angle), np.cos(angle), np.sin(angle)], axis=1)
    curve = _surface_along(template, SAGITTAL_CENTRE_MM, directions)
    return ndimage.gaussian_filter1d(curve, 3, axis=0, mode="nearest")


def _transverse_sinus(template: Template, torcula: np.ndarray, side: int) -> np.ndarray:
    angle = np.deg2rad(np.linspace(272, 335, 60))
    directions = np.stack([side * np.cos(angle), np.sin(angle), np.linspace(0, -0.12, 60)], axis=1)
    curve = _surface_along(template, np.array([0, SAGITTAL_CENTRE_MM[1], torcula[2]]), directions)
    return ndimage.gaussian_filter1d(np.vstack([torcula, curve]), 3, axis=0, mode="nearest")


def _sinuses(template: Template, superior: np.ndarray, rng: np.random.Generator, blood: float) -> list[Balls]:
    torcula = superior[-1]
    balls = [_tube(superior, np.linspace(1.3, rng.uniform(3.0, 4.0), len(superior)), blood)]
    # One transverse sinus is usually the larger.
    calibres = rng.permutation([rng.uniform(2.6, 3.6), rng.uniform(1.3, 2.6)])
    for side, calibre in zip((-1, 1), calibres, strict=True):
        curve = _transverse_sinus(template, torcula, side)
        balls.append(_tube(curve, np.full(len(curve), calibre), blood))
    straight = _wobbled(np.linspace(GALEN_MM, torcula, 30), rng, 0.4)
    balls.append(_tube(straight, np.full(30, rng.uniform(1.2, 1.9)), blood))
    return balls


def _sheets(template: Template, superior: np.ndarray, rng: np.random.Generator) -> list[Balls]:
    """Falx and tentorium: surfaces ruled between a sinus and a free edge."""
    level = rng.uniform(0.9, 1.3)
    free = SAGITTAL_CENTRE_MM + (superior - SAGITTAL_CENTRE_MM) * np.linspace(0.85, 0.6, len(superior))[:, None]
    sheets = [_ruled(superior[:-6], free[:-6], level, rng)]
    for side in (-1, 1):
        edge = _transverse_sinus(template, superior[-1], side)
        notch = np.linspace(superior[-1], GALEN_MM + np.array([side * 14, 4, -8]), len(edge))
        sheets.append(_ruled(edge, notch, level, rng))
    return sheets


def _ruled(first: np.ndarray, second: np.ndarray, level: float, rng: np.random.Generator) -> Balls:
    rows = int(np.linalg.norm(first - second, axis=1).max() / STEP_MM)
    between = np.linspace(0, 1, rows)[:, None, None]
    edges = [_resampled(edge, 3 * len(edge)) for edge in (first, second)]
    points = ((1 - between) * edges[0] + between * edges[1]).reshape(-1, 3)
    patches = SplineField.random(rng, 1.0, 25.0, 120.0).at_points(points)
    levels = np.interp(patches, [-1.0, 1.0], [0.4, level])
    return points, np.full(len(points), 0.75), levels


def _mirrored(curves: list, rng: np.random.Generator, level: float, wobble_mm: float = 0.9) -> list[Balls]:
    balls = []
    for corners, radius in curves:
        corners = np.asarray(corners, dtype=float)
        sides = (1,) if not corners[:, 0].any() else (-1, 1)
        for side in sides:
            curve = _wobbled(_resampled(corners * [side, 1, 1], 60), rng, wobble_mm)
            calibre = radius * rng.uniform(0.75, 1.25) * np.linspace(1.15, 0.75, len(curve))
            balls.append(_tube(curve, calibre, level * rng.uniform(0.9, 1.1)))
    return balls


def _cortical_veins(template: Template, rng: np.random.Generator, blood: float) -> Balls:
    """Random walks along the brain's surface, in the subarachnoid space or a sulcus."""
    n, steps = N_CORTICAL_VEINS, 110
    directions = _unit(rng.normal(size=(n, 3)) + 0.4 * UP)
    points = _surface_along(template, SAGITTAL_CENTRE_MM, directions)
    heading = _unit(rng.normal(size=(n, 3)) - 0.5 * UP)
    target_mm = rng.uniform(-0.5, 2.5, n)
    tracks = []
    for _ in range(steps):
        depth, inward = _depth_and_inward(template, points)
        heading = heading + 0.3 * rng.normal(size=(n, 3))
        heading -= np.sum(heading * inward, axis=1, keepdims=True) * inward
        heading = _unit(heading) + inward * np.clip(0.4 * (target_mm - depth), -0.8, 0.8)[:, None]
        points = points + STEP_MM * _unit(heading)
        tracks.append(points)
    return _walks(tracks, rng, (0.5, 1.4), (0.85 * blood, 1.05 * blood))


def _medullary_veins(template: Template, rng: np.random.Generator, blood: float) -> Balls:
    """Nearly straight, thin veins through the white matter."""
    n, steps = N_MEDULLARY_VEINS, 40
    points = _surface_along(template, SAGITTAL_CENTRE_MM, _unit(rng.normal(size=(n, 3)) + 0.6 * UP))
    _, heading = _depth_and_inward(template, points)
    points = points + heading * rng.uniform(2, 8, (n, 1))
    tracks = []
    for _ in range(steps):
        heading = _unit(heading + 0.12 * rng.normal(size=(n, 3)))
        points = points + STEP_MM * heading
        tracks.append(points)
    return _walks(tracks, rng, (0.35, 0.7), (0.8 * blood, blood))


def _walks(tracks: list, rng: np.random.Generator, radius_mm: tuple[float, float], level: tuple) -> Balls:
    shape = (len(tracks), len(tracks[0]))
    radii = np.broadcast_to(rng.uniform(*radius_mm, shape[1]), shape) * np.linspace(1, 0.6, shape[0])[:, None]
    levels = np.broadcast_to(rng.uniform(*level, shape[1]), shape)
    return np.concatenate(tracks), radii.ravel(), levels.ravel()


def _depth_and_inward(template: Template, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    shifts = np.concatenate([np.zeros((1, 3)), 1.5 * np.eye(3), -1.5 * np.eye(3)])
    around = (points[None] + shifts[:, None]).transpose(2, 0, 1).astype(np.float32)
    depth = sample(template, template.depth_mm, around)
    return depth[0], _unit((depth[1:4] - depth[4:7]).T + 1e-6)


def _tube(curve: np.ndarray, radius: np.ndarray, level: float) -> Balls:
    n = max(2, int(np.linalg.norm(np.diff(curve, axis=0), axis=1).sum() / STEP_MM))
    radii = np.interp(np.linspace(0, 1, n), np.linspace(0, 1, len(radius)), radius)
    return _resampled(curve, n), radii, np.full(n, level)


def _resampled(curve: np.ndarray, n: int) -> np.ndarray:
    along = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(curve, axis=0), axis=1))])
    return np.stack([np.interp(np.linspace(0, along[-1], n), along, axis) for axis in curve.T], axis=1)


def _wobbled(curve: np.ndarray, rng: np.random.Generator, size_mm: float) -> np.ndarray:
    steps = ndimage.gaussian_filter1d(rng.normal(size=curve.shape), 4, axis=0)
    return curve + size_mm * steps / steps.std()


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def _stamp(template: Template, intensity: np.ndarray, balls: Balls) -> None:
    """Brighten balls with soft edges (partial volume); what is brighter already stays."""
    points, radii, levels = balls
    reach = int(np.ceil(radii.max() + 0.5))
    voxels = points - template.origin_mm
    base = np.rint(voxels).astype(int)
    inside = ((base >= reach) & (base < np.array(intensity.shape) - reach)).all(axis=1)
    voxels, base, radii, levels = voxels[inside], base[inside], radii[inside], levels[inside]
    cube = np.stack(np.meshgrid(*[np.arange(-reach, reach + 1)] * 3, indexing="ij"), -1).reshape(-1, 3)
    for offset in cube:
        distance = np.linalg.norm(base + offset - voxels, axis=1)
        cover = np.clip(radii + 0.5 - distance, 0, 1)
        place = tuple((base + offset).T)
        np.maximum.at(intensity, place, (cover * levels).astype(np.float32))
