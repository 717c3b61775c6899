"""The anatomy of synthetic patients: the MNI152 template, smooth random fields, and random deformations.

The template is the ICBM 152 nonlinear symmetric 2009a average, skull-stripped, as it ships in nilearn
(Fonov et al., NeuroImage 54:313-327, 2011).
"""

from dataclasses import dataclass
from functools import lru_cache

import edt
import numpy as np
from nilearn import datasets
from scipy import ndimage

TEMPLATE_WHITE_MATTER = 0.87
PADDING_MM = 10
CENTRE_MM = np.array([0.0, -17.0, 5.0])
REACH_MM = 150.0
WARP_STEP_MM = 45.0
WARP_DEVIATION_MM = 3.0
# Deviation of a cubic B-spline field made of unit normal weights, averaged over space.
SPLINE_DEVIATION = 0.33


@dataclass(frozen=True)
class Template:
    """Maps of one 1 mm grid, each float32 (X, Y, Z) in RAS order.

    ``t1``: intensity, white matter 1, 0 outside. ``tissue``: probability of grey or
    white matter. ``depth_mm``: below the brain's surface, negative outside.
    ``room_mm``: to the nearest place that is not tissue. ``junction``: 1 where grey
    meets white matter. ``origin_mm``: world position of voxel (0, 0, 0).
    """

    t1: np.ndarray
    tissue: np.ndarray
    depth_mm: np.ndarray
    room_mm: np.ndarray
    junction: np.ndarray
    origin_mm: np.ndarray

    @property
    def axes_mm(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """World coordinates along X, Y, Z."""
        return tuple(start + np.arange(n) for start, n in zip(self.origin_mm, self.t1.shape, strict=True))


@lru_cache(maxsize=1)
def load_template() -> Template:
    """Load the packaged template and measure it; nothing is downloaded."""
    images = [
        load(resolution=1)
        for load in (datasets.load_mni152_template, datasets.load_mni152_gm_template, datasets.load_mni152_wm_template)
    ]
    t1, grey, white = (np.asarray(image.dataobj, dtype=np.float32) for image in images)
    box = ndimage.find_objects((t1 > 0).astype(np.uint8))[0]
    t1, grey, white = (np.pad(array[box], PADDING_MM) for array in (t1, grey, white))
    origin_mm = images[0].affine[:3, 3] + [axis.start - PADDING_MM for axis in box]
    head = ndimage.binary_fill_holes(t1 > 0)
    tissue = grey + white
    return Template(
        t1=t1 / TEMPLATE_WHITE_MATTER,
        tissue=tissue,
        depth_mm=edt.edt(head, parallel=1) - edt.edt(~head, parallel=1),
        room_mm=edt.edt(tissue > 0.5, parallel=1),
        junction=4 * grey * white,
        origin_mm=origin_mm,
    )


@dataclass(frozen=True)
class SplineField:
    """A uniform cubic B-spline over world space.

    Parameters
    ----------
    weights : ndarray, shape (C, C, C)
        At the control points, X, Y, Z.
    step_mm : float
        Between control points, which lie around the origin.
    """

    weights: np.ndarray
    step_mm: float

    @classmethod
    def random(cls, rng: np.random.Generator, deviation: float, step_mm: float, reach_mm: float) -> "SplineField":
        """Draw a field of zero mean and the given deviation that covers ±``reach_mm`` on each axis."""
        n = 2 * int(np.ceil(reach_mm / step_mm)) + 4
        return cls(rng.normal(0, deviation / SPLINE_DEVIATION, (n, n, n)).astype(np.float32), step_mm)

    def on_axes(self, axes_mm: tuple[np.ndarray, np.ndarray, np.ndarray]) -> np.ndarray:
        """Evaluate on the grid spanned by three coordinate vectors; float32, shape (X, Y, Z)."""
        bases = [self._basis(axis) for axis in axes_mm]
        field = np.einsum("ijk,kz->ijz", self.weights, bases[2])
        field = np.einsum("ijz,jy->iyz", field, bases[1])
        return np.einsum("iyz,ix->xyz", field, bases[0])

    def at_points(self, points_mm: np.ndarray) -> np.ndarray:
        """Evaluate at points, shape (N, 3); returns shape (N,)."""
        bases = [self._basis(points_mm[:, axis]) for axis in range(3)]
        return np.einsum("ijk,in,jn,kn->n", self.weights, *bases, optimize=True)

    def _basis(self, x_mm: np.ndarray) -> np.ndarray:
        n = self.weights.shape[0]
        u = np.abs(np.asarray(x_mm)[None, :] / self.step_mm - (np.arange(n)[:, None] - (n - 1) / 2))
        near = 2 / 3 - u**2 + u**3 / 2
        far = np.clip(2 - u, 0, None) ** 3 / 6
        return np.where(u < 1, near, far).astype(np.float32)


def grid_axes_mm(shape: tuple[int, int, int], affine: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """World coordinates of the voxel centres along X, Y, Z of a grid that is parallel to the world axes.

    Raises
    ------
    ValueError
        The grid is oblique, or its axes are in another order than X, Y, Z.
    """
    edges = np.diag(affine)[:3]
    if not np.allclose(affine[:3, :3], np.diag(edges), atol=1e-4):
        raise ValueError(f"affine {np.round(affine, 4).tolist()} is not parallel to the world axes; read it as RAS")
    return tuple(affine[axis, 3] + edges[axis] * np.arange(shape[axis]) for axis in range(3))


@dataclass(frozen=True)
class Deformation:
    """From a patient's world space to the template's: affine about `CENTRE_MM`, then a smooth displacement."""

    linear: np.ndarray
    offset_mm: np.ndarray
    warps: tuple[SplineField, SplineField, SplineField]

    @classmethod
    def random(cls, rng: np.random.Generator) -> "Deformation":
        """Draw size (± 4 %), tilt (± 4 degrees), position and shape of a head."""
        tilt = np.deg2rad(rng.normal(0, 3, 3).clip(-7, 7))
        skew = np.array([[0, -tilt[2], tilt[1]], [tilt[2], 0, -tilt[0]], [-tilt[1], tilt[0], 0]])
        linear = (np.eye(3) + skew) @ np.diag(1 + rng.normal(0, 0.035, 3).clip(-0.07, 0.07))
        warps = tuple(SplineField.random(rng, WARP_DEVIATION_MM, WARP_STEP_MM, REACH_MM) for _ in range(3))
        return cls(linear.astype(np.float32), rng.uniform(-15, 15, 3), warps)

    def on_axes(self, axes_mm: tuple[np.ndarray, np.ndarray, np.ndarray]) -> np.ndarray:
        """Template position of every voxel of a grid; float32 millimetres, shape (3, X, Y, Z)."""
        centred = [(axis - shift).astype(np.float32) for axis, shift in zip(axes_mm, self.offset_mm, strict=True)]
        x, y, z = (axis - middle for axis, middle in zip(centred, CENTRE_MM.astype(np.float32), strict=True))
        positions = np.empty((3, len(x), len(y), len(z)), np.float32)
        for row, warp, middle, target in zip(self.linear, self.warps, CENTRE_MM, positions, strict=True):
            target[:] = warp.on_axes(centred)
            target += (row[0] * x + np.float32(middle))[:, None, None]
            target += (row[1] * y)[None, :, None] + (row[2] * z)[None, None, :]
        return positions

    def at_points(self, points_mm: np.ndarray) -> np.ndarray:
        """Template positions of points, both shape (N, 3) in millimetres."""
        centred = points_mm - self.offset_mm
        warped = np.stack([warp.at_points(centred) for warp in self.warps], axis=1)
        return (centred - CENTRE_MM) @ self.linear.T + CENTRE_MM + warped

    def inverse_at_points(self, template_mm: np.ndarray, iterations: int = 12) -> np.ndarray:
        """Patient positions that map to template positions, both shape (N, 3); by fixed-point iteration."""
        back = np.linalg.inv(self.linear)
        points = template_mm + self.offset_mm
        for _ in range(iterations):
            points = points + (template_mm - self.at_points(points)) @ back.T
        return points


def sample(template: Template, values: np.ndarray, positions_mm: np.ndarray) -> np.ndarray:
    """Interpolate a map of the template linearly at positions, shape (3, ...); 0 outside."""
    voxels = positions_mm - template.origin_mm.astype(np.float32).reshape(3, *[1] * (positions_mm.ndim - 1))
    return ndimage.map_coordinates(values, voxels, order=1, output=np.float32)
