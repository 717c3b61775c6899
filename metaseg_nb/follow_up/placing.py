"""Registration in time: where each date's head lies against the first date, and whether it is the same head."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from metaseg_nb.cohort.cases import Case
from metaseg_nb.cohort.head import with_dark_background
from metaseg_nb.cohort.volumes import Volume, read_volume
from metaseg_nb.preprocessing.same_head import register_dates

PERHAPS = "possibly another patient, another sequence, or after surgery"


def place_dates(cases: Sequence[Case]) -> pd.DataFrame:
    """Register the first sequence of each date of a patient to that of the first date, rigidly.

    Parameters
    ----------
    cases : sequence of Case
        In the order of their dates.

    Returns
    -------
    DataFrame
        A row per case: ``patient``, ``case``, ``day``; ``moved_mm``, ``degrees`` (how the head lies elsewhere than the
        headers say); ``alike`` (correlation of the two heads' structure, 1 for the first date); ``matrix`` (from the
        first date's world to this one's, 16 numbers row by row); ``problem``: why this date cannot be followed, ""
        where nothing speaks against it. A date that cannot be registered has ``matrix`` 1, and ``alike`` NaN.
    """
    first, *others = (_dark(read_volume(case.image, case.name)) for case in cases)
    rows = [(0.0, 0.0, 1.0, np.eye(4).ravel().tolist(), "")]
    for other in others:
        found, alike, problem = register_dates(first, other)
        if found is None:
            rows.append((np.nan, np.nan, np.nan, np.eye(4).ravel().tolist(), problem))
            continue
        problem = problem and f"{problem}; {PERHAPS}"
        rows.append((found.moved_mm, found.degrees, alike, found.matrix.ravel().tolist(), problem))
    if len(others) > 1 and all(row[-1] for row in rows[1:]):
        rows[1:] = [(*row[:-1], f"{row[-1]}; the first date, or all others") for row in rows[1:]]
    dates = pd.DataFrame(rows, columns=["moved_mm", "degrees", "alike", "matrix", "problem"])
    names, days = [case.name for case in cases], [case.day for case in cases]
    return dates.assign(patient=cases[0].patient, case=names, day=days)


def _dark(volume: Volume) -> Volume:
    return replace(volume, array=with_dark_background(volume.array))
