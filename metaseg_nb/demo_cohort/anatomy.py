"""The anatomy of synthetic patients: the MNI152 template, smooth random fields, and random deformations.

The template is the ICBM 152 nonlinear symmetric 2009a average, skull-stripped, as it ships in nilearn
(Fonov et al., NeuroImage 54:313-327, 2011).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import edt
import numpy as np
from scipy import ndimage

TEMPLATE_WHITE_MATTER = 0.87
PADDING_MM = 10
CENTRE_MM = np.array([0.0, -17.0, 5.0])
SPAN_MM = 150.0
# Deviation of a cubic B-spline field made of unit normal weights, averaged over space.
SPLINE_DEVIATION = 0.33

# World coordinates of voxel centres along X, Y, Z, in millimetres: a grid parallel to the world axes.
Axes = Sequence[np.ndarray]


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
    def axes_mm(self) -> Axes:
        """World coordinates along X, Y, Z."""
        return [start + np.arange(n) for start, n in zip(self.origin_mm, self.t1.shape, strict=True)]


@lru_cache(maxsize=1)
def load_template() -> Template:
    """Load the packaged template and measure it; nothing is downloaded."""
    from nilearn import datasets  # takes a second, and whoever trains with planted lesions needs no template

    whole = datasets.load_mni152_template(resolution=1)
    images = (whole, datasets.load_mni152_gm_template(resolution=1), datasets.load_mni152_wm_template(resolution=1))
    t1, grey, white = (np.asarray(image.dataobj, dtype=np.float32) for image in images)
    box = ndimage.find_objects((t1 > 0).astype(np.uint8))[0]
    t1, grey, white = (np.pad(array[box], PADDING_MM) for array in (t1, grey, white))
    origin_mm = whole.affine[:3, 3] + [axis.start - PADDING_MM for axis in box]
    head, tissue = ndimage.binary_fill_holes(t1 > 0), grey + white
    depth_mm = edt.edt(head, parallel=1) - edt.edt(~head, parallel=1)
    room_mm = edt.edt(tissue > 0.5, parallel=1)
    return Template(t1 / TEMPLATE_WHITE_MATTER, tissue, depth_mm, room_mm, 4 * grey * white, origin_mm)


@dataclass(frozen=True)
class SplineField:
    """A uniform cubic B-spline over world space.

    Parameters
    ----------
    weights : ndarray, shape (..., C, C, C)
        At the control points, X, Y, Z; fields of several components have them first.
    step_mm : float
        Between control points, which lie around the origin.
    """

    weights: np.ndarray
    step_mm: float

    @classmethod
    def random(
        cls, rng: np.random.Generator, deviation: float, step_mm: float, reach_mm: float, components: tuple = ()
    ) -> "SplineField":
        """Draw a field of zero mean and the given deviation that covers ±``reach_mm`` on each axis."""
        n = 2 * int(np.ceil(reach_mm / step_mm)) + 4
        weights = rng.normal(0, deviation / SPLINE_DEVIATION, (*components, n, n, n))
        return cls(weights.astype(np.float32), step_mm)

    def on_axes(self, axes_mm: Axes) -> np.ndarray:
        """Evaluate on the grid spanned by three coordinate vectors; float32, shape (..., X, Y, Z)."""
        along_x, along_y, along_z = (self._basis(axis) for axis in axes_mm)
        field = np.einsum("...ijk,kz->...ijz", self.weights, along_z)
        field = np.einsum("...ijz,jy->...iyz", field, along_y)
        return np.einsum("...iyz,ix->...xyz", field, along_x)

    def at_points(self, points_mm: np.ndarray) -> np.ndarray:
        """Evaluate at points, shape (N, 3); returns shape (..., N)."""
        bases = [self._basis(points_mm[:, axis]) for axis in range(3)]
        return np.einsum("...ijk,in,jn,kn->...n", self.weights, *bases, optimize=True)

    def _basis(self, x_mm: np.ndarray) -> np.ndarray:
        """Share of each control point in the value at each coordinate: shape (C, N)."""
        n = self.weights.shape[-1]
        u = np.abs(np.asarray(x_mm)[None, :] / self.step_mm - (np.arange(n)[:, None] - (n - 1) / 2))
        near, far = 2 / 3 - u**2 + u**3 / 2, np.clip(2 - u, 0, None) ** 3 / 6
        return np.where(u < 1, near, far).astype(np.float32)


@dataclass(frozen=True)
class Deformation:
    """From a patient's world space to the template's: affine about `CENTRE_MM`, then a smooth displacement."""

    linear: np.ndarray
    offset_mm: np.ndarray
    warp: SplineField

    @classmethod
    def random(cls, rng: np.random.Generator) -> "Deformation":
        """Draw size (± 4 %), tilt (± 4 degrees), position and shape of a head."""
        tilt = np.deg2rad(rng.normal(0, 3, 3).clip(-7, 7))
        skew = np.array([[0, -tilt[2], tilt[1]], [tilt[2], 0, -tilt[0]], [-tilt[1], tilt[0], 0]])
        linear = (np.eye(3) + skew) @ np.diag(1 + rng.normal(0, 0.035, 3).clip(-0.07, 0.07))
        warp = SplineField.random(rng, 3.0, 45.0, SPAN_MM, components=(3,))
        return cls(linear.astype(np.float32), rng.uniform(-15, 15, 3), warp)

    def on_axes(self, axes_mm: Axes) -> np.ndarray:
        """Template position of every voxel of a grid; float32 millimetres, shape (3, X, Y, Z)."""
        centred = [(axis - shift).astype(np.float32) for axis, shift in zip(axes_mm, self.offset_mm, strict=True)]
        middle = CENTRE_MM.astype(np.float32)
        by_x, by_y, by_z = (self.linear[:, [i]] * (centred[i] - middle[i]) for i in range(3))
        positions = self.warp.on_axes(centred)
        positions += (by_x + middle[:, None])[:, :, None, None]
        positions += by_y[:, None, :, None] + by_z[:, None, None, :]
        return positions

    def at_points(self, points_mm: np.ndarray) -> np.ndarray:
        """Template positions of points, both shape (N, 3) in millimetres."""
        centred = points_mm - self.offset_mm
        return (centred - CENTRE_MM) @ self.linear.T + CENTRE_MM + self.warp.at_points(centred).T

    def inverse_at_points(self, template_mm: np.ndarray) -> np.ndarray:
        """Patient positions that map to template positions, both shape (N, 3); by fixed-point iteration."""
        back = np.linalg.inv(self.linear)
        points = template_mm + self.offset_mm
        for _ in range(12):
            points = points + (template_mm - self.at_points(points)) @ back.T
        return points


def sample(values: np.ndarray, positions_mm: np.ndarray, beyond: str = "constant") -> np.ndarray:
    """Interpolate a map on the template's grid, or a wider one, linearly at positions, shape (3, ...).

    Beyond the map 0, or with "nearest" the value at its edge.
    """
    template = load_template()
    origin_mm = template.origin_mm - (np.array(values.shape) - template.t1.shape) // 2
    voxels = positions_mm - origin_mm.astype(np.float32).reshape(3, *[1] * (positions_mm.ndim - 1))
    return ndimage.map_coordinates(values, voxels, order=1, output=np.float32, mode=beyond)
