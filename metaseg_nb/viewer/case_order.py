"""The cases of a study in the order in which one wants to look at them."""

import pandas as pd

# Column of the metrics, and whether small comes first.
ORDERS = {
    "Dice, worst first": ("dice", True),
    "missed lesions": ("n_missed", False),
    "false positives": ("n_false", False),
    "name": ("case", True),
}
ALL_FOLDS = -1


def ordered_cases(metrics: pd.DataFrame, model: str, fold: int, order: str) -> pd.DataFrame:
    """Rows of one network's metrics, sorted.

    Parameters
    ----------
    metrics : DataFrame
        Pooled, from notebook 04.
    model : str
        Whose Dice, missed lesions and false positives count.
    fold : int
        Of which the cases are, or `ALL_FOLDS`.
    order : str
        One of `ORDERS`.
    """
    rows = metrics[(metrics["model"] == model) & metrics["fold"].isin([fold] if fold != ALL_FOLDS else metrics["fold"])]
    column, ascending = ORDERS[order]
    return rows.sort_values([column, "case"], ascending=[ascending, True], ignore_index=True)
