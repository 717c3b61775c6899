"""Response of a patient at each date: RANO-BM by longest diameters, and by volumes.

Lin et al. 2015, Response assessment criteria for brain metastases (Lancet Oncol. 16:e270).
"""

from collections.abc import Sequence
from itertools import product

import numpy as np
import pandas as pd

# Target lesions: measurable at the first date, the largest first.
LONGEST_MM, ACROSS_MM, SLICES, MOST_TARGETS = 10.0, 5.0, 2, 5
# From the first date's sum, and from the smallest sum so far; and what one lesion must have grown by, at least.
PARTIAL, PROGRESSED, GROWN_MM = 0.7, 1.2, 5.0
PARTIAL_VOLUME, PROGRESSED_VOLUME = 0.35, 1.73
# A response is confirmed after so many days.
SUSTAINED_DAYS = 28
COMPLETE, PARTLY, STABLE, PROGRESSION = "complete response", "partial response", "stable disease", "progression"
# From best to worst.
RESPONSES = (COMPLETE, PARTLY, STABLE, PROGRESSION)
FIRST, UNKNOWN = "first date", "not assessable"
TOLERANCE = 1e-9


def responses(
    lesions: pd.DataFrame, dates: pd.DataFrame, models: Sequence[str], clinical: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Assess each patient at each date.

    Parameters
    ----------
    lesions : DataFrame
        From `follow_study`: a row per (``model``, ``patient``, ``lesion``, date).
    dates : DataFrame
        From `follow_study`: ``patient``, ``case``, ``day`` of each date, those without a lesion too.
    models : sequence of str
        Whose masks are assessed, those without a lesion too.
    clinical : DataFrame, optional
        From `read_clinical`: a row per ``case`` with ``steroids``, ``clinical`` and ``non_target_progression``.

    Returns
    -------
    DataFrame
        A row per (``model``, ``patient``, date): ``case``, ``day``, ``targets`` (number of target lesions), ``sum_mm``
        (of their longest diameters), ``change_pct`` (of it, since the first date), ``from_nadir_pct`` (since the
        smallest sum before), ``new`` (lesions that were not there at the first date), ``imaging`` (category by images
        alone), ``by`` (of a progression: the new lesions, or the target lesion that grew most), ``volume_cm3`` of the
        target lesions, ``by_volume`` (category by volumes), ``rano_bm`` (with clinical facts; "not assessable" where
        they are not known) and ``confirmed`` (a response by images that lasts for `SUSTAINED_DAYS`).
    """
    facts = clinical.set_index("case") if clinical is not None else pd.DataFrame()
    tables = []
    for model, patient in product(models, dates["patient"].unique()):
        own = lesions[(lesions["model"] == model) & (lesions["patient"] == patient)]
        when = dates[dates["patient"] == patient].sort_values("day")[["case", "day"]]
        table = _by_images(own, when).assign(model=model, patient=patient)
        known = facts.reindex(table["case"]) if len(facts) else pd.DataFrame(index=table["case"])
        with_facts = zip(table["imaging"], known.to_dict("records"), strict=True)
        tables.append(table.assign(rano_bm=[_overall(category, of) for category, of in with_facts]))
    return pd.concat(tables, ignore_index=True)


def _by_images(lesions: pd.DataFrame, dates: pd.DataFrame) -> pd.DataFrame:
    """Assess one patient by images alone; a row per date."""
    at_first = lesions[lesions["day"] == dates["day"].iloc[0]]
    targets = target_lesions(at_first)
    parts = _with_parts(lesions, targets)
    wide = {
        name: lesions[lesions["lesion"].isin(parts)].pivot_table(name, "lesion", "day", "sum", fill_value=0.0)
        for name in ("diameter_mm", "volume_mm3")
    }
    longest, volumes = (table.reindex(columns=dates["day"], fill_value=0.0).to_numpy() for table in wide.values())
    rows = []
    for i, (case, day) in enumerate(dates.itertuples(index=False)):
        there = lesions[(lesions["day"] == day) & (lesions["volume_mm3"] > 0)]
        came = there[~there["lesion"].isin(at_first["lesion"])]
        new = came.loc[came["of"].isna(), "lesion"]  # what was split from another lesion is not new
        sums, sums_mm3 = longest.sum(axis=0), volumes.sum(axis=0)
        nadir = int(sums[:i].argmin()) if i else 0
        grown = longest[:, i] - longest[:, nadir]
        enough = grown.max(initial=0.0) >= GROWN_MM - TOLERANCE
        by_length = _category(sums, i, len(new), len(there), PARTIAL, PROGRESSED, enough)
        by_volume = _category(sums_mm3, i, len(new), len(there), PARTIAL_VOLUME, PROGRESSED_VOLUME, True)
        by = ", ".join(f"lesion {number}, new" for number in new) if by_length == PROGRESSION else ""
        if by_length == PROGRESSION and not by:
            by = f"lesion {wide['diameter_mm'].index[grown.argmax()]}, {grown.max():+.0f} mm"
        change = [100 * (sums[i] / of - 1) if of else np.nan for of in (sums[0], sums[nadir])]
        facts = (case, day, len(targets), sums[i], *change, len(new))
        rows.append((*facts, by_length, by, sums_mm3[i] / 1000, by_volume))
    columns = ["case", "day", "targets", "sum_mm", "change_pct", "from_nadir_pct", "new", "imaging", "by"]
    table = pd.DataFrame(rows, columns=[*columns, "volume_cm3", "by_volume"])
    return table.assign(confirmed=_confirmed(table["day"].tolist(), table["imaging"].tolist()))


def target_lesions(first: pd.DataFrame) -> list[int]:
    """Numbers of one patient's target lesions, the largest first, from the lesions of the first date."""
    measurable = (first["diameter_mm"] >= LONGEST_MM) & (first["perpendicular_mm"] >= ACROSS_MM)
    measurable &= first["slices"] >= SLICES
    return first[measurable].nlargest(MOST_TARGETS, "diameter_mm")["lesion"].tolist()


def _with_parts(lesions: pd.DataFrame, targets: Sequence[int]) -> set[int]:
    """Target lesions, and what was split from them: their diameters are added up."""
    parts = set(targets)
    split = lesions.loc[lesions["fate"] == "split", ["lesion", "of"]].drop_duplicates()
    for lesion, of in split.itertuples(index=False):  # in the order in which they came
        parts |= {lesion} if of in parts else set()
    return parts


def _category(
    sums: np.ndarray, i: int, new: int, left: int, partial: float, progressed: float, enough_grown: bool
) -> str:
    """Category of the date ``i``, from the sums over target lesions at all dates."""
    if i == 0:
        return FIRST
    if new:
        return PROGRESSION
    if sums[0] == 0:
        return UNKNOWN  # no target lesion
    nadir = sums[:i].min()
    if sums[i] > nadir and sums[i] >= progressed * nadir - TOLERANCE and enough_grown:
        return PROGRESSION
    if sums[i] == 0 and left == 0:
        return COMPLETE
    return PARTLY if sums[i] <= partial * sums[0] + TOLERANCE else STABLE


def _overall(imaging: str, facts: dict) -> str:
    """RANO-BM with what a clinician knows; an increase in steroids alone is no progression."""
    steroids, clinical, non_target = (facts.get(key) for key in ("steroids", "clinical", "non_target_progression"))
    if imaging in (FIRST, PROGRESSION):
        return imaging
    if clinical == "worse" or non_target == "yes":
        return PROGRESSION
    if imaging == UNKNOWN or clinical not in ("stable", "improved") or steroids not in ("none", "stable", "decreased"):
        return UNKNOWN
    return PARTLY if imaging == COMPLETE and steroids != "none" else imaging


def _confirmed(days: Sequence[int], imaging: Sequence[str]) -> list[bool]:
    """Whether each date's response lasts: all dates up to the first one `SUSTAINED_DAYS` later respond too."""
    lasting = []
    for i, day in enumerate(days):
        later = [j for j in range(i + 1, len(days)) if days[j] - day >= SUSTAINED_DAYS]
        until = imaging[i : later[0] + 1] if later else []
        lasting.append(bool(until) and all(category in (COMPLETE, PARTLY) for category in until))
    return lasting


def best_responses(table: pd.DataFrame) -> pd.DataFrame:
    """Best response of each patient by images, until progression.

    Parameters
    ----------
    table : DataFrame
        From `responses`.

    Returns
    -------
    DataFrame
        A row per (``model``, ``patient``): ``best`` (category), ``best_pct`` (smallest change of the sum of longest
        diameters since the first date), ``progressed_day`` (NaN without progression), ``last_day``.
    """
    rows = []
    for (model, patient), own in table[table["imaging"] != FIRST].groupby(["model", "patient"], sort=False):
        progressed = own["imaging"].eq(PROGRESSION)
        until = own[progressed.cumsum().eq(0)]
        known = [category for category in until["imaging"] if category in RESPONSES]
        best = min(known, key=RESPONSES.index) if known else PROGRESSION if progressed.any() else UNKNOWN
        change = (until if len(until) else own)["change_pct"].min()
        rows.append((model, patient, best, change, own.loc[progressed, "day"].min(), own["day"].max()))
    return pd.DataFrame(rows, columns=["model", "patient", "best", "best_pct", "progressed_day", "last_day"])
