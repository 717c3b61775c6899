"""Minutes of a physician that a training set took: what was done, times what each of it takes."""

from dataclasses import asdict, dataclass
from typing import Self

import pandas as pd

from metaseg_nb.settings import Budget

# Of a case that nobody annotated.
NOT_ANNOTATED = ("none", "self_training")


@dataclass(frozen=True)
class Costs:
    """Minutes that one of each takes; what they rest on: `REASONS`."""

    minutes_per_case: float
    minutes_per_lesion: float
    minutes_per_slice: float
    minutes_per_box: float
    minutes_per_point: float

    @classmethod
    def of(cls, settings: Budget) -> Self:
        """Costs that a study states."""
        return cls(**{name: getattr(settings, name) for name in cls.__dataclass_fields__})

    def stated(self) -> pd.DataFrame:
        """A row per cost: ``what`` it is for, ``minutes``, ``default`` rests on what."""
        rows = [(REASONS[name][0], minutes, REASONS[name][1]) for name, minutes in asdict(self).items()]
        return pd.DataFrame(rows, columns=["what", "minutes", "what the default rests on"])


# What each cost is for, and where its default comes from.
REASONS = {
    "minutes_per_case": (
        "a case is read",
        "2.0: radiologists who look for metastases took 1.1 (doi:10.1186/s40644-024-00669-9) to 2.4 (Hua et al., "
        "Acad. Radiol., doctors without assistance) minutes a scan",
    ),
    "minutes_per_lesion": (
        "a lesion that is outlined: going there, window, checking in three planes",
        "1.0: assumed; see the next",
    ),
    "minutes_per_slice": (
        "an outline on one axial slice",
        "0.25: assumed; a patient with four lesions over nine slices each then takes 15 minutes, and junior "
        "physicians took 14.2 a patient (doi:10.12455/j.issn.1671-7104.250339)",
    ),
    "minutes_per_box": (
        "a box around a lesion",
        "0.5: a box in one plane takes 7 to 35 s (Papadopoulos et al., ICCV 2017), one in space two of these",
    ),
    "minutes_per_point": (
        "a point in a lesion, and its diameter",
        "0.2: a click takes a ninth to an eighteenth of a box's time (Papadopoulos et al., CVPR 2017); the line along "
        "the diameter is assumed to take ten seconds",
    ),
}
COUNTS = {"n_outlined": "lesion", "n_slices": "slice", "n_boxes": "box", "n_points": "point"}


def case_minutes(annotation: pd.DataFrame, costs: Costs) -> pd.Series:
    """Minutes that each case took.

    Parameters
    ----------
    annotation : DataFrame
        A row per case: ``annotation`` (its kind), and how many lesions were outlined (``n_outlined``) on how many
        slices in all (``n_slices``), boxes (``n_boxes``) and points (``n_points``) set.
    costs : Costs

    Returns
    -------
    Series
        0 for a case that nobody annotated, whatever its lesions.
    """
    minutes = costs.minutes_per_case + sum(
        getattr(costs, f"minutes_per_{name}") * annotation[count] for count, name in COUNTS.items()
    )
    return minutes.where(_by_a_physician(annotation), 0.0)


def run_effort(annotation: pd.DataFrame, costs: Costs) -> dict[str, float]:
    """What a physician did for one run.

    Returns
    -------
    dict
        ``patients`` (annotated, to train on), ``cases`` (read), the columns of `COUNTS`, ``minutes``, and of these
        ``selection_minutes``, for the set that chooses epoch and threshold.
    """
    minutes, done = case_minutes(annotation, costs), annotation[_by_a_physician(annotation)]
    return {
        "patients": done.loc[done["role"] == "training", "patient"].nunique(),
        "cases": len(done),
        **done[list(COUNTS)].sum(),
        "minutes": minutes.sum(),
        "selection_minutes": minutes[annotation["role"] == "selection"].sum(),
    }


def _by_a_physician(annotation: pd.DataFrame) -> pd.Series:
    return ~annotation["annotation"].isin(NOT_ANNOTATED)
