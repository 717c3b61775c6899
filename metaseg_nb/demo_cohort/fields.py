"""Smooth random fields on any grid: deformations, bias fields and patches that do not depend on the voxels."""

from dataclasses import dataclass

import numpy as np

# Deviation of a cubic B-spline field made of unit normal weights, averaged over space.
SPLINE_DEVIATION = 0.33


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
