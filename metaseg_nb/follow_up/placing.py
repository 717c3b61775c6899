"""Registration in time: where each date's head lies against that of one date, and whether it is the same head."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from metaseg_nb.cohort.cases import Case
from metaseg_nb.cohort.volumes import Volume, read_volume
from metaseg_nb.preprocessing.registration import register_dates

PERHAPS = "possibly another patient, another sequence, or after surgery"
# Of the date that the others are registered to.
UNMOVED = (0.0, 0.0, 1.0, np.eye(4).ravel().tolist(), "")


def place_dates(cases: Sequence[Case], reference_date: int) -> pd.DataFrame:
    """Register the first sequence of each date of a patient to that of one date, rigidly.

    Parameters
    ----------
    cases : sequence of Case
        In the order of their dates.
    reference_date : int
        The date that the others are registered to, from 1; where a patient has fewer dates, the last. If the first
        date cannot be registered to it, the dates are registered to the first: a later one is not the beginning.

    Returns
    -------
    DataFrame
        A row per case: ``patient``, ``case``, ``day``; ``moved_mm``, ``degrees`` (how the head lies elsewhere than the
        headers say); ``alike`` (correlation of the two heads' structure, 1 for the reference date); ``matrix`` (from
        the reference date's world to this one's, 16 numbers row by row); ``problem``: why this date cannot be
        followed, "" where nothing speaks against it. A date that cannot be registered has ``matrix`` 1, and ``alike``
        NaN.
    """
    volumes = [read_volume(case.image, case.name) for case in cases]
    fixed = min(reference_date, len(cases)) - 1
    rows = [_placed(volumes[fixed], volume) if date != fixed else UNMOVED for date, volume in enumerate(volumes)]
    dates = pd.DataFrame(rows, columns=["moved_mm", "degrees", "alike", "matrix", "problem"])
    if dates["problem"].iloc[0]:
        return place_dates(cases, 1)
    others = dates.index != fixed
    if others.sum() > 1 and (dates["problem"][others] != "").all():
        dates.loc[others, "problem"] += f"; {cases[fixed].name}, or all others"
    names, days = [case.name for case in cases], [case.day for case in cases]
    return dates.assign(patient=cases[0].patient, case=names, day=days)


def _placed(fixed: Volume, moving: Volume) -> tuple[float, float, float, list[float], str]:
    found, alike, problem = register_dates(fixed, moving)
    if found is None:
        return np.nan, np.nan, np.nan, np.eye(4).ravel().tolist(), problem
    return found.moved_mm, found.degrees, alike, found.matrix.ravel().tolist(), problem and f"{problem}; {PERHAPS}"
