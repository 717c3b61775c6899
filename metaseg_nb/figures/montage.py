"""Many small pictures in one figure."""

import math

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from metaseg_nb.figures.style import fitted

WIDTH_INCHES = 11.0
# More columns, and so smaller panels, for many.
FEW, MANY = 60, 200
TITLE_POINTS = 8


def grid_of_panels(n: int) -> tuple[Figure, list[Axes]]:
    """Make a figure with n panels, row by row; what is left of the last row stays blank."""
    columns = min(n, 6 if n <= FEW else 8 if n <= MANY else 10)
    size_inches = min(WIDTH_INCHES / columns, 4.0)
    rows = math.ceil(n / columns)
    figure, panels = plt.subplots(
        rows, columns, figsize=(columns * size_inches, rows * size_inches * 1.25), layout="constrained", squeeze=False
    )
    panels = panels.ravel().tolist()
    for panel in panels[n:]:
        panel.set_visible(False)
    return figure, panels[:n]


def title_panel(panel: Axes, *lines: str) -> None:
    """Write lines above a panel of `grid_of_panels`, none wider than the panel."""
    inches = panel.figure.get_figwidth() / panel.get_subplotspec().get_gridspec().ncols
    words = [fitted(line, inches, TITLE_POINTS) for line in lines]
    panel.set_title("\n".join(words), fontsize=TITLE_POINTS, fontweight="normal")
