"""Minutes of a physician that a training set took: how much was done, times the minutes that each item takes."""

import pandas as pd

from metaseg_nb.settings import Budget

# Kinds of "annotation" for which no physician looked at the case.
NO_PHYSICIAN = ("none", "self_training")
COUNTS = {"n_contoured": "lesion", "n_slices": "slice", "n_boxes": "box", "n_points": "point"}
# What each cost is for, and what its default rests on.
REASONS = {
    "minutes_per_case": (
        "reading a case",
        "2.0: radiologists who looked for metastases took 1.1 (doi:10.1186/s40644-024-00669-9) to 2.4 (Hua et al., "
        "Acad. Radiol., doctors without assistance) minutes a scan",
    ),
    "minutes_per_lesion": (
        "each contoured lesion: finding it, setting the window, checking in three planes",
        "1.0: assumed; see the next",
    ),
    "minutes_per_slice": (
        "a contour on one axial slice",
        "0.25: assumed; a patient with four lesions over nine slices each then takes 15 minutes, and junior "
        "physicians took 14.2 a patient (doi:10.12455/j.issn.1671-7104.250339)",
    ),
    "minutes_per_box": (
        "a box around a lesion",
        "0.5: a box in one plane takes 7 to 35 s (Papadopoulos et al., ICCV 2017); a box in 3D is two of these",
    ),
    "minutes_per_point": (
        "a point in a lesion, and its diameter",
        "0.2: a click takes a ninth to an eighteenth of a box's time (Papadopoulos et al., CVPR 2017); the line along "
        "the diameter is assumed to take ten seconds",
    ),
}


def cost_table(settings: Budget) -> pd.DataFrame:
    """A row per cost: ``what`` it is for, its ``minutes``, and what the default rests on."""
    rows = [(what, getattr(settings, name), reason) for name, (what, reason) in REASONS.items()]
    return pd.DataFrame(rows, columns=["what", "minutes", "what the default rests on"])


def case_minutes(annotation: pd.DataFrame, settings: Budget) -> pd.Series:
    """Minutes that each case took; 0 for a case that no physician annotated.

    Parameters
    ----------
    annotation : DataFrame
        A row per case: ``annotation`` (its kind), lesions contoured (``n_contoured``) on slices in all
        (``n_slices``), boxes (``n_boxes``) and points (``n_points``).
    settings : Budget
        Its ``minutes_per_...``.
    """
    items = sum(getattr(settings, f"minutes_per_{item}") * annotation[count] for count, item in COUNTS.items())
    return (settings.minutes_per_case + items).where(_by_a_physician(annotation), 0.0)


def run_effort(annotation: pd.DataFrame, settings: Budget) -> dict[str, float]:
    """What a physician did for one run.

    Returns
    -------
    dict
        ``patients`` (annotated, for training), ``cases`` (read), the columns of `COUNTS`, ``minutes``, and of these
        ``selection_minutes``, for the selection set.
    """
    minutes, done = case_minutes(annotation, settings), annotation[_by_a_physician(annotation)]
    return {
        "patients": done.loc[done["role"] == "training", "patient"].nunique(),
        "cases": len(done),
        **done[list(COUNTS)].sum(),
        "minutes": minutes.sum(),
        "selection_minutes": minutes[annotation["role"] == "selection"].sum(),
    }


def _by_a_physician(annotation: pd.DataFrame) -> pd.Series:
    return ~annotation["annotation"].isin(NO_PHYSICIAN)
