"""Learning curves that are redrawn in JupyterLab while a network trains; headless nothing is drawn until the end."""

import os
from collections.abc import Callable

import matplotlib.pyplot as plt
import pandas as pd
from IPython import get_ipython
from IPython.display import DisplayHandle

from metaseg_nb.figures.charts import learning_curve, score_column

# "1" or "0" overrides what the kernel says.
WATCHED = "METASEG_INTERACTIVE"


def somebody_watches() -> bool:
    """Tell whether this code was started from a browser, and not by papermill or nbconvert."""
    if WATCHED in os.environ:
        return os.environ[WATCHED] == "1"
    kernel = getattr(get_ipython(), "kernel", None)
    # JupyterLab signs its requests with no name, clients in Python with the user's
    return kernel is not None and kernel.get_parent().get("header", {}).get("username") == ""


def live_learning_curve(title: str) -> Callable[[pd.DataFrame], None]:
    """Make what `fit` calls with its history after each validation."""
    if not somebody_watches():
        return lambda history: None
    handle = DisplayHandle()
    handle.display(None)

    def redraw(history: pd.DataFrame) -> None:
        score = history[score_column(history)]
        best = history.loc[score == score.max(), "epoch"].max()
        figure = learning_curve(history, best, title)
        handle.update(figure)
        plt.close(figure)

    return redraw
