"""What readers did: how long it took with and without a proposal, and how far two readers of one case agree."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas as pd

from metaseg_nb.annotation.by_hand import NOTHING, PROPOSAL
from metaseg_nb.annotation.kept_masks import read_readings
from metaseg_nb.cohort.datalist import read_written
from metaseg_nb.cohort.problems import CohortError
from metaseg_nb.cohort.volumes import read_mask
from metaseg_nb.evaluation.intervals import percentiles, times_drawn
from metaseg_nb.evaluation.scoring import score
from metaseg_nb.layout import StudyLayout

AGREEMENT = ["case", "reader_1", "reader_2", "dice", "nsd_1mm", "lesions_1", "lesions_2", "lesions_in_both"]
# Median of nine physicians on ten cases of metastases, meningiomas and neuromas: Lu et al. 2021, Neuro-Oncology
# 23(9):1560-1568, doi:10.1093/neuonc/noab071.
PUBLISHED_SAVING = 0.308


def with_minutes(readings: pd.DataFrame) -> pd.DataFrame:
    """The finished readings, with ``minutes`` and ``minutes_per_lesion`` (NaN without lesions).

    Parameters
    ----------
    readings : DataFrame
        From `read_readings`.
    """
    done = readings[readings["finished"].astype(bool)]
    minutes = done["seconds"].astype(float) / 60
    return done.assign(minutes=minutes, minutes_per_lesion=minutes / done["n_lesions"].where(done["n_lesions"] > 0))


def require_counted(layout: StudyLayout) -> None:
    """Refuse tables of notebook 08 that are not as it wrote them, or from before the last mask was finished.

    Raises
    ------
    CohortError
        Says so, and names the command that makes them again.
    """
    counted, now = read_written(layout, layout.by_hand / "readings.csv"), with_minutes(read_readings(layout))
    if set(zip(counted["case"], counted["saved"], strict=True)) != set(zip(now["case"], now["saved"], strict=True)):
        found, fix = "masks finished since they were counted", "run notebook 08 again"
        command = f"`python -m metaseg_nb run 08_annotate --study {layout.study}`"
        raise CohortError.one("-", layout.by_hand_record, found, "counts of all finished masks", f"{fix}: {command}")


def saved_by_proposals(done: pd.DataFrame, n_bootstrap: int, seed: int) -> tuple[float, float, float]:
    """Share of the minutes that a proposal saves, with its 95 % interval.

    Only cases count for which chance decided. Cases with and without a proposal are resampled apart; of a case that
    several readers read the minutes are averaged first.

    Parameters
    ----------
    done : DataFrame
        From `with_minutes`.
    n_bootstrap, seed : int

    Returns
    -------
    saved, low, high : float
        1 minus the ratio of the mean minutes; negative where proposals cost time. NaN with fewer than two cases of
        either kind.
    """
    of_cases = done[done["by_chance"].astype(bool)].groupby(["begun_with", "case"])["minutes"].mean()
    kinds = [of_cases[of_cases.index.get_level_values(0) == how].to_numpy(float) for how in (PROPOSAL, NOTHING)]
    if min(map(len, kinds)) < 2:
        return np.nan, np.nan, np.nan
    drawn = [times_drawn(len(of), n_bootstrap, seed + i) @ of / len(of) for i, of in enumerate(kinds)]
    with np.errstate(divide="ignore", invalid="ignore"):
        return 1 - kinds[0].mean() / kinds[1].mean(), *percentiles(1 - drawn[0] / drawn[1], min(map(len, kinds)))


def reader_agreement(done: pd.DataFrame) -> pd.DataFrame:
    """Compare the masks of each two readers of one case.

    Parameters
    ----------
    done : DataFrame
        From `with_minutes`.

    Returns
    -------
    DataFrame
        `AGREEMENT`: a row per case and pair of readers. Two empty masks agree: 1. A lesion is in both where it touches
        one of the other reader, as in `lesion_metrics`.

    Raises
    ------
    CohortError
        A mask cannot be read.
    """
    rows: list[Sequence[object]] = []
    for case, of_case in done.sort_values("reader").groupby("case"):
        for first, second in combinations(of_case.itertuples(), 2):
            masks = [read_mask(one.mask, str(case)) for one in (first, second)]
            found, _ = score(*masks, case=str(case), files=(first.mask, second.mask))
            shared = [found[name] for name in ("dice", "nsd_1mm", "n_truth", "n_prediction", "n_detected")]
            rows.append((case, first.reader, second.reader, *shared))
    return pd.DataFrame(rows, columns=AGREEMENT)
