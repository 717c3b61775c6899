"""Response of a patient at each date: RANO-BM by longest diameters, by volumes, and with what a clinician knows.

Lin et al. 2015, Response assessment criteria for brain metastases (Lancet Oncol. 16:e270).
"""

from collections.abc import Sequence
from difflib import get_close_matches
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd

from metaseg_nb.cohort.cases import Cohort
from metaseg_nb.cohort.problems import CohortError, broken, refusal
from metaseg_nb.cohort.sources.spelling import read_csv

# Target lesions: measurable at the first date, the largest first.
LONGEST_MM, ACROSS_MM, SLICES, MOST_TARGETS = 10.0, 5.0, 2, 5
# From the first date's sum, and from the smallest sum so far; and what one lesion must have grown by, at least. For
# volumes no least growth is published: it is the volume of a ball of 5 mm.
PARTIAL, PROGRESSED, GROWN_MM = 0.7, 1.2, 5.0
PARTIAL_VOLUME, PROGRESSED_VOLUME, GROWN_MM3 = 0.35, 1.73, 65.0
# A response is confirmed after so many days.
SUSTAINED_DAYS = 28
COMPLETE, PARTLY, STABLE, PROGRESSION = "complete response", "partial response", "stable disease", "progression"
# From best to worst.
RESPONSES = (COMPLETE, PARTLY, STABLE, PROGRESSION)
FIRST, UNRATED = "first date", "not assessable"
TOLERANCE = 1e-9
# What images do not show: columns of a clinician's table, and the words in them; an empty cell is not known.
WORDS = {
    "steroids": ("none", "decreased", "stable", "increased"),
    "clinical": ("improved", "stable", "worse"),
    "non_target_progression": ("no", "yes"),
}
# A column this like one of them is meant as one (`difflib`): steroid, clinical_status.
ALMOST = 0.65


def read_clinical(path: Path, cohort: Cohort) -> pd.DataFrame:
    """Read a CSV with a row per ``case`` and any of the columns of `WORDS`.

    Raises
    ------
    CohortError
        With all that is wrong: no such file, no row, no column ``case`` or none of `WORDS`, a column twice or with a
        name that is almost one of them, a case twice or of no patient of the cohort, another word.
    """
    table, problems = read_csv(path)
    given = [column for column in WORDS if column in table]
    names = ("case", *WORDS)
    almost = [column for column in table if column not in names and get_close_matches(column, names, cutoff=ALMOST)]
    if "case" not in table or not given or almost or not table.columns.is_unique:
        raise refusal("clinical columns", "-", path, f"columns {', '.join(table)}", columns=", ".join(WORDS))
    if table.empty and not problems:
        raise refusal("clinical rows", "-", path, "no row below the header")
    known = {case.name for case in cohort.all_cases}
    for line, row in table.iterrows():
        if row["case"] not in known:
            problems.append(broken("clinical case", f"line {line}", path, f"case {row['case']}"))
        for column in given:
            if row[column].lower() not in ("", *WORDS[column]):
                expected = {"column": column, "words": ", ".join(WORDS[column])}
                problems.append(broken("clinical word", row["case"], path, f"{row[column]!r}", **expected))
    for name in table.loc[table["case"].duplicated(), "case"]:
        problems.append(broken("clinical row once", name, path, "two rows"))
    if problems:
        raise CohortError(problems)
    return table[["case", *given]].apply(lambda column: column if column.name == "case" else column.str.lower())


def responses(
    lesions: pd.DataFrame,
    dates: pd.DataFrame,
    models: Sequence[str],
    new_mm: float,
    clinical: pd.DataFrame | None = None,
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
    new_mm : float
        Longest diameter from which a new lesion on at least `SLICES` slices is a progression.
    clinical : DataFrame, optional
        From `read_clinical`: a row per ``case`` with ``steroids``, ``clinical`` and ``non_target_progression``.

    Returns
    -------
    DataFrame
        A row per (``model``, ``patient``, date): ``case``, ``day``, ``targets`` (number of target lesions), ``sum_mm``
        (of their longest diameters; NaN where one was not imaged), ``change_pct`` (of it, since the first date),
        ``from_nadir_pct`` (since the smallest sum before), ``new`` (lesions that were not there at the first date, or
        came back after a complete response), ``equivocal`` (the same, but too small to count), ``non_target`` (lesions
        of the first date that are no targets, and grew by 20 % and 5 mm from their smallest diameter: to be judged),
        ``imaging`` (category by images alone), ``by`` (of a progression: the new lesions, or the target lesion that
        grew most), ``volume_cm3`` of the target lesions, ``by_volume`` (category by volumes), ``confirmed`` (a response
        by images that lasts for `SUSTAINED_DAYS`) and ``rano_bm`` (with clinical facts; "not assessable" where
        they are not known).
    """
    facts = {} if clinical is None else clinical.set_index("case").to_dict("index")
    tables = []
    for model, patient in product(models, dates["patient"].unique()):
        own = lesions[(lesions["model"] == model) & (lesions["patient"] == patient)]
        when = dates[dates["patient"] == patient].sort_values("day")[["case", "day"]]
        table = _by_images(own, when, new_mm).assign(model=model, patient=patient)
        overall = [_overall(of.imaging, facts.get(of.case, {})) for of in table.itertuples()]
        tables.append(table.assign(rano_bm=overall))
    return pd.concat(tables, ignore_index=True)


def _by_images(lesions: pd.DataFrame, dates: pd.DataFrame, new_mm: float) -> pd.DataFrame:
    """Assess one patient by images alone; a row per date."""
    at_first = lesions[lesions["day"] == dates["day"].iloc[0]]
    targets = target_lesions(at_first)
    of_targets = _of_targets(lesions, targets)
    longest, volumes = (_of_dates(of_targets, name, targets, dates["day"]) for name in ("diameter_mm", "volume_mm3"))
    known = {*lesions.loc[lesions["fate"] == "first", "lesion"]}  # also where the first date does not show its place
    sums, judged = longest.sum(axis=0), _grown(lesions[lesions["lesion"].isin(known - {*targets})])
    rows, so_far = [], []
    for i, (case, day) in enumerate(dates.itertuples(index=False)):
        present = lesions[(lesions["day"] == day) & (lesions["volume_mm3"] > 0)]
        came = present[present["of"].isna() & ~present["lesion"].isin(known)]
        came = present if COMPLETE in so_far else came
        large = (came["slices"] >= SLICES) & (came["diameter_mm"] >= new_mm - TOLERANCE)
        new, left = came.loc[large, "lesion"].tolist(), len(present)
        all_seen = lesions.loc[lesions["day"] == day, "volume_mm3"].notna().all()
        by_length, grown = _category(longest, i, len(new), left, all_seen, PARTIAL, PROGRESSED, GROWN_MM)
        by_volume, _ = _category(volumes, i, len(new), left, all_seen, PARTIAL_VOLUME, PROGRESSED_VOLUME, GROWN_MM3)
        so_far.append(by_length)
        words = {True: "returned", False: "new"}
        by = [f"lesion {number}, {words[number in known]}" for number in new]
        if by_length == PROGRESSION and not by:
            by = [f"lesion {targets[grown.argmax()]}, {grown.max():+.0f} mm"]
        nadir = np.nanmin(sums[: max(i, 1)])
        change = [100 * (sums[i] / of - 1) if of else np.nan for of in (sums[0], nadir)]
        others = ", ".join(f"lesion {number}" for number in judged.loc[judged["day"] == day, "lesion"])
        facts = (case, day, len(targets), sums[i], *change, len(new), int((~large).sum()), others)
        rows.append((*facts, by_length, ", ".join(by), volumes[:, i].sum() / 1000, by_volume))
    columns = ["case", "day", "targets", "sum_mm", "change_pct", "from_nadir_pct", "new", "equivocal", "non_target"]
    table = pd.DataFrame(rows, columns=[*columns, "imaging", "by", "volume_cm3", "by_volume"])
    return table.assign(confirmed=_confirmed(table["day"].tolist(), so_far))


def target_lesions(first: pd.DataFrame) -> list[int]:
    """Numbers of one patient's target lesions, the largest first, from the lesions of the first date."""
    measurable = (first["diameter_mm"] >= LONGEST_MM) & (first["perpendicular_mm"] >= ACROSS_MM)
    measurable &= first["slices"] >= SLICES
    return first[measurable].nlargest(MOST_TARGETS, "diameter_mm")["lesion"].tolist()


def _of_targets(lesions: pd.DataFrame, targets: Sequence[int]) -> pd.DataFrame:
    """Rows of target lesions, of what was split from one, and of what one merged into; all with the target's number."""
    target = dict(zip(targets, targets, strict=True))
    split = lesions.loc[lesions["fate"] == "split", ["lesion", "of"]].drop_duplicates()
    for lesion, of in split.itertuples(index=False):  # in the order in which they came
        target |= {lesion: target[of]} if of in target else {}
    merged = lesions.loc[(lesions["fate"] == "merged") & lesions["lesion"].isin(target), ["lesion", "of", "day"]]
    merged = merged[~merged["of"].isin(target)].drop_duplicates(["of", "day"])
    into = merged.merge(lesions.drop(columns="of").rename(columns={"lesion": "of"}), on=["of", "day"])
    own = pd.concat([lesions[lesions["lesion"].isin(target)], into])
    return own.assign(lesion=own["lesion"].map(target))


def _of_dates(of_targets: pd.DataFrame, name: str, targets: Sequence[int], days: pd.Series) -> np.ndarray:
    """A measure of each target lesion (row) at each date, its parts added up; NaN where one was not imaged."""
    parts = of_targets.groupby(["lesion", "day"])[name].sum(skipna=False)
    every = parts.reindex(pd.MultiIndex.from_product([targets, days]), fill_value=0.0)
    return every.to_numpy(float).reshape(len(targets), len(days))


def _grown(lesions: pd.DataFrame) -> pd.DataFrame:
    """Rows of lesions that are larger than they were, as a target lesion would have to be for progression."""
    lesions = lesions.sort_values("day")
    diameter, least = lesions["diameter_mm"], lesions.groupby("lesion")["diameter_mm"].cummin()
    return lesions[diameter >= np.maximum(PROGRESSED * least, least + GROWN_MM) - TOLERANCE]


def _category(
    targets: np.ndarray, i: int, new: int, left: int, all_seen: bool, partial: float, progressed: float, least: float
) -> tuple[str, np.ndarray]:
    """Category of the date ``i`` from a measure of target lesions, shape (targets, dates); how much each has grown."""
    sums, now = targets.sum(axis=0), np.nan_to_num(targets[:, i])
    nadir = int(np.nanargmin(sums[: max(i, 1)]))  # the first date shows all of them
    grown = now - targets[:, nadir]
    if i == 0:
        category = FIRST
    elif new:
        category = PROGRESSION
    elif sums[0] == 0:
        category = UNRATED  # no target lesion
    elif now.sum() >= progressed * sums[nadir] - TOLERANCE and grown.max() >= least - TOLERANCE:
        category = PROGRESSION
    elif not all_seen:
        category = UNRATED
    elif sums[i] == 0 and left == 0:
        category = COMPLETE
    else:
        category = PARTLY if sums[i] <= partial * sums[0] + TOLERANCE else STABLE
    return category, grown


def _overall(imaging: str, facts: dict) -> str:
    """RANO-BM with what a clinician knows; an increase in steroids alone is no progression."""
    steroids, clinical, non_target = (facts.get(key) for key in ("steroids", "clinical", "non_target_progression"))
    if imaging in (FIRST, PROGRESSION):
        return imaging
    if clinical == "worse" or non_target == "yes":
        return PROGRESSION
    if imaging == UNRATED or clinical not in ("stable", "improved") or steroids not in ("none", "stable", "decreased"):
        return UNRATED
    return PARTLY if imaging == COMPLETE and steroids != "none" else imaging


def _confirmed(days: Sequence[int], imaging: Sequence[str]) -> list[bool]:
    """Whether each date's response lasts: it is as good or better up to the first date `SUSTAINED_DAYS` later."""
    lasting = []
    for i, day in enumerate(days):
        later = [j for j in range(i + 1, len(days)) if days[j] - day >= SUSTAINED_DAYS]
        as_good = {COMPLETE: {COMPLETE}, PARTLY: {COMPLETE, PARTLY}}.get(imaging[i], set())
        lasting.append(bool(later) and as_good.issuperset(imaging[i : later[0] + 1]))
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
        diameters since the first date; of the first later date if that shows progression), ``progressed_day`` (NaN
        without progression), ``last_day``.
    """
    rows = []
    for (model, patient), own in table[table["imaging"] != FIRST].groupby(["model", "patient"], sort=False):
        progressed = own["imaging"].eq(PROGRESSION)
        until = own[progressed.cumsum().eq(0)]
        known = [category for category in until["imaging"] if category in RESPONSES]
        best = min(known, key=RESPONSES.index) if known else PROGRESSION if progressed.any() else UNRATED
        change = (until if len(until) else own.iloc[:1])["change_pct"].min()
        rows.append((model, patient, best, change, own.loc[progressed, "day"].min(), own["day"].max()))
    return pd.DataFrame(rows, columns=["model", "patient", "best", "best_pct", "progressed_day", "last_day"])
