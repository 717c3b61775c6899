"""How fast a lesion grows: change in volume, per month, and doubling time with an interval."""

import numpy as np
import pandas as pd

DAYS_PER_MONTH = 365.25 / 12
# Of the standard normal distribution, for 95 % intervals.
Z = 1.96


def with_growth(lesions: pd.DataFrame, volume_error: float) -> pd.DataFrame:
    """Add how each lesion's volume changes.

    Growth between two dates is taken as exponential. Errors of the two volumes are independent, and normal on the scale
    of logarithms.

    Parameters
    ----------
    lesions : DataFrame
        From `follow_study`: a row per (``model``, ``patient``, ``lesion``, date), with ``day`` and ``volume_mm3``.
    volume_error : float
        Standard error of one volume as a share of it, such as 0.1.

    Returns
    -------
    DataFrame
        With ``change_pct`` (of the volume since the lesion's first date), ``monthly_pct`` (since the date before),
        ``doubling_days`` (since the date before; negative: the volume halves in so many days), and
        ``fastest_doubling_days`` and ``slowest_doubling_days``, the 95 % interval of it. Of a lesion that shrinks they
        are negative. Where growth cannot be told from the error, the slowest is infinite: it may also shrink. NaN where
        a lesion is not there at one of the dates.

    References
    ----------
    Schwartz 1961 (Cancer 14:1272): doubling time of exponential growth.
    """
    lesions = lesions.sort_values(["model", "patient", "lesion", "day"], ignore_index=True)
    of_lesion = lesions.groupby(["model", "patient", "lesion"], sort=False)
    volume = lesions["volume_mm3"].where(lesions["volume_mm3"] > 0)
    before = of_lesion["volume_mm3"].shift().where(lambda volumes: volumes > 0)
    days = of_lesion["day"].diff()
    rate = np.log(volume / before) / days  # per day
    error = Z * np.sqrt(2) * volume_error / days
    towards = np.sign(rate).where(rate != 0, 1.0)  # as a growing one: an equal volume may have grown, too
    slowest = (rate.abs() - error).clip(lower=0) * towards
    return lesions.assign(
        change_pct=100 * (lesions["volume_mm3"] / of_lesion["volume_mm3"].transform("first") - 1),
        monthly_pct=100 * np.expm1(rate * DAYS_PER_MONTH),
        doubling_days=np.log(2) / rate,
        fastest_doubling_days=np.log(2) / ((rate.abs() + error) * towards),
        slowest_doubling_days=np.log(2) / slowest,
    )
