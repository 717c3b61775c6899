"""Many small pictures in one figure."""

import math

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

COLUMNS = 6


def grid_of_panels(n: int, columns: int = COLUMNS, size_inches: float = 1.85) -> tuple[Figure, list[Axes]]:
    """Make a figure with n panels, row by row; what is left of the last row stays blank."""
    columns = min(columns, n)
    rows = math.ceil(n / columns)
    figure, panels = plt.subplots(
        rows, columns, figsize=(columns * size_inches, rows * size_inches * 1.25), layout="constrained", squeeze=False
    )
    panels = panels.ravel().tolist()
    for panel in panels[n:]:
        panel.set_visible(False)
    return figure, panels[:n]
