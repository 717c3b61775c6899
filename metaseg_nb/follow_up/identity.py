"""Which lesion of one date is which of another: an optimal assignment by overlap and distance; splits and merges."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.optimize import linear_sum_assignment
from scipy.spatial import KDTree

# The voxels of a lesion, in parts, in the space of the patient's reference date: shape (N, 3), in mm.
Points = np.ndarray
# A lesion of which this share lies in another one's place came from it (split), or went into it (merged).
INSIDE = 0.5
# What two lesions cost that are not the same: more than any two that may be.
APART = 2.0
# The fate of a lesion at a date whose image does not show its place.
UNSEEN = "not imaged"


@dataclass
class _Track:
    """A lesion on its way: where it was last seen, what became of it, and whether it vanished and did not return."""

    last: Points
    fate: str
    of: int | None
    gone: bool = False


def follow(
    dates: Sequence[Sequence[Points]], reach_mm: float, shows: Callable[[int, Points], bool] = lambda *_: True
) -> pd.DataFrame:
    """Give the lesions of all dates of a patient their identity.

    A lesion and one of an earlier date may be the same if one reaches into the other, grown by ``reach_mm``. Of all
    ways to pair them, the one with the most overlap and the nearest centres is taken (Hungarian method), date by date;
    a lesion is looked for where it was last seen.

    Parameters
    ----------
    dates : sequence of sequence of ndarray of shape (N, 3)
        For each date, in order, its lesions as points in mm, in one space.
    reach_mm : float
    shows : callable
        Whether the image of a date shows the place of a lesion; all of them by default.

    Returns
    -------
    DataFrame
        A row for each lesion at each date from its first on: ``date`` (from 0), ``lesion`` (from 1, the same number at
        all dates), ``part`` (its place in ``dates[date]``; <NA> where it is not there), ``of`` (the lesion that it
        merged into, or was split from), ``fate``: "first" (of the first date that shows its place), "new",
        "persisting", "returned", "vanished", "not imaged", "merged", "split".

    References
    ----------
    Kuhn 1955 (Naval Res. Logist. 2:83).
    """
    tracks: dict[int, _Track] = {}
    rows = []
    for date, parts in enumerate(dates):
        before = {number: track.last for number, track in tracks.items() if track.fate != "merged"}
        part_of, cut = _paired(before, parts, reach_mm), set()
        for number, place in before.items():
            track = tracks[number]
            if number in part_of and not shows(date, place):
                track.fate, cut = UNSEEN, {*cut, number}  # the edge of the image cuts it: its size is not known
            elif number in part_of:
                track.fate = "returned" if track.gone else "persisting"
                track.last, track.gone = parts[part_of[number]], False
            elif not track.gone and (into := _those_around(place, part_of, parts, reach_mm)):
                track.fate, track.of = "merged", into[0]
            elif not shows(date, place):
                track.fate = UNSEEN
            else:
                track.fate, track.gone = "vanished", True
        for track in tracks.values():  # what merged goes on with its lesion into the next one
            while track.fate == "merged" and track.of and tracks[track.of].fate == "merged":
                track.of = tracks[track.of].of
        for part in sorted(set(range(len(parts))) - set(part_of.values())):
            of = [number for number in part_of if number in before and _inside(parts[part], before[number], reach_mm)]
            seen = any(shows(earlier, parts[part]) for earlier in range(date))
            fate = "split" if of else "new" if seen else "first"
            part_of[len(tracks) + 1] = part
            tracks[len(tracks) + 1] = _Track(parts[part], fate, of[0] if of else None)
        rows += [
            (date, number, None if number in cut else part_of.get(number), track.of, track.fate)
            for number, track in tracks.items()
        ]
    columns = ["date", "lesion", "part", "of", "fate"]
    return pd.DataFrame(rows, columns=columns).astype({"part": "Int64", "of": "Int64"})


def _paired(before: dict[int, Points], parts: Sequence[Points], reach_mm: float) -> dict[int, int]:
    """The part of a date that each known lesion is now, by its number."""
    numbers = list(before)
    costs = [_cost(before[number], part, reach_mm) for number in numbers for part in parts]
    cost = np.reshape(costs, (len(numbers), len(parts)))
    pairs = zip(*linear_sum_assignment(cost), strict=True)
    return {numbers[i]: int(j) for i, j in pairs if cost[i, j] < APART}


def _cost(one: Points, other: Points, reach_mm: float) -> float:
    """0 for a lesion in its own place; `APART` where neither reaches the other."""
    radii = [_radius_mm(points) for points in (one, other)]
    away = float(np.linalg.norm(one.mean(axis=0) - other.mean(axis=0)))
    if away > 4 * sum(radii) + reach_mm:
        return APART
    overlap = max(_share_near(one, other, reach_mm), _share_near(other, one, reach_mm))
    return 1 - overlap + away / (away + sum(radii) + reach_mm) if overlap else APART


def _those_around(place: Points, part_of: dict[int, int], parts: Sequence[Points], reach_mm: float) -> list[int]:
    return [number for number, part in part_of.items() if _inside(place, parts[part], reach_mm)]


def _inside(one: Points, other: Points, reach_mm: float) -> bool:
    """Whether most of a lesion lies in another one's place, half of the reach away at most."""
    return _share_near(one, other, reach_mm / 2) >= INSIDE


def _share_near(one: Points, other: Points, reach_mm: float) -> float:
    if ((one.min(axis=0) > other.max(axis=0) + reach_mm) | (one.max(axis=0) < other.min(axis=0) - reach_mm)).any():
        return 0.0
    return float(np.isfinite(KDTree(other).query(one, distance_upper_bound=reach_mm)[0]).mean())


def _radius_mm(points: Points) -> float:
    """Root mean square distance from the centre; it grows with the lesion, whatever the voxels."""
    return float(np.sqrt(((points - points.mean(axis=0)) ** 2).sum(axis=1).mean()))
