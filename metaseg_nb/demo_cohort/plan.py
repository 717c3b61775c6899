"""What each synthetic patient is to have, drawn before anything is rendered: lesions, primary, scanner.

The numbers follow the study that the workbook repeats: 3 ± 2 lesions a patient, at most 27, largest
diameters 22 ± 16 mm. Every twentieth patient has no lesion and four of twenty only small ones.
"""

from dataclasses import dataclass

import numpy as np

KINDS = ("solid", "ring", "haemorrhagic")
MIN_DIAMETER_MM = 3.0
MAX_DIAMETER_MM = 68.0
SMALL_DIAMETER_MM = (3.0, 9.0)
MIN_NECROTIC_DIAMETER_MM = 9.0
MAX_LESIONS = 27
MAX_BURDEN_MM3 = 120e3

# Positions in each row of twenty patients; the first three have lesions of any size.
PROFILE_PERIOD = 20
WITHOUT_LESIONS = frozenset({7})
ONLY_SMALL_LESIONS = frozenset({3, 9, 14, 18})

# Gamma distribution of the diameters of the other patients; wider than 22 ± 16 mm because it is cut at both
# ends and the small lesions are drawn apart.
DIAMETER_SHAPE = 1.6
DIAMETER_SCALE_MM = 17.5
# Lesions beyond the first: negative binomial. A rare patient has very many, all of them smaller.
MEAN_OTHER_LESIONS = 2.3
NUMBER_SHAPE = 4
MANY_LESIONS_CHANCE = 0.005
MANY_LESIONS_FROM = 10

# Voxel edges along X, Y, Z (RAS) and axes of the file; patients take them in turn.
SCANNERS = (
    ((1.0, 1.0, 1.0), "RAS"),
    ((0.9, 0.9, 1.2), "LPS"),
    ((1.0, 1.0, 1.0), "LAS"),
    ((0.9, 0.9, 2.0), "LPS"),
    ((1.2, 1.0, 1.0), "PSR"),
    ((0.9, 0.9, 1.5), "RAS"),
    ((1.0, 1.0, 1.2), "LAS"),
    ((0.9, 0.9, 3.0), "LPS"),
    ((1.0, 1.2, 1.0), "LSA"),
    ((1.1, 1.1, 1.1), "RPS"),
)


@dataclass(frozen=True)
class Primary:
    """How the metastases of one primary cancer differ: factors on number and diameter, odds of the `KINDS`."""

    name: str
    share: float
    number: float
    diameter: float
    kinds: tuple[float, float, float]


PRIMARIES = (
    Primary("NSCLC", 0.45, 1.0, 1.0, (0.50, 0.40, 0.10)),
    Primary("Melanoma", 0.25, 1.2, 0.9, (0.50, 0.15, 0.35)),
    Primary("Breast", 0.20, 1.0, 1.0, (0.55, 0.35, 0.10)),
    Primary("Renal", 0.10, 0.8, 1.15, (0.40, 0.30, 0.30)),
)


@dataclass(frozen=True)
class LesionPlan:
    """One lesion: largest diameter, one of `KINDS`, brightness of its enhancing part (white matter is 1)."""

    diameter_mm: float
    kind: str
    enhancement: float


@dataclass(frozen=True)
class PatientPlan:
    """One patient: names, lesions (largest first), voxel edges along X, Y, Z (RAS) and axes of the file."""

    seed: int
    index: int
    primary: str
    lesions: tuple[LesionPlan, ...]
    spacing_mm: tuple[float, float, float]
    axes: str

    @property
    def case(self) -> str:
        """Name of the case and the patient, counted from 1."""
        return f"synthetic_{self.index + 1:03d}"


def plan_patient(seed: int, index: int) -> PatientPlan:
    """Plan one patient of the synthetic cohort.

    Parameters
    ----------
    seed : int
        Of the cohort.
    index : int
        Of the patient, from 0. Nothing else is drawn from, so the patient is the
        same in a cohort of any size.
    """
    rng = np.random.default_rng([seed, index])
    primary = PRIMARIES[rng.choice(len(PRIMARIES), p=[one.share for one in PRIMARIES])]
    diameters = sorted(_draw_diameters_mm(rng, primary, index % PROFILE_PERIOD), reverse=True)
    lesions = tuple(_draw_lesion(rng, primary, diameter) for diameter in diameters)
    spacing_mm, axes = SCANNERS[index % len(SCANNERS)]
    return PatientPlan(seed, index, primary.name, lesions, spacing_mm, axes)


def _draw_diameters_mm(rng: np.random.Generator, primary: Primary, position: int) -> np.ndarray:
    if position in WITHOUT_LESIONS:
        return np.empty(0)
    if position in ONLY_SMALL_LESIONS:
        return rng.uniform(*SMALL_DIAMETER_MM, size=1 + rng.poisson(1.2 * primary.number))
    if rng.random() < MANY_LESIONS_CHANCE:
        number, scale_mm = rng.integers(MANY_LESIONS_FROM, MAX_LESIONS + 1), 0.4 * DIAMETER_SCALE_MM
    else:
        others = MEAN_OTHER_LESIONS * primary.number
        number = 1 + rng.negative_binomial(NUMBER_SHAPE, NUMBER_SHAPE / (NUMBER_SHAPE + others))
        number, scale_mm = min(number, MAX_LESIONS), DIAMETER_SCALE_MM
    while True:
        diameters = _truncated_gamma_mm(rng, scale_mm * primary.diameter, int(number))
        if _rough_volume_mm3(diameters).sum() <= MAX_BURDEN_MM3:
            return diameters


def _truncated_gamma_mm(rng: np.random.Generator, scale_mm: float, number: int) -> np.ndarray:
    drawn = np.empty(0)
    while len(drawn) < number:
        more = rng.gamma(DIAMETER_SHAPE, scale_mm, size=number)
        drawn = np.concatenate([drawn, more[(more >= MIN_DIAMETER_MM) & (more <= MAX_DIAMETER_MM)]])
    return drawn[:number]


def _rough_volume_mm3(diameter_mm: np.ndarray) -> np.ndarray:
    # An ellipsoid whose other two axes are about 0.85 and 0.75 of the largest.
    return np.pi / 6 * 0.64 * diameter_mm**3


def _draw_lesion(rng: np.random.Generator, primary: Primary, diameter_mm: float) -> LesionPlan:
    odds = np.array(primary.kinds)
    # Small metastases have not outgrown their blood supply, large ones nearly always have.
    odds[0] *= np.interp(diameter_mm, [15, 30], [1, 0.2])
    odds[1:] *= diameter_mm >= MIN_NECROTIC_DIAMETER_MM
    kind = KINDS[rng.choice(len(KINDS), p=odds / odds.sum())]
    return LesionPlan(float(diameter_mm), kind, float(rng.uniform(1.15, 1.65)))
