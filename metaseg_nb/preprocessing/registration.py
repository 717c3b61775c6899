"""Rigid registration: where one image of a head lies in another, whatever their grids and contrasts.

Mutual information (Mattes et al., IEEE TMI 22(1), 2003) is maximised over three shifts and three rotations, from
coarse to fine. It has local maxima: so it is started at several places, and the best end counts.

Of images of two dates it is also told whether they show one head.
"""

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
import SimpleITK as sitk
from nibabel.affines import apply_affine
from scipy import ndimage

from metaseg_nb.cohort.cases import Case, Cohort
from metaseg_nb.cohort.head import head_mask, with_dark_background
from metaseg_nb.cohort.lesions import distance_mm
from metaseg_nb.cohort.volumes import Volume, read_volume, spacing_of
from metaseg_nb.preprocessing.grid import to_sitk

HISTOGRAM_BINS = 32
# At most so many points of the fixed image are compared. With all of them a registration takes nearly twice as long,
# and the head ends 0.02 mm away.
POINTS = 250_000
# The smoothing filter and the gradients need as many voxels along each axis.
FEWEST = 4
SEED = 1
# Voxels of about this edge, step by step; images are smoothed by half of it.
LEVELS_MM = (8.0, 4.0, 2.0)
# Voxels this near to the head count too: by its outline heads far apart find each other, and a bright half of an image
# does not pass for the whole.
AROUND_MM = 15.0
# Starts beside the headers' own place: the heads' centres on each other, and then nodded, tilted or turned by as much.
START_DEGREES = 15.0
# Ends of the first level this near are the same. Where fewer starts than this share end at the best one, it is chance.
SAME_MM, LEAST_AGREEING = 4.0, 0.25
# The headers' own place is no start where they put less of the head than this into the other image.
LEAST_OVERLAP = 0.25
# Nobody lies further off than this, between two sequences or two dates.
MOST_DEGREES, MOST_MM = 45.0, 60.0
# Correlation of the structure of two heads. Two dates of one head had 0.85 or more (26 synthetic pairs, and 0.98 of a
# real one), two heads 0.66 or less (4 synthetic pairs).
SAME_HEAD = 0.8
# Structure between these widths: brains differ there, and bias fields do not matter. Of the head every so many voxels.
FINE_MM, COARSE_MM, EVERY = 3.0, 10.0, 50
# Of fewer voxels a correlation says nothing.
FEWEST_ALIKE = 100


@dataclass(frozen=True)
class Registration:
    """Where a fixed image lies in a moving one.

    Parameters
    ----------
    matrix : ndarray, shape (4, 4)
        From millimetres in the fixed image's world (RAS) to those in the moving image's: a rotation and a shift.
    moved_mm : float
        Mean distance, over the fixed head, between a point's place by the headers and by the registration.
    degrees : float
        Angle of the rotation.
    apart_mm : float
        Distance of the two heads' centres after registration; large where one image shows a part of the head.
    agreeing : float
        Share of the starts that ended at the same place as the best; 0 if the headers' place, elsewhere, is better.
    """

    matrix: np.ndarray
    moved_mm: float
    degrees: float
    apart_mm: float
    agreeing: float

    @property
    def failure(self) -> str:
        """Why this cannot be right, in words; "" where nothing speaks against it."""
        if self.degrees > MOST_DEGREES or self.apart_mm > MOST_MM:
            found = f"{self.degrees:.0f}° turned, the heads' centres {self.apart_mm:.0f} mm apart"
            return f"an implausible place: {found} (at most {MOST_DEGREES:.0f}° and {MOST_MM:.0f} mm)"
        if self.agreeing < LEAST_AGREEING:
            found = f"only {self.agreeing:.0%} of the starts end at the best place (at least {LEAST_AGREEING:.0%})"
            return f"an uncertain place: {found}"
        return ""


def register_volume(fixed: Volume, moving: Volume) -> Registration:
    """Register two images of one head; any contrasts and grids.

    Where no place has more mutual information than the headers' own, that one is kept.

    Raises
    ------
    ValueError
        One of the images shows no head, or is thinner than `FEWEST` voxels.
    """
    if (least := min(*fixed.array.shape, *moving.array.shape)) < FEWEST:
        raise ValueError(f"an image of {least} slices: at least {FEWEST} voxels along each axis are needed")
    heads = [head_mask(volume.array) for volume in (fixed, moving)]
    for which, head in zip(("first", "second"), heads, strict=True):
        if not head.any():
            raise ValueError(f"no head stands out from the background of the {which} image")
    places = [apply_affine(own.affine, np.argwhere(head)) for own, head in zip((fixed, moving), heads, strict=True)]
    centres, head_mm = [place.mean(axis=0) for place in places], places[0][:: max(1, len(places[0]) // 1000)]
    near = _in_world((distance_mm(heads[0], fixed.spacing_mm) <= AROUND_MM).astype(np.uint8), fixed.affine)
    first, *others = (
        [_level(fixed, edge_mm), _level(moving, edge_mm), near[_every(fixed, edge_mm)]] for edge_mm in LEVELS_MM
    )
    by_headers = sitk.Euler3DTransform(centres[0].tolist())  # no movement
    overlapping = _share_inside(head_mm, moving) >= LEAST_OVERLAP
    starts = [*_centred(*centres), *([by_headers] if overlapping else [])]
    ends = sorted((_optimised(first, start) for start in starts), key=lambda end: end[1])
    placed = [apply_affine(_matrix(transform), head_mm) for transform, _ in ends]
    transform, agreeing = ends[0][0], np.mean([_apart_mm(placed[0], place) <= SAME_MM for place in placed])
    for level in others:
        transform, _ = _optimised(level, transform)
    matrix = _matrix(transform)
    least = _information(others[-1], by_headers) if overlapping else 0.0
    if _information(others[-1], transform) <= least:
        agreeing = agreeing if _apart_mm(apply_affine(matrix, head_mm), head_mm) <= SAME_MM else 0.0
        matrix = np.eye(4)
    return Registration(
        matrix,
        _apart_mm(apply_affine(matrix, head_mm), head_mm),
        float(np.degrees(np.arccos(np.clip((np.trace(matrix[:3, :3]) - 1) / 2, -1, 1)))),
        float(np.linalg.norm(apply_affine(matrix, centres[0]) - centres[1])),
        float(agreeing),
    )


def _centred(fixed_mm: np.ndarray, moving_mm: np.ndarray) -> list[sitk.Euler3DTransform]:
    """The heads' centres on each other; also turned about each axis both ways."""
    angles = np.radians(START_DEGREES) * np.vstack([np.zeros(3), np.eye(3), -np.eye(3)])
    shift = (moving_mm - fixed_mm).tolist()
    return [sitk.Euler3DTransform(fixed_mm.tolist(), *turned, shift) for turned in angles.tolist()]


def _share_inside(points_mm: np.ndarray, volume: Volume) -> float:
    voxels = apply_affine(np.linalg.inv(volume.affine), points_mm)
    return float(((voxels >= -0.5) & (voxels <= np.array(volume.array.shape) - 0.5)).all(axis=1).mean())


def _method(level: list[sitk.Image], transform: sitk.Euler3DTransform) -> sitk.ImageRegistrationMethod:
    """Mutual information of one level over the voxels in and near the fixed head."""
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(HISTOGRAM_BINS)
    # points off the grid: on it, two images of equal spacing have a maximum wherever their voxels coincide
    method.SetMetricSamplingStrategy(method.REGULAR)
    method.SetMetricSamplingPercentage(min(1.0, POINTS / level[0].GetNumberOfPixels()), SEED)
    method.SetMetricFixedMask(level[2])
    method.SetInterpolator(sitk.sitkLinear)
    method.SetInitialTransform(transform, inPlace=True)
    return method


def _information(level: list[sitk.Image], transform: sitk.Euler3DTransform) -> float:
    return -float(_method(level, transform).MetricEvaluate(*level[:2]))


def _optimised(level: list[sitk.Image], start: sitk.Euler3DTransform) -> tuple[sitk.Euler3DTransform, float]:
    """Climb from a start; the end and the negative mutual information there."""
    transform = sitk.Euler3DTransform(start)
    method = _method(level, transform)
    method.SetOptimizerAsRegularStepGradientDescent(2.0, 1e-3, 100, relaxationFactor=0.6)
    method.SetOptimizerScalesFromPhysicalShift()
    method.Execute(*level[:2])
    return transform, float(method.GetMetricValue())


def _level(volume: Volume, edge_mm: float) -> sitk.Image:
    """Smooth an image, and take every few voxels."""
    image = _in_world(volume.array.astype(np.float32), volume.affine)
    return sitk.SmoothingRecursiveGaussian(image, [edge_mm / 2] * 3)[_every(volume, edge_mm)]


def _every(volume: Volume, edge_mm: float) -> tuple[slice, ...]:
    """Which voxels to take. Not by ITK's ``Shrink``: with even steps, its voxels lie half a voxel off."""
    edges = zip(volume.array.shape, volume.spacing_mm, strict=True)
    return tuple(slice(None, None, max(1, min(round(edge_mm / edge), n // FEWEST))) for n, edge in edges)


def _in_world(array: np.ndarray, affine: np.ndarray) -> sitk.Image:
    """Make a SimpleITK image of an (X, Y, Z) array whose world is that of its affine (RAS)."""
    edges = spacing_of(affine)
    image = to_sitk(array, edges, affine[:3, 3])
    image.SetDirection((affine[:3, :3] / edges).ravel().tolist())
    return image


def along_axes(matrix: np.ndarray, fixed: Volume, moving: Volume) -> np.ndarray:
    """Turn a matrix between worlds into one between millimetres along the two images' axes, from their first voxels.

    So `resample` takes it, with ``fixed`` as its target. Shape (4, 4).
    """
    of_fixed, of_moving = (it.affine @ np.diag([*np.divide(1, it.spacing_mm), 1]) for it in (fixed, moving))
    return np.linalg.inv(of_moving) @ matrix @ of_fixed


def _matrix(transform: sitk.Euler3DTransform) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = np.reshape(transform.GetMatrix(), (3, 3))
    matrix[:3, 3] = transform.TransformPoint((0.0, 0.0, 0.0))
    return matrix


def _apart_mm(points: np.ndarray, others: np.ndarray) -> float:
    return float(np.linalg.norm(points - others, axis=1).mean())


def register_dates(first: Volume, other: Volume) -> tuple[Registration | None, float, str]:
    """Register another date's image to the first's, after z-scoring too.

    Returns
    -------
    registration : Registration or None
        None if there is none.
    alike : float
        `heads_alike`; NaN without a registration.
    problem : str
        Why it cannot be used; "" where nothing speaks against it.
    """
    first, other = (replace(volume, array=with_dark_background(volume.array)) for volume in (first, other))
    try:
        found = register_volume(first, other)
    except (ValueError, RuntimeError) as error:
        return None, np.nan, f"not registered: {error}"
    alike = heads_alike(first, other, found.matrix)
    unlike = "" if alike >= SAME_HEAD else f"another head (correlation {alike:.2f}, at least {SAME_HEAD})"
    return found, alike, found.failure or unlike


def heads_alike(first: Volume, other: Volume, matrix: np.ndarray) -> float:
    """Correlation of the structure of two images in the first's head, where both show it; of like contrasts.

    0 where they show too little of it, or one has no structure.
    ``matrix`` leads from the first's world to the other's.
    """
    voxels = np.argwhere(head_mask(first.array))[::EVERY]
    places = apply_affine(np.linalg.inv(other.affine) @ matrix @ first.affine, voxels)
    shown = ((places >= 0) & (places <= np.array(other.shape) - 1)).all(axis=1)
    its = ndimage.map_coordinates(_structure(other), places[shown].T, order=1)
    own = _structure(first)[tuple(voxels[shown].T)]
    return float(np.corrcoef(own, its)[0, 1]) if len(its) >= FEWEST_ALIKE and own.std() and its.std() else 0.0


def _structure(volume: Volume) -> np.ndarray:
    """What is wider than `FINE_MM` and narrower than `COARSE_MM`."""
    array, edges = volume.array.astype(np.float32), np.array(volume.spacing_mm)
    fine, coarse = (ndimage.gaussian_filter(array, width / edges) for width in (FINE_MM, COARSE_MM))
    return fine - coarse


def earlier_dates(cohort: Cohort) -> dict[str, Case]:
    """Of each case the one of the same patient at the last date before it that has a mask; by the case's name.

    Of two cases of one date nobody knows which to take: neither is.
    """
    dated = [(case.day, case) for case in cohort.all_cases if case.day is not None]
    of_date, last, found = Counter((case.patient, day) for day, case in dated), {}, {}
    for day, case in sorted(dated, key=lambda pair: pair[0]):
        if case.patient in last:
            found[case.name] = last[case.patient]
        if case.label and of_date[case.patient, day] == 1:
            last[case.patient] = case
    return found


def place_of(earlier: Case, first: Volume) -> tuple[np.ndarray | None, float, str]:
    """Where the earlier date's image lies, as `resample` takes it, for the first sequence of the later date.

    Also how alike the two heads are (`heads_alike`), and why the place cannot be used: then it is None.
    """
    other = read_volume(earlier.image, earlier.name)
    found, alike, problem = register_dates(first, other)
    return along_axes(found.matrix, first, other) if found and not problem else None, alike, problem
